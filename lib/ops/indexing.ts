// Reading and writing by index. Indices are int64, int32 or uint8; one outside its dim is an IndexError at the next
// wait, before anything was written. Sums over equal indices are made in row-major order, always the same.

import { autocasting } from '../autograd/autocast'
import { BOOL, INT64, UINT8 } from '../dtype'
import { ArgumentError, DTypeError, describeShape, describeValue, IndexError, ShapeError } from '../errors'
import { fromTypedArray } from '../tensor/create'
import type { Shape, Tensor } from '../tensor/tensor'
import { normalizeDim } from './arguments'
import { autocastWidest } from './autocast'
import { broadcastShapes, sameShape } from './broadcast'
import {
  type Backward,
  blankGradient,
  defineMethods,
  expectTensor,
  expectWritable,
  type NativeOp,
  native,
  type OpRecord,
  record,
  run,
  runInto,
} from './registry'
import { expand, reshape } from './shape'
import { narrow } from './slice'

const gatherOp = native('gather', 'dim')
const scatterAddOp = native('scatterAdd', 'dim')
const scatterOp = native('scatter', 'dim,value')
const indexSelectOp = native('indexSelect', 'dim')
const indexAddOp = native('indexAdd', 'dim,alpha')
const countNonzeroOp = native('countNonzero')
const nonzeroIntoOp = native('nonzeroInto')
const copyOp = native('copy')

const keep = (name: string): OpRecord => ({ name, autocast: 'keep', backward: () => null })
const records = {
  gather: keep('gather'),
  scatterAdd: keep('scatterAdd'),
  scatter: keep('scatter'),
  indexSelect: keep('indexSelect'),
  indexAdd: keep('indexAdd'),
}

/** @internal */
export function expectIndex(op: string, index: unknown): asserts index is Tensor {
  expectTensor(op, 'index', index)
  if (index._dtype < INT64 || index._dtype > UINT8) {
    throw new DTypeError(op, {
      problem: 'not an index',
      got: index.dtype,
      expected: 'int64, int32 or uint8',
      action: "convert it with .to('int64')",
    })
  }
}

function expectInside(op: string, index: Tensor, x: Tensor, dim: number, what = 'x'): void {
  const fits =
    index.ndim === x.ndim && index.shape.every((size, d) => (d === dim && what === 'x') || size <= x.shape[d]!)
  if (fits) return
  throw new ShapeError(op, {
    problem: `the index does not fit ${what}`,
    got: `index ${describeShape(index.shape)} for ${what} ${describeShape(x.shape)}, dim ${dim}`,
    expected: `an index of rank ${x.ndim} that is not larger than ${what}${what === 'x' ? ' in the other dims' : ''}`,
  })
}

/** @internal */
export function expectSourceDtype(op: string, x: Tensor, source: Tensor): void {
  if (x._dtype === source._dtype) return
  throw new DTypeError(op, { problem: 'dtypes differ', got: `${x.dtype} and ${source.dtype}` })
}

/** Values along a dim: out[i][j] = x[index[i][j]][j] for dim 0 of two.
 *  x and index of one rank, index not larger than x in the other dims -> index's shape.
 *  @throws ShapeError when the index does not fit; DTypeError for an index that is not whole
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.gather.html
 *  @example gather(tensor([[1, 2], [3, 4]]), 1, tensor([[1], [0]], { dtype: 'int64' })) // [[2], [3]] */
export function gather(x: Tensor, dim: number, index: Tensor): Tensor {
  expectTensor('gather', 'x', x)
  expectIndex('gather', index)
  const at = normalizeDim('gather', dim, x.ndim)
  expectInside('gather', index, x, at)
  const out = run(gatherOp, [x, index], index.shape, x._dtype, [at])
  return record(records.gather, out, [x], x._requiresGrad ? [index] : [], (context, g) => {
    const grad = blankGradient(x.shape, g)
    return runInto(scatterAddOp, [grad, context.saved(0), g], grad, [at])
  })
}

/** The gradient of a source that is larger than the index: zero where nothing was read. */
function sourceGradient(g: Tensor, index: Tensor, dim: number, source: Shape): Tensor {
  const picked = run(gatherOp, [g, index], index.shape, g._dtype, [dim])
  if (sameShape(index.shape, source)) return picked
  const whole = blankGradient(source, g)
  const part = index.shape.reduce((view, size, d) => narrow(view, d, 0, size), whole)
  runInto(copyOp, [picked], part)
  return whole
}

type Write = (inputs: Tensor[], attrs: number[]) => Tensor

const fresh =
  (op: NativeOp, x: Tensor): Write =>
  (inputs, attrs) =>
    run(op, inputs, x.shape, x._dtype, attrs)

function inPlace(op: NativeOp, x: Tensor, others: Tensor[]): Write {
  expectTensor(`${op.name}_`, 'x', x)
  expectWritable(`${op.name}_`, x, others)
  if (x._strides === null) return (inputs, attrs) => runInto(op, inputs, x, attrs)
  // the kernel writes contiguous outputs
  return (inputs, attrs) => runInto(copyOp, [run(op, inputs, x.shape, x._dtype, attrs)], x)
}

function writeAdd(x: Tensor, dim: number, index: Tensor, source: Tensor, write: Write): Tensor {
  expectTensor('scatterAdd', 'x', x)
  expectIndex('scatterAdd', index)
  expectTensor('scatterAdd', 'source', source)
  expectSourceDtype('scatterAdd', x, source)
  const at = normalizeDim('scatterAdd', dim, x.ndim)
  expectInside('scatterAdd', index, x, at)
  expectInside('scatterAdd', index, source, at, 'source')
  const out = write([x, index, source], [at])
  return record(records.scatterAdd, out, [x, source], source._requiresGrad ? [index] : [], (context, g) => [
    g,
    context.needs(1) ? sourceGradient(g, context.saved(0), at, source.shape) : null,
  ])
}

/** x with the elements of source added where the index says: out[index[i][j]][j] += source[i][j] for dim 0 of two.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.Tensor.scatter_add_.html
 *  @example scatterAdd(zeros([3]), 0, tensor([2, 2], { dtype: 'int64' }), ones([2])) // [0, 0, 2] */
export function scatterAdd(x: Tensor, dim: number, index: Tensor, source: Tensor): Tensor {
  if (autocasting) [x, source] = autocastWidest('scatterAdd', [x, source]) as [Tensor, Tensor]
  return writeAdd(x, dim, index, source, fresh(scatterAddOp, x))
}

/** `scatterAdd` in place.
 *  @example zeros([3]).scatterAdd_(0, tensor([2, 2], { dtype: 'int64' }), ones([2])) // [0, 0, 2] */
export function scatterAdd_(x: Tensor, dim: number, index: Tensor, source: Tensor): Tensor {
  return writeAdd(x, dim, index, source, inPlace(scatterAddOp, x, [source]))
}

function writeValues(x: Tensor, dim: number, index: Tensor, source: Tensor | number, write: Write): Tensor {
  expectTensor('scatter', 'x', x)
  expectIndex('scatter', index)
  const at = normalizeDim('scatter', dim, x.ndim)
  expectInside('scatter', index, x, at)
  let out: Tensor
  if (typeof source === 'number') {
    out = write([x, index], [at, source])
  } else {
    expectTensor('scatter', 'source', source)
    expectSourceDtype('scatter', x, source)
    expectInside('scatter', index, source, at, 'source')
    out = write([x, index, source], [at, 0])
  }
  const values = typeof source === 'number' ? null : source
  const backward: Backward = (context, g) => [
    context.needs(0) ? run(scatterOp, [g, context.saved(0)], g.shape, g._dtype, [at, 0]) : null,
    context.needs(1) ? sourceGradient(g, context.saved(0), at, values!.shape) : null,
  ]
  const recorded = x._requiresGrad || values?._requiresGrad
  return record(records.scatter, out, [x, values], recorded ? [index] : [], backward)
}

/** x with the elements of source, or one number, written where the index says. Which one stays among equal indices is
 *  the last in row-major order.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.Tensor.scatter_.html
 *  @example scatter(zeros([3]), 0, tensor([2], { dtype: 'int64' }), 7) // [0, 0, 7] */
export function scatter(x: Tensor, dim: number, index: Tensor, source: Tensor | number): Tensor {
  return writeValues(x, dim, index, source, fresh(scatterOp, x))
}

/** `scatter` in place.
 *  @example zeros([3]).scatter_(0, tensor([2], { dtype: 'int64' }), 7) // [0, 0, 7] */
export function scatter_(x: Tensor, dim: number, index: Tensor, source: Tensor | number): Tensor {
  return writeValues(x, dim, index, source, inPlace(scatterOp, x, typeof source === 'number' ? [] : [source]))
}

/** An index of one dim, as a tensor or as numbers, which are checked at once. */
function readPositions(op: string, index: Tensor | ArrayLike<number>, x: Tensor, dim: number): Tensor {
  if (!Array.isArray(index) && !ArrayBuffer.isView(index)) {
    expectIndex(op, index)
    if (index.ndim <= 1) return index
    throw new ShapeError(op, {
      problem: 'the index has several dims',
      got: describeShape(index.shape),
      expected: 'one dim',
    })
  }
  const size = x.shape[dim] ?? 1
  const positions = Array.from(index as ArrayLike<number | bigint>, (value, i) => {
    const position = Number(value)
    if (!Number.isInteger(position) || position < 0 || position >= size) {
      throw new IndexError(op, {
        problem: 'index is out of range',
        got: `${describeValue(value)} at position ${i}`,
        expected: `0 to ${size - 1}`,
      })
    }
    return BigInt(position)
  })
  return fromTypedArray(BigInt64Array.from(positions), undefined, { device: x.device })
}

const replaced = (shape: Shape, dim: number, size: number): Shape => shape.map((each, d) => (d === dim ? size : each))

/** Positions of a dim, in the order of the index, repeated as often as it names them.
 *  index [n] (or an array of numbers) -> x's shape with n in the dim.
 *  @throws IndexError at once for numbers, at the next wait for a tensor
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.index_select.html
 *  @example indexSelect(tensor([[1, 2], [3, 4]]), 0, [1, 1]) // [[3, 4], [3, 4]] */
export function indexSelect(x: Tensor, dim: number, index: Tensor | ArrayLike<number>): Tensor {
  expectTensor('indexSelect', 'x', x)
  const at = normalizeDim('indexSelect', dim, x.ndim)
  const positions = readPositions('indexSelect', index, x, at)
  const shape = replaced(x.shape, at, positions.numel)
  const out = run(indexSelectOp, [x, positions], shape, x._dtype, [at])
  return record(records.indexSelect, out, [x], x._requiresGrad ? [positions] : [], (context, g) => {
    const grad = blankGradient(x.shape, g)
    return runInto(indexAddOp, [grad, context.saved(0), g], grad, [at, 1])
  })
}

function writeRows(
  x: Tensor,
  dim: number,
  index: Tensor | ArrayLike<number>,
  source: Tensor,
  alpha: number,
  write: Write,
): Tensor {
  expectTensor('indexAdd', 'x', x)
  expectTensor('indexAdd', 'source', source)
  expectSourceDtype('indexAdd', x, source)
  const at = normalizeDim('indexAdd', dim, x.ndim)
  const positions = readPositions('indexAdd', index, x, at)
  if (!sameShape(source.shape, replaced(x.shape, at, positions.numel))) {
    throw new ShapeError('indexAdd', {
      problem: 'the source does not fit',
      got: describeShape(source.shape),
      expected: describeShape(replaced(x.shape, at, positions.numel)),
    })
  }
  if (typeof alpha !== 'number') {
    throw new ArgumentError('indexAdd', { problem: 'alpha is not a number', got: describeValue(alpha) })
  }
  const out = write([x, positions, source], [at, alpha])
  const backward: Backward = (context, g) => {
    if (!context.needs(1)) return [g, null]
    const picked = run(indexSelectOp, [g, context.saved(0)], source.shape, g._dtype, [at])
    return [g, alpha === 1 ? picked : picked.mul(alpha)]
  }
  return record(records.indexAdd, out, [x, source], source._requiresGrad ? [positions] : [], backward)
}

/** x with alpha times the rows of source added to the positions of a dim that the index names.
 *  index [n], source with n in the dim -> x's shape. Default alpha 1.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.Tensor.index_add_.html
 *  @example indexAdd(zeros([3]), 0, [1, 1], ones([2])) // [0, 2, 0] */
export function indexAdd(
  x: Tensor,
  dim: number,
  index: Tensor | ArrayLike<number>,
  source: Tensor,
  { alpha = 1 }: { alpha?: number } = {},
): Tensor {
  return writeRows(x, dim, index, source, alpha, fresh(indexAddOp, x))
}

/** `indexAdd` in place.
 *  @example zeros([3]).indexAdd_(0, [1, 1], ones([2])) // [0, 2, 0] */
export function indexAdd_(
  x: Tensor,
  dim: number,
  index: Tensor | ArrayLike<number>,
  source: Tensor,
  { alpha = 1 }: { alpha?: number } = {},
): Tensor {
  return writeRows(x, dim, index, source, alpha, inPlace(indexAddOp, x, [source]))
}

/** How many elements are not zero, int64 of rank 0.
 *  @example countNonzero(tensor([0, 5, 6])) // 2 */
export function countNonzero(x: Tensor): Tensor {
  expectTensor('countNonzero', 'x', x)
  return run(countNonzeroOp, [x], [], INT64)
}

/** Coordinates of the elements that are not zero, [count, rank] int64 in row-major order. `await`: its shape depends on
 *  the values.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.nonzero.html
 *  @example await nonzero(tensor([0, 5, 6])) // [[1], [2]] */
export async function nonzero(x: Tensor): Promise<Tensor> {
  expectTensor('nonzero', 'x', x)
  const total = countNonzero(x)
  const count = await total.item()
  total.dispose()
  return run(nonzeroIntoOp, [x], [count, x.ndim], INT64)
}

/** The elements where a mask says true, [count] in row-major order. `await`: its shape depends on the values.
 *  x and mask (bool) broadcast to each other.
 *  @throws DTypeError for a mask that is not bool; ShapeError when the shapes do not broadcast
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.masked_select.html
 *  @example await maskedSelect(tensor([1, 2, 3]), tensor([true, false, true])) // [1, 3] */
export async function maskedSelect(x: Tensor, mask: Tensor): Promise<Tensor> {
  expectTensor('maskedSelect', 'x', x)
  expectTensor('maskedSelect', 'mask', mask)
  if (mask._dtype !== BOOL) {
    throw new DTypeError('maskedSelect', {
      problem: 'the mask is not a truth value',
      got: mask.dtype,
      expected: 'bool',
      action: 'compare it with something, such as mask.ne(0)',
    })
  }
  const shape = broadcastShapes('maskedSelect', x.shape, mask.shape)
  const flat = (each: Tensor): Tensor => reshape(expand(each, shape as number[]), [-1])
  const elements = flat(x)
  const places = await nonzero(flat(mask))
  return indexSelect(elements, 0, reshape(places, [-1]))
}

declare module '../tensor/tensor' {
  interface Tensor {
    gather(dim: number, index: Tensor): Tensor
    scatterAdd(dim: number, index: Tensor, source: Tensor): Tensor
    scatterAdd_(dim: number, index: Tensor, source: Tensor): Tensor
    scatter(dim: number, index: Tensor, source: Tensor | number): Tensor
    scatter_(dim: number, index: Tensor, source: Tensor | number): Tensor
    indexSelect(dim: number, index: Tensor | ArrayLike<number>): Tensor
    indexAdd(dim: number, index: Tensor | ArrayLike<number>, source: Tensor, options?: { alpha?: number }): Tensor
    indexAdd_(dim: number, index: Tensor | ArrayLike<number>, source: Tensor, options?: { alpha?: number }): Tensor
    countNonzero(): Tensor
    nonzero(): Promise<Tensor>
    maskedSelect(mask: Tensor): Promise<Tensor>
  }
}

defineMethods({
  maskedSelect,
  gather,
  scatterAdd,
  scatterAdd_,
  scatter,
  scatter_,
  indexSelect,
  indexAdd,
  indexAdd_,
  countNonzero,
  nonzero,
})
