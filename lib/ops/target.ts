// Where `to` goes: a dtype, a device, or both.

import { type Device, type DeviceName, device, looksLikeDevice } from '../device'
import { type DType, dtypeCode, dtypeNames } from '../dtype'
import { ArgumentError, DTypeError, describeValue } from '../errors'
import { expectFlag, readOptions } from '../options'
import { Tensor } from '../tensor/tensor'

/** What `to` takes first. */
export type ToTarget = DType | DeviceName | Device | { dtype?: DType; device?: DeviceName | Device }

/** Options of `to`. */
export interface ToOptions {
  /** A copy to a CUDA device runs beside what is queued there from here on; only what uses it waits for it. So the next
   *  batch travels while the present one is computed with: call it before the step is queued. Nothing ever waits on the
   *  side of the host. Copies from another CUDA device stand in the order of both devices all the same. Default false. */
  nonBlocking?: boolean
}

/** @internal What the arguments of `to` say. */
export interface ReadTarget {
  /** code of the dtype; null where none is named */
  readonly dtype: number | null
  /** null where none is named */
  readonly place: Device | null
  readonly aside: boolean
}

/** @internal Reads `to(target, options)` and `to(device, dtype, options)`.
 *  @throws DTypeError, DeviceError for what is neither; ArgumentError for arguments that mean nothing */
export function readTarget(
  target: ToTarget,
  second: DType | ToOptions | undefined,
  third: ToOptions | undefined,
): ReadTarget {
  if (target === undefined) {
    throw new ArgumentError('to', {
      problem: 'no dtype and no device',
      got: 'undefined',
      expected: 'a dtype, a device, or { device, dtype }',
      action: "name one, such as to('cuda')",
    })
  }
  const named = typeof target === 'string' && !looksLikeDevice(target)
  const both = typeof second === 'string'
  const options = (both ? third : second) ?? {}
  if ((both && (named || isPair(target))) || (!both && second !== undefined && third !== undefined)) {
    throw new ArgumentError('to', {
      problem: 'more arguments than mean something',
      got: [target, second, ...(third === undefined ? [] : [third])].map(describeValue).join(', '),
      expected: 'a dtype, a device, or a device and a dtype; then options',
      action: 'write to({ device, dtype }), or to(device, dtype)',
    })
  }
  const { nonBlocking = false } = readOptions('to', options, ['nonBlocking'])
  const aside = expectFlag('to', 'nonBlocking', nonBlocking)
  if (named && !dtypeNames.includes(target as DType)) {
    throw new DTypeError('to', {
      problem: 'unknown dtype or device',
      got: describeValue(target),
      expected: `one of ${dtypeNames.join(', ')}, or a device: cpu, cuda, or one of them with an index, such as cuda:1`,
    })
  }
  const wanted = isPair(target) ? pairOf(target) : named ? { dtype: target as DType } : { device: target as DeviceName }
  const dtype = both ? second : wanted.dtype
  return {
    dtype: dtype === undefined ? null : dtypeCode(dtype, 'to'),
    place: wanted.device === undefined ? null : device(wanted.device),
    aside,
  }
}

type Pair = { dtype?: DType; device?: DeviceName | Device }

const isPair = (target: unknown): target is Pair => typeof target === 'object' && target !== null && !('type' in target)

const pairOf = (target: Pair): Pair =>
  target instanceof Tensor ? target : readOptions('to', target, ['dtype', 'device'])
