// The plain training loop: a small GPT learns to count, in whatever steps it is shown.
//
//   npx tsx examples/basicLoop.ts

import { data, models, nn, optim, random } from 'gradus'

/** Sequences such as 7, 10, 13, 16, …: a start and a stride, modulo the vocabulary. */
class Counting extends data.Dataset<{ inputIds: Int32Array; labels: Int32Array }> {
  readonly length = 512

  get(index: number): { inputIds: Int32Array; labels: Int32Array } {
    const [start, stride] = [index % 32, 1 + (index % 5)]
    const inputIds = Int32Array.from({ length: 24 }, (_, t) => (start + t * stride) % 32)
    return { inputIds, labels: inputIds }
  }
}

/** Trains and returns the loss of every step. */
export async function train(epochs: number, log: (line: string) => void = console.log): Promise<number[]> {
  random.seed(1337)
  const loader = new data.DataLoader(new Counting(), { batchSize: 32, shuffle: true })
  const model = new models.GPT({ vocabSize: 32, nLayer: 2, nHead: 2, nEmbd: 64, blockSize: 24, dropout: 0.1 })
  model.apply((module) => nn.init.transformer(module, 0.02))
  const optimizer = new optim.AdamW(model.parameters(), { lr: 5e-5, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0.01 })
  const losses: number[] = []

  model.train()
  for (let epoch = 0; epoch < epochs; epoch++) {
    for await (const batch of loader) {
      optimizer.zeroGrad()
      const { loss } = model.forward(batch)
      loss!.backward()
      const norm = nn.utils.clipGradNorm_(model.parameters(), 1.0)
      optimizer.step()

      losses.push(await loss!.item())
      if (losses.length % 16 === 1) {
        log(
          `epoch ${epoch} step ${losses.length}: loss ${losses.at(-1)!.toFixed(4)}, norm ${(await norm.item()).toFixed(3)}`,
        )
      }
    }
  }
  return losses
}

if (require.main === module) train(10)
