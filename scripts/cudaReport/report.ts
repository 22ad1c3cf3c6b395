// The report as data, and what it must show.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { architectures, occupancy } from './architectures'
import { type Documents, readDocuments } from './documents'
import { decode } from './encode'
import type { Measured } from './measure'
import { entriesOf, type Family } from './ptx'
import { type Assembled, hashOf } from './resources'

/** Of one kernel on one architecture. */
export interface OnArchitecture {
  registers: number
  stack: number
  spills: number
  sharedBytes: number
  /** Share of the most warps that a multiprocessor holds. */
  occupancy: number
  instructions: Record<string, number>
}

export interface Report {
  /** Of nvcc and ptxas. */
  toolchain: string
  /** Whether nvdisasm was there to count instructions. */
  disassembled: boolean
  /** Of each family's PTX. */
  hashes: Record<string, string>
  /** By architecture, in the order of `architectures`. */
  kernels: Record<string, OnArchitecture[]>
  measured: Record<string, Measured>
}

export const reportPath = join(__dirname, '../../docs/cuda-report.json')
export const pagePath = join(__dirname, '../../docs/cuda-report.md')

export const readReport = (): Report => decode(readFileSync(reportPath, 'utf8'))

export const hashesOf = (families: readonly Family[]): Record<string, string> =>
  Object.fromEntries(families.map(({ name, ptx }) => [name, hashOf(ptx)]))

/** Dynamic shared memory of a kernel, which its file does not know. */
function dynamicBytes(kernel: string, { sharedBytes }: Documents): number {
  return [...sharedBytes].find(([beginning]) => kernel.startsWith(beginning))?.[1] ?? 0
}

export function makeReport(
  toolchain: { version: string; nvdisasm: string | null },
  families: readonly Family[],
  assembled: ReadonlyMap<number, Assembled>,
  measured: Record<string, Measured>,
): Report {
  const kernels: Report['kernels'] = {}
  const documents = readDocuments()
  for (const family of families) {
    for (const [name, { threads }] of [...entriesOf(family)].sort(([a], [b]) => (a < b ? -1 : 1))) {
      kernels[name] = architectures.map((architecture) => {
        const { registers, stack, spills, sharedBytes, instructions } = assembled.get(architecture.number)![name]!
        const all = sharedBytes + dynamicBytes(name, documents)
        const share = occupancy(architecture, { registers, threads, sharedBytes: all })
        return { registers, stack, spills, sharedBytes: all, occupancy: Math.round(1e4 * share) / 1e4, instructions }
      })
    }
  }
  return {
    toolchain: toolchain.version,
    disassembled: toolchain.nvdisasm !== null,
    hashes: hashesOf(families),
    kernels,
    measured,
  }
}

// --- bars ------------------------------------------------------------------------------------------------------------

/** Kernels that may have a stack, and why. */
const stacks: Record<string, string> = {
  gradus_pointwise_unary_f64: 'the reduction of large arguments of sin and cos',
}

/** The least share of a multiprocessor's warps that a kind of kernels has to leave room for, and why it is enough. */
export interface Floor {
  readonly what: string
  readonly kernels: RegExp
  readonly least: number
  readonly why: string
}

/** The first one that fits a kernel is its own. A multiprocessor has four schedulers and room for up to 64 warps; what a
 *  warp has under way by itself, others need not have. */
export const floors: readonly Floor[] = [
  {
    what: 'attention on tensor cores',
    kernels: /^gradus_attention_mma_/,
    least: 1 / 16,
    why: 'a warp a scheduler: tiles fill shared memory, and while one is multiplied the next one is copied',
  },
  {
    what: 'products, and attention without tensor cores, whose threads sum a square of results each',
    kernels: /^gradus_(gemm_(large|small)|attention)_/,
    least: 1 / 8,
    why: 'two warps a scheduler: 64 products of a thread that do not wait for each other, and the next tiles on their way',
  },
  {
    what: 'optimizers, and gradients of norms whose threads hold four packs of a row',
    kernels: /^gradus_(optim|norm_backward)_/,
    least: 1 / 8,
    why: 'each thread has 128 bits of every operand, twice or four times, on their way before it needs the first',
  },
  {
    what: 'products on tensor cores',
    kernels: /^gradus_gemm_mma_/,
    least: 1 / 8,
    why: 'two warps a scheduler of 64 x 64 or 32 x 64 sums in registers, with the next fragments on their way to others',
  },
  {
    what: 'all others',
    kernels: /^/,
    least: 1 / 4,
    why: 'four warps a scheduler: rows in registers, of which each thread loads up to four packs before it needs the first',
  },
]
const leastOccupancy = (kernel: string): number => floors.find(({ kernels }) => kernels.test(kernel))!.least
const mostConflicts = 1.1
const most = { stream: 1.05, tensor: 1.1 }
const leastWide = 0.9 // statistics of rows, terms and such are single numbers between vectors

/** Families that move what they read and write in accesses of 128 bits, and no more of it than they have to. */
const streaming = /^gradus_(pointwise|random|norm|softmax|loss|reduce|optim|optim8|multi_tensor)_/

/** Kernels of these families that no bar holds to that. */
export interface Exception {
  readonly kernels: RegExp
  readonly names: string
  readonly why: string
}

export const exceptions: readonly Exception[] = [
  {
    kernels: /^gradus_norm_backward_(layer|rms)_\w+_any$/,
    names: '`norm_backward_<layer, rms>_<dtype>_any`',
    why: 'of rows that no registers hold, sums of the parameters pass through memory once a row, 128 bits at a time',
  },
  {
    kernels: /^gradus_softmax_columns_/,
    names: '`softmax_columns_<softmax, logSoftmax><, Backward>_<dtype>`',
    why: 'a dim that is not the last: no registers hold its lines, which are read again, neighbours by neighbouring threads',
  },
  {
    kernels: /^gradus_(optim_count|multi_tensor_(norm_total|unscale_total|scaler)|reduce_finish_\w+)$/,
    names: '`optim_count`, `multi_tensor_<norm_total, unscale_total, scaler>`, `reduce_finish_<f64, i64>`',
    why: 'a number or two a tensor, chunk or part of a sum, each at an address of its own or folded in order: no main loop',
  },
  {
    kernels: /^gradus_loss_(check|total)$/,
    names: '`loss_<check, total>`',
    why: 'a target and a number a row, of any dtype and stride, beside rows of as many logits as there are classes',
  },
]

const isOnTensorCores = (kernel: string): boolean => /_mma_/.test(kernel)

/** What falls short of a bar, a line each. */
export function shortcomings({ kernels, measured, disassembled }: Report): string[] {
  const found: string[] = []
  for (const [kernel, rows] of Object.entries(kernels)) {
    rows.forEach(({ stack, spills, occupancy: share, instructions }, i) => {
      const where = `${kernel} on sm_${architectures[i]!.number}`
      if (spills > 0) found.push(`${where}: spills ${spills} bytes, expected none`)
      if (stack > 0 && stacks[kernel] === undefined) found.push(`${where}: a stack of ${stack} bytes, expected none`)
      const least = leastOccupancy(kernel)
      if (share < least) found.push(`${where}: an occupancy of ${share}, expected at least ${least}`)
      if (!disassembled || !isOnTensorCores(kernel)) return
      for (const needed of ['HMMA', 'LDSM', 'LDGSTS']) {
        if (!instructions[needed]) found.push(`${where}: no ${needed}`)
      }
    })
  }
  for (const kernel of Object.keys(kernels)) {
    if (!streaming.test(kernel) || exceptions.some((each) => each.kernels.test(kernel))) continue
    if (measured[kernel]?.ideal.bar === undefined) found.push(`${kernel}: no bar on its accesses, expected one`)
  }
  for (const [kernel, m] of Object.entries(measured)) {
    const { bar, loaded, stored, narrowStores, narrowLoads = 0, flops } = m.ideal
    const expect = (holds: boolean, text: string): void => {
      if (!holds) found.push(`${kernel}, ${m.workload}: ${text}`)
    }
    if (bar === undefined) continue
    const ratio = (m.loaded + m.stored) / (loaded + stored)
    expect(ratio <= most[bar], `moves ${ratio.toFixed(3)} x the ideal bytes, expected at most ${most[bar]}`)
    const wideLoads = m.loaded > narrowLoads ? (m.wideLoads * m.loaded) / (m.loaded - narrowLoads) : 1
    expect(wideLoads >= leastWide, `${(100 * wideLoads).toFixed(0)} % of what it loads in 128 bits`)
    expect(
      narrowStores || m.wideStores >= leastWide,
      `${(100 * m.wideStores).toFixed(0)} % of what it stores in 128 bits`,
    )
    if (bar !== 'tensor') continue
    const conflicts = m.wavefronts / m.idealWavefronts
    expect(conflicts <= mostConflicts, `${conflicts.toFixed(3)} wavefronts for one, expected at most ${mostConflicts}`)
    const operations = m.tensorFlops / flops!
    expect(operations <= 1.1, `${operations.toFixed(3)} x the ideal operations, expected at most 1.1`)
  }
  return found
}

/** Kernels of which nothing is measured. */
export const unmeasured = ({ kernels, measured }: Report): string[] =>
  Object.keys(kernels).filter((kernel) => measured[kernel] === undefined)
