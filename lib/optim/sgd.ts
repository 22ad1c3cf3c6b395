// Stochastic gradient descent.

import { ArgumentError } from '../errors'
import { sgdStep } from '../ops/optim'
import type { Tensor } from '../tensor/tensor'
import { checkRange, Optimizer, type ParamGroup, type Params, withDefaults, zerosFor } from './optimizer'

/** Options of SGD. */
export interface SgdOptions {
  /** Learning rate; default 1e-3. */
  lr: number
  /** Share of the last update's direction that is kept; default 0. */
  momentum: number
  /** What the gradient loses where momentum is used; default 0. */
  dampening: number
  /** L2 penalty; default 0. */
  weightDecay: number
  /** Looks ahead along the momentum; default false. */
  nesterov: boolean
  /** Ascends; default false. */
  maximize: boolean
}

/** Stochastic gradient descent: b <- momentum b + (1 - dampening) g (the first b is g itself); p <- p - lr b.
 *  @throws ArgumentError for options out of range; StateError for tensors that are no parameters
 *  @see Sutskever et al. 2013; https://docs.pytorch.org/docs/stable/generated/torch.optim.SGD.html
 *  @example new optim.SGD(model.parameters(), { lr: 0.1, momentum: 0.9 }) */
export class SGD extends Optimizer<SgdOptions> {
  constructor(params: Params<SgdOptions>, options: Partial<SgdOptions> = {}) {
    const defaults = { lr: 1e-3, momentum: 0, dampening: 0, weightDecay: 0, nesterov: false, maximize: false }
    super(params, withDefaults('SGD', defaults, options))
  }

  /** @internal */
  protected check(options: SgdOptions): void {
    checkRange('SGD', 'lr', options.lr, 0)
    checkRange('SGD', 'momentum', options.momentum, 0)
    checkRange('SGD', 'weightDecay', options.weightDecay, 0)
    if (options.nesterov && (options.momentum === 0 || options.dampening !== 0)) {
      throw new ArgumentError('SGD', {
        problem: 'nesterov needs momentum and no dampening',
        got: `momentum ${options.momentum}, dampening ${options.dampening}`,
      })
    }
  }

  /** @internal */
  protected update(group: ParamGroup<SgdOptions>, params: Tensor[]): void {
    if (group.momentum === 0) {
      sgdStep(this.operands(params, []), group, false)
      return
    }
    const fresh = params.filter((param) => !this.state.has(param))
    const seen = params.filter((param) => this.state.has(param))
    for (const param of fresh) this.stateOf(param, () => ({ momentumBuffer: zerosFor(param) }))
    if (fresh.length > 0) sgdStep(this.operands(fresh, ['momentumBuffer']), group, true)
    if (seen.length > 0) sgdStep(this.operands(seen, ['momentumBuffer']), group, false)
  }
}
