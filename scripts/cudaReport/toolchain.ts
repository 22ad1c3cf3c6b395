// NVIDIA's tools: nvcc and ptxas to compile, nvdisasm to look into what was compiled.

import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'

export interface Toolchain {
  ptxas: string
  /** Of nvcc and ptxas, such as 13.0.48. */
  version: string
  /** Null where it is not installed: it comes with the CUDA toolkit, and in the wheel of triton. */
  nvdisasm: string | null
}

const folders = (): string[] => {
  const homes = [process.env.CUDA_HOME, process.env.CUDA_PATH, '/usr/local/cuda'].filter((each) => each !== undefined)
  return [...(process.env.PATH ?? '').split(':'), ...homes.map((home) => join(home, 'bin'))]
}

const find = (name: string, also: string[] = []): string | null =>
  [...also, ...folders()].map((folder) => join(folder, name)).find((path) => existsSync(path)) ?? null

/** Null without nvcc. NVDISASM may name a program that is on no path. */
export function findToolchain(): Toolchain | null {
  const nvcc = find('nvcc')
  if (nvcc === null) return null
  const ptxas = find('ptxas', [dirname(nvcc)])
  const version = /V(\d+\.\d+\.\d+)/.exec(execFileSync(nvcc, ['--version'], { encoding: 'utf8' }))?.[1]
  if (ptxas === null || version === undefined) return null
  const given = process.env.NVDISASM
  return { ptxas, version, nvdisasm: given !== undefined && existsSync(given) ? given : find('nvdisasm') }
}
