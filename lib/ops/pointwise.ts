// Elementwise operators.

import { BOOL, FLOAT32, isFloatingCode, promote } from '../dtype'
import { ArgumentError, describeValue } from '../errors'
import { Tensor } from '../tensor/tensor'
import { broadcastShapes, sameShape, sumTo } from './broadcast'
import {
  defineMethods,
  expectTensor,
  expectWritable,
  type NativeOp,
  native,
  needsGrad,
  type OpRecord,
  record,
  recordInPlace,
  run,
  runInto,
  runLike,
} from './registry'

/** A tensor or a number in its place. */
export type Operand = Tensor | number

// --- the shape and dtype rules of two operands --------------------------------------------------------------------

const expectNumber = (op: string, value: unknown): number => {
  if (typeof value !== 'number') {
    throw new ArgumentError(op, {
      problem: 'not an operand',
      got: describeValue(value),
      expected: 'a Tensor or a number',
    })
  }
  return value
}

/** dtype of a tensor with a number: the tensor's, but an integer tensor becomes float32 with a fraction. */
const withNumber = (dtype: number, value: number): number =>
  isFloatingCode(dtype) || (Number.isInteger(value) && dtype !== BOOL) ? dtype : Number.isInteger(value) ? 4 : FLOAT32

// A rank-0 tensor decides the dtype only when its category is higher, as in PyTorch.
function promoteTensors(a: Tensor, b: Tensor): number {
  if (a._dtype === b._dtype) return a._dtype
  const aFloat = isFloatingCode(a._dtype)
  const bFloat = isFloatingCode(b._dtype)
  if (aFloat === bFloat && a.shape.length > 0 !== b.shape.length > 0) return a.shape.length > 0 ? a._dtype : b._dtype
  return promote(a._dtype, b._dtype)
}

const copy = native('copy')

const cast = (x: Tensor, dtype: number): Tensor => (x._dtype === dtype ? x : run(copy, [x], x.shape, dtype))

/** Runs a binary operator on operands that broadcast and promote; `attr2` is its attribute after scalar, reversed. */
function binary(op: NativeOp, a: Operand, b: Operand, attrs: number, attr2 = 0, result = -1): Tensor {
  if (a instanceof Tensor) {
    if (!(b instanceof Tensor)) {
      const value = expectNumber(op.name, b)
      const dtype = withNumber(a._dtype, value)
      return runLike(op, cast(a, dtype), null, result < 0 ? dtype : result, attrs, value, 0, attr2)
    }
    if (a._dtype === b._dtype && sameShape(a.shape, b.shape)) {
      return runLike(op, a, b, result < 0 ? a._dtype : result, attrs, 0, 0, attr2)
    }
    const shape = broadcastShapes(op.name, a.shape, b.shape)
    const dtype = promoteTensors(a, b)
    const values = attrs === 3 ? [0, 0, attr2] : [0, 0]
    return run(op, [cast(a, dtype), cast(b, dtype)], shape, result < 0 ? dtype : result, values)
  }
  const value = expectNumber(op.name, a)
  expectTensor(op.name, 'the operand', b)
  const dtype = withNumber(b._dtype, value)
  return runLike(op, cast(b, dtype), null, result < 0 ? dtype : result, attrs, value, 1, attr2)
}

/** The tensor operands of a pair, for the tape. */
const tensorOf = (x: Operand): Tensor | null => (x instanceof Tensor ? x : null)

/** A gradient in the shape and dtype of the operand that it belongs to. */
const gradientFor = (grad: Tensor, shape: readonly number[], dtype: number): Tensor => cast(sumTo(grad, shape), dtype)

// --- arithmetic ---------------------------------------------------------------------------------------------------

const addOp = native('add', 'scalar,reversed,alpha')

/** Elementwise a + alpha * b.
 *  a, b broadcast to each other and promote; either may be a number. Default alpha 1.
 *  @throws ShapeError when the shapes do not broadcast
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.add.html
 *  @example add(tensor([1, 2]), 10) // [11, 12] */
export function add(a: Operand, b: Operand, { alpha = 1 }: { alpha?: number } = {}): Tensor {
  const out = binary(addOp, a, b, 3, alpha)
  const x = tensorOf(a)
  const y = tensorOf(b)
  if (x?._requiresGrad || y?._requiresGrad) {
    if (x !== null && y !== null && alpha === 1 && x.shape === out.shape && y.shape === out.shape) {
      return record(addSame, out, [x, y], none)
    }
    return record(addRecord, out, [x, y], none, (context, g) => [
      x !== null && context.needs(0) ? gradientFor(g, x.shape, x._dtype) : null,
      y !== null && context.needs(1)
        ? gradientFor(alpha === 1 ? g : binary(mulOp, g, alpha, 2), y.shape, y._dtype)
        : null,
    ])
  }
  return out
}

const none: Tensor[] = []
const addRecord: OpRecord = { name: 'add', autocast: 'promote', backward: (_, g) => [g, g] }
const addSame = addRecord

const mulOp = native('mul', 'scalar,reversed')

/** Elementwise a * b.
 *  a, b broadcast to each other and promote; either may be a number.
 *  @throws ShapeError when the shapes do not broadcast
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.mul.html
 *  @example mul(tensor([1, 2]), tensor([3, 4])) // [3, 8] */
export function mul(a: Operand, b: Operand): Tensor {
  const out = binary(mulOp, a, b, 2)
  const x = tensorOf(a)
  const y = tensorOf(b)
  if (!needsGrad([x, y])) return out
  if (x !== null && y !== null) {
    return record(mulRecord, out, [x, y], [x, y], (context, g) => [
      context.needs(0) ? gradientFor(binary(mulOp, g, context.saved(1), 2), x.shape, x._dtype) : null,
      context.needs(1) ? gradientFor(binary(mulOp, g, context.saved(0), 2), y.shape, y._dtype) : null,
    ])
  }
  const factor = (x === null ? a : b) as number
  return record(mulRecord, out, [x, y], none, (_, g) => {
    const grad = binary(mulOp, g, factor, 2)
    return x === null ? [null, grad] : [grad, null]
  })
}

const mulRecord: OpRecord = { name: 'mul', autocast: 'promote', backward: () => null }

// --- in place -----------------------------------------------------------------------------------------------------

/** x += alpha * other, in place; other must broadcast to x's shape. */
export function add_(x: Tensor, other: Operand, { alpha = 1 }: { alpha?: number } = {}): Tensor {
  const y = tensorOf(other)
  expectWritable('add_', x, [y])
  if (y !== null) runInto(addOp, [x, cast(y, x._dtype)], x, [0, 0, alpha])
  else runInto(addOp, [x], x, [expectNumber('add_', other), 0, alpha])
  if (!needsGrad([x, y])) return x
  return recordInPlace(addRecord, x, [x, y], none, (context, g) => [
    g,
    y !== null && context.needs(1) ? gradientFor(alpha === 1 ? g : mul(g, alpha), y.shape, y._dtype) : null,
  ])
}

declare module '../tensor/tensor' {
  interface Tensor {
    add(other: Operand, options?: { alpha?: number }): Tensor
    mul(other: Operand): Tensor
    add_(other: Operand, options?: { alpha?: number }): Tensor
  }
}

defineMethods({ add, mul, add_ })
