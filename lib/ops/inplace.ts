// In-place forms: the result overwrites the first operand, which keeps its dtype and shape.

import { isFloatingCode } from '../dtype'
import { DTypeError, describeShape, ShapeError } from '../errors'
import type { Tensor } from '../tensor/tensor'
import { broadcastShapes, sameShape } from './broadcast'
import { type Bound, clampBounds } from './compare'
import {
  binary,
  expectNumber,
  fractional,
  gradientFor,
  nothing,
  type Operand,
  readAlpha,
  tensorOf,
  together,
} from './operands'
import {
  type Backward,
  defineMethods,
  expectTensor,
  expectWritable,
  type NativeOp,
  native,
  needsGrad,
  type OpRecord,
  recordInPlace,
  run,
  runInto,
  runLike,
} from './registry'

const addOp = native('add', 'scalar,reversed,alpha')
const subOp = native('sub', 'scalar,reversed,alpha')
const mulOp = native('mul', 'scalar,reversed')
const divOp = native('div', 'scalar,reversed')
const negOp = native('neg')
const copyOp = native('copy')

const times = (a: Tensor, b: Operand): Tensor => binary(mulOp, a, b)
const over = (a: Tensor, b: Operand): Tensor => binary(divOp, a, b, fractional)
const negate = (x: Tensor): Tensor => runLike(negOp, x, null, x._dtype, 0)

function expectFits(op: string, x: Tensor, others: readonly (Tensor | null)[]): void {
  for (const other of others) {
    if (other === null || sameShape(x.shape, other.shape)) continue
    if (!sameShape(broadcastShapes(op, x.shape, other.shape), x.shape)) {
      throw new ShapeError(op, {
        problem: 'the result does not fit in place',
        got: `${describeShape(other.shape)} for a tensor of shape ${describeShape(x.shape)}`,
        expected: 'an operand that broadcasts to it',
      })
    }
  }
}

function expectHolds(op: string, x: Tensor, fractions: boolean): void {
  if (!fractions || isFloatingCode(x._dtype)) return
  throw new DTypeError(op, {
    problem: 'the result has fractions',
    got: `a ${x.dtype} tensor to overwrite`,
    expected: 'a floating dtype',
    action: 'use the out-of-place form',
  })
}

const hasFraction = (other: Operand): boolean =>
  typeof other === 'number' ? !Number.isInteger(other) : isFloatingCode(other._dtype)

/** What x was before it is overwritten, when the gradient of the other operand reads it. */
const before = (x: Tensor, other: Tensor | null): Tensor[] =>
  other !== null && needsGrad([other]) ? [run(copyOp, [x], x.shape, x._dtype)] : nothing

function binaryInto(
  op: NativeOp,
  name: string,
  x: Tensor,
  other: Operand,
  fractions: boolean,
  attrs: readonly number[],
): Tensor | null {
  expectTensor(name, 'the tensor', x)
  const y = tensorOf(other)
  if (y === null) expectNumber(name, other)
  else expectTensor(name, 'the operand', y)
  expectWritable(name, x, [y])
  expectFits(name, x, [y])
  expectHolds(name, x, fractions)
  if (y !== null) together([x, y], (_, operand) => runInto(op, [x, operand], x, [0, 0, ...attrs]))
  else runInto(op, [x], x, [other as number, 0, ...attrs])
  return y
}

function addInto(op: NativeOp, name: string, x: Tensor, other: Operand, alpha: number, slope: number): Tensor {
  expectNumber(name, alpha, 'alpha')
  const y = binaryInto(op, name, x, other, hasFraction(other) || !Number.isInteger(alpha), [alpha])
  if (!needsGrad([x, y])) return x
  return recordInPlace({ name, autocast: 'keep', backward: () => null }, x, [x, y], nothing, (context, g) => [
    g,
    y !== null && context.needs(1)
      ? gradientFor(slope === 1 ? g : slope === -1 ? negate(g) : times(g, slope), y.shape, y._dtype)
      : null,
  ])
}

/** x += alpha * other; other must broadcast to x.
 *  @throws ShapeError when the result does not fit; StateError for a leaf that requires a gradient
 *  @example tensor([1, 2]).add_(10) // [11, 12] */
export function add_(x: Tensor, other: Operand, options?: { alpha?: number }): Tensor {
  const alpha = readAlpha('add_', options)
  return addInto(addOp, 'add_', x, other, alpha, alpha)
}

/** x -= alpha * other; other must broadcast to x.
 *  @throws ShapeError when the result does not fit; StateError for a leaf that requires a gradient
 *  @example tensor([1, 2]).sub_(1) // [0, 1] */
export function sub_(x: Tensor, other: Operand, options?: { alpha?: number }): Tensor {
  const alpha = readAlpha('sub_', options)
  return addInto(subOp, 'sub_', x, other, alpha, -alpha)
}

/** x *= other; other must broadcast to x.
 *  @throws ShapeError when the result does not fit; StateError for a leaf that requires a gradient
 *  @example tensor([1, 2]).mul_(3) // [3, 6] */
export function mul_(x: Tensor, other: Operand): Tensor {
  const old = before(x, tensorOf(other))
  const y = binaryInto(mulOp, 'mul_', x, other, hasFraction(other), [])
  if (!needsGrad([x, y])) return x
  if (y === null) return recordInPlace(mulRecord, x, [x], nothing, (_, g) => times(g, other))
  return recordInPlace(mulRecord, x, [x, y], [y, ...old], (context, g) => [
    context.needs(0) ? times(g, context.saved(0)) : null,
    context.needs(1) ? gradientFor(times(g, context.saved(1)), y.shape, y._dtype) : null,
  ])
}
const mulRecord: OpRecord = { name: 'mul_', autocast: 'keep', backward: () => null }

/** x /= other; other must broadcast to x.
 *  @throws ShapeError when the result does not fit; DTypeError for an integer x
 *  @example tensor([1, 2]).div_(4) // [0.25, 0.5] */
export function div_(x: Tensor, other: Operand): Tensor {
  const old = before(x, tensorOf(other))
  const y = binaryInto(divOp, 'div_', x, other, true, [])
  if (!needsGrad([x, y])) return x
  if (y === null) return recordInPlace(divRecord, x, [x], nothing, (_, g) => over(g, other))
  return recordInPlace(divRecord, x, [x, y], [y, ...old], (context, g) => {
    const divisor = context.saved(0)
    const quotient = over(g, divisor)
    return [
      context.needs(0) ? quotient : null,
      context.needs(1)
        ? gradientFor(negate(times(quotient, over(context.saved(1), divisor))), y.shape, y._dtype)
        : null,
    ]
  })
}
const divRecord: OpRecord = { name: 'div_', autocast: 'keep', backward: () => null }

const addcmulOp = native('addcmul', 'value')

/** x += value * a * b; a and b must broadcast to x. Default value 1.
 *  @throws ShapeError when the result does not fit
 *  @example tensor([1]).addcmul_(tensor([2]), tensor([3])) // [7] */
export function addcmul_(x: Tensor, a: Tensor, b: Tensor, { value = 1 }: { value?: number } = {}): Tensor {
  expectTensor('addcmul_', 'the tensor', x)
  expectTensor('addcmul_', 'a', a)
  expectTensor('addcmul_', 'b', b)
  expectWritable('addcmul_', x, [a, b])
  expectFits('addcmul_', x, [a, b])
  expectHolds('addcmul_', x, hasFraction(a) || hasFraction(b) || !Number.isInteger(expectNumber('addcmul_', value)))
  together([x, a, b], (_, ...factors) => runInto(addcmulOp, [x, ...factors], x, [value]))
  if (!needsGrad([x, a, b])) return x
  return recordInPlace(addcmulRecord, x, [x, a, b], [a, b], (context, g) => [
    g,
    context.needs(1) ? gradientFor(times(times(g, context.saved(1)), value), a.shape, a._dtype) : null,
    context.needs(2) ? gradientFor(times(times(g, context.saved(0)), value), b.shape, b._dtype) : null,
  ])
}
const addcmulRecord: OpRecord = { name: 'addcmul_', autocast: 'keep', backward: () => null }

const maskedFillOp = native('maskedFill', 'value')

/** Writes `value` where the mask, which must broadcast to x, is true.
 *  @throws DTypeError when the mask is not bool; ShapeError when it does not broadcast to x
 *  @example tensor([1, 2]).maskedFill_(tensor([true, false]), 0) // [0, 2] */
export function maskedFill_(x: Tensor, mask: Tensor, value: number): Tensor {
  expectTensor('maskedFill_', 'the tensor', x)
  expectTensor('maskedFill_', 'the mask', mask)
  expectNumber('maskedFill_', value, 'a value')
  expectWritable('maskedFill_', x)
  expectFits('maskedFill_', x, [mask])
  runInto(maskedFillOp, [x, mask], x, [value])
  if (!needsGrad([x])) return x
  return recordInPlace(maskedFillRecord, x, [x], [mask], (context, g) =>
    run(maskedFillOp, [g, context.saved(0)], g.shape, g._dtype, [0]),
  )
}
const maskedFillRecord: OpRecord = { name: 'maskedFill_', autocast: 'keep', backward: () => null }

const clampOp = native('clamp', 'min,max')
const clampBackward = native('clampBackward', 'min,max')

/** x = min(max(x, lowest), highest); null leaves a side open.
 *  @throws ArgumentError when neither bound is given
 *  @example tensor([-2, 2]).clamp_(-1, 1) // [-1, 1] */
export function clamp_(x: Tensor, lowest?: Bound, highest?: Bound): Tensor {
  expectTensor('clamp_', 'the tensor', x)
  const [min, max] = clampBounds('clamp_', lowest, highest)
  expectWritable('clamp_', x)
  const old = before(x, x)
  runInto(clampOp, [x], x, [min, max])
  if (!needsGrad([x])) return x
  return recordInPlace(clampRecord, x, [x], old, (context, g) =>
    runLike(clampBackward, g, context.saved(0), g._dtype, 2, min, max),
  )
}
const clampRecord: OpRecord = { name: 'clamp_', autocast: 'keep', backward: () => null }

/** An in-place function whose gradient is written in its result, or (negation) in nothing. */
function unaryInto(name: string, gradient: (g: Tensor, y: Tensor) => Tensor, fractions = true): (x: Tensor) => Tensor {
  const op = native(name.slice(0, -1))
  const reads = gradient.length > 1
  const backward: Backward = (context, g) => gradient(g, reads ? context.saved(0) : g)
  const entry: OpRecord = { name, autocast: 'keep', backward }
  return (x) => {
    expectTensor(name, 'the tensor', x)
    expectWritable(name, x)
    expectHolds(name, x, fractions)
    runInto(op, [x], x)
    return needsGrad([x]) ? recordInPlace(entry, x, [x], reads ? [x] : nothing) : x
  }
}

const through = (name: string): ((g: Tensor, y: Tensor) => Tensor) => {
  const op = native(name)
  return (g, y) => runLike(op, g, y, g._dtype, 0)
}

/** x = -x. */
export const neg_ = unaryInto('neg_', negate, false)
/** x = e^x. */
export const exp_ = unaryInto('exp_', times)
/** x = sqrt(x). */
export const sqrt_ = unaryInto('sqrt_', (g, y) => over(g, times(y, 2)))
/** x = tanh(x). */
export const tanh_ = unaryInto('tanh_', through('tanhBackward'))
/** x = 1 / (1 + e^-x). */
export const sigmoid_ = unaryInto('sigmoid_', through('sigmoidBackward'))
/** x = max(x, 0). */
export const relu_ = unaryInto('relu_', through('reluBackward'), false)

declare module '../tensor/tensor' {
  interface Tensor {
    add_(other: Operand, options?: { alpha?: number }): Tensor
    sub_(other: Operand, options?: { alpha?: number }): Tensor
    mul_(other: Operand): Tensor
    div_(other: Operand): Tensor
    addcmul_(a: Tensor, b: Tensor, options?: { value?: number }): Tensor
    maskedFill_(mask: Tensor, value: number): Tensor
    clamp_(min?: Bound, max?: Bound): Tensor
    neg_(): Tensor
    exp_(): Tensor
    sqrt_(): Tensor
    tanh_(): Tensor
    sigmoid_(): Tensor
    relu_(): Tensor
  }
}

defineMethods({
  add_,
  sub_,
  mul_,
  div_,
  addcmul_,
  maskedFill_,
  clamp_,
  neg_,
  exp_,
  sqrt_,
  tanh_,
  sigmoid_,
  relu_,
})
