// npm run cuda:report: makes docs/cuda-report.md and .json again, and fails where a bar is missed. Needs nvcc and the
// simulator, which it builds; with nvdisasm (of the CUDA toolkit or the wheel of triton; NVDISASM names one that is on no
// path) it counts instructions, too. Some minutes the first time; what ptxas said is kept in build/cudaReport.

import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { encode } from './encode'
import { measureAll } from './measure'
import { render } from './page'
import { readFamilies } from './ptx'
import { makeReport, pagePath, reportPath, shortcomings, unmeasured } from './report'
import { assembleAll } from './resources'
import { findToolchain } from './toolchain'

const root = join(__dirname, '../..')
const say = (text: string): void => void process.stderr.write(`cuda:report: ${text}\n`)

function buildSimulator(): void {
  const build = join(root, 'build/cudasim')
  for (const args of [
    ['-S', join(root, 'tools/cudasim'), '-B', build],
    ['--build', build, '--parallel', String(availableParallelism()), '--target', 'cuda'],
  ]) {
    if (spawnSync('cmake', args, { stdio: ['ignore', 'ignore', 'inherit'] }).status !== 0) {
      throw new Error('the simulator does not build; see the messages above')
    }
  }
}

async function main(): Promise<void> {
  const families = readFamilies()
  const tools = findToolchain()
  if (tools === null || families.length === 0) {
    throw new Error('this build has no kernels; put nvcc on the PATH and run npm run build')
  }
  if (tools.nvdisasm === null) say('nvdisasm was not found: instructions are not counted')
  buildSimulator()
  const assembled = await assembleAll(tools, families, join(root, 'build/cudaReport'), say)
  say('running the workloads')
  const report = makeReport(tools, families, assembled, await measureAll())
  writeFileSync(reportPath, encode(report))
  writeFileSync(pagePath, render(report))
  const short = shortcomings(report)
  for (const line of short) say(line)
  say(
    `${Object.keys(report.kernels).length} kernels, ${unmeasured(report).length} without a workload; ${short.length} bars missed`,
  )
  if (short.length > 0) process.exitCode = 1
}

main().catch((error: Error) => {
  say(error.message)
  process.exitCode = 1
})
