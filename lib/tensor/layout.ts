// How elements lie in memory.

import type { Shape } from './tensor'

/** @internal */
export function sameShape(a: Shape, b: Shape): boolean {
  if (a === b) return true
  if (a.length !== b.length) return false
  for (let d = 0; d < a.length; d++) if (a[d] !== b[d]) return false
  return true
}

/** @internal Row-major strides. */
export function contiguousStrides(shape: Shape): number[] {
  const strides = new Array<number>(shape.length)
  let stride = 1
  for (let d = shape.length - 1; d >= 0; d--) {
    strides[d] = stride
    stride *= Math.max(1, shape[d]!)
  }
  return strides
}

/** @internal Whether strides are those of row-major order without gaps. */
export function isContiguous(shape: Shape, strides: readonly number[]): boolean {
  let expected = 1
  for (let d = shape.length - 1; d >= 0; d--) {
    const size = shape[d]!
    if (size === 0) return true
    if (size !== 1 && strides[d] !== expected) return shape.includes(0)
    expected *= size
  }
  return true
}
