// What GradScaler.step returns: whether the device took the step, for whoever asks.

import { unscoped } from '../tensor/scope'
import type { Tensor } from '../tensor/tensor'

// biome-ignore lint/suspicious/noExplicitAny: as Promise has it
type Rejected<B> = ((reason: any) => B | PromiseLike<B>) | null

/** A step that the device takes, or skips where a gradient is infinite or NaN. It is a promise of whether the step was
 *  taken, which waits only when it is awaited.
 *  @example if (!(await scaler.step(optimizer))) console.log('skipped') */
export class ScaledStep implements Promise<boolean> {
  readonly [Symbol.toStringTag] = 'ScaledStep'
  /** Norm of the unscaled gradients before clipping, float32 of rank 0; null from a scaler that is disabled, without
   *  `maxNorm`. */
  readonly norm: Tensor | null
  readonly #foundInf: Tensor | null
  readonly #onKnown: (stepped: boolean) => void
  #outcome: boolean | undefined
  #thrown: { readonly error: unknown; isHeard: boolean } | undefined
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
    if (foundInf !== null) return
    this.#know(outcome)
    this._settle()
  }

  #know(outcome: boolean): boolean {
    if (this.#outcome === undefined) {
      this.#outcome = outcome
      try {
        this.#onKnown(outcome)
      } catch (error) {
        this.#thrown = { error, isHeard: false }
      }
    }
    return this.#outcome
  }

  /** What the schedule threw reaches whoever asks. */
  #answer(): boolean {
    if (this.#thrown !== undefined) {
      this.#thrown.isHeard = true
      throw this.#thrown.error
    }
    return this.#outcome!
  }

  /** @internal Knows, waiting if it must; throws what the schedule threw unless somebody heard of that. */
  _settle(): void {
    this.#outcome ?? unscoped(() => this.#know(this.#foundInf!.itemSync() === 0))
    if (this.#thrown?.isHeard === false) this.#answer()
  }

  /** @internal Knows as soon as the device has decided; errors are left to whoever asks, or to `_settle`. */
  async _follow(): Promise<void> {
    try {
      if (this.#outcome === undefined) this.#know((await this.#foundInf!.item()) === 0)
    } catch (error) {
      this.#thrown ??= { error, isHeard: false }
    }
  }

  async #read(): Promise<boolean> {
    if (this.#outcome === undefined) this.#know((await this.#foundInf!.item()) === 0)
    return this.#answer()
  }

  /** Whether the step was taken; waits without blocking the event loop. Awaiting the object does the same.
   *  @throws what an operation failed with that a gradient came from; nothing was changed then */
  stepped(): Promise<boolean> {
    this.#reading ??= this.#read()
    return this.#reading
  }

  /** Like `stepped()`, but blocks. */
  steppedSync(): boolean {
    if (this.#outcome === undefined) unscoped(() => this.#know(this.#foundInf!.itemSync() === 0))
    return this.#answer()
  }

  // biome-ignore lint/suspicious/noThenProperty: it is a promise on purpose, so that nothing waits unless it is awaited
  then<A = boolean, B = never>(
    fulfilled?: ((stepped: boolean) => A | PromiseLike<A>) | null,
    rejected?: Rejected<B>,
  ): Promise<A | B> {
    return this.stepped().then(fulfilled, rejected)
  }

  catch<B = never>(rejected?: Rejected<B>): Promise<boolean | B> {
    return this.stepped().catch(rejected)
  }

  finally(settled?: (() => void) | null): Promise<boolean> {
    return this.stepped().finally(settled)
  }
}
