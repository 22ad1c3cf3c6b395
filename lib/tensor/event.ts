// Points in the order of a device's work.

import { cudaDevice, type Device, type DeviceName } from '../device'
import { ArgumentError, describeValue, StateError } from '../errors'
import { binding, check, nativeError } from '../native'
import { expectFlag, readOptions } from '../options'

/** Options of Event. */
export interface EventOptions {
  /** Keep the time at which it is reached, for `elapsedTime`. Default false. */
  enableTiming?: boolean
}

/** A point in the work that is queued on a device: has the device passed it, and when? docs/cuda.md has an example.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.cuda.Event.html */
export class Event {
  readonly #isTimed: boolean
  #mark: object | null = null

  /** @throws ArgumentError for options that do not exist, and for an enableTiming that is no boolean */
  constructor(options: EventOptions = {}) {
    const { enableTiming = false } = readOptions('Event', options, ['enableTiming'])
    this.#isTimed = expectFlag('Event', 'enableTiming', enableTiming)
  }

  /** Marks the point behind everything that is queued by now; a later call moves the event there.
   *  @throws DeviceError where there is no such CUDA device; StateError while a graph is captured there */
  record(device?: DeviceName | Device | number): this {
    const mark = binding.markRecord(cudaDevice('Event.record', device)._code, this.#isTimed)
    if (Array.isArray(mark)) throw nativeError(mark)
    this.#mark = mark
    return this
  }

  /** Whether the device has passed it; true before it was recorded.
   *  @throws NativeError when the device was lost before */
  query(): boolean {
    return this.#mark === null || this.#ask(binding.markReached(this.#mark))
  }

  /** Waits, without blocking the event loop, until the device has passed it.
   *  @throws NativeError when the device was lost before */
  async synchronize(): Promise<void> {
    if (this.#mark === null) return
    const passed = binding.markPassed(this.#mark)
    if (Array.isArray(passed)) throw nativeError(passed)
    try {
      await passed
    } catch (failure) {
      throw nativeError(failure)
    }
  }

  /** Milliseconds between this event and a later one.
   *  @throws StateError unless both have `enableTiming`, were recorded, and are passed; DeviceError when they are on
   *  different devices */
  elapsedTime(end: Event): number {
    const op = 'Event.elapsedTime'
    if (!(end instanceof Event)) {
      throw new ArgumentError(op, { problem: 'not an event', got: describeValue(end), expected: 'a cuda.Event' })
    }
    for (const [event, name] of [
      [this, 'this event'],
      [end, 'the end'],
    ] as const) {
      if (!event.#isTimed) {
        throw new StateError(op, {
          problem: `${name} keeps no time`,
          action: 'make it with new cuda.Event({ enableTiming: true })',
        })
      }
      if (event.#mark === null) {
        throw new StateError(op, {
          problem: `${name} was not recorded`,
          action: 'call its record() where the work that it stands for is queued',
        })
      }
      if (!event.query()) {
        throw new StateError(op, {
          problem: `the device has not passed ${name} yet`,
          action: 'await its synchronize() first',
        })
      }
    }
    return this.#ask(binding.markElapsed(this.#mark!, end.#mark!))
  }

  #ask<T extends number | boolean>(answer: T | Parameters<typeof check>[0]): T {
    if (Array.isArray(answer)) check(answer)
    return answer as T
  }
}
