// How long a run is and what its learning rate is: by steps, by time, or by whichever ends first.

/** Bounds of a run. */
export interface PaceOptions {
  steps?: number | undefined
  minutes?: number | undefined
}

/** What a checkpoint keeps of it. */
export interface PaceState {
  /** Steps that the run will take, as far as is known. */
  totalSteps: number
  /** Seconds that it has run. */
  elapsed: number
}

const stepsBetweenPlans = 20
// for the evaluation and the checkpoint at the end
const shareOfRest = 0.97

/** Plans the number of steps. With `steps` the plan is fixed and the run reproducible; with `minutes` it follows the
 *  measured speed, so the rate reaches its end when the time does. */
export class Pace {
  totalSteps: number
  private readonly begin: number
  private readonly seconds: number
  private readonly limit: number
  private timed = 0
  private secondsPerStep = 0
  private readonly marks: [step: number, elapsed: number][] = []

  constructor({ steps, minutes }: PaceOptions, state?: PaceState) {
    this.limit = steps ?? Number.POSITIVE_INFINITY
    this.seconds = minutes === undefined ? Number.POSITIVE_INFINITY : minutes * 60
    this.begin = performance.now() - (state?.elapsed ?? 0) * 1e3
    this.totalSteps = Number.isFinite(this.limit) ? this.limit : (state?.totalSteps ?? Number.POSITIVE_INFINITY)
  }

  /** Seconds since the run began, those before a resume included. */
  get elapsed(): number {
    return (performance.now() - this.begin) / 1e3
  }

  /** Seconds left, as far as is known. */
  get remaining(): number {
    return Math.max(0, this.seconds - this.elapsed)
  }

  isOver(step: number): boolean {
    // a run has a step at least, however short its time
    return step >= this.limit || (step > 0 && this.elapsed >= this.seconds)
  }

  /** Notes that `step` steps are done, and plans anew when the time decides. The speed is that of the last half of the
   *  run, with its evaluations, samples and checkpoints: machines are shared, and the first steps warm caches up. */
  passed(step: number): void {
    this.timed++
    if (this.marks.length < 2) this.secondsPerStep = this.elapsed / step
    if (this.timed % (stepsBetweenPlans / 2) !== 0) return
    this.marks.push([step, this.elapsed])
    if (this.marks.length < 2) return
    const [before, then] = this.marks[Math.ceil(this.marks.length / 2) - 1]!
    this.secondsPerStep = (this.elapsed - then) / (step - before)
    if (!Number.isFinite(this.seconds) || this.timed % stepsBetweenPlans !== 0) return
    const planned = step + Math.floor((this.remaining * shareOfRest) / this.secondsPerStep)
    this.totalSteps = Math.min(this.limit, Math.max(step + 1, planned))
  }

  /** Share of the highest learning rate in a step: linear warm-up, then a half cosine to a tenth.
   *  @see Loshchilov & Hutter 2016, arXiv:1608.03983, eq. 5 */
  multiplier(step: number, warmupSteps: number): number {
    if (step < warmupSteps) return (step + 1) / warmupSteps
    if (!Number.isFinite(this.totalSteps)) return 1
    const progress = Math.min(1, (step - warmupSteps) / Math.max(1, this.totalSteps - warmupSteps))
    return 0.1 + 0.9 * 0.5 * (1 + Math.cos(Math.PI * progress))
  }

  /** What a progress bar shows. */
  outlook(step: number): { totalSteps: number; secondsLeft: number } {
    const left = Number.isFinite(this.totalSteps) ? (this.totalSteps - step) * this.secondsPerStep : this.remaining
    return { totalSteps: this.totalSteps, secondsLeft: Math.min(left, this.remaining) }
  }

  state(): PaceState {
    return { totalSteps: this.totalSteps, elapsed: this.elapsed }
  }
}
