// Looks whether a loss scale has collapsed, without making anybody wait.

import { describeShape } from '../errors'
import { nameOf } from '../nn/parameter'
import type { Check } from '../ops/multiTensor'
import type { Optimizer } from '../optim/optimizer'
import type { Tensor } from '../tensor/tensor'

const collapsed = 1 // below it the scaler shrinks gradients, and something else is wrong; as PyTorch's notes say

/** @internal Warns once when the scale falls below 1, and again when it does so after it had recovered. */
export class CollapseWatch {
  #updatesLeft = 1
  #reading = false
  /** Looks at what the last update left that came while a read was under way. */
  #next: (() => Promise<void>) | null = null
  #warned = false

  /** Looks after the next update: the scale or what it backs off by was set. */
  reset(): void {
    this.#updatesLeft = 1
  }

  /** An update is queued, by what `checks` found in the gradients of the optimizers. `status` is what it leaves; see
   *  updateScale. The scale is read behind what is queued, and only as often as it could have collapsed. */
  afterUpdate(
    checks: readonly Check[],
    optimizers: Iterable<Optimizer>,
    status: Tensor,
    backoffFactor: () => number,
  ): void {
    this.#updatesLeft--
    const look = (): Promise<void> => this.#look(checks, optimizers, status, backoffFactor)
    if (this.#reading) this.#next = look
    else if (this.#updatesLeft <= 0) void look()
  }

  async #look(
    checks: readonly Check[],
    optimizers: Iterable<Optimizer>,
    status: Tensor,
    backoffFactor: () => number,
  ): Promise<void> {
    this.#reading = true
    this.#updatesLeft = 0
    const params = [...optimizers].flatMap((each) => each.paramGroups.flatMap((group) => group.params))
    const owners = new Map(params.map((param) => [param.grad, param]))
    try {
      const [scale, pair, first] = (await status._peek()) as Float32Array as unknown as [number, number, number]
      if (scale < 0) return // no update ran yet: the operations that gradients came from failed
      // of these, as many as came while it was read are gone
      this.#updatesLeft += Math.max(1, Math.ceil(Math.log(scale / collapsed) / -Math.log(backoffFactor())))
      const fallen = scale < collapsed && pair >= 0
      if (fallen && !this.#warned) {
        const grad = checks[pair]?.tensors[first]
        const param = grad && owners.get(grad)
        warnOfCollapse(scale, param ? (nameOf(param) ?? `a parameter of shape ${describeShape(param.shape)}`) : '')
      }
      this.#warned = fallen || (this.#warned && scale < collapsed)
    } catch {
      // a worker that ends, or a scale that found no memory: whoever waits for the step hears of that
    } finally {
      this.#reading = false
    }
    const next = this.#next
    this.#next = null
    if (next !== null && this.#updatesLeft <= 0) await next()
  }
}

function warnOfCollapse(scale: number, culprit: string): void {
  process.emitWarning(
    `the loss scale fell to ${scale}: the gradient of ${culprit || 'a parameter'} is infinite or NaN however small the ` +
      'scale is. Look for NaN in the loss and the inputs, lower the learning rate, or train in bfloat16.',
    { type: 'GradScalerWarning', code: 'GRADUS_SCALE_COLLAPSED' },
  )
}
