// Between tensors and host arrays, in the main thread.

import { Device } from '../device'
import { ArgumentError, describeValue, ShapeError } from '../errors'
import { fromTypedArray } from '../tensor/create'
import { Tensor } from '../tensor/tensor'
import { type Collate, expectShallow, stackSamples } from './collate'
import { Dataset, RowDataset, type WorkerSpec } from './dataset'
import { type HostArray, type HostData, hostArray, isPlainObject, mapHostArrays } from './hostArray'

/** What the default collate makes of samples of a type. */
export type Batched<T> = T extends Tensor | HostArray | HostData | number | bigint | boolean
  ? Tensor
  : T extends string
    ? string[]
    : T extends readonly number[] | readonly (readonly number[])[]
      ? Tensor
      : T extends object
        ? { [K in keyof T]: Batched<T[K]> }
        : unknown

/** A batch after its host arrays became tensors. */
export type Tensors<B> = B extends HostArray
  ? Tensor
  : B extends Tensor | string | number | boolean | bigint | null | undefined
    ? B
    : B extends object
      ? { [K in keyof B]: Tensors<B[K]> }
      : B

/** @internal Tensors for the host arrays of a batch, on a device if one is named: then the copy runs beside what the device
 *  has to do, and only what uses the batch waits for it. */
export function toTensors(batch: unknown, device: Device | null = null): unknown {
  return mapHostArrays(batch, ({ data, shape, dtype }) => {
    const options = dtype === undefined ? {} : { dtype }
    if (device === null) return fromTypedArray(data, shape, options)
    const host = fromTypedArray(data, shape, { ...options, device: Device.cpu })
    const there = host.to(device, { nonBlocking: true })
    if (there !== host) host.dispose()
    return there
  })
}

async function toHost(tensor: Tensor): Promise<HostArray> {
  return hostArray(await tensor.data(), tensor.shape, tensor.dtype)
}

function holdsTensor(sample: unknown, depth = 0): boolean {
  if (sample instanceof Tensor) return true
  expectShallow(depth, 'sample')
  const parts = Array.isArray(sample) ? sample : isPlainObject(sample) ? Object.values(sample) : []
  return parts.some((each) => holdsTensor(each, depth + 1))
}

async function withoutTensors(sample: unknown): Promise<unknown> {
  if (sample instanceof Tensor) return toHost(sample)
  if (Array.isArray(sample)) return Promise.all(sample.map(withoutTensors))
  if (!isPlainObject(sample)) return sample
  const entries = Object.entries(sample).map(async ([key, value]) => [key, await withoutTensors(value)] as const)
  return Object.fromEntries(await Promise.all(entries))
}

/** @internal The default collate of this thread, where samples may hold tensors. */
export const mainCollate: Collate = async (samples) =>
  stackSamples(samples.some((each) => holdsTensor(each)) ? await Promise.all(samples.map(withoutTensors)) : samples)

/** Stacks samples of one structure into a batch, as a DataLoader does by default. The values of tensors are copied,
 *  without their history.
 *  @example (await defaultCollate([{ x: 1 }, { x: 2 }])).x // tensor([1, 2]) */
export async function defaultCollate<T>(samples: T[]): Promise<Tensors<Batched<T>>> {
  return toTensors(await mainCollate(samples)) as Tensors<Batched<T>>
}

/** The rows of tensors of one length: sample i is a tuple of their elements i. The values are copied when the first
 *  sample is read.
 *  @example
 *  const loader = new data.DataLoader(new data.TensorDataset(inputs, targets), { batchSize: 32, shuffle: true })
 *  for await (const [x, y] of loader) learn(x, y) */
export class TensorDataset<A extends readonly Tensor[]> extends Dataset<{ -readonly [K in keyof A]: HostArray }> {
  readonly length: number
  private readonly tensors: A
  private rows: Promise<RowDataset> | undefined

  constructor(...tensors: A) {
    super()
    for (const tensor of tensors) {
      if (!(tensor instanceof Tensor)) {
        throw new ArgumentError('TensorDataset', { problem: 'not a tensor', got: describeValue(tensor) })
      }
      if (tensor.shape[0] === undefined || tensor.shape[0] !== tensors[0]!.shape[0]) {
        throw new ShapeError('TensorDataset', {
          problem: 'the tensors differ in length',
          got: tensors.map((each) => `[${each.shape.join(', ')}]`).join(' and '),
          expected: 'one size of the first dim',
        })
      }
    }
    this.tensors = tensors
    this.length = tensors[0]?.shape[0] ?? 0
  }

  private read(): Promise<RowDataset> {
    this.rows ??= Promise.all(this.tensors.map(toHost)).then((columns) => new RowDataset(columns, this.length))
    return this.rows
  }

  async get(index: number): Promise<{ -readonly [K in keyof A]: HostArray }> {
    return (await this.read()).get(index) as { -readonly [K in keyof A]: HostArray }
  }

  override async toWorker(): Promise<WorkerSpec> {
    return (await this.read()).toWorker()
  }
}
