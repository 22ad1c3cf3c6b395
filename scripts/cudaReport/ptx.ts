// The kernels of a build as their PTX declares them.

import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

export interface Entry {
  /** Stem of the file: its family. */
  file: string
  /** Bytes and alignment of the one parameter. */
  bytes: number
  alignment: number
  /** Most threads of a block, which every kernel declares. */
  threads: number
}

export interface Family {
  name: string
  path: string
  ptx: string
}

export const kernelFolder = join(__dirname, '../../build/kernels')

/** The families that were built, in the order of their names; none without nvcc. */
export function readFamilies(folder = kernelFolder): Family[] {
  if (!existsSync(folder)) return []
  const names = readdirSync(folder).filter((name) => name.endsWith('.ptx') && name !== 'probe.ptx')
  return names.sort().map((name) => {
    const path = join(folder, name)
    return { name: name.slice(0, -'.ptx'.length), path, ptx: readFileSync(path, 'utf8') }
  })
}

/** By name. Throws for a kernel whose parameters are not one struct, or whose block has no bound. */
export function entriesOf({ name: file, ptx }: Family): Map<string, Entry> {
  const entries = new Map<string, Entry>()
  for (const [, name, parameters, directives] of ptx.matchAll(/\.entry\s+(\w+)\(([^)]*)\)([^{]*)\{/g)) {
    const parameter = /^\s*\.param\s+\.align\s+(\d+)\s+\.b8\s+\w+\[(\d+)\]\s*$/.exec(parameters!)
    if (parameter === null) throw new Error(`${name}: got parameters ${parameters}, expected one struct`)
    const bound = /\.(?:maxntid|reqntid)\s+(\d+)(?:,\s*(\d+))?(?:,\s*(\d+))?/.exec(directives!)
    if (bound === null) throw new Error(`${name}: its block has no bound; expected __launch_bounds__`)
    entries.set(name!, {
      file,
      alignment: Number(parameter[1]),
      bytes: Number(parameter[2]),
      threads: bound.slice(1).reduce((product, size) => product * Number(size ?? 1), 1),
    })
  }
  return entries
}
