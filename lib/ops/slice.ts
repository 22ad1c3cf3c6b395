// Parts of a tensor by position, as views. Nothing is copied.

import { ArgumentError, describeShape, describeValue, IndexError, ShapeError } from '../errors'
import type { Tensor } from '../tensor/tensor'
import { normalizeDim } from './arguments'
import {
  ACCUMULATED,
  type Backward,
  blankGradient,
  defineMethods,
  defineVariadicMethods,
  native,
  recordView,
  runInto,
} from './registry'
import { unsqueeze, view } from './shape'

const addOp = native('add', 'scalar,reversed,alpha')
const copyOp = native('copy')

// The gradient of a part is zero everywhere else: it is added where it belongs when the whole has a gradient already.
const partBackward =
  (whole: Tensor, take: (zeros: Tensor) => Tensor): Backward =>
  (context, g) => {
    const target = context.target(0)
    if (target !== null) {
      const part = take(target)
      runInto(addOp, [part, g], part, [0, 0, 1])
      return ACCUMULATED
    }
    const grad = blankGradient(whole.shape, g)
    runInto(copyOp, [g], take(grad))
    return grad
  }

/** Elements start to end (exclusive) of a dim in steps; negative positions count from the end, and positions outside
 *  are cut off as in Python. @example arange(10).slice(0, 2, 8, 2) // [2, 4, 6] */
export function slice(x: Tensor, dim: number, start?: number | null, end?: number | null, step = 1): Tensor {
  const at = normalizeDim('slice', dim, x.ndim)
  if (x.ndim === 0) throw new ShapeError('slice', { problem: 'a tensor of rank 0 has no dims to slice' })
  if (!Number.isInteger(step) || step < 1) {
    throw new ArgumentError('slice', {
      problem: 'not a step',
      got: describeValue(step),
      expected: 'a whole number of at least 1',
    })
  }
  const size = x.shape[at]!
  const position = (value: number | null | undefined, otherwise: number): number => {
    if (value === null || value === undefined) return otherwise
    if (!Number.isInteger(value)) {
      throw new ArgumentError('slice', {
        problem: 'not a position',
        got: describeValue(value),
        expected: 'a whole number',
      })
    }
    return Math.min(size, Math.max(0, value < 0 ? value + size : value))
  }
  const from = position(start, 0)
  const count = Math.max(0, Math.ceil((position(end, size) - from) / step))
  const { strides } = x
  const shape = [...x.shape]
  shape[at] = count
  const stepped = [...strides]
  stepped[at] = strides[at]! * step
  const offset = count === 0 ? x._offset : x._offset + from * strides[at]!
  return recordView(
    'slice',
    x,
    shape,
    stepped,
    offset,
    partBackward(x, (whole) => slice(whole, at, from, from + count * step, step)),
  )
}

/** `length` elements of a dim from `start` on.
 *  @example arange(5).narrow(0, 1, 3) // [1, 2, 3] */
export function narrow(x: Tensor, dim: number, start: number, length: number): Tensor {
  const at = normalizeDim('narrow', dim, x.ndim)
  const size = x.shape[at] ?? 0
  const from = start < 0 ? start + size : start
  if (!Number.isInteger(start) || !Number.isInteger(length) || from < 0 || length < 0 || from + length > size) {
    throw new IndexError('narrow', {
      problem: 'the part is not inside the dim',
      got: `start ${start}, length ${length}`,
      expected: `a part of 0 to ${size}`,
    })
  }
  return slice(x, at, from, from + length)
}

/** One position of a dim, which goes. @example arange(6).view(2, 3).select(1, -1) // [2, 5] */
export function select(x: Tensor, dim: number, index: number): Tensor {
  const at = normalizeDim('select', dim, x.ndim)
  const size = x.shape[at]
  if (size === undefined || !Number.isInteger(index) || index < -size || index >= size) {
    throw new IndexError('select', {
      problem: 'index is out of range',
      got: describeValue(index),
      expected:
        size === undefined
          ? 'a tensor with dims'
          : `${-size} to ${size - 1} for dim ${at} of shape ${describeShape(x.shape)}`,
    })
  }
  const position = index < 0 ? index + size : index
  const { strides } = x
  return recordView(
    'select',
    x,
    x.shape.filter((_, d) => d !== at),
    strides.filter((_, d) => d !== at),
    x._offset + position * strides[at]!,
    partBackward(x, (whole) => select(whole, at, position)),
  )
}

/** A part by position, in Python's words: a number selects, `'1:-1'` or `'::2'` slices, `':'` takes a whole dim, `'...'`
 *  stands for as many whole dims as are missing, null inserts a dim.
 *  @example arange(12).view(3, 4).index('1:', '::2') // [[4, 6], [8, 10]] */
export function index(x: Tensor, ...items: (number | string | null)[]): Tensor {
  const used = items.filter((item) => item !== null && item !== '...').length
  if (used > x.ndim || items.filter((item) => item === '...').length > 1) {
    throw new IndexError('index', {
      problem: 'too many positions',
      got: `${used} for shape ${describeShape(x.shape)}`,
      expected: `at most ${x.ndim}, and one '...'`,
    })
  }
  let result = x
  let dim = 0
  for (const item of items) {
    if (item === null) {
      result = unsqueeze(result, dim++)
    } else if (item === '...') {
      dim += x.ndim - used
    } else if (typeof item === 'number') {
      result = select(result, dim, item)
    } else {
      const parts = /^\s*(-?\d+)?\s*:\s*(-?\d+)?\s*(?::\s*(\d+)?)?\s*$/.exec(item)
      if (parts === null) {
        throw new ArgumentError('index', {
          problem: 'not a position',
          got: describeValue(item),
          expected: "a number, 'start:end:step', '...' or null",
          action: 'take positions with indexSelect() or gather(), and what a mask says with maskedSelect()',
        })
      }
      const [start, end, step] = parts.slice(1).map((part) => (part === undefined ? null : Number(part)))
      result = slice(result, dim++, start, end, step ?? 1)
    }
  }
  return result === x ? view(x, x.shape) : result
}

declare module '../tensor/tensor' {
  interface Tensor {
    index(...items: (number | string | null)[]): Tensor
    slice(dim: number, start?: number | null, end?: number | null, step?: number): Tensor
    narrow(dim: number, start: number, length: number): Tensor
    select(dim: number, index: number): Tensor
  }
}

defineVariadicMethods({ index })
defineMethods({ slice, narrow, select })
