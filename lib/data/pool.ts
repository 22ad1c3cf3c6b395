// The worker threads of a DataLoader, and the requests that are under way in them.

import { existsSync } from 'node:fs'
import { dirname, join, sep } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import { ArgumentError, StateError } from '../errors'
import { isNestedSpec, type WorkerSpec } from './dataset'
import { fromFailure, type Reply, type Request, type WorkerSetup } from './workerProtocol'

/** @internal */
export type Answer = { value: unknown; done?: undefined } | { done: true; value?: undefined }

type Body<R> = R extends { id: number } ? Omit<R, 'id'> : never

interface Pending {
  resolve: (answer: Answer) => void
  reject: (error: Error) => void
}

const libFolder = dirname(__dirname)

/** Threads start from built files. When the library itself runs from its TypeScript sources (its own tests), they are
 *  in dist/ beside lib/. */
function built(file: string): string {
  if (!file.startsWith(libFolder + sep) || !file.endsWith('.ts')) return file
  const compiled = join(dirname(libFolder), 'dist', `${file.slice(libFolder.length + 1, -3)}.js`)
  if (existsSync(compiled)) return compiled
  throw new StateError('DataLoader', {
    problem: 'the worker is not built',
    expected: compiled,
    action: 'run npm run build:ts, or use numWorkers: 0',
  })
}

function resolveSpec({ module, name, args }: WorkerSpec): WorkerSpec {
  const text = String(module)
  const file = text.startsWith('file:') ? fileURLToPath(text) : text
  const resolved = args?.map((arg) => (isNestedSpec(arg) ? { $dataset: resolveSpec(arg.$dataset) } : arg))
  return { module: built(file), name, ...(resolved === undefined ? {} : { args: resolved }) }
}

/** @internal Worker threads that answer requests. They keep the process alive only while an answer is waited for. */
export class WorkerPool {
  private readonly workers: Worker[] = []
  private readonly pending: Map<number, Pending>[] = []
  private nextId = 0
  private waiting = 0
  private failure: Error | undefined

  constructor(
    { dataset, collate }: WorkerSetup,
    readonly size: number,
    /** Seconds to wait for an answer; 0: as long as it takes. */
    private readonly timeout: number,
  ) {
    const workerData: WorkerSetup = {
      dataset: resolveSpec(dataset),
      collate: collate === undefined ? undefined : resolveSpec(collate),
    }
    try {
      for (let i = 0; i < size; i++) this.start(i, workerData)
    } catch (error) {
      void this.close()
      if ((error as Error).name !== 'DataCloneError') throw error
      throw new ArgumentError('DataLoader', {
        problem: 'arguments in toWorker() cannot be sent to a thread',
        got: (error as Error).message,
        expected: 'plain values, arrays, maps and typed arrays',
        cause: error,
      })
    }
  }

  private start(index: number, workerData: WorkerSetup): void {
    const worker = new Worker(built(join(__dirname, `worker${__filename.endsWith('.ts') ? '.ts' : '.js'}`)), {
      workerData,
    })
    const pending = new Map<number, Pending>()
    this.workers.push(worker)
    this.pending.push(pending)
    worker.unref()
    worker.on('message', (reply: Reply) => {
      const task = pending.get(reply.id)
      pending.delete(reply.id)
      if ('failure' in reply) task?.reject(fromFailure(reply.failure, `DataLoader worker ${index} of ${this.size}`))
      else task?.resolve(reply)
    })
    worker.on('error', (error) => this.fail(index, error instanceof Error ? error : new Error(String(error))))
    worker.on('exit', (code) => {
      const problem = `worker ${index} of ${this.size} ended by itself`
      this.fail(index, new StateError('DataLoader', { problem, got: `exit code ${code}` }))
    })
  }

  private fail(index: number, error: Error): void {
    this.failure ??= error
    for (const { reject } of this.pending[index]!.values()) reject(error)
    this.pending[index]!.clear()
  }

  /** Asks one worker, by default the one with the least to do. */
  request(body: Body<Request>, index = this.idlest()): Promise<Answer> {
    const id = this.nextId++
    const answer = new Promise<Answer>((resolve, reject) => {
      if (this.failure !== undefined) return reject(this.failure)
      this.pending[index]!.set(id, { resolve, reject })
      this.workers[index]!.postMessage({ id, ...body })
    })
    // It is looked at in its turn, which may be never: after a break, or when an earlier one fails.
    answer.catch(() => undefined)
    return answer
  }

  /** Waits for an answer, and keeps the process alive meanwhile. */
  async wait(answer: Promise<Answer>): Promise<Answer> {
    if (this.waiting++ === 0) for (const worker of this.workers) worker.ref()
    const limit = this.limit()
    try {
      return await (limit === undefined ? answer : Promise.race([answer, limit.reached]))
    } finally {
      clearTimeout(limit?.timer)
      if (--this.waiting === 0) for (const worker of this.workers) worker.unref()
    }
  }

  private limit(): { timer: NodeJS.Timeout | undefined; reached: Promise<never> } | undefined {
    if (this.timeout === 0) return undefined
    let timer: NodeJS.Timeout | undefined
    const reached = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        this.failure ??= new StateError('DataLoader', {
          problem: 'no batch within the timeout',
          got: `${this.timeout} s`,
          action: 'see what the dataset waits for, or raise timeout',
        })
        reject(this.failure)
      }, this.timeout * 1000)
    })
    return { timer, reached }
  }

  private idlest(): number {
    let least = 0
    for (let i = 1; i < this.size; i++) if (this.pending[i]!.size < this.pending[least]!.size) least = i
    return least
  }

  /** Whether a worker is lost, so that the pool cannot be used again. */
  get broken(): boolean {
    return this.failure !== undefined
  }

  async close(): Promise<void> {
    this.failure ??= new StateError('DataLoader', { problem: 'its workers are closed' })
    await Promise.all(this.workers.map((worker) => worker.terminate()))
  }
}
