// Runs what the documentation shows: every `@example` of lib/ and the programs of README.md and docs/guides.
//
// An example is TypeScript. In scope are the public names, the operators, what its own file exports, and what
// `assumed()` lists. Where a line ends in `// value`, the value is an expression, and the line must give it to four
// decimals (a text that ends in '…': begin with it).

import { copyFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { require as requireTs } from 'tsx/cjs/api'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import * as gradus from '../../lib/index'

const { data, models, nn, ops, optim, tensor, randn, Tensor } = gradus
const root = join(__dirname, '..', '..')
const sentence =
  'Call me Ishmael. Some years ago, never mind how long precisely, I thought I would sail about a little. '

/** What examples do not define themselves. */
function assumed() {
  const model = new models.GPT({ vocabSize: 256, nLayer: 1, nHead: 2, nEmbd: 16, blockSize: 256, dropout: 0 })
  const optimizer = new optim.AdamW(model.parameters(), { lr: 1e-3 })
  for (const param of model.parameters()) param.grad = gradus.zeros(param.shape)
  const scaler = new gradus.amp.GradScaler()
  scaler.scale(tensor(1)) // in use
  const ids = Int32Array.from({ length: 8 }, (_, i) => i)
  const dataset = new data.ArrayDataset(Array.from({ length: 8 }, () => ({ inputIds: ids, labels: ids })))
  const inputIds = tensor([[...ids], [...ids]], { dtype: 'int64' })
  const batch = { inputIds, labels: inputIds }
  return {
    model,
    optimizer,
    schedule: new optim.LambdaLR(optimizer, () => 1),
    dataset,
    loader: new data.DataLoader(dataset, { batchSize: 4 }),
    scaler,
    loss: gradus.ones([]).requiresGrad_().mul(2),
    inputIds,
    batch,
    attentionMask: gradus.ones([2, 8], { dtype: 'int64' }),
    labels: tensor([0, 1], { dtype: 'int64' }),
    inputs: randn([3, 4]),
    prompt: inputIds.narrow(0, 0, 1),
    tokenizer: new data.ByteTokenizer(),
    decoder: new data.StreamDecoder(new data.ByteTokenizer()),
    text: sentence.repeat(400),
    history: { title: 'run', facts: {}, steps: [], validation: [], samples: [] },
    blocks: new nn.ModuleList([new nn.Linear(64, 64)]),
    head: new nn.Linear(16, 4),
    hidden: randn([3, 16]),
    logits: randn([3, 4]),
    target: tensor([0, 3, 1], { dtype: 'int64' }),
    targets: tensor([0, 3, 1], { dtype: 'int64' }),
    a: randn([2, 3]),
    b: randn([2, 3]),
    c: randn([2, 3]),
    w: gradus.ones([64]),
    x: randn([2, 8, 64]),
    y: randn([2, 8, 64]),
    q: randn([2, 8, 64, 32]),
    k: randn([2, 8, 64, 32]),
    v: randn([2, 8, 64, 32]),
    cos: gradus.ones([64, 32]),
    sin: gradus.zeros([64, 32]),
    ids: [104, 105],
    learn: () => {},
    writeFile,
    best: 1,
    step: 1,
    console: { log: () => {} },
    process: { stdout: { write: () => true } },
  }
}

interface Example {
  name: string
  code: string
}

const code = (path: string): string => readFileSync(join(root, path), 'utf8')

/** The `@example` blocks of the comments of a source file, without the stars. */
function examplesIn(path: string): Example[] {
  return [...code(path).matchAll(/\/\*\*(?:(?!\*\/)[\s\S])*\*\//g)].flatMap(({ 0: comment, index }) =>
    [...comment.matchAll(/@example\s([\s\S]*?)\s*(?:\*\/|\n\s*\*\s+@)/g)].map((match) => ({
      name: `${path}:${lineOf(path, index + match.index)}`,
      code: match[1]!.replace(/^\s*\* {0,2}/gm, ''),
    })),
  )
}

/** The programs of a page. */
function programsIn(path: string): Example[] {
  return [...code(path).matchAll(/^```ts\n([\s\S]*?)^```/gm)].map(({ 1: program, index }) => ({
    name: `${path}:${lineOf(path, index)}`,
    code: program!.replace(/^import .* from 'gradus'\n/gm, '').replace(/^export /gm, ''),
  }))
}

const lineOf = (path: string, index: number): number => code(path).slice(0, index).split('\n').length

/** A line `expression // value` as a check; declarations and blocks stay as they are. */
const checked = (line: string): string => {
  const parts = /^(?!const |let |for |if |class |\/\/|[ }])(.+?) +\/\/ (.+)$/.exec(line)
  return parts === null ? line : `await check(${parts[1]}, () => (${parts[2]}))`
}

type Run = (this: object, scope: object, check: (actual: unknown, expected: () => unknown) => Promise<void>) => unknown

/** The example as a function of the names in scope. */
function compile({ code }: Example, names: readonly string[]): Run {
  const file = join(folder, `example${count++}.ts`)
  const body = code.split('\n').map(checked).join('\n')
  writeFileSync(file, `exports.run = async function (scope, check) {\nlet { ${names} } = scope\n{\n${body}\n}\n}\n`)
  return (requireTs(file, __filename) as { run: Run }).run
}

async function plain(value: unknown): Promise<unknown> {
  if (value instanceof Tensor) return plain(await value.array())
  if (ArrayBuffer.isView(value)) return plain([...(value as Int32Array)])
  if (Array.isArray(value)) return Promise.all(value.map(plain))
  return typeof value === 'number' ? Math.round(value * 1e4) / 1e4 + 0 : value
}

async function check(actual: unknown, expected: () => unknown): Promise<void> {
  const wanted = await plain(expected())
  const got = await plain(actual)
  if (typeof wanted === 'string' && wanted.endsWith('…')) expect(got).toContain(wanted.slice(0, -1))
  else expect(got).toEqual(wanted)
}

let folder = ''
let count = 0
const home = process.cwd()

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'gradus-examples-'))
  process.chdir(folder)
  const { model, optimizer, schedule, loader, text, tokenizer } = assumed()
  writeFileSync('book.txt', text)
  await data.tokenizeFile('book.txt', tokenizer, 'train.bin')
  await data.BpeTokenizer.train(text, { vocabSize: 260 }).save('tokenizer.json')
  await gradus.io.saveFile(model.stateDict(), 'model.safetensors')
  await gradus.io.saveCheckpoint('runs/x', { model, optimizer, schedule, loader }, { step: 1 })
  copyFileSync('tokenizer.json', 'runs/x/tokenizer.json')
  await gradus.io.saveFile({ 'embedding.weight': gradus.zeros([200, 4]) }, 'large.safetensors')
})

afterAll(() => {
  process.chdir(home)
  rmSync(folder, { recursive: true, force: true })
})

async function run(example: Example, own: object): Promise<void> {
  const scope = { ...gradus, ...ops, ...assumed(), ...own }
  const names = Object.keys(scope).filter((name) => name !== 'default' && name !== 'module.exports')
  await compile(example, names).call(scope, scope, check)
}

const sources = readdirSync(join(root, 'lib'), { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.ts'))
  .map((name) => join('lib', name))
  .sort()

describe('examples of docstrings', () => {
  for (const path of sources) {
    for (const example of examplesIn(path)) {
      test(example.name, async () => run(example, await import(join(root, path))))
    }
  }
})

describe('programs of pages', () => {
  const pages = readdirSync(join(root, 'docs', 'guides')).map((name) => join('docs', 'guides', name))
  for (const path of ['README.md', ...pages]) {
    for (const program of programsIn(path)) test(relative('.', program.name), () => run(program, {}))
  }
})
