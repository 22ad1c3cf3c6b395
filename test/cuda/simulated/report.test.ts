// docs/cuda-report.* is of this build, and no bar is missed.
import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { encode } from '../../../scripts/cudaReport/encode'
import { measureAll } from '../../../scripts/cudaReport/measure'
import { render } from '../../../scripts/cudaReport/page'
import { entriesOf, readFamilies } from '../../../scripts/cudaReport/ptx'
import { hashesOf, pagePath, readReport, reportPath, shortcomings } from '../../../scripts/cudaReport/report'
import { findToolchain } from '../../../scripts/cudaReport/toolchain'
import { groups, isQuick } from '../../../scripts/cudaReport/workloads'

const report = readReport()
const families = readFamilies()
const isSameCompiler = findToolchain()?.version === report.toolchain

describe('docs/cuda-report', () => {
  it('misses no bar', () => {
    expect(shortcomings(report)).toEqual([])
  })

  it('would miss one at a spill, a stack, narrow accesses, bytes too many and conflicts', () => {
    const change = (edit: (of: typeof report) => void): string => {
      const copy = structuredClone(report)
      edit(copy)
      return shortcomings(copy).join('\n')
    }
    const [adam, gemm] = ['gradus_optim_adam', 'gradus_gemm_mma_large_nn_float16'] as const
    expect(change(({ kernels }) => Object.assign(kernels[adam]![2]!, { spills: 8 }))).toContain('sm_89: spills 8 bytes')
    expect(change(({ kernels }) => Object.assign(kernels[adam]![0]!, { stack: 16 }))).toContain('sm_80: a stack of 16')
    expect(change(({ measured }) => Object.assign(measured[adam]!, { wideLoads: 0.5 }))).toContain(
      '50 % of what it loads',
    )
    expect(change(({ measured }) => delete measured.gradus_optim8_adamw)).toContain(
      'optim8_adamw: no bar on its accesses',
    )
    expect(change(({ measured }) => Object.assign(measured[gemm]!, { loaded: 1e9 }))).toContain('x the ideal bytes')
    expect(change(({ measured }) => Object.assign(measured[gemm]!, { wavefronts: 1e9 }))).toContain(
      'wavefronts for one',
    )
    if (!report.disassembled) return
    expect(change(({ kernels }) => delete kernels[gemm]![5]!.instructions.LDSM)).toContain('sm_120: no LDSM')
  })

  it('has the page that its numbers give, and is written as they are', () => {
    expect(readFileSync(pagePath, 'utf8')).toBe(render(report))
    expect(readFileSync(reportPath, 'utf8')).toBe(encode(report))
  })

  // another nvcc makes other code, of which the report says nothing: there it must have the same kernels
  it(`is of this build, by nvcc ${report.toolchain}`, () => {
    expect(Object.keys(hashesOf(families))).toEqual(Object.keys(report.hashes))
    expect(families.flatMap((family) => [...entriesOf(family).keys()]).sort()).toEqual(
      Object.keys(report.kernels).sort(),
    )
    if (isSameCompiler) expect(hashesOf(families), 'npm run cuda:report makes it again').toEqual(report.hashes)
  })

  it('counts what quick workloads count now, or what holds the bars by another nvcc', async () => {
    const again = await measureAll(isQuick)
    const names = groups
      .filter((_, i) => isQuick(i))
      .flatMap((group) => group.flatMap(({ kernels }) => Object.keys(kernels)))
    expect(Object.keys(again).sort()).toEqual(names.sort())
    expect(shortcomings({ ...report, measured: { ...report.measured, ...again } })).toEqual([])
    if (!isSameCompiler) return
    for (const [name, measured] of Object.entries(again)) {
      expect(measured, `${name}: npm run cuda:report makes it again`).toEqual(report.measured[name])
    }
  }, 180_000)
})
