// npm run test:cuda [-- vitest's arguments]: builds the simulated driver (tools/cudasim) and runs on it what tests cuda
// (test/cuda), and the operators' and optimizers' own tests with all their tensors on cuda. Every allocation is a block
// of its own there, so that the simulator sees each access outside of a tensor; what it finds fails the run.

import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { root } from './sources.mjs'

const require = createRequire(import.meta.url)
const build = join(root, 'build/cudasim')
const report = join(build, 'report.txt')

function run(command, args, env = {}, output = 'inherit') {
  const { status } = spawnSync(command, args, {
    cwd: root,
    stdio: ['inherit', output, 'inherit'],
    env: { ...process.env, ...env },
  })
  if (status !== 0) process.exit(status ?? 1)
}

const { kernels } = JSON.parse(require('node-gyp-build')(root).describeCuda())
if (kernels.length === 0) {
  process.stderr.write('test:cuda: nothing to run, this build has no kernels: nvcc was not found when it was made\n')
  process.exit(0)
}

run('cmake', ['-S', 'tools/cudasim', '-B', build], {}, 'ignore')
run(
  'cmake',
  ['--build', build, '--parallel', String(availableParallelism()), '--target', 'cuda', 'cudasim-node'],
  {},
  'ignore',
)
rmSync(report, { force: true })
run('npx', ['vitest', 'run', '--config', 'vitest.cuda.config.ts', ...process.argv.slice(2)], {
  LD_LIBRARY_PATH: [join(build, 'lib'), process.env.LD_LIBRARY_PATH].filter(Boolean).join(':'),
  GRADUS_NO_CUDA_MEMORY_CACHING: process.env.GRADUS_NO_CUDA_MEMORY_CACHING ?? '1',
  CUDASIM_REPORT: report,
})
if (existsSync(report)) {
  process.stderr.write(`test:cuda: the simulator found\n${readFileSync(report, 'utf8')}`)
  process.exit(1)
}
