// Elementary functions and rounding, element by element.

import { autocasting } from '../autograd/autocast'
import { BOOL, isFloatingCode } from '../dtype'
import { ArgumentError, DTypeError, describeValue } from '../errors'
import { readOptions } from '../options'
import type { Tensor } from '../tensor/tensor'
import { autocast } from './autocast'
import { binary, fractional, nothing, promoted, type ResultDType, truth } from './operands'
import {
  type Backward,
  defineMethods,
  expectTensor,
  native,
  needsGrad,
  type OpRecord,
  record,
  runLike,
} from './registry'

const mulOp = native('mul', 'scalar,reversed')
const divOp = native('div', 'scalar,reversed')
const addOp = native('add', 'scalar,reversed,alpha')
const squareOp = native('square')
const tanhBackward = native('tanhBackward')
const sigmoidBackward = native('sigmoidBackward')
const signBackwardAbs = native('signBackwardAbs')

const times = (a: Tensor, b: Tensor | number): Tensor => binary(mulOp, a, b)
const over = (a: Tensor, b: Tensor): Tensor => binary(divOp, a, b, fractional)
const plus = (a: Tensor, b: number): Tensor => binary(addOp, a, b, promoted, 3, 1)

// Which tensor the gradient is written in: reading the output keeps the operand free to go.
type Reads = 'operand' | 'output' | 'nothing'

interface UnaryRule {
  name: string
  result: ResultDType
  autocast?: OpRecord['autocast']
  reads: Reads
  /** Gradient of the operand from the incoming one and what it reads. */
  gradient: ((g: Tensor, read: Tensor) => Tensor) | null
}

function unary(rule: UnaryRule): (x: Tensor) => Tensor {
  const op = native(rule.name)
  const { gradient, reads } = rule
  const backward: Backward = (context, g) => {
    if (gradient === null) return times(g, 0)
    return gradient(g, reads === 'nothing' ? g : context.saved(0))
  }
  const entry: OpRecord = { name: rule.name, autocast: rule.autocast ?? 'promote', backward }
  const { name } = rule
  return (x) => {
    expectTensor(name, 'the operand', x)
    if (autocasting) x = autocast(name, x)
    const out = runLike(op, x, null, rule.result(x._dtype), 0)
    if (!needsGrad([x])) return out
    return record(entry, out, [x], reads === 'operand' ? [x] : reads === 'output' ? [out] : nothing)
  }
}

const negOp = native('neg')
const negate = (g: Tensor): Tensor => runLike(negOp, g, null, g._dtype, 0)
const sinOp = native('sin')
const cosOp = native('cos')
const expOp = native('exp')
const like = (op: typeof sinOp, x: Tensor): Tensor => runLike(op, x, null, fractional(x._dtype), 0)

const negation = unary({ name: 'neg', result: promoted, reads: 'nothing', gradient: negate })

/** Elementwise -x.
 *  @throws DTypeError for bool: use logicalNot
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.neg.html
 *  @example neg(tensor([1, -2])) // [-1, 2] */
export function neg(x: Tensor): Tensor {
  expectTensor('neg', 'the operand', x)
  if (x._dtype === BOOL) {
    throw new DTypeError('neg', { problem: 'not defined for truth values', got: 'bool', action: 'use logicalNot' })
  }
  return negation(x)
}

/** Elementwise |x|; its gradient is 0 at 0.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.abs.html
 *  @example abs(tensor([-2, 3])) // [2, 3] */
export const abs = unary({
  name: 'abs',
  result: promoted,
  reads: 'operand',
  gradient: (g, x) => runLike(signBackwardAbs, g, x, g._dtype, 0),
})

/** Elementwise sign: -1, 0 or 1; 0 for NaN. Its gradient is 0.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.sign.html
 *  @example sign(tensor([-2, 0])) // [-1, 0] */
export const sign = unary({ name: 'sign', result: promoted, reads: 'nothing', gradient: null })

/** Elementwise e^x.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.exp.html
 *  @example exp(tensor([0])) // [1] */
export const exp = unary({ name: 'exp', result: fractional, autocast: 'float32', reads: 'output', gradient: times })

/** Elementwise e^x - 1, exact near 0.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.expm1.html
 *  @example expm1(tensor([0])) // [0] */
export const expm1 = unary({
  name: 'expm1',
  result: fractional,
  autocast: 'float32',
  reads: 'output',
  gradient: (g, y) => times(g, plus(y, 1)),
})

/** Elementwise natural logarithm.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.log.html
 *  @example log(tensor([1])) // [0] */
export const log = unary({ name: 'log', result: fractional, autocast: 'float32', reads: 'operand', gradient: over })

/** Elementwise log(1 + x), exact near 0.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.log1p.html
 *  @example log1p(tensor([0])) // [0] */
export const log1p = unary({
  name: 'log1p',
  result: fractional,
  autocast: 'float32',
  reads: 'operand',
  gradient: (g, x) => over(g, plus(x, 1)),
})

/** Elementwise logarithm to the base 2.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.log2.html
 *  @example log2(tensor([8])) // [3] */
export const log2 = unary({
  name: 'log2',
  result: fractional,
  autocast: 'float32',
  reads: 'operand',
  gradient: (g, x) => over(g, times(x, Math.LN2)),
})

/** Elementwise square root.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.sqrt.html
 *  @example sqrt(tensor([9])) // [3] */
export const sqrt = unary({
  name: 'sqrt',
  result: fractional,
  reads: 'output',
  gradient: (g, y) => over(g, times(y, 2)),
})

/** Elementwise 1 / sqrt(x).
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.rsqrt.html
 *  @example rsqrt(tensor([4])) // [0.5] */
export const rsqrt = unary({
  name: 'rsqrt',
  result: fractional,
  autocast: 'float32',
  reads: 'output',
  gradient: (g, y) => times(times(g, times(runLike(squareOp, y, null, y._dtype, 0), y)), -0.5),
})

/** Elementwise sine of radians.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.sin.html
 *  @example sin(tensor([0])) // [0] */
export const sin = unary({
  name: 'sin',
  result: fractional,
  reads: 'operand',
  gradient: (g, x) => times(g, like(cosOp, x)),
})

/** Elementwise cosine of radians.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.cos.html
 *  @example cos(tensor([0])) // [1] */
export const cos = unary({
  name: 'cos',
  result: fractional,
  reads: 'operand',
  gradient: (g, x) => negate(times(g, like(sinOp, x))),
})

/** Elementwise hyperbolic tangent.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.tanh.html
 *  @example tanh(tensor([0])) // [0] */
export const tanh = unary({
  name: 'tanh',
  result: fractional,
  reads: 'output',
  gradient: (g, y) => runLike(tanhBackward, g, y, g._dtype, 0),
})

/** Elementwise 1 / (1 + e^-x).
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.sigmoid.html
 *  @example sigmoid(tensor([0])) // [0.5] */
export const sigmoid = unary({
  name: 'sigmoid',
  result: fractional,
  reads: 'output',
  gradient: (g, y) => runLike(sigmoidBackward, g, y, g._dtype, 0),
})

/** Elementwise error function.
 *  @see https://docs.pytorch.org/docs/stable/special.html#torch.special.erf
 *  @example erf(tensor([0])) // [0] */
export const erf = unary({
  name: 'erf',
  result: fractional,
  reads: 'operand',
  gradient: (g, x) => {
    const density = like(expOp, negate(runLike(squareOp, x, null, x._dtype, 0)))
    return times(times(g, density), 2 / Math.sqrt(Math.PI))
  },
})

/** Elementwise x * x.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.square.html
 *  @example square(tensor([-3])) // [9] */
export const square = unary({
  name: 'square',
  result: promoted,
  reads: 'operand',
  gradient: (g, x) => times(times(g, x), 2),
})

/** Elementwise 1 / x.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.reciprocal.html
 *  @example reciprocal(tensor([4])) // [0.25] */
export const reciprocal = unary({
  name: 'reciprocal',
  result: fractional,
  autocast: 'float32',
  reads: 'output',
  gradient: (g, y) => negate(times(g, runLike(squareOp, y, null, y._dtype, 0))),
})

const roundOp = unary({ name: 'round', result: promoted, reads: 'nothing', gradient: null })

/** Elementwise nearest whole number, halves to even (unlike Math.round); with `decimals` to that many digits.
 *  Its gradient is 0.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.round.html
 *  @example round(tensor([0.5, 1.5, 2.5])) // [0, 2, 2] */
export function round(x: Tensor, options: { decimals?: number } = {}): Tensor {
  const { decimals = 0 } = readOptions('round', options, ['decimals'])
  if (decimals === 0) return roundOp(x)
  if (!Number.isInteger(decimals)) {
    throw new ArgumentError('round', { problem: 'decimals is not a whole number', got: describeValue(decimals) })
  }
  expectTensor('round', 'the operand', x)
  if (!isFloatingCode(x._dtype)) {
    throw new DTypeError('round', { problem: 'integers have no decimals', got: x.dtype, expected: 'a floating dtype' })
  }
  const scale = 10 ** Math.abs(decimals)
  const [raise, lower] = decimals > 0 ? [times, binaryDivide] : [binaryDivide, times]
  return lower(roundOp(raise(x, scale)), scale)
}
const binaryDivide = (x: Tensor, by: Tensor | number): Tensor => binary(divOp, x, by, fractional)

/** Elementwise largest whole number that is not above x. Its gradient is 0.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.floor.html
 *  @example floor(tensor([-1.5])) // [-2] */
export const floor = unary({ name: 'floor', result: promoted, reads: 'nothing', gradient: null })

/** Elementwise smallest whole number that is not below x. Its gradient is 0.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.ceil.html
 *  @example ceil(tensor([1.2])) // [2] */
export const ceil = unary({ name: 'ceil', result: promoted, reads: 'nothing', gradient: null })

/** Elementwise whole part, towards 0. Its gradient is 0.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.trunc.html
 *  @example trunc(tensor([-1.5])) // [-1] */
export const trunc = unary({ name: 'trunc', result: promoted, reads: 'nothing', gradient: null })

/** Elementwise: whether x is NaN.
 *  @example isnan(tensor([0, NaN])) // [false, true] */
export const isnan = unary({ name: 'isnan', result: truth, reads: 'nothing', gradient: null })

/** Elementwise: whether x is infinite.
 *  @example isinf(tensor([0, -Infinity])) // [false, true] */
export const isinf = unary({ name: 'isinf', result: truth, reads: 'nothing', gradient: null })

/** Elementwise: whether x is neither infinite nor NaN.
 *  @example isfinite(tensor([0, NaN])) // [true, false] */
export const isfinite = unary({ name: 'isfinite', result: truth, reads: 'nothing', gradient: null })

declare module '../tensor/tensor' {
  interface Tensor {
    neg(): Tensor
    abs(): Tensor
    sign(): Tensor
    exp(): Tensor
    expm1(): Tensor
    log(): Tensor
    log1p(): Tensor
    log2(): Tensor
    sqrt(): Tensor
    rsqrt(): Tensor
    sin(): Tensor
    cos(): Tensor
    tanh(): Tensor
    sigmoid(): Tensor
    erf(): Tensor
    square(): Tensor
    reciprocal(): Tensor
    round(options?: { decimals?: number }): Tensor
    floor(): Tensor
    ceil(): Tensor
    trunc(): Tensor
    isnan(): Tensor
    isinf(): Tensor
    isfinite(): Tensor
  }
}

defineMethods({
  neg,
  abs,
  sign,
  exp,
  expm1,
  log,
  log1p,
  log2,
  sqrt,
  rsqrt,
  sin,
  cos,
  tanh,
  sigmoid,
  erf,
  square,
  reciprocal,
  round,
  floor,
  ceil,
  trunc,
  isnan,
  isinf,
  isfinite,
})
