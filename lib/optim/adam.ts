// Adam and AdamW.

import { adamStep } from '../ops/optim'
import type { Tensor } from '../tensor/tensor'
import {
  checkRange,
  Optimizer,
  type ParamGroup,
  type ParamState,
  type Params,
  withDefaults,
  zerosFor,
} from './optimizer'

/** Options of Adam and AdamW. */
export interface AdamOptions {
  /** Learning rate; default 1e-3. */
  lr: number
  /** Decay of the averages of gradient and squared gradient; default [0.9, 0.999]. */
  betas: readonly [number, number]
  /** Added to the root of the corrected second average; default 1e-8. */
  eps: number
  /** Default 0.01 for AdamW, where it is decoupled from the gradient, and 0 for Adam, where it is an L2 penalty. */
  weightDecay: number
  /** Divides by the largest second average so far; default false. */
  amsgrad: boolean
  /** Ascends; default false. */
  maximize: boolean
}

abstract class AdamFamily extends Optimizer<AdamOptions> {
  protected abstract readonly decoupled: boolean

  /** @internal */
  protected check(options: AdamOptions): void {
    const name = this.constructor.name
    checkRange(name, 'lr', options.lr, 0)
    checkRange(name, 'eps', options.eps, 0)
    checkRange(name, 'betas[0]', options.betas?.[0], 0, 1)
    checkRange(name, 'betas[1]', options.betas?.[1], 0, 1)
    checkRange(name, 'weightDecay', options.weightDecay, 0)
  }

  /** @internal */
  protected update(group: ParamGroup<AdamOptions>, params: Tensor[]): void {
    const bySteps = this.groupBySteps(params, (param) => {
      const state: ParamState = { step: 0, expAvg: zerosFor(param), expAvgSq: zerosFor(param) }
      if (group.amsgrad) state.maxExpAvgSq = zerosFor(param)
      return state
    })
    const names = group.amsgrad ? ['expAvg', 'expAvgSq', 'maxExpAvgSq'] : ['expAvg', 'expAvgSq']
    for (const [step, together] of bySteps) {
      adamStep(this.operands(together, names), group, this.decoupled, step)
      this.countStep(together, step)
    }
  }
}

const defaults: AdamOptions = {
  lr: 1e-3,
  betas: [0.9, 0.999],
  eps: 1e-8,
  weightDecay: 0,
  amsgrad: false,
  maximize: false,
}

/** Adam with weight decay that is independent of the gradient:
 *  p <- (1 - lr weightDecay) p;  m <- beta1 m + (1 - beta1) g;  v <- beta2 v + (1 - beta2) g^2;
 *  p <- p - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps).
 *  @throws ArgumentError for options out of range; StateError for tensors that are no parameters
 *  @see Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2
 *  @example new optim.AdamW(model.parameters(), { lr: 3e-4, weightDecay: 0.1 }) */
export class AdamW extends AdamFamily {
  protected readonly decoupled = true

  constructor(params: Params<AdamOptions>, options: Partial<AdamOptions> = {}) {
    super(params, withDefaults('AdamW', { ...defaults, weightDecay: 0.01 }, options))
  }
}

/** Adam; its weight decay is added to the gradient as an L2 penalty (use AdamW for decoupled decay).
 *  @throws ArgumentError for options out of range; StateError for tensors that are no parameters
 *  @see Kingma & Ba 2015, arXiv:1412.6980, algorithm 1
 *  @example new optim.Adam(model.parameters(), { lr: 1e-3 }) */
export class Adam extends AdamFamily {
  protected readonly decoupled = false

  constructor(params: Params<AdamOptions>, options: Partial<AdamOptions> = {}) {
    super(params, withDefaults('Adam', defaults, options))
  }
}
