// Builds the addon and its CPU backend with CMake: into build/Release, or with --debug into build/Debug.
// GRADUS_CUDA_ARCHITECTURES, such as "80;90", adds cubins for these to the PTX of the CUDA kernels.
// ninja and ccache are used where they are installed; headers come from node-api-headers, nothing is downloaded.

import { createRequire } from 'node:module'
import { availableParallelism } from 'node:os'
import { markFresh, root } from './sources.mjs'

const { BuildSystem } = createRequire(import.meta.url)('cmake-js')

const system = new BuildSystem({
  directory: root,
  parallel: availableParallelism(),
  debug: process.argv.includes('--debug'),
  cMakeOptions: { GRADUS_CUDA_ARCHITECTURES: process.env.GRADUS_CUDA_ARCHITECTURES ?? '' },
  // what matters is what CMake and the compiler say
  noLog: true,
})

try {
  await system.configure() // build() alone would keep the options of the last time
  await system.build()
  markFresh('native')
} catch (error) {
  process.stderr.write(`build: ${error.message}\n`)
  process.exitCode = 1
}
