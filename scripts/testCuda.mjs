// npm run test:cuda [-- vitest's arguments]: builds the simulated driver (tools/cudasim) and runs on it what tests cuda.
// Every allocation is a block of its own there, so that the simulator sees each access outside of a tensor; what it finds
// fails the run. Without arguments all parts run, one after the other; `npm test` asks for one at a time:
//
//   --simulator  the simulator's own tests: opcodes, seeded defects with clean twins, the libraries; the machine once for
//                each instruction set that it was built for and this processor has
//   --orders     the operators' tests of test/cuda, each with blocks, warps and streams in four orders: to the same bits
//   --devices    the rest of test/cuda: products by cuBLASLt, collectives, drivers, graphs, events; in test/cuda/simulated, what
//                only the simulator can show: memory that runs out, drivers that fail, several devices, counts of launches
//   --on-cuda    the tests of operators, modules, optimizers and mixed precision, and the cases recorded from PyTorch,
//                with all their tensors on cuda

import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { root } from './sources.mjs'

const require = createRequire(import.meta.url)
const build = join(root, 'build/cudasim')
const report = join(build, 'report.txt')
const seeds = '0,1,2,3' // 0: ascending

function run(command, args, env = {}, output = 'inherit') {
  const { status } = spawnSync(command, args, {
    cwd: root,
    stdio: ['inherit', output, 'inherit'],
    env: { ...process.env, ...env },
  })
  if (status !== 0) process.exit(status ?? 1)
}

function fail(text) {
  process.stderr.write(`test:cuda: ${text}\n`)
  process.exit(1)
}

function make(...targets) {
  run('cmake', ['-S', 'tools/cudasim', '-B', build], {}, 'ignore')
  run('cmake', ['--build', build, '--parallel', String(availableParallelism()), '--target', ...targets], {}, 'ignore')
}

function vitest(args, env = {}) {
  rmSync(report, { force: true })
  run('npx', ['vitest', 'run', '--config', 'vitest.cuda.config.ts', ...args], {
    LD_LIBRARY_PATH: [join(build, 'lib'), process.env.LD_LIBRARY_PATH].filter(Boolean).join(':'),
    GRADUS_NO_CUDA_MEMORY_CACHING: process.env.GRADUS_NO_CUDA_MEMORY_CACHING ?? '1',
    CUDASIM_REPORT: report,
    ...env,
  })
  if (existsSync(report)) fail(`the simulator found\n${readFileSync(report, 'utf8')}`)
}

function simulator() {
  make('all')
  const machine = join(build, 'cudasim-test')
  const { stdout } = spawnSync(machine, ['--interpreters'], { encoding: 'utf8' })
  for (const isa of stdout.trim().split('\n')) {
    process.stdout.write(`test:cuda: the simulated machine, interpreter for ${isa}\n`)
    run(machine, [], { CUDASIM_ISA: isa })
  }
  process.stdout.write('test:cuda: the simulated libraries\n')
  run(join(build, 'cudasim-driver-test'), [])
}

function orders() {
  make('cuda', 'cudasim-node')
  process.stdout.write(`test:cuda: each test by orders of blocks, warps and streams of seeds ${seeds}\n`)
  vitest(['--project', 'cuda'], { GRADUS_CUDA_SEEDS: seeds })
}

function devices() {
  make('cuda', 'cudasim-node')
  vitest(['--project', 'cuda devices', '--project', 'simulated'])
}

function onCuda() {
  make('cuda')
  vitest(['--project', 'on cuda'])
}

const { kernels } = JSON.parse(require('node-gyp-build')(root).describeCuda())
if (kernels.length === 0) {
  process.stderr.write('test:cuda: nothing to run, this build has no kernels: nvcc was not found when it was made\n')
  process.exit(0)
}

const parts = { '--simulator': simulator, '--orders': orders, '--devices': devices, '--on-cuda': onCuda }
const given = process.argv.slice(2)
if (given.length === 0) {
  for (const part of Object.values(parts)) part()
} else if (given.length === 1 && given[0] in parts) {
  parts[given[0]]()
} else {
  make('cuda', 'cudasim-node')
  vitest(given)
}
