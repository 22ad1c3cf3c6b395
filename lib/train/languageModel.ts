// Trains a GPT on the characters of a text: the loop behind `gradus train`, without anything that draws.

import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { noGrad } from '../autograd/index'
import { DataLoader } from '../data/loader'
import { TextDataset, type TextSample } from '../data/text'
import { CharTokenizer } from '../data/tokenizer'
import { type Device, type DeviceName, device } from '../device'
import { ArgumentError, describeValue, FileError, StateError } from '../errors'
import { writeAtomically } from '../io/atomic'
import { latestCheckpoint, loadCheckpoint, saveCheckpoint } from '../io/checkpoint'
import type { MemoryReport } from '../memoryReport'
import { GPT } from '../models/gpt'
import { htmlReport, lossChart, type StepRecord, type TrainingHistory } from '../monitor/report'
import { AdamW } from '../optim/adam'
import { LambdaLR } from '../optim/schedule/lambda'
import * as random from '../random'
import { memory } from '../tensor/memoryAccount'
import { Pace, type PaceOptions, type PaceState } from './pace'
import { commonestToken, unigramEntropy } from './text'

/** The run, but for how long it is: what a checkpoint must agree with. */
export interface LanguageModelConfig {
  /** Name of the text, for titles. */
  title: string
  seed: number
  nLayer: number
  nHead: number
  nEmbd: number
  blockSize: number
  batchSize: number
  learningRate: number
  dropout: number
}

/** Options of `trainLanguageModel`. */
export interface LanguageModelOptions extends PaceOptions {
  text: string
  /** Folder for checkpoints and report; without `resume` one that holds no checkpoints. */
  out: string
  /** Continues from the newest checkpoint in `out`. */
  resume?: boolean
  /** Where it trains; default `getDefaultDevice()`. A run may be resumed on another. */
  device?: DeviceName | Device
  /** Ends the run after the step under way, with checkpoint and report. */
  signal?: AbortSignal
  /** Hears what happens. */
  observer?: LanguageModelObserver
}

/** What a run tells while it runs. */
export interface LanguageModelObserver {
  begin?(facts: Record<string, string>, step: number): void
  step?(record: StepRecord, pace: { totalSteps: number; secondsLeft: number }): void
  evaluated?(step: number, loss: number): void
  sampled?(step: number, text: string): void
}

/** What a run leaves. */
export interface LanguageModelResult {
  steps: number
  trainLoss: number
  valLoss: number
  unigramEntropy: number
  tokensPerSecond: number
  checkpoint: string
  report: string
  sample: string
}

/** What a checkpoint of a run holds beside the parts with a state of their own. */
export interface LanguageModelProgress {
  config: LanguageModelConfig
  /** Tokens of the model, in the order of their ids. */
  characters: string
  textHash: string
  pace: PaceState
  history: TrainingHistory
}

const hashOf = (text: string): string => createHash('sha256').update(text).digest('hex')

/** @internal What the newest checkpoint of a run holds beside the parts.
 *  @throws FileError when there is none, or one of another program */
export async function readRun(op: string, run: string): Promise<{ path: string; progress: LanguageModelProgress }> {
  const { extra, path } = await loadCheckpoint(run, {})
  const progress = (extra ?? {}) as Partial<LanguageModelProgress>
  const isObject = (value: unknown): boolean => typeof value === 'object' && value !== null
  const lacks = [
    !isObject(progress.config) && 'config',
    typeof progress.characters !== 'string' && 'characters',
    typeof progress.textHash !== 'string' && 'textHash',
    !isObject(progress.pace) && 'pace',
    !isObject(progress.history) && 'history',
  ].filter(Boolean)
  if (lacks.length === 0) return { path, progress: progress as LanguageModelProgress }
  throw new FileError(op, {
    problem: 'the checkpoint is not one of gradus train',
    got: `${path}, without ${lacks.join(', ')}`,
    expected: 'a folder that gradus train made',
    action: 'read it with io.loadCheckpoint and the model that it was saved from',
  })
}

const validationShare = 0.1
const validationWindows = 64
const warmupSteps = 100
const weightDecay = 0.1
const maxNorm = 1
const sampleLength = 320

/** Matrices decay, embeddings among them as in nanoGPT; vectors (biases and norms) do not. */
function decayGroups(model: GPT): { params: ReturnType<GPT['parameters']>; weightDecay: number }[] {
  const parameters = model.parameters()
  return [
    { params: parameters.filter((p) => p.ndim >= 2), weightDecay },
    { params: parameters.filter((p) => p.ndim < 2), weightDecay: 0 },
  ]
}

class Run {
  private readonly model: GPT
  private readonly optimizer: AdamW
  private readonly schedule: LambdaLR
  private readonly loader: DataLoader<TextSample>
  private readonly validation: DataLoader<TextSample>
  private readonly history: TrainingHistory
  private readonly textHash: string
  private pace: Pace
  private readonly start: number
  private step = 0
  private checkpoint = ''

  constructor(
    private readonly config: LanguageModelConfig,
    private readonly tokenizer: CharTokenizer,
    private readonly options: LanguageModelOptions,
  ) {
    const { nLayer, nHead, nEmbd, blockSize, batchSize, dropout, learningRate, seed, title } = config
    random.seed(seed)
    const tokens = tokenizer.encode(options.text)
    const cut = tokens.length - Math.max(blockSize, Math.floor(tokens.length * validationShare))
    const train = tokens.subarray(0, cut)
    const held = tokens.subarray(cut, cut + validationWindows * (blockSize - 1) + 1)
    // a model that has seen little yet knows best what follows the commonest token
    this.start = commonestToken(train)
    this.textHash = hashOf(options.text)
    this.model = new GPT({ vocabSize: tokenizer.vocabSize, nLayer, nHead, nEmbd, blockSize, dropout })
    if (options.device !== undefined) this.model.to(device(options.device))
    const placed = options.device !== undefined && { device: options.device }
    this.optimizer = new AdamW(decayGroups(this.model), { lr: learningRate, betas: [0.9, 0.95] })
    this.pace = new Pace(options)
    this.schedule = new LambdaLR(this.optimizer, (step) => this.pace.multiplier(step, this.warmup()))
    const drawn = new TextDataset(train, { blockSize, windows: 'random' })
    this.loader = new DataLoader(drawn, { batchSize, seed, ...placed })
    // windows overlap by one token, so that each but the first is foretold exactly once
    this.validation = new DataLoader(new TextDataset(held, { blockSize, stride: blockSize - 1 }), {
      batchSize,
      ...placed,
    })
    this.history = {
      title: `A GPT reads ${title}`,
      facts: {
        parameters: `${(this.model.numParameters() / 1e6).toFixed(2)} M`,
        model: `${nLayer} layers, ${nHead} heads, width ${nEmbd}`,
        context: `${blockSize} characters`,
        batch: `${batchSize} sequences`,
        text: `${options.text.length.toLocaleString('en')} characters, ${tokenizer.vocabSize} different`,
        seed: String(seed),
        ...(options.device !== undefined && { device: String(device(options.device)) }),
      },
      steps: [],
      validation: [],
      samples: [],
      unigramEntropy: unigramEntropy(train),
    }
  }

  private warmup(): number {
    return Math.max(1, Math.min(warmupSteps, Math.floor((this.options.steps ?? Number.POSITIVE_INFINITY) / 10)))
  }

  private parts() {
    const { model, optimizer, schedule, loader } = this
    return { model, optimizer, schedule, loader }
  }

  /** Continues a run. What does not fit is said before anything is loaded. */
  static async resume(config: LanguageModelConfig, options: LanguageModelOptions): Promise<Run> {
    const { path, progress } = await readRun('train', options.out)
    if (progress.textHash !== hashOf(options.text)) {
      throw new FileError('train', {
        problem: 'the run was made with another text',
        got: config.title,
        action: 'resume with the same text, or begin in another folder',
      })
    }
    for (const name of Object.keys(progress.config) as (keyof LanguageModelConfig)[]) {
      if (name === 'title' || config[name] === progress.config[name]) continue
      throw new ArgumentError('train', {
        problem: `the run was begun with another ${name}`,
        got: describeValue(config[name]),
        expected: describeValue(progress.config[name]),
        action: 'resume with the same configuration, or begin in another folder',
      })
    }
    const run = new Run(config, new CharTokenizer([...progress.characters]), options)
    await run.restore(path, progress)
    return run
  }

  private async restore(path: string, { pace, history }: LanguageModelProgress): Promise<void> {
    const { step } = await loadCheckpoint(path, this.parts())
    this.step = step
    this.checkpoint = path
    this.pace = new Pace(this.options, pace)
    const { device: _, ...facts } = history.facts
    const { device: place } = this.history.facts
    Object.assign(this.history, history, { facts: { ...facts, ...(place !== undefined && { device: place }) } })
  }

  private async save(): Promise<void> {
    const extra: LanguageModelProgress = {
      config: this.config,
      characters: this.tokenizer.decode(Int32Array.from({ length: this.tokenizer.vocabSize }, (_, id) => id)),
      textHash: this.textHash,
      pace: this.pace.state(),
      history: this.history,
    }
    this.checkpoint = await saveCheckpoint(this.options.out, this.parts(), {
      step: this.step,
      extra,
      keepLast: 1,
      files: { 'tokenizer.json': JSON.stringify(this.tokenizer.toJson()) },
    })
  }

  /** Mean loss over the same held-out sequences each time. */
  private async evaluate(): Promise<void> {
    this.model.eval()
    let sum = 0
    let count = 0
    for await (const { inputIds, labels } of this.validation) {
      const rows = inputIds.shape[0]!
      const { loss } = noGrad(() => this.model.forward({ inputIds, labels, returnLogits: false }))
      sum += rows * (await loss!.item())
      count += rows
    }
    this.model.train()
    const loss = sum / count
    this.history.validation.push({ step: this.step, loss })
    this.options.observer?.evaluated?.(this.step, loss)
  }

  private async sample(): Promise<void> {
    const { seed } = this.config
    const tokens: number[] = []
    const sampling = { maxNewTokens: sampleLength, temperature: 0.8, seed, eosTokenId: null }
    for await (const [token] of this.model.stream([this.start], sampling)) tokens.push(token!)
    const text = this.tokenizer.decode(tokens).trim()
    this.history.samples.push({ step: this.step, text })
    this.options.observer?.sampled?.(this.step, text)
  }

  private async report(): Promise<string> {
    const path = join(this.options.out, 'report.html')
    await writeAtomically('train', path, async (file) => file.writeFile(await htmlReport(this.history)))
    const chart = join(this.options.out, 'loss.svg')
    await writeAtomically('train', chart, async (file) => file.writeFile(await lossChart(this.history)))
    return path
  }

  /** One update; returns when its loss is known. */
  private async update({ inputIds, labels }: { inputIds: never; labels: never }): Promise<void> {
    const from = performance.now()
    const learningRate = this.optimizer.paramGroups[0]!.lr
    this.optimizer.zeroGrad()
    const { loss } = this.model.forward({ inputIds, labels, returnLogits: false })
    loss!.backward()
    const norm = this.optimizer.step({ maxNorm })
    this.schedule.step()
    const [lossValue, gradNorm] = [await loss!.item(), await norm.item()]
    const seconds = (performance.now() - from) / 1e3
    this.step++
    const { batchSize, blockSize } = this.config
    const record = {
      step: this.step,
      loss: lossValue,
      learningRate,
      gradNorm,
      tokensPerSecond: (batchSize * blockSize) / seconds,
    }
    if (!Number.isFinite(lossValue)) {
      throw new StateError('train', {
        problem: 'the loss is not a finite number any more',
        got: `${lossValue} in step ${this.step}`,
        action: `lower the learning rate${this.checkpoint === '' ? '' : '; the last checkpoint is still good'}`,
      })
    }
    this.history.steps.push(record)
    this.pace.passed(this.step)
    this.options.observer?.step?.(record, this.pace.outlook(this.step))
  }

  private async profiled(step: () => Promise<void>): Promise<MemoryReport> {
    const { peak, phases, modules, timeline } = await memory.profile(step, {
      model: this.model,
      optimizer: this.optimizer,
    })
    return { peak, phases, modules, timeline }
  }

  private get stopped(): boolean {
    return (this.options.signal?.aborted ?? false) || this.pace.isOver(this.step)
  }

  /** Evaluations, samples and checkpoints come ten times in a run, and more often at its beginning. */
  private isMilestone(last: number): boolean {
    const { totalSteps } = this.pace
    const share = Number.isFinite(totalSteps) ? Math.max(25, Math.floor(totalSteps / 10)) : 100
    return this.step - last >= share || (last === 0 && this.step === Math.min(50, share))
  }

  async run(): Promise<LanguageModelResult> {
    this.options.observer?.begin?.(this.history.facts, this.step)
    let milestone = this.history.validation.at(-1)?.step ?? 0
    while (!this.stopped) {
      for await (const batch of this.loader) {
        // the third step: by then states and scratch memory are there
        if (this.step === 2) this.history.memory = await this.profiled(() => this.update(batch as never))
        else await this.update(batch as never)
        if (this.stopped) break
        if (this.isMilestone(milestone)) {
          milestone = this.step
          await this.evaluate()
          await this.sample()
          await this.save()
        }
      }
    }
    if (this.history.validation.at(-1)?.step !== this.step) {
      await this.evaluate()
      await this.sample()
    }
    await this.save()
    const { steps, validation, samples, unigramEntropy: entropy } = this.history
    const recent = steps.slice(-50)
    const mean = (pick: (record: StepRecord) => number): number =>
      recent.reduce((sum, record) => sum + pick(record), 0) / recent.length
    const result = {
      steps: this.step,
      trainLoss: mean(({ loss }) => loss),
      valLoss: validation.at(-1)!.loss,
      unigramEntropy: entropy!,
      tokensPerSecond: Math.round(mean(({ tokensPerSecond }) => tokensPerSecond)),
      checkpoint: this.checkpoint,
      sample: samples.at(-1)!.text,
    }
    Object.assign(this.history.facts, {
      steps: String(result.steps),
      'training loss': result.trainLoss.toFixed(4),
      'validation loss': result.valLoss.toFixed(4),
      'unigram entropy': result.unigramEntropy.toFixed(4),
      'tokens/s': result.tokensPerSecond.toLocaleString('en'),
      time: `${(this.pace.elapsed / 60).toFixed(1)} minutes`,
    })
    return { ...result, report: await this.report() }
  }
}

/** Trains a GPT on the characters of a text and leaves a checkpoint and a report in `out`. With `steps` and a seed the
 *  weights are the same bits every time, also when the run was stopped and resumed in between.
 *  @throws ArgumentError when the text is too short for the context, or `config` is not that of the run to resume; DeviceError when there is no such device; FileError when `out` cannot be written, or
 *  holds checkpoints and `resume` is not set */
export async function trainLanguageModel(
  config: LanguageModelConfig,
  options: LanguageModelOptions,
): Promise<LanguageModelResult> {
  const least = 10 * config.blockSize
  if (options.text.length < least) {
    throw new ArgumentError('train', {
      problem: 'the text is too short',
      got: `${options.text.length} characters`,
      expected: `at least ${least} for a context of ${config.blockSize}`,
      action: 'give a longer text or a smaller context',
    })
  }
  const present = options.resume ? null : await latestCheckpoint(options.out)
  if (present !== null) {
    throw new FileError('train', {
      problem: 'the output folder holds checkpoints of another run',
      got: present,
      expected: 'a folder without any',
      action: 'give another one with --out, continue that run with --resume, or delete it',
    })
  }
  const run = options.resume
    ? await Run.resume(config, options)
    : new Run(config, CharTokenizer.fromText(options.text), options)
  return run.run()
}
