// Activations as modules, for containers and hooks; each is the operator of its name in `ops`.

import { gelu, logSoftmax, relu, sigmoid, silu, softmax, softplus, tanh } from '../ops/index'
import { readOptions } from '../options'
import type { Tensor } from '../tensor/tensor'
import { expectOneOf } from './arguments'
import { Module } from './module'

/** Formula of GELU: 'none' is the exact one with erf, 'tanh' the approximation of GPT-2. */
export type GeluApproximation = 'none' | 'tanh'

/** x Φ(x). @see Hendrycks & Gimpel 2016, arXiv:1606.08415
 *  @example new nn.GELU().forward(tensor([0, 1])) // [0, 0.8413] */
export class GELU extends Module {
  readonly approximate: GeluApproximation

  constructor(options: { approximate?: GeluApproximation } = {}) {
    super()
    const { approximate = 'none' } = readOptions('GELU', options, ['approximate'])
    this.approximate = expectOneOf('GELU', 'approximate', approximate, ['none', 'tanh'])
  }

  forward(x: Tensor): Tensor {
    return gelu(x, { approximate: this.approximate })
  }

  extraRepr(): string {
    return `approximate: ${this.approximate}`
  }
}

/** max(0, x).
 *  @example new nn.ReLU().forward(tensor([-1, 2])) // [0, 2] */
export class ReLU extends Module {
  forward(x: Tensor): Tensor {
    return relu(x)
  }
}

/** x σ(x). @see Elfwing et al. 2017, arXiv:1702.03118
 *  @example new nn.SiLU().forward(tensor([0])) // [0] */
export class SiLU extends Module {
  forward(x: Tensor): Tensor {
    return silu(x)
  }
}

/** tanh(x).
 *  @example new nn.Tanh().forward(tensor([0])) // [0] */
export class Tanh extends Module {
  forward(x: Tensor): Tensor {
    return tanh(x)
  }
}

/** 1 / (1 + exp(-x)).
 *  @example new nn.Sigmoid().forward(tensor([0])) // [0.5] */
export class Sigmoid extends Module {
  forward(x: Tensor): Tensor {
    return sigmoid(x)
  }
}

/** log(1 + exp(beta x)) / beta, and x itself where beta x > threshold.
 *  @example new nn.Softplus().forward(tensor([0])) // [0.6931] */
export class Softplus extends Module {
  readonly beta: number
  readonly threshold: number

  constructor(options: { beta?: number; threshold?: number } = {}) {
    super()
    const { beta = 1, threshold = 20 } = readOptions('Softplus', options, ['beta', 'threshold'])
    this.beta = beta
    this.threshold = threshold
  }

  forward(x: Tensor): Tensor {
    return softplus(x, { beta: this.beta, threshold: this.threshold })
  }

  extraRepr(): string {
    return `beta: ${this.beta}, threshold: ${this.threshold}`
  }
}

/** exp(x) / sum(exp(x)) along a dim.
 *  @example new nn.Softmax(-1).forward(tensor([0, 0])) // [0.5, 0.5] */
export class Softmax extends Module {
  constructor(readonly dim: number) {
    super()
  }

  forward(x: Tensor): Tensor {
    return softmax(x, this.dim)
  }

  extraRepr(): string {
    return `dim: ${this.dim}`
  }
}

/** log(softmax(x)) along a dim, without overflow.
 *  @example new nn.LogSoftmax(-1).forward(tensor([0, 0])) // [-0.6931, -0.6931] */
export class LogSoftmax extends Module {
  constructor(readonly dim: number) {
    super()
  }

  forward(x: Tensor): Tensor {
    return logSoftmax(x, this.dim)
  }

  extraRepr(): string {
    return `dim: ${this.dim}`
  }
}
