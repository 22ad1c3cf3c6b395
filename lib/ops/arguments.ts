// Reading the arguments that operators have in common.

import { ArgumentError, describeShape, describeValue, IndexError, ShapeError } from '../errors'
import type { Shape } from '../tensor/tensor'

/** @internal A dim in [0, rank); negative ones count from the end. A rank-0 tensor takes 0 and -1, as in PyTorch. */
export function normalizeDim(op: string, dim: number, rank: number): number {
  const range = Math.max(rank, 1)
  if (!Number.isInteger(dim)) {
    throw new ArgumentError(op, { problem: 'dim is not a whole number', got: describeValue(dim) })
  }
  if (dim < -range || dim >= range) {
    throw new IndexError(op, {
      problem: 'dim is out of range',
      got: String(dim),
      expected: `${-range} to ${range - 1} for a tensor of rank ${rank}`,
    })
  }
  return dim < 0 ? dim + range : dim
}

/** @internal Dims as a bit mask; all of them when `dim` is undefined or empty. */
export function dimMask(op: string, dim: number | readonly number[] | null | undefined, rank: number): number {
  const dims = dim === undefined || dim === null ? [] : typeof dim === 'number' ? [dim] : dim
  if (dims.length === 0 || rank === 0) return 2 ** rank - 1
  let mask = 0
  for (const each of dims) {
    const bit = 2 ** normalizeDim(op, each, rank)
    if (mask & bit) throw new ArgumentError(op, { problem: 'a dim is named twice', got: describeShape(dims) })
    mask |= bit
  }
  return mask
}

/** @internal The shape that remains when the dims of the mask are reduced. */
export function reducedShape(shape: Shape, mask: number, keepdim: boolean): Shape {
  const out: number[] = []
  for (let d = 0; d < shape.length; d++) {
    if (!(mask & (2 ** d))) out.push(shape[d]!)
    else if (keepdim) out.push(1)
  }
  return out
}

/** @internal Sizes as an array: `f(2, 3)` and `f([2, 3])` are the same. */
export function readSizes(op: string, sizes: readonly (number | readonly number[])[]): number[] {
  const list = sizes.length === 1 && Array.isArray(sizes[0]) ? (sizes[0] as number[]) : (sizes as number[])
  for (const size of list) {
    if (!Number.isInteger(size)) {
      throw new ShapeError(op, { problem: 'a size is not a whole number', got: describeValue(size) })
    }
  }
  return [...list]
}

/** @internal Like readSizes, for new tensors: no negative sizes. */
export function readShape(op: string, shape: readonly number[] | number): number[] {
  if (typeof shape !== 'number' && !Array.isArray(shape)) {
    throw new ShapeError(op, { problem: 'not a shape', got: describeValue(shape), expected: 'an array of sizes' })
  }
  const sizes = readSizes(op, typeof shape === 'number' ? [shape] : shape)
  if (sizes.length > 8) {
    throw new ShapeError(op, { problem: 'too many dims', got: String(sizes.length), expected: 'at most 8' })
  }
  for (const size of sizes) {
    if (size < 0) throw new ShapeError(op, { problem: 'a size is negative', got: describeShape(sizes) })
  }
  return sizes
}
