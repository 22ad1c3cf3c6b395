// RMSprop.

import { rmspropStep } from '../ops/optim'
import type { Tensor } from '../tensor/tensor'
import { checkRange, withDefaults, zerosFor } from './arguments'
import { Optimizer, type ParamGroup, type ParamState, type Params } from './optimizer'

/** Options of RMSprop. */
export interface RmspropOptions {
  /** Learning rate; default 0.01. */
  lr: number
  /** Decay of the average of squared gradients; default 0.99. */
  alpha: number
  /** Added to the root; default 1e-8. */
  eps: number
  /** L2 penalty; default 0. */
  weightDecay: number
  /** Default 0. */
  momentum: number
  /** Divides by the variance instead of the second moment; default false. */
  centered: boolean
  /** Ascends; default false. */
  maximize: boolean
}

/** RMSprop: v <- alpha v + (1 - alpha) g^2; p <- p - lr g / (sqrt(v) + eps).
 *  @throws ArgumentError for options out of range; StateError for tensors that are no parameters
 *  @see Hinton 2012, Neural Networks for Machine Learning, lecture 6e; centered: Graves 2013, arXiv:1308.0850
 *  @example new optim.RMSprop(model.parameters(), { lr: 1e-3 }) */
export class RMSprop extends Optimizer<RmspropOptions> {
  /** @internal */
  override readonly _decidesOnDevice = true

  constructor(params: Params<RmspropOptions>, options: Partial<RmspropOptions> = {}) {
    const defaults = { lr: 0.01, alpha: 0.99, eps: 1e-8, weightDecay: 0, momentum: 0, centered: false, maximize: false }
    super(params, withDefaults('RMSprop', defaults, options))
  }

  /** @internal */
  protected check(options: RmspropOptions): void {
    for (const name of ['lr', 'eps', 'weightDecay', 'momentum', 'alpha'] as const) {
      checkRange('RMSprop', name, options[name], 0)
    }
  }

  /** @internal */
  protected update(group: ParamGroup<RmspropOptions>, params: Tensor[]): void {
    for (const cohort of this.cohorts(params)) {
      rmspropStep(this.operands(cohort, namesOf(group)), group)
      this.countStep(cohort)
    }
  }

  /** @internal */
  protected override create(group: ParamGroup<RmspropOptions>, param: Tensor): ParamState {
    return { step: 0, ...Object.fromEntries(namesOf(group).map((name) => [name, zerosFor(param)])) }
  }
}

const namesOf = ({ centered, momentum }: RmspropOptions): string[] => [
  'squareAvg',
  ...(centered ? ['gradAvg'] : []),
  ...(momentum > 0 ? ['momentumBuffer'] : []),
]
