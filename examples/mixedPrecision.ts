// The tutorial's loop with everything in it: gradient accumulation, autocast, loss scaling, clipping and a schedule. A
// GPT learns the text of this file in float32, bfloat16 and float16, and a table compares the three.
//
//   npx tsx examples/mixedPrecision.ts

import { readFileSync } from 'node:fs'
import { amp, data, memory, models, nn, optim, random, tensor } from 'gradus'

type Precision = 'float32' | 'bfloat16' | 'float16'

/** Windows of the bytes of this file. */
class Source extends data.Dataset<{ inputIds: Uint8Array; labels: Uint8Array }> {
  private readonly bytes = new Uint8Array(readFileSync(__filename))
  readonly length = 64

  constructor(private readonly blockSize: number) {
    super()
  }

  get(index: number): { inputIds: Uint8Array; labels: Uint8Array } {
    const start = Math.floor((index * (this.bytes.length - this.blockSize)) / this.length)
    const inputIds = this.bytes.slice(start, start + this.blockSize)
    return { inputIds, labels: inputIds }
  }
}

export interface Result {
  precision: Precision
  losses: number[]
  /** Median of a step with its micro-batches. */
  milliseconds: number
  /** Peak of the activations, and of everything (weights, gradients and optimizer state stay float32). */
  activationBytes: number
  peakBytes: number
}

const accumulationSteps = 2

/** Trains from the same seed. */
export async function train(precision: Precision, epochs: number, nEmbd = 256, nLayer = 4): Promise<Result> {
  random.seed(1337)
  const blockSize = 128
  const model = new models.GPT({ vocabSize: 256, nLayer, nHead: 4, nEmbd, blockSize })
  const loader = new data.DataLoader(new Source(blockSize), { batchSize: 8, shuffle: true })
  const optimizer = new optim.AdamW(model.parameters(), { lr: 1e-3, weightDecay: 0.01 })
  const totalSteps = epochs * Math.ceil(loader.length / accumulationSteps)
  const schedule = optim.cosineWarmup(optimizer, { warmupSteps: 4, totalSteps })
  const scaler = new amp.GradScaler({ enabled: precision === 'float16' }) // bfloat16 has float32's range
  const losses: number[] = []
  const times: number[] = []

  const epoch = async (): Promise<void> => {
    for await (const group of data.groups(loader, accumulationSteps)) {
      const begin = performance.now()
      optimizer.zeroGrad()
      let total = tensor(0)
      for (const batch of group) {
        const forward = () => model.forward({ ...batch, returnLogits: false }) // only the loss is wanted
        const { loss } = precision === 'float32' ? forward() : amp.autocast({ dtype: precision }, forward)
        // every micro-batch has as many targets here, so the mean of means is the mean; else use optim.accumulate
        const share = loss!.div(group.length)
        total = total.add(share.detach())
        scaler.scale(share).backward()
      }
      scaler.unscale_(optimizer)
      nn.utils.clipGradNorm_(model.parameters(), 1.0)
      scaler.step(optimizer, { scheduler: schedule })
      scaler.update()
      losses.push(await total.item())
      times.push(performance.now() - begin)
    }
  }

  await epoch() // compiles, allocates
  const profile = await memory.profile(epoch, { model, optimizer })
  for (let i = 2; i < epochs; i++) await epoch()
  const sorted = times.slice(losses.length / epochs).sort((a, b) => a - b)
  return {
    precision,
    losses,
    milliseconds: sorted[sorted.length >> 1]!,
    activationBytes: Math.max(...profile.phases.map(({ kinds }) => kinds.activations)),
    peakBytes: profile.peak,
  }
}

async function main(): Promise<void> {
  console.log('precision   loss      step          activations     peak')
  let first: Result | null = null
  for (const precision of ['float32', 'bfloat16', 'float16'] as const) {
    const result = await train(precision, 8)
    first ??= result
    const { losses, milliseconds, activationBytes, peakBytes } = result
    const share = (mine: number, whole: number): string => `(${(mine / whole).toFixed(2)})`
    console.log(
      `${precision.padEnd(10)}  ${losses.at(-1)!.toFixed(3)}  ` +
        `${milliseconds.toFixed(0).padStart(6)} ms ${share(milliseconds, first.milliseconds)}  ` +
        `${(activationBytes / 2 ** 20).toFixed(1).padStart(6)} MiB ${share(activationBytes, first.activationBytes)}  ` +
        `${(peakBytes / 2 ** 20).toFixed(1).padStart(6)} MiB ${share(peakBytes, first.peakBytes)}`,
    )
  }
}

if (require.main === module) void main()
