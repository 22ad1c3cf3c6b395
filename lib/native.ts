// Loads the addon and is the only file that talks to it.

import { existsSync, readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { dirname, join } from 'node:path'
import {
  ArgumentError,
  DeviceError,
  DTypeError,
  type GradusError,
  IndexError,
  NativeError,
  OutOfMemoryError,
  ShapeError,
  StateError,
} from './errors'

/** @internal One row of native/ops.def. */
export interface OpRow {
  name: string
  attributes: string
  fewestInputs: number
  mostInputs: number
  outputs: number
}

/** [code, message, context] */
type Failure = [number, string, number]

interface Binding {
  setScratch(scratch: Float64Array): Failure | undefined
  leave(skips: boolean): Failure | undefined
  dispatch(): Failure | undefined
  view(): Failure | undefined
  release(): Failure | undefined
  upload(bytes: Uint8Array, aside?: boolean): Failure | undefined
  transfer(aside?: boolean): Failure | undefined
  openDevice(device: number): Failure | undefined
  read(target: Uint8Array, peeks?: boolean): Promise<void> | Failure
  readSync(target: Uint8Array): Failure | undefined
  synchronize(device: number): Promise<void> | Failure
  synchronizeSync(device: number): Failure | undefined
  passed(device: number): Promise<void> | Failure
  markRecord(device: number, isTimed: boolean): object | Failure
  markReached(mark: object): boolean | Failure
  markPassed(mark: object): Promise<void> | Failure
  markElapsed(start: object, end: object): number | Failure
  graphBegin(device: number): object | Failure
  graphEnd(graph: object, isWanted: boolean): Failure | undefined
  graphReplay(graph: object, seed: number, moved: number, rates: Float64Array): Failure | undefined
  graphReset(graph: object): Failure | undefined
  nvtx(device: number, what: number, message: string): Failure | undefined
  collective(): Failure | undefined
  ncclVersion(): number | Failure
  opTable(): OpRow[]
  memoryStats(device: number): Failure | undefined
  memoryControl(device: number, what: number, value: number): Failure | undefined
  memoryNote(device: number, what: number): Failure | undefined
  /** Leaves the number of events that found no room in the scratch buffer. */
  memoryEvents(device: number): Float64Array | Failure
  threads(n: number): number | Failure
  describe(): string | Failure
  cudaMemory(device: number): Failure | undefined
  describeCuda(): string | Failure
  describeBlas(): string | Failure
  describeNccl(): string | Failure
  cudaImages(): Record<string, Uint8Array> | Failure
}

function packageRoot(): string {
  for (let folder = __dirname; ; folder = dirname(folder)) {
    if (existsSync(join(folder, 'package.json'))) return folder
    if (folder === dirname(folder)) return __dirname
  }
}

function load(): Binding {
  const root = packageRoot()
  try {
    // GRADUS_ADDON names a build to use instead, such as one with sanitizers; node-gyp-build returns the addon of this
    // platform, a local build first
    const { GRADUS_ADDON: path } = process.env
    return (path ? require(path) : require('node-gyp-build')(root)) as Binding
  } catch (cause) {
    throw new NativeError('gradus', {
      problem: 'the native addon did not load',
      got: cause instanceof Error ? cause.message.split('\n')[0]! : String(cause),
      cause,
      action: `there is a prebuilt one for linux-x64 (glibc); on ${process.platform}-${process.arch} run "npm run build" in ${root}, or "npx gradus doctor" for more`,
    })
  }
}

/** @internal */
export const binding: Binding = load()

// The process ends when nothing is at work any more, however long that takes. What is queued by then is computed only if
// somebody who listens, too, may read it; what such a listener queues itself it has to wait for.
process.once('exit', () => void binding.leave(process.listenerCount('exit') === 0))

/** @internal Operands and results of every call; native/binding/dispatch.cc describes the layout. */
export const scratch = new Float64Array(32768)

const errorClasses = [ShapeError, DTypeError, DeviceError, IndexError, StateError, OutOfMemoryError, NativeError]

let pathOf: (context: number) => string = () => ''

/** @internal Set by the module system, which knows what a context id stands for. */
export function onDescribeContext(describe: (context: number) => string): void {
  pathOf = describe
}

/** @internal Path of the module that a context id stands for, '' outside of modules. */
export function describeContext(context: number): string {
  return context > 0 ? pathOf(context) : ''
}

let adviceOf: (context: number) => string | null = () => null

/** @internal Set by the module system, which can ask the model that ran what it needs. */
export function onAdviseMemory(advise: (context: number) => string | null): void {
  adviceOf = advise
}

const mib = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`

function outOfMemory(message: string, where: string, advice: string | null): OutOfMemoryError {
  const [why, asked, inUse, reserved, limit, live, place] = message.split('|') as [string, ...string[]]
  const largest = (live ?? '')
    .split(',')
    .filter((pair) => pair !== '')
    .map((pair) => {
      const [context, bytes] = pair.split(':').map(Number) as [number, number]
      return `${describeContext(context) || 'outside modules'} ${mib(bytes)}`
    })
  return new OutOfMemoryError(`allocate${where}`, {
    problem: `out of memory${place ? ` on ${place}` : ''}, ${why}`,
    got: `a request for ${mib(Number(asked))} with ${mib(Number(inUse))} in use and ${mib(Number(reserved))} reserved${
      largest.length > 0 ? ` (largest: ${largest.join(', ')})` : ''
    }`,
    expected: `at most ${mib(Number(limit))} in all`,
    action: `${advice === null ? '' : `${advice}; `}use a smaller batch with gradient accumulation (optim.accumulate), activation checkpointing, a 16-bit dtype, or dispose() and await in loops without modules`,
  })
}

/** @internal The typed error of a failure of the native side. */
export function nativeError(failure: unknown): GradusError {
  if (!Array.isArray(failure)) return new NativeError('gradus', String(failure))
  const [code, message, context] = failure as Failure
  const path = describeContext(context)
  const where = path === '' ? '' : ` (in ${path})`
  if (errorClasses[code] === OutOfMemoryError) return outOfMemory(message, where, adviceOf(context))
  const colon = message.indexOf(': ')
  const op = colon > 0 ? message.slice(0, colon) : 'gradus'
  const rest = colon > 0 ? message.slice(colon + 2) : message
  return new (errorClasses[code] ?? NativeError)(`${op}${where}`, rest)
}

/** @internal Throws when a call of the binding failed. */
export function check(failure: Failure | undefined): void {
  if (failure !== undefined) throw nativeError(failure)
}

check(binding.setScratch(scratch))

// The scheduler's affinity is in availableParallelism; a container's quota (cgroup 2) is not.
function cpuQuota(): number {
  try {
    const [quota, period] = readFileSync('/sys/fs/cgroup/cpu.max', 'utf8').split(' ').map(Number) as [number, number]
    return quota > 0 ? Math.max(1, Math.ceil(quota / period)) : Number.POSITIVE_INFINITY
  } catch {
    return Number.POSITIVE_INFINITY // no cgroup, or no limit
  }
}

function defaultThreads(): number {
  const wanted = Number(process.env.GRADUS_NUM_THREADS ?? '')
  return Number.isInteger(wanted) && wanted > 0 ? wanted : Math.min(availableParallelism(), cpuQuota())
}

/** Sets how many threads the kernels of the CPU backend use, for the whole process.
 *  The default is GRADUS_NUM_THREADS, else the cores that this process may use.
 *  @throws ArgumentError when n is not a whole number from 1 to 1024 */
export function setNumThreads(n: number): void {
  if (!Number.isInteger(n) || n < 1 || n > 1024) {
    throw new ArgumentError('setNumThreads', {
      problem: 'not a number of threads',
      got: String(n),
      expected: 'a whole number from 1 to 1024',
    })
  }
  binding.threads(n)
}

/** How many threads the kernels of the CPU backend use. */
export function getNumThreads(): number {
  return binding.threads(0) as number
}

{
  const result = binding.threads(binding.threads(0) === 0 ? defaultThreads() : 0)
  if (typeof result !== 'number') throw nativeError(result)
}

/** @internal What the CPU backend is made of: SIMD target and library versions. */
export function describeBackend(): { simd: string; onednn: string; openmp: number } {
  const text = binding.describe()
  if (typeof text !== 'string') throw nativeError(text)
  return JSON.parse(text)
}
