// The package as a user gets it: packed, installed into an empty folder, run by a Node that finds no compiler.

import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'

const root = join(__dirname, '../..')
let folder: string

/** npm under this Node, with nothing else on PATH. */
function npm(args: string[], cwd: string): string {
  const beside = join(dirname(process.execPath), '../lib/node_modules/npm/bin/npm-cli.js')
  const script = process.env.npm_execpath ?? beside
  const path = dirname(process.execPath)
  return execFileSync(process.execPath, [script, ...args], {
    cwd,
    encoding: 'utf8',
    env: { ...process.env, PATH: path },
  })
}

/** Runs a program of the user with an empty PATH. */
function run(name: string, source: string): string {
  writeFileSync(join(folder, name), source)
  const env = { HOME: folder, PATH: '', GRADUS_NUM_THREADS: '2' }
  return execFileSync(process.execPath, [name], { cwd: folder, encoding: 'utf8', env }).trim()
}

const trainTenSteps = `
  const model = new nn.Linear(4, 1)
  const optimizer = new optim.AdamW(model.parameters(), { lr: 0.05 })
  const x = ones([8, 4])
  const losses = []
  for (let i = 0; i < 10; i++) {
    optimizer.zeroGrad()
    const loss = ops.mseLoss(model.forward(x), ones([8, 1]))
    loss.backward()
    optimizer.step()
    losses.push(await loss.item())
  }
  const fell = losses.length === 10 && losses[9] < losses[0]
`

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'gradus-package-'))
  const packed = JSON.parse(npm(['pack', '--json', '--pack-destination', folder], root))
  writeFileSync(join(folder, 'package.json'), '{ "name": "user", "version": "1.0.0" }')
  npm(['install', '--prefer-offline', '--no-audit', '--no-fund', `./${packed[0].filename}`], folder)
}, 180_000)

afterAll(() => rmSync(folder, { recursive: true, force: true }))

test('package: holds the build, the addon with its libraries, their licences, and nothing else', () => {
  const installed = join(folder, 'node_modules/gradus')
  expect(readdirSync(installed).sort()).toEqual([
    'CHANGELOG.md',
    'LICENSE',
    'README.md',
    'dist',
    'package.json',
    'prebuilds',
  ])
  const prebuilt = readdirSync(join(installed, 'prebuilds', `${process.platform}-${process.arch}`))
  expect(prebuilt).toEqual(expect.arrayContaining(['gradus.glibc.node', 'gradus_cpu.so', 'licenses']))
  for (const library of prebuilt.filter((name) => name.startsWith('lib'))) {
    if (library === 'licenses') continue
    const licence = join(installed, 'prebuilds', `${process.platform}-${process.arch}`, 'licenses', `${library}.txt`)
    expect(existsSync(licence), library).toBe(true)
  }
})

test('package: loads its own libraries, not those of the system', () => {
  const source = `
    require('gradus').ones([2]).sum().itemSync()
    const loaded = require('node:fs').readFileSync('/proc/self/maps', 'utf8')
    console.log([...new Set(loaded.match(/\\/\\S*(dnnl|gomp|hwy|OpenCL)\\S*/g))].join('\\n'))
  `
  const libraries = run('maps.cjs', source).split('\n')
  expect(libraries.length).toBeGreaterThanOrEqual(3)
  for (const library of libraries) expect(library).toContain('node_modules/gradus/prebuilds')
})

test('package: trains from an ES module', () => {
  const source = `import { nn, ones, ops, optim } from 'gradus'\n${trainTenSteps}\nconsole.log(fell)`
  expect(run('module.mjs', source)).toBe('true')
})

test('package: trains from CommonJS', () => {
  const source = `const { nn, ones, ops, optim } = require('gradus')\n;(async () => {${trainTenSteps}\nconsole.log(fell)})()`
  expect(run('common.cjs', source)).toBe('true')
})

test('package: trains in a worker thread', () => {
  const worker = `const { parentPort } = require('node:worker_threads')
    const { nn, ones, ops, optim } = require('gradus')
    ;(async () => {${trainTenSteps}\nparentPort.postMessage(fell)})()`
  writeFileSync(join(folder, 'worker.cjs'), worker)
  const source = `new (require('node:worker_threads').Worker)('./worker.cjs').on('message', console.log)`
  expect(run('main.cjs', source)).toBe('true')
})

test('package: both entries share one instance', () => {
  const source = `import { createRequire } from 'node:module'
    import { Tensor } from 'gradus'
    console.log(createRequire(import.meta.url)('gradus').Tensor === Tensor)`
  expect(run('both.mjs', source)).toBe('true')
})

test('package: gradus doctor finds everything', () => {
  const command = join(folder, 'node_modules/gradus/dist/cli/main.js')
  const env = { HOME: folder, PATH: '' }
  const findings = JSON.parse(execFileSync(process.execPath, [command, 'doctor', '--json'], { encoding: 'utf8', env }))
  expect(findings.filter((each: { fix?: string }) => each.fix !== undefined)).toEqual([])
  expect(findings.map((each: { part: string }) => each.part)).toContain('oneDNN')
})
