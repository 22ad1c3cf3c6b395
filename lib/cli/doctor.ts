// gradus doctor: what was loaded and why.

import { existsSync } from 'node:fs'
import { availableParallelism, totalmem } from 'node:os'
import { dirname, join } from 'node:path'
import type { CudaDescription } from '../tensor/cuda'

interface Finding {
  part: string
  found: string
  /** What to do about it; absent where nothing is wrong. */
  fix?: string
}

const root = join(__dirname, '../..')

/** The C library that Node runs on, as its own report has it. */
function cLibrary(): string {
  // the report asks every open socket for its peer's name unless told not to
  const report = process.report as typeof process.report & { excludeNetwork?: boolean }
  report.excludeNetwork = true
  const { header } = report.getReport() as unknown as { header: { glibcVersionRuntime?: string } }
  return header.glibcVersionRuntime ? `glibc ${header.glibcVersionRuntime}` : 'not glibc (musl?)'
}

function runtime(): Finding[] {
  const libc = cLibrary()
  return [
    { part: 'node', found: `${process.version} on ${process.platform}-${process.arch}` },
    {
      part: 'C library',
      found: libc,
      ...(process.platform === 'linux' &&
        !libc.startsWith('glibc') && { fix: 'prebuilt packages are for glibc; build from source: npm run build' }),
    },
    { part: 'cores', found: `${availableParallelism()} for this process` },
    { part: 'memory', found: `${(totalmem() / 2 ** 30).toFixed(1)} GiB` },
  ]
}

/** A machine without a GPU lacks nothing, so there is nothing to fix in it. */
function cudaLine({ driver, devices, kernels, problem }: CudaDescription): string {
  if (problem !== undefined) return problem.replace(/^cuda: /, '')
  const list = devices.map(
    ({ name, major, minor, totalMemory }, i) =>
      `cuda:${i} ${name} (${major}.${minor}, ${(totalMemory / 2 ** 30).toFixed(1)} GiB)`,
  )
  const built = kernels.length === 0 ? 'no kernels in this build: build it with nvcc' : `kernels ${kernels.join(', ')}`
  return `driver ${driver}; ${list.join(', ')}; ${built}`
}

async function addon(): Promise<Finding[]> {
  let path: string
  try {
    path = require('node-gyp-build').resolve(root)
  } catch {
    return [
      {
        part: 'addon',
        found: `none for ${process.platform}-${process.arch} in ${root}`,
        fix: existsSync(join(root, 'CMakeLists.txt'))
          ? 'npm run build'
          : 'build it from the sources: git clone, then npm run build',
      },
    ]
  }
  try {
    const { describeBackend, getNumThreads } = await import('../native.js')
    const { describeBlas, describeCuda, describeNccl } = await import('../tensor/cuda.js')
    const { simd, onednn, openmp } = describeBackend()
    const cuda = describeCuda()
    return [
      { part: 'addon', found: path },
      { part: 'cpu backend', found: join(dirname(path), 'gradus_cpu.so') },
      { part: 'SIMD', found: simd },
      { part: 'oneDNN', found: onednn },
      { part: 'OpenMP', found: String(openmp) },
      { part: 'threads', found: `${getNumThreads()} (GRADUS_NUM_THREADS, else the cores of the process)` },
      { part: 'CUDA', found: cudaLine(cuda) },
      ...(cuda.devices.length > 0
        ? [
            { part: 'cuBLAS', found: describeBlas() },
            { part: 'NCCL', found: describeNccl() },
          ]
        : []),
    ]
  } catch (error) {
    const cause = (error as Error).cause ?? error
    return [
      {
        part: 'addon',
        found: `${path} does not load: ${cause instanceof Error ? cause.message.split('\n')[0] : String(cause)}`,
        fix: existsSync(join(root, 'CMakeLists.txt')) ? 'npm run build' : 'npm install gradus again',
      },
    ]
  }
}

/** Prints the findings; the exit code is 1 when something is missing. */
export async function doctor({ json }: { json?: boolean }): Promise<void> {
  const findings = [...runtime(), ...(await addon())]
  if (json) process.stdout.write(`${JSON.stringify(findings)}\n`)
  else {
    for (const { part, found, fix } of findings) {
      process.stdout.write(`${part.padEnd(12)} ${found}\n${fix ? `${' '.repeat(13)}-> ${fix}\n` : ''}`)
    }
  }
  if (findings.some(({ fix }) => fix !== undefined)) process.exitCode = 1
}
