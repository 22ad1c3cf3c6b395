// Scaled dot-product attention.

import { isFloatingCode, statisticsDType } from '../dtype'
import { expectProbability, readOptions } from '../options'
import { defaultGenerator } from '../random'
import { tidy } from '../tensor/scope'
import { type Shape, Tensor } from '../tensor/tensor'
import {
  type AttentionCall,
  type AttentionOptions,
  attentionAttributes,
  attentionOptions,
  expectOperands,
  fourDims,
  inOneDtype,
  readCall,
  readScale,
} from './attentionCall'
import { sumTo } from './broadcast'
import { type Backward, native, needsGrad, type OpRecord, record, run, runMany } from './registry'
import { reshape } from './shape'

const attentionOp = native('attention', attentionAttributes)
const attentionBackwardOp = native('attentionBackward', `${attentionAttributes},layout`)
const attentionWeightsOp = native('attentionWeights', attentionAttributes)
const copyOp = native('copy')
const matmulOp = native('matmul', 'alpha,beta')
const dropoutOp = native('dropout', 'seed,offset,p')
const subOp = native('sub', 'scalar,reversed,alpha')
const mulOp = native('mul', 'scalar,reversed')
const sumOp = native('sum', 'dims')

/** [B, T, H, D] memory seen as [B, H, T, D]. */
function byHeads(x: Tensor): Tensor {
  const [B, T, H, D] = x.shape as [number, number, number, number]
  const [b, t, h, d] = x.strides as [number, number, number, number]
  return Tensor._view(x, [B, H, T, D], [b, h, t, d], x._offset)
}

/** @internal [B, H, T, D] seen as [B, H, D, T]. */
export function swapLast(x: Tensor): Tensor {
  const [B, H, T, D] = x.shape as [number, number, number, number]
  const [b, h, t, d] = x.strides as [number, number, number, number]
  return Tensor._view(x, [B, H, D, T], [b, h, d, t], x._offset)
}

/** @internal Each of the fewer heads of key or value for all the query heads that it serves. */
export function shareHeads(x: Tensor, heads: number): Tensor {
  const [B, kvHeads, S, D] = x.shape as [number, number, number, number]
  if (kvHeads === heads) return x
  const group = heads / kvHeads
  const [b, h, s, d] = x.strides as [number, number, number, number]
  const shared = Tensor._view(x, [B, kvHeads, group, S, D], [b, h, 0, s, d], x._offset)
  return reshape(shared, [B, heads, S, D])
}

// --- gradients ----------------------------------------------------------------------------------------------------

// Query, key and value that were cut from one projection [B, T, 3, H, D] get gradients that lie the same way: then the
// gradient of the cut has nothing to copy.
function isFused(q: Tensor, k: Tensor, v: Tensor): boolean {
  const base = q._base
  if (base === null || base !== k._base || base !== v._base || base.numel !== 3 * q.numel || q.numel === 0) return false
  const [, H, T, D] = q.shape as [number, number, number, number]
  const expected = [3 * T * H * D, D, 3 * H * D, 1]
  return [q, k, v].every(
    (x, i) =>
      x._offset - q._offset === i * H * D &&
      x.shape.every((size, d) => size === q.shape[d]) &&
      x.strides.every((stride, d) => stride === expected[d] || (d === 0 && q.shape[0] === 1)),
  )
}

// How the gradients of query, key and value lie in memory: [B, T, H, D] each, as heads are cut from a projection;
// [B, T, 3, H, D], as all three are cut from one; [B, H, T, D] each.
const layouts = { merged: 0, fused: 1, byHeads: 2 } as const
type Layout = (typeof layouts)[keyof typeof layouts]

// As their operands: then what they are accumulated into has nothing to copy.
function layoutOf(q: Tensor, k: Tensor, v: Tensor): Layout {
  if (isFused(q, k, v)) return layouts.fused
  return [q, k, v].every((x) => x.isContiguous) ? layouts.byHeads : layouts.merged
}

function fusedGradients(inputs: (Tensor | null)[], q: Tensor, attrs: readonly number[]): Tensor[] {
  const [B, H, T, D] = q.shape as [number, number, number, number]
  const outputs = [[B, T, 3, H, D], [0], [0]].map((shape): [Shape, number] => [shape, q._dtype])
  const whole = runMany(attentionBackwardOp, inputs, outputs, [...attrs, layouts.fused])[0]!
  return [0, 1, 2].map((i) => Tensor._view(whole, [B, H, T, D], [3 * T * H * D, D, 3 * H * D, 1], i * H * D))
}

/** @internal P * (dP - mean): the gradient of the scores, whole. */
export function scoreGradient(weights: Tensor, dweights: Tensor, mean: Tensor): Tensor {
  const { shape, _dtype: type } = weights
  const centred = run(subOp, [dweights, mean], shape, type, [0, 0, 1])
  return run(mulOp, [weights, centred], shape, type, [0, 0])
}

/** @internal Gradient of an additive mask from that of the scores. */
export function toMask(dscores: Tensor, mask: Tensor): Tensor {
  const summed = sumTo(dscores, mask.shape)
  return mask._dtype === summed._dtype ? summed : run(copyOp, [summed], mask.shape, mask._dtype)
}

/** @internal Sum of the products over the last dim, [B, H, L, 1]. */
export function rowDot(a: Tensor, b: Tensor): Tensor {
  const [B, H, L] = a.shape as [number, number, number]
  return run(sumOp, [run(mulOp, [a, b], a.shape, a._dtype, [0, 0])], [B, H, L, 1], a._dtype, [2 ** 3])
}

/** @internal The probabilities [B, H, L, S] of a call, from its logsumexp. */
export function probabilities(q: Tensor, k: Tensor, logsumexp: Tensor, { masks, attrs }: AttentionCall): Tensor {
  const [B, H, L] = q.shape as [number, number, number]
  return run(attentionWeightsOp, [q, k, logsumexp, ...masks], [B, H, L, k.shape[2]!], q._dtype, attrs)
}

// The gradient of an additive mask (relative position biases) is that of the scores, P * (dP - rowsum(dO * O)), which
// the fused kernel never holds: here they are made once, O(L S), only when the mask requires a gradient.
function maskGradient(saved: readonly Tensor[], g: Tensor, call: AttentionCall): Tensor {
  const [q, k, v, out, logsumexp] = saved as [Tensor, Tensor, Tensor, Tensor, Tensor]
  const [seed, offset, p] = call.attrs.slice(2) as [number, number, number]
  const type = q._dtype
  const weights = probabilities(q, k, logsumexp, call)
  let dweights = run(matmulOp, [g, swapLast(shareHeads(v, q.shape[1]!))], weights.shape, type, [1, 0])
  if (p > 0) dweights = run(dropoutOp, [dweights], weights.shape, type, [seed, offset, p])
  return toMask(scoreGradient(weights, dweights, rowDot(g, out)), call.masks[0]!)
}

function separateGradients(
  inputs: (Tensor | null)[],
  operands: Tensor[],
  attrs: readonly number[],
  layout: Layout,
): Tensor[] {
  const merged = layout === layouts.merged
  const outputs = operands.map(({ shape: [B, H, T, D], _dtype }): [Shape, number] => {
    return [merged ? [B!, T!, H!, D!] : [B!, H!, T!, D!], _dtype]
  })
  const made = runMany(attentionBackwardOp, inputs, outputs, [...attrs, layout])
  return merged ? made.map(byHeads) : made
}

function backwardOf(attrs: readonly number[], layout: Layout, present: readonly boolean[]): Backward {
  return (context, g) => {
    const saved = [0, 1, 2, 3, 4].map((i) => context.saved(i))
    let next = 5
    const masks = present.map((is) => (is ? context.saved(next++) : null))
    const [q] = saved as [Tensor]
    const inputs = [g, ...saved, ...masks]
    const dmask = context.needs(3) ? maskGradient(saved, g, { masks, attrs, made: [] }) : null
    const gradients =
      layout === layouts.fused
        ? fusedGradients(inputs, q, attrs)
        : separateGradients(inputs, saved.slice(0, 3), attrs, layout)
    return [...gradients, dmask]
  }
}

const attentionRecord: OpRecord = { name: 'scaledDotProductAttention', autocast: 'lower', backward: () => null }

// --- the operator -------------------------------------------------------------------------------------------------

/** @internal Attention of [B, H, L, D], recorded: the output and the logsumexp [B, H, L] (beside an additive mask
 *  maximum and sum, [2, B, H, L]), which is the caller's to dispose of as what was made for the call. */
export function attend(query: Tensor, key: Tensor, value: Tensor, call: AttentionCall): [out: Tensor, lse: Tensor] {
  const [B, H, L] = query.shape as [number, number, number]
  const { masks, attrs } = call
  const rows: Shape = masks[0] && isFloatingCode(masks[0]._dtype) ? [2, B, H, L] : [B, H, L]
  const [merged, logsumexp] = runMany(
    attentionOp,
    [query, key, value, ...masks],
    [
      [[B, L, H, value.shape[3]!], query._dtype],
      [rows, statisticsDType(query._dtype)],
    ],
    attrs,
  ) as [Tensor, Tensor]
  const out = byHeads(merged)
  const operands = [query, key, value, masks[0]!]
  if (needsGrad(operands)) {
    const saved = [query, key, value, out, logsumexp, ...masks.filter((mask) => mask !== null)]
    const present = masks.map((mask) => mask !== null)
    record(attentionRecord, out, operands, saved, backwardOf(attrs, layoutOf(query, key, value), present))
  }
  merged.dispose() // the result's from here on
  return [out, logsumexp]
}

/** @internal Gives back what only the tape may need longer. */
export function release(tensors: readonly Tensor[]): void {
  for (const each of tensors) each.dispose()
}

/** @internal Runs `fn` on operands of four dims, and takes the added ones from its results, whose first two dims they
 *  are. */
export function inFourDims<R extends readonly Tensor[]>(
  [query, key, value]: readonly [Tensor, Tensor, Tensor],
  fn: (query: Tensor, key: Tensor, value: Tensor) => R,
): R {
  if (query.ndim === 4) return fn(query, key, value)
  const added = 4 - query.ndim
  return tidy(() => {
    const [q, k, v] = [query, key, value].map((x) => reshape(x, fourDims(x.shape))) as [Tensor, Tensor, Tensor]
    return fn(q, k, v).map((x) => reshape(x, x.shape.slice(added))) as readonly Tensor[] as R
  })
}

/** softmax(query key' * scale + mask) value, without ever holding the scores: memory is O(T).
 *  query [B, H, L, D], key [B, H, S, D], value [B, H, S, E] in any strides, or without the leading dims -> [B, H, L, E],
 *  whose memory is [B, L, H, E], so that merging the heads again copies nothing. 16-bit types are summed up in float32;
 *  for bfloat16 on processors that multiply it, the probabilities are rounded to bfloat16 before they meet the values.
 *  A query that sees no key gives 0 and gets gradient 0. An additive mask may require a gradient;
 *  then backward, and only it, holds the scores.
 *  @throws ShapeError when shapes do not fit; DTypeError when dtypes differ; ArgumentError for a dropout outside [0, 1]
 *    or a window that is none; IndexError for a length of keyLengths outside [0, S]
 *  @see Dao et al. 2022, arXiv:2205.14135;
 *    https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.scaled_dot_product_attention.html
 *  @example scaledDotProductAttention(q, k, v, { isCausal: true, windowSize: 16 }).shape // [2, 8, 64, 32] */
export function scaledDotProductAttention(
  query: Tensor,
  key: Tensor,
  value: Tensor,
  given: AttentionOptions = {},
): Tensor {
  const op = 'scaledDotProductAttention'
  readOptions(op, given, attentionOptions, 'pass a mask as { attnMask }')
  const operands = expectAttention(op, query, key, value, given)
  const [out] = inFourDims(operands, (q, k, v) => {
    const call = callOf(op, q, k, given)
    const [result, logsumexp] = attend(q, k, v, call)
    release([logsumexp, ...call.made])
    return [result] as const
  })
  return out
}

/** @internal The operands in one dtype. Throws unless they and the probabilities are what attention takes. */
export function expectAttention(
  op: string,
  query: Tensor,
  key: Tensor,
  value: Tensor,
  { dropoutP = 0, enableGqa = false }: AttentionOptions,
): [Tensor, Tensor, Tensor] {
  const operands = inOneDtype(op, query, key, value)
  expectOperands(op, ...operands, enableGqa)
  expectProbability(op, 'dropoutP', dropoutP)
  return operands
}

/** @internal The call of operands [B, H, L, D] and [B, Hkv, S, D], with random numbers of its own. */
export function callOf(op: string, q: Tensor, k: Tensor, options: AttentionOptions): AttentionCall {
  const [B, H, L, D] = q.shape as [number, number, number, number]
  const S = k.shape[2]!
  const scale = readScale(op, options.scale, D)
  const call = readCall(op, options, q, [B, H, L, S], scale)
  if (!options.dropoutP) return call
  const { seed, offset } = defaultGenerator.take(B * H * L * S)
  return { ...call, attrs: call.attrs.map((value, i) => (i === 2 ? seed : i === 3 ? offset : value)) }
}
