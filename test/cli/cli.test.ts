// The command as users run it. `npm test` builds dist/ before.

import { spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { io, nn } from '../../lib/index'

const command = join(__dirname, '../../dist/cli/main.js')
const small = ['--layers', '1', '--heads', '2', '--width', '16', '--context', '16', '--batch-size', '8']
let folder: string
let text: string

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'gradus-cli-'))
  text = join(folder, 'text.txt')
  writeFileSync(text, readFileSync(join(__dirname, '../fixtures/text.txt'), 'utf8').slice(0, 20_000))
})
afterAll(() => rmSync(folder, { recursive: true }))

function gradus(...args: string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [command, ...args], { encoding: 'utf8', cwd: folder })
}

test('gradus --help lists the commands', () => {
  const { status, stdout } = gradus('--help')
  expect(status).toBe(0)
  for (const name of ['train', 'generate', 'bench', 'doctor', 'kernels']) expect(stdout).toContain(name)
})

test('gradus train --json ends with one line that says what came out', () => {
  const out = join(folder, 'run')
  const { status, stdout } = gradus('train', '--text', text, '--out', out, '--steps', '30', '--json', ...small)
  expect(status).toBe(0)
  const result = JSON.parse(stdout.trim().split('\n').at(-1)!)
  expect(Object.keys(result).sort()).toEqual(
    ['checkpoint', 'report', 'sample', 'steps', 'tokensPerSecond', 'trainLoss', 'unigramEntropy', 'valLoss'].sort(),
  )
  expect(result.steps).toBe(30)
  expect(readFileSync(result.report, 'utf8')).toContain('<svg')
  expect(readdirSync(result.checkpoint)).toContain('model.safetensors')
})

test('gradus generate continues a text, the same with the same seed', () => {
  const run = (): string => gradus('generate', join(folder, 'run'), '--prompt', 'the ', '--tokens', '40').stdout
  const first = run()
  expect(first.startsWith('the ')).toBe(true)
  expect(first.trimEnd().length).toBeGreaterThan(10)
  expect(run()).toBe(first)
  const { prompt, text } = JSON.parse(
    gradus('generate', join(folder, 'run'), '--prompt', 'the ', '--tokens', '40', '--json').stdout,
  )
  expect(`${prompt}${text}\n`).toBe(first)
})

test('gradus generate takes no prompt, a long one, and the likeliest characters', () => {
  const run = join(folder, 'run')
  const json = (...args: string[]) => gradus('generate', run, '--tokens', '5', '--json', ...args)
  for (const args of [[], ['--prompt', ''], ['--prompt', 'the '.repeat(50)], ['--temperature', '0']]) {
    const { status, stdout } = json(...args)
    expect(status).toBe(0)
    expect(JSON.parse(stdout).text).toHaveLength(5)
  }
  const { status, stderr } = json('--prompt', 'the \u2603')
  expect(status).toBe(1)
  expect(stderr).toContain('generate: the text that the model learnt has no such character: got "\u2603" in --prompt')
})

test('gradus train ends with a checkpoint at Ctrl-C, and resumes', async () => {
  const out = join(folder, 'stopped')
  const args = ['train', '--text', text, '--out', out, '--minutes', '5', '--json', ...small]
  const child = spawn(process.execPath, [command, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  let stdout = ''
  child.stdout.on('data', (chunk) => {
    stdout += chunk
  })
  let begun = false
  child.stderr.on('data', (chunk) => {
    if (begun || !String(chunk).includes('step ')) return
    begun = true
    child.kill('SIGINT')
  })
  const status = await new Promise((resolve) => child.on('close', resolve))
  expect(status).toBe(130)
  const { steps } = JSON.parse(stdout.trim().split('\n').at(-1)!)
  const resumed = gradus('train', '--text', text, '--out', out, '--steps', String(steps + 5), '--resume', '--json')
  expect(resumed.stderr).toContain(`after step ${steps}`)
  expect(JSON.parse(resumed.stdout.trim().split('\n').at(-1)!).steps).toBe(steps + 5)
})

test('gradus says what a checkpoint of another program is', async () => {
  const out = join(folder, 'foreign')
  await io.saveCheckpoint(out, { model: new nn.Linear(2, 2) }, { step: 1 })
  for (const args of [
    ['generate', out],
    ['train', '--text', text, '--out', out, '--resume', '--steps', '2'],
  ]) {
    const { status, stderr } = gradus(...args)
    expect(status).toBe(1)
    expect(stderr).toContain(`${args[0]}: the checkpoint is not one of gradus train: got ${out}`)
    expect(stderr).not.toMatch(/\n\s+at /)
  }
})

test('gradus train neither begins nor resumes a run that is another one', () => {
  const run = (...args: string[]) =>
    gradus('train', '--text', text, '--out', join(folder, 'run'), '--steps', '31', ...args)
  for (const [args, message] of [
    [small, 'train: the output folder holds checkpoints of another run'],
    [['--resume', '--layers', '3'], 'train: the run was begun with another value: got --layers 3, expected --layers 1'],
    [['--resume', '--batch-size', '9'], 'got --batch-size 9, expected --batch-size 8; leave out --batch-size'],
  ] as [string[], string][]) {
    const { status, stderr } = run(...args)
    expect(status).toBe(1)
    expect(stderr).toContain(message)
    expect(stderr).not.toMatch(/\n\s+at /)
  }
  expect(run('--resume', '--layers', '1').status).toBe(0)
})

test('gradus train without --out begins a run of its own each time, also within a second', () => {
  for (let n = 1; n <= 3; n++) {
    expect(gradus('train', '--text', text, '--steps', '1', ...small).status).toBe(0)
    expect(readdirSync(join(folder, 'runs'))).toHaveLength(n)
  }
})

test('gradus generate ends quietly when nobody reads on', () => {
  const line = `"${process.execPath}" "${command}" generate "${join(folder, 'run')}" --tokens 400 | head -c 5`
  const { stdout, stderr } = spawnSync('sh', ['-c', line], { encoding: 'utf8' })
  expect(stdout).toHaveLength(5)
  expect(stderr).toBe('')
})

test.each([
  [
    ['train', '--steps', 'many'],
    "option '--steps <n>' argument 'many' is invalid. Expected a whole number of at least 1.",
  ],
  [['train', '--dropout', '1'], "argument '1' is invalid. Expected a number from 0 up to, but not, 1."],
  [['train', '--lr', '-3'], "argument '-3' is invalid. Expected a number above 0."],
  [['train', '--device', 'gpu'], 'device: no such device: got "gpu"'],
  [['train', '--speed', '9'], "unknown option '--speed'"],
  [['train', '--text', 'missing.txt'], 'readText: no such file: got missing.txt'],
  [['train', '--width', '100', '--heads', '6'], 'train: --width is not a multiple of --heads: got 100 and 6'],
  [['train', '--resume'], 'train: --resume needs the folder of the run: expected --out DIR'],
  [['train', '--resume', '--out', 'nowhere'], 'train: no run to resume'],
  [['generate', 'nowhere'], 'nowhere'],
  [['generate'], "missing required argument 'run'"],
])('gradus %j fails in words', (args, message) => {
  const { status, stderr, stdout } = gradus(...args)
  expect(status).toBe(1)
  expect(stderr).toContain(message)
  expect(stderr).not.toMatch(/\n\s+at /)
  expect(stdout).toBe('')
})

test('gradus train says before it trains that the folder cannot be written', () => {
  const { status, stderr } = gradus('train', '--text', text, '--out', join(text, 'below-a-file'))
  expect(status).toBe(1)
  expect(stderr).toContain('train: the output folder cannot be written')
  expect(stderr).toContain('--out')
})

test('gradus doctor finds its parts', () => {
  const { status, stdout } = gradus('doctor', '--json')
  expect(status).toBe(0)
  const parts = JSON.parse(stdout).map(({ part }: { part: string }) => part)
  expect(parts).toEqual(expect.arrayContaining(['node', 'addon', 'SIMD', 'oneDNN', 'threads']))
})

test('gradus kernels writes what doctor says there is', () => {
  const out = join(folder, 'kernels')
  const { status, stderr } = gradus('kernels', out)
  if (stderr.includes('nvcc was not found')) return
  expect(status).toBe(0)
  const names = readdirSync(out)
  expect(names).toContain('gemm_mma.ptx')
  expect(readFileSync(join(out, 'gemm_mma.ptx'), 'utf8')).toContain('.entry gradus_gemm_mma_large_nn_float16(')
})

test('gradus bench measures', () => {
  const { status, stdout } = gradus('bench', '--seconds', '0.05', '--json')
  expect(status).toBe(0)
  const rows = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  expect(rows.map(({ unit }) => unit)).toEqual(['GFLOP/s', 'GFLOP/s', 'GB/s', 'GB/s', 'tokens/s'])
  for (const { rate } of rows) expect(rate).toBeGreaterThan(0)
})
