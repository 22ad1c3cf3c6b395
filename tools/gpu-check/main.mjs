// npm run gpu:check: see README.md.

import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, openSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'

const root = join(import.meta.dirname, '../..')
const simulator = join(root, 'build/cudasim/lib')
const { values } = parseArgs({
  options: { out: { type: 'string' }, only: { type: 'string' }, simulated: { type: 'boolean', default: false } },
})
const out = resolve(values.out ?? `gpu-check-${new Date().toISOString().slice(0, 16).replace(/:/g, '')}`)
const wanted = values.only?.split(',')
const isSimulated = values.simulated
mkdirSync(out, { recursive: true })

const withSimulator = {
  LD_LIBRARY_PATH: [simulator, process.env.LD_LIBRARY_PATH].filter(Boolean).join(':'),
  CUDASIM_REPORT: join(out, 'simulator-findings.txt'),
  GRADUS_CUBLASLT: '0', // our own products
}
/** Of what runs on the device under test. */
const onDevice = isSimulated ? withSimulator : {}
const tsx = ['--import', 'tsx']
const here = (name) => join(import.meta.dirname, name)

/** Runs a command with its output in a file of the folder; null where it is not installed. */
function run(command, args, { log, env = {} }) {
  const file = openSync(join(out, log), 'a')
  const { status, error } = spawnSync(command, args, {
    cwd: root,
    stdio: ['ignore', file, file],
    env: { ...process.env, ...env },
  })
  if (error?.code === 'ENOENT') return null
  return status ?? 1
}

/** The JSON that a command ends with; its last words where it fails. */
function lastLine(command, args, env = {}) {
  const { status, stdout, stderr } = spawnSync(command, args, {
    cwd: root,
    encoding: 'utf8',
    env: { ...process.env, ...env },
  })
  const last = (text) => text.trim().split('\n').at(-1)
  return status === 0 ? JSON.parse(last(stdout)) : { failed: `${args.join(' ')}: ${last(stderr)}` }
}

const isThere = (command, args = ['--version']) => spawnSync(command, args, { stdio: 'ignore' }).status === 0
const outcome = (status) =>
  status === null ? 'skipped: not installed' : status === 0 ? 'passed' : `FAILED (${status})`
const hasTorch = () => isThere('python3', ['-c', 'import torch; assert torch.cuda.is_available()'])
const withoutTorch = 'skipped: not there, or without CUDA'
const readJson = (name) => (existsSync(join(out, name)) ? JSON.parse(readFileSync(join(out, name), 'utf8')) : null)

function buildSimulator() {
  for (const args of [
    ['-S', 'tools/cudasim', '-B', 'build/cudasim'],
    ['--build', 'build/cudasim', '--parallel', String(availableParallelism()), '--target', 'cuda'],
  ]) {
    if (run('cmake', args, { log: 'simulator-build.log' }) !== 0) throw new Error('the simulator does not build')
  }
}

const stages = {
  environment() {
    const log = 'environment.txt'
    const commands = [
      ['git', ['describe', '--always', '--dirty']],
      ['uname', ['-a']],
      [process.execPath, ['--version']],
      ['nvidia-smi', []],
      ['nvidia-smi', ['-q']],
      ['nvcc', ['--version']],
      ['lscpu', []],
      [process.execPath, ['dist/cli/main.js', 'doctor', '--json']],
    ]
    const missing = commands.filter(([command, args]) => run(command, args, { log, env: onDevice }) === null)
    return missing.length === 0 ? 'written' : `written; not there: ${missing.map(([command]) => command).join(', ')}`
  },

  tests() {
    const reporters = ['--reporter=dot', '--reporter=json', `--outputFile.json=${join(out, 'tests.json')}`]
    // on the simulator they take minutes and are npm run test:cuda; there, this stage shows that it works
    const part = isSimulated
      ? ['--project', 'cuda', 'test/cuda/softmax.test.ts', 'test/cuda/norm.test.ts']
      : ['cuda', 'cuda devices', 'on cuda'].flatMap((name) => ['--project', name])
    const leftOut = readdirSync(join(root, 'test/cuda/simulated')).filter((name) => name.endsWith('.test.ts'))
    const status = run('npx', ['vitest', 'run', '--config', 'vitest.cuda.config.ts', ...reporters, ...part], {
      log: 'tests.log',
      env: onDevice,
    })
    const result = readJson('tests.json')
    const counts = `${result?.numPassedTests ?? 0} passed, ${result?.numFailedTests ?? 0} failed`
    const names = leftOut.map((name) => name.replace('.test.ts', '')).join(', ')
    return `${outcome(status)}: ${counts}; left out, as only the simulator can show it: ${names}`
  },

  outputs() {
    buildSimulator()
    const log = 'outputs.log'
    const make = (name, env) =>
      run(process.execPath, [...tsx, here('outputs.ts'), join(out, `${name}.safetensors`)], { log, env })
    const device = make('gpu', onDevice)
    // another order of blocks and warps, so that a simulated "device" is not compared with itself
    const simulated = make('simulator', { ...withSimulator, CUDASIM_SEED: '7' })
    if (device !== 0 || simulated !== 0) return `${outcome(device || simulated)}: see ${log}`
    const files = ['gpu', 'simulator'].map((name) => join(out, `${name}.safetensors`))
    const status = run(process.execPath, [...tsx, here('compare.ts'), ...files, join(out, 'outputs.json')], { log })
    const rows = readJson('outputs.json') ?? []
    const [equal, beyond] = [rows.filter(({ equal }) => equal), rows.filter(({ holds }) => !holds)]
    return `${outcome(status)}: ${rows.length} results, ${equal.length} to the bit, ${beyond.length} too far apart`
  },

  sanitizer() {
    if (!isThere('compute-sanitizer')) return 'skipped: compute-sanitizer is not installed'
    const results = ['memcheck', 'racecheck', 'initcheck', 'synccheck'].map((tool) => {
      const args = ['--tool', tool, '--error-exitcode', '9', process.execPath, ...tsx, here('outputs.ts')]
      // every tensor an allocation of its own, so that memcheck sees each access outside of one
      const env = { ...onDevice, GRADUS_NO_CUDA_MEMORY_CACHING: '1' }
      return `${tool} ${outcome(run('compute-sanitizer', args, { log: `sanitizer-${tool}.log`, env }))}`
    })
    return results.join(', ')
  },

  bench() {
    const small = isSimulated ? ['--small'] : []
    const args = [...tsx, here('bench.ts'), ...small, join(out, 'bench.json')]
    const own = run(process.execPath, args, { log: 'bench.log', env: onDevice })
    const peer = hasTorch() ? run('python3', [here('bench.py'), join(out, 'pytorch.json')], { log: 'bench.log' }) : null
    const rows = readJson('bench.json') ?? []
    const torch = new Map((readJson('pytorch.json') ?? []).map(({ name, ms }) => [name, ms]))
    const lines = rows.map(({ name, ms }) => `| ${name} | ${ms} | ${torch.get(name) ?? ''} |`)
    writeFileSync(join(out, 'bench.md'), ['| | gradus, ms | PyTorch, ms |', '|---|---|---|', ...lines, ''].join('\n'))
    return `${outcome(own)}: ${rows.length} measurements; PyTorch ${peer === null ? withoutTorch : outcome(peer)}`
  },

  // a training step of GPT-2 small: with our products, with the library's, and as a graph
  steps() {
    const size = isSimulated
      ? ['--config', 'tiny', '--steps', '1', '--warmup', '1']
      : ['--config', 'gpt2s', '--batch', '8', '--context', '1024', '--steps', '20']
    const script = [...tsx, join(root, 'bench/step.ts'), '--device', 'cuda', '--seconds', '1', ...size]
    const own = (args, env) => lastLine(process.execPath, [...script, ...args], { ...onDevice, ...env })
    const peer = (args) =>
      lastLine('python3', [join(root, 'bench/pytorch/train_step.py'), '--device', 'cuda', ...size, ...args])
    const columns = {
      'our products, ms': (dtype) => own(dtype, { GRADUS_CUBLASLT: '0' }),
      'cuBLASLt, ms': (dtype) => own(dtype, {}),
      'as a graph, ms': (dtype) => own([...dtype, '--graph'], {}),
      ...(hasTorch() && { 'PyTorch, ms': peer }),
    }
    const names = Object.keys(columns)
    const table = [`| | ${names.join(' | ')} |`, `|---|${'---|'.repeat(names.length)}`]
    const results = []
    for (const dtype of ['fp32', 'fp16', 'bf16']) {
      const row = names.map((name) => columns[name](['--dtype', dtype]))
      results.push(...row.map((result, i) => ({ column: names[i], dtype, ...result })))
      table.push(`| ${[dtype, ...row.map(({ median_ms }) => median_ms ?? 'failed')].join(' | ')} |`)
      writeFileSync(join(out, 'steps.json'), `${JSON.stringify(results, null, 1)}\n`)
      writeFileSync(join(out, 'steps.md'), [...table, ''].join('\n'))
    }
    const failed = results.filter(({ failed }) => failed !== undefined)
    return `${outcome(failed.length)}: ${results.length} measurements${hasTorch() ? '' : `; PyTorch ${withoutTorch}`}`
  },
}

const lines = [`# gpu-check${isSimulated ? ', simulated' : ''}`, '', '| stage | outcome | minutes |', '|---|---|---|']
let failed = false
for (const [name, stage] of Object.entries(stages)) {
  if (wanted && !wanted.includes(name)) continue
  const begun = performance.now()
  let text
  try {
    text = stage()
  } catch (error) {
    text = `FAILED: ${error.message}`
  }
  failed ||= text.includes('FAILED')
  lines.push(`| ${name} | ${text} | ${((performance.now() - begun) / 60_000).toFixed(1)} |`)
  process.stdout.write(`gpu-check: ${name}: ${text}\n`)
  writeFileSync(join(out, 'summary.md'), `${lines.join('\n')}\n`)
}
if (isThere('tar')) {
  run('tar', ['-czf', `${out}.tar.gz`, '-C', join(out, '..'), out.slice(join(out, '..').length + 1)], {
    log: 'tar.log',
  })
  process.stdout.write(`gpu-check: send ${out}.tar.gz\n`)
}
process.exit(failed ? 1 : 0)
