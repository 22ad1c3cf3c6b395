// Which samples come in which order. A sampler is iterable any number of times; `setEpoch` changes what a random one
// gives, so that (seed, epoch) names an order for ever.

import { ArgumentError, describeValue } from '../errors'
import { drawSeed, RandomStream } from './randomStream'

/** An order of indices (or, for a batch sampler, of lists of indices). */
export interface Sampler<I = number> extends Iterable<I> {
  /** How many come in one pass. */
  readonly length: number
  /** Called by the DataLoader before each pass. */
  setEpoch?(epoch: number): void
  /** What the order depends on beside the epoch, such as a seed: plain values. The DataLoader saves and restores them
   *  with its own state; without these two a resumed loader gives the batches of the interrupted pass only if the
   *  sampler was made the same again. */
  stateDict?(): object
  loadStateDict?(state: object): void
}

/** State of the samplers that draw. */
export interface SamplerState {
  seed: number
}

function readSeed(op: string, state: object): number {
  const { seed } = (state ?? {}) as Partial<SamplerState>
  checkCount(op, 'seed', seed as number, 0)
  return seed!
}

/** What a sampler needs to know of a dataset. */
export interface Sized {
  readonly length: number
}

/** Options of the samplers that draw. */
export interface SeedOptions {
  /** Integer, 0 to 2^53 - 1. Default: from the default generator, which `random.seed` seeds. */
  seed?: number
}

/** @internal */
export function checkCount(op: string, name: string, value: number, least = 1): void {
  if (Number.isSafeInteger(value) && value >= least) return
  throw new ArgumentError(op, {
    problem: `${name} is out of range`,
    got: describeValue(value),
    expected: `an integer from ${least}`,
  })
}

/** 0, 1, 2, … to the last. */
export class SequentialSampler implements Sampler {
  constructor(private readonly source: Sized) {}

  get length(): number {
    return this.source.length
  }

  *[Symbol.iterator](): Iterator<number> {
    for (let i = 0; i < this.source.length; i++) yield i
  }
}

/** All indices in random order, the same everywhere for a seed, or `numSamples` draws of them.
 *  @example [...new data.RandomSampler({ length: 3 }, { seed: 1 })].sort() // [0, 1, 2] */
export class RandomSampler implements Sampler {
  /** @internal */
  seed: number
  private readonly replacement: boolean
  private readonly numSamples: number | undefined
  private epoch = 0

  /** @param options.replacement the same index may come again; default false
   *  @param options.numSamples draws in a pass; default `source.length`. Without replacement, more than there are
   *  means further permutations */
  constructor(
    private readonly source: Sized,
    {
      seed = drawSeed(),
      replacement = false,
      numSamples,
    }: SeedOptions & { replacement?: boolean; numSamples?: number } = {},
  ) {
    if (numSamples !== undefined) checkCount('RandomSampler', 'numSamples', numSamples)
    this.seed = seed
    this.replacement = replacement
    this.numSamples = numSamples
  }

  get length(): number {
    return this.numSamples ?? this.source.length
  }

  setEpoch(epoch: number): void {
    this.epoch = epoch
  }

  stateDict(): SamplerState {
    return { seed: this.seed }
  }

  loadStateDict(state: object): void {
    this.seed = readSeed('RandomSampler.loadStateDict', state)
  }

  *[Symbol.iterator](): Iterator<number> {
    const random = new RandomStream(this.seed, this.epoch)
    const n = this.source.length
    if (n === 0) return
    if (this.replacement) {
      for (let i = 0; i < this.length; i++) yield random.integer(n)
      return
    }
    for (let left = this.length; left > 0; left -= n) {
      const order = random.permutation(n)
      yield* left < n ? order.subarray(0, left) : order
    }
  }
}

/** The given indices in random order. */
export class SubsetRandomSampler implements Sampler {
  private readonly order: RandomSampler

  constructor(
    private readonly indices: ArrayLike<number>,
    options: SeedOptions = {},
  ) {
    this.order = new RandomSampler(indices, options)
  }

  get length(): number {
    return this.indices.length
  }

  setEpoch(epoch: number): void {
    this.order.setEpoch(epoch)
  }

  stateDict(): SamplerState {
    return this.order.stateDict()
  }

  loadStateDict(state: object): void {
    this.order.loadStateDict(state)
  }

  *[Symbol.iterator](): Iterator<number> {
    for (const i of this.order) yield this.indices[i]!
  }
}

/** `numSamples` indices, each as likely as its weight. */
export class WeightedRandomSampler implements Sampler {
  private seed: number
  private readonly replacement: boolean
  private epoch = 0

  constructor(
    private readonly weights: ArrayLike<number>,
    readonly length: number,
    { seed = drawSeed(), replacement = true }: SeedOptions & { replacement?: boolean } = {},
  ) {
    const op = 'WeightedRandomSampler'
    checkCount(op, 'numSamples', length)
    const positive = Array.from(weights).filter((weight) => weight > 0 && weight < Infinity).length
    const bad = Array.from(weights).findIndex((weight) => !(weight >= 0 && weight < Infinity))
    if (bad >= 0) {
      throw new ArgumentError(op, {
        problem: `weight ${bad} is not usable`,
        got: describeValue(weights[bad]),
        expected: 'a finite number from 0',
      })
    }
    if (positive < (replacement ? 1 : length)) {
      throw new ArgumentError(op, {
        problem: 'too few weights above 0',
        got: `${positive}`,
        expected: `at least ${replacement ? 1 : length}`,
        action: replacement ? 'give one a weight' : 'draw fewer or with replacement',
      })
    }
    this.seed = seed
    this.replacement = replacement
  }

  setEpoch(epoch: number): void {
    this.epoch = epoch
  }

  stateDict(): SamplerState {
    return { seed: this.seed }
  }

  loadStateDict(state: object): void {
    this.seed = readSeed('WeightedRandomSampler.loadStateDict', state)
  }

  *[Symbol.iterator](): Iterator<number> {
    const random = new RandomStream(this.seed, this.epoch)
    if (!this.replacement) {
      // Efraimidis & Spirakis 2006: the largest of u^(1/w), here as the smallest of -log(u) / w.
      const keys = Array.from(this.weights, (weight, index) => ({
        index,
        key: -Math.log(1 - random.uniform()) / weight,
      }))
      const drawn = keys
        .filter(({ index }) => this.weights[index]! > 0)
        .sort((a, b) => a.key - b.key || a.index - b.index)
      for (const { index } of drawn.slice(0, this.length)) yield index
      return
    }
    const sums = new Float64Array(this.weights.length)
    let total = 0
    for (let i = 0; i < sums.length; i++) sums[i] = total += this.weights[i]!
    for (let i = 0; i < this.length; i++) {
      const at = ((random.uint32() >>> 5) * 2 ** 26 + (random.uint32() >>> 6)) * 2 ** -53 * total
      let low = 0
      for (let high = sums.length - 1; low < high; ) {
        const middle = (low + high) >>> 1
        if (sums[middle]! > at) high = middle
        else low = middle + 1
      }
      yield low
    }
  }
}

/** Lists of `batchSize` indices from another sampler; the last may be shorter unless `dropLast`. */
export class BatchSampler implements Sampler<number[]> {
  constructor(
    readonly sampler: Sampler,
    readonly batchSize: number,
    readonly dropLast = false,
  ) {
    checkCount('BatchSampler', 'batchSize', batchSize)
  }

  get length(): number {
    const batches = this.sampler.length / this.batchSize
    return this.dropLast ? Math.floor(batches) : Math.ceil(batches)
  }

  setEpoch(epoch: number): void {
    this.sampler.setEpoch?.(epoch)
  }

  stateDict(): object {
    return this.sampler.stateDict?.() ?? {}
  }

  loadStateDict(state: object): void {
    this.sampler.loadStateDict?.(state)
  }

  *[Symbol.iterator](): Iterator<number[]> {
    let batch: number[] = []
    for (const index of this.sampler) {
      batch.push(index)
      if (batch.length < this.batchSize) continue
      yield batch
      batch = []
    }
    if (batch.length > 0 && !this.dropLast) yield batch
  }
}

/** The part of a dataset that one rank of several trains on; `seed` (default 0) must be the same on all. All get equally many: the last few samples are
 *  repeated from the front, or left out with `dropLast`. */
export class DistributedSampler implements Sampler {
  private readonly order: Sampler

  constructor(
    private readonly source: Sized,
    private readonly options: SeedOptions & {
      numReplicas: number
      rank: number
      shuffle?: boolean
      dropLast?: boolean
    },
  ) {
    const { numReplicas, rank, shuffle = true, seed = 0 } = options
    checkCount('DistributedSampler', 'numReplicas', numReplicas)
    checkCount('DistributedSampler', 'rank', rank, 0)
    if (rank >= numReplicas) {
      throw new ArgumentError('DistributedSampler', {
        problem: 'rank is out of range',
        got: `${rank}`,
        expected: `0 to ${numReplicas - 1}`,
      })
    }
    this.order = shuffle ? new RandomSampler(source, { seed }) : new SequentialSampler(source)
  }

  get length(): number {
    const share = this.source.length / this.options.numReplicas
    return this.options.dropLast ? Math.floor(share) : Math.ceil(share)
  }

  setEpoch(epoch: number): void {
    this.order.setEpoch?.(epoch)
  }

  stateDict(): object {
    return this.order.stateDict?.() ?? {}
  }

  loadStateDict(state: object): void {
    this.order.loadStateDict?.(state)
  }

  *[Symbol.iterator](): Iterator<number> {
    const { numReplicas, rank } = this.options
    const order = [...this.order]
    for (let i = 0; i < this.length; i++) yield order[(i * numReplicas + rank) % order.length]!
  }
}
