// What a user can ask of the memory of a device, and do about it.

import { ArgumentError, describeValue } from '../errors'
import { formatTable } from '../memoryReport'
import { binding, check } from '../native'
import { memoryStats } from './memory'
import { type MemoryProfile, type MemoryProfileOptions, profile } from './memoryProfile'

const mib = (bytes: number): string => (bytes / 2 ** 20).toFixed(1)

/** Memory of the cpu device, in bytes. Operations that are queued have not allocated yet: synchronize first. */
export const memory = {
  /** Held by live tensors. */
  allocated: (): number => memoryStats().allocated,
  /** Held from the system, for live tensors and for reuse. */
  reserved: (): number => memoryStats().reserved,
  /** Most that was allocated since the start or the last `resetPeak()`. */
  maxAllocated: (): number => memoryStats().maxAllocated,
  /** What may be allocated. */
  limit: (): number => memoryStats().limit,
  /** Live tensors of this thread. */
  tensors: (): number => memoryStats().tensors,
  resetPeak(): void {
    check(binding.memoryControl(0, 0))
  },
  /** Gives unused memory back to the system. What is in use stays where it is, so memory between live tensors may stay
   *  reserved, but not resident. */
  trim(): void {
    check(binding.memoryControl(1, 0))
  },
  /** Sets what may be allocated, in bytes; 0 restores the default (95 % of what this process may use).
   *  @throws ArgumentError for anything but a whole number of at least 0 */
  setLimit(bytes: number): void {
    if (!Number.isSafeInteger(bytes) || bytes < 0) {
      throw new ArgumentError('memory.setLimit', {
        problem: 'not a number of bytes',
        got: describeValue(bytes),
        expected: 'a whole number of at least 0',
        action: '0 restores the default',
      })
    }
    check(binding.memoryControl(2, bytes))
  },
  /** The account as a table, in MiB.
   *  @see https://docs.pytorch.org/docs/stable/generated/torch.cuda.memory_summary.html
   *  @example memory.summary() // 'memory in MiB…' */
  summary(): string {
    const { allocated, reserved, maxAllocated, limit, tensors } = memoryStats()
    return formatTable([
      ['memory in MiB', 'cpu'],
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
   *  apart. Waits for the device before and after; allocations take a little longer meanwhile.
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
