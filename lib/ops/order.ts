// Order along one dim: extrema with their places, sorting, and running sums. Indices are int64.

import { autocasting } from '../autograd/autocast'
import { INT64, isFloatingCode } from '../dtype'
import { ArgumentError, describeShape, describeValue, ShapeError } from '../errors'
import { readOptions } from '../options'
import { tidy } from '../tensor/scope'
import type { Shape, Tensor } from '../tensor/tensor'
import { normalizeDim } from './arguments'
import { autocast } from './autocast'
import { cat } from './join'
import { mul } from './pointwise'
import { amax, amin, type ReduceOptions, reduceOptions } from './reduce'
import {
  type Backward,
  defineMethods,
  expectTensor,
  make,
  type NativeOp,
  native,
  needsGrad,
  record,
  run,
  runMany,
} from './registry'
import { reshape, to, unsqueeze } from './shape'
import { narrow } from './slice'

/** Values and where they stood. */
export interface ValuesAndIndices {
  values: Tensor
  /** int64, along the dim. */
  indices: Tensor
}

const fillOp = native('fill', 'value')
const scatterOp = native('scatter', 'dim,value')

// Each value came from one place: there its gradient goes.
const backToPlaces =
  (shape: Shape, dim: number, restore: (x: Tensor) => Tensor): Backward =>
  (context, g) => {
    const zeros = make(fillOp, shape, g._dtype, g._device, [0])
    return run(scatterOp, [zeros, restore(context.saved(0)), restore(g)], shape, g._dtype, [dim, 0])
  }

function withIndices(
  op: NativeOp,
  name: string,
  x: Tensor,
  dim: number,
  shape: Shape,
  attrs: readonly number[],
  restore: (x: Tensor) => Tensor = (y) => y,
): ValuesAndIndices {
  const [values, indices] = runMany(
    op,
    [x],
    [
      [shape, x._dtype],
      [shape, INT64],
    ],
    [dim, ...attrs],
  ) as [Tensor, Tensor]
  if (needsGrad([x])) {
    // a rank-0 tensor is its own only element
    const backward: Backward = x.ndim === 0 ? (_, g) => g : backToPlaces(x.shape, dim, restore)
    record({ name, autocast: 'keep', backward }, values, [x], [indices])
  }
  return { values, indices }
}

const lineShape = (shape: Shape, dim: number, size: number): number[] => shape.map((n, d) => (d === dim ? size : n))

function expectSome(op: string, shape: Shape, dim: number | null): void {
  const empty = dim === null ? shape.includes(0) : shape[dim] === 0 && shape.every((size, d) => size > 0 || d === dim)
  if (empty) {
    throw new ShapeError(op, {
      problem: 'there is no extreme of nothing',
      got: describeShape(shape),
      expected: 'at least one element',
    })
  }
}

const maxDim = native('maxDim', 'dim')
const minDim = native('minDim', 'dim')

function extremeAlong(op: NativeOp, name: string, x: Tensor, dim: number, keepdim: boolean): ValuesAndIndices {
  const along = normalizeDim(name, dim, x.ndim)
  expectSome(name, x.shape, along)
  const kept = x.shape.filter((_, d) => d !== along)
  const shape = keepdim && x.ndim > 0 ? lineShape(x.shape, along, 1) : kept
  return withIndices(op, name, x, along, shape, [], keepdim ? undefined : (y) => unsqueeze(y, along))
}

/** Largest element of all (ties share the gradient), or along one dim with its first place; NaN wins.
 *  @throws ShapeError when there is no element; IndexError for a dim out of range
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.max.html
 *  @example max(tensor([[1, 5], [7, 2]]), 1).indices // [1, 0] */
export function max(x: Tensor): Tensor
export function max(x: Tensor, dim: number, options?: ReduceOptions): ValuesAndIndices
export function max(x: Tensor, dim?: number, options: ReduceOptions = {}): Tensor | ValuesAndIndices {
  const { keepdim = false } = readOptions('max', options, reduceOptions)
  expectTensor('max', 'the operand', x)
  return dim === undefined ? amax(x) : extremeAlong(maxDim, 'max', x, dim, keepdim)
}

/** Smallest element of all (ties share the gradient), or along one dim with its first place; NaN wins.
 *  @throws ShapeError when there is no element; IndexError for a dim out of range
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.min.html
 *  @example min(tensor([[1, 5], [7, 2]]), 1).indices // [0, 1] */
export function min(x: Tensor): Tensor
export function min(x: Tensor, dim: number, options?: ReduceOptions): ValuesAndIndices
export function min(x: Tensor, dim?: number, options: ReduceOptions = {}): Tensor | ValuesAndIndices {
  const { keepdim = false } = readOptions('min', options, reduceOptions)
  expectTensor('min', 'the operand', x)
  return dim === undefined ? amin(x) : extremeAlong(minDim, 'min', x, dim, keepdim)
}

const argmaxOp = native('argmax', 'dim')
const argminOp = native('argmin', 'dim')

function place(op: NativeOp, name: string, x: Tensor, dim: number | null, keepdim: boolean): Tensor {
  expectTensor(name, 'the operand', x)
  const along = dim === null ? null : normalizeDim(name, dim, x.ndim)
  expectSome(name, x.shape, along)
  const shape = x.shape.flatMap((size, d) => (along !== null && d !== along ? [size] : keepdim ? [1] : []))
  return run(op, [x], shape, INT64, [along === null || x.ndim === 0 ? -1 : along])
}

/** Place of the largest element, the first among equals, as int64: along one dim, or in the flattened tensor.
 *  @throws ShapeError when there is no element
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.argmax.html
 *  @example argmax(tensor([1, 5, 2])) // 1 */
export function argmax(x: Tensor, dim: number | null = null, options: ReduceOptions = {}): Tensor {
  const { keepdim = false } = readOptions('argmax', options, reduceOptions)
  return place(argmaxOp, 'argmax', x, dim, keepdim)
}

/** Place of the smallest element, the first among equals, as int64: along one dim, or in the flattened tensor.
 *  @throws ShapeError when there is no element
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.argmin.html
 *  @example argmin(tensor([4, 5, 2])) // 2 */
export function argmin(x: Tensor, dim: number | null = null, options: ReduceOptions = {}): Tensor {
  const { keepdim = false } = readOptions('argmin', options, reduceOptions)
  return place(argminOp, 'argmin', x, dim, keepdim)
}

const sortOp = native('sort', 'dim,descending')

/** Elements in order along a dim, and where they stood. Equal ones keep their order; NaN is the largest. Default: the
 *  last dim, ascending.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.sort.html
 *  @example sort(tensor([3, 1, 2])).values // [1, 2, 3] */
export function sort(x: Tensor, dim = -1, options: { descending?: boolean } = {}): ValuesAndIndices {
  const { descending = false } = readOptions('sort', options, ['descending'])
  expectTensor('sort', 'the operand', x)
  return withIndices(sortOp, 'sort', x, normalizeDim('sort', dim, x.ndim), x.shape, [Number(descending)])
}

/** The indices of `sort`.
 *  @example argsort(tensor([3, 1, 2])) // [1, 2, 0] */
export function argsort(x: Tensor, dim = -1, options: { descending?: boolean } = {}): Tensor {
  return sort(x, dim, options).indices
}

const topkOp = native('topk', 'dim,largest')

/** The k largest (or smallest) elements along a dim, in order, and where they stood. Default: the last dim, largest.
 *  @throws ArgumentError when k is not between 0 and the size of the dim
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.topk.html
 *  @example topk(tensor([3, 1, 2]), 2).values // [3, 2] */
export function topk(x: Tensor, k: number, dim = -1, options: { largest?: boolean } = {}): ValuesAndIndices {
  const { largest = true } = readOptions('topk', options, ['largest'])
  expectTensor('topk', 'the operand', x)
  const along = normalizeDim('topk', dim, x.ndim)
  const size = x.ndim === 0 ? 1 : x.shape[along]!
  if (!Number.isInteger(k) || k < 0 || k > size || (x.ndim === 0 && k !== 1)) {
    throw new ArgumentError('topk', {
      problem: 'k is out of range',
      got: describeValue(k),
      expected: `a whole number from ${x.ndim === 0 ? 1 : 0} to ${size} for a tensor of shape ${describeShape(x.shape)}`,
    })
  }
  return withIndices(topkOp, 'topk', x, along, lineShape(x.shape, along, k), [Number(largest)])
}

const cumsumOp = native('cumsum', 'dim,reverse')

/** Running sums along a dim; of integers and truth values as int64.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.cumsum.html
 *  @example cumsum(tensor([1, 2, 3]), 0) // [1, 3, 6] */
export function cumsum(x: Tensor, dim: number): Tensor {
  expectTensor('cumsum', 'the operand', x)
  if (autocasting) x = autocast('cumsum', x)
  const along = normalizeDim('cumsum', dim, x.ndim)
  const out = run(cumsumOp, [x], x.shape, isFloatingCode(x._dtype) ? x._dtype : INT64, [along, 0])
  if (!needsGrad([x])) return out
  return record({ name: 'cumsum', autocast: 'float32', backward: () => null }, out, [x], [], (_, g) =>
    run(cumsumOp, [g], g.shape, g._dtype, [along, 1]),
  )
}

/** Running products along a dim; of integers and truth values as int64. Each of log2(n) rounds multiplies by what lies
 *  1, 2, 4, … positions in front, so that zeros need no rule of their own in the gradient.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.cumprod.html
 *  @example cumprod(tensor([1, 2, 3, 4]), 0) // [1, 2, 6, 24] */
export function cumprod(x: Tensor, dim: number): Tensor {
  expectTensor('cumprod', 'the operand', x)
  if (autocasting) x = autocast('cumprod', x)
  const along = normalizeDim('cumprod', dim, x.ndim)
  const n = x.shape[along] ?? 1
  return tidy(() => {
    let out = isFloatingCode(x._dtype) ? x : to(x, 'int64')
    for (let step = 1; step < n; step *= 2) {
      const product = mul(narrow(out, along, step, n - step), narrow(out, along, 0, n - step))
      out = cat([narrow(out, along, 0, step), product], along)
    }
    return out === x ? reshape(x, x.shape) : out
  })
}

declare module '../tensor/tensor' {
  interface Tensor {
    max(): Tensor
    max(dim: number, options?: ReduceOptions): ValuesAndIndices
    min(): Tensor
    min(dim: number, options?: ReduceOptions): ValuesAndIndices
    argmax(dim?: number | null, options?: ReduceOptions): Tensor
    argmin(dim?: number | null, options?: ReduceOptions): Tensor
    sort(dim?: number, options?: { descending?: boolean }): ValuesAndIndices
    argsort(dim?: number, options?: { descending?: boolean }): Tensor
    topk(k: number, dim?: number, options?: { largest?: boolean }): ValuesAndIndices
    cumsum(dim: number): Tensor
    cumprod(dim: number): Tensor
  }
}

defineMethods({ max, min, argmax, argmin, sort, argsort, topk, cumsum, cumprod })
