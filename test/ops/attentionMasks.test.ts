// Everything that says which keys a query sees, alone and together, against the textbook's formula in float64.

import { describe, expect, it } from 'vitest'
import {
  ArgumentError,
  type AttentionOptions,
  autograd,
  type DType,
  DTypeError,
  getDefaultDevice,
  IndexError,
  type BlockMask as Mask,
  memory,
  noGrad,
  onesLike,
  ops,
  ShapeError,
  type Tensor,
  tensor,
  zeros,
} from '../../lib/index'
import { type Bias, type ReferenceShape, referenceAttention } from '../support/attention'
import { collect } from '../support/collect'
import { expectClose } from '../support/golden'

const { BlockMask, scaledDotProductAttention: attention, attentionWithWeights, attentionStatistics } = ops

function values(count: number, seed = 1): number[] {
  let state = seed * 7919 + 1
  return Array.from({ length: count }, () => {
    state = (state * 48271) % 2147483647
    return (state / 1073741823.5 - 1) * 1.5
  })
}

const filled = (shape: readonly number[], seed: number, dtype: DType = 'float64'): Tensor =>
  tensor(
    values(
      shape.reduce((n, size) => n * size, 1),
      seed,
    ),
    { dtype: 'float64' },
  )
    .view(shape as number[])
    .to(dtype)
const minus = Number.NEGATIVE_INFINITY

interface Case {
  name: string
  options: (shape: ReferenceShape) => AttentionOptions
  bias: (shape: ReferenceShape) => Bias
}

const hash = (i: number, j: number): number => (i * 7 + j * 13) % 5
const sees = (visible: boolean): number => (visible ? 0 : minus)
const lengthsOf = ({ B, S }: ReferenceShape): number[] => Array.from({ length: B }, (_, b) => (b === 0 ? S - 3 : 1))

const blocksOf =
  (size: readonly [number, number]) =>
  ({ L, S }: ReferenceShape): Mask =>
    BlockMask.from((i, j) => hash(i, j) < 3, L, { keyLength: S, blockSize: size })

const cases: Case[] = [
  { name: 'no mask', options: () => ({}), bias: () => () => 0 },
  {
    name: 'a bool mask',
    options: ({ L, S }) => ({
      attnMask: tensor(
        Array.from({ length: L }, (_, i) => Array.from({ length: S }, (_, j) => i === 1 || hash(i, j) > 1)),
        { dtype: 'bool' },
      ),
    }),
    bias: () => (_b, _h, i, j) => sees(i === 1 || hash(i, j) > 1),
  },
  {
    name: 'an additive mask',
    options: ({ H, L, S }) => ({ attnMask: filled([H, L, S], 9) }),
    bias: ({ H, L, S }) => {
      const all = values(H * L * S, 9)
      return (_b, h, i, j) => all[(h * L + i) * S + j]!
    },
  },
  {
    name: 'a window',
    options: () => ({ windowSize: 9 }),
    bias: () => (_b, _h, i, j) => sees(Math.abs(i - j) <= 9),
  },
  {
    name: 'a window of other sides',
    options: () => ({ windowSize: [70, 3] }),
    bias: () => (_b, _h, i, j) => sees(j >= i - 70 && j <= i + 3),
  },
  {
    name: 'a window open to the left',
    options: () => ({ windowSize: [-1, 0] }),
    bias: () => (_b, _h, i, j) => sees(j <= i),
  },
  {
    name: 'key lengths',
    options: (shape) => ({ keyLengths: lengthsOf(shape) }),
    bias: (shape) => (b, _h, _i, j) => sees(j < lengthsOf(shape)[b]!),
  },
  {
    name: 'blocks of the tile',
    options: (shape) => ({ blockMask: blocksOf([64, 64])(shape) }),
    bias: () => (_b, _h, i, j) => sees(hash(Math.floor(i / 64), Math.floor(j / 64)) < 3),
  },
  {
    name: 'blocks of any size',
    options: (shape) => ({ blockMask: blocksOf([5, 48])(shape) }),
    bias: () => (_b, _h, i, j) => sees(hash(Math.floor(i / 5), Math.floor(j / 48)) < 3),
  },
  {
    name: 'everything together',
    options: (shape) => ({
      attnMask: filled([shape.S], 8),
      windowSize: [40, 100],
      keyLengths: tensor(lengthsOf(shape), { dtype: 'int32' }),
      blockMask: blocksOf([32, 16])(shape),
    }),
    bias: (shape) => {
      const all = values(shape.S, 8)
      return (b, _h, i, j) =>
        all[j]! +
        sees(
          j >= i - 40 && j <= i + 100 && j < lengthsOf(shape)[b]! && hash(Math.floor(i / 32), Math.floor(j / 16)) < 3,
        )
    },
  },
]

// lengths around the tile of 64, L != S both ways, head dims that are no multiple of a vector, shared heads
const shapes: ReferenceShape[] = [
  { B: 2, H: 2, kvHeads: 1, L: 67, S: 130, D: 5, E: 7 },
  { B: 1, H: 4, kvHeads: 2, L: 130, S: 33, D: 20, E: 20 },
  { B: 2, H: 1, kvHeads: 1, L: 96, S: 96, D: 16, E: 33 },
]

// float32 and float64: of each element; 16-bit: of the largest, as operands, probabilities and results are rounded
const tolerances: [DType, number][] = [
  ['float64', 1e-11],
  ['float32', 1e-5],
  ['bfloat16', 2e-2],
  ['float16', 2e-3],
]

async function expectNear(got: Tensor, expected: Float64Array, tolerance: number): Promise<void> {
  const largest = expected.reduce((top, x) => Math.max(top, Math.abs(x)), 0)
  const isWide = got.dtype === 'float64' || got.dtype === 'float32'
  // an element that is a sum with cancellation has the error of its terms, which are of the size of the largest
  const bounds = isWide
    ? { rtol: 0.7 * tolerance, atol: 0.3 * tolerance * Math.max(1, largest) }
    : { rtol: 0, atol: tolerance * Math.max(1, largest) }
  await expectClose(got.to('float64'), expected, bounds)
}

describe('attention: masks', () => {
  for (const shape of shapes) {
    const { B, H, kvHeads, L, S, D, E } = shape
    describe(`B, H, Hkv, L, S, D, E = ${[B, H, kvHeads, L, S, D, E].join(', ')}`, () => {
      for (const { name, options, bias } of cases) {
        for (const isCausal of [false, true]) {
          it(`${name}${isCausal ? ', causal' : ''}`, async () => {
            for (const [dtype, tolerance] of tolerances) {
              const [q, k, v, g] = [
                filled([B, H, L, D], 1, dtype),
                filled([B, kvHeads, S, D], 2, dtype),
                filled([B, kvHeads, S, E], 3, dtype),
                filled([B, H, L, E], 4, dtype),
              ] as [Tensor, Tensor, Tensor, Tensor]
              const numbers = [q, k, v, g].map((x) => x.to('float64').dataSync()) as [
                Float64Array,
                Float64Array,
                Float64Array,
                Float64Array,
              ]
              const added = bias(shape)
              const expected = referenceAttention(numbers, shape, (b, h, i, j) =>
                isCausal && j > i ? minus : added(b, h, i, j),
              )
              const call = { ...options(shape), isCausal, enableGqa: true }
              for (const x of [q, k, v]) x.requiresGrad_()
              const [out, weights] = attentionWithWeights(q, k, v, call)
              await expectClose(attention(q, k, v, call), out, { rtol: 0, atol: 0 })
              out.backward({ gradient: g })
              await expectNear(out, expected.out, tolerance)
              await expectNear(weights, expected.weights, tolerance)
              await expectNear(q.grad!, expected.dq, tolerance)
              await expectNear(k.grad!, expected.dk, tolerance)
              await expectNear(v.grad!, expected.dv, tolerance)
              const { entropy, received } = attentionStatistics(q, k, { ...call })
              const narrow = dtype === 'float64' ? 1e-11 : 1e-4
              await expectNear(entropy, expected.entropy, narrow)
              await expectNear(received, expected.received, narrow)
            }
          })
        }
      }
    })
  }

  it('has gradients of weights and of an additive mask through them', () => {
    const leaves = [filled([1, 2, 4, 3], 1), filled([1, 1, 5, 3], 2), filled([1, 1, 5, 2], 3), filled([2, 4, 5], 4)]
    for (const x of leaves) x.requiresGrad_()
    const blockMask = BlockMask.from((i, j) => i !== 1 || j === 0, 4, { keyLength: 5, blockSize: 2 })
    for (const more of [{}, { isCausal: true }, { windowSize: 1 }, { keyLengths: [3] }, { blockMask }]) {
      const call = { enableGqa: true, ...more }
      autograd.gradcheck(
        (q, k, v, attnMask) => attentionWithWeights(q!, k!, v!, { attnMask: attnMask!, ...call })[1],
        leaves,
      )
      autograd.gradcheck((q, k, v, attnMask) => attention(q!, k!, v!, { attnMask: attnMask!, ...call }), leaves)
    }
  })

  it('gives the same bits twice, also with masks and in bfloat16', async () => {
    const once = async (dtype: DType): Promise<unknown> => {
      const [q, k, v] = [1, 2, 3].map((seed) => filled([1, 2, 300, 16], seed, dtype).requiresGrad_())
      const out = attention(q!, k!, v!, { windowSize: [100, 20], blockMask: BlockMask.local(300, 1) })
      out.backward({ gradient: onesLike(out) })
      return Promise.all([out, q!.grad!, k!.grad!, v!.grad!].map((x) => x.data()))
    }
    for (const dtype of ['float32', 'bfloat16', 'float16'] as const)
      expect(await once(dtype)).toEqual(await once(dtype))
  })

  it('needs memory for the tokens, not for their pairs', async () => {
    const peak = async (T: number): Promise<number> => {
      const [q, k, v] = [1, 2, 3].map((seed) => filled([1, 1, T, 16], seed, 'bfloat16').requiresGrad_())
      await collect() // tensors of earlier tests that went meanwhile would make up for what this needs
      await getDefaultDevice().synchronize()
      memory.resetPeak()
      const before = memory.allocated()
      attention(q!, k!, v!, { isCausal: true }).sum().backward()
      attentionStatistics(q!, k!, { isCausal: true })
      await getDefaultDevice().synchronize()
      return memory.maxAllocated() - before
    }
    const [short, long] = [await peak(4096), await peak(16384)]
    expect(long).toBeLessThan(5 * short)
    expect(long).toBeLessThan(64 * 2 ** 20) // the scores alone would take 512 MiB
  })

  it('does not read keys that are hidden by their number', async () => {
    const [q, k, v] = [filled([1, 1, 4, 4], 1), filled([1, 1, 80, 4], 2), filled([1, 1, 80, 4], 3)] as [
      Tensor,
      Tensor,
      Tensor,
    ]
    const poisoned = k.clone()
    noGrad(() => poisoned.narrow(2, 70, 10).fill_(Number.NaN))
    const expected = attention(q, k, v, { keyLengths: [70] })
    await expectClose(attention(q, poisoned, v, { keyLengths: [70] }), expected, { rtol: 0, atol: 0 })
  })
})

describe('BlockMask', () => {
  const array = async (mask: Mask): Promise<number[][]> =>
    ((await mask.blocks.array()) as unknown as boolean[][]).map((row) => row.map(Number))

  it('has the patterns of sparse attention', async () => {
    const four = { blockSize: 2 }
    expect(await array(BlockMask.local(8, 1, four))).toEqual([
      [1, 1, 0, 0],
      [1, 1, 1, 0],
      [0, 1, 1, 1],
      [0, 0, 1, 1],
    ])
    expect(await array(BlockMask.strided(7, 2, four))).toEqual([
      [1, 0, 1, 0],
      [0, 1, 0, 1],
      [1, 0, 1, 0],
      [0, 1, 0, 1],
    ])
    expect(await array(BlockMask.global(8, 1, four))).toEqual([
      [1, 1, 1, 1],
      [1, 0, 0, 0],
      [1, 0, 0, 0],
      [1, 0, 0, 0],
    ])
    expect(await array(BlockMask.causal(4, { keyLength: 8, blockSize: [2, 4] }))).toEqual([
      [1, 0],
      [1, 0],
    ])
    const both = BlockMask.local(8, 0, four)
      .or(BlockMask.global(8, 1, four))
      .and(BlockMask.causal(8, four))
    expect(await array(both)).toEqual([
      [1, 0, 0, 0],
      [1, 1, 0, 0],
      [1, 0, 1, 0],
      [1, 0, 0, 1],
    ])
    expect(both.density).toBe(7 / 16)
  })

  it('is the same as its dense form, for every head its own', async () => {
    const T = 150
    const inputs = [1, 2, 3].map((seed) => filled([2, 3, T, 8], seed, 'float32')) as [Tensor, Tensor, Tensor]
    const perHead = tensor(
      values(3 * 3 * 3, 5).map((x) => x > -0.5),
      { dtype: 'bool' },
    ).view(3, 3, 3)
    const masks = [
      BlockMask.local(T, 1, { blockSize: 16 }),
      BlockMask.strided(T, 3, { blockSize: 20 }).or(BlockMask.global(T, 1, { blockSize: 20 })),
      BlockMask.from(perHead, T),
      BlockMask.from(perHead.unsqueeze(0).expand(2, 3, 3, 3), T),
    ]
    for (const blockMask of masks) {
      for (const isCausal of [false, true]) {
        const dense = attention(...inputs, { attnMask: blockMask.dense(), isCausal })
        await expectClose(attention(...inputs, { blockMask, isCausal }), dense, { rtol: 1e-5, atol: 1e-6 })
      }
    }
  })

  it('says what does not fit', () => {
    expect(() => BlockMask.local(8, -1)).toThrow(
      'BlockMask.local: neighbours is not a size: got -1, expected a whole number of at least 0.',
    )
    expect(() => BlockMask.local(8, 1, { blockSize: 1.5 })).toThrow(ArgumentError)
    expect(() => BlockMask.from(tensor([[1, 0]]), 8)).toThrow(DTypeError)
    expect(() => BlockMask.from(tensor([[true, false]], { dtype: 'bool' }), 8, { blockSize: 4 })).toThrow(
      'BlockMask.from: the blocks do not cover the scores: got [1, 2], expected [..., 2, 2] for 8 queries and 8 keys in blocks of 4 by 4.',
    )
    expect(() => BlockMask.from(tensor([true], { dtype: 'bool' }), 8)).toThrow(
      'BlockMask.from: the blocks do not cover',
    )
    expect(() => BlockMask.local(2 ** 40, 1)).toThrow(
      'BlockMask.local: too many blocks: got 17179869184 by 17179869184, expected at most 2147483647 in all; take larger blocks with { blockSize }.',
    )
    expect(() => new (BlockMask as unknown as new () => unknown)()).toThrow(
      'BlockMask: not made by new: got undefined; use BlockMask.from, .local, .strided, .global or .causal.',
    )
    expect(() => new (BlockMask as unknown as new (x: unknown) => unknown)(tensor([true]))).toThrow(ArgumentError)
    expect(() => BlockMask.local(8, 1).or(BlockMask.local(9, 1))).toThrow(/BlockMask.or: the masks differ: got 9 by 9/)
  })
})

describe('attention: wrong options', () => {
  const q = filled([2, 1, 3, 4], 1)

  it('refuses masks of a wrong shape or dtype', () => {
    expect(() => attention(q, q, q, { attnMask: tensor([[1, 1, 0]], { dtype: 'int64' }) })).toThrow(DTypeError)
    expect(() => attention(q, q, q, { attnMask: filled([2, 3], 1) })).toThrow(ShapeError)
    expect(() => attention(q, q, q, { blockMask: BlockMask.local(4, 1) })).toThrow(
      'scaledDotProductAttention: blockMask is for other lengths: got [1, 1] blocks for 4 queries and 4 keys, expected 3 queries and 3 keys, of 2 batch entries and 1 heads or for all of them.',
    )
    expect(() => attention(q, q, q, { blockMask: [[true]] as never })).toThrow(ArgumentError)
  })

  it('refuses flags and numbers of another type, which would count as something else', () => {
    expect(() => attention(q, q, q, { isCausal: 'false' as never })).toThrow(
      'scaledDotProductAttention: isCausal is neither true nor false: got "false", expected a boolean.',
    )
    expect(() => attention(q, q, q, { enableGqa: 1 as never })).toThrow('enableGqa is neither true nor false: got 1')
    expect(() => attention(q, q, q, { dropoutP: '0.5' as never })).toThrow('not a probability: got "0.5"')
    expect(() => attention(q, q, q, { dropoutP: null as never })).toThrow('not a probability: got null')
    const packed = filled([3, 1, 4], 1)
    expect(() =>
      ops.scaledDotProductAttentionVarlen(packed, packed, packed, [0, 3], [0, 3], { isCausal: 'yes' as never }),
    ).toThrow('scaledDotProductAttentionVarlen: isCausal is neither true nor false')
  })

  it('says what stands in the place of the options', () => {
    expect(() => attention(q, q, q, filled([3, 3], 1) as never)).toThrow(
      'scaledDotProductAttention: the options are not an object: got a Tensor, expected { attnMask',
    )
    expect(() => attention(q, q, q, filled([3, 3], 1) as never)).toThrow('; pass a mask as { attnMask }.')
  })

  it('says that heads have no elements', () => {
    const none = zeros([2, 1, 3, 0])
    expect(() => attention(none, none, none)).toThrow(
      'scaledDotProductAttention: the heads have no elements: got a head dim of 0, expected at least 1, or a scale.',
    )
  })

  it('refuses windows that are none', () => {
    for (const windowSize of [1.5, -2, Number.NaN, [1], [1, 2, 3], ['a', 1], '3', {}]) {
      expect(() => attention(q, q, q, { windowSize: windowSize as never })).toThrow(ArgumentError)
    }
    expect(() => attention(q, q, q, { windowSize: [1, 0.5] })).toThrow(
      'scaledDotProductAttention: windowSize is no window: got [1, 0.5], expected a whole number of keys, or [left, right], with -1 for no bound.',
    )
  })

  it('refuses lengths that are none', async () => {
    expect(() => attention(q, q, q, { keyLengths: [1] })).toThrow(
      'scaledDotProductAttention: wrong number of keyLengths: got 1, expected one for each of 2 batch entries.',
    )
    expect(() => attention(q, q, q, { keyLengths: [1, 4] })).toThrow(IndexError)
    expect(() => attention(q, q, q, { keyLengths: [1, 0.5] })).toThrow(ArgumentError)
    expect(() => attention(q, q, q, { keyLengths: tensor([1, 2]) })).toThrow(DTypeError)
    const late = attention(q, q, q, { keyLengths: tensor([1, 4], { dtype: 'int64' }) })
    await expect(late.data()).rejects.toThrow(IndexError)
  })
})
