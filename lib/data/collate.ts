// From a list of samples to a batch of host arrays. Runs in worker threads, so it must not load the addon.

import { ArgumentError, DTypeError, describeShape, describeValue, ShapeError } from '../errors'
import type { WorkerSpec } from './dataset'
import { type HostArray, type HostData, hostArray, isHostArray, isHostData, isPlainObject } from './hostArray'
import { checkCount } from './sampler'

/** Makes a batch of samples. Runs where the DataLoader runs, unless `toWorker` says how a worker gets it: the named
 *  export is then the collate function itself or, when there are `args`, a function that returns it. */
export interface Collate<T = unknown, B = unknown> {
  (samples: T[]): B | Promise<B>
  toWorker?(): WorkerSpec
}

/** @internal Takes samples of a kind that host memory does not know (tensors); undefined when neither does it. */
export type CollateOther = (values: readonly unknown[], path: string) => unknown

const refuse = (path: string, value: unknown) =>
  new ArgumentError('collate', {
    problem: `${path} cannot be put into a batch`,
    got: describeValue(value),
    expected: 'numbers, BigInt, booleans, text, typed arrays, arrays and plain objects of these',
    action: 'give the DataLoader a collate function of your own',
  })

const deepest = 32

/** @internal Throws for samples that contain themselves. */
export function expectShallow(depth: number, path: string): void {
  if (depth <= deepest) return
  throw new ArgumentError('collate', {
    problem: `${path.slice(0, 40)}… is nested too deep`,
    expected: `at most ${deepest} levels, without cycles`,
  })
}

/** @internal Stacks samples of one structure: numbers give float32 (as `tensor` does), BigInt int64, booleans bool,
 *  typed arrays their own type; text becomes a list, objects and tuples are gone through. */
export function stackSamples(
  samples: readonly unknown[],
  other: CollateOther = () => undefined,
  path = 'sample',
): unknown {
  expectShallow(path.split(/[.[]/).length - 1, path)
  const first = samples[0]
  const count = samples.length
  switch (typeof first) {
    case 'number':
      return hostArray(Float32Array.from(sameKind<number>(samples, path)), [count])
    case 'bigint':
      return hostArray(BigInt64Array.from(sameKind<bigint>(samples, path)), [count])
    case 'boolean':
      return hostArray(Uint8Array.from(sameKind<boolean>(samples, path), Number), [count], 'bool')
    case 'string':
      return sameKind<string>(samples, path)
  }
  if (isHostArray(first) || isHostData(first)) {
    return stackArrays(
      samples.map((data) => {
        if (isHostArray(data)) return data
        if (isHostData(data)) return hostArray(data, [data.length])
        throw refuse(path, data)
      }),
      path,
    )
  }
  if (Array.isArray(first)) return stackTuples(samples, first, other, path)
  if (isPlainObject(first)) {
    return Object.fromEntries(
      Object.keys(first).map((key) => {
        const values = samples.map((sample) => {
          if (isPlainObject(sample) && Object.hasOwn(sample, key)) return sample[key]
          throw new ArgumentError('collate', { problem: `a ${path} lacks the field ${key} that the first one has` })
        })
        return [key, stackSamples(values, other, `${path}.${key}`)]
      }),
    )
  }
  const made = other(samples, path)
  if (made === undefined) throw refuse(path, first)
  return made
}

function sameKind<T>(samples: readonly unknown[], path: string): T[] {
  const kind = typeof samples[0]
  const stranger = samples.find((sample) => typeof sample !== kind)
  if (stranger === undefined) return samples as T[]
  throw new DTypeError('collate', {
    problem: `${path} changes its kind within a batch`,
    got: describeValue(stranger),
    expected: `a ${kind}, as in the first sample`,
  })
}

function stackTuples(samples: readonly unknown[], first: unknown[], other: CollateOther, path: string): unknown {
  const lists = samples as unknown[][]
  const stranger = lists.find((list) => !Array.isArray(list) || list.length !== first.length)
  if (stranger !== undefined) throw lengthError(path, stranger, `${first.length} elements`)
  const columns = first.map((_, i) =>
    stackSamples(
      lists.map((list) => list[i]),
      other,
      `${path}[${i}]`,
    ),
  )
  // A list of numbers (or of rows of numbers) is one tensor; anything else is a tuple of several.
  const numeric = first.every((item) => typeof item === 'number' || (Array.isArray(item) && isHostArray(columns[0])))
  return numeric && first.length > 0 ? interleave(columns as HostArray[], path) : columns
}

/** Columns [B, …] of a list of length L to one array [B, L, …]. */
function interleave(columns: HostArray[], path: string): HostArray {
  const { shape } = columns[0]!
  const stranger = columns.find(
    (column) => !isHostArray(column) || describeShape(column.shape) !== describeShape(shape),
  )
  if (stranger !== undefined)
    throw lengthError(path, stranger.shape, `rows of one length ${describeShape(shape.slice(1))}`)
  const [count, ...inner] = shape as [number, ...number[]]
  const size = inner.reduce((product, n) => product * n, 1)
  const out = new Float32Array(count * columns.length * size)
  columns.forEach(({ data }, c) => {
    for (let b = 0; b < count; b++) {
      out.set((data as Float32Array).subarray(b * size, (b + 1) * size), (b * columns.length + c) * size)
    }
  })
  return hostArray(out, [count, columns.length, ...inner])
}

function stackArrays(arrays: readonly HostArray[], path: string): HostArray {
  const { data: firstData, shape, dtype } = arrays[0]!
  const type = firstData.constructor as new (length: number) => HostData
  const out = new type(arrays.length * firstData.length)
  arrays.forEach((array, i) => {
    const { data } = array
    if (describeShape(array.shape) !== describeShape(shape)) throw lengthError(path, array.shape, describeShape(shape))
    if (data.constructor !== type || array.dtype !== dtype) {
      throw new DTypeError('collate', {
        problem: `${path} changes its type within a batch`,
        got: describeValue(data),
        expected: `a ${type.name}, as in the first sample`,
      })
    }
    ;(out as Float32Array).set(data as Float32Array, i * firstData.length)
  })
  return hostArray(out, [arrays.length, ...shape], dtype)
}

const lengthError = (path: string, got: unknown, expected: string) =>
  new ShapeError('collate', {
    problem: `${path} differs in size within a batch`,
    got: Array.isArray(got) ? describeShape(got as number[]) : describeValue(got),
    expected,
    action: 'use padCollate, or a dataset with samples of one size',
  })

/** Fields that padCollate knows; others of a sample are stacked as they are. */
export interface TokenSample {
  /** Token ids of this sequence. */
  inputIds: ArrayLike<number | bigint>
  /** 1 where there is a token; default all. */
  attentionMask?: ArrayLike<number | bigint>
  /** A label for each token, or one for the sequence; default: the tokens themselves. */
  labels?: ArrayLike<number | bigint> | number
  [field: string]: unknown
}

/** Options of padCollate. */
export interface PadOptions {
  /** Token that fills the gaps. Default 0. */
  padId?: number
  /** Label of a filled place, which losses ignore. Default -100. */
  ignoreIndex?: number
  /** Where the gaps are filled. Default 'right'. */
  side?: 'right' | 'left'
  /** Lengths are rounded up to a multiple of this. Default 1. */
  padToMultipleOf?: number
  /** Every batch gets this length, and longer sequences are cut at their end. Default: the longest of each batch. */
  maxLength?: number
}

/** A collate function for sequences of different lengths: `{ inputIds, attentionMask, labels }`, all int32 [B, T].
 *  Labels of filled places are -100; a single label for each sequence gives labels [B].
 *  @example new data.DataLoader(dataset, { batchSize: 8, collate: data.padCollate({ padId: 0 }) }) */
export function padCollate(options: PadOptions = {}): Collate<TokenSample, Record<string, unknown>> {
  const { padId = 0, ignoreIndex = -100, side = 'right', padToMultipleOf = 1, maxLength } = options
  checkCount('padCollate', 'padToMultipleOf', padToMultipleOf)
  if (maxLength !== undefined) checkCount('padCollate', 'maxLength', maxLength)

  const collate = (samples: TokenSample[]) => {
    for (const { inputIds } of samples) {
      if (typeof inputIds?.length !== 'number') throw refuse('sample.inputIds', inputIds)
    }
    const longest = samples.reduce((most, { inputIds }) => Math.max(most, inputIds.length), 0)
    const length = Math.ceil((maxLength ?? longest) / padToMultipleOf) * padToMultipleOf

    const pad = (name: string, rows: ArrayLike<number | bigint>[], fill: number): HostArray => {
      const out = new Int32Array(samples.length * length).fill(fill)
      rows.forEach((row, b) => {
        const tokens = samples[b]!.inputIds.length
        if (row.length !== tokens) throw lengthError(`sample.${name}`, [row.length], `${tokens} elements, as inputIds`)
        const used = Math.min(row.length, length)
        const start = b * length + (side === 'left' ? length - used : 0)
        for (let t = 0; t < used; t++) out[start + t] = Number(row[t])
      })
      return hostArray(out, [samples.length, length])
    }
    const ones = ({ inputIds }: TokenSample) => new Uint8Array(inputIds.length).fill(1)
    const masks = samples.map((sample) => sample.attentionMask ?? ones(sample))
    // Tokens that the sample itself masks are no targets either.
    const labels = samples.map(({ inputIds, labels }, b) =>
      labels === undefined ? Array.from(inputIds, (id, t) => (Number(masks[b]![t]) === 0 ? ignoreIndex : id)) : labels,
    )
    const single = labels.every((label) => typeof label === 'number')
    const rest = samples.map(({ inputIds: _ids, attentionMask: _mask, labels: _labels, ...others }) => others)
    return {
      inputIds: pad(
        'inputIds',
        samples.map(({ inputIds }) => inputIds),
        padId,
      ),
      attentionMask: pad('attentionMask', masks, 0),
      labels: single
        ? hostArray(Int32Array.from(labels as number[]), [samples.length])
        : pad('labels', labels as ArrayLike<number>[], ignoreIndex),
      ...(stackSamples(rest) as Record<string, unknown>),
    }
  }
  return Object.assign(collate, {
    toWorker: (): WorkerSpec => ({ module: __filename, name: 'padCollate', args: [options] }),
  })
}

/** @internal The default collate of workers. */
export const hostCollate: Collate = Object.assign((samples: unknown[]) => stackSamples(samples), {
  toWorker: (): WorkerSpec => ({ module: __filename, name: 'hostCollate' }),
})
