// What ptxas says of each kernel, and which instructions it has made of it.

import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { architectures } from './architectures'
import type { Family } from './ptx'
import type { Toolchain } from './toolchain'

const call = promisify(execFile)
const mostOutput = { maxBuffer: 1 << 30 }

export interface Resources {
  registers: number
  /** Bytes of a thread, and how many of them are for registers that did not suffice. */
  stack: number
  spills: number
  /** Bytes of a block that are known when it is compiled. */
  sharedBytes: number
}

/** By kernel; instructions are empty where nvdisasm was not found. */
export type Assembled = Record<string, Resources & { instructions: Record<string, number> }>

export function parseResources(log: string): Map<string, Resources> {
  const kernels = new Map<string, Resources>()
  for (const part of log.split("Compiling entry function '").slice(1)) {
    const name = part.slice(0, part.indexOf("'"))
    const number = (pattern: RegExp): number => Number(pattern.exec(part)?.[1] ?? 0)
    kernels.set(name, {
      registers: number(/Used (\d+) registers/),
      stack: number(/(\d+) bytes stack frame/),
      spills: number(/(\d+) bytes spill stores/) + number(/(\d+) bytes spill loads/),
      sharedBytes: number(/(\d+) bytes smem/),
    })
  }
  return kernels
}

/** The instructions that say how a kernel moves and multiplies; loads and stores by their bits. `all` counts the rest,
 *  too, but for what fills the end. */
export function parseInstructions(text: string): Map<string, Record<string, number>> {
  const kernels = new Map<string, Record<string, number>>()
  for (const part of text.split(/^\.text\./m).slice(1)) {
    const counts: Record<string, number> = { all: 0 }
    const add = (key: string): void => {
      counts[key] = (counts[key] ?? 0) + 1
    }
    for (const [, name] of part.matchAll(/^\s+\/\*[0-9a-f]+\*\/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)/gm)) {
      const [first, ...rest] = name!.split('.')
      if (first === 'NOP') continue
      add('all')
      if (/^(LDG|STG|LDS|STS)$/.test(first!)) {
        add(`${first}.${rest.find((each) => each === '128' || each === '64') ?? '32'}`)
      } else if (/^(HMMA|LDSM|LDGSTS|FFMA|DFMA|MUFU|BAR|SHFL|ATOMG|LDL|STL|LDC)$/.test(first!)) {
        add(first!)
      }
    }
    kernels.set(part.slice(0, part.indexOf(':')), counts)
  }
  return kernels
}

/** Names of what is local to a file have hashes of its path in them. */
const unplaced = (ptx: string): string => ptx.replace(/[0-9a-f]{8}_\d+_\w+?_cu_[0-9a-f]{8}/g, '')

export const hashOf = (text: string): string => createHash('sha256').update(unplaced(text)).digest('hex').slice(0, 16)

async function assemble(
  tools: Toolchain,
  { name, path, ptx }: Family,
  architecture: number,
  folder: string,
): Promise<Assembled> {
  const kept = join(
    folder,
    `${name}_${architecture}_${hashOf(`${ptx}${tools.version}${tools.nvdisasm !== null}`)}.json`,
  )
  if (existsSync(kept)) return JSON.parse(readFileSync(kept, 'utf8'))
  const cubin = join(folder, `${name}_${architecture}.cubin`)
  const { stderr } = await call(tools.ptxas, [`-arch=sm_${architecture}`, '-v', path, '-o', cubin], mostOutput)
  const code = tools.nvdisasm === null ? '' : (await call(tools.nvdisasm, ['-c', cubin], mostOutput)).stdout
  rmSync(cubin)
  const instructions = parseInstructions(code)
  const assembled: Assembled = Object.fromEntries(
    [...parseResources(stderr)].map(([kernel, resources]) => [
      kernel,
      { ...resources, instructions: instructions.get(kernel) ?? {} },
    ]),
  )
  writeFileSync(kept, JSON.stringify(assembled))
  return assembled
}

/** By architecture and kernel. Assembles as many at a time as there are processors, and what is not in `folder` from
 *  another time; `tell` hears of progress. */
export async function assembleAll(
  tools: Toolchain,
  families: readonly Family[],
  folder: string,
  tell: (text: string) => void,
): Promise<Map<number, Assembled>> {
  mkdirSync(folder, { recursive: true })
  const jobs = architectures.flatMap(({ number }) => families.map((family) => ({ family, number })))
  const of = jobs.length
  const all = new Map<number, Assembled>(architectures.map(({ number }) => [number, {}]))
  const work = async (): Promise<void> => {
    for (let job = jobs.shift(); job !== undefined; job = jobs.shift()) {
      Object.assign(all.get(job.number)!, await assemble(tools, job.family, job.number, folder))
      tell(`${job.family.name} for sm_${job.number}, ${of - jobs.length} of ${of}`)
    }
  }
  await Promise.all(Array.from({ length: availableParallelism() }, work))
  return all
}
