// Views: other shapes and strides over the same elements. Nothing is copied but where a docstring says so.

import type { Device, DeviceName } from '../device'
import { type DType, isFloatingCode, itemSizes } from '../dtype'
import { ArgumentError, describeShape, describeValue, ShapeError } from '../errors'
import { expectFlag, readOptions } from '../options'
import { contiguousStrides, type Shape, Tensor } from '../tensor/tensor'
import { normalizeDim, readSizes } from './arguments'
import { sameShape, sumTo } from './broadcast'
import {
  type Backward,
  defineMethods,
  defineVariadicMethods,
  expectTensor,
  expectWritable,
  make,
  native,
  record,
  recordInPlace,
  recordView,
  run,
  runInto,
  transfer,
} from './registry'
import { type ReadTarget, readTarget, type ToOptions, type ToTarget } from './target'

export type { ToOptions } from './target'

const copyOp = native('copy')
const fillOp = native('fill', 'value')

/** Strides of `shape` over the same elements, or null when only a copy can have that shape. */
function viewStrides(x: Tensor, shape: Shape): number[] | null {
  if (x._strides === null || x.numel === 0) return contiguousStrides(shape)
  const strides = new Array<number>(shape.length)
  let from = x.shape.length - 1
  let to = shape.length - 1
  while (to >= 0 || from >= 0) {
    while (from >= 0 && x.shape[from] === 1) from--
    if (from < 0) {
      for (; to >= 0; to--) strides[to] = 1
      break
    }
    // one run of source dims that lie behind each other becomes one run of target dims
    const inner = x._strides[from]!
    let run = x.shape[from]!
    while (from > 0 && (x.shape[from - 1] === 1 || x._strides[from - 1] === run * inner)) {
      from--
      run *= x.shape[from]!
    }
    from--
    let stride = inner
    while (run > 1 || (to >= 0 && shape[to] === 1)) {
      if (to < 0) return null
      const size = shape[to]!
      if (run % size !== 0) return null
      strides[to--] = stride
      stride *= size
      run /= size
    }
  }
  return strides
}

function inferShape(op: string, x: Tensor, sizes: readonly number[]): number[] {
  const unknown = sizes.indexOf(-1)
  const known = sizes.reduce((n, size, d) => (d === unknown ? n : n * size), 1)
  const shape = [...sizes]
  const { numel } = x
  if (unknown >= 0 && known > 0 && numel % known === 0) shape[unknown] = numel / known
  if (shape.some((size) => size < 0) || shape.length > 8 || shape.reduce((n, size) => n * size, 1) !== numel) {
    throw new ShapeError(op, {
      problem: 'the shape has another number of elements',
      got: `${describeShape(sizes)} for a tensor of shape ${describeShape(x.shape)}`,
      expected: `${numel} elements, at most one size of -1, at most 8 dims`,
    })
  }
  return shape
}

const reshapeBack =
  (shape: Shape): Backward =>
  (_, g) =>
    reshape(g, shape as number[])

/** The same elements in another shape, as a view; one size may be -1.
 *  @throws ShapeError when the sizes do not fit, or when the strides allow no view (then use `reshape`)
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.Tensor.view.html
 *  @example arange(6).view(2, -1).shape // [2, 3] */
export function view(x: Tensor, ...sizes: (number | readonly number[])[]): Tensor {
  const shape = inferShape('view', x, readSizes('view', sizes))
  const strides = viewStrides(x, shape)
  if (strides === null) {
    throw new ShapeError('view', {
      problem: 'the elements do not lie so that a view can have this shape',
      got: `${describeShape(shape)} over shape ${describeShape(x.shape)} with strides ${describeShape(x.strides)}`,
      action: 'use reshape(), which copies where it must',
    })
  }
  return recordView('view', x, shape, strides, x._offset, reshapeBack(x.shape))
}

/** Like `view`, but copies when the strides allow no view.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.reshape.html
 *  @example arange(6).view(2, 3).transpose(0, 1).reshape(6) // [0, 3, 1, 4, 2, 5] */
export function reshape(x: Tensor, ...sizes: (number | readonly number[])[]): Tensor {
  const shape = inferShape('reshape', x, readSizes('reshape', sizes))
  const strides = viewStrides(x, shape)
  const source = strides === null ? contiguous(x) : x
  return recordView('reshape', source, shape, strides ?? contiguousStrides(shape), source._offset, reshapeBack(x.shape))
}

/** Dims start to end as one. @example zeros([2, 3, 4]).flatten(1).shape // [2, 12] */
export function flatten(x: Tensor, startDim = 0, endDim = -1): Tensor {
  const start = normalizeDim('flatten', startDim, x.ndim)
  const end = normalizeDim('flatten', endDim, x.ndim)
  if (x.ndim === 0) return reshape(x, 1)
  if (start > end) {
    throw new ArgumentError('flatten', { problem: 'startDim comes after endDim', got: `${startDim} and ${endDim}` })
  }
  const size = x.shape.slice(start, end + 1).reduce((n, each) => n * each, 1)
  return reshape(x, [...x.shape.slice(0, start), size, ...x.shape.slice(end + 1)])
}

/** One dim as several. @example zeros([2, 12]).unflatten(1, [3, 4]).shape // [2, 3, 4] */
export function unflatten(x: Tensor, dim: number, sizes: readonly number[]): Tensor {
  const at = normalizeDim('unflatten', dim, x.ndim)
  return reshape(x, [...x.shape.slice(0, at), ...sizes, ...x.shape.slice(at + 1)])
}

/** Dims in another order: `permute(2, 0, 1)`.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.permute.html
 *  @example zeros([2, 3, 4]).permute(2, 0, 1).shape // [4, 2, 3] */
export function permute(x: Tensor, ...dims: (number | readonly number[])[]): Tensor {
  const order = readSizes('permute', dims).map((dim) => normalizeDim('permute', dim, x.ndim))
  if (order.length !== x.ndim || new Set(order).size !== x.ndim) {
    throw new ShapeError('permute', {
      problem: 'not an order of the dims',
      got: describeShape(order),
      expected: `each of the ${x.ndim} dims of shape ${describeShape(x.shape)} once`,
    })
  }
  const { strides } = x
  const inverse = order.map((_, d) => order.indexOf(d))
  return recordView(
    'permute',
    x,
    order.map((d) => x.shape[d]!),
    order.map((d) => strides[d]!),
    x._offset,
    (_, g) => permute(g, inverse),
  )
}

/** Two dims exchanged. @example zeros([2, 3, 4]).transpose(1, 2).shape // [2, 4, 3] */
export function transpose(x: Tensor, dim0: number, dim1: number): Tensor {
  const a = normalizeDim('transpose', dim0, x.ndim)
  const b = normalizeDim('transpose', dim1, x.ndim)
  const shape = [...x.shape]
  const strides = [...x.strides]
  if (x.ndim > 0) {
    ;[shape[a], shape[b]] = [shape[b]!, shape[a]!]
    ;[strides[a], strides[b]] = [strides[b]!, strides[a]!]
  }
  return recordView('transpose', x, shape, strides, x._offset, (_, g) => transpose(g, a, b))
}

/** The transpose of a matrix; tensors of lower rank come back as they are.
 *  @example zeros([2, 3]).t().shape // [3, 2] */
export function t(x: Tensor): Tensor {
  if (x.ndim > 2) {
    throw new ShapeError('t', {
      problem: 'not a matrix',
      got: describeShape(x.shape),
      action: 'use transpose(dim0, dim1)',
    })
  }
  return x.ndim < 2 ? view(x, x.shape) : transpose(x, 0, 1)
}

/** A dim of size 1 inserted before `dim`.
 *  @example zeros([2, 3]).unsqueeze(1).shape // [2, 1, 3] */
export function unsqueeze(x: Tensor, dim: number): Tensor {
  const at = normalizeDim('unsqueeze', dim, x.ndim + 1)
  const shape = [...x.shape]
  const strides = [...x.strides]
  shape.splice(at, 0, 1)
  strides.splice(at, 0, 1)
  return recordView('unsqueeze', x, shape, strides, x._offset, reshapeBack(x.shape))
}

/** Without its dims of size 1, or without `dim` (one or several) where that has size 1.
 *  @example zeros([2, 1, 3]).squeeze().shape // [2, 3] */
export function squeeze(x: Tensor, dim?: number | readonly number[]): Tensor {
  const named =
    dim === undefined ? null : (typeof dim === 'number' ? [dim] : dim).map((d) => normalizeDim('squeeze', d, x.ndim))
  const stays = x.shape.map((size, d) => size !== 1 || (named !== null && !named.includes(d)))
  const { strides } = x
  return recordView(
    'squeeze',
    x,
    x.shape.filter((_, d) => stays[d]),
    strides.filter((_, d) => stays[d]),
    x._offset,
    reshapeBack(x.shape),
  )
}

/** Dims of size 1 repeated to `sizes` without a copy; -1 keeps a size, new dims come in front.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.Tensor.expand.html
 *  @example tensor([[1], [2]]).expand(-1, 3) // [[1, 1, 1], [2, 2, 2]] */
export function expand(x: Tensor, ...sizes: (number | readonly number[])[]): Tensor {
  const wanted = readSizes('expand', sizes)
  const extra = wanted.length - x.ndim
  const { strides } = x
  const shape = wanted.map((size, d) => (size === -1 && d >= extra ? x.shape[d - extra]! : size))
  const bad = shape.findIndex(
    (size, d) => size < 0 || (d >= extra && x.shape[d - extra] !== 1 && x.shape[d - extra] !== size),
  )
  if (extra < 0 || bad >= 0) {
    throw new ShapeError('expand', {
      problem: 'only dims of size 1 can be repeated',
      got: `${describeShape(wanted)} for a tensor of shape ${describeShape(x.shape)}`,
    })
  }
  return recordView(
    'expand',
    x,
    shape,
    shape.map((size, d) => (d < extra || (x.shape[d - extra] === 1 && size !== 1) ? 0 : strides[d - extra]!)),
    x._offset,
    (_, g) => sumTo(g, x.shape),
  )
}

/** `expand` to the shape of another tensor.
 *  @example tensor([1]).expandAs(zeros([2, 2])) // [[1, 1], [1, 1]] */
export function expandAs(x: Tensor, other: Tensor): Tensor {
  return expand(x, other.shape)
}

/** Itself when the elements lie in row-major order, else a copy in which they do.
 *  @example zeros([2, 3]).t().contiguous().strides // [2, 1] */
export function contiguous(x: Tensor): Tensor {
  x._alive('contiguous')
  return x._strides === null ? x : clone(x)
}

/** A copy of the elements.
 *  @example tensor([1, 2]).clone() // [1, 2] */
export function clone(x: Tensor): Tensor {
  x._alive('clone')
  return record(cloneRecord, run(copyOp, [x], x.shape, x._dtype), [x], [])
}
const cloneRecord = { name: 'clone', autocast: 'keep', backward: (_: unknown, g: Tensor) => g } as const

/** The same elements, outside of the graph.
 *  @example ones([2], { requiresGrad: true }).mul(2).detach().requiresGrad // false */
export function detach(x: Tensor): Tensor {
  x._alive('detach')
  return Tensor._view(x, x.shape, x.strides, x._offset)
}

/** In another dtype, on another device, or both: `to(dtype)`, `to(device)`, `to(device, dtype)`, `to({ dtype, device })`,
 *  `to(other)` as another tensor; itself when it is so already.
 *  @throws DTypeError, DeviceError for what is neither; ArgumentError for options that do not exist
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.Tensor.to.html
 *  @example tensor([1.7]).to('int32') // [1]
 *  @example tensor([1.7]).to('cpu', 'int32') // [1] */
export function to(x: Tensor, device: DeviceName | Device, dtype: DType, options?: ToOptions): Tensor
export function to(x: Tensor, target: ToTarget, options?: ToOptions): Tensor
export function to(x: Tensor, target: ToTarget, second?: DType | ToOptions, third?: ToOptions): Tensor {
  x._alive('to')
  return toRead(x, readTarget(target, second, third))
}

/** @internal `to` of arguments that were read. */
export function toRead(x: Tensor, target: ReadTarget): Tensor {
  const place = target.place ?? x._device
  const code = target.dtype ?? x._dtype
  if (code === x._dtype && place === x._device) return x
  const result = converted(x, code, place, target.aside)
  if (!isFloatingCode(code)) return result
  const [sourceDType, source] = [x._dtype, x._device]
  return record(
    { name: 'to', autocast: 'keep', backward: (_, g) => converted(g, sourceDType, source) },
    result,
    [x],
    [],
  )
}

// The narrower of two dtypes travels.
function converted(x: Tensor, code: number, place: Device, aside = false): Tensor {
  if (place === x._device) return run(copyOp, [x], x.shape, code)
  if (code === x._dtype) return transfer(x, place, aside)
  const castFirst = itemSizes[code]! <= itemSizes[x._dtype]!
  const between = castFirst ? run(copyOp, [x], x.shape, code) : transfer(x, place, aside)
  const result = castFirst ? transfer(between, place, aside) : run(copyOp, [between], x.shape, code)
  between.dispose()
  return result
}

/** Copies the elements of another tensor, which broadcasts, into this one. The second argument is PyTorch's
 *  `non_blocking`, as a flag or an option: see `to`.
 *  @throws ArgumentError for options that do not exist; ShapeError when the source does not broadcast
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.Tensor.copy_.html
 *  @example zeros([2, 2]).copy_(tensor([1, 2])) // [[1, 2], [1, 2]] */
export function copy_(x: Tensor, source: Tensor, options: ToOptions | boolean = {}): Tensor {
  expectTensor('copy_', 'the source', source)
  const { nonBlocking = false } =
    typeof options === 'boolean' ? { nonBlocking: options } : readOptions('copy_', options, ['nonBlocking'])
  const aside = expectFlag('copy_', 'nonBlocking', nonBlocking)
  expectWritable('copy_', x, [source])
  const near = source._device === x._device ? source : transfer(source, x._device, aside)
  const from = sameShape(near.shape, x.shape) ? near : expand(near, x.shape)
  runInto(copyOp, [from], x)
  if (near !== source) near.dispose()
  return recordInPlace(copyRecord, x, [x, source], [], (_, g) => [
    make(fillOp, g.shape, g._dtype, g._device, [0]),
    to(sumTo(g, source.shape), { dtype: source.dtype, device: source.device }),
  ])
}
const copyRecord = { name: 'copy_', autocast: 'keep', backward: () => null } as const

/** Sets every element.
 *  @example zeros([2]).fill_(7) // [7, 7] */
export function fill_(x: Tensor, value: number): Tensor {
  if (typeof value !== 'number') throw new ArgumentError('fill_', { problem: 'not a value', got: describeValue(value) })
  expectWritable('fill_', x)
  runInto(fillOp, [], x, [value])
  return recordInPlace(fillRecord, x, [x], [], (_, g) => make(fillOp, g.shape, g._dtype, g._device, [0]))
}
const fillRecord = { name: 'fill_', autocast: 'keep', backward: () => null } as const

/** Sets every element to 0.
 *  @example ones([2]).zero_() // [0, 0] */
export function zero_(x: Tensor): Tensor {
  return fill_(x, 0)
}

declare module '../tensor/tensor' {
  interface Tensor {
    view(...sizes: (number | readonly number[])[]): Tensor
    reshape(...sizes: (number | readonly number[])[]): Tensor
    permute(...dims: (number | readonly number[])[]): Tensor
    expand(...sizes: (number | readonly number[])[]): Tensor
    flatten(startDim?: number, endDim?: number): Tensor
    unflatten(dim: number, sizes: readonly number[]): Tensor
    transpose(dim0: number, dim1: number): Tensor
    t(): Tensor
    unsqueeze(dim: number): Tensor
    squeeze(dim?: number | readonly number[]): Tensor
    expandAs(other: Tensor): Tensor
    contiguous(): Tensor
    clone(): Tensor
    detach(): Tensor
    to(device: DeviceName | Device, dtype: DType, options?: ToOptions): Tensor
    to(target: ToTarget, options?: ToOptions): Tensor
    copy_(source: Tensor, options?: ToOptions | boolean): Tensor
    fill_(value: number): Tensor
    zero_(): Tensor
  }
}

defineVariadicMethods({ view, reshape, permute, expand })
defineMethods({
  flatten,
  unflatten,
  transpose,
  t,
  unsqueeze,
  squeeze,
  expandAs,
  contiguous,
  clone,
  detach,
  to,
  copy_,
  fill_,
  zero_,
})
