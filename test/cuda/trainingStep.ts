// A training step of a tiny GPT on cuda, for tests of what goes wrong in one and of what a graph makes of it.
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { amp, cuda, type DType, memory, models, optim, randint, random, type Tensor, tidy } from '../../lib/index'

export interface StepOptions {
  dropout?: number
  /** float16 comes with a GradScaler. */
  dtype?: Extract<DType, 'float32' | 'float16'>
  lr?: number
}

export interface Training {
  model: models.GPT
  optimizer: optim.AdamW
  scaler: amp.GradScaler
  inputIds: Tensor
  labels: Tensor
  /** Queues a step; the loss is the caller's. */
  queue(): Tensor
  /** A step and its loss, when everything has run. */
  step(): Promise<number>
  dispose(): void
}

/** The same model, states and batch each time; groups with and without weight decay. */
export function makeTraining({ dropout = 0, dtype = 'float16', lr = 1e-2 }: StepOptions = {}): Training {
  random.seed(1)
  const device = 'cuda'
  const model = new models.GPT({ vocabSize: 11, blockSize: 8, nLayer: 1, nHead: 2, nEmbd: 8, dropout }).to(device)
  const isMatrix = (p: Tensor): boolean => p.ndim > 1
  const params = model.parameters()
  const groups = [
    { params: params.filter(isMatrix), weightDecay: 0.1 },
    { params: params.filter((p) => !isMatrix(p)), weightDecay: 0 },
  ]
  const optimizer = new optim.AdamW(groups, { lr })
  const scaler = new amp.GradScaler({ initScale: 1024, growthInterval: 3, enabled: dtype === 'float16' })
  const inputIds = randint(0, 11, [2, 8], { device })
  const labels = randint(0, 11, [2, 8], { device })
  const forward = (): Tensor => model.forward({ inputIds, labels }).loss!
  const queue = (): Tensor =>
    tidy(() => {
      optimizer.zeroGrad()
      const loss = dtype === 'float32' ? forward() : amp.autocast({ device, dtype }, forward)
      scaler.scale(loss).backward()
      scaler.step(optimizer, { maxNorm: 1 })
      scaler.update()
      return loss
    })
  const step = async (): Promise<number> => {
    const loss = queue()
    try {
      await cuda.synchronize()
      return await loss.item()
    } finally {
      loss.dispose()
    }
  }
  const dispose = (): void => {
    optimizer.zeroGrad()
    const { state } = optimizer.stateDict()
    const states = Object.values(state).flatMap((each) => Object.values(each))
    const scaled = Object.values(scaler.stateDict())
    for (const each of [...model.parameters(), ...states, ...scaled, inputIds, labels]) {
      if (typeof each === 'object') each.dispose()
    }
  }
  return { model, optimizer, scaler, inputIds, labels, queue, step, dispose }
}

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

/** Bytes on the device, when the collector finds nothing any more. */
export async function inUse(): Promise<number> {
  for (let before = Number.NaN, turn = 0; ; turn++) {
    collect()
    await new Promise((resolve) => setImmediate(resolve)) // finalizers
    memory.tensors() // hands over what they released
    await cuda.synchronize()
    const now = memory.allocated('cuda')
    if ((turn > 2 && now === before) || turn === 20) return now
    before = now
  }
}
