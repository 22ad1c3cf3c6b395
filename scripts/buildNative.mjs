// Builds the addon and its CPU backend with CMake: into build/Release, or with --debug into build/Debug.
// ninja and ccache are used where they are installed; headers come from node-api-headers, nothing is downloaded.

import { createRequire } from 'node:module'
import { availableParallelism } from 'node:os'
import { markFresh, root } from './sources.mjs'

const { BuildSystem } = createRequire(import.meta.url)('cmake-js')

const system = new BuildSystem({
  directory: root,
  parallel: availableParallelism(),
  debug: process.argv.includes('--debug'),
})

try {
  await system.build()
  markFresh('native')
} catch {
  // CMake and the compiler have said what is wrong
  process.exitCode = 1
}
