// What a user can ask of the memory of a device, and do about it.

import { Device, type DeviceName, device as deviceOf } from '../device'
import { ArgumentError, describeValue } from '../errors'
import { formatTable } from '../memoryReport'
import { binding, check } from '../native'
import { memoryStats } from './memory'
import { type MemoryProfile, type MemoryProfileOptions, profile } from './memoryProfile'

const mib = (bytes: number): string => (bytes / 2 ** 20).toFixed(1)

/** A device or its name; `getDefaultDevice()` where none is given. */
type Where = DeviceName | Device

const statsOf = (where: Where = Device._default): ReturnType<typeof memoryStats> => memoryStats(deviceOf(where))

function control(where: Where = Device._default, what: number, value = 0): void {
  check(binding.memoryControl(deviceOf(where)._code, what, value))
}

/** Memory of a device, by default `getDefaultDevice()`, in bytes. Operations that are queued have not allocated yet: synchronize first. */
export const memory = {
  /** Held by live tensors. */
  allocated: (device?: Where): number => statsOf(device).allocated,
  /** Held from the system, for live tensors and for reuse. */
  reserved: (device?: Where): number => statsOf(device).reserved,
  /** Most that was allocated since the start or the last `resetPeak()`. */
  maxAllocated: (device?: Where): number => statsOf(device).maxAllocated,
  /** What may be allocated. */
  limit: (device?: Where): number => statsOf(device).limit,
  /** Live tensors of this thread, on all devices. */
  tensors: (): number => memoryStats().tensors,
  resetPeak: (device?: Where): void => control(device, 0),
  /** Gives unused memory back to the system. What is in use stays where it is, so memory between live tensors may stay
   *  reserved, but not resident. */
  trim: (device?: Where): void => control(device, 1),
  /** Sets what may be allocated, in bytes; 0 restores the default: 95 % of what this process may
   *  use, and all memory of a CUDA device. A graph counts while it is captured, and
   *  afterwards what it returned.
   *  @throws ArgumentError for anything but a whole number of at least 0 */
  setLimit(bytes: number, device?: Where): void {
    if (!Number.isSafeInteger(bytes) || bytes < 0) {
      throw new ArgumentError('memory.setLimit', {
        problem: 'not a number of bytes',
        got: describeValue(bytes),
        expected: 'a whole number of at least 0',
        action: '0 restores the default',
      })
    }
    control(device, 2, bytes)
  },
  /** The account as a table, in MiB.
   *  @see https://docs.pytorch.org/docs/stable/generated/torch.cuda.memory_summary.html
   *  @example memory.summary() // 'memory in MiB…' */
  summary(device: Where = Device._default): string {
    const { allocated, reserved, maxAllocated, limit, tensors } = statsOf(device)
    return formatTable([
      ['memory in MiB', deviceOf(device).toString()],
      ['in use', mib(allocated)],
      ['peak', mib(maxAllocated)],
      ['reserved', mib(reserved)],
      ['limit', mib(limit)],
      ['live tensors', String(tensors)],
    ])
  },
  /** Runs fn, which may be async, and tells where its memory went: the peak of each phase (forward, backward, step) by kind
   *  (weights, gradients, optimizer, activations, workspace), and the largest peak by module path. Prints itself as a
   *  table; goes into `TrainingHistory.memory` for the HTML report. `model` and `optimizer` say whose tensors are told
   *  apart, and on which
   *  device: that of the parameters, unless `device` says another. Waits for the device before and after; allocations
   *  take a little longer meanwhile.
   *  @throws StateError while another profile of the process is under way, or when more happens than a log holds (4 million
   *  allocations and releases: thousands of steps)
   *  @see https://docs.pytorch.org/docs/stable/torch_cuda_memory.html
   *  @example
   *  const profile = await memory.profile(
   *    () => {
   *      model.forward(batch).loss.backward()
   *      optimizer.step()
   *    },
   *    { model, optimizer },
   *  )
   *  profile.phases.map(({ name }) => name) // ['forward', 'backward', 'step'] */
  profile: (fn: () => unknown, options: MemoryProfileOptions = {}): Promise<MemoryProfile> => profile(fn, options),
}
