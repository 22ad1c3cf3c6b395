// The report as a file: a line a kernel, numbers of an architecture in the order of `columns`.

import type { OnArchitecture, Report } from './report'

const plain = ['registers', 'stack', 'spills', 'sharedBytes', 'occupancy'] as const

export function encode({ kernels, measured, ...rest }: Report): string {
  const names = new Set(Object.values(kernels).flatMap((rows) => rows.flatMap((row) => Object.keys(row.instructions))))
  const instructions = [...names].sort()
  const rowOf = (row: OnArchitecture): number[] => [
    ...plain.map((name) => row[name]),
    ...instructions.map((name) => row.instructions[name] ?? 0),
  ]
  const lines = (entries: [string, unknown][]): string =>
    entries.map(([name, value]) => `    ${JSON.stringify(name)}: ${JSON.stringify(value)}`).join(',\n')
  const header = { ...rest, columns: [...plain, ...instructions] }
  return `{
${Object.entries(header)
  .map(([name, value]) => `  ${JSON.stringify(name)}: ${JSON.stringify(value)},`)
  .join('\n')}
  "kernels": {
${lines(Object.entries(kernels).map(([name, rows]) => [name, rows.map(rowOf)]))}
  },
  "measured": {
${lines(Object.entries(measured))}
  }
}
`
}

export function decode(text: string): Report {
  const { columns, kernels, ...rest } = JSON.parse(text) as Omit<Report, 'kernels'> & {
    columns: string[]
    kernels: Record<string, number[][]>
  }
  const rowOf = (numbers: number[]): OnArchitecture => {
    const all = columns.map((name, i): [string, number] => [name, numbers[i]!])
    return {
      ...(Object.fromEntries(all.slice(0, plain.length)) as Omit<OnArchitecture, 'instructions'>),
      instructions: Object.fromEntries(all.slice(plain.length).filter(([, count]) => count > 0)),
    }
  }
  const decoded = Object.entries(kernels).map(([name, rows]): [string, OnArchitecture[]] => [name, rows.map(rowOf)])
  return { ...rest, kernels: Object.fromEntries(decoded) }
}
