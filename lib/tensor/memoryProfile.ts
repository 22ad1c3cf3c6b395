// Where memory goes: the peak of each phase of a step by kind, and the largest peak by module.

import { Device, type DeviceName, device as deviceOf } from '../device'
import { ArgumentError, describeValue, StateError } from '../errors'
import {
  formatTable,
  type MemoryKind,
  type MemoryPhase,
  type MemoryReport,
  memoryKinds,
  memoryTables,
} from '../memoryReport'
import { binding, check, describeContext, nativeError, scratch } from '../native'
import { expectFunction, readOptions } from '../options'
import { flushReleases, memoryStats } from './memory'
import { notes, noteTensor, setListening } from './memoryNotes'
import type { Tensor } from './tensor'

/** Whose tensors are told apart. */
export interface MemoryProfileOptions {
  /** Its parameters are weights, and their gradients gradients. */
  model?: { parameters(): Tensor[] }
  /** Its states are the optimizer's. */
  optimizer?: { readonly state: ReadonlyMap<Tensor, object> }
  /** Whose memory; default that of the first parameter of `model`, else of `optimizer`, else `getDefaultDevice()`. */
  device?: DeviceName | Device
}

interface Live {
  bytes: number
  kind: MemoryKind
  context: number
}

const kindOfNote = new Map<number, MemoryKind>([
  [notes.weights, 'weights'],
  [notes.gradients, 'gradients'],
  [notes.optimizer, 'optimizer'],
])
const phaseOfNote = new Map<number, MemoryPhase['name']>([
  [notes.forward, 'forward'],
  [notes.backward, 'backward'],
  [notes.step, 'step'],
])
const [WORKSPACE, RELEASE, NOTE] = [1, 2, 3]

/** Follows the log. */
class Account {
  readonly live = new Map<number, Live>()
  readonly kinds = Object.fromEntries(memoryKinds.map((kind) => [kind, 0])) as Record<MemoryKind, number>
  total: number
  phase: MemoryPhase['name'] = 'forward'

  constructor(baseline: number) {
    this.total = baseline
    this.kinds.other = baseline
  }

  apply(kind: number, context: number, address: number, bytes: number): void {
    const present = this.live.get(address)
    if (kind === NOTE) {
      if (address === 0) this.phase = phaseOfNote.get(context) ?? this.phase
      else this.rename(address, present, bytes, kindOfNote.get(context)!)
    } else if (kind === RELEASE) {
      this.kinds[present?.kind ?? 'other'] -= bytes
      this.total -= bytes
      this.live.delete(address)
    } else {
      const entry: Live = { bytes, context, kind: kind === WORKSPACE ? 'workspace' : 'activations' }
      this.live.set(address, entry)
      this.kinds[entry.kind] += bytes
      this.total += bytes
    }
  }

  private rename(address: number, present: Live | undefined, bytes: number, kind: MemoryKind): void {
    const entry = present ?? { bytes, context: 0, kind: 'other' }
    this.kinds[entry.kind] -= entry.bytes
    entry.kind = kind
    this.kinds[kind] += entry.bytes
    this.live.set(address, entry)
  }
}

const points = 400

function follow(events: Float64Array, baseline: number): MemoryReport {
  const count = events.length / 4
  const pass = (account: Account, i: number): void =>
    account.apply(events[4 * i]!, events[4 * i + 1]!, events[4 * i + 2]!, events[4 * i + 3]!)
  const account = new Account(baseline)
  const phases = new Map<MemoryPhase['name'], MemoryPhase>()
  const timeline: number[] = []
  let [peak, peakAt] = [baseline, -1]
  const stretch = Math.max(1, Math.ceil(count / points))
  for (let i = 0; i < count; i++) {
    pass(account, i)
    const slot = Math.floor(i / stretch)
    timeline[slot] = Math.max(timeline[slot] ?? 0, account.total)
    // the last moment of a peak: by then notes have said what its newest tensors are
    const phase = phases.get(account.phase)
    if (phase === undefined || account.total >= phase.peak) {
      phases.set(account.phase, { name: account.phase, peak: account.total, kinds: { ...account.kinds } })
    }
    if (account.total >= peak) [peak, peakAt] = [account.total, i]
  }
  const again = new Account(baseline)
  for (let i = 0; i <= peakAt; i++) pass(again, i)
  const modules = new Map<string, number>()
  for (const { bytes, context, kind } of again.live.values()) {
    if (kind !== 'activations' && kind !== 'workspace') continue
    const path = describeContext(context)
    modules.set(path, (modules.get(path) ?? 0) + bytes)
  }
  return {
    peak,
    phases: [...phaseOfNote.values()].flatMap((name) => phases.get(name) ?? []),
    modules: [...modules].map(([path, bytes]) => ({ path, bytes })).sort((a, b) => b.bytes - a.bytes),
    timeline,
  }
}

/** A report that prints itself as a table. */
export class MemoryProfile implements MemoryReport {
  readonly peak: number
  readonly phases: MemoryPhase[]
  readonly modules: { path: string; bytes: number }[]
  readonly timeline: number[]

  /** @internal */
  constructor(report: MemoryReport) {
    this.peak = report.peak
    this.phases = report.phases
    this.modules = report.modules
    this.timeline = report.timeline
  }

  toString(): string {
    return memoryTables(this).map(formatTable).join('\n\n')
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return this.toString()
  }
}

function noteAll({ model, optimizer }: MemoryProfileOptions): void {
  for (const param of model?.parameters() ?? []) {
    noteTensor(param, 'weights')
    if (param.grad !== null) noteTensor(param.grad, 'gradients')
  }
  for (const state of optimizer?.state.values() ?? []) {
    for (const value of Object.values(state) as (Tensor | undefined | number)[]) {
      if (typeof value === 'object') noteTensor(value, 'optimizer')
    }
  }
}

function expectOwners(op: string, options: MemoryProfileOptions): void {
  const { model, optimizer } = readOptions(op, options, ['model', 'optimizer', 'device'])
  const parts = [
    ['model', 'module', model, typeof model?.parameters === 'function'],
    ['optimizer', 'optimizer', optimizer, optimizer?.state instanceof Map],
  ] as const
  for (const [name, kind, given, fits] of parts) {
    if (given === undefined || fits) continue
    throw new ArgumentError(op, { problem: `${name} is no ${kind}`, got: describeValue(given) })
  }
}

function placeOf({ model, optimizer, device }: MemoryProfileOptions): Device {
  if (device !== undefined) return deviceOf(device)
  const param = model?.parameters()[0] ?? optimizer?.state.keys().next().value
  return param?.device ?? Device._default
}

let isProfiling = false // from the call on: it waits before it listens. The log itself refuses other threads
const mostEvents = 2 ** 22 // 100 MB

async function settled(device: Device): Promise<void> {
  flushReleases()
  await device.passed()
}

/** @internal */
export async function profile(
  fn: () => unknown,
  options: MemoryProfileOptions = {},
  most = mostEvents,
): Promise<MemoryProfile> {
  const op = 'memory.profile'
  expectFunction(op, fn)
  expectOwners(op, options)
  if (isProfiling) {
    throw new StateError(op, { problem: 'a profile is under way', action: 'await it before the next one' })
  }
  const device = placeOf(options)
  isProfiling = true
  try {
    await settled(device)
    const baseline = memoryStats(device).allocated
    check(binding.memoryControl(device._code, 4, most))
    setListening(true, device)
    noteAll(options)
    await fn()
    await settled(device)
    const events = binding.memoryEvents(device._code)
    if (Array.isArray(events)) throw nativeError(events)
    const missed = scratch[0]!
    if (missed > 0) {
      throw new StateError(op, {
        problem: 'the log was full before fn was done',
        got: `${most + missed} events`,
        expected: `at most ${most}`,
        action: 'profile a step or a few of them',
      })
    }
    return new MemoryProfile(follow(events, baseline))
  } finally {
    isProfiling = false
    setListening(false)
    check(binding.memoryControl(device._code, 4, 0))
  }
}
