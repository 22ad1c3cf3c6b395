// What tests of mixed precision compare by.

import { type Tensor, tensor } from '../../lib/index'

/** Gradients of both, and the result, of sum(f(a, b) * g). */
export async function gradients(f: (a: Tensor, b: Tensor) => Tensor, a: Tensor, b: Tensor): Promise<Float32Array[]> {
  const leaves = [a, b].map((x) => x.detach().clone().requiresGrad_())
  const out = f(leaves[0]!, leaves[1]!).keep()
  out.to('float64').mul(weightsLike(out)).sum().backward()
  return Promise.all([out, leaves[0]!.grad!, leaves[1]!.grad!].map(async (x) => (await x.data()) as Float32Array))
}

const weightsLike = (x: Tensor): Tensor =>
  tensor(
    Array.from({ length: x.numel }, (_, i) => Math.sin(i + 1)),
    { dtype: 'float64' },
  ).view(x.shape)

/** |got - reference| / |reference|, Euclidean. */
export function errorOf(got: ArrayLike<number>, reference: ArrayLike<number>): number {
  let errors = 0
  let squares = 0
  for (let i = 0; i < reference.length; i++) {
    errors += (got[i]! - reference[i]!) ** 2
    squares += reference[i]! ** 2
  }
  return Math.sqrt(errors / squares)
}

// Operands and results are rounded to 8 or 11 bits, half a unit of the last one each time, and sums may cancel.
export const bounds = { bfloat16: 2 ** -6, float16: 2 ** -9 } as const
