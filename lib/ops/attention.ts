// Attention and rotary position embedding.

import { autocasting } from '../autograd/autocast'
import { BOOL, FLOAT32, FLOAT64, INT64, isFloatingCode } from '../dtype'
import { ArgumentError, DTypeError, describeShape, describeValue, ShapeError } from '../errors'
import { readOptions } from '../options'
import { defaultGenerator } from '../random'
import { tidy } from '../tensor/scope'
import { type Shape, Tensor } from '../tensor/tensor'
import { autocast } from './autocast'
import { sumTo } from './broadcast'
import {
  type Backward,
  expectFloating,
  expectTensor,
  type NativeOp,
  native,
  needsGrad,
  type OpRecord,
  record,
  run,
  runMany,
} from './registry'
import { reshape } from './shape'

const attentionOp = native('attention', 'scale,causal,seed,offset,p,left,right,blockQueries,blockKeys')
const attentionBackwardOp = native(
  'attentionBackward',
  'scale,causal,seed,offset,p,left,right,blockQueries,blockKeys,fused',
)
const copyOp = native('copy')
const ropeOp = native('rope', 'interleaved,inverse')

/** Options of scaledDotProductAttention. */
export interface AttentionOptions {
  /** Broadcasts to [B, H, L, S]: bool (true takes part) or floating (added to the scores). */
  attnMask?: Tensor | null
  /** Probability with which an attention weight is dropped; default 0. Applied whenever it is not 0: pass 0 outside
   *  of training. */
  dropoutP?: number
  /** Query i sees keys 0 to i, also when L and S differ; may be combined with a mask. Default false. */
  isCausal?: boolean
  /** Factor of the scores; default 1 / sqrt(D). */
  scale?: number | null
  /** Allows fewer heads of key and value than of query; default false. */
  enableGqa?: boolean
}

const attentionOptions = ['attnMask', 'dropoutP', 'isCausal', 'scale', 'enableGqa'] as const

/** [B, T, H, D] memory seen as [B, H, T, D]. */
function byHeads(x: Tensor): Tensor {
  const [B, T, H, D] = x.shape as [number, number, number, number]
  const [b, t, h, d] = x.strides as [number, number, number, number]
  return Tensor._view(x, [B, H, T, D], [b, h, t, d], x._offset)
}

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
      x.strides.every((stride, d) => stride === expected[d]),
  )
}

function fusedGradients(inputs: Tensor[], q: Tensor, attrs: readonly number[]): Tensor[] {
  const [B, H, T, D] = q.shape as [number, number, number, number]
  const outputs = [[B, T, 3, H, D], [0], [0]].map((shape): [Shape, number] => [shape, q._dtype])
  const whole = runMany(attentionBackwardOp, inputs, outputs, [...attrs, 1])[0]!
  return [0, 1, 2].map((i) => Tensor._view(whole, [B, H, T, D], [3 * T * H * D, D, 3 * H * D, 1], i * H * D))
}

const matmulOp = native('matmul', 'alpha,beta')
const softmaxOp = native('softmax', 'dim')
const dropoutOp = native('dropout', 'seed,offset,p')
const maskedFillOp = native('maskedFill', 'value')
const arangeOp = native('arange', 'start,step')
const [addOp, subOp] = [native('add', 'scalar,reversed,alpha'), native('sub', 'scalar,reversed,alpha')]
const [mulOp, eqOp, gtOp] = ['mul', 'eq', 'gt'].map((name) => native(name, 'scalar,reversed')) as NativeOp[]
const sumOp = native('sum', 'dims')

// The gradient of an additive mask (relative position biases) is that of the scores, P * (dP - rowsum(dO * O)), which
// the fused kernel never holds: here they are made once, O(L S), only when the mask requires a gradient.
function maskGradient(saved: readonly Tensor[], g: Tensor, attrs: readonly number[]): Tensor {
  const [q, k, v, out, logsumexp, mask] = saved as [Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
  const [scale, causal, seed, offset, p] = attrs as [number, number, number, number, number]
  const [B, H, L] = q.shape as [number, number, number]
  const S = k.shape[2]!
  const shape = [B, H, L, S]
  const type = q._dtype
  const rows = [B, H, L, 1]
  const perHead = (x: Tensor): Tensor => swapLast(shareHeads(x, H))
  const products = run(matmulOp, [q, perHead(k)], shape, type, [scale, 0])
  let scores = run(addOp!, [products, mask], shape, type, [0, 0, 1])
  if (causal) {
    const positions = (n: number, of: Shape): Tensor => reshape(run(arangeOp, [], [n], INT64, [0, 1]), of as number[])
    const future = run(gtOp!, [positions(S, [1, S]), positions(L, [L, 1])], [L, S], BOOL, [0, 0])
    scores = run(maskedFillOp, [scores, future], shape, type, [Number.NEGATIVE_INFINITY])
  }
  const dead = run(eqOp!, [reshape(logsumexp, rows)], rows, BOOL, [Number.NEGATIVE_INFINITY, 0])
  const weights = run(maskedFillOp, [run(softmaxOp, [scores], shape, type, [3]), dead], shape, type, [0])
  let dweights = run(matmulOp, [g, perHead(v)], shape, type, [1, 0])
  if (p > 0) dweights = run(dropoutOp, [dweights], shape, type, [seed, offset, p])
  const mean = run(sumOp, [run(mulOp!, [g, out], g.shape, type, [0, 0])], rows, type, [2 ** 3])
  const centred = run(subOp!, [dweights, mean], shape, type, [0, 0, 1])
  const dscores = sumTo(run(mulOp!, [weights, centred], shape, type, [0, 0]), mask.shape)
  return mask._dtype === type ? dscores : run(copyOp, [dscores], mask.shape, mask._dtype)
}

function swapLast(x: Tensor): Tensor {
  const [B, H, T, D] = x.shape as [number, number, number, number]
  const [b, h, t, d] = x.strides as [number, number, number, number]
  return Tensor._view(x, [B, H, D, T], [b, h, d, t], x._offset)
}

/** Each of the fewer heads of key or value for all the query heads that it serves. */
function shareHeads(x: Tensor, heads: number): Tensor {
  const [B, kvHeads, S, D] = x.shape as [number, number, number, number]
  if (kvHeads === heads) return x
  const group = heads / kvHeads
  const [b, h, s, d] = x.strides as [number, number, number, number]
  const shared = Tensor._view(x, [B, kvHeads, group, S, D], [b, h, 0, s, d], x._offset)
  return reshape(shared, [B, heads, S, D])
}

function backwardOf(attrs: readonly number[], fused: boolean, masked: boolean): Backward {
  return (context, g) => {
    const saved = [0, 1, 2, 3, 4].map((i) => context.saved(i))
    const [q] = saved as [Tensor]
    const inputs = [g, ...saved]
    if (masked) {
      saved.push(context.saved(5))
      inputs.push(context.saved(5))
    }
    const dmask = masked && context.needs(3) ? maskGradient(saved, g, attrs) : null
    if (fused) return [...fusedGradients(inputs, q, attrs), dmask]
    const outputs = saved.slice(0, 3).map(({ shape: [B, H, T, D], _dtype }): [Shape, number] => {
      return [[B!, T!, H!, D!], _dtype]
    })
    return [...runMany(attentionBackwardOp, inputs, outputs, [...attrs, 0]).map(byHeads), dmask]
  }
}

const attentionRecord: OpRecord = { name: 'scaledDotProductAttention', autocast: 'lower', backward: () => null }

function expectOperands(op: string, q: Tensor, k: Tensor, v: Tensor, enableGqa: boolean): void {
  const all = (): string =>
    `query ${describeShape(q.shape)}, key ${describeShape(k.shape)}, value ${describeShape(v.shape)}`
  for (const [name, x] of [
    ['query', q],
    ['key', k],
    ['value', v],
  ] as const) {
    expectFloating(op, name, x)
    if (x.ndim < 2 || x.ndim > 4 || x.ndim !== q.ndim) {
      throw new ShapeError(op, {
        problem: 'wrong number of dims',
        got: all(),
        expected: '[B, H, T, D], [H, T, D] or [T, D]',
      })
    }
    if (x._dtype !== q._dtype) {
      throw new DTypeError(op, {
        problem: 'dtypes differ',
        got: `query ${q.dtype}, key ${k.dtype}, value ${v.dtype}`,
        action: 'convert them with to()',
      })
    }
  }
  const [B, H, , D] = fourDims(q.shape)
  const [kB, kH, kS, kD] = fourDims(k.shape)
  const [vB, vH, vS] = fourDims(v.shape)
  if (kB !== B || vB !== B || kS !== vS || kD !== D || kH !== vH) {
    throw new ShapeError(op, {
      problem: 'the operands do not fit together',
      got: all(),
      expected: 'query [B, H, L, D], key [B, H, S, D], value [B, H, S, E]',
    })
  }
  if (kH !== H && !(enableGqa && kH > 0 && H % kH === 0)) {
    throw new ShapeError(op, {
      problem: 'numbers of heads differ',
      got: `${H} of query, ${kH} of key and value`,
      expected: enableGqa ? "a divisor of the query's" : 'equal numbers',
      action: 'enableGqa lets several heads of query share one of key and value',
    })
  }
}

function fourDims(shape: Shape): [number, number, number, number] {
  return [...Array<number>(Math.max(0, 4 - shape.length)).fill(1), ...shape] as [number, number, number, number]
}

function expectMask(op: string, mask: Tensor, scores: Shape): void {
  expectTensor(op, 'attnMask', mask)
  if (mask._dtype !== BOOL && !isFloatingCode(mask._dtype)) {
    throw new DTypeError(op, {
      problem: 'attnMask is neither bool nor floating',
      got: mask.dtype,
      expected: "bool (true takes part) or an additive mask; convert 0 and 1 with .to('bool')",
    })
  }
  const from = scores.length - mask.ndim
  if (from < 0 || mask.shape.some((size, d) => size !== 1 && size !== scores[from + d])) {
    throw new ShapeError(op, {
      problem: 'attnMask does not broadcast to the scores',
      got: describeShape(mask.shape),
      expected: `a shape that broadcasts to ${describeShape(scores)} (batch, heads, queries, keys)`,
    })
  }
}

/** softmax(query key' * scale + mask) value, without ever holding the scores: memory is O(T).
 *  query [B, H, L, D], key [B, H, S, D], value [B, H, S, E] in any strides, or without the leading dims -> [B, H, L, E],
 *  whose memory is [B, L, H, E], so that merging the heads again copies nothing. 16-bit types compute in float32.
 *  A query that sees no key gives 0 and gets gradient 0. An additive mask may require a gradient;
 *  then backward, and only it, holds the scores.
 *  @throws ShapeError when shapes do not fit; DTypeError when dtypes differ; ArgumentError for a dropout outside [0, 1]
 *  @see Dao et al. 2022, arXiv:2205.14135;
 *    https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.scaled_dot_product_attention.html
 *  @example scaledDotProductAttention(q, k, v, { isCausal: true }).shape // [2, 8, 64, 32] */
export function scaledDotProductAttention(
  query: Tensor,
  key: Tensor,
  value: Tensor,
  given: AttentionOptions = {},
): Tensor {
  const op = 'scaledDotProductAttention'
  readOptions(op, given, attentionOptions)
  const { attnMask = null, dropoutP = 0, isCausal = false, scale = null, enableGqa = false } = given
  expectTensor(op, 'query', query)
  expectTensor(op, 'key', key)
  expectTensor(op, 'value', value)
  if (autocasting) {
    query = autocast(op, query)
    key = autocast(op, key)
    value = autocast(op, value)
  }
  expectOperands(op, query, key, value, enableGqa)
  if (!(dropoutP >= 0 && dropoutP <= 1)) {
    throw new ArgumentError(op, { problem: 'not a probability', got: describeValue(dropoutP), expected: '0 to 1' })
  }
  const factor = scale ?? 1 / Math.sqrt(query.shape[query.ndim - 1]!)
  if (!Number.isFinite(factor)) {
    throw new ArgumentError(op, { problem: 'not a scale', got: describeValue(factor), expected: 'a finite number' })
  }
  if (query.ndim < 4) {
    const options = { attnMask, dropoutP, isCausal, scale: factor, enableGqa }
    return tidy(() => {
      const [q, k, v] = [query, key, value].map((x) => reshape(x, fourDims(x.shape))) as [Tensor, Tensor, Tensor]
      const out = scaledDotProductAttention(q, k, v, options)
      return reshape(out, [...query.shape.slice(0, -1), value.shape[value.ndim - 1]!])
    })
  }
  const [B, H, L] = query.shape as [number, number, number]
  const S = key.shape[2]!
  const E = value.shape[3]!
  if (attnMask !== null) expectMask(op, attnMask, [B, H, L, S])
  const random = dropoutP > 0 ? defaultGenerator.take(B * H * L * S) : { seed: 0, offset: 0 }
  const attrs = [factor, isCausal ? 1 : 0, random.seed, random.offset, dropoutP, -1, -1, 1, 1]
  const statistics = query._dtype === FLOAT64 ? FLOAT64 : FLOAT32
  const inputs = attnMask === null ? [query, key, value] : [query, key, value, attnMask]
  const [merged, logsumexp] = runMany(
    attentionOp,
    inputs,
    [
      [[B, L, H, E], query._dtype],
      [[B, H, L], statistics],
    ],
    attrs,
  ) as [Tensor, Tensor]
  const out = byHeads(merged)
  const operands = [query, key, value, attnMask]
  if (needsGrad(operands)) {
    const saved = [query, key, value, out, logsumexp]
    if (attnMask !== null) saved.push(attnMask)
    record(attentionRecord, out, operands, saved, backwardOf(attrs, isFused(query, key, value), attnMask !== null))
  }
  for (const each of [merged, logsumexp]) each.dispose() // the result's and the tape's from here on
  return out
}

// --- rotary position embedding ------------------------------------------------------------------------------------

const ropeRecord: OpRecord = { name: 'rope', autocast: 'keep', backward: () => null }

/** Rotary position embedding: turns pairs of features by position, x cos + rotate(x) sin.
 *  x [..., T, D] with even D; cos, sin broadcast to x. A pair is (i, i + D/2), as in Llama, or (2i, 2i + 1) when
 *  `interleaved`, as in GPT-J. cos and sin get no gradient.
 *  @throws ShapeError when D is odd or the tables do not broadcast
 *  @see Su et al. 2021, arXiv:2104.09864
 *  @example rope(q, cos, sin).shape // [2, 8, 64, 32] */
export function rope(
  x: Tensor,
  cos: Tensor,
  sin: Tensor,
  { interleaved = false }: { interleaved?: boolean } = {},
): Tensor {
  for (const [name, each] of [
    ['x', x],
    ['cos', cos],
    ['sin', sin],
  ] as const) {
    expectTensor('rope', name, each)
    expectFloating('rope', name, each)
  }
  const turn = (from: Tensor, tables: readonly [Tensor, Tensor], inverse: boolean): Tensor =>
    run(ropeOp, [from, ...tables], from.shape, from._dtype, [interleaved ? 1 : 0, inverse ? 1 : 0])
  const out = turn(x, [cos, sin], false)
  if (!needsGrad([x])) return out
  return record(ropeRecord, out, [x], [cos, sin], (context, g) => turn(g, [context.saved(0), context.saved(1)], true))
}
