// Elements on the JavaScript side: typed arrays to read into, and numbers from them.

import { BFLOAT16, BOOL, FLOAT16, FLOAT32, FLOAT64, INT32, INT64 } from '../dtype'
import { DTypeError, describeShape, OutOfMemoryError } from '../errors'
import type { Shape, Tensor } from './tensor'

/** Typed array that holds elements of a dtype; 16-bit floats arrive as float32. */
export type TensorData = Float32Array | Float64Array | BigInt64Array | Int32Array | Uint8Array

/** Nested arrays of numbers (booleans for bool), as deep as the tensor has dims; a number for rank 0. */
export type NestedArray = number | boolean | NestedArray[]

function allocateBytes(tensor: Tensor): Uint8Array {
  try {
    return new Uint8Array(tensor.nbytes)
  } catch (cause) {
    throw new OutOfMemoryError('data', {
      problem: 'JavaScript has no array of this size',
      got: `${tensor.nbytes} bytes for shape ${describeShape(tensor.shape)}`,
      action: 'read a part, such as narrow(0, 0, 1000)',
      cause,
    })
  }
}

/** @internal Bytes to read the elements into, and what they are once they are there. */
export function hostTarget(tensor: Tensor): [Uint8Array, () => TensorData] {
  const bytes = allocateBytes(tensor)
  const { buffer } = bytes
  switch (tensor._dtype) {
    case FLOAT32:
      return [bytes, () => new Float32Array(buffer)]
    case FLOAT64:
      return [bytes, () => new Float64Array(buffer)]
    case FLOAT16:
      return [bytes, () => Float32Array.from(new Uint16Array(buffer), halfToNumber)]
    case BFLOAT16:
      return [bytes, () => bfloat16ToFloat32(new Uint16Array(buffer))]
    case INT64:
      return [bytes, () => new BigInt64Array(buffer)]
    case INT32:
      return [bytes, () => new Int32Array(buffer)]
    default:
      return [bytes, () => bytes]
  }
}

function halfToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1
  const exponent = (bits >> 10) & 31
  const fraction = bits & 1023
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN
  return sign * (exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15))
}

function bfloat16ToFloat32(words: Uint16Array): Float32Array {
  const out = new Uint32Array(words.length)
  for (let i = 0; i < words.length; i++) out[i] = words[i]! << 16
  return new Float32Array(out.buffer)
}

function exact(value: bigint, op = 'array'): number {
  const number = Number(value)
  if (!Number.isSafeInteger(number)) {
    throw new DTypeError(op, {
      problem: 'an int64 element is not exact as a JavaScript number',
      got: `${value}n`,
      action: 'use data(), which gives BigInt',
    })
  }
  return number
}

/** @internal The number of a one-element tensor. */
export function scalar(op: string, data: TensorData, dtype: number): number {
  const value = data[0]!
  return typeof value === 'bigint' ? exact(value, op) : dtype === BOOL ? Number(value !== 0) : value
}

/** @internal Elements in row-major order as nested arrays. */
export function nest(data: TensorData, shape: Shape, dtype: number): NestedArray {
  let at = 0
  const build = (dim: number): NestedArray => {
    if (dim === shape.length) {
      const value = data[at++]!
      return typeof value === 'bigint' ? exact(value) : dtype === BOOL ? value !== 0 : value
    }
    const row = new Array<NestedArray>(shape[dim]!)
    for (let i = 0; i < row.length; i++) row[i] = build(dim + 1)
    return row
  }
  return build(0)
}
