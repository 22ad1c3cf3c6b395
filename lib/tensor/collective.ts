// Operations of several CUDA devices at once: one call queues the part of each.

import { binding, check, nativeError, scratch } from '../native'
import { currentContext } from './dispatch'
import { observer } from './observer'
import type { Tensor } from './tensor'

/** @internal The order is that of native/cuda/collective.h, as is that of the operations. */
export const collectiveKinds = ['allReduce', 'reduce', 'broadcast', 'allGather', 'reduceScatter'] as const
/** @internal */
export type CollectiveKind = (typeof collectiveKinds)[number]

/** @internal */
export const reduceOps = ['sum', 'prod', 'min', 'max', 'avg'] as const

/** How a collective reduces: `avg` is the sum divided by the number of tensors, of integers without the fraction. */
export type ReduceOp = (typeof reduceOps)[number]

/** @internal What a rank gives and what it takes. */
export type Rank = readonly [input: Tensor | null, output: Tensor | null]

/** @internal Queues a collective; native/cuda/collective.h says which operands each kind has. */
export function collective(kind: CollectiveKind, ranks: readonly Rank[], op: ReduceOp = 'sum', root = 0): void {
  scratch[0] = collectiveKinds.indexOf(kind)
  scratch[1] = reduceOps.indexOf(op)
  scratch[2] = root
  scratch[3] = currentContext
  scratch[4] = ranks.length
  let at = 5
  for (const rank of ranks) {
    for (const tensor of rank) {
      if (tensor !== null && observer !== null) observer.uses(tensor)
      scratch[at++] = tensor === null ? 0 : tensor._handle
    }
  }
  check(binding.collective())
  for (const [, output] of ranks) output?._bumpVersion()
}

/** @internal The version of the library for collectives, 10000 * major + 100 * minor + patch.
 *  @throws DeviceError where there is none that can be used */
export function ncclVersion(): number {
  const version = binding.ncclVersion()
  if (typeof version !== 'number') throw nativeError(version)
  return version
}
