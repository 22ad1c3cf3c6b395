import { describe, expect, it } from 'vitest'
import { autograd, type DType, noGrad, onesLike, ops, random, ShapeError, type Tensor, tensor } from '../../lib/index'
import { expectClose, goldenCases, goldenTensors } from '../support/golden'

const { scaledDotProductAttention: attention } = ops

// A linear congruence: the same values everywhere, without the library's own generator.
function values(count: number, seed = 1): number[] {
  let state = seed * 7919 + 1
  return Array.from({ length: count }, () => {
    state = (state * 48271) % 2147483647
    return (state / 1073741823.5 - 1) * 1.5
  })
}

const count = (shape: readonly number[]): number => shape.reduce((n, size) => n * size, 1)
const filled = (shape: readonly number[], seed = 1, dtype: DType = 'float64'): Tensor =>
  tensor(values(count(shape), seed), { dtype }).view(shape as number[])
const leaf = (shape: readonly number[], seed = 1, dtype: DType = 'float64'): Tensor =>
  filled(shape, seed, dtype).clone().requiresGrad_()
const minus = Number.NEGATIVE_INFINITY

/** The textbook's formula in float64, one row at a time; `bias` [B][H][L][S] is added to the scores. */
function reference(
  [q, k, v]: readonly ArrayLike<number>[],
  [B, H, kvHeads, L, S, D]: readonly number[],
  bias: (b: number, h: number, i: number, j: number) => number,
): number[] {
  const out: number[] = []
  for (let b = 0; b < B!; b++) {
    for (let h = 0; h < H!; h++) {
      const kvHead = b * kvHeads! + Math.floor(h / (H! / kvHeads!))
      for (let i = 0; i < L!; i++) {
        const scores = Array.from({ length: S! }, (_, j) => {
          let dot = 0
          for (let d = 0; d < D!; d++) dot += q![((b * H! + h) * L! + i) * D! + d]! * k![(kvHead * S! + j) * D! + d]!
          return dot / Math.sqrt(D!) + bias(b, h, i, j)
        })
        const top = Math.max(...scores)
        const weights = scores.map((x) => (top === minus ? 0 : Math.exp(x - top)))
        const sum = weights.reduce((a, b) => a + b, 0) || 1
        for (let d = 0; d < D!; d++) {
          out.push(weights.reduce((total, w, j) => total + (w / sum) * v![(kvHead * S! + j) * D! + d]!, 0))
        }
      }
    }
  }
  return out
}

describe('attention: golden cases', () => {
  for (const each of [...goldenCases('ops', /^(sdpa|rope)/), ...goldenCases('lowp', /^sdpa/, 2)]) {
    it(each.name, async () => {
      const stored = await goldenTensors(each.file)
      const inputs: Record<string, Tensor> = {}
      for (const [name, key] of Object.entries(each.inputs)) {
        inputs[name] = stored[key]!.detach()
        if (each.grads[name]) inputs[name].requiresGrad_()
      }
      const { q, k, v, mask = null, x, cos, sin } = inputs as Record<string, Tensor>
      const { causal, scale, gqa } = each.params
      const out = each.op.startsWith('rope')
        ? ops.rope(x!, cos!, sin!, { interleaved: each.op.includes('interleaved') })
        : attention(q!, k!, v!, { attnMask: mask, isCausal: causal, scale, enableGqa: gqa })
      await expectClose(out, stored[(each.outputs as string[])[0]!]!, each.tolerance)
      out.backward({ gradient: stored[each.grad_outputs!['0']!]! })
      for (const [name, key] of Object.entries(each.grads)) {
        await expectClose(inputs[name]!.grad!, stored[key]!, each.tolerance)
      }
    })
  }
})

describe('scaledDotProductAttention', () => {
  // lengths around the tile of 64, head dims that are no multiple of a vector, few and many heads
  const shapes = [
    [1, 1, 1, 1, 1, 1],
    [2, 2, 2, 7, 9, 5],
    [1, 4, 2, 64, 64, 64],
    [2, 3, 1, 65, 130, 20],
    [1, 2, 2, 1, 100, 32],
    [1, 1, 1, 200, 600, 16],
    [1, 2, 1, 70, 30, 200],
  ] as const
  const dtypes = [
    ['float64', 1e-12],
    ['float32', 5e-6],
    ['bfloat16', 2e-2],
    ['float16', 2e-3],
  ] as const

  for (const shape of shapes) {
    it(`equals the formula for B, H, Hkv, L, S, D = ${shape.join(', ')}`, async () => {
      const [B, H, kvHeads, L, S, D] = shape
      for (const [dtype, atol] of dtypes) {
        const inputs = [filled([B, H, L, D], 1), filled([B, kvHeads, S, D], 2), filled([B, kvHeads, S, D], 3)].map(
          (x) => x.to(dtype),
        ) as [Tensor, Tensor, Tensor]
        const numbers = await Promise.all(inputs.map(async (x) => (await x.to('float64').data()) as Float64Array))
        for (const isCausal of [false, true]) {
          const expected = reference(numbers, shape, (_b, _h, i, j) => (isCausal && j > i ? minus : 0))
          const out = attention(...inputs, { isCausal, enableGqa: true })
          expect(out.shape).toEqual([B, H, L, D])
          await expectClose(out.to('float64'), expected, { rtol: atol, atol })
        }
      }
    })
  }

  it('has the gradients of central differences', () => {
    for (const [B, H, kvHeads, L, S, D] of [
      [1, 2, 1, 5, 3, 3],
      [2, 1, 1, 3, 5, 4],
    ]) {
      const inputs = [leaf([B!, H!, L!, D!], 1), leaf([B!, kvHeads!, S!, D!], 2), leaf([B!, kvHeads!, S!, D! + 1], 3)]
      const bool = tensor(
        values(L! * S!, 4).map((x) => x > -0.8),
        { dtype: 'bool' },
      ).view(L!, S!)
      const variants = [{}, { isCausal: true }, { attnMask: bool }, { attnMask: bool, isCausal: true, scale: 0.7 }]
      for (const options of variants) {
        autograd.gradcheck((q, k, v) => attention(q!, k!, v!, { ...options, enableGqa: true }), inputs)
      }
    }
  })

  it('has the gradient of an additive mask, also broadcast, causal, shared and with dropout', () => {
    const inputs = [leaf([2, 2, 4, 3], 1), leaf([2, 1, 5, 3], 2), leaf([2, 1, 5, 3], 3)]
    for (const shape of [[2, 2, 4, 5], [2, 4, 5], [4, 5], [2, 1, 1, 5], [1]]) {
      for (const options of [{}, { isCausal: true }, { dropoutP: 0.4 }]) {
        autograd.gradcheck(
          (q, k, v, attnMask) => {
            random.seed(3)
            return attention(q!, k!, v!, { attnMask: attnMask!, enableGqa: true, ...options })
          },
          [...inputs, leaf(shape, 4)],
        )
      }
    }
  })

  it('gives 0 and gradient 0 where a query sees no key, and the average for a row of lowest values', async () => {
    const [q, k, v] = [
      leaf([1, 1, 3, 4], 1, 'float32'),
      leaf([1, 1, 6, 4], 2, 'float32'),
      leaf([1, 1, 6, 4], 3, 'float32'),
    ]
    const hidden = tensor([true, false, true], { dtype: 'bool' }).view(3, 1)
    const out = attention(q, k, v, { attnMask: hidden })
    out.backward({ gradient: onesLike(out) })
    expect(((await out.array()) as number[][][][])[0]![0]![1]).toEqual([0, 0, 0, 0])
    expect(((await q.grad!.array()) as number[][][][])[0]![0]![1]).toEqual([0, 0, 0, 0])

    const lowest = tensor([0, -3.4028234663852886e38, 0]).view(3, 1)
    v.grad = null
    const average = attention(q, k, v, { attnMask: lowest })
    const pick = tensor([0, 1, 0]).view(1, 1, 3, 1).mul(onesLike(average))
    average.backward({ gradient: pick })
    const rows = ((await v.array()) as number[][][][])[0]![0]!
    const mean = [0, 1, 2, 3].map((d) => rows.reduce((sum, row) => sum + row[d]! / 6, 0))
    await expectClose(average.select(2, 1).flatten(), mean, { rtol: 1e-5, atol: 1e-6 })
    await expectClose(v.grad!, new Array(24).fill(1 / 6), { rtol: 1e-6, atol: 0 })
  })

  it('reads the three parts of one projection and writes their gradients as one', async () => {
    const [B, T, H, D] = [2, 70, 3, 8]
    const run = (fused: boolean): [Tensor, Tensor] => {
      const qkv = leaf([B, T, 3, H, D], 5, 'float32')
      const parts = qkv
        .mul(1)
        .unbind(2)
        .map((x) => x.transpose(1, 2))
      const [q, k, v] = (fused ? parts : parts.map((x) => x.contiguous())) as [Tensor, Tensor, Tensor]
      const out = attention(q, k, v, { isCausal: true })
      out.backward({ gradient: filled([B, H, T, D], 6, 'float32') })
      return [out, qkv.grad!]
    }
    const [fused, separate] = [run(true), run(false)]
    await expectClose(fused[0], separate[0], { rtol: 0, atol: 0 })
    await expectClose(fused[1], separate[1], { rtol: 0, atol: 0 })
    expect(fused[0].transpose(1, 2).isContiguous).toBe(true)
  })

  it('takes masks of every kind and layout', async () => {
    const [B, H, L, S, D] = [2, 2, 67, 70, 4]
    const inputs = [filled([B, H, L, D], 1), filled([B, H, S, D], 2), filled([B, H, S, D], 3)] as [
      Tensor,
      Tensor,
      Tensor,
    ]
    const numbers = inputs.map((x) => x.dataSync() as Float64Array)
    const bias = values(B * H * L * S, 9)
    const full = tensor(bias, { dtype: 'float64' }).view(B, H, L, S)
    const at = (b: number, h: number, i: number, j: number): number => bias[((b * H + h) * L + i) * S + j]!
    const shape = [B, H, H, L, S, D]
    const masks: [Tensor, (b: number, h: number, i: number, j: number) => number][] = [
      [full, at],
      [full.transpose(2, 3).contiguous().transpose(2, 3), at],
      [full.select(1, 1).unsqueeze(1), (b, _h, i, j) => at(b, 1, i, j)],
      [full.select(2, 3).unsqueeze(2), (b, h, _i, j) => at(b, h, 3, j)],
    ]
    for (const [attnMask, expected] of masks) {
      await expectClose(attention(...inputs, { attnMask }), reference(numbers, shape, expected), {
        rtol: 1e-12,
        atol: 1e-12,
      })
    }
    const kept = tensor(
      bias.slice(0, B * S).map((x) => x > -0.5),
      { dtype: 'bool' },
    ).view(B, 1, 1, S)
    const expected = reference(numbers, shape, (b, _h, i, j) => (bias[b * S + j]! > -0.5 && j <= i ? 0 : minus))
    await expectClose(attention(...inputs, { attnMask: kept, isCausal: true }), expected, { rtol: 1e-12, atol: 1e-12 })
  })

  it('drops weights by the words of the element, the same in backward and for every length', async () => {
    for (const S of [8, 70]) {
      const [q, k] = [filled([1, 2, 66, 4], 1), filled([1, 2, S, 4], 2)]
      const eye = tensor(
        Array.from({ length: S * S }, (_, i) => (i % (S + 1) === 0 ? 1 : 0)),
        { dtype: 'float64' },
      )
      const v = eye.view(1, 1, S, S).expand(1, 2, S, S).contiguous().requiresGrad_()
      random.seed(11)
      const weights = attention(q, k, v, { dropoutP: 0.25 }) // values are the identity: the output is the weights
      const whole = noGrad(() => attention(q, k, v))
      const [dropped, kept] = [await weights.data(), await whole.data()] as Float64Array[]
      const share =
        dropped!.filter((x, i) => x !== 0 && Math.abs(x - kept![i]! / 0.75) < 1e-12).length / dropped!.length
      expect(dropped!.every((x, i) => x === 0 || Math.abs(x - kept![i]! / 0.75) < 1e-12)).toBe(true)
      expect(Math.abs(share - 0.75)).toBeLessThan(0.05)
      // v gets weights' dO, so a dO of ones counts each key's kept weights
      weights.backward({ gradient: onesLike(weights) })
      const sums = Array.from({ length: 2 * S }, (_, hj) => {
        let sum = 0
        for (let i = 0; i < 66; i++) sum += dropped![(Math.floor(hj / S) * 66 + i) * S + (hj % S)]!
        return sum
      })
      await expectClose(v.grad!.select(3, 0).flatten(), sums, { rtol: 1e-10, atol: 1e-12 })
    }
  })

  it('takes operands without batch or heads, and empty ones', async () => {
    const [q, k, v] = [leaf([3, 5, 4], 1), leaf([3, 6, 4], 2), leaf([3, 6, 4], 3)]
    const batched = attention(q.unsqueeze(0), k.unsqueeze(0), v.unsqueeze(0))
    await expectClose(attention(q, k, v), (await batched.squeeze(0).data()) as Float64Array, { rtol: 0, atol: 0 })
    expect(attention(q.select(0, 0), k.select(0, 0), v.select(0, 0)).shape).toEqual([5, 4])
    const [none, out] = [leaf([1, 2, 0, 4]), leaf([1, 2, 3, 4])]
    expect(await attention(out, none, none).data()).toEqual(new Float64Array(24))
    const empty = attention(none, out, out)
    expect(empty.shape).toEqual([1, 2, 0, 4])
    empty.backward({ gradient: empty.detach() })
    expect(await out.grad!.data()).toEqual(new Float64Array(24))
  })

  it('gives the same bits twice', async () => {
    const once = async (): Promise<ArrayLike<number>[]> => {
      const [q, k, v] = [1, 2, 3].map((seed) => leaf([1, 1, 300, 16], seed, 'float32')) as [Tensor, Tensor, Tensor]
      const out = attention(q, k, v, { isCausal: true })
      out.backward({ gradient: onesLike(out) })
      return Promise.all([out, q.grad!, k.grad!, v.grad!].map((x) => x.data() as Promise<Float32Array>))
    }
    expect(await once()).toEqual(await once())
  })

  it('says what does not fit', () => {
    const q = filled([1, 4, 3, 8])
    expect(() => attention(q, filled([1, 2, 3, 8]), filled([1, 2, 3, 8]))).toThrow(
      'scaledDotProductAttention: numbers of heads differ: got 4 of query, 2 of key and value, expected equal numbers; enableGqa lets several heads of query share one of key and value.',
    )
    expect(() => attention(q, filled([1, 4, 5, 8]), filled([1, 4, 6, 8]))).toThrow(ShapeError)
    expect(() => attention(q, q, q, { attnMask: filled([3, 4]) })).toThrow(
      'scaledDotProductAttention: attnMask does not broadcast to the scores: got [3, 4], expected a shape that broadcasts to [1, 4, 3, 3] (batch, heads, queries, keys).',
    )
    expect(() => attention(q, q, q, { dropoutP: 1.5 })).toThrow(
      'scaledDotProductAttention: dropoutP is not a probability: got 1.5, expected a number from 0 to 1.',
    )
    expect(() => attention(q, q, filled([1, 4, 3, 8], 1, 'float32'))).toThrow(/dtypes differ: got query float64/)
  })
})

describe('rope', () => {
  it('has the gradients of central differences, also when the two angles of a pair differ', () => {
    for (const interleaved of [false, true]) {
      const [x, cos, sin] = [leaf([2, 3, 4], 1), filled([3, 4], 2), filled([3, 4], 3)]
      autograd.gradcheck((x) => ops.rope(x!, cos, sin, { interleaved }), [x])
    }
  })

  it('refuses an odd width', () => {
    expect(() => ops.rope(filled([2, 3]), filled([3]), filled([3]))).toThrow(/rope: odd last dim: got 3/)
  })
})
