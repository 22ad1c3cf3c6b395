import { describe, expect, it } from 'vitest'
import {
  BatchSampler,
  DistributedSampler,
  RandomSampler,
  RandomStream,
  SequentialSampler,
  SubsetRandomSampler,
  WeightedRandomSampler,
} from '../../lib/data/index'
import { random } from '../../lib/index'
import { philox } from '../../lib/philox'

const sorted = (indices: Iterable<number>) => [...indices].sort((a, b) => a - b)

describe('RandomStream', () => {
  it('is philox4x32-10: the published vectors', () => {
    const words = (counter: number[], key: number[]) => {
      const block = new Uint32Array(4)
      philox(block, ...(counter as [number, number, number, number]), ...(key as [number, number]))
      return Array.from(block, (word) => word.toString(16).padStart(8, '0')).join(' ')
    }
    expect(words([0, 0, 0, 0], [0, 0])).toBe('6627e8d5 e169c58d bc57ac4c 9b00dbd8')
    const ones = 2 ** 32 - 1
    expect(words([ones, ones, ones, ones], [ones, ones])).toBe('408f276d 41c83b0e a20bc7c6 6d5451fd')
    const pi = [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344]
    expect(words(pi, [0xa4093822, 0x299f31d0])).toBe('d16cfe09 94fdcceb 5001e420 24126ea1')
  })

  it('uses all bits of the seed and of the substream', () => {
    const random = new RandomStream(2 ** 53 - 1, 5, 2 ** 40 + 3)
    expect(Array.from({ length: 6 }, () => random.uint32())).toEqual([
      1547337816, 301469460, 1395237985, 3456454324, 3814071881, 1290964480,
    ])
  })

  it('integers are even, also below bounds that do not divide 2^32', () => {
    const random = new RandomStream(1)
    const counts = new Uint32Array(7)
    for (let i = 0; i < 70_000; i++) counts[random.integer(7)]!++
    // 10,000 each; 5 standard deviations are 463
    for (const count of counts) expect(Math.abs(count - 10_000)).toBeLessThan(463)
    for (let i = 0; i < 100; i++) expect(random.integer(2 ** 53 - 1)).toBeLessThan(2 ** 53)
    expect(() => random.integer(0)).toThrow('nothing to choose from: got 0')
  })

  it('uniforms and normals have the right mean and variance', () => {
    const random = new RandomStream(2)
    const moments = (draw: () => number) => {
      let [sum, squares] = [0, 0]
      for (let i = 0; i < 20_000; i++) {
        const x = draw()
        sum += x
        squares += x * x
      }
      return [sum / 20_000, squares / 20_000 - (sum / 20_000) ** 2] as const
    }
    const [uniformMean, uniformVariance] = moments(() => random.uniform())
    expect(uniformMean).toBeCloseTo(0.5, 1)
    expect(uniformVariance).toBeCloseTo(1 / 12, 2)
    const [mean, variance] = moments(() => random.normal())
    expect(mean).toBeCloseTo(0, 1)
    expect(variance).toBeCloseTo(1, 1)
  })

  it('refuses seeds that are not integers', () => {
    expect(() => new RandomStream(1.5)).toThrow(
      'RandomStream: a seed must be an integer: got 1.5, expected 0 to 2^53 - 1.',
    )
    expect(() => new RandomStream(-1)).toThrow('got -1')
  })
})

describe('samplers', () => {
  it('sequential: every index in order', () => {
    expect([...new SequentialSampler([7, 7, 7])]).toEqual([0, 1, 2])
  })

  it('random: every index once, in another order each pass', () => {
    const sampler = new RandomSampler({ length: 100 }, { seed: 5 })
    const first = [...sampler]
    expect([...sampler]).toEqual(first)
    sampler.setEpoch(1)
    const second = [...sampler]
    expect(second).not.toEqual(first)
    expect(sorted(second)).toEqual(Array.from({ length: 100 }, (_, i) => i))
  })

  it('random: without a seed the default generator gives one', () => {
    const order = () => [...new RandomSampler({ length: 20 })]
    random.seed(5)
    const first = order()
    expect(order()).not.toEqual(first)
    random.seed(5)
    expect(order()).toEqual(first)
  })

  it('random: numSamples beyond the length begins another permutation; with replacement repeats', () => {
    const sampler = new RandomSampler({ length: 3 }, { numSamples: 7 })
    expect(sampler.length).toBe(7)
    const indices = [...sampler]
    expect(indices).toHaveLength(7)
    expect(sorted(indices.slice(0, 3))).toEqual([0, 1, 2])
    expect(sorted(indices.slice(3, 6))).toEqual([0, 1, 2])
    const drawn = [...new RandomSampler({ length: 3 }, { replacement: true, numSamples: 300, seed: 1 })]
    expect(drawn).toHaveLength(300)
    expect(new Set(drawn)).toEqual(new Set([0, 1, 2]))
  })

  it('random: an empty source gives nothing', () => {
    expect([...new RandomSampler({ length: 0 })]).toEqual([])
    expect([...new RandomSampler({ length: 0 }, { numSamples: 3 })]).toEqual([])
  })

  it('subset: the given indices only', () => {
    expect(sorted(new SubsetRandomSampler([5, 9, 2]))).toEqual([2, 5, 9])
  })

  it('weighted: as often as the weights say, never where they are 0', () => {
    const counts = [0, 0, 0]
    for (const i of new WeightedRandomSampler([1, 0, 3], 40_000, { seed: 1 })) counts[i]!++
    expect(counts[1]).toBe(0)
    expect(counts[2]! / counts[0]!).toBeCloseTo(3, 0)
    expect(sorted(new WeightedRandomSampler([1, 0, 3], 2, { replacement: false }))).toEqual([0, 2])
    expect(() => new WeightedRandomSampler([1, 0], 2, { replacement: false })).toThrow(
      'too few weights above 0: got 1, expected at least 2',
    )
    expect(() => new WeightedRandomSampler([1, -2], 2)).toThrow('weight 1 is not usable: got -2')
  })

  it('batch: lists of indices', () => {
    const sampler = new BatchSampler(new SequentialSampler({ length: 5 }), 2)
    expect([...sampler]).toEqual([[0, 1], [2, 3], [4]])
    expect(sampler.length).toBe(3)
    expect(() => new BatchSampler(sampler as never, 0)).toThrow('BatchSampler: batchSize is out of range: got 0')
  })

  it('distributed: the ranks share a pass, padded from the front or cut', () => {
    const ranks = (options: object) =>
      [0, 1, 2].map((rank) => [...new DistributedSampler({ length: 10 }, { numReplicas: 3, rank, ...options })])
    expect(ranks({ shuffle: false })).toEqual([
      [0, 3, 6, 9],
      [1, 4, 7, 0],
      [2, 5, 8, 1],
    ])
    const cut = ranks({ dropLast: true, seed: 4 })
    expect(cut.map((each) => each.length)).toEqual([3, 3, 3])
    expect(new Set(cut.flat()).size).toBe(9)
    expect(() => new DistributedSampler([], { numReplicas: 2, rank: 2 })).toThrow(
      'rank is out of range: got 2, expected 0 to 1',
    )
  })
})
