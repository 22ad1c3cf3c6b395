// Builds the addon with sanitizers and runs suites on it. An access out of bounds, a use after free, undefined behaviour
// or a data race ends the process with a report, and so fails the run.
//
//   npm run test:sanitize [-- suites...]             AddressSanitizer and UndefinedBehaviorSanitizer
//   npm run test:sanitize -- --thread [suites...]    ThreadSanitizer: what JavaScript threads and the executor share
//   npm run test:sanitize:quick                      the first, on the suites that reach every kernel: a few minutes
//
// Fuzz tests make fewer rounds here than under npm test; GRADUS_FUZZ_ROUNDS sets another number.
// The sanitizers' libraries come with g++.

import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { root } from './sources.mjs'

const modes = {
  memory: {
    flags: 'address,undefined',
    runtimes: ['libasan.so', 'libubsan.so'],
    suites: [
      ...['test/ops', 'test/tensor', 'test/autograd', 'test/nn', 'test/amp'],
      ...['test/optim', 'test/native', 'test/fuzz'],
    ],
    quick: ['test/ops', 'test/optim', 'test/fuzz/native.test.ts', 'test/amp/gradScaler.test.ts'],
    env: {
      // Node itself never frees what it keeps until it ends, so leaks are measured by the soak instead.
      ASAN_OPTIONS: 'detect_leaks=0:abort_on_error=1:allocator_may_return_null=1',
      UBSAN_OPTIONS: 'halt_on_error=1:print_stacktrace=1',
    },
  },
  thread: {
    flags: 'thread',
    runtimes: ['libtsan.so'],
    suites: ['test/native', 'test/autograd', 'test/data'],
    env: {
      // Node and libgomp are not instrumented: their own locks are unknown, so only our accesses count, and kernels
      // run on the executor alone, whatever number of threads they ask for.
      TSAN_OPTIONS: 'halt_on_error=1:abort_on_error=1:ignore_noninstrumented_modules=1:report_signal_unsafe=0',
      GRADUS_NUM_THREADS: '1',
      OMP_THREAD_LIMIT: '1',
    },
  },
}

/** Runs a command to its end and takes with it what it leaves behind: a fork of vitest does not end with its parent. */
function run(command, args, env = {}) {
  const child = spawn(command, args, { cwd: root, stdio: 'inherit', detached: true, env: { ...process.env, ...env } })
  const end = () => {
    try {
      process.kill(-child.pid, 'SIGKILL')
    } catch {
      // all gone already
    }
  }
  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(1))
  process.once('exit', end)
  return new Promise((resolve) => {
    child.on('error', () => process.exit(1))
    child.on('exit', (status) => {
      end()
      process.removeListener('exit', end)
      if (status !== 0) process.exit(status ?? 1)
      resolve()
    })
  })
}

const given = process.argv.slice(2)
const { flags, runtimes, env, suites, quick = suites } = modes[given.includes('--thread') ? 'thread' : 'memory']
const named = given.filter((argument) => !argument.startsWith('--'))
const wanted = named.length > 0 ? named : given.includes('--quick') ? quick : suites
const began = performance.now()

const preload = runtimes.map((name) => execFileSync('g++', [`-print-file-name=${name}`], { encoding: 'utf8' }).trim())
const absent = runtimes.filter((name, i) => preload[i] === name) // g++ repeats the name of what it has not got
if (absent.length > 0) {
  process.stderr.write(`sanitize: g++ lacks ${absent.join(' and ')}; install the sanitizers of your g++\n`)
  process.exit(1)
}

const build = join(root, 'build', `sanitize-${flags.split(',')[0]}`)
mkdirSync(build, { recursive: true })
const generator = spawnSync('ninja', ['--version']).status === 0 ? ['-G', 'Ninja'] : []
const settings = ['-DCMAKE_BUILD_TYPE=RelWithDebInfo', `-DGRADUS_SANITIZE=${flags}`]
await run('cmake', ['-S', root, '-B', build, ...generator, ...settings])
await run('cmake', ['--build', build, '--parallel', String(availableParallelism())])

const vitest = join(root, 'node_modules', 'vitest', 'vitest.mjs') // not through npx, which libtsan does not survive
await run(process.execPath, [vitest, 'run', '--testTimeout', '180000', ...wanted], {
  GRADUS_FUZZ_ROUNDS: process.env.GRADUS_FUZZ_ROUNDS ?? '20',
  GRADUS_ADDON: join(build, 'Release', 'gradus.node'),
  LD_PRELOAD: preload.join(':'),
  ...env,
})
const seconds = Math.round((performance.now() - began) / 1000)
process.stdout.write(`sanitize: ${flags.replace(',', ' and ')} found nothing in ${wanted.join(', ')} (${seconds} s)\n`)
