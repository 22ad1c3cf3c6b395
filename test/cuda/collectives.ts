// What collectives have to give, worked out in float64.
import './severalDevices'
import { expect } from 'vitest'
import { cuda, type DType, isFloatingPoint, type Tensor } from '../../lib/index'
import type { ReduceOp } from '../../lib/ops/nccl'
import { values } from './support'

export const reduceOps: readonly ReduceOp[] = ['sum', 'prod', 'min', 'max', 'avg']

/** Numbers of ranks that this machine has devices for. */
export const worlds = [1, 2, 3].filter((n) => n <= cuda.deviceCount())

const halfUnits: Partial<Record<DType, number>> = {
  float32: 2 ** -24,
  float64: 2 ** -53,
  float16: 2 ** -11,
  bfloat16: 2 ** -8,
}

export const numbersOf = (x: Tensor): number[] => Array.from(x.dataSync(), Number)

const sizeOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1)

/** A tensor for each rank, on the cpu. */
export const filled = (ranks: number, shape: readonly number[], dtype: DType): Tensor[] =>
  Array.from({ length: ranks }, (_, rank) => values(sizeOf(shape), dtype, 31 * rank + 7, true).view(...shape))

/** Each on a device of its own. */
export const spreadOut = (tensors: readonly Tensor[]): Tensor[] => tensors.map((x, rank) => x.to(`cuda:${rank}`))

/** What one element of the ranks reduces to, and how far a result in the dtype may be off it. */
function reduced(op: ReduceOp, column: readonly number[], dtype: DType): [value: number, tolerance: number] {
  const sum = column.reduce((a, b) => a + b, 0)
  const product = column.reduce((a, b) => a * b, 1)
  if (dtype === 'bool') {
    if (op === 'avg') throw new Error('truth values have no average')
    return [op === 'sum' || op === 'max' ? Math.max(...column) : Math.min(...column), 0]
  }
  const steps = column.length * (halfUnits[dtype] ?? 0)
  const magnitude = column.reduce((a, b) => a + Math.abs(b), 0)
  const wrapped = (x: number): number => (dtype === 'uint8' ? ((x % 256) + 256) % 256 : x)
  switch (op) {
    case 'sum':
      return [wrapped(sum), steps * magnitude]
    case 'avg':
      return isFloatingPoint(dtype)
        ? [sum / column.length, (steps * 2 * magnitude) / column.length]
        : [Math.trunc(sum / column.length), 0]
    case 'prod':
      // what is below its smallest normal number, float16 holds to 2 ** -25; a factor of up to 4 may follow
      return [wrapped(product), steps * Math.abs(product) + (dtype === 'float16' ? 2 ** -23 : 0)]
    default:
      return [op === 'min' ? Math.min(...column) : Math.max(...column), 0]
  }
}

/** Expects the reduction of the ranks' tensors, or of a part of their elements. */
export function expectReduced(got: Tensor, ranks: readonly Tensor[], op: ReduceOp, what: string, from = 0): void {
  const lists = ranks.map(numbersOf)
  for (const [i, value] of numbersOf(got).entries()) {
    const [wanted, tolerance] = reduced(
      op,
      lists.map((list) => list[from + i]!),
      got.dtype,
    )
    if (!(Math.abs(value - wanted) <= tolerance)) expect.fail(`${what}: element ${i} is ${value}, expected ${wanted}`)
  }
}
