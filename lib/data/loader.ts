// The DataLoader: from a dataset to batches of tensors, in this thread or with worker threads that read ahead.

import { type Device, type DeviceName, device as deviceOf } from '../device'
import { ArgumentError, describeValue, StateError } from '../errors'
import { readOptions } from '../options'
import { forEachTensor } from '../tensor/scope'
import { type Batched, mainCollate, type Tensors, toTensors } from './batch'
import { type Collate, hostCollate } from './collate'
import { ArrayDataset, type DatasetLike, type IterableDataset, isDataset, isIterableDataset, specOf } from './dataset'
import { fetchBatch, type Pass, streamBatches } from './fetch'
import { WorkerPool } from './pool'
import { prefetchIndexed, prefetchStreams, type StreamPosition } from './prefetch'
import { drawSeed } from './randomStream'
import { BatchSampler, checkCount, RandomSampler, type Sampler, SequentialSampler } from './sampler'

/** Options of a DataLoader, as PyTorch's. */
export interface DataLoaderOptions<T, B> {
  /** Samples in a batch; null: samples as they are, one at a time. Default 1. */
  batchSize?: number | null
  /** A new order in each pass, from `seed` and the number of the pass. Default false. */
  shuffle?: boolean
  /** Order of the samples; not with `shuffle`. Its state is saved with the loader's where it has `stateDict` and
   *  `loadStateDict`, as the samplers here do; one without them must be made the same again to resume within a pass. */
  sampler?: Sampler
  /** Lists of indices; not with `batchSize`, `shuffle`, `sampler` and `dropLast`. */
  batchSampler?: Sampler<number[]>
  /** Leave out a last batch that is not full. Default false. */
  dropLast?: boolean
  /** Makes a batch of a list of samples. Default: stack numbers, typed arrays, arrays and objects of these. */
  collate?: Collate<T, B>
  /** Threads that read ahead; 0 reads in this thread, when asked. Default 0. */
  numWorkers?: number
  /** Batches that each worker is ahead. Default 2. */
  prefetchFactor?: number
  /** Keep the workers (and their datasets) from one pass to the next. Default false. */
  persistentWorkers?: boolean
  /** Seconds that a batch from a worker may take; 0: as long as it takes. Default 0. */
  timeout?: number
  /** Where batches are made of what was read; default: `getDefaultDevice()`. A CUDA device that is named copies each batch
   *  from pinned memory while it computes with the one before, so it holds one batch more (not of an iterable dataset). */
  device?: DeviceName | Device
  /** Seed of the order and of `context.random` in datasets. Default: from the default generator, which `random.seed`
   *  seeds. */
  seed?: number
}

/** Where a loader stands. */
export interface DataLoaderState {
  seed: number
  /** Passes that were begun before this one. */
  epoch: number
  /** Batches of this pass that were handed out. */
  position: number
  /** For iterable datasets: what came from which worker. */
  stream?: StreamPosition
  /** State of the sampler or batch sampler that was given, where it has one. */
  sampler?: object
}

const optionNames = [
  'batchSize',
  'shuffle',
  'sampler',
  'batchSampler',
  'dropLast',
  'collate',
  'numWorkers',
  'prefetchFactor',
  'persistentWorkers',
  'timeout',
  'device',
  'seed',
] as const satisfies readonly (keyof DataLoaderOptions<unknown, unknown>)[]

function checkOptions<T, B>(options: DataLoaderOptions<T, B>, iterable: boolean): void {
  const op = 'DataLoader'
  readOptions(op, options, optionNames)
  const given = (name: keyof typeof options) => options[name] !== undefined && options[name] !== false
  const exclude = (name: keyof typeof options, others: (keyof typeof options)[]) => {
    const other = others.find(given)
    if (!given(name) || other === undefined) return
    throw new ArgumentError(op, { problem: `${name} and ${other} exclude each other`, action: `leave out ${other}` })
  }
  for (const name of ['sampler', 'batchSampler'] as const) {
    const value: unknown = options[name]
    if (value === undefined || typeof (value as Iterable<unknown> | null)?.[Symbol.iterator] === 'function') continue
    throw new ArgumentError(op, {
      problem: `${name} gives no indices`,
      got: describeValue(value),
      expected: 'something to iterate: an array or a data.Sampler',
    })
  }
  if (options.collate !== undefined && typeof options.collate !== 'function') {
    throw new ArgumentError(op, {
      problem: 'collate is not a function',
      got: describeValue(options.collate),
      expected: 'a function of a list of samples',
    })
  }
  exclude('batchSampler', ['batchSize', 'shuffle', 'sampler', 'dropLast'])
  exclude('sampler', ['shuffle'])
  const { batchSize, numWorkers = 0, prefetchFactor, timeout = 0, seed = 0 } = options
  if (batchSize !== undefined && batchSize !== null) checkCount(op, 'batchSize', batchSize)
  checkCount(op, 'numWorkers', numWorkers, 0)
  checkCount(op, 'seed', seed, 0)
  if (prefetchFactor !== undefined) checkCount(op, 'prefetchFactor', prefetchFactor)
  if (!(timeout >= 0 && timeout < 2 ** 31 / 1000)) {
    const expected = 'seconds from 0 to 24 days'
    throw new ArgumentError(op, { problem: 'timeout is out of range', got: describeValue(timeout), expected })
  }
  if (batchSize === null && given('dropLast')) {
    throw new ArgumentError(op, { problem: 'dropLast needs batches', got: 'batchSize null' })
  }
  const needsWorkers = (['prefetchFactor', 'persistentWorkers', 'timeout'] as const).find(given)
  if (numWorkers === 0 && needsWorkers !== undefined) {
    throw new ArgumentError(op, {
      problem: `${needsWorkers} needs workers`,
      got: 'numWorkers 0',
      expected: 'numWorkers > 0',
    })
  }
  const ordered = (['shuffle', 'sampler', 'batchSampler'] as const).find(given)
  if (iterable && ordered !== undefined) {
    throw new ArgumentError(op, { problem: 'an iterable dataset has an order of its own', got: ordered })
  }
}

/** Batches of a dataset, pass after pass. Each `for await` is one pass; leaving it early ends the workers, too.
 *  Plain arrays are datasets. Tensors of a batch belong to the caller.
 *  @throws ArgumentError for options that exclude each other; what a dataset throws reaches the loop, from workers with
 *  their stack
 *  @example
 *  const loader = new data.DataLoader(dataset, { batchSize: 32, shuffle: true, numWorkers: 4 })
 *  for await (const { inputIds, labels } of loader) learn(inputIds, labels) */
export class DataLoader<T, B = Batched<T>> implements AsyncIterable<Tensors<B>> {
  readonly dataset: DatasetLike<T> | IterableDataset<T>
  readonly batchSize: number | null
  private readonly order: Sampler<readonly number[] | number> | undefined
  /** The sampler of `shuffle`, which follows the loader's seed. */
  private readonly shuffled: RandomSampler | undefined
  /** The sampler of the caller. */
  private readonly given: Sampler<readonly number[] | number> | undefined
  private readonly collate: Collate | undefined
  private readonly numWorkers: number
  private readonly depth: number
  private readonly dropLast: boolean
  private readonly persistent: boolean
  private readonly timeout: number
  private readonly device: Device | null
  private pool: WorkerPool | undefined
  private seed: number
  private epoch = 0
  private position = 0
  private stream: StreamPosition | undefined
  /** Set by `loadStateDict`: the next pass continues at the position instead of beginning anew. */
  private resumes = true

  constructor(dataset: DatasetLike<T> | IterableDataset<T> | readonly T[], options: DataLoaderOptions<T, B> = {}) {
    const source = Array.isArray(dataset) ? new ArrayDataset<T>(dataset) : dataset
    const iterable = isIterableDataset(source)
    if (!iterable && !isDataset(source)) {
      throw new ArgumentError('DataLoader', {
        problem: 'not a dataset',
        got: describeValue(source),
        expected: 'an object with length and get(index), with iterate(), or an array',
      })
    }
    if (!iterable) checkCount('DataLoader', 'length of the dataset', source.length, 0)
    checkOptions(options, iterable)
    const { batchSize = 1, shuffle = false, sampler, batchSampler, dropLast = false, collate } = options
    this.dataset = source as DatasetLike<T> | IterableDataset<T>
    this.batchSize = batchSize
    this.dropLast = dropLast
    this.collate = collate as Collate | undefined
    this.numWorkers = options.numWorkers ?? 0
    this.depth = options.prefetchFactor ?? 2
    this.persistent = options.persistentWorkers ?? false
    this.timeout = options.timeout ?? 0
    this.device = options.device === undefined ? null : deviceOf(options.device)
    this.seed = options.seed ?? drawSeed()
    this.given = sampler ?? batchSampler
    if (!iterable) {
      const samples = source as DatasetLike<T>
      this.shuffled = shuffle ? new RandomSampler(samples, { seed: this.seed }) : undefined
      const each = sampler ?? this.shuffled ?? new SequentialSampler(samples)
      this.order = batchSampler ?? (batchSize === null ? each : new BatchSampler(each, batchSize, dropLast))
    }
  }

  /** Batches in a pass. @throws StateError for an iterable dataset, whose length nobody knows */
  get length(): number {
    if (this.order !== undefined) return this.order.length
    throw new StateError('DataLoader.length', {
      problem: 'an iterable dataset has no length',
      action: 'count the batches',
    })
  }

  /** Passes that were begun before the present one. */
  get currentEpoch(): number {
    return this.epoch
  }

  /** Where the loader stands, as plain values: also between two batches of a pass, and while workers are ahead. */
  stateDict(): DataLoaderState {
    const { seed, epoch, position, stream } = this
    const sampler = this.given?.stateDict?.()
    return {
      seed,
      epoch,
      position,
      ...(stream === undefined ? {} : { stream: structuredClone(stream) }),
      ...(sampler === undefined ? {} : { sampler: structuredClone(sampler) }),
    }
  }

  /** Continues where another loader stood: the next pass gives the batches that the other had not handed out. Batches
   *  come from the same samples if dataset and options are the same; the number of workers may differ, except for an
   *  iterable dataset. Such a dataset is read again from its start, and what was delivered is left out. */
  loadStateDict(state: DataLoaderState): void {
    const op = 'DataLoader.loadStateDict'
    for (const name of ['seed', 'epoch', 'position'] as const) checkCount(op, name, state?.[name], 0)
    const streams = state.stream?.delivered.length
    if (streams !== undefined && streams !== Math.max(1, this.numWorkers)) {
      throw new StateError(op, {
        problem: 'the position was taken with another number of workers',
        got: `${Math.max(1, this.numWorkers)}`,
        expected: `${streams}`,
        action: 'use as many workers, or begin a new pass',
      })
    }
    if (state.sampler !== undefined) this.given?.loadStateDict?.(state.sampler)
    this.seed = state.seed
    if (this.shuffled !== undefined) this.shuffled.seed = state.seed
    this.epoch = state.epoch
    this.position = state.position
    this.stream = state.stream && structuredClone(state.stream)
    this.resumes = true
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Tensors<B>, void> {
    if (!this.resumes) this.beginEpoch(this.epoch + 1)
    this.resumes = false
    const pass = { seed: this.seed, epoch: this.epoch }
    const pool = this.numWorkers > 0 ? (this.takePool() ?? (await this.makePool())) : undefined
    let finished = false
    const isAhead = this.device?.type === 'cuda' && !isIterableDataset(this.dataset)
    let onItsWay: { tensors: Tensors<B> } | null = null
    try {
      for await (const batch of isIterableDataset(this.dataset)
        ? this.streamed(pass, pool)
        : this.indexed(pass, pool)) {
        const tensors = toTensors(batch, this.device) as Tensors<B>
        const next = isAhead ? onItsWay : { tensors }
        if (isAhead) onItsWay = { tensors }
        if (next === null) continue
        this.position++
        yield next.tensors
      }
      if (onItsWay !== null) {
        const { tensors } = onItsWay
        onItsWay = null
        this.position++
        yield tensors
      }
      finished = true
    } finally {
      forEachTensor(onItsWay, (tensor) => tensor.dispose())
      if (this.persistent && pool !== undefined && !pool.broken && this.pool === undefined) this.pool = pool
      else await pool?.close()
      if (finished) {
        this.beginEpoch(pass.epoch + 1)
        this.resumes = true
      }
    }
  }

  /** Ends workers that were kept between passes. */
  async close(): Promise<void> {
    await this.takePool()?.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  private beginEpoch(epoch: number): void {
    this.epoch = epoch
    this.position = 0
    this.stream = undefined
  }

  private takePool(): WorkerPool | undefined {
    const { pool } = this
    this.pool = undefined
    return pool
  }

  /** A collate function that cannot be sent runs here, on the samples that the workers read. */
  private get collatesHere(): boolean {
    return this.batchSize !== null && this.collate !== undefined && this.collate.toWorker === undefined
  }

  private async makePool(): Promise<WorkerPool> {
    const dataset = await specOf('DataLoader', this.dataset)
    const collate =
      this.collatesHere || this.batchSize === null ? undefined : (this.collate ?? hostCollate).toWorker?.()
    return new WorkerPool({ dataset, collate }, this.numWorkers, this.timeout)
  }

  private async *indexed(pass: Pass, pool: WorkerPool | undefined): AsyncGenerator<unknown, void> {
    const order = this.order!
    order.setEpoch?.(pass.epoch)
    const rest = skip(order, this.position)
    if (pool === undefined) {
      const collate = this.collate ?? mainCollate
      for (const indices of rest) yield fetchBatch(this.dataset as DatasetLike<T>, collate, pass, indices)
      return
    }
    yield* this.collated(prefetchIndexed(pool, rest, pass, this.depth * pool.size))
  }

  private async *streamed(pass: Pass, pool: WorkerPool | undefined): AsyncGenerator<unknown, void> {
    const { batchSize, dropLast } = this
    const count = pool?.size ?? 1
    this.stream ??= { delivered: new Array<number>(count).fill(0), turn: 0 }
    const { stream } = this
    if (pool !== undefined) {
      yield* this.collated(prefetchStreams(pool, stream, { ...pass, batchSize, dropLast }, this.depth))
      return
    }
    const options = { ...pass, batchSize, dropLast, skip: stream.delivered[0]!, worker: { id: 0, count } }
    const collate = this.collate ?? mainCollate
    for await (const batch of streamBatches(this.dataset as IterableDataset<T>, collate, options)) {
      stream.delivered[0]!++
      yield batch
    }
  }

  private async *collated(batches: AsyncIterable<unknown>): AsyncGenerator<unknown, void> {
    for await (const batch of batches) {
      yield this.collatesHere ? this.collate!(batch as unknown[]) : batch
    }
  }
}

function* skip<I>(source: Iterable<I>, count: number): Generator<I, void> {
  let left = count
  for (const item of source) if (left-- <= 0) yield item
}

/** Batches in groups of `count`, for gradient accumulation; the last group may be shorter. Breaking off ends the loader's
 *  pass as well.
 *  @throws ArgumentError for what is no loader, or no count
 *  @example
 *  for await (const group of data.groups(loader, 4)) {
 *    await optim.accumulate(model, group, { optimizer })
 *  } */
export function groups<B>(
  loader: AsyncIterable<B> & { readonly length: number },
  count: number,
): AsyncIterable<B[]> & { readonly length: number } {
  const iterates =
    (loader as AsyncIterable<B> | null)?.[Symbol.asyncIterator] ??
    (loader as Partial<Iterable<B>> | null)?.[Symbol.iterator]
  if (typeof iterates !== 'function') {
    throw new ArgumentError('groups', {
      problem: 'no loader',
      got: describeValue(loader),
      expected: 'a DataLoader, or what else can be iterated',
      action: 'pass the count second',
    })
  }
  checkCount('groups', 'count', count)
  return {
    get length() {
      return Math.ceil(loader.length / count)
    },
    async *[Symbol.asyncIterator]() {
      let group: B[] = []
      for await (const batch of loader) {
        group.push(batch)
        if (group.length < count) continue
        yield group
        group = []
      }
      if (group.length > 0) yield group
    },
  }
}
