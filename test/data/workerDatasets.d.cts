import type { SampleContext, WorkerSpec } from '../../lib/data/index'

interface NumberSample {
  x: Float32Array
  index: number
  epoch: number
  noise: number
  thread: number
}

export class Numbers {
  constructor(length: number, ms?: number)
  readonly length: number
  get(index: number, context: SampleContext): NumberSample
  toWorker(): WorkerSpec
}

export class Faulty {
  constructor(length: number, at: number, fault: string)
  readonly length: number
  get(index: number): Promise<{ index: number }>
  toWorker(): WorkerSpec
}

export class Counter {
  constructor(length: number)
  iterate(context: { worker: { id: number; count: number } }): AsyncIterable<{ value: number }>
  toWorker(): WorkerSpec
}

export function openNumbers(length: number): Promise<Numbers>

export const sumIndices: {
  (samples: { index: number }[]): { sum: number; thread: number }
  toWorker(): WorkerSpec
}
