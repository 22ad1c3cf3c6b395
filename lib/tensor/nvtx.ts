// Ranges and marks for profilers such as Nsight Systems, which show kernels below the range that launched them. Where no
// profiler listens they cost a call each.

import { cudaDevice, type Device, type DeviceName } from '../device'
import { ArgumentError, describeValue } from '../errors'
import { binding, check } from '../native'

const [PUSH, POP, MARK] = [0, 1, 2]

function tell(op: string, what: number, message: string, device?: DeviceName | Device | number): void {
  if (typeof message !== 'string') {
    throw new ArgumentError(`nvtx.${op}`, {
      problem: 'the message is not a text',
      got: describeValue(message),
      expected: 'a string',
    })
  }
  check(binding.nvtx(cudaDevice(`nvtx.${op}`, device)._code, what, message))
}

/** Begins a range around what is queued on the device from here on; ranges nest.
 *  @throws DeviceError where there is no such CUDA device
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.cuda.nvtx.range_push.html */
export function rangePush(message: string, device?: DeviceName | Device | number): void {
  tell('rangePush', PUSH, message, device)
}

/** Ends the innermost range.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.cuda.nvtx.range_pop.html */
export function rangePop(device?: DeviceName | Device | number): void {
  tell('rangePop', POP, '', device)
}

/** Marks a point.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.cuda.nvtx.mark.html */
export function mark(message: string, device?: DeviceName | Device | number): void {
  tell('mark', MARK, message, device)
}

/** Runs fn within a range, which ends when fn returns or throws.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.cuda.nvtx.range.html */
export function range<R>(message: string, fn: () => R, device?: DeviceName | Device | number): R {
  const place = cudaDevice('nvtx.range', device) // fn may change the default
  rangePush(message, place)
  try {
    return fn()
  } finally {
    rangePop(place)
  }
}
