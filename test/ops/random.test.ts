import { describe, expect, it } from 'vitest'
import {
  autograd,
  type DType,
  fromTypedArray,
  multinomial,
  ones,
  onesLike,
  ops,
  rand,
  randint,
  randn,
  random,
  randperm,
  setNumThreads,
  type Tensor,
  tensor,
  zeros,
} from '../../lib/index'
import { goldenCases } from '../support/golden'
import { expectGolden } from '../support/goldenOp'

// The generator again, in integers of JavaScript; its own proof are the known answers below.
function philox(counter: readonly bigint[], key: readonly bigint[]): bigint[] {
  const low = (x: bigint): bigint => x & 0xffffffffn
  let [c0, c1, c2, c3] = counter as [bigint, bigint, bigint, bigint]
  let [k0, k1] = key as [bigint, bigint]
  for (let round = 0; round < 10; round++) {
    const [p0, p1] = [0xd2511f53n * c0, 0xcd9e8d57n * c2]
    ;[c0, c1, c2, c3] = [(p1 >> 32n) ^ c1 ^ k0, low(p1), (p0 >> 32n) ^ c3 ^ k1, low(p0)]
    k0 = low(k0 + 0x9e3779b9n)
    k1 = low(k1 + 0xbb67ae85n)
  }
  return [c0, c1, c2, c3]
}

const halves = (x: number): [bigint, bigint] => [BigInt(x) & 0xffffffffn, BigInt(x) >> 32n]
const word = (seed: number, offset: number, i: number, high = 0n): number =>
  Number(philox([...halves(offset + Math.floor(i / 4)), high, 0n], halves(seed))[i % 4])

const stream = (seed: number, offset = 0): { generator: random.Generator } => ({
  generator: new random.Generator().setState({ seed, offset }),
})
const numbers = async (x: Tensor): Promise<number[]> => Array.from(await x.data(), Number)

describe('philox', () => {
  it('gives the known answers of Random123', () => {
    const f = 0xffffffffn
    expect(philox([0n, 0n, 0n, 0n], [0n, 0n])).toEqual([0x6627e8d5n, 0xe169c58dn, 0xbc57ac4cn, 0x9b00dbd8n])
    expect(philox([f, f, f, f], [f, f])).toEqual([0x408f276dn, 0x41c83b0en, 0xa20bc7c6n, 0x6d5451fdn])
    expect(philox([0x243f6a88n, 0x85a308d3n, 0x13198a2en, 0x03707344n], [0xa4093822n, 0x299f31d0n])).toEqual([
      0xd16cfe09n,
      0x94fdccebn,
      0x5001e420n,
      0x24126ea1n,
    ])
  })

  it('is the source of every element, in every dtype, whatever the length', async () => {
    for (const [seed, offset] of [
      [0, 0],
      [1337, 5],
      [2 ** 52 + 12345, 2 ** 32 - 3],
      [7, 2 ** 40],
    ] as const) {
      for (const n of [1, 5, 37, 1029]) {
        const words = Array.from({ length: n }, (_, i) => word(seed, offset, i))
        const scaled = (bits: number): number[] => words.map((w) => Math.floor(w / 2 ** (32 - bits)) / 2 ** bits)
        expect(await numbers(rand([n], stream(seed, offset)))).toEqual(scaled(24))
        expect(await numbers(rand([n], { dtype: 'bfloat16', ...stream(seed, offset) }))).toEqual(scaled(8))
        expect(await numbers(rand([n], { dtype: 'float16', ...stream(seed, offset) }))).toEqual(scaled(11))
        expect(await numbers(randint(10, 1010, [n], stream(seed, offset)))).toEqual(
          words.map((w) => 10 + Math.floor((w / 2 ** 32) * 1000)),
        )
        const kept = await numbers(ops.dropout(ones([n]), 0.25, true, stream(seed, offset)))
        expect(kept).toEqual(words.map((w) => (w >= 2 ** 30 ? Math.fround(4 / 3) : 0)))
      }
    }
    const wide = Array.from({ length: 9 }, (_, i) => word(3, 1, i) * 2 ** 21 + Math.floor(word(3, 1, i, 1n) / 2 ** 11))
    expect(await numbers(rand([9], { dtype: 'float64', ...stream(3, 1) }))).toEqual(wide.map((x) => x / 2 ** 53))
  })

  it('is the same for every number of threads and every cut of the stream', async () => {
    const [n, states] = [300_000, [random.getState()]]
    const whole = await numbers(rand([n], stream(11)))
    const normals = await numbers(randn([n], stream(11)))
    setNumThreads(1)
    expect(await numbers(rand([n], stream(11)))).toEqual(whole)
    expect(await numbers(randn([n], stream(11)))).toEqual(normals)
    setNumThreads(2)
    expect(await numbers(rand([1000], stream(11, 25_000)))).toEqual(whole.slice(100_000, 101_000))
    random.setState(states[0]!)
  })

  it('moves the default stream on, and starts again with a seed', async () => {
    random.seed(42)
    const [a, b] = [await numbers(rand([6])), await numbers(rand([6]))]
    expect(random.getState()).toEqual({ seed: 42, offset: 4 })
    expect(b).not.toEqual(a)
    random.seed(42)
    expect(await numbers(rand([6]))).toEqual(a)
  })
})

describe('distributions', () => {
  const moments = (values: number[]): { mean: number; variance: number; kurtosis: number } => {
    const mean = values.reduce((a, b) => a + b, 0) / values.length
    const central = (k: number): number => values.reduce((sum, x) => sum + (x - mean) ** k, 0) / values.length
    return { mean, variance: central(2), kurtosis: central(4) / central(2) ** 2 }
  }

  it('normal numbers are those of Box and Muller', async () => {
    const values = await numbers(randn([4000], stream(5)))
    for (let i = 0; i < 4000; i += 2) {
      const radius = Math.sqrt(-2 * Math.log(((word(5, 0, i) >>> 8) + 1) * 2 ** -24))
      const angle = 2 * Math.PI * (word(5, 0, i + 1) >>> 8) * 2 ** -24
      expect(Math.abs(values[i]! - radius * Math.cos(angle))).toBeLessThan(2e-6)
      expect(Math.abs(values[i + 1]! - radius * Math.sin(angle))).toBeLessThan(2e-6)
    }
    for (const dtype of ['float32', 'float64', 'bfloat16'] as DType[]) {
      const { mean, variance, kurtosis } = moments(await numbers(randn([200_000], { dtype, ...stream(9) })))
      expect(Math.abs(mean)).toBeLessThan(0.01)
      expect(Math.abs(variance - 1)).toBeLessThan(0.02)
      expect(Math.abs(kurtosis - 3)).toBeLessThan(0.1)
    }
    const filled = moments(await numbers(zeros([100_000]).normal_(3, 0.5, stream(1))))
    expect(filled.mean).toBeCloseTo(3, 1)
    expect(filled.variance).toBeCloseTo(0.25, 1)
  })

  it('uniform numbers fill their range, and in-place forms write through views', async () => {
    const values = await numbers(zeros([10_000]).uniform_(-2, 6, stream(3)))
    expect(Math.min(...values)).toBeGreaterThanOrEqual(-2)
    expect(Math.max(...values)).toBeLessThanOrEqual(6)
    expect(moments(values).mean).toBeCloseTo(2, 0)
    const x = zeros([3, 2])
    x.t().select(0, 1).uniform_(1, 2, stream(3))
    const rows = x.arraySync() as number[][]
    expect(rows.every(([a, b]) => a === 0 && b! >= 1)).toBe(true)
  })

  it('whole numbers of wide ranges use 64 bits', async () => {
    const values = await numbers(randint(-(2 ** 52), 2 ** 52, [1000], stream(8)))
    expect(values.every((x) => Number.isSafeInteger(x))).toBe(true)
    expect(new Set(values.map((x) => x & 1023)).size).toBeGreaterThan(500)
    expect(await numbers(randint(5, [50], { dtype: 'uint8', ...stream(8) }))).toContain(4)
  })

  it('permutations hold every number once, and all are equally likely', async () => {
    expect((await numbers(randperm(1000, stream(4)))).sort((a, b) => a - b)).toEqual(
      Array.from({ length: 1000 }, (_, i) => i),
    )
    expect(randperm(0).shape).toEqual([0])
    const counts = new Map<string, number>()
    const { generator } = stream(6)
    for (let i = 0; i < 6000; i++) {
      const key = String(randperm(3, { generator }).arraySync())
      counts.set(key, (counts.get(key) ?? 0) + 1)
    }
    expect(counts.size).toBe(6)
    for (const n of counts.values()) expect(Math.abs(n - 1000)).toBeLessThan(150)
  })

  it('draws by weight, with and without replacement', async () => {
    const weights = tensor([
      [1, 0, 3],
      [0, 2, 2],
    ])
    const drawn = multinomial(weights, 20_000, { replacement: true, ...stream(2) }).arraySync() as number[][]
    expect(drawn[0]!.filter((j) => j === 2).length / 20_000).toBeCloseTo(0.75, 1)
    expect(drawn[0]!.includes(1) || drawn[1]!.includes(0)).toBe(false)
    // the first of a draw of both, by row of one stream and by stream
    const rows = tensor([1, 3]).expand(4000, 2).multinomial(2, stream(2)).arraySync() as number[][]
    expect(rows.filter(([j]) => j === 1).length / 4000).toBeCloseTo(0.75, 1)
    const streams = Array.from({ length: 400 }, (_, i) => tensor([1, 3]).multinomial(2, stream(i)).array())
    const first = ((await Promise.all(streams)) as number[][]).filter(([j]) => j === 1)
    expect(Math.abs(first.length / 400 - 0.75)).toBeLessThan(0.07) // three standard deviations
    expect((weights.multinomial(2, stream(2)).arraySync() as number[][]).map((row) => [...row].sort())).toEqual([
      [0, 2],
      [1, 2],
    ])
  })

  it('names weights that cannot be drawn from', async () => {
    await expect(multinomial(tensor([1, -2]), 1).array()).rejects.toThrow(
      'a weight is not usable: got -2 at position 1 of row 0',
    )
    await expect(multinomial(tensor([0, 0]), 1).array()).rejects.toThrow(
      'the weights of row 0 have no usable sum: got 0',
    )
    await expect(multinomial(tensor([1, 0]), 2).array()).rejects.toThrow('too few weights above 0')
    expect(() => multinomial(tensor([1, 1]), 3)).toThrow('multinomial: the weights do not fit: got [2] for 3 samples')
  })

  it('bernoulli follows its probabilities', async () => {
    expect(tensor([0, 1, 0, 1]).bernoulli().arraySync()).toEqual([0, 1, 0, 1])
    expect(moments(await numbers(ones([50_000]).mul(0.3).bernoulli(stream(1)))).mean).toBeCloseTo(0.3, 1)
  })
})

describe('dropout', () => {
  const cases = goldenCases('ops', /^dropout/)
  it.each(cases.map((each) => [each.name, each] as const))('golden %s', async (_, golden) => {
    await expectGolden(golden, ({ x }, { p, training }) => ops.dropout(x!, p, training))
  })

  it('keeps what it should and scales it, the same in backward', async () => {
    const x = ones([1000, 100]).requiresGrad_()
    const y = ops.dropout(x, 0.3, true, stream(12))
    y.backward({ gradient: onesLike(y) })
    const [values, grad] = [await numbers(y), await numbers(x.grad!)]
    expect(grad).toEqual(values)
    expect(new Set(values)).toEqual(new Set([0, Math.fround(1 / 0.7)]))
    expect(values.filter((v) => v === 0).length / 100_000).toBeCloseTo(0.3, 1)
  })

  it('counts in row-major order, whatever the strides and however large the tensor', async () => {
    const x = fromTypedArray(
      Float32Array.from({ length: 12 }, (_, i) => i + 1),
      [3, 4],
    )
    const dense = ops.dropout(x.t().contiguous(), 0.5, true, stream(3))
    expect(await numbers(ops.dropout(x.t(), 0.5, true, stream(3)))).toEqual(await numbers(dense))
    const large = await numbers(ops.dropout(ones([3 * 2 ** 20]), 0.5, true, stream(3)))
    const small = await numbers(ops.dropout(ones([4000]), 0.5, true, stream(3, 2 ** 18)))
    expect(large.slice(2 ** 20, 2 ** 20 + 4000)).toEqual(small)
  })

  it('is recomputed, not stored, where a product follows', async () => {
    const x = ones([4, 8]).requiresGrad_()
    const w = ones([8, 2]).requiresGrad_()
    const y = ops.dropout(x, 0.5, true, stream(5))
    const kept = y.arraySync()
    y.matmul(w).backward({ gradient: ones([4, 2]) })
    expect(x.grad!.arraySync()).toEqual((kept as number[][]).map((row) => row.map((v) => v * 2)))
  })

  it('adds a residual in the same pass', () => {
    const [x, r] = [rand([5, 7], { dtype: 'float64' }), rand([5, 7], { dtype: 'float64' })]
    const fused = ops.dropoutAdd(x, r, 0.4, true, stream(6)).arraySync()
    expect(fused).toEqual(ops.dropout(x, 0.4, true, stream(6)).add(r).arraySync())
    const inputs = [x.detach().requiresGrad_(), r.detach().requiresGrad_()]
    expect(autograd.gradcheck((a, b) => ops.dropoutAdd(a!, b!, 0.4, true, stream(6)), inputs)).toBe(true)
    expect(autograd.gradcheck((a) => ops.dropout(a, 0.4, true, stream(6)), [inputs[0]!])).toBe(true)
  })

  it('says what it does not take', () => {
    expect(() => ops.dropout(ones([2]), 1.5)).toThrow(
      'dropout: p is not a probability: got 1.5, expected a number from 0 to 1.',
    )
    expect(() => rand([2], { dtype: 'int64' })).toThrow('rand: no fractions: got int64, expected a floating dtype.')
    expect(() => randint(5, 5, [2])).toThrow('randint: the range is empty: got 5 to 5')
    // @ts-expect-error: not a generator
    expect(() => rand([2], { generator: 5 })).toThrow('rand: not a generator: got 5, expected a random.Generator.')
  })
})
