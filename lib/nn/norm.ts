// Normalization over the last dims.

import { layerNorm, rmsNorm } from '../ops/index'
import { expectCount, readOptions } from '../options'
import { ones, type TensorOptions, zeros } from '../tensor/create'
import type { Shape, Tensor } from '../tensor/tensor'
import { placement } from './arguments'
import { ones_, zeros_ } from './init/basic'
import { Module } from './module'
import { parameter } from './parameter'

/** Options of `LayerNorm`. */
export interface LayerNormOptions extends Pick<TensorOptions, 'dtype' | 'device'> {
  /** Added to the variance; default 1e-5. */
  eps?: number
  /** Has a trained weight and bias; default true. */
  elementwiseAffine?: boolean
  /** Has a bias beside the weight; default true. */
  bias?: boolean
}

function normalizedSizes(op: string, shape: number | readonly number[]): Shape {
  return (typeof shape === 'number' ? [shape] : [...shape]).map((size) => expectCount(op, 'normalizedShape', size))
}

/** y = (x - mean) / sqrt(variance + eps) * weight + bias, with statistics over the last dims.
 *  x [..., *normalizedShape]; weight and bias have normalizedShape and start as 1 and 0; statistics in float32.
 *  @throws ShapeError when x does not end in normalizedShape
 *  @see Ba et al. 2016, arXiv:1607.06450; https://docs.pytorch.org/docs/stable/generated/torch.nn.LayerNorm.html
 *  @example new nn.LayerNorm(8).forward(ones([2, 8])).shape // [2, 8] */
export class LayerNorm extends Module {
  readonly normalizedShape: Shape
  readonly eps: number
  weight: Tensor | null
  bias: Tensor | null

  constructor(normalizedShape: number | readonly number[], given: LayerNormOptions = {}) {
    super()
    const names = ['eps', 'elementwiseAffine', 'bias', ...placement] as const
    const { eps = 1e-5, elementwiseAffine = true, bias = true, ...options } = readOptions('LayerNorm', given, names)
    this.normalizedShape = normalizedSizes('LayerNorm', normalizedShape)
    this.eps = eps
    this.weight = elementwiseAffine ? parameter(ones(this.normalizedShape, options)) : null
    this.bias = elementwiseAffine && bias ? parameter(zeros(this.normalizedShape, options)) : null
  }

  /** Sets weight to 1 and bias to 0. */
  resetParameters(): void {
    if (this.weight !== null) ones_(this.weight)
    if (this.bias !== null) zeros_(this.bias)
  }

  forward(x: Tensor): Tensor {
    return layerNorm(x, this.normalizedShape, this.weight, this.bias, this.eps)
  }

  extraRepr(): string {
    return `[${this.normalizedShape.join(', ')}], eps: ${this.eps}${this.weight === null ? ', elementwiseAffine: false' : ''}`
  }
}

/** Options of `RMSNorm`. */
export interface RMSNormOptions extends Pick<TensorOptions, 'dtype' | 'device'> {
  /** Added to the mean square; default null: 2^-23, for float64 2^-52. */
  eps?: number | null
  /** Has a trained weight; default true. */
  elementwiseAffine?: boolean
}

/** y = x / sqrt(mean(x²) + eps) * weight, with the mean over the last dims.
 *  x [..., *normalizedShape]; weight has normalizedShape and starts as 1; statistics in float32.
 *  @throws ShapeError when x does not end in normalizedShape
 *  @see Zhang & Sennrich 2019, arXiv:1910.07467; https://docs.pytorch.org/docs/stable/generated/torch.nn.RMSNorm.html
 *  @example new nn.RMSNorm(8).forward(ones([2, 8])).shape // [2, 8] */
export class RMSNorm extends Module {
  readonly normalizedShape: Shape
  readonly eps: number | null
  weight: Tensor | null

  constructor(normalizedShape: number | readonly number[], given: RMSNormOptions = {}) {
    super()
    const names = ['eps', 'elementwiseAffine', ...placement] as const
    const { eps = null, elementwiseAffine = true, ...options } = readOptions('RMSNorm', given, names)
    this.normalizedShape = normalizedSizes('RMSNorm', normalizedShape)
    this.eps = eps
    this.weight = elementwiseAffine ? parameter(ones(this.normalizedShape, options)) : null
  }

  /** Sets weight to 1. */
  resetParameters(): void {
    if (this.weight !== null) ones_(this.weight)
  }

  forward(x: Tensor): Tensor {
    return rmsNorm(x, this.normalizedShape, this.weight, this.eps)
  }

  extraRepr(): string {
    return `[${this.normalizedShape.join(', ')}], eps: ${this.eps}${this.weight === null ? ', elementwiseAffine: false' : ''}`
  }
}
