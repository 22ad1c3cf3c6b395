import type { Worker } from 'node:worker_threads'
import { describe, expect, it } from 'vitest'
import {
  BatchSampler,
  type Collate,
  ConcatDataset,
  DataLoader,
  Dataset,
  DistributedSampler,
  groups,
  IterableDataset,
  RandomSampler,
  randomSplit,
  SequentialSampler,
  Subset,
  SubsetRandomSampler,
  WeightedRandomSampler,
} from '../../lib/data/index'
import { ArgumentError, IndexError, random, type Tensor } from '../../lib/index'
import { Typed } from './typedDataset'
import { Counter, Faulty, Numbers, openNumbers, sumIndices } from './workerDatasets.cjs'

interface NumberBatch {
  x: Tensor
  index: Tensor
  epoch: Tensor
  noise: Tensor
  thread: Tensor
}

const values = async (tensor: Tensor) => Array.from((await tensor.data()) as Float32Array)

/** The indices of each batch of a pass. */
async function indicesOf(loader: AsyncIterable<unknown>): Promise<number[][]> {
  const batches: number[][] = []
  for await (const batch of loader) batches.push(await values((batch as NumberBatch).index))
  return batches
}

/** The worker threads that `action` started; a thread that has ended has the id -1. */
async function workersOf(action: () => Promise<unknown>): Promise<Worker[]> {
  const workers: Worker[] = []
  const note = (worker: Worker) => workers.push(worker)
  process.on('worker', note)
  await action()
  process.off('worker', note)
  return workers
}

describe('DataLoader in the main thread', () => {
  it('gives batches of tensors in order, the last one shorter', async () => {
    const loader = new DataLoader(new Numbers(5), { batchSize: 2 })
    expect(loader.length).toBe(3)
    const batches = []
    for await (const { x, index } of loader as AsyncIterable<NumberBatch>) {
      batches.push([await x.array(), await index.array()])
    }
    expect(batches).toEqual([
      [
        [
          [0, 0.5],
          [1, 1.5],
        ],
        [0, 1],
      ],
      [
        [
          [2, 2.5],
          [3, 3.5],
        ],
        [2, 3],
      ],
      [[[4, 4.5]], [4]],
    ])
  })

  it('dropLast leaves out a batch that is not full', async () => {
    const loader = new DataLoader(new Numbers(5), { batchSize: 2, dropLast: true })
    expect(loader.length).toBe(2)
    expect(await indicesOf(loader)).toEqual([
      [0, 1],
      [2, 3],
    ])
  })

  it('shuffles by seed and pass: the same order on every platform', async () => {
    const loader = new DataLoader(new Numbers(8), { batchSize: 8, shuffle: true, seed: 1337 })
    const [first] = await indicesOf(loader)
    const [second] = await indicesOf(loader)
    expect(first).toEqual([7, 6, 2, 3, 0, 5, 4, 1])
    expect(second).toEqual([7, 4, 5, 0, 6, 2, 3, 1])
    const again = new DataLoader(new Numbers(8), { batchSize: 8, shuffle: true, seed: 1337 })
    expect(await indicesOf(again)).toEqual([first])
  })

  it('takes a sampler or a batch sampler', async () => {
    const dataset = new Numbers(6)
    const reversed = {
      length: 6,
      *[Symbol.iterator]() {
        for (let i = 5; i >= 0; i--) yield i
      },
    }
    expect(await indicesOf(new DataLoader(dataset, { sampler: reversed, batchSize: 4 }))).toEqual([
      [5, 4, 3, 2],
      [1, 0],
    ])
    const batchSampler = new BatchSampler(new SequentialSampler(dataset), 4, true)
    expect(await indicesOf(new DataLoader(dataset, { batchSampler }))).toEqual([[0, 1, 2, 3]])
  })

  it('gives samples as they are with batchSize null', async () => {
    const samples = []
    for await (const sample of new DataLoader(['a', 'b'], { batchSize: null })) samples.push(sample)
    expect(samples).toEqual(['a', 'b'])
  })

  it('reads arrays, subsets, concatenations and random splits', async () => {
    const rows = Array.from({ length: 10 }, (_, index) => ({ index }))
    const [train, rest] = randomSplit(
      new ConcatDataset(new Numbers(6), new Subset(new Numbers(9), [8, 7, 6, 5])),
      [0.8, 0.2],
      { seed: 3 },
    )
    expect([train!.length, rest!.length]).toEqual([8, 2])
    const both = [...(await indicesOf(new DataLoader(train!))), ...(await indicesOf(new DataLoader(rest!)))].flat()
    expect(both.sort()).toEqual([0, 1, 2, 3, 4, 5, 5, 6, 7, 8])
    expect(await indicesOf(new DataLoader(rows, { batchSize: 5 }))).toEqual([
      [0, 1, 2, 3, 4],
      [5, 6, 7, 8, 9],
    ])
  })

  it('groups batches, the last group shorter', async () => {
    expect(() => groups(5 as never, 2)).toThrow(
      'groups: no loader: got 5, expected a DataLoader, or what else can be iterated; pass the count second.',
    )
    expect(() => groups(null as never, 2)).toThrow(ArgumentError)
    expect(groups([1, 2, 3] as never, 2).length).toBe(2)
    const grouped = groups(new DataLoader(new Numbers(7), { batchSize: 2 }), 3)
    expect(grouped.length).toBe(2)
    const sizes = []
    for await (const group of grouped) sizes.push(group.length)
    expect(sizes).toEqual([3, 1])
  })

  it('iterable datasets have no length and no order but their own', async () => {
    class Stream extends IterableDataset<{ index: number }> {
      *iterate() {
        for (let index = 0; index < 5; index++) yield { index }
      }
    }
    const loader = new DataLoader(new Stream(), { batchSize: 2 })
    expect(await indicesOf(loader)).toEqual([[0, 1], [2, 3], [4]])
    expect(await indicesOf(new DataLoader(new Stream(), { batchSize: 2, dropLast: true }))).toEqual([
      [0, 1],
      [2, 3],
    ])
    expect(() => loader.length).toThrow('DataLoader.length: an iterable dataset has no length; count the batches.')
    expect(() => new DataLoader(new Stream(), { shuffle: true })).toThrow('an order of its own: got shuffle')
  })

  it('refuses options that exclude each other, and unknown ones', () => {
    const dataset = new Numbers(4)
    const sampler = new RandomSampler(dataset)
    const batchSampler = new BatchSampler(sampler, 2)
    expect(() => new DataLoader(dataset, { sampler, shuffle: true })).toThrow(
      'DataLoader: sampler and shuffle exclude each other; leave out shuffle.',
    )
    expect(() => new DataLoader(dataset, { batchSampler, batchSize: 2 })).toThrow('batchSampler and batchSize exclude')
    expect(() => new DataLoader(dataset, { batchSampler, shuffle: true })).toThrow('batchSampler and shuffle exclude')
    expect(() => new DataLoader(dataset, { batchSampler, sampler })).toThrow('batchSampler and sampler exclude')
    expect(() => new DataLoader(dataset, { batchSampler, dropLast: true })).toThrow('batchSampler and dropLast exclude')
    expect(() => new DataLoader(dataset, { batchSize: 0 })).toThrow(
      'batchSize is out of range: got 0, expected an integer from 1',
    )
    expect(() => new DataLoader(dataset, { batchSize: Number.NaN })).toThrow('got NaN')
    expect(() => new DataLoader(dataset, { numWorkers: -1 })).toThrow('numWorkers is out of range: got -1')
    expect(() => new DataLoader(dataset, { persistentWorkers: true })).toThrow('persistentWorkers needs workers')
    expect(() => new DataLoader(dataset, { prefetchFactor: 2 })).toThrow('prefetchFactor needs workers')
    expect(() => new DataLoader(dataset, { batch_size: 2 } as object)).toThrow('unknown option: got batch_size')
    expect(() => new DataLoader(dataset, { numWorkers: 1, timeout: -1 })).toThrow('timeout is out of range: got -1')
    expect(() => new DataLoader({ length: Number.NaN, get: () => 1 })).toThrow(
      'length of the dataset is out of range: got NaN',
    )
    expect(() => new DataLoader(7 as never)).toThrow('DataLoader: not a dataset: got 7')
  })

  it('names an index out of range', async () => {
    const sampler = {
      length: 1,
      *[Symbol.iterator]() {
        yield 4
      },
    }
    const pass = indicesOf(new DataLoader(new Numbers(4), { sampler }))
    await expect(pass).rejects.toThrow(IndexError)
    await expect(pass).rejects.toThrow('the sampler gave an index out of range: got 4, expected 0 to 3.')
  })
})

describe('DataLoader with workers', () => {
  it('gives what one thread gives, in the same order', async () => {
    const options = { batchSize: 3, shuffle: true, seed: 7 }
    const collect = async (numWorkers: number) => {
      const batches = []
      for await (const batch of new DataLoader(new Numbers(20), { ...options, numWorkers })) {
        const { x, index, noise } = batch as unknown as NumberBatch
        batches.push([await x.array(), await index.array(), await noise.array()])
      }
      return batches
    }
    const alone = await collect(0)
    expect(alone).toHaveLength(7)
    expect(await collect(1)).toEqual(alone)
    expect(await collect(3)).toEqual(alone)
  })

  it('overlaps: sleeping workers work at the same time as each other and as the consumer', async () => {
    const ms = 50
    const batches = 16
    const loader = new DataLoader(new Numbers(batches, ms), {
      numWorkers: 4,
      prefetchFactor: 2,
      persistentWorkers: true,
    })
    await indicesOf(loader) // the threads have started
    const begin = performance.now()
    const threads = new Set<number>()
    for await (const batch of loader as unknown as AsyncIterable<NumberBatch>) {
      threads.add(await batch.thread.item())
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
    const elapsed = performance.now() - begin
    await loader.close()
    expect(threads.size).toBe(4)
    // One thread after the other takes 16 x (50 + 10) = 960 ms, one that overlaps with the consumer 800 ms, four that
    // overlap with each other about 4 x 50 ms.
    expect(elapsed).toBeLessThan(600)
  })

  it('leaves no worker behind after a pass, a break, a throw in the loop', async () => {
    const loader = new DataLoader(new Numbers(50), { numWorkers: 2 })
    const workers = await workersOf(async () => {
      await indicesOf(loader)
      for await (const _ of loader) break
      await expect(async () => {
        for await (const _ of loader) throw new Error('stop')
      }).rejects.toThrow('stop')
    })
    expect(workers.map(({ threadId }) => threadId)).toEqual([-1, -1, -1, -1, -1, -1])
  })

  it('keeps persistent workers and their threads from pass to pass', async () => {
    const threads = async (loader: AsyncIterable<unknown>) => {
      const ids = new Set<number>()
      for await (const batch of loader as AsyncIterable<NumberBatch>) ids.add(await batch.thread.item())
      return [...ids].sort()
    }
    const kept = new DataLoader(new Numbers(40), { numWorkers: 2, persistentWorkers: true })
    const first = await threads(kept)
    for await (const _ of kept) break
    expect(await threads(kept)).toEqual(first)
    await kept.close()
    const fresh = new DataLoader(new Numbers(40), { numWorkers: 2 })
    expect(await threads(fresh)).not.toEqual(await threads(fresh))
  })

  it('collates in the worker when the function can be sent, else here', async () => {
    const collated = async (collate: Collate<ReturnType<Numbers['get']>, unknown>) => {
      const sums = []
      for await (const batch of new DataLoader(new Numbers(4), { batchSize: 2, numWorkers: 1, collate }))
        sums.push(batch)
      return sums as { sum: number; thread: number }[]
    }
    const there = await collated(sumIndices)
    expect(there.map(({ sum }) => sum)).toEqual([1, 5])
    expect(there[0]!.thread).toBeGreaterThan(0)
    const here = await collated((samples: { index: number }[]) => ({ sum: samples[1]!.index }))
    expect(here).toEqual([{ sum: 1 }, { sum: 3 }])
  })

  it('makes datasets by an asynchronous function, and subsets of datasets', async () => {
    const opened = Object.assign(await openNumbers(6), {
      toWorker: () => ({ module: new Numbers(1).toWorker().module, name: 'openNumbers', args: [6] }),
    })
    expect(await indicesOf(new DataLoader(opened, { batchSize: 3, numWorkers: 1 }))).toEqual([
      [0, 1, 2],
      [3, 4, 5],
    ])
    const subset = new Subset(new ConcatDataset(new Numbers(3), opened), [8, 2])
    expect(await indicesOf(new DataLoader(subset, { batchSize: 2, numWorkers: 1 }))).toEqual([[5, 2]])
  })

  it('reads datasets that are written in TypeScript', async () => {
    expect(await indicesOf(new DataLoader(new Typed(4), { batchSize: 2, numWorkers: 1 }))).toEqual([
      [0, 1],
      [2, 3],
    ])
  })

  it('iterable datasets share the samples by worker, one batch in turn', async () => {
    const pass = async (numWorkers: number) => {
      const batches = []
      for await (const batch of new DataLoader(new Counter(11), { batchSize: 2, numWorkers })) {
        batches.push(await values((batch as { value: Tensor }).value))
      }
      return batches
    }
    expect(await pass(0)).toEqual([[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10]])
    expect(await pass(3)).toEqual([[0, 3], [1, 4], [2, 5], [6, 9], [7, 10], [8]])
  })
})

describe('DataLoader workers that fail', () => {
  const failing = (fault: string) => indicesOf(new DataLoader(new Faulty(6, 3, fault), { numWorkers: 2 }))

  it('an error keeps its class, message and the stack of the worker', async () => {
    const error = await failing('throw').catch((error: Error) => error)
    expect(error).toBeInstanceOf(RangeError)
    expect((error as Error).message).toBe('no sample 3')
    expect((error as Error).stack).toMatch(/workerDatasets\.cjs:\d+[\s\S]*DataLoader worker [01] of 2/)
  })

  it('an error outside of a sample is told', async () => {
    await expect(failing('later')).rejects.toThrow('exploded at 3')
  })

  it('a thread that ends is an error, not a hang', async () => {
    await expect(failing('exit')).rejects.toThrow(/DataLoader: worker [01] of 2 ended by itself: got exit code 3/)
  })

  it('a sample that takes too long is an error where there is a timeout', async () => {
    const loader = new DataLoader(new Faulty(6, 3, 'hang'), { numWorkers: 2, timeout: 1 })
    await expect(indicesOf(loader)).rejects.toThrow(
      'DataLoader: no batch within the timeout: got 1 s; see what the dataset',
    )
  })

  it('a sample that cannot be sent is an error', async () => {
    await expect(failing('unsendable')).rejects.toThrow(
      'collate: sample.index cannot be put into a batch: got a function',
    )
  })

  it('a dataset that says not how to send it is refused', async () => {
    class Local extends Dataset<number> {
      readonly length = 2
      get(index: number) {
        return index
      }
    }
    await expect(indicesOf(new DataLoader(new Local(), { numWorkers: 1 }))).rejects.toThrow(
      'DataLoader: the dataset cannot be sent to worker threads: got a Local without toWorker(), expected toWorker()',
    )
    const closure = Object.assign(new Local(), {
      toWorker: () => ({ module: __filename, name: 'Local', args: [() => 1] }),
    })
    await expect(indicesOf(new DataLoader(closure, { numWorkers: 1 }))).rejects.toThrow(ArgumentError)
    const { module } = new Numbers(1).toWorker()
    const misnamed = Object.assign(new Local(), { toWorker: () => ({ module, name: 'Nombres' }) })
    await expect(indicesOf(new DataLoader(misnamed, { numWorkers: 1 }))).rejects.toThrow(
      /does not export what the worker needs: got undefined, expected a class or function named Nombres/,
    )
  })
})

describe('DataLoader position', () => {
  const options = { batchSize: 2, shuffle: true, seed: 11 }

  it.each([
    [0, 0],
    [0, 3],
    [2, 2],
    [3, 0],
  ])('a loader with %i workers continues in one with %i', async (before, after) => {
    const make = (numWorkers: number) => new DataLoader(new Numbers(13), { ...options, numWorkers })
    const whole = [...(await indicesOf(make(0)))]
    const reference = make(0)
    await indicesOf(reference)
    whole.push(...(await indicesOf(reference)))

    const first = make(before)
    const got: number[][] = await indicesOf(first)
    for await (const batch of first) {
      got.push(await values((batch as unknown as NumberBatch).index))
      if (got.length === 10) break
    }
    const state = JSON.parse(JSON.stringify(first.stateDict()))
    expect(state).toEqual({ seed: 11, epoch: 1, position: 3 })

    const second = make(after)
    second.loadStateDict(state)
    got.push(...(await indicesOf(second)))
    expect(got).toEqual(whole)
    expect(second.stateDict()).toEqual({ seed: 11, epoch: 2, position: 0 })
  })

  it('without a seed the order comes from the default generator, and travels with the state', async () => {
    const make = () => new DataLoader(new Numbers(30), { batchSize: 30, shuffle: true })
    random.seed(9)
    const first = make()
    const order = await indicesOf(first)
    expect(await indicesOf(make())).not.toEqual(order)
    random.seed(9)
    expect(await indicesOf(make())).toEqual(order)
    const other = make()
    other.loadStateDict({ ...first.stateDict(), epoch: 0 })
    expect(await indicesOf(other)).toEqual(order)
  })

  it('a pass that was broken off is not continued without a state', async () => {
    const loader = new DataLoader(new Numbers(4), { batchSize: 2 })
    for await (const _ of loader) break
    expect(await indicesOf(loader)).toEqual([
      [0, 1],
      [2, 3],
    ])
  })

  it.each([0, 3])('iterable datasets continue as well, %i workers', async (numWorkers) => {
    const make = () => new DataLoader(new Counter(17), { batchSize: 2, numWorkers })
    const read = async (loader: AsyncIterable<unknown>, count: number, into: number[][]) => {
      for await (const batch of loader as AsyncIterable<{ value: Tensor }>) {
        into.push(await values(batch.value))
        if (into.length === count) break
      }
    }
    const whole: number[][] = []
    await read(make(), 99, whole)
    for (const at of [1, 4, whole.length - 1]) {
      const got: number[][] = []
      const first = make()
      await read(first, at, got)
      const second = make()
      second.loadStateDict(first.stateDict())
      await read(second, 99, got)
      expect(got).toEqual(whole)
    }
  })

  it('refuses a state that does not fit', () => {
    const loader = new DataLoader(new Numbers(4))
    expect(() => loader.loadStateDict({ seed: 0, epoch: -1, position: 0 })).toThrow('epoch is out of range: got -1')
    expect(() => loader.loadStateDict(null as never)).toThrow('seed is out of range: got undefined')
    const stream = { turn: 0, delivered: [1, 1] }
    expect(() => loader.loadStateDict({ seed: 0, epoch: 0, position: 2, stream })).toThrow(
      'the position was taken with another number of workers: got 1, expected 2',
    )
  })
})

describe('DataLoader refuses', () => {
  it('samplers and collate functions that are none', () => {
    const make = (options: object) => () => new DataLoader([1, 2], options)
    expect(make({ sampler: 7 })).toThrow('DataLoader: sampler gives no indices: got 7, expected something to iterate')
    expect(make({ batchSampler: {} })).toThrow('DataLoader: batchSampler gives no indices: got an object')
    expect(make({ collate: 5 })).toThrow('DataLoader: collate is not a function: got 5')
  })

  it('samples that contain themselves', async () => {
    const cycle: Record<string, unknown> = { x: 1 }
    cycle.self = cycle
    const pass = async () => {
      for await (const _ of new DataLoader([cycle, cycle], { batchSize: 2 })) break
    }
    await expect(pass()).rejects.toThrow('is nested too deep')
    await expect(pass()).rejects.toThrow(ArgumentError)
  })
})

describe('a loader with a sampler', () => {
  const source = Array.from({ length: 12 }, (_, i) => i)
  const weights = source.map((i) => 1 + i)
  const samplers: [string, () => object][] = [
    ['RandomSampler', () => ({ sampler: new RandomSampler(source), batchSize: 2 })],
    ['RandomSampler with replacement', () => ({ sampler: new RandomSampler(source, { replacement: true }) })],
    ['WeightedRandomSampler', () => ({ sampler: new WeightedRandomSampler(weights, 12), batchSize: 3 })],
    ['SubsetRandomSampler', () => ({ sampler: new SubsetRandomSampler(weights.map((i) => i - 1)), batchSize: 2 })],
    ['DistributedSampler', () => ({ sampler: new DistributedSampler(source, { numReplicas: 1, rank: 0 }) })],
    ['batchSampler', () => ({ batchSampler: new BatchSampler(new RandomSampler(source), 2) })],
  ]
  const take = async (loader: DataLoader<number>, count: number) => {
    const taken: unknown[] = []
    for await (const batch of loader) if (taken.push(await (batch as Tensor).array()) === count) break
    return taken
  }

  it.each(samplers)('%s, drawn from the default generator, resumes in the same order', async (_, options) => {
    const whole = new DataLoader<number>(source, options())
    await take(whole, 99)
    await take(whole, 2)
    const state = JSON.parse(JSON.stringify(whole.stateDict()))
    whole.loadStateDict(state)
    const rest = [await take(whole, 99), await take(whole, 99)]
    random.seed(991)
    const resumed = new DataLoader<number>(source, options())
    resumed.loadStateDict(state)
    expect([await take(resumed, 99), await take(resumed, 99)]).toEqual(rest)
  })

  it('takes a sampler of the caller with or without a state, and states of before there were any', async () => {
    const seen: object[] = []
    const own = { length: 12, [Symbol.iterator]: () => source[Symbol.iterator]() }
    const stateful = { ...own, stateDict: () => ({ at: 3 }), loadStateDict: (state: object) => void seen.push(state) }
    expect(new DataLoader(source, { sampler: own }).stateDict()).not.toHaveProperty('sampler')
    const loader = new DataLoader(source, { sampler: stateful })
    loader.loadStateDict(loader.stateDict())
    expect(seen).toEqual([{ at: 3 }])
    loader.loadStateDict({ seed: 1, epoch: 0, position: 2 })
    expect(seen).toHaveLength(1)
    const drawn = new DataLoader(source, { sampler: new RandomSampler(source) })
    expect(() => drawn.loadStateDict({ seed: 1, epoch: 0, position: 0, sampler: { seed: -1 } })).toThrow(ArgumentError)
    expect(() => drawn.loadStateDict({ seed: 1, epoch: 0, position: 0, sampler: null as never })).toThrow(ArgumentError)
  })
})
