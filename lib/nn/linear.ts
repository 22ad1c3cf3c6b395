// The affine map, and the map that does nothing.

import { linear } from '../ops/index'
import { expectCount, readOptions } from '../options'
import { type TensorOptions, zeros } from '../tensor/create'
import type { Tensor } from '../tensor/tensor'
import { placement } from './arguments'
import { isSkipped, kaimingUniform_, uniform_ } from './init/basic'
import { Module } from './module'
import { parameter } from './parameter'

/** Options of `Linear`. */
export interface LinearOptions extends Pick<TensorOptions, 'dtype' | 'device'> {
  /** Adds a trained offset; default true. */
  bias?: boolean
}

/** y = x weightᵀ + bias.
 *  x [..., inFeatures] -> [..., outFeatures]; weight [outFeatures, inFeatures] and bias [outFeatures] start as
 *  U(-k, k) with k = 1 / sqrt(inFeatures).
 *  @throws ShapeError when the last dim of x is not inFeatures
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.nn.Linear.html
 *  @example new nn.Linear(4, 8).forward(ones([2, 4])).shape // [2, 8] */
export class Linear extends Module {
  readonly inFeatures: number
  readonly outFeatures: number
  weight: Tensor
  bias: Tensor | null

  constructor(inFeatures: number, outFeatures: number, given: LinearOptions = {}) {
    super()
    const { bias = true, ...options } = readOptions('Linear', given, ['bias', ...placement])
    this.inFeatures = expectCount('Linear', 'inFeatures', inFeatures)
    this.outFeatures = expectCount('Linear', 'outFeatures', outFeatures)
    this.weight = parameter(zeros([outFeatures, inFeatures], options))
    this.bias = bias ? parameter(zeros([outFeatures], options)) : null
    if (!isSkipped()) this.resetParameters()
  }

  /** Draws weight and bias anew. */
  resetParameters(): void {
    // a = sqrt(5) makes the bound 1 / sqrt(inFeatures), as PyTorch has it
    kaimingUniform_(this.weight, { a: Math.sqrt(5) })
    const bound = 1 / Math.sqrt(this.inFeatures)
    if (this.bias !== null) uniform_(this.bias, -bound, bound)
  }

  forward(x: Tensor): Tensor {
    return linear(x, this.weight, this.bias)
  }

  extraRepr(): string {
    return `${this.inFeatures}, ${this.outFeatures}${this.bias === null ? ', bias: false' : ''}`
  }
}

/** @internal Whether the layers may become part of one fused operator: their forward is Linear's and nobody watches. */
export function isFusable(...layers: Module[]): boolean {
  return layers.every(
    (layer) =>
      layer instanceof Linear && !layer.hasHooks && Object.getPrototypeOf(layer).forward === Linear.prototype.forward,
  )
}

/** Gives back what it gets: takes the place of a module that is left out.
 *  @example new nn.Identity().forward(tensor([1, 2])) // [1, 2] */
export class Identity extends Module {
  forward(x: Tensor): Tensor {
    return x
  }
}
