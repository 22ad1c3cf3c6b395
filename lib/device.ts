// Devices: where a tensor's memory is and its kernels run.

import { DeviceError, describeValue } from './errors'
import { binding, nativeError } from './native'

/** Name of a device: `cpu`, or `cpu:0`. */
export type DeviceName = 'cpu' | `cpu:${number}`

/** A device with its in-order stream. */
export class Device {
  private constructor(
    readonly type: 'cpu',
    readonly index: number,
  ) {}

  /** The default device. */
  static readonly cpu = new Device('cpu', 0)

  /** Waits, without blocking the event loop, until everything queued on the device has run.
   *  @throws the first error of an operation that failed since the last wait */
  async synchronize(): Promise<void> {
    const result = binding.synchronize()
    if (Array.isArray(result)) throw nativeError(result)
    try {
      await result
    } catch (failure) {
      throw nativeError(failure)
    }
  }

  /** Blocks until everything queued on the device has run. */
  synchronizeSync(): void {
    const failure = binding.synchronizeSync()
    if (failure !== undefined) throw nativeError(failure)
  }

  /** @internal Settles when what is queued now has run, without reporting errors: for bounding run-ahead. */
  async passed(): Promise<void> {
    const result = binding.passed()
    if (Array.isArray(result)) throw nativeError(result)
    await result
  }

  toString(): string {
    return this.type
  }
}

/** The device of a name.
 *  @throws DeviceError when there is none of that name
 *  @example device('cpu').type // 'cpu' */
export function device(name: DeviceName | Device): Device {
  if (name instanceof Device) return name
  if (name === 'cpu' || name === 'cpu:0') return Device.cpu
  throw new DeviceError('device', {
    problem: 'no such device',
    got: describeValue(name),
    expected: "'cpu'",
  })
}
