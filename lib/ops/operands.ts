// The shape and dtype rules of operators with two operands, either of which may be a number. Kernels convert dtypes as
// they read, so promotion decides the result's dtype and costs nothing.

import { BOOL, FLOAT32, INT64, isFloatingCode, promote } from '../dtype'
import { ArgumentError, DTypeError, describeValue } from '../errors'
import { readOptions } from '../options'
import { tidy } from '../tensor/scope'
import { type Shape, Tensor } from '../tensor/tensor'
import { broadcastShapes, sameShape, sumTo } from './broadcast'
import { expectTensor, type NativeOp, native, run, runLike, transfer } from './registry'

/** A tensor or a number in its place. */
export type Operand = Tensor | number

/** @internal */
export const nothing: Tensor[] = []

const copyOp = native('copy')

/** @internal The tensor in another dtype, outside of the graph; itself when it has it. */
export const cast = (x: Tensor, dtype: number): Tensor => (x._dtype === dtype ? x : run(copyOp, [x], x.shape, dtype))

/** @internal */
export function expectNumber(op: string, value: unknown, name = 'an operand'): number {
  if (typeof value !== 'number') {
    throw new ArgumentError(op, {
      problem: `not ${name}`,
      got: describeValue(value),
      expected: name === 'an operand' ? 'a Tensor or a number' : 'a number',
    })
  }
  return value
}

/** @internal dtype of a tensor with a number: the tensor's, but an integer tensor becomes float32 with a fraction. */
export function withNumber(dtype: number, value: number): number {
  if (isFloatingCode(dtype)) return dtype
  if (!Number.isInteger(value)) return FLOAT32
  return dtype === BOOL ? INT64 : dtype
}

/** @internal A rank-0 tensor decides the dtype only when its category is higher, as in PyTorch. */
export function promoteTensors(a: Tensor, b: Tensor): number {
  if (a._dtype === b._dtype) return a._dtype
  const aFloat = isFloatingCode(a._dtype)
  const sameCategory = aFloat === isFloatingCode(b._dtype) && (a._dtype === BOOL) === (b._dtype === BOOL)
  if (sameCategory && a.shape.length > 0 !== b.shape.length > 0) return a.shape.length > 0 ? a._dtype : b._dtype
  return promote(a._dtype, b._dtype)
}

const isHostScalar = (x: Tensor): boolean => x.shape.length === 0 && x._device.type === 'cpu'

/** @internal Computes on operands of one device: where one is on CUDA, those of rank 0 on the cpu go along as copies, as
 *  in PyTorch. The copies are outside of the graph; the engine brings gradients back to where the operand is. */
export function together<T extends readonly Tensor[]>(operands: T, compute: (...operands: T) => Tensor): Tensor {
  const place = operands[0]!._device
  if (operands.every((x) => x._device === place)) return compute(...operands)
  const meeting = operands.find((x) => !isHostScalar(x))?._device
  if (meeting === undefined || meeting.type === 'cpu') return compute(...operands)
  return tidy(() => compute(...(operands.map((x) => (isHostScalar(x) ? transfer(x, meeting) : x)) as unknown as T)))
}

/** @internal The result's dtype, from the one that the operands promote to. */
export type ResultDType = (promoted: number) => number
/** @internal */
export const promoted: ResultDType = (dtype) => dtype
/** @internal Integers become float32. */
export const fractional: ResultDType = (dtype) => (isFloatingCode(dtype) ? dtype : FLOAT32)
/** @internal */
export const truth: ResultDType = () => BOOL

/** @internal Runs `op(a, b)`: attributes scalar, reversed and, for three of them, `extra`. */
export function binary(
  op: NativeOp,
  a: Operand,
  b: Operand,
  result: ResultDType = promoted,
  attrs = 2,
  extra = 0,
): Tensor {
  if (a instanceof Tensor) {
    if (!(b instanceof Tensor)) {
      const value = expectNumber(op.name, b)
      return runLike(op, a, null, result(withNumber(a._dtype, value)), attrs, value, 0, extra)
    }
    if (a._device !== b._device) return together([a, b], (x, y) => ofOneDevice(op, x, y, result, attrs, extra))
    return ofOneDevice(op, a, b, result, attrs, extra)
  }
  const value = expectNumber(op.name, a)
  expectTensor(op.name, 'the operand', b)
  return runLike(op, b, null, result(withNumber(b._dtype, value)), attrs, value, 1, extra)
}

function ofOneDevice(op: NativeOp, a: Tensor, b: Tensor, result: ResultDType, attrs: number, extra: number): Tensor {
  if (a._dtype === b._dtype && sameShape(a.shape, b.shape)) {
    return runLike(op, a, b, result(a._dtype), attrs, 0, 0, extra)
  }
  const shape = broadcastShapes(op.name, a.shape, b.shape)
  return run(op, [a, b], shape, result(promoteTensors(a, b)), attrs === 3 ? [0, 0, extra] : [0, 0])
}

/** @internal The tensor of an operand, for the tape. */
export const tensorOf = (x: Operand): Tensor | null => (x instanceof Tensor ? x : null)

/** @internal A gradient in the shape and dtype of the operand that it belongs to. */
export const gradientFor = (grad: Tensor, shape: Shape, dtype: number): Tensor => cast(sumTo(grad, shape), dtype)

/** @internal Throws for bool tensors, where `instead` is what is meant. */
export function refuseBool(op: string, operands: readonly Operand[], instead: string): void {
  if (!operands.some((x) => x instanceof Tensor && x._dtype === BOOL)) return
  if (operands.some((x) => !(x instanceof Tensor) || x._dtype !== BOOL)) return
  throw new DTypeError(op, { problem: 'not defined for truth values', got: 'bool', action: `use ${instead}` })
}

/** @internal */
export function readAlpha(op: string, options: { alpha?: number } | undefined): number {
  return options === undefined ? 1 : (readOptions(op, options, ['alpha']).alpha ?? 1)
}
