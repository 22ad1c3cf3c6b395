// Mixed precision: products in 16 bits, everything else in the dtype of its operands.

import { type AutocastState, autocastRegion, autocastState, openAutocast, runWithAutocast } from '../autograd/autocast'
import { Device, type DeviceName, device as deviceOf } from '../device'
import { BFLOAT16, type DType, dtypeNames, FLOAT16 } from '../dtype'
import { ArgumentError, DTypeError, describeValue, StateError } from '../errors'
import { expectFlag, expectFunction, readOptions } from '../options'

/** The dtypes that autocast computes products in. */
export type AutocastDType = Extract<DType, 'bfloat16' | 'float16'>

/** Options of `autocast`. */
export interface AutocastOptions {
  /** Default: the current device. */
  device?: DeviceName | Device
  /** Default: that of the region around; outside of any bfloat16 on cpu, float16 on cuda. */
  dtype?: AutocastDType
  /** false computes in the dtypes of the operands, also inside of another region. Default true. */
  enabled?: boolean
  /** A float32 parameter that has to be cast is cast once for the outermost region and not at every use. Default true.
   *  Products on cpu cast nothing: they convert what they read. */
  cacheEnabled?: boolean
}

const names = ['device', 'dtype', 'enabled', 'cacheEnabled'] as const
const defaults = { cpu: BFLOAT16, cuda: FLOAT16 } as const

function readDType(dtype: DType | undefined, on: Device): number {
  if (dtype === undefined) return autocastRegion()?.dtype ?? defaults[on.type]
  if (dtype === 'bfloat16') return BFLOAT16
  if (dtype === 'float16') return FLOAT16
  throw new DTypeError('autocast', {
    problem: 'no dtype to compute products in',
    got: describeValue(dtype),
    expected: "'bfloat16' or 'float16'",
    ...(dtype === 'float32' && { action: 'pass { enabled: false } to compute in float32' }),
  })
}

function readState(options: AutocastOptions): AutocastState {
  const {
    device = Device._default,
    dtype,
    enabled = true,
    cacheEnabled = true,
  } = readOptions('autocast', options, names)
  return {
    enabled: expectFlag('autocast', 'enabled', enabled),
    dtype: readDType(dtype, deviceOf(device)),
    cacheEnabled: expectFlag('autocast', 'cacheEnabled', cacheEnabled),
  }
}

/** A region of autocast that `using` ends. */
export interface AutocastScope {
  [Symbol.dispose](): void
}

/** Runs fn, which may be async, so that products (linear, matmul, attention, …) are computed in a 16-bit dtype, with
 *  float32 sums, and losses in float32. Parameters stay as they are and get gradients in their own dtype. Regions nest;
 *  an async fn keeps its region across its awaits, and nothing that runs meanwhile is in it. `backward` belongs outside:
 *  it computes in the dtypes that the forward pass left in any case.
 *
 *  Without fn it opens a region for the synchronous code that follows: `using region = amp.autocast()`. Ending one that
 *  was still open when its microtask ended, at an `await` say, throws.
 *  @throws DTypeError for a dtype that is neither bfloat16 nor float16; DeviceError for a device that is not there;
 *  ArgumentError for unknown options or what is no function; StateError at the end of a `using` region that an await
 *  interrupted
 *  @see Micikevicius et al. 2018, arXiv:1710.03740; https://docs.pytorch.org/docs/stable/amp.html
 *  @example amp.autocast(() => ops.linear(ones([2, 3]), ones([4, 3])).dtype) // 'bfloat16' */
export function autocast<R>(fn: () => R): R
export function autocast<R>(options: AutocastOptions, fn: () => R): R
export function autocast(options?: AutocastOptions): AutocastScope
export function autocast<R>(first?: AutocastOptions | (() => R), ...rest: [fn?: () => R]): R | AutocastScope {
  if (typeof first === 'function') {
    if (rest.length > 0) {
      const action = 'write amp.autocast(options, fn): the function is long and comes last'
      throw new ArgumentError('autocast', { problem: 'options follow the function', action })
    }
    return runWithAutocast(readState({}), first)
  }
  const state = readState(first === undefined ? {} : first)
  if (rest.length === 0) return scopeOf(state)
  const [fn] = rest
  expectFunction('autocast', fn)
  return runWithAutocast(state, fn as () => R)
}

function scopeOf(state: AutocastState): AutocastScope {
  const region = openAutocast(state)
  let ended = false
  return {
    [Symbol.dispose](): void {
      if (ended) return
      ended = true
      if (region.close()) return
      throw new StateError('autocast', {
        problem: 'the region was still open when its microtask ended, and was ended there',
        expected: 'synchronous code between its begin and its end',
        action: 'write amp.autocast(async () => ...), which keeps its region across an await',
      })
    },
  }
}

/** Whether autocast is on here. @example amp.isAutocastEnabled() // false */
export function isAutocastEnabled(): boolean {
  return autocastState().enabled
}

/** The dtype that products are computed in while autocast is on; outside of any region the default of the current device.
 *  @example amp.getAutocastDtype() // 'bfloat16' */
export function getAutocastDtype(): AutocastDType {
  return dtypeNames[autocastRegion()?.dtype ?? defaults[Device._default.type]] as AutocastDType
}
