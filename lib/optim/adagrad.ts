// Adagrad.

import { adagradStep } from '../ops/optim'
import type { Tensor } from '../tensor/tensor'
import { checkRange, filledFor, withDefaults } from './arguments'
import { Optimizer, type ParamGroup, type ParamState, type Params } from './optimizer'

/** Options of Adagrad. */
export interface AdagradOptions {
  /** Learning rate; default 0.01. */
  lr: number
  /** The rate falls as 1 / (1 + (t - 1) lrDecay); default 0. */
  lrDecay: number
  /** L2 penalty; default 0. */
  weightDecay: number
  /** What the sum of squares starts from; default 0. */
  initialAccumulatorValue: number
  /** Added to the root; default 1e-10. */
  eps: number
  /** Ascends; default false. */
  maximize: boolean
}

/** Adagrad: s <- s + g^2; p <- p - lr g / (sqrt(s) + eps).
 *  @throws ArgumentError for options out of range; StateError for tensors that are no parameters
 *  @see Duchi et al. 2011, Journal of Machine Learning Research 12
 *  @example new optim.Adagrad(model.parameters(), { lr: 0.01 }) */
export class Adagrad extends Optimizer<AdagradOptions> {
  /** @internal */
  override readonly _decidesOnDevice = true

  constructor(params: Params<AdagradOptions>, options: Partial<AdagradOptions> = {}) {
    const defaults = { lr: 0.01, lrDecay: 0, weightDecay: 0, initialAccumulatorValue: 0, eps: 1e-10, maximize: false }
    super(params, withDefaults('Adagrad', defaults, options))
  }

  /** @internal */
  protected check(options: AdagradOptions): void {
    for (const name of ['lr', 'lrDecay', 'weightDecay', 'initialAccumulatorValue', 'eps'] as const) {
      checkRange('Adagrad', name, options[name], 0)
    }
  }

  /** @internal */
  protected update(group: ParamGroup<AdagradOptions>, params: Tensor[]): void {
    for (const cohort of this.cohorts(params)) {
      adagradStep(this.operands(cohort, ['sum']), group, cohort.step)
      this.countStep(cohort)
    }
  }

  /** @internal */
  protected override create(group: ParamGroup<AdagradOptions>, param: Tensor): ParamState {
    return { step: 0, sum: filledFor(param, group.initialAccumulatorValue) }
  }
}
