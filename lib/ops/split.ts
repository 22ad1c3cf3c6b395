// Cutting a tensor into parts that together cover it, as views.

import { ArgumentError, describeShape, describeValue, ShapeError } from '../errors'
import { contiguousStrides, type Shape, Tensor } from '../tensor/tensor'
import { normalizeDim } from './arguments'
import { blankGradient, defineMethods, expectTensor, native, record, runInto } from './registry'

const copy = native('copy')

/** Where a part lies in the contiguous layout of the whole. */
interface Part {
  readonly shape: Shape
  readonly strides: readonly number[]
  readonly offset: number
}

const same = (a: readonly number[], b: readonly number[]): boolean => a.every((value, i) => value === b[i])

// A kernel that makes the gradients of all parts (attention: dq, dk, dv) writes them where they belong in one tensor of
// the whole; then nothing is left to do.
function alreadyWhole(grads: readonly (Tensor | null)[], parts: readonly Part[], whole: Shape): boolean {
  const base = grads[0]?._base ?? null
  if (base === null || base.numel !== whole.reduce((n, size) => n * size, 1)) return false
  return grads.every((grad, i) => {
    const part = parts[i]!
    return grad?._base === base && grad._offset === part.offset && same(grad.strides, part.strides)
  })
}

function cut(op: string, x: Tensor, parts: readonly Part[], toView: (part: Part) => readonly number[]): Tensor[] {
  const views = parts.map((part) => Tensor._view(x, part.shape, toView(part), x._offset + offsetIn(x, part)))
  if (!x._requiresGrad) return views
  return record({ name: op, autocast: 'keep', backward: () => null }, views, [x], [], (_, ...grads) => {
    const first = grads.find((grad) => grad !== null)!
    if (alreadyWhole(grads, parts, x.shape)) {
      return Tensor._view(first, x.shape, contiguousStrides(x.shape), 0)
    }
    const whole = blankGradient(x.shape, first)
    parts.forEach((part, i) => {
      const grad = grads[i] as Tensor | null
      if (grad !== null) runInto(copy, [grad], Tensor._view(whole, part.shape, part.strides, part.offset))
    })
    return whole
  })
}

/** The storage offset in x's own strides of a part given in contiguous ones. */
function offsetIn(x: Tensor, { offset }: Part): number {
  const { strides } = x
  let rest = offset
  return contiguousStrides(x.shape).reduce((sum, step, d) => {
    const index = Math.floor(rest / step)
    rest -= index * step
    return sum + index * strides[d]!
  }, 0)
}

/** Parts of the given size along a dim (the last one may be smaller), or of the given sizes, as views.
 *  @throws ShapeError when sizes do not add up to the dim
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.split.html
 *  @example arange(7).split(3).map((part) => part.size(0)) // [3, 3, 1] */
export function split(x: Tensor, sizes: number | readonly number[], dim = 0): Tensor[] {
  expectTensor('split', 'x', x)
  const at = normalizeDim('split', dim, x.ndim)
  const total = x.shape[at]
  if (total === undefined) throw new ShapeError('split', { problem: 'a tensor of rank 0 has no dims to split' })
  let list: readonly number[]
  if (typeof sizes === 'number') {
    if (!Number.isInteger(sizes) || sizes < 0 || (sizes === 0 && total > 0)) {
      throw new ArgumentError('split', { problem: 'not a size', got: describeValue(sizes), expected: 'at least 1' })
    }
    const count = total === 0 ? 1 : Math.ceil(total / sizes)
    list = Array.from({ length: count }, (_, i) => Math.min(sizes, total - i * sizes))
  } else {
    list = sizes
  }
  if (list.some((size) => !Number.isInteger(size) || size < 0) || list.reduce((a, b) => a + b, 0) !== total) {
    throw new ShapeError('split', {
      problem: 'the sizes do not add up to the dim',
      got: `${describeShape(list)} for dim ${at} of shape ${describeShape(x.shape)}`,
      expected: `sizes that add up to ${total}`,
    })
  }
  const strides = contiguousStrides(x.shape)
  let start = 0
  const parts = list.map((size): Part => {
    const offset = size === 0 ? 0 : start * strides[at]!
    start += size
    return { shape: x.shape.map((each, d) => (d === at ? size : each)), strides, offset }
  })
  return cut('split', x, parts, () => x.strides)
}

/** At most n parts of equal size along a dim; fewer where the size does not divide, as in PyTorch.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.chunk.html
 *  @example arange(7).chunk(5).length // 4 */
export function chunk(x: Tensor, n: number, dim = 0): Tensor[] {
  expectTensor('chunk', 'x', x)
  if (!Number.isInteger(n) || n < 1) {
    throw new ArgumentError('chunk', {
      problem: 'not a number of chunks',
      got: describeValue(n),
      expected: 'at least 1',
    })
  }
  const size = x.shape[normalizeDim('chunk', dim, x.ndim)] ?? 0
  if (size === 0) return split(x, Array(n).fill(0), dim)
  return split(x, Math.ceil(size / n), dim)
}

/** Every position of a dim, without the dim.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.unbind.html
 *  @example zeros([2, 3]).unbind(1).length // 3 */
export function unbind(x: Tensor, dim = 0): Tensor[] {
  expectTensor('unbind', 'x', x)
  const at = normalizeDim('unbind', dim, x.ndim)
  const count = x.shape[at]
  if (count === undefined) throw new ShapeError('unbind', { problem: 'a tensor of rank 0 has no dims' })
  const strides = contiguousStrides(x.shape)
  const without = <T>(list: readonly T[]): T[] => list.filter((_, d) => d !== at)
  const shape = without(x.shape)
  const empty = shape.includes(0)
  const parts = Array.from(
    { length: count },
    (_, i): Part => ({ shape, strides: without(strides), offset: empty ? 0 : i * strides[at]! }),
  )
  return cut('unbind', x, parts, () => without(x.strides))
}

declare module '../tensor/tensor' {
  interface Tensor {
    split(sizes: number | readonly number[], dim?: number): Tensor[]
    chunk(n: number, dim?: number): Tensor[]
    unbind(dim?: number): Tensor[]
  }
}

defineMethods({ split, chunk, unbind })
