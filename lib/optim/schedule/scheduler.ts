// What all schedules share: they set the rate of every parameter group for its next update.

import { ArgumentError, describeValue, StateError } from '../../errors'
import { refuseInCapture } from '../../tensor/capture'
import { Optimizer } from '../optimizer'

/** State of a schedule. */
export interface SchedulerState {
  lastEpoch: number
  baseLrs: number[]
  lastLr: number[]
}

/** @internal @throws ArgumentError for what is no optimizer */
export function expectOptimizer(op: string, optimizer: unknown): void {
  if (optimizer instanceof Optimizer) return
  throw new ArgumentError(op, {
    problem: 'not an optimizer',
    got: describeValue(optimizer),
    expected: 'an optim.Optimizer',
  })
}

/** What moves on with the steps of an optimizer: a schedule, or an object of yours. Its step is synchronous. */
export interface Steppable {
  step(): unknown
}

/** @internal @throws ArgumentError for what has no step to take */
export function expectSchedule(op: string, scheduler: unknown): void {
  if (scheduler === undefined || typeof (scheduler as Steppable | null)?.step === 'function') return
  throw new ArgumentError(op, {
    problem: 'scheduler is no schedule',
    got: describeValue(scheduler),
    expected: 'an object with a step method',
  })
}

/** @internal @throws ArgumentError when its step returns a promise: what sets rates later sets them for another step, and
 *  nobody would hear of its failure */
export function moveOn(op: string, scheduler: Steppable): void {
  const result = scheduler.step()
  if (typeof (result as PromiseLike<unknown> | null | undefined)?.then !== 'function') return
  void (result as PromiseLike<unknown>).then(undefined, () => {}) // what is thrown here says what to do first
  throw new ArgumentError(op, {
    problem: 'the step of the schedule is asynchronous',
    got: describeValue(result),
    expected: 'a rate that is set when step returns',
    action: 'await what it needs before the optimizer steps',
  })
}

/** Base of the learning-rate schedules. Made with step 0's rate set; each `step()` sets the next one's. */
export abstract class LRScheduler {
  /** Steps taken. */
  lastEpoch = 0
  /** The groups' rates when the first schedule of the optimizer was made. */
  baseLrs: number[]

  constructor(readonly optimizer: Optimizer<{ lr: number }>) {
    expectOptimizer(new.target.name, optimizer)
    for (const group of optimizer.paramGroups) group.initialLr ??= group.lr
    this.baseLrs = optimizer.paramGroups.map((group) => group.initialLr!)
  }

  /** The rate of each group for the step `lastEpoch`. @internal */
  protected abstract rates(): number[]

  /** Sets the rates of the next update. Call it after `optimizer.step()`.
   *  @throws StateError within a function that a CUDAGraph captures: a replay would not move it on */
  step(): void {
    refuseInCapture(`${this.constructor.name}.step`, 'a replay moves no schedule on', 'step it beside replay()')
    this.optimizer._settle()
    this.lastEpoch++
    this.apply()
  }

  /** The rates that were set last, by group. Where a GradScaler steps the schedule, this waits until the last step is known
   *  to be taken or skipped. */
  getLastLr(): number[] {
    this.optimizer._settle()
    return this.optimizer.paramGroups.map((group) => group.lr)
  }

  /** Position and rates; functions are not part of it. */
  stateDict(): SchedulerState {
    const lastLr = this.getLastLr()
    return { lastEpoch: this.lastEpoch, baseLrs: [...this.baseLrs], lastLr }
  }

  /** Continues where another schedule of this kind stood, and sets its rates.
   *  @throws StateError when the state is not one of as many groups */
  loadStateDict(state: SchedulerState): void {
    const groups = this.optimizer.paramGroups
    const fits = (list: unknown): boolean => Array.isArray(list) && list.length === groups.length
    if (!Number.isInteger(state?.lastEpoch) || !fits(state.baseLrs) || !fits(state.lastLr)) {
      throw new StateError(`${this.constructor.name}.loadStateDict`, {
        problem: 'not a state of this schedule',
        got: describeValue(state),
        expected: `{ lastEpoch, baseLrs, lastLr } of ${groups.length} groups`,
      })
    }
    this.optimizer._settle()
    this.lastEpoch = state.lastEpoch
    this.baseLrs = [...state.baseLrs]
    groups.forEach((group, i) => {
      group.initialLr = state.baseLrs[i]!
      group.lr = state.lastLr[i]!
    })
  }

  /** @internal */
  protected apply(): void {
    const rates = this.rates()
    rates.forEach((rate, i) => {
      if (Number.isFinite(rate) && rate >= 0) return
      throw new ArgumentError(this.constructor.name, {
        problem: 'not a learning rate',
        got: `${describeValue(rate)} for group ${i} at step ${this.lastEpoch}`,
        expected: 'a finite number of at least 0',
      })
    })
    this.optimizer.paramGroups.forEach((group, i) => {
      // a group that was added later keeps its own rate until then
      group.lr = rates[i] ?? group.lr
    })
  }
}
