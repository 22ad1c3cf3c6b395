// npm run bench:step: whole training steps of a standard transformer, in the JSON of bench/pytorch/train_step.py.
// A step is zeroGrad, forward, backward, clipping to norm 1, AdamW(lr 3e-4, weight decay 0.1); with fp16 a GradScaler.

import { readFileSync, writeFileSync } from 'node:fs'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { Command, Option } from 'commander'
import {
  amp,
  cuda,
  type Device,
  type DeviceName,
  device,
  io,
  memory,
  optim,
  random,
  setNumThreads,
  type Tensor,
} from 'gradus'
import { type Batch, type ConfigName, configs, Model, matmulFlops, randomBatch } from './model'
import { probability, wholeNumber } from './options'
import { median } from './timing'

interface Options {
  config: ConfigName
  device: DeviceName
  graph?: boolean
  batch?: number
  context?: number
  dtype: keyof typeof lowDTypes
  dropout: number
  steps: number
  seconds: number
  warmup: number
  threads: number
  checkpoint?: boolean
  optim: 'fused' | '8bit'
  gatherLogits?: boolean
  skipIgnored?: boolean
  load?: string
}

// Reduced precision is autocast over float32 weights.
const lowDTypes = { fp32: null, bf16: 'bfloat16', fp16: 'float16' } as const

/** A field of /proc/self/status in MB: VmRSS is resident now, VmHWM the peak since it was last cleared. */
function statusMb(field: string): number {
  const line = readFileSync('/proc/self/status', 'utf8').match(new RegExp(`^${field}:\\s+(\\d+)`, 'm'))
  return Math.round(Number(line![1]) / 1024)
}

/** Weights and batch that the peer wrote with --save. */
async function load(file: string, model: Model, gatherLogits: boolean): Promise<Batch> {
  const stored = await io.loadFile(file)
  const weights = Object.entries(stored).filter(([name]) => !name.startsWith('batch.'))
  model.loadStateDict(Object.fromEntries(weights))
  await device('cpu').synchronize()
  for (const [, tensor] of weights) tensor.dispose()
  const mask = stored['batch.mask']
  const picked = stored['batch.picked']
  if (gatherLogits !== (picked !== undefined)) {
    throw new Error(`bench:step: --gather-logits must be given to both sides or to none; ${file} is of the other kind`)
  }
  return {
    idx: stored['batch.idx']!,
    target: stored['batch.target']!,
    mask: mask === undefined ? null : mask.unsqueeze(1).unsqueeze(1), // (B, 1, 1, T)
    picked: picked ?? null,
  }
}

const moved = (batch: Batch, on: Device): Batch =>
  Object.fromEntries(Object.entries(batch).map(([name, x]) => [name, x?.to(on) ?? null])) as unknown as Batch

/** The step as one launch. */
function replayOf<R>(step: () => R, on: Device): () => R {
  const graph = new cuda.CUDAGraph(on)
  const outputs = graph.capture(step)
  return () => {
    graph.replay()
    return outputs
  }
}

async function main(options: Options): Promise<void> {
  const { config: name, dropout, steps, warmup, threads } = options
  setNumThreads(threads)
  random.seed(1)
  const on = device(options.device)
  const { batch: B = configs[name].B, context: T = configs[name].T } = options
  const config = { ...configs[name], B, T }
  const model = new Model(config, dropout, options.skipIgnored)
  const batch = moved(
    options.load
      ? await load(options.load, model, options.gatherLogits ?? false)
      : randomBatch(config, options.gatherLogits ?? false),
    on,
  )
  model.to(on)
  if (options.checkpoint) model.gradientCheckpointing()
  const parameters = model.parameters()
  await on.synchronize() // the weights are there
  // what loading the file needed is not what the model holds
  setFlagsFromString('--expose-gc')
  runInNewContext('gc')()
  memory.trim()
  const baseRss = statusMb('VmRSS')
  writeFileSync('/proc/self/clear_refs', '5')

  const low = lowDTypes[options.dtype]
  const optimizer = new optim.AdamW(parameters, {
    lr: 3e-4,
    weightDecay: 0.1,
    stateBits: options.optim === '8bit' ? 8 : 32,
  })
  const scaler = new amp.GradScaler({ enabled: low === 'float16' })
  const step = (): [loss: Tensor, norm: Tensor] => {
    optimizer.zeroGrad()
    const loss =
      low === null ? model.forward(batch) : amp.autocast({ device: on.type, dtype: low }, () => model.forward(batch))
    scaler.scale(loss).backward()
    const { norm } = scaler.step(optimizer, { maxNorm: 1 })
    scaler.update()
    return [loss, norm!]
  }

  let lossFirst = Number.NaN
  let normFirst = Number.NaN
  for (let i = 0; i < warmup; i++) {
    const [loss, norm] = step()
    if (i === 0) [lossFirst, normFirst] = [await loss.item(), await norm.item()]
    else await loss.item()
  }
  memory.resetPeak(on)

  const run = options.graph ? replayOf(step, on) : step

  const resolution = 2
  const delay = monitorEventLoopDelay({ resolution })
  delay.enable()
  const times: number[] = []
  let lossLast = Number.NaN
  const begin = performance.now()
  // `steps` steps, and more until the seconds are over: the event loop's delay is not worth a percentile before
  while (times.length < steps || performance.now() - begin < options.seconds * 1000) {
    const from = performance.now()
    const [loss] = run()
    const value = await loss.item()
    times.push(performance.now() - from)
    if (times.length <= steps) lossLast = value
  }
  delay.disable()

  const peak = memory.maxAllocated(on)
  const peakRss = statusMb('VmHWM')
  // activations and scratch memory at their peak, which is not that of the whole: gradients come and go
  const { phases } = await memory.profile(async () => void (await step()[0].item()), { model, optimizer, device: on })
  const activations = Math.max(...phases.map(({ kinds }) => kinds.activations + kinds.workspace))
  const milliseconds = median(times)
  const scored = options.skipIgnored ? Number(await batch.target.ne(-100).sum().item()) : batch.picked?.numel
  const flops = matmulFlops(config, scored ?? null)
  const round = (value: number, digits: number): number => Number(value.toFixed(digits))
  const delayMs = (nanoseconds: number): number => round(Math.max(0, nanoseconds / 1e6 - resolution), 3)
  console.log(
    JSON.stringify({
      config: name,
      dtype: options.dtype,
      mode: options.graph ? 'graph' : 'eager',
      device: `${on}`,
      batch: B,
      context: T,
      checkpoint: options.checkpoint ?? false,
      dropout,
      optim: options.optim,
      threads,
      steps: times.length,
      params: model.numParameters(),
      median_ms: round(milliseconds, 3),
      min_ms: round(Math.min(...times), 3),
      tokens_per_s: Math.round((config.B * config.T * 1e3) / milliseconds),
      matmul_gflop: round(flops / 1e9, 2),
      gflops: round(flops / milliseconds / 1e6, 1),
      peak_rss_mb: peakRss,
      base_rss_mb: baseRss,
      loss_first: round(lossFirst, 6),
      grad_norm_first: round(normFirst, 6),
      loss_last: round(lossLast, 4),
      event_loop_p99_ms: delayMs(delay.percentile(99)),
      event_loop_max_ms: delayMs(delay.max),
      peak_tensor_mb: round(peak / 2 ** 20, 1),
      activation_mb: round(activations / 2 ** 20, 1),
    }),
  )
}

new Command('bench:step')
  .description('Times whole training steps; one JSON line, with the keys of bench/pytorch/train_step.py and more.')
  .addOption(new Option('--config <name>', 'model').choices(Object.keys(configs)).default('baby'))
  .option('--device <name>', 'where it trains', 'cpu')
  .option('--graph', 'cuda: replay the step as a graph')
  .option('--batch <n>', "sequences, instead of the configuration's", wholeNumber)
  .option('--context <n>', "positions, instead of the configuration's", wholeNumber)
  .addOption(new Option('--dtype <name>', 'precision').choices(Object.keys(lowDTypes)).default('fp32'))
  .option('--dropout <p>', 'dropout', probability, 0)
  .option('--steps <n>', 'timed steps', wholeNumber, 10)
  .option('--seconds <n>', 'timed at least so long', wholeNumber, 10)
  .option('--warmup <n>', 'untimed steps', wholeNumber, 3)
  .option('--threads <n>', 'kernel threads', wholeNumber, 2)
  .option('--checkpoint', 'recompute each block in backward')
  .addOption(
    new Option('--optim <name>', '8bit keeps the optimizer state in 8 bits')
      .choices(['fused', '8bit'])
      .default('fused'),
  )
  .option('--gather-logits', 'bert: apply the head to the masked positions only')
  .option('--skip-ignored', 'bert: leave rows without a target out of the head, as linearCrossEntropy does by default')
  .option('--load <file>', 'initial weights and batch that the peer wrote with --save')
  .option('--json', 'accepted for symmetry; the output is always one JSON line')
  .action(main)
  .parseAsync()
  .catch((error: Error) => {
    console.error(error.message)
    process.exitCode = 1
  })
