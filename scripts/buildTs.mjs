// Compiles lib/ to dist/ (CommonJS with declarations) and writes the entry for `import`: a list of the names of the
// CommonJS build, so that both entries share one instance of the library, its handles and its random state.

import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { markFresh, root } from './sources.mjs'

const require = createRequire(import.meta.url)
const dist = join(root, 'dist')

rmSync(dist, { recursive: true, force: true })
const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc')
const compiled = spawnSync(process.execPath, [tsc, '-p', join(root, 'tsconfig.build.json')], { stdio: [0, 2, 2] })
if (compiled.status !== 0) process.exit(compiled.status ?? 1)

const names = Object.keys(require(join(dist, 'index.js'))).filter((name) => name !== '__esModule')
writeFileSync(
  join(dist, 'index.mjs'),
  `import gradus from './index.js'\n\nexport const {\n${names.map((name) => `  ${name},\n`).join('')}} = gradus\n`,
)
writeFileSync(join(dist, 'index.d.mts'), "export * from './index.js'\n")

const command = join(dist, 'cli', 'main.js')
if (existsSync(command)) chmodSync(command, 0o755)
markFresh('dist')
