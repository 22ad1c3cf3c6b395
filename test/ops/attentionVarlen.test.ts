import { describe, expect, it } from 'vitest'
import {
  type DType,
  DTypeError,
  IndexError,
  noGrad,
  ops,
  random,
  ShapeError,
  type Tensor,
  tensor,
} from '../../lib/index'
import { referenceAttention } from '../support/attention'
import { expectClose } from '../support/golden'

const { scaledDotProductAttention: attention, scaledDotProductAttentionVarlen: varlen } = ops

function values(count: number, seed: number): number[] {
  let state = seed * 7919 + 1
  return Array.from({ length: count }, () => {
    state = (state * 48271) % 2147483647
    return (state / 1073741823.5 - 1) * 1.5
  })
}

const filled = (shape: number[], seed: number, dtype: DType = 'float64'): Tensor => {
  const count = shape.reduce((n, size) => n * size, 1)
  return tensor(values(count, seed), { dtype: 'float64' }).view(shape).to(dtype)
}

/** Tokens [first, end) of packed rows [tokens, H, D], as [1, H, T, D] row-major. */
function sequence(packed: Float64Array, [first, end]: [number, number], H: number, D: number): Float64Array {
  const out = new Float64Array((end - first) * H * D)
  for (let t = first; t < end; t++) {
    for (let h = 0; h < H; h++) {
      for (let d = 0; d < D; d++) out[(h * (end - first) + t - first) * D + d] = packed[(t * H + h) * D + d]!
    }
  }
  return out
}

/** The other way round. */
function place(rows: Float64Array, [first, end]: [number, number], H: number, D: number, packed: Float64Array): void {
  for (let t = first; t < end; t++) {
    for (let h = 0; h < H; h++) {
      for (let d = 0; d < D; d++) packed[(t * H + h) * D + d] = rows[(h * (end - first) + t - first) * D + d]!
    }
  }
}

describe('scaledDotProductAttentionVarlen', () => {
  // lengths around the tile of 64, none, more keys than queries and the other way round
  const [queries, keys] = [
    [0, 3, 3, 70, 200, 201],
    [0, 5, 9, 140, 140, 150],
  ]
  const [H, kvHeads, D, E] = [4, 2, 12, 9]
  const tolerances = [
    ['float64', 1e-11],
    ['float32', 1e-5],
    ['bfloat16', 2e-2],
    ['float16', 2e-3],
  ] as const

  for (const isCausal of [false, true]) {
    for (const windowSize of [null, 20, [-1, 4]] as const) {
      it(`equals each sequence alone${isCausal ? ', causal' : ''}, window ${JSON.stringify(windowSize)}`, async () => {
        for (const [dtype, tolerance] of tolerances) {
          const operands = [
            filled([201, H, D], 1, dtype),
            filled([150, kvHeads, D], 2, dtype),
            filled([150, kvHeads, E], 3, dtype),
            filled([201, H, E], 4, dtype),
          ] as [Tensor, Tensor, Tensor, Tensor]
          const [q, k, v, g] = operands
          const numbers = operands.map((x) => x.to('float64').dataSync() as Float64Array)
          const expected = [E, D, D, E].map(
            (width, i) => new Float64Array(i < 2 ? 201 * H * width : 150 * kvHeads * width),
          )
          const [left, right] = windowSize === null ? [-1, -1] : windowSize === 20 ? [20, 20] : windowSize
          for (let n = 0; n < 5; n++) {
            const ofQueries: [number, number] = [queries[n]!, queries[n + 1]!]
            const ofKeys: [number, number] = [keys[n]!, keys[n + 1]!]
            const [L, S] = [ofQueries[1] - ofQueries[0], ofKeys[1] - ofKeys[0]]
            const alone = referenceAttention(
              [
                sequence(numbers[0]!, ofQueries, H, D),
                sequence(numbers[1]!, ofKeys, kvHeads, D),
                sequence(numbers[2]!, ofKeys, kvHeads, E),
                sequence(numbers[3]!, ofQueries, H, E),
              ],
              { B: 1, H, kvHeads, L, S, D, E },
              (_b, _h, i, j) => {
                const distance = j - (i + S - L)
                const hidden =
                  (isCausal && distance > 0) || (left! >= 0 && -distance > left!) || (right! >= 0 && distance > right!)
                return hidden ? Number.NEGATIVE_INFINITY : 0
              },
            )
            place(alone.out, ofQueries, H, E, expected[0]!)
            place(alone.dq, ofQueries, H, D, expected[1]!)
            place(alone.dk, ofKeys, kvHeads, D, expected[2]!)
            place(alone.dv, ofKeys, kvHeads, E, expected[3]!)
          }
          for (const x of [q, k, v]) x.requiresGrad_()
          const offsets = dtype === 'float32' ? tensor(queries, { dtype: 'int32' }) : queries
          const out = varlen(q, k, v, offsets, keys, { isCausal, windowSize, enableGqa: true })
          expect(out.shape).toEqual([201, H, E])
          out.backward({ gradient: g })
          for (const [i, got] of [out, q.grad!, k.grad!, v.grad!].entries()) {
            const largest = expected[i]!.reduce((top, x) => Math.max(top, Math.abs(x)), 1)
            await expectClose(got.to('float64'), expected[i]!, { rtol: 0, atol: tolerance * largest })
          }
        }
      })
    }
  }

  it('reads the parts of one projection, and is one long sequence for one pair of offsets', async () => {
    const qkv = filled([90, 3, 2, 8], 5, 'float32').requiresGrad_()
    const [q, k, v] = qkv.unbind(1) as [Tensor, Tensor, Tensor]
    const out = varlen(q, k, v, [0, 90], [0, 90], { isCausal: true })
    out.backward({ gradient: filled([90, 2, 8], 6, 'float32') })
    const leaf = qkv.detach().requiresGrad_()
    const parts = leaf.unbind(1).map((x) => x.transpose(0, 1).unsqueeze(0)) as [Tensor, Tensor, Tensor]
    const dense = attention(...parts, { isCausal: true })
      .squeeze(0)
      .transpose(0, 1)
    dense.backward({ gradient: filled([90, 2, 8], 6, 'float32') })
    await expectClose(out, dense, { rtol: 0, atol: 0 })
    await expectClose(qkv.grad!, leaf.grad!, { rtol: 0, atol: 0 })
  })

  it('drops weights, the same in backward', async () => {
    const [T, H, D] = [150, 2, 4]
    const [q, k] = [filled([T, H, D], 1), filled([T, H, D], 2)]
    const ones = tensor(new Float64Array(T * H))
      .view(T, H, 1)
      .add(1)
      .requiresGrad_()
    const offsets = [0, 80, 150]
    const out = varlen(q, k, ones, offsets, offsets, { dropoutP: 0.5 })
    const total = await out.sum().item()
    expect(Math.abs(total / (T * H) - 1)).toBeLessThan(0.1) // weights sum to 1 in the mean
    out.backward({ gradient: noGrad(() => out.mul(0).add(1)) })
    await expectClose(ones.grad!.sum().reshape(1), [total], { rtol: 1e-10, atol: 0 })
    random.seed(3)
    const first = await varlen(q, k, ones.detach(), offsets, offsets, { dropoutP: 0.5 }).data()
    random.seed(3)
    expect(await varlen(q, k, ones.detach(), offsets, offsets, { dropoutP: 0.5 }).data()).toEqual(first)
  })

  it('takes no sequences, and sequences of nothing', async () => {
    const none = filled([0, 2, 4], 1).requiresGrad_()
    expect(varlen(none, none, none, [0], [0]).shape).toEqual([0, 2, 4])
    const q = filled([3, 2, 4], 1).requiresGrad_()
    const out = varlen(q, none, none, [0, 1, 3], [0, 0, 0])
    expect(await out.data()).toEqual(new Float64Array(24))
    out.sum().backward()
    expect(await q.grad!.data()).toEqual(new Float64Array(24))
  })

  it('says what does not add up', async () => {
    const q = filled([6, 2, 4], 1)
    expect(() => varlen(q, q, q, [0, 4], [0, 6])).toThrow(
      'scaledDotProductAttentionVarlen: the lengths of cuSeqlensQ do not add up: got 4, expected 6 tokens.',
    )
    expect(() => varlen(q, q, q, [0, 4, 2, 6], [0, 2, 4, 6])).toThrow(
      'scaledDotProductAttentionVarlen: cuSeqlensQ is no list of cumulative lengths: got 2 at position 2, expected at least 4, the one before.',
    )
    expect(() => varlen(q, q, q, [1, 6], [0, 6])).toThrow(IndexError)
    expect(() => varlen(q, q, q, [], [])).toThrow(IndexError)
    expect(() => varlen(q, q, q, [0, 3, 6], [0, 6])).toThrow(
      'scaledDotProductAttentionVarlen: numbers of sequences differ: got 3 offsets of queries, 2 of keys, expected as many, one more than there are sequences.',
    )
    expect(() => varlen(q, q, q, tensor([0, 6]), [0, 6])).toThrow(DTypeError)
    expect(() => varlen(q, q, q.to('float32'), [0, 6], [0, 6])).toThrow(DTypeError)
    expect(() => varlen(q.unsqueeze(0), q, q, [0, 6], [0, 6])).toThrow(ShapeError)
    expect(() => varlen(q, filled([6, 1, 4], 1), filled([6, 1, 4], 1), [0, 6], [0, 6])).toThrow(/enableGqa/)
    const late = varlen(q, q, q, tensor([0, 7], { dtype: 'int64' }), [0, 6])
    await expect(late.data()).rejects.toThrow(
      'attention: cuSeqlensQ is no list of cumulative lengths: got 7 at position 1',
    )
  })
})
