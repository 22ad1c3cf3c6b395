// Elementwise arithmetic of two operands.

import { isAnomalyEnabled } from '../autograd/anomaly'
import { autocasting } from '../autograd/autocast'
import { isFloatingCode, promote } from '../dtype'
import { ArgumentError, describeValue } from '../errors'
import { readOptions } from '../options'
import { tidy } from '../tensor/scope'
import { Tensor } from '../tensor/tensor'
import { autocast } from './autocast'
import { broadcastShapes } from './broadcast'
import {
  binary,
  expectNumber,
  fractional,
  gradientFor,
  nothing,
  type Operand,
  promoteTensors,
  readAlpha,
  refuseBool,
  tensorOf,
  together,
  truth,
} from './operands'
import {
  defineMethods,
  expectFloating,
  expectTensor,
  native,
  needsGrad,
  type OpRecord,
  record,
  run,
  runLike,
} from './registry'

export type { Operand } from './operands'

const neg = native('neg')
const addOp = native('add', 'scalar,reversed,alpha')
const subOp = native('sub', 'scalar,reversed,alpha')
const mulOp = native('mul', 'scalar,reversed')
const divOp = native('div', 'scalar,reversed')
const floorDivideOp = native('floorDivide', 'scalar,reversed')
const truncDivideOp = native('truncDivide', 'scalar,reversed')
const remainderOp = native('remainder', 'scalar,reversed')
const powOp = native('pow', 'scalar,reversed')
const maximumOp = native('maximum', 'scalar,reversed')
const minimumOp = native('minimum', 'scalar,reversed')
const eqOp = native('eq', 'scalar,reversed')
const ltOp = native('lt', 'scalar,reversed')
const leOp = native('le', 'scalar,reversed')
const logOp = native('log')
const fillMasked = native('maskedFill', 'value')
const addcmulOp = native('addcmul', 'value')

const negate = (x: Tensor): Tensor => runLike(neg, x, null, x._dtype, 0)
const times = (a: Tensor, b: Operand): Tensor => binary(mulOp, a, b)
const over = (a: Operand, b: Operand): Tensor => binary(divOp, a, b, fractional)
const masked = (x: Tensor, mask: Tensor, value: number): Tensor =>
  together([x, mask], (...operands) => run(fillMasked, operands, x.shape, x._dtype, [value]))

/** Elementwise a + alpha * b.
 *  a, b broadcast to each other and promote; either may be a number. Default alpha 1.
 *  @throws ShapeError when the shapes do not broadcast
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.add.html
 *  @example add(tensor([1, 2]), 10) // [11, 12] */
export function add(a: Operand, b: Operand, options?: { alpha?: number }): Tensor {
  const alpha = readAlpha('add', options)
  return addScaled(addOp, addRecord, a, b, alpha, alpha)
}

/** Elementwise a - alpha * b.
 *  a, b broadcast to each other and promote; either may be a number. Default alpha 1.
 *  @throws ShapeError when the shapes do not broadcast; DTypeError for two bool tensors
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.sub.html
 *  @example sub(10, tensor([1, 2])) // [9, 8] */
export function sub(a: Operand, b: Operand, options?: { alpha?: number }): Tensor {
  const alpha = readAlpha('sub', options)
  refuseBool('sub', [a, b], 'logicalXor')
  return addScaled(subOp, subRecord, a, b, alpha, -alpha)
}

const addRecord: OpRecord = { name: 'add', autocast: 'promote', backward: (_, g) => [g, g] }
const subRecord: OpRecord = { name: 'sub', autocast: 'promote', backward: (_, g) => [g, negate(g)] }

function addScaled(op: typeof addOp, rule: OpRecord, a: Operand, b: Operand, alpha: number, slope: number): Tensor {
  const out = binary(op, a, b, undefined, 3, expectNumber(op.name, alpha, 'alpha'))
  const x = tensorOf(a)
  const y = tensorOf(b)
  if (!(x?._requiresGrad || y?._requiresGrad || isAnomalyEnabled())) return out
  const plain = x !== null && y !== null && alpha === 1 && x._dtype === y._dtype
  if (plain && x.shape === out.shape && y.shape === out.shape) return record(rule, out, [x, y], nothing)
  return record(rule, out, [x, y], nothing, (context, g) => [
    x !== null && context.needs(0) ? gradientFor(g, x.shape, x._dtype) : null,
    y !== null && context.needs(1)
      ? gradientFor(slope === 1 ? g : slope === -1 ? negate(g) : times(g, slope), y.shape, y._dtype)
      : null,
  ])
}

/** Elementwise a * b.
 *  a, b broadcast to each other and promote; either may be a number.
 *  @throws ShapeError when the shapes do not broadcast
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.mul.html
 *  @example mul(tensor([1, 2]), tensor([3, 4])) // [3, 8] */
export function mul(a: Operand, b: Operand): Tensor {
  const out = binary(mulOp, a, b)
  const x = tensorOf(a)
  const y = tensorOf(b)
  if (!needsGrad([x, y])) return out
  if (x !== null && y !== null) {
    return record(mulRecord, out, [x, y], [x, y], (context, g) => [
      context.needs(0) ? gradientFor(times(g, context.saved(1)), x.shape, x._dtype) : null,
      context.needs(1) ? gradientFor(times(g, context.saved(0)), y.shape, y._dtype) : null,
    ])
  }
  const factor = (x === null ? a : b) as number
  return record(mulRecord, out, [x, y], nothing, (_, g) => (x === null ? [null, times(g, factor)] : times(g, factor)))
}
const mulRecord: OpRecord = { name: 'mul', autocast: 'promote', backward: () => null }

/** How `div` rounds its quotient. */
export interface DivOptions {
  /** 'floor' rounds down, 'trunc' towards 0; integers then stay integers. Default: no rounding. */
  roundingMode?: 'floor' | 'trunc' | null
}

/** Elementwise a / b; the quotient of integers is float32 unless it is rounded.
 *  a, b broadcast to each other and promote; either may be a number. A rounded quotient has gradient 0.
 *  @throws ShapeError when the shapes do not broadcast; StateError for a rounded quotient of integers by 0
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.div.html
 *  @example div(tensor([1, 2]), 4) // [0.25, 0.5] */
export function div(a: Operand, b: Operand, options: DivOptions = {}): Tensor {
  const { roundingMode = null } = readOptions('div', options, ['roundingMode'])
  if (roundingMode === 'floor') return binary(floorDivideOp, a, b)
  if (roundingMode === 'trunc') return binary(truncDivideOp, a, b)
  if (roundingMode !== null) {
    throw new ArgumentError('div', {
      problem: 'no such roundingMode',
      got: describeValue(roundingMode),
      expected: "'floor', 'trunc' or null",
    })
  }
  const out = over(a, b)
  const x = tensorOf(a)
  const y = tensorOf(b)
  if (!needsGrad([x, y])) return out
  if (y === null) return record(divRecord, out, [x], nothing, (_, g) => over(g, b))
  return record(divRecord, out, [x, y], x === null ? [y] : [y, x], (context, g) => {
    const divisor = context.saved(0)
    const quotient = over(g, divisor)
    return [
      x !== null && context.needs(0) ? gradientFor(quotient, x.shape, x._dtype) : null,
      // d(a / b)/db = -a / b^2
      context.needs(1)
        ? gradientFor(negate(times(quotient, over(x === null ? a : context.saved(1), divisor))), y.shape, y._dtype)
        : null,
    ]
  })
}
const divRecord: OpRecord = { name: 'div', autocast: 'promote', backward: () => null }

/** Elementwise a / b rounded down; not differentiable.
 *  @throws StateError for integers divided by 0
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.floor_divide.html
 *  @example floorDivide(tensor([-7]), 2) // [-4] */
export function floorDivide(a: Operand, b: Operand): Tensor {
  return binary(floorDivideOp, a, b)
}

/** Elementwise remainder with the divisor's sign, as Python's %: a - b * floor(a / b).
 *  @throws StateError for integers divided by 0
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.remainder.html
 *  @example remainder(tensor([-3, 3]), 2) // [1, 1] */
export function remainder(a: Operand, b: Operand): Tensor {
  const out = binary(remainderOp, a, b)
  const x = tensorOf(a)
  const y = tensorOf(b)
  if (!needsGrad([x, y])) return out
  const saved = y?._requiresGrad ? (x === null ? [y] : [y, x]) : nothing
  return record(remainderRecord, out, [x, y], saved, (context, g) => [
    x !== null && context.needs(0) ? gradientFor(g, x.shape, x._dtype) : null,
    y !== null && context.needs(1)
      ? gradientFor(
          negate(times(g, binary(floorDivideOp, x === null ? a : context.saved(1), context.saved(0)))),
          y.shape,
          y._dtype,
        )
      : null,
  ])
}
const remainderRecord: OpRecord = { name: 'remainder', autocast: 'promote', backward: () => null }

/** Elementwise a ** b.
 *  a, b broadcast to each other and promote; either may be a number.
 *  @throws ArgumentError for an integer tensor and a negative whole exponent
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.pow.html
 *  @example pow(tensor([2, 3]), 2) // [4, 9] */
export function pow(a: Operand, b: Operand): Tensor {
  if (autocasting) {
    if (a instanceof Tensor) a = autocast('pow', a)
    if (b instanceof Tensor) b = autocast('pow', b)
  }
  if (a instanceof Tensor && typeof b === 'number' && b < 0 && Number.isInteger(b) && !isFloatingCode(a._dtype)) {
    throw new ArgumentError('pow', {
      problem: 'an integer to a negative power is a fraction',
      got: `${a.dtype} ** ${b}`,
      action: "convert with .to('float32')",
    })
  }
  const out = binary(powOp, a, b)
  const x = tensorOf(a)
  const y = tensorOf(b)
  if (!needsGrad([x, y])) return out
  if (y === null) {
    const exponent = b as number
    return record(powRecord, out, [x], [x!], (context, g) => {
      if (exponent === 0) return times(g, 0)
      return times(g, times(binary(powOp, context.saved(0), exponent - 1), exponent))
    })
  }
  // The exponent's gradient is out * log(a), and 0 where 0 ** b is flat.
  return record(powRecord, out, [x, y], x === null ? [y, out] : [y, out, x], (context, g) => {
    const exponent = context.saved(0)
    const base = x === null ? (a as number) : context.saved(2)
    let dx: Tensor | null = null
    if (x !== null && context.needs(0)) {
      const slope = times(exponent, binary(powOp, base, binary(subOp, exponent, 1, undefined, 3, 1)))
      const flat = binary(eqOp, exponent, 0, truth)
      const product = times(g, slope)
      dx = gradientFor(masked(product, flat, 0), x.shape, x._dtype)
    }
    let dy: Tensor | null = null
    if (context.needs(1)) {
      const slope =
        typeof base === 'number'
          ? times(context.saved(1), Math.log(base))
          : times(context.saved(1), runLike(logOp, base, null, fractional(base._dtype), 0))
      const flat =
        typeof base === 'number'
          ? base === 0
            ? binary(leOp, 0, exponent, truth)
            : null
          : times(binary(eqOp, base, 0, truth), binary(leOp, 0, exponent, truth))
      const product = times(g, slope)
      dy = gradientFor(flat === null ? product : masked(product, flat, 0), y.shape, y._dtype)
    }
    return [dx, dy]
  })
}
const powRecord: OpRecord = { name: 'pow', autocast: 'float32', backward: () => null }

/** Elementwise larger of a and b; NaN wins. Where they are equal each gets half of the gradient.
 *  @throws ShapeError when the shapes do not broadcast
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.maximum.html
 *  @example maximum(tensor([1, 5]), tensor([3, 2])) // [3, 5] */
export function maximum(a: Operand, b: Operand): Tensor {
  return extreme(maximumOp, a, b)
}

/** Elementwise smaller of a and b; NaN wins. Where they are equal each gets half of the gradient.
 *  @throws ShapeError when the shapes do not broadcast
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.minimum.html
 *  @example minimum(tensor([1, 5]), tensor([3, 2])) // [1, 2] */
export function minimum(a: Operand, b: Operand): Tensor {
  return extreme(minimumOp, a, b)
}

function extreme(op: typeof maximumOp, a: Operand, b: Operand): Tensor {
  const out = binary(op, a, b)
  const x = tensorOf(a)
  const y = tensorOf(b)
  if (!needsGrad([x, y])) return out
  const saved = [x, y].filter((each) => each !== null)
  return record({ name: op.name, autocast: 'promote', backward: () => null }, out, [x, y], saved, (context, g) => {
    const left = x === null ? a : context.saved(0)
    const right = y === null ? b : context.saved(saved.length - 1)
    const [less, more] = op === maximumOp ? [left, right] : [right, left]
    const ties = binary(eqOp, left, right, truth)
    const shared = binary(subOp, g, times(times(g, ties), 0.5), undefined, 3, 1)
    const part = (loses: Tensor, of: Tensor): Tensor => gradientFor(masked(shared, loses, 0), of.shape, of._dtype)
    return [
      x !== null && context.needs(0) ? part(binary(ltOp, less, more, truth), x) : null,
      y !== null && context.needs(1) ? part(binary(ltOp, more, less, truth), y) : null,
    ]
  })
}

/** Elementwise x + value * a * b; all broadcast to each other. Default value 1.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.addcmul.html
 *  @example addcmul(tensor([1]), tensor([2]), tensor([3]), { value: 10 }) // [61] */
export function addcmul(x: Tensor, a: Tensor, b: Tensor, { value = 1 }: { value?: number } = {}): Tensor {
  for (const [name, each] of [
    ['x', x],
    ['a', a],
    ['b', b],
  ] as const)
    expectTensor('addcmul', name, each)
  const shape = broadcastShapes('addcmul', x.shape, broadcastShapes('addcmul', a.shape, b.shape))
  const dtype = promote(promoteTensors(x, a), promoteTensors(x, b))
  const attrs = [expectNumber('addcmul', value, 'value')]
  const out = together([x, a, b], (...operands) => run(addcmulOp, operands, shape, dtype, attrs))
  if (!needsGrad([x, a, b])) return out
  return record(addcmulRecord, out, [x, a, b], [a, b], (context, g) => [
    context.needs(0) ? gradientFor(g, x.shape, x._dtype) : null,
    context.needs(1) ? gradientFor(times(times(g, context.saved(1)), value), a.shape, a._dtype) : null,
    context.needs(2) ? gradientFor(times(times(g, context.saved(0)), value), b.shape, b._dtype) : null,
  ])
}
const addcmulRecord: OpRecord = { name: 'addcmul', autocast: 'promote', backward: () => null }

/** Elementwise x + value * a / b; all broadcast to each other. Default value 1.
 *  @throws DTypeError for integers a and b: convert first
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.addcdiv.html
 *  @example addcdiv(tensor([1]), tensor([6]), tensor([3]), { value: 10 }) // [21] */
export function addcdiv(x: Tensor, a: Tensor, b: Tensor, { value = 1 }: { value?: number } = {}): Tensor {
  for (const [name, each] of [
    ['x', x],
    ['a', a],
    ['b', b],
  ] as const)
    expectTensor('addcdiv', name, each)
  if (!isFloatingCode(b._dtype)) expectFloating('addcdiv', 'a', a)
  expectNumber('addcdiv', value, 'value')
  return tidy(() => {
    const quotient = div(a, b)
    return add(x, value === 1 ? quotient : mul(quotient, value))
  })
}

declare module '../tensor/tensor' {
  interface Tensor {
    add(other: Operand, options?: { alpha?: number }): Tensor
    sub(other: Operand, options?: { alpha?: number }): Tensor
    mul(other: Operand): Tensor
    div(other: Operand, options?: DivOptions): Tensor
    floorDivide(other: Operand): Tensor
    remainder(other: Operand): Tensor
    pow(exponent: Operand): Tensor
    maximum(other: Operand): Tensor
    minimum(other: Operand): Tensor
    addcmul(a: Tensor, b: Tensor, options?: { value?: number }): Tensor
    addcdiv(a: Tensor, b: Tensor, options?: { value?: number }): Tensor
  }
}

defineMethods({ add, sub, mul, div, floorDivide, remainder, pow, maximum, minimum, addcmul, addcdiv })
