// Devices: where a tensor's memory is and its kernels run.

import { DeviceError, describeValue } from './errors'
import { binding, check, nativeError } from './native'

/** Name of a device: `cpu` is `cpu:0`, `cuda` is `cuda:0`. `cpu:1` and so on are streams and memory accounts of their
 *  own on the same cores. */
export type DeviceName = 'cpu' | `cpu:${number}` | 'cuda' | `cuda:${number}`

/** Kinds of devices. */
export type DeviceType = 'cpu' | 'cuda'

const types: readonly DeviceType[] = ['cpu', 'cuda']
const codesPerType = 256
/** As in native/core/device.h. */
const mostDevices = 16

/** A device with its in-order stream. */
export class Device {
  /** @internal what native/core/device.h calls it by */
  readonly _code: number

  private constructor(
    readonly type: DeviceType,
    readonly index: number,
  ) {
    this._code = types.indexOf(type) * codesPerType + index
  }

  private static readonly open = new Map<number, Device>()

  static readonly cpu = Device._open('cpu', 0)

  /** @internal Where tensors are made that name no device. */
  static _default = Device.cpu

  /** @internal The one object that stands for a device. @throws DeviceError where there is none */
  static _open(type: DeviceType, index: number): Device {
    const known = Device.open.get(types.indexOf(type) * codesPerType + index)
    if (known !== undefined) return known
    const opened = new Device(type, index)
    check(binding.openDevice(opened._code))
    Device.open.set(opened._code, opened)
    return opened
  }

  /** Waits, without blocking the event loop, until everything queued on the device has run.
   *  @throws the first error of an operation that failed since the last wait */
  async synchronize(): Promise<void> {
    const result = binding.synchronize(this._code)
    if (Array.isArray(result)) throw nativeError(result)
    try {
      await result
    } catch (failure) {
      throw nativeError(failure)
    }
  }

  /** Blocks until everything queued on the device has run. */
  synchronizeSync(): void {
    const failure = binding.synchronizeSync(this._code)
    if (failure !== undefined) throw nativeError(failure)
  }

  /** @internal Settles when what is queued now has run, without reporting errors: for bounding run-ahead. */
  async passed(): Promise<void> {
    const result = binding.passed(this._code)
    if (Array.isArray(result)) throw nativeError(result)
    await result
  }

  toString(): string {
    return this.type === 'cpu' && this.index === 0 ? 'cpu' : `${this.type}:${this.index}`
  }
}

const pattern = /^(cpu|cuda)(?::(0|[1-9]\d?))?$/

/** @internal Whether a value is meant as the name of a device rather than of a dtype. */
export const looksLikeDevice = (value: unknown): boolean => typeof value === 'string' && /^(cpu|cuda)/.test(value)

/** Makes tensors on a device where a call names none, and gives back the one before. Models and data that are made from
 *  here on are there; what exists stays where it is, and files are read to the cpu.
 *  @throws DeviceError when there is none of that name
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.set_default_device.html
 *  @example setDefaultDevice('cpu') */
export function setDefaultDevice(name: DeviceName | Device): Device {
  const before = Device._default
  Device._default = device(name)
  return before
}

/** The device of tensors that name none; cpu unless `setDefaultDevice` said otherwise.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.get_default_device.html
 *  @example getDefaultDevice().type // 'cpu' */
export const getDefaultDevice = (): Device => Device._default

/** The device of a name, or of a type and an index.
 *  @throws DeviceError when there is no such device, or when the name has an index already
 *  @see https://docs.pytorch.org/docs/stable/tensor_attributes.html#torch.device
 *  @example device('cpu').type // 'cpu'
 *  @example device('cpu', 1).toString() // 'cpu:1' */
export function device(name: DeviceName | Device, index?: number): Device {
  if (index !== undefined && index !== null) return indexed(name, index)
  if (name instanceof Device) return name
  const [, type, written = '0'] = (typeof name === 'string' && pattern.exec(name)) || []
  if (type === undefined || Number(written) >= mostDevices) throw noDevice(describeValue(name))
  return Device._open(type as DeviceType, Number(written))
}

function indexed(type: unknown, index: unknown): Device {
  const got = `${describeValue(type)} and ${describeValue(index)}`
  if (type !== 'cpu' && type !== 'cuda') {
    throw new DeviceError('device', {
      problem: 'an index goes with a type alone',
      got,
      expected: "'cpu' or 'cuda' before the index",
    })
  }
  if (!Number.isInteger(index) || (index as number) < 0 || (index as number) >= mostDevices) throw noDevice(got)
  return Device._open(type, index as number)
}

const noDevice = (got: string): DeviceError =>
  new DeviceError('device', {
    problem: 'no such device',
    got,
    expected: `'cpu', 'cuda', or one of them with an index, such as 'cuda:1', below ${mostDevices}`,
  })

/** @internal The CUDA device that is meant by a device, a name or an index; by nothing: the default device where that is a
 *  CUDA device, else cuda:0.
 *  @throws DeviceError for the cpu, and where there is no such device */
export function cudaDevice(op: string, where?: DeviceName | Device | number): Device {
  if (where === undefined || where === null) return Device._default.type === 'cuda' ? Device._default : device('cuda')
  const found = typeof where === 'number' ? device('cuda', where) : device(where)
  if (found.type === 'cuda') return found
  throw new DeviceError(op, {
    problem: 'not a CUDA device',
    got: String(found),
    expected: "'cuda', one with an index such as 'cuda:1', or the index",
  })
}
