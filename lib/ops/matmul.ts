// Matrix products. Operands keep their strides: the kernels read transposed and expanded tensors where they lie.

import { autocasting } from '../autograd/autocast'
import { dtypeNames, promote } from '../dtype'
import { DTypeError, describeShape, ShapeError } from '../errors'
import { type Shape, Tensor } from '../tensor/tensor'
import { autocastProduct, autocastWidest, multiplied } from './autocast'
import { broadcastShapes, sameShape, sumTo } from './broadcast'
import { gradientFor } from './operands'
import {
  ACCUMULATED,
  type BackwardContext,
  defineMethods,
  expectFloating,
  expectTensor,
  make,
  native,
  needsGrad,
  type OpRecord,
  record,
  run,
  runInto,
} from './registry'
import { squeeze, to, unsqueeze } from './shape'

const matmulOp = native('matmul', 'alpha,beta')
const copyOp = native('copy')
const fillOp = native('fill', 'value')

/** @internal Throws unless both have one dtype. */
export function expectSameDtype(op: string, a: Tensor, b: Tensor): void {
  if (a._dtype === b._dtype) return
  throw new DTypeError(op, {
    problem: 'dtypes differ',
    got: `${a.dtype} and ${b.dtype}`,
    expected: 'the same dtype',
    action: 'convert one with to()',
  })
}

/** @internal A view with the last two dims exchanged, outside of the graph. */
export function transposeLast(x: Tensor): Tensor {
  const rank = x.shape.length
  const shape = [...x.shape]
  const strides = [...x.strides]
  shape[rank - 2] = x.shape[rank - 1]!
  shape[rank - 1] = x.shape[rank - 2]!
  const inner = strides[rank - 1]!
  strides[rank - 1] = strides[rank - 2]!
  strides[rank - 2] = inner
  return Tensor._view(x, shape, strides, x._offset)
}

/** @internal Itself, or a copy in row-major order where a kernel asks for it; outside of the graph. */
export function plain(x: Tensor): Tensor {
  return x._strides === null ? x : run(copyOp, [x], x.shape, x._dtype)
}

/** [rows, last dim] as a view or copy, outside of the graph. */
function asRows(x: Tensor): Tensor {
  const cols = x.shape[x.shape.length - 1]!
  const source = plain(x)
  return Tensor._view(source, [cols === 0 ? 0 : source.numel / cols, cols], [cols, 1], source._offset)
}

/** dtype of a product: the operands', which must be one, or under autocast its own. */
function productDType(op: string, a: Tensor, b: Tensor, others: readonly Tensor[] = []): number {
  const low = autocasting ? autocastProduct(op, [a, b, ...others]) : -1
  if (low >= 0) return low
  expectSameDtype(op, a, b)
  for (const other of others) expectSameDtype(op, other, a)
  return a._dtype
}

/** Product of the last two dims, leading ones broadcast; both operands have rank 2 at least. */
function product(op: OpRecord, a: Tensor, b: Tensor, alpha = 1): Tensor {
  const inner = a.shape[a.shape.length - 1]!
  if (inner !== b.shape[b.shape.length - 2]!) {
    throw new ShapeError(op.name, {
      problem: 'inner dimensions differ',
      got: `a ${describeShape(a.shape)} and b ${describeShape(b.shape)}`,
      expected: 'a[-1] == b[-2]',
      action: 'transpose one of them or check the sizes',
    })
  }
  const dtype = productDType(op.name, a, b)
  const batch =
    a.shape.length === 2 && b.shape.length === 2
      ? []
      : broadcastShapes(op.name, a.shape.slice(0, -2), b.shape.slice(0, -2))
  const shape = [...batch, a.shape[a.shape.length - 2]!, b.shape[b.shape.length - 1]!]
  const inputs = [a, b]
  const factors = autocasting ? inputs.map((each) => multiplied(each, dtype)) : inputs
  const out = run(matmulOp, factors, shape, dtype, [alpha, 0])
  const saved = needsGrad(inputs) ? factors : []
  if (factors === inputs || factors.every((each, i) => each === inputs[i])) return record(op, out, inputs, saved)
  const dtypes = [a._dtype, b._dtype]
  record(op, out, inputs, saved, (context, g) => productBackward(context, g, alpha, dtypes))
  disposeCopies(factors, inputs)
  return out
}

/** @internal Lets go of what was multiplied on behalf of operands: the tape's from here on. */
export function disposeCopies(factors: readonly Tensor[], operands: readonly Tensor[]): void {
  factors.forEach((each, i) => {
    if (each !== operands[i]) each.dispose()
  })
}

/** @internal alpha * x @ y as the gradient of input i, which is of this shape and dtype; added to what is there already
 *  when the kernel may. */
export function gradientProduct(
  context: BackwardContext,
  i: number,
  x: Tensor,
  y: Tensor,
  shape: Shape,
  dtype: number,
  alpha = 1,
): Tensor | typeof ACCUMULATED {
  const rank = Math.max(x.shape.length, y.shape.length)
  const batch = rank === 2 ? [] : broadcastShapes('matmul', x.shape.slice(0, -2), y.shape.slice(0, -2))
  const full = [...batch, x.shape[x.shape.length - 2]!, y.shape[y.shape.length - 1]!]
  if (sameShape(full, shape)) {
    const target = context.target(i)
    if (target !== null) {
      runInto(matmulOp, [x, y], target, [alpha, 1])
      return ACCUMULATED
    }
  }
  return sumTo(run(matmulOp, [x, y], full, dtype, [alpha, 0]), shape)
}

type Gradient = Tensor | typeof ACCUMULATED | null

/** `dtypes`: of the operands, where the factors have others. */
function productBackward(
  context: BackwardContext,
  g: Tensor,
  alpha: number,
  dtypes: readonly number[] | null = null,
): [Gradient, Gradient] {
  const a = context.saved(0)
  const b = context.saved(1)
  const [dtypeA, dtypeB] = (dtypes ?? [a._dtype, b._dtype]) as [number, number]
  // da [.., M, K] = g [.., M, N] b' [.., N, K];  db [.., K, N] = a' [.., K, M] g [.., M, N]
  const da = context.needs(0) ? gradientProduct(context, 0, g, transposeLast(b), a.shape, dtypeA, alpha) : null
  if (!context.needs(1)) return [da, null]
  // one matrix b for all batches: its gradient is one product over all rows
  const folds = b.shape.length === 2 && a.shape.length > 2
  const db = folds
    ? gradientProduct(context, 1, transposeLast(asRows(a)), asRows(g), b.shape, dtypeB, alpha)
    : gradientProduct(context, 1, transposeLast(a), g, b.shape, dtypeB, alpha)
  return [da, db]
}

/** @internal */
export const matmulRecord: OpRecord = {
  name: 'matmul',
  autocast: 'lower',
  backward: (context, g) => productBackward(context, g, 1),
}

/** Matrix product a @ b by PyTorch's rules: vectors [K] are a row on the left and a column on the right, and that dim
 *  goes; from rank 3 on leading dims are batches and broadcast.
 *  a [..., M, K], b [..., K, N] of one dtype -> [..., M, N]; 16-bit dtypes accumulate in float32 and round once. Under
 *  autocast dtypes may differ, and the result has autocast's.
 *  @throws ShapeError when inner or batch dims do not fit; DTypeError when the dtypes differ
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.matmul.html
 *  @example matmul(ones([2, 3]), ones([3, 4])).shape // [2, 4] */
export function matmul(a: Tensor, b: Tensor): Tensor {
  expectTensor('matmul', 'a', a)
  expectTensor('matmul', 'b', b)
  return productAs(matmulRecord, a, b)
}

/** @internal The product as an operator of another name has it. */
export function productAs(op: OpRecord, a: Tensor, b: Tensor): Tensor {
  const { length: rankA } = a.shape
  const { length: rankB } = b.shape
  if (rankA >= 2 && rankB >= 2) return product(op, a, b)
  if (rankA === 0 || rankB === 0) {
    throw new ShapeError(op.name, {
      problem: 'a tensor of rank 0 is no matrix',
      got: `a ${describeShape(a.shape)} and b ${describeShape(b.shape)}`,
      expected: 'rank 1 at least',
      action: 'use mul()',
    })
  }
  const x = rankA === 1 ? unsqueeze(a, 0) : a
  const y = rankB === 1 ? unsqueeze(b, 1) : b
  const out = product(op, x, y)
  const rank = out.shape.length
  if (rankA === 1 && rankB === 1) return squeeze(out, [0, 1])
  return squeeze(out, rankA === 1 ? rank - 2 : rank - 1)
}

function ofRank(op: string, rank: number, named: Record<string, Tensor>): void {
  for (const [name, x] of Object.entries(named)) {
    expectTensor(op, name, x)
    if (x.shape.length !== rank) {
      throw new ShapeError(op, {
        problem: `${name} has the wrong rank`,
        got: describeShape(x.shape),
        expected: `rank ${rank}`,
        action: 'use matmul() for other ranks',
      })
    }
  }
}

/** Product of two matrices. @example mm(ones([2, 3]), ones([3, 4])).shape // [2, 4] */
export function mm(a: Tensor, b: Tensor): Tensor {
  ofRank('mm', 2, { a, b })
  return product(mmRecord, a, b)
}
const mmRecord: OpRecord = { ...matmulRecord, name: 'mm' }

/** Products of equally many matrices: a [B, M, K], b [B, K, N] -> [B, M, N].
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.bmm.html
 *  @example bmm(ones([5, 2, 3]), ones([5, 3, 4])).shape // [5, 2, 4] */
export function bmm(a: Tensor, b: Tensor): Tensor {
  ofRank('bmm', 3, { a, b })
  if (a.shape[0] !== b.shape[0]) {
    throw new ShapeError('bmm', {
      problem: 'batch sizes differ',
      got: `a ${describeShape(a.shape)} and b ${describeShape(b.shape)}`,
      expected: 'a[0] == b[0]',
      action: 'use matmul() to broadcast',
    })
  }
  return product(bmmRecord, a, b)
}
const bmmRecord: OpRecord = { ...matmulRecord, name: 'bmm' }

/** Product of a matrix [M, K] and a vector [K] -> [M].
 *  @example mv(tensor([[1, 2], [3, 4]]), tensor([1, 1])) // [3, 7] */
export function mv(a: Tensor, x: Tensor): Tensor {
  ofRank('mv', 2, { a })
  ofRank('mv', 1, { x })
  return productAs(mvRecord, a, x)
}
const mvRecord: OpRecord = { ...matmulRecord, name: 'mv' }

/** Inner product of two vectors -> rank 0. @example dot(tensor([1, 2]), tensor([3, 4])) // 11 */
export function dot(a: Tensor, b: Tensor): Tensor {
  ofRank('dot', 1, { a, b })
  const [x, y] = autocasting ? (autocastWidest('dot', [a, b]) as [Tensor, Tensor]) : [a, b]
  return productAs(dotRecord, x, y)
}
const dotRecord: OpRecord = { ...matmulRecord, name: 'dot', autocast: 'promote' }

/** Outer product of vectors [M] and [N] -> [M, N]. @example outer(tensor([1, 2]), tensor([3, 4])) // [[3, 4], [6, 8]] */
export function outer(a: Tensor, b: Tensor): Tensor {
  ofRank('outer', 1, { a, b })
  return product(outerRecord, unsqueeze(a, 1), unsqueeze(b, 0))
}
const outerRecord: OpRecord = { ...matmulRecord, name: 'outer', autocast: 'keep' }

/** @internal a [..., M, 1] @ b [..., 1, N]; dtypes promote. */
export function outerProduct(a: Tensor, b: Tensor): Tensor {
  const dtype = dtypeNames[promote(a._dtype, b._dtype)]!
  return productAs(outerRecord, to(a, dtype), to(b, dtype))
}

/** beta * input + alpha * a @ b in one kernel; input broadcasts to [M, N]. Defaults 1. With beta 0 the input is not read.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.addmm.html
 *  @example addmm(zeros([4]), ones([2, 3]), ones([3, 4])).shape // [2, 4] */
export function addmm(
  input: Tensor,
  a: Tensor,
  b: Tensor,
  { alpha = 1, beta = 1 }: { alpha?: number; beta?: number } = {},
): Tensor {
  ofRank('addmm', 2, { a, b })
  return addProduct('addmm', input, a, b, alpha, beta)
}

/** beta * input + alpha * a @ b for batches: a [B, M, K], b [B, K, N].
 *  @example baddbmm(zeros([4]), ones([5, 2, 3]), ones([5, 3, 4])).shape // [5, 2, 4] */
export function baddbmm(
  input: Tensor,
  a: Tensor,
  b: Tensor,
  { alpha = 1, beta = 1 }: { alpha?: number; beta?: number } = {},
): Tensor {
  ofRank('baddbmm', 3, { a, b })
  return addProduct('baddbmm', input, a, b, alpha, beta)
}

function addProduct(name: string, input: Tensor, a: Tensor, b: Tensor, alpha: number, beta: number): Tensor {
  expectTensor(name, 'input', input)
  expectFloating(name, 'a', a)
  if (a.shape.at(-1) !== b.shape.at(-2) || a.shape.slice(0, -2).some((size, d) => size !== b.shape[d])) {
    throw new ShapeError(name, {
      problem: 'inner dimensions differ',
      got: `a ${describeShape(a.shape)} and b ${describeShape(b.shape)}`,
      expected: 'a[-1] == b[-2]',
      action: 'transpose one of them or check the sizes',
    })
  }
  const shape = [...a.shape.slice(0, -1), b.shape.at(-1)!]
  if (!sameShape(broadcastShapes(name, input.shape, shape), shape)) {
    throw new ShapeError(name, {
      problem: 'the input does not broadcast to the product',
      got: describeShape(input.shape),
      expected: describeShape(shape),
    })
  }
  const dtype = productDType(name, a, b, [input])
  const strides = shape.map((size, d) => {
    const at = d - (shape.length - input.shape.length)
    return at < 0 || (input.shape[at] === 1 && size !== 1) ? 0 : input.strides[at]!
  })
  const expanded = Tensor._view(input, shape, strides, input._offset)
  const out = beta === 0 ? make(fillOp, shape, dtype, a._device, [0]) : run(copyOp, [expanded], shape, dtype)
  const factors = autocasting ? [multiplied(a, dtype), multiplied(b, dtype)] : [a, b]
  runInto(matmulOp, factors, out, [alpha, beta])
  const dtypes = [a._dtype, b._dtype]
  const op: OpRecord = {
    name,
    autocast: 'lower',
    backward: (context, g) => {
      // the operands are inputs 0 and 1 of the product, 1 and 2 of this
      const shifted: BackwardContext = {
        saved: (i) => context.saved(i),
        needs: (i) => context.needs(i + 1),
        target: (i) => context.target(i + 1),
      }
      const [da, db] = productBackward(shifted, g, alpha, dtypes)
      const dinput = context.needs(0) ? gradientFor(beta === 1 ? g : scaled(g, beta), input.shape, input._dtype) : null
      return [dinput, da, db]
    },
  }
  record(op, out, [input, a, b], needsGrad([input, a, b]) ? factors : [])
  disposeCopies(factors, [a, b])
  return out
}

const mulOp = native('mul', 'scalar,reversed')
const scaled = (g: Tensor, factor: number): Tensor => run(mulOp, [g], g.shape, g._dtype, [factor, 0])

declare module '../tensor/tensor' {
  interface Tensor {
    matmul(other: Tensor): Tensor
    mm(other: Tensor): Tensor
    bmm(other: Tensor): Tensor
    mv(other: Tensor): Tensor
    dot(other: Tensor): Tensor
    outer(other: Tensor): Tensor
    addmm(a: Tensor, b: Tensor, options?: { alpha?: number; beta?: number }): Tensor
    baddbmm(a: Tensor, b: Tensor, options?: { alpha?: number; beta?: number }): Tensor
  }
}

defineMethods({ matmul, mm, bmm, mv, dot, outer, addmm, baddbmm })
