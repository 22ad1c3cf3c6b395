// What samples come from. A dataset that is to be read by worker threads says how a worker makes its own copy of it:
// functions and classes do not travel between threads, so it names a module, an export and plain arguments.

import { ArgumentError, describeValue, IndexError } from '../errors'
import { type HostArray, hostArray } from './hostArray'
import { drawSeed, RandomStream } from './randomStream'
import { checkCount, type SeedOptions, type Sized } from './sampler'

/** How a worker thread makes a dataset (or a collate function) of its own. */
export interface WorkerSpec {
  /** File that exports it: `__filename`, `import.meta.url`, or any absolute path or file URL. */
  module: string | URL
  /** Name of the export: a class, or a function (also async) that returns the dataset. */
  name: string
  /** Arguments of the class or function: anything that structuredClone copies. Default none. */
  args?: readonly unknown[]
}

/** What `get` may want to know beside the index. */
export interface SampleContext {
  /** Passes over the dataset before this one. */
  readonly epoch: number
  /** Random numbers of this (seed, epoch, sample): the same with any number of workers and after a resume. */
  readonly random: RandomStream
}

/** Samples by index.
 *  @example
 *  class Squares extends data.Dataset<{ x: number; y: number }> {
 *    readonly length = 100
 *    get(index: number) { return { x: index, y: index ** 2 } }
 *  } */
export abstract class Dataset<T = unknown> implements Sized {
  abstract readonly length: number
  /** The sample at an index from 0 to `length - 1`; may be a promise. */
  abstract get(index: number, context: SampleContext): T | Promise<T>
  /** How a worker thread makes a copy; without it the dataset is read in the main thread only. */
  toWorker?(): WorkerSpec | Promise<WorkerSpec>
}

/** What an iterable dataset's `iterate` is told. */
export interface IterateContext extends SampleContext {
  /** This worker's number and their count, 0 of 1 in the main thread: each takes a part of its own of the samples. */
  readonly worker: { readonly id: number; readonly count: number }
}

/** Samples in a row, when there is no index: logs, streams, archives. */
export abstract class IterableDataset<T = unknown> {
  abstract iterate(context: IterateContext): Iterable<T> | AsyncIterable<T>
  /** How a worker thread makes a copy; without it the dataset is read in the main thread only. */
  toWorker?(): WorkerSpec | Promise<WorkerSpec>
}

/** @internal Anything with `length` and `get` will do, whichever copy of the library its class came from. */
export type DatasetLike<T> = Sized & Pick<Dataset<T>, 'get' | 'toWorker'>

/** @internal */
export function isIterableDataset(value: unknown): value is IterableDataset {
  return typeof (value as IterableDataset | null)?.iterate === 'function'
}

/** @internal */
export function isDataset(value: unknown): value is DatasetLike<unknown> {
  return typeof (value as Dataset | null)?.get === 'function' && typeof (value as Dataset).length === 'number'
}

/** @internal The spec of a dataset inside another's arguments. */
export interface NestedSpec {
  $dataset: WorkerSpec
}

/** @internal The worker's half of `specOf`: replaces the specs among another's arguments. */
export const isNestedSpec = (value: unknown): value is NestedSpec =>
  typeof value === 'object' && value !== null && '$dataset' in value

/** @internal How a worker makes this dataset. @throws ArgumentError when it does not say */
export async function specOf(op: string, dataset: Pick<Dataset, 'toWorker'>): Promise<WorkerSpec> {
  const spec = await dataset.toWorker?.()
  if (spec !== undefined) return spec
  throw new ArgumentError(op, {
    problem: 'the dataset cannot be sent to worker threads',
    got: `${describeValue(dataset)} without toWorker()`,
    expected: "toWorker() { return { module: __filename, name: 'ExportedClass', args: [...] } }",
    action: 'add it, or use numWorkers: 0',
  })
}

const nested = async (dataset: Pick<Dataset, 'toWorker'>): Promise<NestedSpec> => ({
  $dataset: await specOf('DataLoader', dataset),
})

/** Samples that are in memory already. Arrays given to a DataLoader become one of these. */
export class ArrayDataset<T> extends Dataset<T> {
  constructor(private readonly samples: readonly T[]) {
    super()
  }

  get length(): number {
    return this.samples.length
  }

  get(index: number): T {
    return this.samples[index]!
  }

  override toWorker(): WorkerSpec {
    return { module: __filename, name: 'ArrayDataset', args: [this.samples] }
  }
}

/** @internal Rows of arrays in memory: what a TensorDataset is in a worker. */
export class RowDataset extends Dataset<HostArray[]> {
  constructor(
    private readonly columns: readonly HostArray[],
    readonly length: number,
  ) {
    super()
  }

  get(index: number): HostArray[] {
    return this.columns.map(({ data, shape, dtype }) => {
      const inner = shape.slice(1)
      const size = inner.reduce((product, n) => product * n, 1)
      return hostArray(data.subarray(index * size, (index + 1) * size), inner, dtype)
    })
  }

  override toWorker(): WorkerSpec {
    return { module: __filename, name: 'RowDataset', args: [this.columns, this.length] }
  }
}

/** The samples of another dataset at the given indices. */
export class Subset<T> extends Dataset<T> {
  constructor(
    private readonly dataset: DatasetLike<T>,
    private readonly indices: ArrayLike<number>,
  ) {
    super()
    for (let i = 0; i < indices.length; i++) {
      if (Number.isInteger(indices[i]) && indices[i]! >= 0 && indices[i]! < dataset.length) continue
      throw new IndexError('Subset', {
        problem: `index ${i} is out of range`,
        got: describeValue(indices[i]),
        expected: `0 to ${dataset.length - 1}`,
      })
    }
  }

  get length(): number {
    return this.indices.length
  }

  get(index: number, context: SampleContext): T | Promise<T> {
    return this.dataset.get(this.indices[index]!, context)
  }

  override async toWorker(): Promise<WorkerSpec> {
    return { module: __filename, name: 'Subset', args: [await nested(this.dataset), this.indices] }
  }
}

/** Several datasets, one after the other. */
export class ConcatDataset<T> extends Dataset<T> {
  private readonly datasets: DatasetLike<T>[]
  private readonly ends: number[]

  constructor(...datasets: DatasetLike<T>[]) {
    super()
    let end = 0
    this.datasets = datasets
    this.ends = datasets.map((dataset) => (end += dataset.length))
  }

  get length(): number {
    return this.ends.at(-1) ?? 0
  }

  get(index: number, context: SampleContext): T | Promise<T> {
    const which = this.ends.findIndex((end) => index < end)
    return this.datasets[which]!.get(index - (this.ends[which - 1] ?? 0), context)
  }

  override async toWorker(): Promise<WorkerSpec> {
    return { module: __filename, name: 'ConcatDataset', args: await Promise.all(this.datasets.map(nested)) }
  }
}

/** Splits a dataset at random into parts of the given sizes, or fractions that sum to 1 (the last takes the rest).
 *  @example const [train, validation] = data.randomSplit(dataset, [0.9, 0.1], { seed: 1337 }) */
export function randomSplit<T>(
  dataset: DatasetLike<T>,
  lengths: readonly number[],
  { seed = drawSeed() }: SeedOptions = {},
): Subset<T>[] {
  const total = lengths.reduce((sum, length) => sum + length, 0)
  const fractions = lengths.length > 0 && Math.abs(total - 1) < 1e-6 && lengths.every((length) => length <= 1)
  const sizes = fractions ? lengths.map((length) => Math.floor(length * dataset.length)) : [...lengths]
  if (fractions) sizes[sizes.length - 1]! += dataset.length - sizes.reduce((sum, size) => sum + size, 0)
  for (const size of sizes) checkCount('randomSplit', 'a length', size, 0)
  if (sizes.reduce((sum, size) => sum + size, 0) !== dataset.length) {
    throw new ArgumentError('randomSplit', {
      problem: 'the lengths do not add up',
      got: `${lengths.join(' + ')} = ${total}`,
      expected: `${dataset.length} samples, or fractions that sum to 1`,
    })
  }
  const order = new RandomStream(seed).permutation(dataset.length)
  let start = 0
  return sizes.map((size) => {
    const part = order.subarray(start, start + size)
    start += size
    return new Subset(dataset, part)
  })
}
