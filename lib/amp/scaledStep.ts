// What GradScaler.step returns: whether the device took the step, for whoever asks.

import { unscoped } from '../tensor/scope'
import type { Tensor } from '../tensor/tensor'

/** A step that the device takes, or skips where a gradient is infinite or NaN. It is a promise of whether the step was
 *  taken, which waits only when it is awaited.
 *  @example if (!(await scaler.step(optimizer))) console.log('skipped') */
export class ScaledStep implements PromiseLike<boolean> {
  /** Norm of the unscaled gradients before clipping, float32 of rank 0; null from a scaler that is disabled, without
   *  `maxNorm`. */
  readonly norm: Tensor | null
  readonly #foundInf: Tensor | null
  readonly #onKnown: (stepped: boolean) => void
  #outcome: boolean | undefined
  #reading: Promise<boolean> | undefined

  /** @internal `foundInf` is null when the outcome is known: the step was taken unless told otherwise. */
  constructor(
    foundInf: Tensor | null,
    norm: Tensor | null,
    onKnown: (stepped: boolean) => void = () => {},
    outcome = true,
  ) {
    this.#foundInf = foundInf
    this.norm = norm
    this.#onKnown = onKnown
    if (foundInf === null) this.#know(outcome)
  }

  #know(outcome: boolean): boolean {
    if (this.#outcome === undefined) {
      this.#outcome = outcome
      this.#onKnown(outcome)
    }
    return this.#outcome
  }

  async #read(): Promise<boolean> {
    if (this.#outcome !== undefined) return this.#outcome
    return this.#know((await this.#foundInf!.item()) === 0)
  }

  /** Whether the step was taken; waits without blocking the event loop. Awaiting the object does the same.
   *  @throws what an operation failed with that a gradient came from; nothing was changed then */
  stepped(): Promise<boolean> {
    this.#reading ??= this.#read()
    return this.#reading
  }

  /** Like `stepped()`, but blocks. */
  steppedSync(): boolean {
    return this.#outcome ?? unscoped(() => this.#know(this.#foundInf!.itemSync() === 0))
  }

  // biome-ignore lint/suspicious/noThenProperty: it is a promise on purpose, so that nothing waits unless it is awaited
  then<A = boolean, B = never>(
    fulfilled?: ((stepped: boolean) => A | PromiseLike<A>) | null,
    rejected?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    return this.stepped().then(fulfilled, rejected)
  }
}
