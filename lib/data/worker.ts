// Entry of a DataLoader's worker thread: makes its own dataset, then batches on request, one after the other.

import { pathToFileURL } from 'node:url'
import { parentPort, workerData } from 'node:worker_threads'
import { ArgumentError, describeValue, StateError } from '../errors'
import type { Collate } from './collate'
import { isDataset, isIterableDataset, isNestedSpec, type WorkerSpec } from './dataset'
import { fetchBatch, streamBatches } from './fetch'
import { packBatch, type Reply, type Request, toFailure, type WorkerSetup } from './workerProtocol'

type Export = ((...args: unknown[]) => unknown) & (new (...args: unknown[]) => unknown)

type Namespace = Record<string, unknown> & { default?: Record<string, unknown> }

/** Loaders such as tsx do not reach threads on every Node version: where the program has tsx, TypeScript is loaded by it. */
async function importModule(url: string): Promise<Namespace> {
  try {
    return (await import(url)) as Namespace
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException
    if (!/\.[cm]?tsx?$/.test(url) || !untyped.has(code)) throw error
    const { tsImport } = await import('tsx/esm/api').catch(() => {
      throw new ArgumentError('DataLoader', {
        problem: 'a worker thread cannot load TypeScript here',
        got: url,
        expected: 'JavaScript, or the package tsx beside gradus',
        action: 'install tsx or build the module, or use numWorkers: 0',
        cause: error,
      })
    })
    return (await tsImport(url, url)) as Namespace
  }
}

// What Node says of TypeScript that it cannot read, or cannot read by leaving out the types.
const untyped = new Set([
  'ERR_UNKNOWN_FILE_EXTENSION',
  'ERR_UNSUPPORTED_TYPESCRIPT_SYNTAX',
  'ERR_INVALID_TYPESCRIPT_SYNTAX',
])

async function load({ module, name }: WorkerSpec): Promise<Export> {
  const text = String(module)
  const url = text.startsWith('file:') ? text : pathToFileURL(text).href
  const namespace = await importModule(url)
  // The names of a CommonJS module are not always seen from outside; they are all on its default export.
  const found = namespace[name] ?? namespace.default?.[name]
  if (typeof found === 'function') return found as Export
  throw new ArgumentError('DataLoader', {
    problem: `${text} does not export what the worker needs`,
    got: describeValue(found),
    expected: `a class or function named ${name}`,
    action: 'check toWorker()',
  })
}

async function make(spec: WorkerSpec): Promise<unknown> {
  const create = await load(spec)
  const args = await Promise.all((spec.args ?? []).map((arg) => (isNestedSpec(arg) ? make(arg.$dataset) : arg)))
  // Arrow and async functions have no prototype and cannot be called with new; for the others it makes no difference.
  return create.prototype === undefined ? create(...args) : new create(...args)
}

async function makeCollate(spec: WorkerSpec | undefined): Promise<Collate | undefined> {
  if (spec === undefined) return undefined
  return (spec.args === undefined ? await load(spec) : await make(spec)) as Collate
}

const setup = workerData as WorkerSetup
const ready = Promise.all([make(setup.dataset), makeCollate(setup.collate)])
// A failure is told in the answer to each request.
ready.catch(() => undefined)

let stream: AsyncGenerator<unknown, void> | undefined

async function answer(request: Request): Promise<{ value: unknown } | { done: true }> {
  const [dataset, collate] = await ready
  if (request.kind === 'batch') {
    if (!isDataset(dataset)) throw wrongDataset(dataset, 'a dataset with length and get()')
    return { value: await fetchBatch(dataset, collate, request.pass, request.indices) }
  }
  if (!isIterableDataset(dataset)) throw wrongDataset(dataset, 'an iterable dataset with iterate()')
  if (request.kind === 'stream') {
    await stream?.return()
    stream = streamBatches(dataset, collate, request.stream)
    return { done: true }
  }
  const next = await stream?.next()
  return next === undefined || next.done ? { done: true } : { value: next.value }
}

const wrongDataset = (got: unknown, expected: string) =>
  new StateError('DataLoader', {
    problem: `${setup.dataset.name} of ${setup.dataset.module} made something else in the worker`,
    got: describeValue(got),
    expected,
  })

async function serve(request: Request): Promise<void> {
  const { id } = request
  try {
    const result = await answer(request)
    const { value, transfer } = packBatch(result)
    parentPort!.postMessage({ id, ...(value as object) }, transfer)
  } catch (error) {
    parentPort!.postMessage({ id, failure: toFailure(error) } satisfies Reply)
  }
}

// One after the other, in the order asked: a dataset need not bear two calls at once.
let turn = Promise.resolve()
parentPort!.on('message', (request: Request) => {
  turn = turn.then(() => serve(request))
})
