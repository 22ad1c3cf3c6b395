// Additive masks whose values dwarf the scores: where -1e4, -1e9 or the lowest value of a dtype covers a whole row, the
// row's normalizer must keep what the sum of its probabilities was.

import { describe, expect, it } from 'vitest'
import { type DType, ops, type Tensor, tensor } from '../../lib/index'
import { expectClose } from '../support/golden'

const [L, S, D] = [5, 70, 4]

// Multiples of 1/8: their products, halved, are whole in any of the sums below, in whatever order they are made.
const eighths = (count: number, seed: number): number[] =>
  Array.from({ length: count }, (_, i) => (((i * 37 + seed * 11) % 17) - 8) / 8)

/** Attention of one head in float64 of scores rounded as float32 has them, with the gradients of sum(out * g). */
function reference(q: number[], k: number[], v: number[], g: number[], mask: number[]) {
  const at = (x: number[], row: number): number[] => x.slice(row * D, (row + 1) * D)
  const dot = (a: number[], b: number[]): number => a.reduce((sum, x, i) => sum + x * b[i]!, 0)
  const [out, weights, entropy] = [[] as number[], [] as number[], [] as number[]]
  const [dq, dk, dv] = [L, S, S].map((rows) => new Array<number>(rows * D).fill(0)) as [number[], number[], number[]]
  for (let i = 0; i < L; i++) {
    const scores = Array.from({ length: S }, (_, j) => Math.fround(dot(at(q, i), at(k, j)) / 2 + mask[i]!))
    const top = Math.max(...scores)
    const sum = scores.reduce((total, x) => total + Math.exp(x - top), 0)
    const p = scores.map((x) => Math.exp(x - top) / sum)
    const row = [0, 1, 2, 3].map((d) => p.reduce((total, w, j) => total + w * v[j * D + d]!, 0))
    const delta = dot(row, at(g, i))
    weights.push(...p)
    out.push(...row)
    entropy.push(-p.reduce((total, w) => total + (w > 0 ? w * Math.log(w) : 0), 0))
    for (let j = 0; j < S; j++) {
      const ds = (p[j]! * (dot(at(g, i), at(v, j)) - delta)) / 2
      for (let d = 0; d < D; d++) {
        dq[i * D + d]! += ds * k[j * D + d]!
        dk[j * D + d]! += ds * q[i * D + d]!
        dv[j * D + d]! += p[j]! * g[i * D + d]!
      }
    }
  }
  return { out, weights, entropy, dq, dk, dv }
}

const cases: [DType, number][] = [
  ['float32', -300],
  ['float32', -1e4],
  ['float32', -65504],
  ['float32', -1e9],
  ['float32', -1e20],
  ['float32', -3.4028234663852886e38],
  ['float32', 1e4],
  ['float64', -1e4],
  ['float16', -65504],
  ['bfloat16', -1e4],
  ['bfloat16', -1e9],
]

describe('attention under an additive mask of large values', () => {
  it.each(cases)('normalizes rows of %s that %f covers', async (dtype, value) => {
    const [q, k, v, g] = [eighths(L * D, 1), eighths(S * D, 2), eighths(S * D, 3), eighths(L * D, 4)]
    const mask = [0, value, 0, value, value]
    const expected = reference(q, k, v, g, mask)
    const operand = (x: number[]): Tensor => tensor(x, { dtype }).view(1, 1, -1, D).requiresGrad_()
    const [query, key, val] = [operand(q), operand(k), operand(v)]
    const attnMask = tensor(mask, { dtype: dtype === 'float16' ? 'float16' : 'float32' }).view(L, 1)
    const out = ops.scaledDotProductAttention(query, key, val, { attnMask })
    out.backward({ gradient: tensor(g, { dtype }).view(1, 1, L, D) })
    const [, weights] = ops.attentionWithWeights(query, key, val, { attnMask })
    const { entropy, received } = ops.attentionStatistics(query, key, { attnMask })
    // float64 keeps digits of the scores that the reference rounds away, by half of 2^-10 at 1e4
    const tolerance = { float32: 2e-6, float64: 1e-3, float16: 2e-3, bfloat16: 2e-2 }[dtype as 'float32']
    const close = (got: Tensor, want: number[]): Promise<void> =>
      expectClose(got.flatten(), want, { rtol: tolerance, atol: tolerance })
    await close(out, expected.out)
    await close(weights, expected.weights)
    await close(entropy, expected.entropy)
    await close(query.grad!, expected.dq)
    await close(key.grad!, expected.dk)
    await close(val.grad!, expected.dv)
    expect((await received.sum().item()) as number).toBeCloseTo(L, 4)
  })
})
