// npm run bench:soak: resident memory of a plain training loop, which must stay flat. A GPT that learns from a
// DataLoader, its loss computed from the logits outside of the module, without tidy or dispose.

import { Command } from 'commander'
import { data, models, ops, optim, random, setNumThreads } from 'gradus'
import { wholeNumber } from './options'

interface Options {
  steps: number
  threads: number
  sync?: boolean
}

const every = 50

function residentMb(): number {
  return Number((process.memoryUsage.rss() / 2 ** 20).toFixed(1))
}

async function main({ steps, threads, sync }: Options): Promise<void> {
  setNumThreads(threads)
  random.seed(1)
  const [V, T] = [256, 128]
  const tokens = Array.from({ length: 4096 }, (_, i) =>
    Int32Array.from({ length: T + 1 }, (_, t) => (i * 31 + t * t + ((i * t) >> 3)) % V),
  )
  const samples = tokens.map((row) => ({ inputIds: row.subarray(0, T), labels: row.subarray(1) }))
  const loader = new data.DataLoader(new data.ArrayDataset(samples), { batchSize: 8, shuffle: true })
  const model = new models.GPT({ vocabSize: V, nLayer: 4, nHead: 4, nEmbd: 256, blockSize: T, dropout: 0 })
  const optimizer = new optim.AdamW(model.parameters(), { lr: 3e-4 })
  const rss = [residentMb()]
  let step = 0
  while (step < steps) {
    for await (const { inputIds, labels } of loader) {
      optimizer.zeroGrad()
      const { logits } = model.forward({ inputIds: inputIds! })
      const loss = ops.crossEntropy(logits.view(-1, V), labels!.view(-1))
      loss.backward()
      optimizer.step()
      if (sync) {
        loss.itemSync()
        await new Promise((resolve) => setTimeout(resolve, 0))
      } else await loss.item()
      if (++step % every === 0) rss.push(residentMb())
      if (step === steps) break
    }
  }
  console.log(JSON.stringify({ rss_mb: rss }))
}

new Command('bench:soak')
  .description(`Resident memory of a plain training loop at every ${every} steps, as one JSON line.`)
  .option('--steps <n>', 'training steps', wholeNumber, 1000)
  .option('--threads <n>', 'kernel threads', wholeNumber, 2)
  .option('--sync', 'itemSync, and one await of a timer a step')
  .option('--json', 'accepted for symmetry; the output is always one JSON line')
  .action(main)
  .parseAsync()
  .catch((error: Error) => {
    console.error(error.message)
    process.exitCode = 1
  })
