// npm run bench: what JavaScript pays for an operation, with tinybench. The kernels have next to nothing to do.

import { device, noGrad, ops, randn, type Tensor, tidy } from 'gradus'

const batch = 1000

/** Runs fn as often as one sample does: many calls in one scope and one wait, as a step of training would. */
function many(fn: () => unknown): () => void {
  return () => {
    tidy(() => {
      for (let i = 0; i < batch; i++) fn()
    })
    device('cpu').synchronizeSync()
  }
}

async function main(): Promise<void> {
  const { Bench } = await import('tinybench')
  const [a, b] = [randn([8]), randn([8])]
  const matrix = randn([8, 8])
  const leaf = randn([8]).requiresGrad_()
  const quiet = (fn: () => Tensor) => () => noGrad(many(fn))
  const bench = new Bench({ time: 500, warmupTime: 100 })
    .add(
      'add of 8 elements',
      quiet(() => ops.add(a, b)),
    )
    .add(
      'add of 8 elements, recorded',
      many(() => ops.add(leaf, b)),
    )
    .add(
      'add of a scalar',
      quiet(() => a.add(1)),
    )
    .add(
      'matmul 8x8',
      quiet(() => matrix.matmul(matrix)),
    )
    .add(
      'view',
      quiet(() => matrix.view(64)),
    )
    .add(
      'transpose',
      quiet(() => matrix.transpose(0, 1)),
    )
    .add(
      'slice',
      quiet(() => matrix.slice(0, 1, 5)),
    )
    .add(
      'sum',
      quiet(() => a.sum()),
    )
  await bench.run()
  for (const { name, result } of bench.tasks) {
    if (result.state !== 'completed') throw result.state === 'errored' ? result.error : new Error(`${name} did not run`)
    const { p50, rme } = result.latency
    console.log(`${name.padEnd(30)} ${((p50 * 1e6) / batch).toFixed(0).padStart(6)} ns  ± ${rme.toFixed(1)} %`)
  }
}

main()
