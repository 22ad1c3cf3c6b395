// Builds the addon with AddressSanitizer and UndefinedBehaviorSanitizer and runs the fast suites on it. An out-of-bounds
// access, a use after free or undefined behaviour ends the process with a report, and so fails the run.

import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { root } from './sources.mjs'

const build = join(root, 'build', 'sanitize')
mkdirSync(build, { recursive: true })
const run = (command, args, env = {}) => {
  const { status } = spawnSync(command, args, { cwd: root, stdio: 'inherit', env: { ...process.env, ...env } })
  if (status !== 0) process.exit(status ?? 1)
}

run('cmake', ['-S', root, '-B', build, '-DCMAKE_BUILD_TYPE=RelWithDebInfo', '-DGRADUS_SANITIZE=address,undefined'])
run('cmake', ['--build', build, '--parallel', '2'])

const runtime = ['libasan.so', 'libubsan.so'].map((name) =>
  execFileSync('g++', [`-print-file-name=${name}`], { encoding: 'utf8' }).trim(),
)
const suites =
  process.argv.length > 2
    ? process.argv.slice(2)
    : ['test/ops', 'test/tensor', 'test/autograd', 'test/nn', 'test/native', 'test/fuzz']
run('npx', ['vitest', 'run', ...suites], {
  LD_PRELOAD: runtime.join(':'),
  GRADUS_ADDON: join(build, 'Release', 'gradus.node'),
  // Node itself never frees what it keeps until it ends, so leaks are measured by the soak instead.
  ASAN_OPTIONS: 'detect_leaks=0:abort_on_error=1:allocator_may_return_null=1',
  UBSAN_OPTIONS: 'halt_on_error=1:print_stacktrace=1',
})
