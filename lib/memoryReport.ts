// Where the memory of a step went, as data and as tables.

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
