// From host arrays to tensors, in the main thread.

import { fromTypedArray } from '../tensor/create'
import type { Tensor } from '../tensor/tensor'
import { type Collate, hostCollate } from './collate'
import { type HostArray, type HostData, mapHostArrays } from './hostArray'

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

/** @internal Tensors for the host arrays of a batch. */
export function toTensors(batch: unknown): unknown {
  return mapHostArrays(batch, ({ data, shape, dtype }) =>
    fromTypedArray(data, shape, dtype === undefined ? {} : { dtype }),
  )
}

/** @internal The default collate of this thread. */
export const mainCollate: Collate = (samples) => hostCollate(samples)

/** Stacks samples of one structure into a batch, as a DataLoader does by default.
 *  @example defaultCollate([{ x: 1 }, { x: 2 }]).x // tensor([1, 2]) */
export function defaultCollate<T>(samples: T[]): Tensors<Batched<T>> {
  return toTensors(mainCollate(samples)) as Tensors<Batched<T>>
}
