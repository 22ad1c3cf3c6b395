// Schedules by function.

import { ArgumentError, describeValue } from '../../errors'
import type { Optimizer } from '../optimizer'
import { LRScheduler } from './scheduler'

/** Factor of the base rate at a step, counted from 0. */
export type LrLambda = (step: number) => number

/** Base rate times fn(step): one function for all groups, or one a group.
 *  @throws ArgumentError when there are not as many functions as groups
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.LambdaLR.html
 *  @example new optim.LambdaLR(optimizer, (step) => 0.95 ** step) */
export class LambdaLR extends LRScheduler {
  private readonly lambdas: readonly LrLambda[]

  constructor(optimizer: Optimizer<{ lr: number }>, fn: LrLambda | readonly LrLambda[]) {
    super(optimizer)
    const groups = optimizer.paramGroups.length
    this.lambdas = Array.isArray(fn) ? fn : new Array<LrLambda>(groups).fill(fn as LrLambda)
    if (this.lambdas.length !== groups || this.lambdas.some((each) => typeof each !== 'function')) {
      throw new ArgumentError('LambdaLR', {
        problem: 'not one function a group',
        got: Array.isArray(fn) ? `${fn.length} for ${groups} groups` : describeValue(fn),
        expected: `a function of the step, or ${groups} of them`,
      })
    }
    this.apply()
  }

  /** @internal */
  protected rates(): number[] {
    return this.baseLrs.map((base, i) => base * this.lambdas[i]!(this.lastEpoch))
  }
}

/** The rate times gamma at every step; gamma may be above 1, for instance to search for a rate.
 *  @throws ArgumentError when gamma is not a positive number
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.ExponentialLR.html
 *  @example new optim.ExponentialLR(optimizer, 0.93) */
export class ExponentialLR extends LRScheduler {
  constructor(
    optimizer: Optimizer<{ lr: number }>,
    readonly gamma: number,
  ) {
    super(optimizer)
    if (typeof gamma !== 'number' || !(gamma > 0) || gamma === Number.POSITIVE_INFINITY) {
      throw new ArgumentError('ExponentialLR', {
        problem: 'not a factor',
        got: describeValue(gamma),
        expected: 'a number above 0',
      })
    }
    this.optimizer.paramGroups.forEach((group) => {
      group.lr = group.initialLr!
    })
  }

  /** From the rate as it stands, so that a change by hand is kept. @internal */
  protected rates(): number[] {
    return this.optimizer.paramGroups.map((group) => group.lr * this.gamma)
  }
}
