// Where memory goes: the peak of each phase of a step by kind, and the largest peak by module.

import { StateError } from '../errors'
import { binding, check, describeContext, nativeError, scratch } from '../native'
import { expectFunction, readOptions } from '../options'
import { flushReleases } from './memory'
import { isListening, notes, noteTensor, setListening } from './memoryNotes'
import type { Tensor } from './tensor'

/** What memory is for. `activations` are all tensors that operations make and that are nothing else, gradients of
 *  activations included; `other` was there before and is none of the model's: batches, other models. */
export type MemoryKind = 'weights' | 'gradients' | 'optimizer' | 'activations' | 'workspace' | 'other'

/** @internal */
export const memoryKinds: readonly MemoryKind[] = [
  'weights',
  'gradients',
  'optimizer',
  'activations',
  'workspace',
  'other',
]

/** A phase at its peak. */
export interface MemoryPhase {
  name: 'forward' | 'backward' | 'step'
  /** Bytes at the peak, the sum of the kinds. */
  peak: number
  kinds: Record<MemoryKind, number>
}

/** What `memory.profile` found, in bytes. */
export interface MemoryReport {
  /** The largest of the phases' peaks. */
  peak: number
  /** Those that were passed, in the order of a step. */
  phases: MemoryPhase[]
  /** Activations and workspace at the peak by module path ('' outside of modules), the largest first. */
  modules: { path: string; bytes: number }[]
  /** Bytes in use over the course of the function, at up to 400 points: the largest of each stretch. */
  timeline: number[]
}

/** Whose tensors are told apart. */
export interface MemoryProfileOptions {
  /** Its parameters are weights, and their gradients gradients. */
  model?: { parameters(): Tensor[] }
  /** Its states are the optimizer's. */
  optimizer?: { readonly state: ReadonlyMap<Tensor, object> }
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
    const phase = phases.get(account.phase)
    if (phase === undefined || account.total > phase.peak) {
      phases.set(account.phase, { name: account.phase, peak: account.total, kinds: { ...account.kinds } })
    }
    if (account.total > peak) [peak, peakAt] = [account.total, i]
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

const mib = (bytes: number): string => (bytes / 2 ** 20).toFixed(1)

/** @internal Rows of text, columns aligned: the first to the left, the others to the right. */
export function formatTable(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)))
  return rows
    .map((row) =>
      row
        .map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}

/** @internal The report as rows of MiB: phases by kind, and modules. */
export function memoryTables({ phases, modules }: MemoryReport, most = 12): [phases: string[][], modules: string[][]] {
  const shown = memoryKinds.filter((kind) => phases.some((phase) => phase.kinds[kind] !== 0))
  const rest = modules.slice(most)
  const rows = modules.slice(0, most).map(({ path, bytes }) => [path || '(outside of modules)', mib(bytes)])
  if (rest.length > 0) {
    rows.push([`(${rest.length} more)`, mib(rest.reduce((sum, { bytes }) => sum + bytes, 0))])
  }
  return [
    [
      ['peak in MiB', ...shown, 'total'],
      ...phases.map(({ name, peak, kinds }) => [name, ...shown.map((kind) => mib(kinds[kind])), mib(peak)]),
    ],
    [['activations and workspace at the peak', 'MiB'], ...rows],
  ]
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

async function settled(): Promise<void> {
  flushReleases()
  const passed = binding.passed()
  if (Array.isArray(passed)) throw nativeError(passed)
  await passed
}

/** @internal */
export async function profile(fn: () => unknown, options: MemoryProfileOptions = {}): Promise<MemoryProfile> {
  const op = 'memory.profile'
  expectFunction(op, fn)
  readOptions(op, options, ['model', 'optimizer'])
  if (isListening()) {
    throw new StateError(op, { problem: 'a profile is under way', action: 'await it before the next one' })
  }
  await settled()
  binding.memoryStats()
  const baseline = scratch[0]!
  check(binding.memoryControl(4, 1))
  setListening(true)
  try {
    noteAll(options)
    await fn()
    await settled()
    const events = binding.memoryEvents()
    if (Array.isArray(events)) throw nativeError(events)
    return new MemoryProfile(follow(events, baseline))
  } finally {
    setListening(false)
    check(binding.memoryControl(4, 0))
  }
}
