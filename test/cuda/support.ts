// Comparing tensors on cuda with the same on cpu, which test/ops holds to independent values.
import { expect } from 'vitest'
import { type DType, device, fromTypedArray, isFloatingPoint, type Tensor, zeros } from '../../lib/index'

export const cuda = device('cuda')
export const floats: readonly DType[] = ['float32', 'float64', 'float16', 'bfloat16']
export const whole: readonly DType[] = ['int64', 'int32', 'uint8']
export const all: readonly DType[] = [...floats, ...whole, 'bool']

/** Code of a dtype on the native side. */
export const code = (dtype: DType): number => all.indexOf(dtype)

const precision: Partial<Record<DType, number>> = {
  float32: 2 ** -23,
  float64: 2 ** -52,
  float16: 2 ** -10,
  bfloat16: 2 ** -7,
}

/** Below it numbers of a dtype are no longer as precise as others. */
export const leastNormal = (dtype: DType): number =>
  dtype === 'float64' ? 2 ** -1022 : dtype === 'float16' ? 2 ** -14 : 2 ** -126

/** The unit of a floating dtype. */
export const unitOf = (dtype: DType): number => precision[dtype]!

/** The unit of what a floating dtype is computed in: sums and functions of float16 and bfloat16 are of float32. */
export const computedUnit = (dtype: DType): number => precision[dtype === 'float64' ? dtype : 'float32']!

/** Units of the computed precision, and of the sum of all magnitudes, that two sums of n terms in different orders are
 *  apart at most. Of the n roundings of each, half a unit of a partial sum each; but since roundings scatter as they
 *  like, no more than 4 sqrt(n) of them add up (Higham & Mary 2019, theorem 2.4: with a probability of 0.9993). */
export const sumUnits = (n: number): number => Math.min(n, 4 * Math.sqrt(n))

/** Expects the same shape, dtype and values, but for some units of the dtype's precision, of numbers of at least `scale`,
 *  and for what stands `beside` them: of each element, how much further it may be off. */
export function expectAlike(
  got: Tensor,
  wanted: Tensor,
  what: string,
  ulps = 8,
  scale = 2 ** -10,
  beside?: ArrayLike<number>,
): void {
  expect(got.device, what).toBe(cuda)
  expect([got.shape, got.dtype], what).toEqual([wanted.shape, wanted.dtype])
  const [a, b] = [got.dataSync(), wanted.dataSync()]
  const eps = ulps * (precision[got.dtype] ?? 0)
  for (let i = 0; i < b.length; i++) {
    const [x, y] = [Number(a[i]), Number(b[i])]
    const allowed = eps * Math.max(Math.abs(y), scale) + (beside?.[i] ?? 0)
    if (Object.is(x, y) || x === y || Math.abs(x - y) <= allowed) continue
    expect.fail(`${what}: element ${i} is ${x}, on cpu ${y}`)
  }
}

/** Expects the same shape, dtype and values. */
export function expectEqual(got: Tensor, wanted: Tensor, what: string): void {
  expectAlike(got, wanted, what, 0)
}

const edges = [0, -0, 1, -1, 0.5, -0.5, 2, -2.5, 3, 7.25, -9, 20, -20, 1e-4, Infinity, -Infinity, Number.NaN]

/** Numbers in [0, 1) that follow from the seed. */
function unitNumbers(seed: number): () => number {
  let state = seed
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state / 2 ** 32
  }
}

const product = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1)

/** Numbers with the edges of floating dtypes among them, unless `plain`. */
export function values(n: number, dtype: DType, seed = 1, plain = false): Tensor {
  const next = unitNumbers(seed)
  const numbers = Float64Array.from({ length: n }, (_, i) => {
    if (dtype === 'bool') return next() < 0.5 ? 0 : 1
    if (!isFloatingPoint(dtype)) return Math.floor(next() * 40) - (dtype === 'uint8' ? 0 : 20)
    return i % 3 === 0 && !plain ? edges[Math.floor(i / 3) % edges.length]! : 8 * next() - 4
  })
  return fromTypedArray(numbers).to(dtype)
}

/** Numbers in [-4, 4), or whole ones that small sums of every dtype hold. */
export function spread(shape: readonly number[], dtype: DType = 'float32', seed = 1): Tensor {
  return values(product(shape), dtype, seed * 7919, true).view(...shape)
}

/** Whole numbers in [0, limit). */
export function indices(shape: readonly number[], limit: number, dtype: DType = 'int64', seed = 7): Tensor {
  const next = unitNumbers(seed)
  return fromTypedArray(Float64Array.from({ length: product(shape) }, () => Math.floor(next() * limit)))
    .to(dtype)
    .view(...shape)
}

/** The values of a matrix on the device, in memory as the form says: `rows` or `columns` contiguous, with `steps`, or a
 *  `window` into another, whose rows begin anywhere. */
export function onCuda(x: Tensor, form: string): Tensor {
  const [rows, cols] = x.shape as [number, number]
  const plain = x.contiguous().to('cuda')
  if (form === 'rows') return plain
  if (form === 'columns') return x.transpose(0, 1).contiguous().to('cuda').transpose(0, 1)
  const [height, width] = form === 'steps' ? [rows, 2 * cols] : [rows + 1, cols + 3]
  const around = zeros([height, width], { dtype: x.dtype, device: 'cuda' })
  const view = form === 'steps' ? around.slice(1, 0, width, 2) : around.slice(0, 1).slice(1, 2, cols + 2)
  view.copy_(plain)
  return view
}
