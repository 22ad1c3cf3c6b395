// Stochastic gradient descent.

import { ArgumentError } from '../errors'
import { sgdStep } from '../ops/optim'
import { Tensor } from '../tensor/tensor'
import { checkRange, withDefaults, zerosFor } from './arguments'
import { type Cohort, Optimizer, type ParamGroup, type ParamState, type Params } from './optimizer'

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
  /** @internal */
  override readonly _decidesOnDevice = true

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
      sgdStep(this.operands({ params, steps: null }, []), group, false)
      return
    }
    const fresh: Tensor[] = []
    const seen: Tensor[] = []
    const counted: Tensor[] = []
    for (const param of params) {
      // where the device counts, it alone knows whether the buffer had its first gradient
      const isCounted = this.state.get(param)!.step instanceof Tensor
      const kind = isCounted ? counted : this.isFresh(param) ? fresh : seen
      kind.push(param)
    }
    const step = (cohort: Pick<Cohort, 'params' | 'steps'>, first: boolean): void => {
      if (cohort.params.length > 0) sgdStep(this.operands(cohort, ['momentumBuffer']), group, first)
    }
    step({ params: fresh, steps: null }, true)
    step({ params: seen, steps: null }, false)
    step(this.counted(counted), false)
  }

  /** @internal */
  protected override create(group: ParamGroup<SgdOptions>, param: Tensor): ParamState | null {
    return group.momentum === 0 ? null : { momentumBuffer: zerosFor(param) }
  }
}
