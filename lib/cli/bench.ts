// gradus bench: what this machine does with the operators a transformer is made of, and with a whole step.

import { noGrad } from '../autograd/index'
import { type Device, type DeviceName, device } from '../device'
import { GPT } from '../models/gpt'
import { getNumThreads } from '../native'
import { clipGradNorm_ } from '../nn/utils'
import { add, gelu, scaledDotProductAttention } from '../ops/index'
import { randint, randn } from '../ops/random'
import { AdamW } from '../optim/adam'
import { getDeviceName } from '../tensor/cuda'
import type { Tensor } from '../tensor/tensor'

interface Row {
  what: string
  milliseconds: number
  rate: number
  unit: 'GFLOP/s' | 'GB/s' | 'tokens/s'
}

/** Median milliseconds of fn, the device's work included. */
function time(fn: () => void, seconds: number, place: Device): number {
  const times: number[] = []
  const end = performance.now() + seconds * 1e3
  for (let i = 0; i < 3 || performance.now() < end; i++) {
    const from = performance.now()
    fn()
    place.synchronizeSync()
    if (i > 0) times.push(performance.now() - from)
  }
  times.sort((a, b) => a - b)
  return times[times.length >> 1]!
}

function operators(seconds: number, place: Device): Row[] {
  const row = (what: string, unit: Row['unit'], work: number, fn: () => Tensor): Row => {
    const milliseconds = time(() => noGrad(() => fn().dispose()), seconds, place)
    return { what, milliseconds, rate: work / milliseconds / 1e6, unit }
  }
  const made = (...shape: number[]): Tensor => randn(shape, { device: place })
  const [a, b] = [made(1024, 1024), made(1024, 1024)]
  const [B, H, T, D] = [4, 12, 256, 64]
  const [q, k, v] = [made(B, H, T, D), made(B, H, T, D), made(B, H, T, D)]
  const x = made(4096, 3072)
  return [
    row('matmul 1024x1024x1024', 'GFLOP/s', 2 * 1024 ** 3, () => a.matmul(b)),
    row('causal attention B4 H12 T256 D64', 'GFLOP/s', 4 * B * H * T * T * D, () =>
      scaledDotProductAttention(q, k, v, { isCausal: true }),
    ),
    row('gelu 4096x3072', 'GB/s', 8 * x.numel, () => gelu(x, { approximate: 'tanh' })),
    row('add 4096x3072', 'GB/s', 12 * x.numel, () => add(x, x)),
  ]
}

function trainingStep(seconds: number, place: Device): Row {
  const [B, T, V] = [16, 256, 256]
  const model = new GPT({ vocabSize: V, nLayer: 6, nHead: 6, nEmbd: 384, blockSize: T, dropout: 0 }).to(place)
  const optimizer = new AdamW(model.parameters(), { lr: 3e-4 })
  const inputIds = randint(0, V, [B, T], { device: place })
  const step = (): void => {
    optimizer.zeroGrad()
    const { loss } = model.forward({ inputIds, labels: inputIds, returnLogits: false })
    loss!.backward()
    clipGradNorm_(model.parameters(), 1)
    optimizer.step()
  }
  const milliseconds = time(step, seconds, place)
  return {
    what: 'GPT training step, 10.7 M parameters, 16x256',
    milliseconds,
    rate: (B * T * 1e3) / milliseconds,
    unit: 'tokens/s',
  }
}

/** Prints the measurements. */
export function bench(options: { seconds: number; device?: string; json?: boolean }): void {
  const { seconds, json } = options
  const place = device((options.device ?? 'cpu') as DeviceName)
  const machine = place.type === 'cpu' ? { threads: getNumThreads() } : { name: getDeviceName(place) }
  const words = machine.name === undefined ? `${machine.threads} threads` : `${place}, ${machine.name}`
  if (!json) process.stdout.write(`${words}, float32\n`)
  for (const row of [...operators(seconds, place), trainingStep(seconds, place)]) {
    if (json) process.stdout.write(`${JSON.stringify({ ...row, device: String(place), ...machine })}\n`)
    else {
      const rate = `${Math.round(row.rate).toLocaleString('en')} ${row.unit}`
      process.stdout.write(
        `${row.what.padEnd(46)} ${row.milliseconds.toFixed(2).padStart(9)} ms ${rate.padStart(18)}\n`,
      )
    }
  }
}
