// Loss scaling: keeps small float16 gradients from becoming 0, and steps away when large ones overflow.
//
// The scale, the count of good updates and every decision live on the device. A step is queued before it is known
// whether it will be taken; the optimizer's kernel looks at the flag that the check left.

import { Device, type DeviceName, device } from '../device'
import { describeValue, StateError } from '../errors'
import {
  type Check,
  checkTensors,
  clipTensors,
  combineChecks,
  isClipped,
  knownNorm,
  totalNorm,
  unscaleTensors,
  updateScale,
} from '../ops/multiTensor'
import type { Optimizer } from '../optim/optimizer'
import { expectOptimizer, expectSchedule, moveOn, type Steppable } from '../optim/schedule/scheduler'
import { expectFlag, expectLimit, readOptions } from '../options'
import { refuseInCapture } from '../tensor/capture'
import { full } from '../tensor/create'
import { unscoped } from '../tensor/scope'
import type { Tensor } from '../tensor/tensor'
import { CollapseWatch } from './collapseWatch'
import { ScaledStep } from './scaledStep'
import {
  expectNumber,
  isScale,
  multiplied,
  type Scalable,
  scaledGradients,
  setScale,
  setTracker,
} from './scalerArguments'

/** Options of GradScaler; PyTorch's names and defaults. */
export interface GradScalerOptions {
  /** Where the scale lives; default: the device of the tensors. */
  device?: DeviceName | Device
  /** Default 65536. */
  initScale?: number
  /** What the scale is multiplied by after `growthInterval` updates without an overflow; default 2. */
  growthFactor?: number
  /** What it is multiplied by after an overflow; default 0.5. */
  backoffFactor?: number
  /** Default 2000. */
  growthInterval?: number
  /** False: every method does what training without a scaler does. Default true. */
  enabled?: boolean
}

/** Options of `step`. */
export interface ScalerStepOptions {
  /** Clips the unscaled gradients to this norm, as `clipGradNorm_` would after `unscale_`, without writing to them. */
  maxNorm?: number
  /** A schedule that moves on with the step, and stays when it is skipped. Its step is synchronous. */
  scheduler?: Steppable
}

/** State of a scaler. Scale and tracker are tensors of rank 0 once the scaler is in use, so that nothing waits for them;
 *  numbers are taken as well. */
export interface GradScalerState {
  scale: number | Tensor
  growthFactor: number
  backoffFactor: number
  growthInterval: number
  /** Updates since the last overflow or growth. */
  growthTracker: number | Tensor
}

type Stage = 'ready' | 'unscaled' | 'stepped'
interface Progress {
  stage: Stage
  checks: readonly Check[]
}
interface DeviceState {
  readonly scale: Tensor
  readonly tracker: Tensor
  /** See updateScale. */
  readonly status: Tensor
}

const disposeAll = (state: DeviceState | null): void => {
  for (const each of Object.values(state ?? {}) as Tensor[]) each.dispose()
}

const stateNames = ['scale', 'growthFactor', 'backoffFactor', 'growthInterval', 'growthTracker'] as const
const inBraces = (names: readonly string[]): string => `{ ${names.join(', ')} }`
const optionNames = ['device', 'initScale', 'growthFactor', 'backoffFactor', 'growthInterval', 'enabled'] as const

/** Scales losses so that gradients fit float16, and gradients back before they are used.
 *
 *  `scaler.scale(loss).backward(); scaler.step(optimizer); scaler.update()`, with `scaler.unscale_(optimizer)` before
 *  anything that looks at gradients. A step with an infinite or NaN gradient changes nothing, and the scale backs off;
 *  after `growthInterval` good updates it grows, unless it would not be finite. The device decides: `getScale` and what
 *  awaits a step wait for it, and a `scheduler` or an optimizer of your own can make `step` wait (see there). When the scale falls below 1, a warning (`process.on('warning')`) names the first
 *  parameter whose gradient overflowed.
 *  @throws ArgumentError for options out of range
 *  @see Micikevicius et al. 2018, arXiv:1710.03740; https://docs.pytorch.org/docs/stable/amp.html#gradient-scaling
 *  @example new amp.GradScaler({ initScale: 1024 }).getScaleSync() // 1024 */
export class GradScaler {
  readonly #enabled: boolean
  #growthFactor: number
  #backoffFactor: number
  #growthInterval: number
  #initial: { scale: number; tracker: number }
  #state: DeviceState | null = null
  /** Where the options say that the state lives; else it follows the losses. */
  readonly #device: Device | null
  #progress = new Map<Optimizer, Progress>()
  readonly #watch = new CollapseWatch()

  constructor(options: GradScalerOptions = {}) {
    const given = readOptions('GradScaler', options, optionNames)
    const { initScale = 65536, growthFactor = 2, backoffFactor = 0.5, growthInterval = 2000, enabled = true } = given
    this.#device = given.device === undefined ? null : device(given.device)
    this.#enabled = expectFlag('GradScaler', 'enabled', enabled)
    expectNumber('GradScaler', 'initScale', initScale, isScale, 'a finite number above 0')
    this.#initial = { scale: initScale, tracker: 0 }
    this.#growthFactor = growthFactor
    this.#backoffFactor = backoffFactor
    this.#growthInterval = growthInterval
    this.setGrowthFactor(growthFactor)
    this.setBackoffFactor(backoffFactor)
    this.setGrowthInterval(growthInterval)
  }

  /** Multiplies a tensor, or each of nested arrays of tensors, by the scale.
   *  @throws ArgumentError for anything else
   *  @example scaler.scale(loss).backward() */
  scale<T extends Scalable>(outputs: T): T extends Tensor ? Tensor : T
  scale(outputs: Scalable): Scalable {
    if (!this.#enabled) return outputs
    return multiplied(outputs, (loss) => this.#at(loss.device).scale)
  }

  /** Divides the gradients of an optimizer's parameters by the scale, in place, and finds out on the way whether all are
   *  finite, and their norm, which `clipGradNorm_` then need not compute. Only for code that looks at gradients: `step`
   *  does without.
   *  @throws StateError when it was called since the last update, or after `step`; DTypeError for float16 gradients
   *  @example scaler.unscale_(optimizer) */
  unscale_(optimizer: Optimizer): void {
    const op = 'GradScaler.unscale_'
    expectOptimizer(op, optimizer)
    if (!this.#enabled) return
    const { scale } = this.#begun(op)
    const progress = this.#of(optimizer)
    if (progress.stage !== 'ready') {
      throw new StateError(op, {
        problem:
          progress.stage === 'unscaled'
            ? 'the gradients of this optimizer are unscaled since the last update()'
            : 'the optimizer has taken its step',
        action: 'call it once, after backward() and before step(), and update() at the end of every iteration',
      })
    }
    progress.checks = unscoped(() => unscaleTensors(scaledGradients(op, optimizer), scale))
    progress.stage = 'unscaled'
  }

  /** Queues the optimizer's step, which the device takes unless a gradient is infinite or NaN; parameters, states and step
   *  counts stay as they are then. Gradients are divided by the scale as the kernel reads them (and keep their scaled
   *  values), unless `unscale_` has done it. Returns a promise of whether the step was taken, which waits only when it is
   *  awaited.
   *
   *  A `scheduler` moves on when the step is known to be taken: at the latest before the optimizer's next step, its state,
   *  or the schedule's rates are asked for, which blocks if it must: not where the loop awaits its loss or this step.
   *  Optimizers of your own whose `update` computes with tensors are decided on the host, so `step` waits.
   *  @throws StateError when it was called since the last update, when no parameter has a gradient, and when gradients
   *  were clipped while they were scaled; DTypeError for float16 gradients; ArgumentError for options out of range
   *  @example scaler.step(optimizer, { maxNorm: 1, scheduler: schedule }) */
  step(optimizer: Optimizer, options: ScalerStepOptions = {}): ScaledStep {
    const op = 'GradScaler.step'
    expectOptimizer(op, optimizer)
    const { maxNorm, scheduler } = readOptions(op, options, ['maxNorm', 'scheduler'])
    expectSchedule(op, scheduler)
    if (maxNorm !== undefined) expectLimit(op, 'maxNorm', maxNorm)
    if (scheduler !== undefined) {
      refuseInCapture(op, 'nobody waits for whether the step was taken', 'step the schedule beside replay()')
    }
    const clip = maxNorm === undefined ? {} : { maxNorm }
    const onKnown = (stepped: boolean): void => {
      if (stepped && scheduler !== undefined) moveOn(op, scheduler)
    }
    if (!this.#enabled) return new ScaledStep(null, optimizer.step(clip) ?? null, onKnown)

    const { scale, tracker, status } = this.#begun(op)
    const progress = this.#of(optimizer)
    if (progress.stage === 'stepped') {
      throw new StateError(op, {
        problem: 'the optimizer has taken its step since the last update()',
        action: 'call update() at the end of every iteration',
      })
    }
    const scaled = progress.stage === 'ready'
    const grads = scaledGradients(op, optimizer)
    if (scaled && grads.some(isClipped)) {
      throw new StateError(op, {
        problem: 'gradients were clipped while they were still scaled',
        action: 'call unscale_(optimizer) before clipping, or step(optimizer, { maxNorm })',
      })
    }
    const onDevice = optimizer._decidesOnDevice
    if (scaled) {
      const look = onDevice ? checkTensors : unscaleTensors
      progress.checks = grads.length === 0 ? [] : unscoped(() => look(grads, scale))
    }
    if (progress.checks.length === 0) {
      throw new StateError(op, {
        problem: 'no parameter of the optimizer has a gradient, so no check for infinity was made',
        action: 'call scaler.scale(loss).backward() first',
      })
    }
    const { foundInf, norm: found } = unscoped(() => combineChecks(progress.checks))
    // what was changed since unscale_ has another norm
    const norm = unscoped(() => (scaled && onDevice ? found : knownNorm(grads))) ?? null
    if (!onDevice) return this.#stepOnHost(optimizer, progress, grads, foundInf, norm, maxNorm, onKnown)
    const conditions = { scale: scaled ? scale : null, foundInf, norm, needed: [tracker, status] }
    const clipped = optimizer._conditionally(conditions, () => optimizer.step(clip))
    progress.stage = 'stepped'
    const step = new ScaledStep(foundInf, clipped ?? norm, onKnown)
    if (scheduler !== undefined) {
      void step._follow()
      optimizer._decideLater(() => step._settle())
    }
    return step
  }

  // An optimizer whose update no kernel can call off.
  #stepOnHost(
    optimizer: Optimizer,
    progress: Progress,
    grads: readonly Tensor[],
    foundInf: Tensor,
    known: Tensor | null,
    maxNorm: number | undefined,
    onKnown: (stepped: boolean) => void,
  ): ScaledStep {
    progress.stage = 'unscaled' // by step(); were it to throw below, a second call must not divide again
    const norm = known ?? unscoped(() => totalNorm(grads))
    const stepped = foundInf.itemSync() === 0
    if (stepped) {
      if (maxNorm !== undefined) clipTensors(grads, norm, maxNorm)
      optimizer.step()
    }
    progress.stage = 'stepped'
    return new ScaledStep(null, norm, onKnown, stepped)
  }

  /** Backs off, counts or grows by what the steps since the last update found, or sets the scale. Call it once an
   *  iteration, after the step of every optimizer.
   *  Nothing waits for a tensor: where its element is no finite number above 0, the scale stays.
   *  @throws StateError when no gradient was looked at since the last update; ArgumentError for what is no scale
   *  @example
   *  scaler.step(optimizer)
   *  scaler.update() */
  update(newScale?: number | Tensor): void {
    const op = 'GradScaler.update'
    if (!this.#enabled) return
    const { scale, tracker, status } = this.#begun(op)
    if (newScale !== undefined) {
      setScale(op, 'newScale', scale, newScale)
      this.#watch.reset()
    } else {
      const checks = [...this.#progress.values()].flatMap((each) => each.checks)
      if (checks.length === 0) {
        throw new StateError(op, {
          problem: 'no gradient was looked at since the last update()',
          action: 'call step(optimizer) first',
        })
      }
      updateScale(checks, [scale, tracker, status], [this.#growthFactor, this.#backoffFactor, this.#growthInterval])
      this.#watch.afterUpdate(checks, this.#progress.keys(), status, () => this.#backoffFactor)
    }
    this.#progress.clear()
  }

  /** The scale; 1 when disabled. Waits without blocking the event loop.
   *  @example await new amp.GradScaler().getScale() // 65536 */
  async getScale(): Promise<number> {
    if (!this.#enabled) return 1
    return this.#state === null ? this.#initial.scale : this.#state.scale.item()
  }

  /** Like `getScale()`, but blocks. */
  getScaleSync(): number {
    if (!this.#enabled) return 1
    return this.#state === null ? this.#initial.scale : this.#state.scale.itemSync()
  }

  /** Whether it scales at all. */
  isEnabled(): boolean {
    return this.#enabled
  }

  /** What the scale grows by. */
  getGrowthFactor(): number {
    return this.#growthFactor
  }

  /** @throws ArgumentError unless it is above 1 */
  setGrowthFactor(factor: number): void {
    expectNumber('GradScaler', 'growthFactor', factor, (x) => x > 1 && x < Infinity, 'a finite number above 1')
    this.#growthFactor = factor
  }

  /** What the scale is multiplied by after an overflow. */
  getBackoffFactor(): number {
    return this.#backoffFactor
  }

  /** @throws ArgumentError unless it lies between 0 and 1 */
  setBackoffFactor(factor: number): void {
    expectNumber('GradScaler', 'backoffFactor', factor, (x) => x > 0 && x < 1, 'a number between 0 and 1')
    this.#backoffFactor = factor
    this.#watch.reset()
  }

  /** Good updates in a row after which the scale grows. */
  getGrowthInterval(): number {
    return this.#growthInterval
  }

  /** @throws ArgumentError unless it is a whole number above 0 */
  setGrowthInterval(interval: number): void {
    const whole = (x: number): boolean => Number.isInteger(x) && x > 0 && x < 2 ** 31
    expectNumber('GradScaler', 'growthInterval', interval, whole, 'a whole number above 0')
    this.#growthInterval = interval
  }

  /** Scale, factors and count; {} when disabled. Take it after `update()`. Nothing waits, so scale and count are tensors once
   *  the scaler is in use, copies that are yours: `io.saveCheckpoint(folder, { scaler })` writes them; for JSON replace them by
   *  `await state.scale.item()` and `await state.growthTracker.item()`, which `loadStateDict` takes as well. */
  stateDict(): GradScalerState | Record<string, never> {
    if (!this.#enabled) return {}
    const state = this.#state
    const copy = (tensor: Tensor): Tensor => unscoped(() => tensor.clone())
    return {
      scale: state === null ? this.#initial.scale : copy(state.scale),
      growthFactor: this.#growthFactor,
      backoffFactor: this.#backoffFactor,
      growthInterval: this.#growthInterval,
      growthTracker: state === null ? this.#initial.tracker : copy(state.tracker),
    }
  }

  /** Continues where another scaler stood; does nothing when disabled. Tensors are copied; nothing waits for them, and where
   *  that of the scale is no finite number above 0, the scale stays.
   *  @throws StateError for an empty state, or other names in it; ArgumentError for values out of range */
  loadStateDict(dict: GradScalerState | Record<string, never>): void {
    const op = 'GradScaler.loadStateDict'
    if (!this.#enabled) return
    const given = dict !== null && typeof dict === 'object' ? Object.keys(dict) : null
    if (given === null || !stateNames.every((name) => given.includes(name))) {
      throw new StateError(op, {
        problem: 'not the state of a scaler',
        got: given === null ? describeValue(dict) : given.length === 0 ? 'that of a disabled one' : inBraces(given),
        expected: inBraces(stateNames),
      })
    }
    const { scale, growthFactor, backoffFactor, growthInterval, growthTracker } = dict as GradScalerState
    const other = new GradScaler({ growthFactor, backoffFactor, growthInterval }) // checks them
    const fresh = this.#begin(this.#device ?? this.#state?.scale.device ?? Device._default)
    try {
      if (this.#state !== null) fresh.scale.copy_(this.#state.scale)
      setScale(op, 'scale', fresh.scale, scale)
      setTracker(op, 'growthTracker', fresh.tracker, growthTracker)
    } catch (error) {
      disposeAll(fresh)
      throw error
    }
    this.#growthFactor = other.#growthFactor
    this.#growthInterval = other.#growthInterval
    this.setBackoffFactor(other.#backoffFactor)
    if (this.#state?.scale.device === fresh.scale.device) {
      // in place: a captured graph goes on with these
      for (const name of ['scale', 'tracker', 'status'] as const) this.#state[name].copy_(fresh[name])
      disposeAll(fresh)
    } else {
      disposeAll(this.#state)
      this.#state = fresh
    }
    this.#progress.clear()
  }

  #at(place: Device): DeviceState {
    this.#state ??= this.#begin(this.#device ?? place)
    const { scale, tracker, status } = this.#state
    if (this.#device !== null || scale.device === place) return this.#state
    const move = (old: Tensor): Tensor => {
      const moved = unscoped(() => old.to(place))
      old.dispose()
      return moved
    }
    this.#state = { scale: move(scale), tracker: move(tracker), status: move(status) }
    return this.#state
  }

  #begin(place: Device): DeviceState {
    const { scale, tracker } = this.#initial
    return unscoped(() => ({
      scale: full([], scale, { device: place }),
      tracker: full([], tracker, { dtype: 'int32', device: place }),
      status: full([3], -1, { device: place }),
    }))
  }

  #begun(op: string): DeviceState {
    if (this.#state !== null) return this.#state
    throw new StateError(op, {
      problem: 'no loss was scaled yet',
      action: 'call scaler.scale(loss).backward() earlier in the iteration',
    })
  }

  #of(optimizer: Optimizer): Progress {
    let progress = this.#progress.get(optimizer)
    if (progress === undefined) {
      progress = { stage: 'ready', checks: [] }
      this.#progress.set(optimizer, progress)
    }
    return progress
  }
}
