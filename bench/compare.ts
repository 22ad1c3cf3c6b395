// npm run bench:compare: gradus and PyTorch on the same work, alternating in one run, and a table of ratios
// (gradus time / PyTorch time: below 1 gradus is faster).

import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Command, Option } from 'commander'
import { configs } from './model'
import { wholeNumber } from './options'
import { median } from './timing'

interface Options {
  config?: string
  dtype?: string
  dropout: string
  steps?: number
  rounds: number
  threads: number
  only?: string
  seconds: string
  gatherLogits?: boolean
  skipIgnored?: boolean
  checkpoint?: boolean
  compiled?: boolean
  optim?: string
  tuned?: boolean
  json?: boolean
}

type Row = Record<string, number | string>

const tsx = join(__dirname, '../node_modules/tsx/dist/cli.mjs')

/** The JSON lines that a command prints. */
function measure(command: string, args: string[]): Row[] {
  const { status, stdout } = spawnSync(command, args, {
    cwd: join(__dirname, '..'),
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
    maxBuffer: 1 << 26,
  })
  if (status !== 0) throw new Error(`bench:compare: ${command} ${args.join(' ')} failed; its messages are above`)
  const lines = stdout.split('\n').filter((line) => line.startsWith('{'))
  return lines.map((line) => JSON.parse(line.replaceAll('NaN', 'null')) as Row)
}

const gradus = (script: string, args: string[]): Row[] =>
  measure(process.execPath, [tsx, join(__dirname, script), ...args])

const pytorch = (script: string, args: string[], tuned: boolean): Row[] =>
  measure('bash', [join(__dirname, 'pytorch/run'), ...(tuned ? ['--tuned'] : []), script, ...args])

// Steps of a millisecond are worth measuring once both sides are warm.
const defaultSteps = (config: string): number => (config === 'tiny' ? 4000 : 10)

interface Comparison {
  what: string
  gradus: number
  pytorch: number
  unit: string
}

function show(comparisons: readonly Comparison[], json: boolean): void {
  if (json) {
    for (const row of comparisons) console.log(JSON.stringify({ ...row, ratio: row.gradus / row.pytorch }))
    return
  }
  const wide = Math.max(...comparisons.map(({ what }) => what.length))
  console.log(`${''.padEnd(wide)}  ${'gradus'.padStart(12)} ${'PyTorch'.padStart(12)}   ratio`)
  for (const { what, gradus, pytorch, unit } of comparisons) {
    const show = (value: number): string => `${+value.toPrecision(4)} ${unit}`.padStart(12)
    console.log(`${what.padEnd(wide)}  ${show(gradus)} ${show(pytorch)}   ${(gradus / pytorch).toFixed(3)}`)
  }
}

const relative = (a: number, b: number): number => Math.abs(a - b) / Math.abs(b)

function compareSteps(config: string, options: Options, folder: string): Comparison[] {
  const file = join(folder, `${config}.safetensors`)
  const dtype = options.dtype ?? 'fp32'
  const common = ['--config', config, '--dtype', dtype, '--dropout', options.dropout]
  common.push('--steps', String(options.steps ?? defaultSteps(config)), '--threads', String(options.threads))
  if (options.gatherLogits && config === 'bert') common.push('--gather-logits')
  if (options.checkpoint) common.push('--checkpoint')
  const ours: Row[] = []
  const theirs: Row[] = []
  const mode = options.compiled ? ['--mode', 'compile'] : []
  const optim = options.optim === undefined ? [] : ['--optim', options.optim]
  const skip = options.skipIgnored && config === 'bert' ? ['--skip-ignored'] : []
  for (let round = 0; round < options.rounds; round++) {
    const save = round === 0 ? ['--save', file] : []
    theirs.push(...pytorch('train_step.py', [...common, ...mode, ...save], options.tuned ?? false))
    ours.push(...gradus('step.ts', [...common, ...optim, ...skip, '--load', file]))
  }
  const tolerance = dtype === 'fp32' ? 1e-4 : 3e-2
  for (const key of options.dropout === '0' ? ['loss_first', 'grad_norm_first'] : []) {
    const [a, b] = [Number(ours[0]![key]), Number(theirs[0]![`${key}_f64`] ?? theirs[0]![key])]
    if (!(relative(a, b) <= tolerance)) {
      throw new Error(
        `bench:compare: ${config}: ${key} differs: got ${a}, expected ${b} as the peer; the ratio is void`,
      )
    }
  }
  const middle = (rows: Row[], key: string): number => median(rows.map((row) => Number(row[key])))
  const memory = (rows: Row[]): number => median(rows.map((row) => Number(row.peak_rss_mb) - Number(row.base_rss_mb)))
  return [
    {
      what: `${config} ${dtype} step`,
      gradus: middle(ours, 'median_ms'),
      pytorch: middle(theirs, 'median_ms'),
      unit: 'ms',
    },
    { what: `${config} ${dtype} memory`, gradus: memory(ours), pytorch: memory(theirs), unit: 'MB' },
  ]
}

function compareOperators(options: Options): Comparison[] {
  const args = ['--only', options.only!, '--seconds', options.seconds, '--threads', String(options.threads)]
  if (options.dtype !== undefined) args.push('--dtype', options.dtype)
  const key = ({ op, shape, dtype }: Row): string => `${op} ${shape} ${dtype}`
  const runs = Array.from({ length: options.rounds }, () => [
    gradus('ops.ts', args),
    pytorch('ops.py', args, options.tuned ?? false),
  ])
  const rows: Comparison[] = []
  for (const first of runs[0]![0]!) {
    for (const field of Object.keys(first).filter((name) => /_(ms|us)$/.test(name) && first[name] !== null)) {
      const values = [0, 1].map((side) =>
        runs.map((run) => Number(run[side]!.find((row) => key(row) === key(first))?.[field] ?? Number.NaN)),
      )
      const [ours, theirs] = values.map(median) as [number, number]
      if (Number.isNaN(theirs)) continue
      const what = `${key(first)} ${field.replace(/_(ms|us)$/, '')}`
      rows.push({ what, gradus: ours, pytorch: theirs, unit: field.slice(-2) })
    }
  }
  return rows
}

function main(options: Options): void {
  if (options.only !== undefined) {
    show(compareOperators(options), options.json ?? false)
    return
  }
  const folder = mkdtempSync(join(tmpdir(), 'gradus-compare-'))
  try {
    const names = options.config === undefined ? Object.keys(configs) : [options.config]
    show(
      names.flatMap((name) => compareSteps(name, options, folder)),
      options.json ?? false,
    )
  } finally {
    rmSync(folder, { recursive: true })
  }
}

new Command('bench:compare')
  .description('Runs gradus and PyTorch alternately on the same work and prints the ratios of their medians.')
  .addOption(new Option('--config <name>', 'one model instead of all').choices(Object.keys(configs)))
  .addOption(
    new Option('--dtype <name>', 'precision (default: fp32; of operators: all)').choices(['fp32', 'bf16', 'fp16']),
  )
  .option('--dropout <p>', 'dropout', '0')
  .option('--steps <n>', 'timed steps a run (default: 4000 of tiny, else 10)', wholeNumber)
  .option('--rounds <n>', 'runs of each side', wholeNumber, 3)
  .option('--threads <n>', 'kernel threads of each side', wholeNumber, 2)
  .option('--gather-logits', 'bert: the head on masked positions only, on both sides')
  .option('--skip-ignored', "bert: gradus leaves rows without a target out of the head, its default; PyTorch's can't")
  .option('--checkpoint', 'recompute each block in backward, on both sides')
  .option('--compiled', "PyTorch's step by torch.compile instead of eager")
  .addOption(
    new Option('--optim <name>', "gradus' optimizer: 8bit against PyTorch's fused one").choices(['fused', '8bit']),
  )
  .option('--only <text>', 'operators whose name contains the text, instead of steps')
  .option('--seconds <s>', 'operators: time for each measurement', '0.6')
  .option('--tuned', 'PyTorch at its fastest: MKL on its AVX-512 path and tcmalloc')
  .option('--json', 'JSON lines instead of a table')
  .action((options: Options) => {
    try {
      main(options)
    } catch (error) {
      console.error((error as Error).message)
      process.exitCode = 1
    }
  })
  .parse()
