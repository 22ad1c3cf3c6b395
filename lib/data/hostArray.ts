// Elements in JavaScript memory with a shape and a dtype: what a batch is made of before it becomes tensors. Worker
// threads build these and hand their buffers over without a copy; the addon is loaded in the main thread only.

import type { DType } from '../dtype'
import { ArgumentError, describeShape, describeValue, ShapeError } from '../errors'
import type { SourceArray } from '../tensor/create' // a type only: the addon stays out of workers

/** Typed arrays that can become tensors; small integers become int32, Uint32 int64. */
export type HostData = SourceArray

/** Elements that the DataLoader turns into a tensor. Made by `hostArray`. */
export interface HostArray {
  readonly kind: typeof hostArrayKind
  readonly data: HostData
  readonly shape: readonly number[]
  readonly dtype: DType | undefined
}

const hostArrayKind = 'gradus.hostArray'

/** For collate functions: elements with a shape, which the DataLoader turns into a tensor.
 *  @param dtype default: that of the array; 'bool' takes a Uint8Array of zeros and ones
 *  @example hostArray(new Int32Array(6), [2, 3]) */
export function hostArray(data: HostData, shape: readonly number[], dtype?: DType): HostArray {
  const count = shape.reduce((product, size) => product * size, 1)
  if (!isHostData(data))
    throw new ArgumentError('hostArray', { problem: 'not a typed array', got: describeValue(data) })
  if (count !== data.length) {
    throw new ShapeError('hostArray', {
      problem: 'the shape does not fit the array',
      got: `${data.length} elements for shape ${describeShape(shape)}`,
      expected: `${count} elements`,
    })
  }
  return { kind: hostArrayKind, data, shape, dtype }
}

/** @internal */
export const isHostArray = (value: unknown): value is HostArray =>
  typeof value === 'object' && value !== null && (value as HostArray).kind === hostArrayKind

/** @internal */
export const isHostData = (value: unknown): value is HostData =>
  ArrayBuffer.isView(value) && !(value instanceof DataView)

/** @internal */
export function isPlainObject(value: unknown): value is Record<string, unknown> {
  if (typeof value !== 'object' || value === null) return false
  const prototype = Object.getPrototypeOf(value)
  return prototype === null || Object.getPrototypeOf(prototype) === null
}

/** @internal A copy of a batch with every host array replaced. */
export function mapHostArrays(value: unknown, change: (array: HostArray) => unknown): unknown {
  if (isHostArray(value)) return change(value)
  if (Array.isArray(value)) return value.map((item) => mapHostArrays(item, change))
  if (!isPlainObject(value)) return value
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, mapHostArrays(item, change)]))
}
