// Multi-head attention.

import type { DType } from '../dtype'
import { DTypeError, describeShape, ShapeError } from '../errors'
import { attentionWithWeights, linear, logicalNot, maskedFill, scaledDotProductAttention } from '../ops/index'
import { expectCount, expectProbability, readOptions } from '../options'
import { type TensorOptions, zeros } from '../tensor/create'
import type { Tensor } from '../tensor/tensor'
import { placement } from './arguments'
import { isSkipped, xavierUniform_, zeros_ } from './init/basic'
import { Linear } from './linear'
import { Module } from './module'
import { parameter } from './parameter'

// --- the module -------------------------------------------------------------------------------------------------------

/** Options of `MultiheadAttention`. */
export interface MultiheadAttentionOptions extends Pick<TensorOptions, 'dtype' | 'device'> {
  /** Dropout of the attention probabilities; default 0. */
  dropout?: number
  /** The projections have biases; default true. */
  bias?: boolean
  /** Inputs are [B, T, C] rather than [T, B, C]; default false, as in PyTorch. */
  batchFirst?: boolean
}

/** What a call of `MultiheadAttention` takes beside query, key and value. */
export interface MultiheadAttentionCall {
  /** [B, S], or [S] without the batch dim: true where a key is hidden, or numbers that are added to its scores. */
  keyPaddingMask?: Tensor | null
  /** [L, S] or [B * numHeads, L, S]: true where a key is hidden from a query, or numbers that are added. */
  attnMask?: Tensor | null
  /** Returns the probabilities as well, which keeps the fused kernel from being used; default true, as in PyTorch. */
  needWeights?: boolean
  /** The probabilities' mean over the heads, [B, L, S], instead of [B, H, L, S]; default true. */
  averageAttnWeights?: boolean
  /** Hides from each query the keys behind it; needs no attnMask. Default false. */
  isCausal?: boolean
}

const callOptions = ['keyPaddingMask', 'attnMask', 'needWeights', 'averageAttnWeights', 'isCausal'] as const

/** Attention of several heads between projections of query, key and value.
 *  query [L, B, C], key and value [S, B, C] (with `batchFirst` [B, L, C] and [B, S, C]; or without the batch dim)
 *  -> output like query, and probabilities or null. Parameters have PyTorch's names, so state dicts fit both ways.
 *  @throws ShapeError when embedDim is not a multiple of numHeads or an input has another width
 *  @see Vaswani et al. 2017, arXiv:1706.03762; https://docs.pytorch.org/docs/stable/generated/torch.nn.MultiheadAttention.html
 *  @example
 *  const attention = new nn.MultiheadAttention(64, 4, { batchFirst: true })
 *  const [y] = attention.forward(x, x, x, { needWeights: false, isCausal: true }) */
export class MultiheadAttention extends Module {
  readonly embedDim: number
  readonly numHeads: number
  readonly headDim: number
  readonly dropout: number
  readonly batchFirst: boolean
  in_proj_weight: Tensor
  in_proj_bias: Tensor | null
  out_proj: Linear

  constructor(embedDim: number, numHeads: number, given: MultiheadAttentionOptions = {}) {
    super()
    const names = ['dropout', 'bias', 'batchFirst', ...placement] as const
    const { dropout = 0, bias = true, batchFirst = false, ...options } = readOptions('MultiheadAttention', given, names)
    this.embedDim = expectCount('MultiheadAttention', 'embedDim', embedDim)
    this.numHeads = expectCount('MultiheadAttention', 'numHeads', numHeads)
    if (embedDim % numHeads !== 0) {
      throw new ShapeError('MultiheadAttention', {
        problem: 'the heads do not divide the width',
        got: `embedDim ${embedDim} and numHeads ${numHeads}`,
        expected: 'a multiple of numHeads',
      })
    }
    this.headDim = embedDim / numHeads
    this.dropout = expectProbability('MultiheadAttention', 'dropout', dropout)
    this.batchFirst = batchFirst
    this.in_proj_weight = parameter(zeros([3 * embedDim, embedDim], options))
    this.in_proj_bias = bias ? parameter(zeros([3 * embedDim], options)) : null
    this.out_proj = new Linear(embedDim, embedDim, { bias, ...options })
    if (!isSkipped()) this.resetParameters()
  }

  /** Draws the projections anew. */
  resetParameters(): void {
    xavierUniform_(this.in_proj_weight)
    this.out_proj.resetParameters()
    if (this.in_proj_bias !== null) zeros_(this.in_proj_bias)
    if (this.out_proj.bias !== null) zeros_(this.out_proj.bias)
  }

  forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    call: MultiheadAttentionCall = {},
  ): [output: Tensor, weights: Tensor | null] {
    const {
      keyPaddingMask = null,
      attnMask = null,
      needWeights = true,
      averageAttnWeights = true,
      isCausal = false,
    } = readOptions('MultiheadAttention', call, callOptions)
    const batched = this.checkInputs(query, key, value)
    // x [L, B, C] or [B, L, C] or [L, C] -> [B, L, C]; a tensor given twice stays one, so that it is projected once
    const rows = new Map<Tensor, Tensor>()
    const batchFirst = (x: Tensor): Tensor => {
      const known = rows.get(x)
      if (known !== undefined) return known
      const row = !batched ? x.unsqueeze(0) : this.batchFirst ? x : x.transpose(0, 1)
      rows.set(x, row)
      return row
    }
    const [q, k, v] = this.project(batchFirst(query), batchFirst(key), batchFirst(value))
    const [B, , L] = q.shape as [number, number, number]
    const S = k.size(2)
    const mask = mergeMasks(
      // autocast changes the dtype of the projections, not that of the mask
      readMask('attnMask', attnMask, query, {
        [describeShape([L, S])]: [1, 1, L, S],
        [describeShape([B * this.numHeads, L, S])]: [B, this.numHeads, L, S],
      }),
      readMask('keyPaddingMask', keyPaddingMask, query, { [describeShape(batched ? [B, S] : [S])]: [B, 1, 1, S] }),
    )
    const dropoutP = this.training ? this.dropout : 0
    const [heads, probabilities] = needWeights
      ? attentionWithWeights(q, k, v, { attnMask: mask, isCausal, dropoutP })
      : [scaledDotProductAttention(q, k, v, { attnMask: mask, dropoutP, isCausal }), null]
    const joined = heads.transpose(1, 2).reshape(B, L, this.embedDim) // [B, H, L, D] -> [B, L, C]
    const out = this.out_proj.forward(joined)
    const output = !batched ? out.squeeze(0) : this.batchFirst ? out : out.transpose(0, 1)
    if (probabilities === null) return [output, null]
    const weights = averageAttnWeights ? probabilities.mean(1) : probabilities // [B, H, L, S] -> [B, L, S]
    return [output, batched ? weights : weights.squeeze(0)]
  }

  private checkInputs(...inputs: [query: Tensor, key: Tensor, value: Tensor]): boolean {
    const { ndim } = inputs[0]
    inputs.forEach((x, i) => {
      if (x.ndim !== ndim || (ndim !== 2 && ndim !== 3) || x.size(-1) !== this.embedDim) {
        throw new ShapeError('MultiheadAttention', {
          problem: `${['query', 'key', 'value'][i]} has the wrong shape`,
          got: describeShape(x.shape),
          expected: `[..., ${this.embedDim}] with two or three dims, as many as the others`,
        })
      }
    })
    return ndim === 3
  }

  // [B, L, C] -> three of [B, H, L, D], as views of as few products as the inputs allow
  private project(query: Tensor, key: Tensor, value: Tensor): [Tensor, Tensor, Tensor] {
    const { in_proj_weight: weight, in_proj_bias: bias, embedDim: C } = this
    const part = (x: Tensor, first: number, count: number): Tensor[] => {
      const w = count === 3 ? weight : weight.narrow(0, first * C, count * C)
      const b = bias === null || count === 3 ? bias : bias.narrow(0, first * C, count * C)
      return splitHeads(linear(x, w, b), count, this.numHeads)
    }
    if (query === key && key === value) return part(query, 0, 3) as [Tensor, Tensor, Tensor]
    const [q] = part(query, 0, 1) as [Tensor]
    if (key === value) return [q, ...(part(key, 1, 2) as [Tensor, Tensor])]
    return [q, part(key, 1, 1)[0]!, part(value, 2, 1)[0]!]
  }

  extraRepr(): string {
    return `${this.embedDim}, ${this.numHeads} heads${this.batchFirst ? ', batchFirst' : ''}`
  }
}

/** @internal [B, T, count * H * D] -> `count` of [B, H, T, D], all views. */
export function splitHeads(x: Tensor, count: number, nHead: number): Tensor[] {
  const [B, T, width] = x.shape as [number, number, number]
  const D = width / (count * nHead)
  if (count === 1) return [x.view(B, T, nHead, D).transpose(1, 2)]
  return x.split(nHead * D, -1).map((part) => part.view(B, T, nHead, D).transpose(1, 2))
}

// PyTorch's masks say what is hidden; those of scaledDotProductAttention say what may be seen. `shapes` has the shape of
// the scores for each shape that the mask may have.
function readMask(
  name: string,
  mask: Tensor | null,
  query: Tensor,
  shapes: Record<string, [number, number, number, number]>,
): Tensor | null {
  if (mask === null) return null
  const got = describeShape(mask.shape)
  const shape = shapes[got]
  if (shape === undefined) {
    throw new ShapeError('MultiheadAttention', {
      problem: `${name} has the wrong shape`,
      got,
      expected: Object.keys(shapes).join(' or '),
    })
  }
  if (mask.dtype !== 'bool' && mask.dtype !== query.dtype) {
    throw new DTypeError('MultiheadAttention', {
      problem: `${name} has the wrong dtype`,
      got: mask.dtype,
      expected: `bool or ${query.dtype}`,
    })
  }
  const shaped = mask.reshape(shape)
  return mask.dtype === 'bool' ? logicalNot(shaped) : shaped
}

function mergeMasks(a: Tensor | null, b: Tensor | null): Tensor | null {
  if (a === null || b === null) return a ?? b
  if (a.dtype === 'bool' && b.dtype === 'bool') return a.logicalAnd(b)
  const { dtype } = a.dtype === 'bool' ? b : a
  return asBias(a, dtype).add(asBias(b, dtype))
}

function asBias(mask: Tensor, dtype: DType): Tensor {
  if (mask.dtype !== 'bool') return mask
  return maskedFill(zeros(mask.shape, { dtype, device: mask.device }), logicalNot(mask), Number.NEGATIVE_INFINITY)
}
