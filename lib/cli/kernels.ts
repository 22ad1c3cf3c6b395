// gradus kernels: the CUDA kernels of the addon as files, to look at or to run with other tools; docs/cuda.md says what
// they take.

import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { StateError } from '../errors'
import { cudaImages } from '../tensor/cuda'

export function kernels(folder: string): void {
  const images = Object.entries(cudaImages())
  if (images.length === 0) {
    throw new StateError('kernels', 'this build has none: nvcc was not found when it was made; build it with nvcc')
  }
  mkdirSync(folder, { recursive: true })
  for (const [name, bytes] of images) writeFileSync(join(folder, name), bytes)
  process.stdout.write(`${images.length} files in ${folder}\n`)
}
