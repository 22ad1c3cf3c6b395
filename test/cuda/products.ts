// Products in float64, each number with how far the same product in another dtype may be from it: what rounding, sums in
// any order and operands that are off themselves come to.
import { expect } from 'vitest'
import { type DType, ops, type Tensor, zerosLike } from '../../lib/index'
import { cuda, spread } from './support'

/** float64 numbers on cpu, and how far each may be off. */
export interface Bounded {
  value: Tensor
  error: Tensor
}

type Float = 'float32' | 'float64' | 'float16' | 'bfloat16'

/** Of a number that is rounded to nearest, relative to it. */
const rounding: Record<Float, number> = { float32: 2 ** -24, float64: 2 ** -53, float16: 2 ** -11, bfloat16: 2 ** -8 }
/** Half of the least number above 0, where that is not out of reach. */
const least: Partial<Record<DType, number>> = { float16: 2 ** -25 }
/** Sums of 16-bit operands are float32, too. Tensor cores cut off what processors round: twice as much. */
const summing = (dtype: DType): number => 2 * rounding[dtype === 'float64' ? 'float64' : 'float32']
/** Roundings in sums of n terms fall on either side, so they grow like a root. TF32 would be beyond it by far. */
const sumError = (dtype: DType, n: number): number => (Math.sqrt(n) + 8) * summing(dtype)
/** Of tanh and erf: 16-bit results may come from the card's tanh.approx. */
const approximating: Record<Float, number> = {
  float32: 2 ** -21,
  float64: 2 ** -44,
  float16: 2 ** -11,
  bfloat16: 2 ** -11,
}

/** Numbers in [-1, 1) that are exact in every dtype of at least these bits. */
export const numbers = (shape: readonly number[], dtype: DType, seed: number): Tensor =>
  spread(shape, dtype, seed).mul(0.25)

/** The numbers of a tensor as they are. */
export function exact(x: Tensor): Bounded {
  const value = x.to('cpu').to('float64')
  return { value, error: zerosLike(value) }
}

/** a @ b, summed as operands of this dtype are. */
export function product(a: Bounded, b: Bounded, dtype: DType): Bounded {
  const [p, q] = [a.value.abs(), b.value.abs()]
  const magnitude = p.add(a.error).matmul(q.add(b.error))
  const inherited = magnitude.sub(p.matmul(q))
  const own = magnitude.mul(sumError(dtype, a.value.shape.at(-1)!))
  return { value: a.value.matmul(b.value), error: inherited.add(own) }
}

/** Sums over rows. */
export function columnSums({ value, error }: Bounded, dtype: DType): Bounded {
  const own = value.abs().sum(0).mul(sumError(dtype, value.shape[0]!))
  return { value: value.sum(0), error: error.sum(0).add(own) }
}

export const transposed = ({ value, error }: Bounded): Bounded => ({
  value: value.transpose(-2, -1),
  error: error.transpose(-2, -1),
})

export const scaled = ({ value, error }: Bounded, by: number): Bounded => ({
  value: value.mul(by),
  error: error.mul(Math.abs(by)),
})

/** x + y before it is rounded to a result. */
export function plus(x: Bounded, y: Bounded, dtype: DType): Bounded {
  const own = x.value.abs().add(y.value.abs()).mul(summing(dtype))
  return { value: x.value.add(y.value), error: x.error.add(y.error).add(own) }
}

/** What a tensor of this dtype keeps of x. */
export function rounded({ value, error }: Bounded, dtype: DType): Bounded {
  const own = value
    .abs()
    .add(error)
    .mul(rounding[dtype as Float])
    .add(least[dtype] ?? 0)
  return { value, error: error.add(own) }
}

const [steepest, mostBent] = [1.13, 0.8] // of gelu: its derivatives, first and second

export function gelu({ value, error }: Bounded, dtype: DType, approximate: 'tanh' | 'none'): Bounded {
  const own = value.abs().mul(approximating[dtype as Float])
  return { value: ops.gelu(value, { approximate }), error: error.mul(steepest).add(own) }
}

/** g * gelu'(x) of an x that is exact. */
export function geluGradient(g: Bounded, x: Tensor, dtype: DType, approximate: 'tanh' | 'none'): Bounded {
  const at = x.to('cpu').to('float64').requiresGrad_()
  ops.gelu(at, { approximate }).sum().backward()
  const [slope, off] = [
    at.grad!,
    at
      .detach()
      .abs()
      .pow(3)
      .add(1)
      .mul(approximating[dtype as Float]),
  ]
  const error = g.error.mul(steepest).add(
    g.value
      .abs()
      .add(g.error)
      .mul(off.mul(1 + mostBent)),
  )
  return { value: g.value.mul(slope), error }
}

/** Expects numbers on cuda within their bounds. */
export async function expectWithin(got: Tensor, { value, error }: Bounded, what: string): Promise<void> {
  expect([got.device, got.shape], what).toEqual([cuda, value.shape])
  const [numbers, wanted, bounds] = await Promise.all([got, value, error].map((each) => each.contiguous().data()))
  for (let i = 0; i < wanted!.length; i++) {
    const [x, y, bound] = [Number(numbers![i]), Number(wanted![i]), Number(bounds![i])]
    if (!(Math.abs(x - y) <= bound)) expect.fail(`${what}: element ${i} is ${x}, expected ${y} within ${bound}`)
  }
}
