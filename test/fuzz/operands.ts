// Tensors of the addon, made without lib/: any view of any memory, with any contents.
import { binding, scratch } from '../../lib/native'
import type { Random } from './random'

export interface Operand {
  handle: number
  sizes: readonly number[]
  dtype: number
}

const itemSizes = [4, 8, 2, 2, 8, 4, 1, 1]

/** Handles that live until releaseAll(). */
const live: number[] = []

export function keep(handle: number): number {
  live.push(handle)
  return handle
}

export function releaseAll(): void {
  for (let from = 0; from < live.length; from += 1000) {
    const handles = live.slice(from, from + 1000)
    scratch.set([handles.length, ...handles])
    binding.release()
  }
  live.length = 0
}

const integerArrays = [null, null, null, null, BigInt64Array, Int32Array, Uint8Array, Uint8Array] as const

/** Bytes of n elements: small numbers that are good indices, zeros, or anything. */
function contents(r: Random, n: number, dtype: number): Uint8Array {
  const bytes = new Uint8Array(n * itemSizes[dtype]!)
  const kind = r()
  if (kind < 0.2) return bytes
  if (kind < 0.35) {
    for (let i = 0; i < bytes.length; i++) bytes[i] = dtype === 7 ? r.below(2) : r.below(256)
    return bytes
  }
  const Integers = integerArrays[dtype]
  if (Integers === BigInt64Array) {
    const values = new BigInt64Array(bytes.buffer)
    for (let i = 0; i < n; i++) values[i] = BigInt(r.below(r.chance(0.01) ? 100 : 2))
  } else if (Integers) {
    const values = new (Integers as typeof Int32Array)(bytes.buffer)
    for (let i = 0; i < n; i++) values[i] = r.below(2)
  } else if (dtype === 0) {
    const values = new Float32Array(bytes.buffer)
    for (let i = 0; i < n; i++) values[i] = 2 * r() - 1
  } else if (dtype === 1) {
    const values = new Float64Array(bytes.buffer)
    for (let i = 0; i < n; i++) values[i] = 2 * r() - 1
  } else {
    for (let i = 1; i < bytes.length; i += 2) bytes[i] = 0x38 + r.below(4) // about 0.5 to 1
  }
  return bytes
}

function upload(r: Random, n: number, dtype: number): number {
  scratch.set([0, dtype, 1, n])
  const failure = binding.upload(contents(r, n, dtype))
  if (failure !== undefined) throw new Error(`upload: ${failure[1]}`)
  return keep(scratch[0]!)
}

type Layout = 'dense' | 'permuted' | 'spaced' | 'flipped' | 'expanded'

function stridesOf(r: Random, sizes: readonly number[], layout: Layout): number[] {
  const order = sizes.map((_, d) => d)
  if (layout === 'permuted') order.sort(() => r() - 0.5)
  const strides: number[] = sizes.map(() => 0)
  let stride = layout === 'spaced' ? 2 : 1
  for (const d of order.reverse()) {
    if (layout === 'expanded' && r.chance(0.5)) continue
    strides[d] = layout === 'flipped' && r.chance(0.5) ? -stride : stride
    stride *= Math.max(1, sizes[d]!)
    if (layout === 'spaced' && r.chance(0.3)) stride += 1
  }
  return strides
}

/** A view of memory that ends exactly where the view does, so that one element more is out of bounds. */
export function operand(r: Random, sizes: readonly number[], dtype: number): Operand {
  const layout = r.pick<Layout>(['dense', 'dense', 'dense', 'permuted', 'spaced', 'flipped', 'expanded'])
  const strides = stridesOf(r, sizes, layout)
  const spans = strides.map((stride, d) => stride * Math.max(0, sizes[d]! - 1))
  const lowest = spans.reduce((sum, span) => sum + Math.min(0, span), 0)
  const highest = spans.reduce((sum, span) => sum + Math.max(0, span), 0)
  const offset = -lowest + (r.chance(0.3) ? 1 + r.below(5) : 0)
  const empty = sizes.some((n) => n === 0)
  const base = upload(r, empty ? r.below(3) : offset + highest + 1, dtype)
  return { handle: viewOf(base, empty ? 0 : offset, sizes, strides), sizes, dtype }
}

function viewOf(base: number, offset: number, sizes: readonly number[], strides: readonly number[]): number {
  scratch.set([base, offset, sizes.length, ...sizes, ...strides])
  const failure = binding.view()
  if (failure !== undefined) throw new Error(`view: ${failure[1]}`)
  return keep(scratch[0]!)
}

/** A view of another operand's memory with sizes of its own, if they fit. */
export function overlapping(r: Random, other: Operand, sizes: readonly number[]): Operand | null {
  const strides = stridesOf(r, sizes, r.pick<Layout>(['dense', 'permuted', 'expanded', 'flipped']))
  scratch.set([other.handle, r.below(4), sizes.length, ...sizes, ...strides])
  return binding.view() === undefined ? { handle: keep(scratch[0]!), sizes, dtype: other.dtype } : null
}
