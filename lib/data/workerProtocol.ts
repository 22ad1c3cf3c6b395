// What the main thread and a worker say to each other.

import * as errors from '../errors'
import type { WorkerSpec } from './dataset'
import type { Pass, StreamOptions } from './fetch'
import { type HostArray, mapHostArrays } from './hostArray'

/** @internal What a worker is started with. */
export interface WorkerSetup {
  dataset: WorkerSpec
  /** Undefined: samples are sent as they are. */
  collate: WorkerSpec | undefined
}

/** @internal `batch`: a map-style batch. `stream`: begins a pass over an iterable dataset; `next`: its next batch. */
export type Request = { id: number } & (
  | { kind: 'batch'; pass: Pass; indices: readonly number[] | number }
  | { kind: 'stream'; stream: StreamOptions }
  | { kind: 'next' }
)

/** @internal */
export type Reply = { id: number } & ({ value: unknown } | { done: true } | { failure: Failure })

/** @internal An error on its way between threads: structured clone would drop its class and fields. */
export interface Failure {
  name: string
  message: string
  stack: string | undefined
  code: unknown
  op: unknown
}

/** @internal */
export function toFailure(error: unknown): Failure {
  if (!(error instanceof Error))
    return { name: 'Error', message: String(error), stack: undefined, code: undefined, op: undefined }
  const { name, message, stack } = error
  const { code, op } = error as { code?: unknown; op?: unknown }
  return {
    name,
    message,
    stack,
    code: typeof code === 'symbol' ? undefined : code,
    op: typeof op === 'string' ? op : undefined,
  }
}

const classes = new Map<string, { prototype: object }>([
  ...Object.entries(errors as Record<string, unknown>).filter((entry): entry is [string, typeof errors.GradusError] =>
    entry[0].endsWith('Error'),
  ),
  ...[TypeError, RangeError, SyntaxError, ReferenceError].map((type): [string, ErrorConstructor] => [type.name, type]),
])

/** @internal The same error in this thread: of its class, with the stack of the worker and the worker's name. */
export function fromFailure({ name, message, stack, code, op }: Failure, where: string): Error {
  const error = new Error(message)
  const type = classes.get(name)
  if (type === undefined) error.name = name
  else Object.setPrototypeOf(error, type.prototype)
  const fields = { name, ...(code === undefined ? {} : { code }), ...(op === undefined ? {} : { op }) }
  for (const [field, value] of Object.entries(fields)) {
    Object.defineProperty(error, field, { value, configurable: true, writable: true })
  }
  error.stack = `${stack ?? `${name}: ${message}`}\n    at ${where}`
  return error
}

/** @internal The buffers of a batch that move instead of being copied. An array that fills only a part of its buffer
 *  is copied first: the rest of the buffer is not the batch's to give away. */
export function packBatch(batch: unknown): { value: unknown; transfer: ArrayBuffer[] } {
  const transfer = new Set<ArrayBuffer>()
  const value = mapHostArrays(batch, (array: HostArray) => {
    const { data } = array
    const whole = data.buffer instanceof ArrayBuffer && data.byteLength === data.buffer.byteLength
    const own = whole ? data : data.slice()
    if (data.byteLength > 0) transfer.add(own.buffer as ArrayBuffer)
    return { ...array, data: own }
  })
  return { value, transfer: [...transfer] }
}
