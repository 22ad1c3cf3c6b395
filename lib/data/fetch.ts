// Makes batches from a dataset: the same code in the main thread and in workers, so that their number cannot change
// what comes out.

import { ArgumentError, describeValue, IndexError, ShapeError } from '../errors'
import type { Collate } from './collate'
import type { DatasetLike, IterableDataset, IterateContext, SampleContext } from './dataset'
import { RandomStream } from './randomStream'

/** @internal Names a pass over the data. */
export interface Pass {
  seed: number
  epoch: number
}

// The order of a pass is drawn from the stream (seed, epoch); samples draw from streams that cannot meet it.
const sampleStreams = 2 ** 40

/** @internal */
export function sampleContext({ seed, epoch }: Pass, index: number): SampleContext {
  let random: RandomStream | undefined
  return {
    epoch,
    get random() {
      random ??= new RandomStream(seed, epoch, sampleStreams + index)
      return random
    },
  }
}

/** @internal The batch of these indices; samples that are promises are waited for together. */
export async function fetchBatch(
  dataset: DatasetLike<unknown>,
  collate: Collate | undefined,
  pass: Pass,
  indices: readonly number[] | number,
): Promise<unknown> {
  const get = (index: number) => {
    if (Number.isInteger(index) && index >= 0 && index < dataset.length) {
      return dataset.get(index, sampleContext(pass, index))
    }
    throw new IndexError('DataLoader', {
      problem: 'the sampler gave an index out of range',
      got: describeValue(index),
      expected: `0 to ${dataset.length - 1}`,
    })
  }
  if (typeof indices === 'number') return get(indices)
  if (!Array.isArray(indices)) {
    throw new ArgumentError('DataLoader', {
      problem: 'the batch sampler gave no list of indices',
      got: describeValue(indices),
      expected: 'arrays of indices',
      action: 'pass it as sampler instead',
    })
  }
  if (indices.length === 0) throw new ShapeError('DataLoader', { problem: 'the batch sampler gave an empty batch' })
  const samples = await Promise.all(indices.map(get))
  return collate === undefined ? samples : collate(samples)
}

/** @internal How an iterable dataset is cut into batches. */
export interface StreamOptions extends Pass {
  worker: IterateContext['worker']
  /** Null: samples come as they are. */
  batchSize: number | null
  dropLast: boolean
  /** Batches to leave out at the start: those that were delivered before a resume. */
  skip: number
}

/** @internal The batches of one pass over an iterable dataset (one worker's part of it). */
export async function* streamBatches(
  dataset: IterableDataset,
  collate: Collate | undefined,
  { batchSize, dropLast, skip, worker, ...pass }: StreamOptions,
): AsyncGenerator<unknown, void> {
  const size = batchSize ?? 1
  const context = {
    epoch: pass.epoch,
    worker,
    random: new RandomStream(pass.seed, pass.epoch, sampleStreams + worker.id),
  }
  const finish = (samples: unknown[]) =>
    batchSize === null ? samples[0] : collate === undefined ? samples : collate(samples)
  let left = skip
  let samples: unknown[] = []
  for await (const sample of dataset.iterate(context)) {
    samples.push(sample)
    if (samples.length < size) continue
    if (left > 0) left--
    else yield await finish(samples)
    samples = []
  }
  if (samples.length > 0 && !dropLast && left === 0) yield await finish(samples)
}
