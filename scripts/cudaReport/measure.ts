// Runs the workloads on the simulator and reads what its counters say of each kernel.

import { execFile } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { groups } from './workloads'
import type { Ideal } from './workloads/workload'

const call = promisify(execFile)
const root = join(__dirname, '../..')
const library = join(root, 'build/cudasim/lib')

export interface Measured {
  workload: string
  ideal: Ideal
  launches: number
  /** Bytes; once where lanes of a request share an address. */
  loaded: number
  stored: number
  /** Sectors of 32 bytes that accesses touched. */
  sectors: number
  /** Shares of the bytes that moved 16 at a time. */
  wideLoads: number
  wideStores: number
  /** Of shared memory: wavefronts, and how many there would be without conflicts. */
  wavefronts: number
  idealWavefronts: number
  /** Operations of threads on floating numbers, two for a multiply-add, and of tensor cores. */
  flops: number
  tensorFlops: number
}

interface Counters {
  launches: number
  opcodes: Record<string, { warps: number; threads: number }>
  [name: string]: unknown
}

const byteOf: Record<string, number> = { 8: 1, 16: 2, 32: 4, 64: 8 }

/** Bytes that an access by this opcode moves for each thread; 0 for other opcodes. */
function bytesOf(opcode: string, kind: 'ld' | 'st'): number {
  if (kind === 'ld' && opcode.startsWith('cp.async.cg.')) return 16
  if (!opcode.startsWith(`${kind}.global`)) return 0
  const width = /\.[busf](8|16|32|64)$/.exec(opcode)
  const vector = /\.v([24])\./.exec(opcode)
  return width === null ? 0 : byteOf[width[1]!]! * Number(vector?.[1] ?? 1)
}

function measure(counters: Counters, workload: string, ideal: Ideal): Measured {
  const number = (name: string): number => counters[name] as number
  const opcodes = Object.entries(counters.opcodes)
  const wide = (kind: 'ld' | 'st', all: number): number => {
    const moved = opcodes.filter(([name]) => bytesOf(name, kind) === 16).map(([, { threads }]) => 16 * threads)
    return all === 0 ? 1 : Math.min(1, moved.reduce((sum, each) => sum + each, 0) / all)
  }
  let flops = 0
  let tensorFlops = 0
  for (const [name, { warps, threads }] of opcodes) {
    if (name.startsWith('mma.')) tensorFlops += warps * 2 * 16 * 8 * (name.includes('k16') ? 16 : 8)
    if (/^(fma|mad)\..*f(32|64|16)/.test(name)) flops += 2 * threads
    if (/^(add|sub|mul|div|sqrt|rcp|ex2|lg2|max|min)\..*f(32|64|16)$/.test(name)) flops += threads
  }
  const [loaded, stored] = [number('globalDistinctLoaded'), number('globalDistinctStored')]
  return {
    workload,
    ideal,
    launches: counters.launches,
    loaded,
    stored,
    sectors: number('globalLoadSectors') + number('globalStoreSectors'),
    wideLoads: wide('ld', loaded),
    wideStores: wide('st', stored),
    wavefronts: number('sharedLoadWavefronts') + number('sharedStoreWavefronts'),
    idealWavefronts: number('sharedIdealWavefronts'),
    flops,
    tensorFlops,
  }
}

async function runGroup(index: number, folder: string): Promise<[string, Measured][]> {
  const counters = join(folder, `${index}.json`)
  const runner = join(__dirname, 'runGroup.ts')
  const report = join(folder, `${index}.txt`)
  await call(process.execPath, ['--import', 'tsx', runner, String(index)], {
    cwd: root,
    env: {
      ...process.env,
      LD_LIBRARY_PATH: library,
      CUDASIM_COUNTERS: counters,
      CUDASIM_REPORT: report,
      CUDASIM_THREADS: '1',
      CUDASIM_SEED: '0',
      GRADUS_CUBLASLT: '0', // our own products
      GRADUS_NO_CUDA_MEMORY_CACHING: '1', // tensors begin on the same boundaries each time
    },
  })
  if (existsSync(report)) throw new Error(`the simulator found\n${readFileSync(report, 'utf8')}`)
  const { kernels } = JSON.parse(readFileSync(counters, 'utf8')) as { kernels: Record<string, Counters> }
  const claimed = new Set<string>()
  return groups[index]!.flatMap(({ name, kernels: ideals }) =>
    Object.entries(ideals).map(([kernel, ideal]): [string, Measured] => {
      if (claimed.has(kernel)) throw new Error(`${name}: ${kernel} is in another workload of its group`)
      claimed.add(kernel)
      const found = kernels[kernel]
      if (found === undefined) throw new Error(`${name}: ${kernel} never ran; got ${Object.keys(kernels).join(', ')}`)
      return [kernel, measure(found, name, ideal)]
    }),
  )
}

/** By kernel. As many groups at a time as there are processors. */
export async function measureAll(only = (_index: number): boolean => true): Promise<Record<string, Measured>> {
  const folder = mkdtempSync(join(tmpdir(), 'gradus-cuda-report-'))
  const indices = groups.map((_, i) => i).filter(only)
  const results: [string, Measured][] = []
  const work = async (): Promise<void> => {
    for (let index = indices.shift(); index !== undefined; index = indices.shift()) {
      results.push(...(await runGroup(index, folder)))
    }
  }
  try {
    await Promise.all(Array.from({ length: availableParallelism() }, work))
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
  return Object.fromEntries(results.sort(([a], [b]) => (a < b ? -1 : 1)))
}
