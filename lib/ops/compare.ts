// Comparison, logic, and choosing by truth values. Comparisons give bool tensors and have no gradient.

import { BOOL, INT64, promote } from '../dtype'
import { ArgumentError, DTypeError } from '../errors'
import { readOptions } from '../options'
import type { Tensor } from '../tensor/tensor'
import { broadcastShapes, sameShape } from './broadcast'
import {
  binary,
  expectNumber,
  gradientFor,
  type Operand,
  promoteTensors,
  tensorOf,
  together,
  truth,
  withNumber,
} from './operands'
import { defineMethods, expectTensor, make, native, needsGrad, type OpRecord, record, run, runLike } from './registry'

const comparison = (name: string): ((a: Operand, b: Operand) => Tensor) => {
  const op = native(name, 'scalar,reversed')
  return (a, b) => binary(op, a, b, truth)
}

/** Elementwise a == b as bool; NaN equals nothing.
 *  @example eq(tensor([1, 2]), 2) // [false, true] */
export const eq = comparison('eq')
/** Elementwise a != b as bool.
 *  @example ne(tensor([1, 2]), 2) // [true, false] */
export const ne = comparison('ne')
/** Elementwise a < b as bool.
 *  @example lt(tensor([1, 2]), 2) // [true, false] */
export const lt = comparison('lt')
/** Elementwise a <= b as bool.
 *  @example le(tensor([1, 2]), 1) // [true, false] */
export const le = comparison('le')
/** Elementwise a > b as bool.
 *  @example gt(tensor([1, 2]), 1) // [false, true] */
export const gt = comparison('gt')
/** Elementwise a >= b as bool.
 *  @example ge(tensor([1, 2]), 2) // [false, true] */
export const ge = comparison('ge')
/** Elementwise a and b as bool; everything but 0 is true.
 *  @example logicalAnd(tensor([1, 0]), tensor([2, 2])) // [true, false] */
export const logicalAnd = comparison('logicalAnd')
/** Elementwise a or b as bool; everything but 0 is true.
 *  @example logicalOr(tensor([1, 0]), tensor([0, 0])) // [true, false] */
export const logicalOr = comparison('logicalOr')
/** Elementwise: exactly one of a and b, as bool.
 *  @example logicalXor(tensor([1, 0]), tensor([1, 1])) // [false, true] */
export const logicalXor = comparison('logicalXor')

const notOp = native('logicalNot')

/** Elementwise: whether x is 0, as bool.
 *  @example logicalNot(tensor([1, 0])) // [false, true] */
export function logicalNot(x: Tensor): Tensor {
  expectTensor('logicalNot', 'the operand', x)
  return runLike(notOp, x, null, BOOL, 0)
}

/** Whether two tensors have the same shape and elements; waits, blocking.
 *  @example equal(ones([2]), ones([2])) // true */
export function equal(a: Tensor, b: Tensor): boolean {
  expectTensor('equal', 'a', a)
  expectTensor('equal', 'b', b)
  if (!sameShape(a.shape, b.shape)) return false
  return a.numel === 0 || run(allOp, [eq(a, b)], [], BOOL, [2 ** a.ndim - 1]).itemSync() === 1
}

/** Tolerances of `isclose` and `allclose`. */
export interface CloseOptions {
  /** Default 1e-5. */
  rtol?: number
  /** Default 1e-8. */
  atol?: number
  /** Whether NaN is close to NaN; default false. */
  equalNan?: boolean
}

const allOp = native('all', 'dims')
const absOp = native('abs')
const subOp = native('sub', 'scalar,reversed,alpha')
const mulOp = native('mul', 'scalar,reversed')
const addOp = native('add', 'scalar,reversed,alpha')
const isnanOp = native('isnan')
const isfiniteOp = native('isfinite')

/** Elementwise |a - b| <= atol + rtol * |b|, or a == b, as bool.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.isclose.html
 *  @example isclose(tensor([1, 2]), tensor([1, 2.1])) // [true, false] */
export function isclose(a: Tensor, b: Tensor, options: CloseOptions = {}): Tensor {
  const names = ['rtol', 'atol', 'equalNan'] as const
  const { rtol = 1e-5, atol = 1e-8, equalNan = false } = readOptions('isclose', options, names)
  expectTensor('isclose', 'a', a)
  expectTensor('isclose', 'b', b)
  const magnitude = (x: Tensor): Tensor => runLike(absOp, x, null, x._dtype, 0)
  const bound = binary(addOp, binary(mulOp, magnitude(b), rtol), atol, undefined, 3, 1)
  const difference = binary(subOp, a, b, undefined, 3, 1)
  // an infinite bound is above every difference: only finite ones count
  const finite = runLike(isfiniteOp, difference, null, BOOL, 0)
  const near = logicalOr(eq(a, b), logicalAnd(le(magnitude(difference), bound), finite))
  if (!equalNan) return near
  const nan = (x: Tensor): Tensor => runLike(isnanOp, x, null, BOOL, 0)
  return logicalOr(near, logicalAnd(nan(a), nan(b)))
}

/** Whether all elements are close; waits, blocking.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.allclose.html
 *  @example allclose(ones([2]), ones([2])) // true */
export function allclose(a: Tensor, b: Tensor, options: CloseOptions = {}): boolean {
  const near = isclose(a, b, options)
  return near.numel === 0 || run(allOp, [near], [], BOOL, [2 ** near.ndim - 1]).itemSync() === 1
}

// --- choosing -----------------------------------------------------------------------------------------------------

const whereOp = native('where')
const fillOp = native('fill', 'value')

function expectBool(op: string, name: string, mask: unknown): asserts mask is Tensor {
  expectTensor(op, name, mask)
  if (mask._dtype !== BOOL) {
    throw new DTypeError(op, {
      problem: `${name} is not a truth value`,
      got: mask.dtype,
      expected: 'bool',
      action: 'compare it with something, such as mask.ne(0)',
    })
  }
}

const constant = (value: number, dtype: number, like: Tensor): Tensor => make(fillOp, [], dtype, like._device, [value])

/** Elementwise a where the condition is true, else b. All broadcast; a, b may be numbers.
 *  The gradient of what was not chosen is 0, but 0 times an infinite slope further up is NaN, as in PyTorch.
 *  @throws DTypeError when the condition is not bool; ShapeError when the shapes do not broadcast
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.where.html
 *  @example where(tensor([true, false]), tensor([1, 2]), 0) // [1, 0] */
export function where(condition: Tensor, a: Operand, b: Operand): Tensor {
  expectBool('where', 'the condition', condition)
  const x = tensorOf(a)
  const y = tensorOf(b)
  const dtype =
    x !== null
      ? y !== null
        ? promoteTensors(x, y)
        : withNumber(x._dtype, expectNumber('where', b))
      : y !== null
        ? withNumber(y._dtype, expectNumber('where', a))
        : promote(withNumber(INT64, expectNumber('where', a)), withNumber(INT64, expectNumber('where', b)))
  const left = x ?? constant(a as number, dtype, condition)
  const right = y ?? constant(b as number, dtype, condition)
  const shape = broadcastShapes('where', condition.shape, broadcastShapes('where', left.shape, right.shape))
  const out = together([condition, left, right], (...operands) => run(whereOp, operands, shape, dtype))
  if (!needsGrad([x, y])) return out
  const asked = [a, b].some((each) => typeof each === 'number' && !Number.isFinite(each))
  return record(
    asked ? { ...whereRecord, asksForInfinity: true } : whereRecord,
    out,
    [x, y],
    [condition],
    (context, g) => {
      const chosen = context.saved(0)
      const zero = constant(0, g._dtype, g)
      const part = (left: Tensor, right: Tensor): Tensor =>
        together([chosen, left, right], (...operands) => run(whereOp, operands, g.shape, g._dtype))
      return [
        x !== null && context.needs(0) ? gradientFor(part(g, zero), x.shape, x._dtype) : null,
        y !== null && context.needs(1) ? gradientFor(part(zero, g), y.shape, y._dtype) : null,
      ]
    },
  )
}
const whereRecord: OpRecord = { name: 'where', autocast: 'promote', backward: () => null }

const maskedFillOp = native('maskedFill', 'value')

/** x with `value` where the mask is true; the mask broadcasts to x.
 *  @throws DTypeError when the mask is not bool; ShapeError when the shapes do not broadcast
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.Tensor.masked_fill_.html
 *  @example maskedFill(tensor([1, 2]), tensor([true, false]), 0) // [0, 2] */
export function maskedFill(x: Tensor, mask: Tensor, value: number): Tensor {
  expectTensor('maskedFill', 'x', x)
  expectBool('maskedFill', 'the mask', mask)
  expectNumber('maskedFill', value, 'a value')
  const shape = broadcastShapes('maskedFill', x.shape, mask.shape)
  const out = run(maskedFillOp, [x, mask], shape, x._dtype, [value])
  if (!needsGrad([x])) return out
  const rule = Number.isFinite(value) ? maskedFillRecord : { ...maskedFillRecord, asksForInfinity: true }
  return record(rule, out, [x], [mask], (context, g) =>
    gradientFor(run(maskedFillOp, [g, context.saved(0)], g.shape, g._dtype, [0]), x.shape, x._dtype),
  )
}
const maskedFillRecord: OpRecord = { name: 'maskedFill', autocast: 'keep', backward: () => null }

const clampOp = native('clamp', 'min,max')
const clampBackward = native('clampBackward', 'min,max')

/** A side of `clamp`; null leaves it open. */
export type Bound = number | null

/** Elementwise min(max(x, lowest), highest); NaN stays. Its gradient is 1 inside and at the bounds.
 *  @throws ArgumentError when neither bound is given
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.clamp.html
 *  @example clamp(tensor([-2, 0.5, 2]), -1, 1) // [-1, 0.5, 1] */
export function clamp(x: Tensor, lowest?: Bound, highest?: Bound): Tensor {
  expectTensor('clamp', 'the operand', x)
  const [min, max] = clampBounds('clamp', lowest, highest)
  const dtype = withNumber(withNumber(x._dtype, Number.isFinite(min) ? min : 0), Number.isFinite(max) ? max : 0)
  const out = runLike(clampOp, x, null, dtype, 2, min, max)
  if (!needsGrad([x])) return out
  return record(clampRecord, out, [x], [x], (context, g) =>
    runLike(clampBackward, g, context.saved(0), g._dtype, 2, min, max),
  )
}
const clampRecord: OpRecord = { name: 'clamp', autocast: 'keep', backward: () => null }

/** @internal */
export function clampBounds(op: string, min: Bound = null, max: Bound = null): [number, number] {
  if (min === null && max === null) {
    throw new ArgumentError(op, {
      problem: 'there is no bound',
      got: 'neither min nor max',
      expected: 'a number for one of them; null leaves a side open',
    })
  }
  return [
    min === null ? Number.NEGATIVE_INFINITY : expectNumber(op, min, 'a bound'),
    max === null ? Number.POSITIVE_INFINITY : expectNumber(op, max, 'a bound'),
  ]
}

declare module '../tensor/tensor' {
  interface Tensor {
    eq(other: Operand): Tensor
    ne(other: Operand): Tensor
    lt(other: Operand): Tensor
    le(other: Operand): Tensor
    gt(other: Operand): Tensor
    ge(other: Operand): Tensor
    logicalAnd(other: Operand): Tensor
    logicalOr(other: Operand): Tensor
    logicalXor(other: Operand): Tensor
    logicalNot(): Tensor
    equal(other: Tensor): boolean
    isclose(other: Tensor, options?: CloseOptions): Tensor
    allclose(other: Tensor, options?: CloseOptions): boolean
    /** This where the condition is true, else `other`. */
    where(condition: Tensor, other: Operand): Tensor
    maskedFill(mask: Tensor, value: number): Tensor
    clamp(min?: Bound, max?: Bound): Tensor
  }
}

defineMethods({
  eq,
  ne,
  lt,
  le,
  gt,
  ge,
  logicalAnd,
  logicalOr,
  logicalXor,
  logicalNot,
  equal,
  isclose,
  allclose,
  maskedFill,
  clamp,
  where: (self: Tensor, condition: Tensor, other: Operand) => where(condition, self, other),
})
