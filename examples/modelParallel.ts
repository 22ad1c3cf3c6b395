// A transformer on two devices: the embedding and the first layer on one, the second layer and the output on the other.
// Activations cross in forward, their gradients in backward; the rest of the loop is that of one device.
//
//   npx tsx examples/modelParallel.ts

import { cuda, type DeviceName, nn, ops, optim, random, type Tensor, tensor } from 'gradus'

export type Devices = readonly [first: DeviceName, second: DeviceName]

const options = { dimFeedforward: 64, dropout: 0, batchFirst: true } as const

class ModelParallelTransformer extends nn.Module {
  embedding: nn.Embedding
  layer1: nn.TransformerEncoderLayer
  layer2: nn.TransformerEncoderLayer
  output: nn.Linear

  constructor(
    private readonly devices: Devices,
    vocabSize = 32,
    dModel = 32,
  ) {
    super()
    const [first, second] = devices
    this.embedding = new nn.Embedding(vocabSize, dModel).to(first)
    this.layer1 = new nn.TransformerEncoderLayer(dModel, 4, options).to(first)
    this.layer2 = new nn.TransformerEncoderLayer(dModel, 4, options).to(second)
    this.output = new nn.Linear(dModel, vocabSize).to(second)
  }

  /** inputIds [B, T] -> logits [B, T, vocabSize] on the second device. */
  forward(inputIds: Tensor): Tensor {
    const [first, second] = this.devices
    let x = this.embedding.forward(inputIds.to(first)) // (B, T, C)
    x = this.layer1.forward(x, { isCausal: true })
    x = this.layer2.forward(x.to(second), { isCausal: true })
    return this.output.forward(x)
  }
}

export interface Result {
  losses: number[]
  /** Of the first step, by parameter. */
  gradients: Record<string, Float32Array>
}

/** Trains from the same seed, on the same batches, wherever the parts are. */
export async function train(devices: Devices, steps = 20): Promise<Result> {
  random.seed(1337)
  const model = new ModelParallelTransformer(devices)
  const optimizer = new optim.AdamW(model.parameters(), { lr: 1e-3 })
  const losses: number[] = []
  const gradients: Result['gradients'] = {}

  for (let step = 0; step < steps; step++) {
    const counting = Array.from({ length: 4 }, (_, b) => Array.from({ length: 9 }, (_, t) => (step + b + 3 * t) % 32))
    const inputIds = tensor(
      counting.map((row) => row.slice(0, -1)),
      { dtype: 'int64' },
    ) // (B, T)
    const labels = tensor(
      counting.map((row) => row.slice(1)),
      { dtype: 'int64', device: devices[1] },
    )

    optimizer.zeroGrad()
    const logits = model.forward(inputIds)
    const loss = ops.crossEntropy(logits.flatten(0, 1), labels.flatten())
    loss.backward()
    if (step === 0) {
      for (const [name, { grad }] of model.namedParameters()) gradients[name] = (await grad!.data()) as Float32Array
    }
    optimizer.step()
    losses.push(await loss.item())
  }
  return { losses, gradients }
}

async function main(): Promise<void> {
  const devices: Devices = cuda.deviceCount() > 1 ? ['cuda:0', 'cuda:1'] : ['cpu:0', 'cpu:1']
  const { losses } = await train(devices)
  const { losses: alone } = await train([devices[0], devices[0]])
  console.log(`step  ${devices.join(' + ')}  ${devices[0]} alone`)
  for (const [step, loss] of losses.entries()) {
    console.log(`${String(step).padStart(4)}  ${loss.toFixed(6).padEnd(15)}  ${alone[step]!.toFixed(6)}`)
  }
}

if (require.main === module) void main()
