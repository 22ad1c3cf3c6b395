// Reductions over one dim, several, or all.

import { autocasting } from '../autograd/autocast'
import { BOOL, INT64, isFloatingCode } from '../dtype'
import { describeShape, ShapeError } from '../errors'
import { readOptions } from '../options'
import type { Shape, Tensor } from '../tensor/tensor'
import { dimMask, reducedShape } from './arguments'
import { autocast } from './autocast'
import { sameShape } from './broadcast'
import { binary, expectNumber, fractional, nothing, promoted, truth } from './operands'
import {
  type Backward,
  defineMethods,
  expectFloating,
  expectTensor,
  type NativeOp,
  native,
  needsGrad,
  type OpRecord,
  record,
  run,
  runLike,
} from './registry'
import { expand, view } from './shape'

/** Dims to reduce; all when not given. Negative ones count from the end. */
export type Dims = number | readonly number[] | null

/** Options of reductions. */
export interface ReduceOptions {
  /** Keep reduced dims with size 1; default false. */
  keepdim?: boolean
}

/** @internal Names of `ReduceOptions`. */
export const reduceOptions = ['keepdim'] as const
const varianceOptions = ['keepdim', 'correction'] as const

const subOp = native('sub', 'scalar,reversed,alpha')
const mulOp = native('mul', 'scalar,reversed')
const divOp = native('div', 'scalar,reversed')
const powOp = native('pow', 'scalar,reversed')
const eqOp = native('eq', 'scalar,reversed')
const neOp = native('ne', 'scalar,reversed')
const expOp = native('exp')
const absOp = native('abs')
const signBackwardAbs = native('signBackwardAbs')
const maskedFillOp = native('maskedFill', 'value')
const copyOp = native('copy')

const times = (a: Tensor, b: Tensor | number): Tensor => binary(mulOp, a, b)
const over = (a: Tensor, b: Tensor | number): Tensor => binary(divOp, a, b, fractional)
const minus = (a: Tensor, b: Tensor): Tensor => binary(subOp, a, b, promoted, 3, 1)
const masked = (x: Tensor, mask: Tensor, value: number): Tensor =>
  run(maskedFillOp, [x, mask], x.shape, x._dtype, [value])

/** The dims of one call: what goes, what stays, and the way back. */
class Plan {
  readonly mask: number
  readonly kept: Shape
  readonly shape: Shape
  readonly count: number

  constructor(
    readonly op: string,
    readonly source: Shape,
    dim: Dims | undefined,
    keepdim: boolean | undefined,
  ) {
    this.mask = dimMask(op, dim, source.length)
    this.kept = reducedShape(source, this.mask, true)
    this.shape = keepdim === true ? this.kept : reducedShape(source, this.mask, false)
    this.count = source.reduce((n, size, d) => (this.mask & (2 ** d) ? n * size : n), 1)
  }

  /** The reduced dims back with size 1, so that it broadcasts against the operand. */
  raise(x: Tensor): Tensor {
    return sameShape(x.shape, this.kept) ? x : view(x, this.kept)
  }

  /** Repeated over the reduced dims, without a copy. */
  spread(x: Tensor): Tensor {
    return expand(this.raise(x), this.source)
  }
}

function reduce(
  op: NativeOp,
  x: Tensor,
  plan: Plan,
  dtype: number,
  saved: (out: Tensor) => Tensor[],
  backward: Backward,
  attrs: readonly number[] = [],
  autocast: OpRecord['autocast'] = 'float32',
): Tensor {
  const out = run(op, [x], plan.shape, dtype, [plan.mask, ...attrs])
  return needsGrad([x]) ? record({ name: plan.op, autocast, backward }, out, [x], saved(out)) : out
}

const none = (): Tensor[] => nothing
const sumOp = native('sum', 'dims')
const meanOp = native('mean', 'dims')
const prodOp = native('prod', 'dims')
const amaxOp = native('amax', 'dims')
const aminOp = native('amin', 'dims')
const anyOp = native('any', 'dims')
const allOp = native('all', 'dims')
const varianceOp = native('variance', 'dims,correction')
const vectorNormOp = native('vectorNorm', 'dims,p')
const logsumexpOp = native('logsumexp', 'dims')

/** Sum over dims; the sum of integers and truth values is int64, of nothing 0.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.sum.html
 *  @example sum(tensor([[1, 2], [3, 4]]), 0) // [4, 6] */
export function sum(x: Tensor, dim?: Dims, options: ReduceOptions = {}): Tensor {
  const { keepdim } = readOptions('sum', options, reduceOptions)
  expectTensor('sum', 'the operand', x)
  if (autocasting) x = autocast('sum', x)
  const plan = new Plan('sum', x.shape, dim, keepdim)
  const dtype = isFloatingCode(x._dtype) ? x._dtype : INT64
  return reduce(sumOp, x, plan, dtype, none, (_, g) => plan.spread(g))
}

/** Mean over dims; of nothing NaN.
 *  @throws DTypeError for integers: convert first
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.mean.html
 *  @example mean(tensor([[1, 2], [3, 4]]), -1) // [1.5, 3.5] */
export function mean(x: Tensor, dim?: Dims, options: ReduceOptions = {}): Tensor {
  const { keepdim } = readOptions('mean', options, reduceOptions)
  expectTensor('mean', 'the operand', x)
  expectFloating('mean', 'the operand', x)
  const plan = new Plan('mean', x.shape, dim, keepdim)
  return reduce(meanOp, x, plan, x._dtype, none, (_, g) => plan.spread(over(g, plan.count)), [], 'promote')
}

/** Product over dims; of nothing 1.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.prod.html
 *  @example prod(tensor([2, 3])) // 6 */
export function prod(x: Tensor, dim?: Dims, options: ReduceOptions = {}): Tensor {
  const { keepdim } = readOptions('prod', options, reduceOptions)
  expectTensor('prod', 'the operand', x)
  if (autocasting) x = autocast('prod', x)
  const plan = new Plan('prod', x.shape, dim, keepdim)
  const dtype = isFloatingCode(x._dtype) ? x._dtype : INT64
  return reduce(
    prodOp,
    x,
    plan,
    dtype,
    () => [x],
    (context, g) => {
      // The product of the others: with one 0 only that element has a gradient, with two none has.
      const of = context.saved(0)
      const zero = binary(eqOp, of, 0, truth)
      const zeros = run(sumOp, [zero], plan.kept, INT64, [plan.mask])
      const nonzero = masked(of, zero, 1)
      const product = run(prodOp, [nonzero], plan.kept, of._dtype, [plan.mask])
      const others = binary(neOp, minus(zeros, run(copyOp, [zero], zero.shape, INT64)), 0, truth)
      return masked(times(plan.raise(g), over(product, nonzero)), others, 0)
    },
  )
}

const extremeGradient =
  (plan: Plan): Backward =>
  (context, g) => {
    // Ties share the gradient.
    const of = context.saved(0)
    const hit = binary(eqOp, of, plan.raise(context.saved(1)), truth)
    const count = run(sumOp, [hit], plan.kept, INT64, [plan.mask])
    return times(hit, over(plan.raise(g), count))
  }

function extreme(op: NativeOp, name: string, x: Tensor, dim?: Dims, keepdim?: boolean): Tensor {
  expectTensor(name, 'the operand', x)
  const plan = new Plan(name, x.shape, dim, keepdim)
  if (plan.count === 0 && plan.shape.every((size) => size > 0)) {
    throw new ShapeError(name, {
      problem: 'there is no extreme of nothing',
      got: describeShape(x.shape),
      expected: 'at least one element along the reduced dims',
    })
  }
  return reduce(op, x, plan, x._dtype, (out) => [x, out], extremeGradient(plan), [], 'keep')
}

/** Largest element over dims; NaN wins. Ties share the gradient.
 *  @throws ShapeError when a reduced dim is empty
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.amax.html
 *  @example amax(tensor([[1, 5], [3, 2]]), 1) // [5, 3] */
export function amax(x: Tensor, dim?: Dims, options: ReduceOptions = {}): Tensor {
  const { keepdim } = readOptions('amax', options, reduceOptions)
  return extreme(amaxOp, 'amax', x, dim, keepdim)
}

/** Smallest element over dims; NaN wins. Ties share the gradient.
 *  @throws ShapeError when a reduced dim is empty
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.amin.html
 *  @example amin(tensor([[1, 5], [3, 2]]), 1) // [1, 2] */
export function amin(x: Tensor, dim?: Dims, options: ReduceOptions = {}): Tensor {
  const { keepdim } = readOptions('amin', options, reduceOptions)
  return extreme(aminOp, 'amin', x, dim, keepdim)
}

/** Whether any element over dims is not 0, as bool.
 *  @example any(tensor([0, 2])) // true */
export function any(x: Tensor, dim?: Dims, options: ReduceOptions = {}): Tensor {
  const { keepdim } = readOptions('any', options, reduceOptions)
  expectTensor('any', 'the operand', x)
  const plan = new Plan('any', x.shape, dim, keepdim)
  return run(anyOp, [x], plan.shape, BOOL, [plan.mask])
}

/** Whether every element over dims is not 0, as bool.
 *  @example all(tensor([0, 2])) // false */
export function all(x: Tensor, dim?: Dims, options: ReduceOptions = {}): Tensor {
  const { keepdim } = readOptions('all', options, reduceOptions)
  expectTensor('all', 'the operand', x)
  const plan = new Plan('all', x.shape, dim, keepdim)
  return run(allOp, [x], plan.shape, BOOL, [plan.mask])
}

/** Options of `variance` and `std`. */
export interface VarianceOptions extends ReduceOptions {
  /** The divisor is n - correction; default 1 (Bessel), 0 for that of a population. */
  correction?: number
}

// d var / dx = 2 (x - mean) / (n - correction)
function varianceSlope(plan: Plan, x: Tensor, correction: number): Tensor {
  const mean = run(meanOp, [x], plan.kept, x._dtype, [plan.mask])
  return times(minus(x, mean), 2 / Math.max(0, plan.count - correction))
}

/** Variance over dims, in two passes.
 *  @throws DTypeError for integers
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.var.html
 *  @example variance(tensor([1, 2, 3])) // 1 */
export function variance(x: Tensor, dim?: Dims, options: VarianceOptions = {}): Tensor {
  const { keepdim, correction = 1 } = readOptions('var', options, varianceOptions)
  const plan = variancePlan('var', x, dim, keepdim, correction)
  return reduce(
    varianceOp,
    x,
    plan,
    x._dtype,
    () => [x],
    (context, g) => times(varianceSlope(plan, context.saved(0), correction), plan.raise(g)),
    [correction],
    'promote',
  )
}

function variancePlan(op: string, x: Tensor, dim: Dims | undefined, keepdim: boolean | undefined, correction: number) {
  expectTensor(op, 'the operand', x)
  expectFloating(op, 'the operand', x)
  expectNumber(op, correction, 'correction')
  return new Plan(op, x.shape, dim, keepdim)
}

/** Standard deviation over dims; its gradient is 0 where it is 0.
 *  @throws DTypeError for integers
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.std.html
 *  @example std(tensor([1, 2, 3])) // 1 */
export function std(x: Tensor, dim?: Dims, options: VarianceOptions = {}): Tensor {
  const { keepdim, correction = 1 } = readOptions('std', options, varianceOptions)
  const plan = variancePlan('std', x, dim, keepdim, correction)
  const squared = run(varianceOp, [x], plan.shape, x._dtype, [plan.mask, correction])
  const out = runLike(sqrtOp, squared, null, x._dtype, 0)
  if (!needsGrad([x])) return out
  return record(stdRecord, out, [x], [x, out], (context, g) => {
    const deviation = context.saved(1)
    const scale = masked(over(g, times(deviation, 2)), binary(eqOp, deviation, 0, truth), 0)
    return times(varianceSlope(plan, context.saved(0), correction), plan.raise(scale))
  })
}
const sqrtOp = native('sqrt')
const stdRecord: OpRecord = { name: 'std', autocast: 'promote', backward: () => null }

/** log(sum(e^x)) over dims, without overflow.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.logsumexp.html
 *  @example logsumexp(tensor([0, 0])) // 0.6931 */
export function logsumexp(x: Tensor, dim: Dims, options: ReduceOptions = {}): Tensor {
  const { keepdim } = readOptions('logsumexp', options, reduceOptions)
  expectTensor('logsumexp', 'the operand', x)
  expectFloating('logsumexp', 'the operand', x)
  if (autocasting) x = autocast('logsumexp', x)
  const plan = new Plan('logsumexp', x.shape, dim, keepdim)
  return reduce(
    logsumexpOp,
    x,
    plan,
    x._dtype,
    (out) => [x, out],
    (context, g) => {
      const shifted = minus(context.saved(0), plan.raise(context.saved(1)))
      return times(runLike(expOp, shifted, null, shifted._dtype, 0), plan.raise(g))
    },
  )
}

/** Norm of the elements over dims: (sum |x|^p)^(1/p), the largest |x| for p = Infinity, how many are not 0 for p = 0.
 *  Default p 2. Its gradient is 0 where the norm is 0.
 *  @throws DTypeError for integers
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.linalg.vector_norm.html
 *  @example norm(tensor([3, 4])) // 5 */
export function norm(x: Tensor, p = 2, dim?: Dims, options: ReduceOptions = {}): Tensor {
  const { keepdim } = readOptions('norm', options, reduceOptions)
  expectTensor('norm', 'the operand', x)
  expectFloating('norm', 'the operand', x)
  if (autocasting) x = autocast('norm', x)
  expectNumber('norm', p, 'p')
  const plan = new Plan('norm', x.shape, dim, keepdim)
  const signed = (g: Tensor, of: Tensor): Tensor => runLike(signBackwardAbs, g, of, g._dtype, 0)
  const backward: Backward = (context, g) => {
    const of = context.saved(0)
    const out = plan.raise(context.saved(1))
    const incoming = plan.raise(g)
    if (p === 0) return times(of, 0)
    if (p === 1) return signed(run(copyOp, [plan.spread(g)], of.shape, g._dtype), of)
    const size = runLike(absOp, of, null, of._dtype, 0)
    if (!Number.isFinite(p)) {
      const hit = binary(eqOp, size, out, truth)
      const count = run(sumOp, [hit], plan.kept, INT64, [plan.mask])
      return signed(times(hit, over(incoming, count)), of)
    }
    const flat = binary(eqOp, out, 0, truth)
    if (p === 2) return times(of, masked(over(incoming, out), flat, 0))
    // sign(x) |x|^(p-1) / norm^(p-1); for p < 1 the slope at 0 is infinite and, as in PyTorch, 0 is used
    const slope = masked(binary(powOp, size, p - 1), binary(eqOp, of, 0, truth), 0)
    return signed(times(slope, masked(over(incoming, binary(powOp, out, p - 1)), flat, 0)), of)
  }
  return reduce(vectorNormOp, x, plan, x._dtype, (out) => [x, out], backward, [p])
}

export { variance as var }

declare module '../tensor/tensor' {
  interface Tensor {
    sum(dim?: Dims, options?: ReduceOptions): Tensor
    mean(dim?: Dims, options?: ReduceOptions): Tensor
    prod(dim?: Dims, options?: ReduceOptions): Tensor
    amax(dim?: Dims, options?: ReduceOptions): Tensor
    amin(dim?: Dims, options?: ReduceOptions): Tensor
    any(dim?: Dims, options?: ReduceOptions): Tensor
    all(dim?: Dims, options?: ReduceOptions): Tensor
    var(dim?: Dims, options?: VarianceOptions): Tensor
    std(dim?: Dims, options?: VarianceOptions): Tensor
    logsumexp(dim: Dims, options?: ReduceOptions): Tensor
    norm(p?: number, dim?: Dims, options?: ReduceOptions): Tensor
  }
}

defineMethods({ sum, mean, prod, amax, amin, any, all, var: variance, std, logsumexp, norm })
