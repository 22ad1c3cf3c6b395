// Putting tensors together, repeating and turning them, and the triangles of matrices.

import { promote } from '../dtype'
import { ArgumentError, describeShape, describeValue, ShapeError } from '../errors'
import { tidy } from '../tensor/scope'
import { Tensor } from '../tensor/tensor'
import { normalizeDim, readSizes } from './arguments'
import { indexSelect } from './indexing'
import {
  type Backward,
  defineMethods,
  defineVariadicMethods,
  expectTensor,
  type NativeOp,
  native,
  type OpRecord,
  record,
  run,
} from './registry'
import { expand, flatten, reshape, to, unsqueeze } from './shape'
import { narrow } from './slice'

const catOp = native('cat', 'dim')
const trilOp = native('tril', 'diagonal')
const triuOp = native('triu', 'diagonal')
const copyOp = native('copy')

const catRecord: OpRecord = { name: 'cat', autocast: 'promote', backward: () => null }
const mostParts = catOp.mostInputs

function expectTensors(op: string, tensors: readonly Tensor[]): void {
  if (!Array.isArray(tensors) || tensors.length === 0) {
    throw new ArgumentError(op, {
      problem: 'no tensors to join',
      got: describeValue(tensors),
      expected: 'an array of at least one tensor',
    })
  }
  tensors.forEach((each, i) => {
    expectTensor(op, `element ${i}`, each)
  })
}

/** Tensors one behind the other along a dim; the other sizes must agree. dtypes promote. An empty tensor of one dim is
 *  left out, as in PyTorch.
 *  @throws ShapeError naming the first tensor that does not fit
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.cat.html
 *  @example cat([ones([2, 3]), ones([1, 3])]).shape // [3, 3] */
export function cat(tensors: readonly Tensor[], dim = 0): Tensor {
  expectTensors('cat', tensors)
  const parts = tensors.filter(({ shape }) => !(shape.length === 1 && shape[0] === 0))
  const first = parts[0] ?? tensors[0]!
  if (parts.length === 0) parts.push(first)
  if (first.ndim === 0) {
    throw new ShapeError('cat', { problem: 'tensors of rank 0 have no dims', action: 'use stack' })
  }
  const at = normalizeDim('cat', dim, first.ndim)
  parts.forEach(({ shape }, i) => {
    if (shape.length === first.ndim && shape.every((size, d) => d === at || size === first.shape[d])) return
    throw new ShapeError('cat', {
      problem: `tensor ${i} does not fit`,
      got: describeShape(shape),
      expected: `the sizes of ${describeShape(first.shape)} but for dim ${at}`,
    })
  })
  if (parts.length > mostParts) {
    const groups = Array.from({ length: Math.ceil(parts.length / mostParts) }, (_, i) =>
      cat(parts.slice(i * mostParts, (i + 1) * mostParts), at),
    )
    return cat(groups, at)
  }
  const dtype = parts.reduce((code, each) => promote(code, each._dtype), first._dtype)
  const total = parts.reduce((sum, each) => sum + each.shape[at]!, 0)
  const shape = first.shape.map((size, d) => (d === at ? total : size))
  const backward: Backward = (context, g) => {
    let start = 0
    return parts.map((part, i) => {
      const size = part.shape[at]!
      start += size
      return context.needs(i) ? to(narrow(g, at, start - size, size), part.dtype) : null
    })
  }
  return record(catRecord, run(catOp, parts, shape, dtype, [at]), parts, [], backward)
}

/** Tensors of one shape along a new dim.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.stack.html
 *  @example stack([ones([3]), zeros([3])]).shape // [2, 3] */
export function stack(tensors: readonly Tensor[], dim = 0): Tensor {
  expectTensors('stack', tensors)
  const shape = describeShape(tensors[0]!.shape)
  tensors.forEach((each, i) => {
    if (describeShape(each.shape) === shape) return
    throw new ShapeError('stack', {
      problem: `tensor ${i} has another shape`,
      got: describeShape(each.shape),
      expected: shape,
    })
  })
  const at = normalizeDim('stack', dim, tensors[0]!.ndim + 1)
  return tidy(() =>
    cat(
      tensors.map((each) => unsqueeze(each, at)),
      at,
    ),
  )
}

/** x `times` times along every dim: one number a dim, more numbers than dims add dims in front.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.Tensor.repeat.html
 *  @example tensor([1, 2]).repeat(2, 2) // [[1, 2, 1, 2], [1, 2, 1, 2]] */
export function repeat(x: Tensor, ...times: (number | readonly number[])[]): Tensor {
  expectTensor('repeat', 'x', x)
  const list = readSizes('repeat', times)
  const extra = list.length - x.ndim
  if (extra < 0 || list.length > 7 || list.some((each) => each < 0)) {
    throw new ShapeError('repeat', {
      problem: 'the repeats do not fit',
      got: `${describeShape(list)} for shape ${describeShape(x.shape)}`,
      expected: `${x.ndim} to 7 numbers of at least 0`,
    })
  }
  let result = reshape(x, [...Array(extra).fill(1), ...x.shape])
  list.forEach((n, d) => {
    if (n !== 1) result = spread(result, d, d, n)
  })
  return result === x ? reshape(x, x.shape) : result
}

/** Every element of a dim n times: a new dim of n at `at`, which then becomes one with `dim`. */
function spread(x: Tensor, dim: number, at: number, n: number): Tensor {
  const apart = unsqueeze(x, at)
  const shape = x.shape.map((size, d) => (d === dim ? size * n : size))
  return reshape(
    expand(
      apart,
      apart.shape.map((size, d) => (d === at ? n : size)),
    ),
    shape,
  )
}

// Positions are made by the calling thread: 2^24 take it 10 ms.
const mostPositions = 2 ** 24

/** Every position of a dim n times in a row, or as often as an array says. Without `dim` over the flattened tensor.
 *  @throws ArgumentError for an array that adds up to more than 2^24
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.repeat_interleave.html
 *  @example tensor([1, 2]).repeatInterleave(2) // [1, 1, 2, 2] */
export function repeatInterleave(x: Tensor, times: number | readonly number[], dim?: number): Tensor {
  expectTensor('repeatInterleave', 'x', x)
  if (dim === undefined || x.ndim === 0) return repeatInterleave(flatten(x), times, 0)
  const at = normalizeDim('repeatInterleave', dim, x.ndim)
  const list = typeof times === 'number' ? [times] : times
  if (!Array.isArray(list) || list.some((each) => !Number.isInteger(each) || each < 0)) {
    throw new ArgumentError('repeatInterleave', {
      problem: 'not a number of repeats',
      got: describeValue(times),
      expected: 'a whole number of at least 0, or an array of them',
    })
  }
  if (typeof times === 'number' && x.ndim < 8) return spread(x, at, at + 1, times)
  const size = x.shape[at]!
  if (typeof times !== 'number' && list.length !== size) {
    throw new ShapeError('repeatInterleave', {
      problem: 'the repeats do not fit',
      got: `${list.length} for dim ${at} of shape ${describeShape(x.shape)}`,
      expected: String(size),
    })
  }
  const total = typeof times === 'number' ? times * size : list.reduce((sum, each) => sum + each, 0)
  if (total > mostPositions) {
    throw new ArgumentError('repeatInterleave', {
      problem: 'the repeats are too many',
      got: `${total} in all`,
      expected: `at most ${mostPositions}`,
      action: 'repeat by one number, or expand() the tensor',
    })
  }
  const positions = new Int32Array(total)
  let from = 0
  for (let i = 0; i < size; i++) {
    const end = from + (list[i] ?? list[0]!)
    positions.fill(i, from, end)
    from = end
  }
  return indexSelect(x, at, positions)
}

const flipRecord: OpRecord = { name: 'flip', autocast: 'keep', backward: () => null }

function flipped(x: Tensor, dims: readonly number[]): Tensor {
  if (x.numel === 0) return run(copyOp, [x], x.shape, x._dtype)
  const { strides } = x
  const last = dims.reduce((offset, d) => offset + (x.shape[d]! - 1) * strides[d]!, x._offset)
  const backwards = strides.map((stride, d) => (dims.includes(d) ? -stride : stride))
  return run(copyOp, [Tensor._view(x, x.shape, backwards, last)], x.shape, x._dtype)
}

/** A copy in which the dims run backwards.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.flip.html
 *  @example tensor([1, 2, 3]).flip(0) // [3, 2, 1] */
export function flip(x: Tensor, ...dims: (number | readonly number[])[]): Tensor {
  expectTensor('flip', 'x', x)
  const list = readSizes('flip', dims).map((dim) => normalizeDim('flip', dim, x.ndim))
  if (new Set(list).size !== list.length) {
    throw new ArgumentError('flip', { problem: 'a dim is named twice', got: describeShape(list) })
  }
  const named = x.ndim === 0 ? [] : list
  return record(flipRecord, flipped(x, named), [x], [], (_, g) => flipped(g, named))
}

function triangle(op: NativeOp, x: Tensor, diagonal: number): Tensor {
  expectTensor(op.name, 'x', x)
  if (x.ndim < 2) {
    throw new ShapeError(op.name, { problem: 'not a matrix', got: describeShape(x.shape), expected: 'rank 2 or more' })
  }
  if (!Number.isSafeInteger(diagonal)) {
    throw new ArgumentError(op.name, { problem: 'not a diagonal', got: describeValue(diagonal) })
  }
  const cut = (input: Tensor): Tensor => run(op, [input], input.shape, input._dtype, [diagonal])
  return record({ name: op.name, autocast: 'keep', backward: (_, g) => cut(g) }, cut(x), [x], [])
}

/** The lower triangle of the last two dims, zeros above; `diagonal` moves the edge up.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.tril.html
 *  @example tril(ones([2, 2])) // [[1, 0], [1, 1]] */
export function tril(x: Tensor, diagonal = 0): Tensor {
  return triangle(trilOp, x, diagonal)
}

/** The upper triangle of the last two dims, zeros below; `diagonal` moves the edge up.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.triu.html
 *  @example triu(ones([2, 2])) // [[1, 1], [0, 1]] */
export function triu(x: Tensor, diagonal = 0): Tensor {
  return triangle(triuOp, x, diagonal)
}

declare module '../tensor/tensor' {
  interface Tensor {
    repeat(...times: (number | readonly number[])[]): Tensor
    flip(...dims: (number | readonly number[])[]): Tensor
    repeatInterleave(times: number | readonly number[], dim?: number): Tensor
    tril(diagonal?: number): Tensor
    triu(diagonal?: number): Tensor
  }
}

defineVariadicMethods({ repeat, flip })
defineMethods({ repeatInterleave, tril, triu })
