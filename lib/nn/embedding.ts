// Rows of a table by index.

import { withoutGrad } from '../autograd/mode'
import { ArgumentError, describeValue } from '../errors'
import { embedding } from '../ops/index'
import { expectCount, readOptions } from '../options'
import { type TensorOptions, zeros } from '../tensor/create'
import { tidy } from '../tensor/scope'
import type { Tensor } from '../tensor/tensor'
import { placement } from './arguments'
import { isSkipped, normal_ } from './init/basic'
import { Module } from './module'
import { parameter } from './parameter'

/** Options of `Embedding`. */
export interface EmbeddingOptions extends Pick<TensorOptions, 'dtype' | 'device'> {
  /** Row that starts as zeros and gets no gradient; negative ones count from the end. Default none. */
  paddingIdx?: number | null
}

/** A table of numEmbeddings vectors, looked up by index.
 *  index [...] of an integer dtype -> [..., embeddingDim]; weight [numEmbeddings, embeddingDim] starts as N(0, 1).
 *  @throws IndexError when an index is outside the table
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.nn.Embedding.html
 *  @example new nn.Embedding(10, 4).forward(tensor([1, 2], { dtype: 'int64' })).shape // [2, 4] */
export class Embedding extends Module {
  readonly numEmbeddings: number
  readonly embeddingDim: number
  readonly paddingIdx: number | null
  weight: Tensor

  constructor(numEmbeddings: number, embeddingDim: number, given: EmbeddingOptions = {}) {
    super()
    const { paddingIdx = null, ...options } = readOptions('Embedding', given, ['paddingIdx', ...placement])
    this.numEmbeddings = expectCount('Embedding', 'numEmbeddings', numEmbeddings)
    this.embeddingDim = expectCount('Embedding', 'embeddingDim', embeddingDim)
    if (paddingIdx !== null) {
      if (!Number.isInteger(paddingIdx) || paddingIdx < -numEmbeddings || paddingIdx >= numEmbeddings) {
        throw new ArgumentError('Embedding', {
          problem: 'paddingIdx is outside the table',
          got: describeValue(paddingIdx),
          expected: `${-numEmbeddings} to ${numEmbeddings - 1}`,
        })
      }
    }
    this.paddingIdx = paddingIdx !== null && paddingIdx < 0 ? paddingIdx + numEmbeddings : paddingIdx
    this.weight = parameter(zeros([numEmbeddings, embeddingDim], options))
    if (!isSkipped()) this.resetParameters()
  }

  /** Draws the table anew. */
  resetParameters(): void {
    normal_(this.weight)
    this.zeroPaddingRow()
  }

  /** Sets the padding row, where there is one, to zeros. */
  zeroPaddingRow(): void {
    const row = this.paddingIdx
    if (row !== null) tidy(() => withoutGrad(() => void this.weight.select(0, row).zero_()))
  }

  forward(index: Tensor): Tensor {
    return embedding(index, this.weight, { paddingIdx: this.paddingIdx })
  }

  extraRepr(): string {
    const padding = this.paddingIdx === null ? '' : `, paddingIdx: ${this.paddingIdx}`
    return `${this.numEmbeddings}, ${this.embeddingDim}${padding}`
  }
}
