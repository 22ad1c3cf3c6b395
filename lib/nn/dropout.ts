// Dropout.

import { dropout } from '../ops/index'
import { expectProbability } from '../options'
import type { Tensor } from '../tensor/tensor'
import { Module } from './module'

/** While training, sets each element to 0 with probability p and scales the others by 1 / (1 - p); in evaluation gives
 *  back its input. Default p 0.5.
 *  @see Srivastava et al. 2014; https://docs.pytorch.org/docs/stable/generated/torch.nn.Dropout.html
 *  @example new nn.Dropout(0.1).eval().forward(x) // x */
export class Dropout extends Module {
  readonly p: number

  constructor(p = 0.5) {
    super()
    this.p = expectProbability('Dropout', 'p', p)
  }

  forward(x: Tensor): Tensor {
    return dropout(x, this.p, this.training)
  }

  extraRepr(): string {
    return `p: ${this.p}`
  }
}
