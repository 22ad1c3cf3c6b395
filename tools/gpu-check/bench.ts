// Medians on cuda, of what bench.py measures in PyTorch: tsx bench.ts [--small] report.json

import { writeFileSync } from 'node:fs'
import { cuda, device, nn, noGrad, ops, optim, randint, randn, type Tensor, tidy } from 'gradus'

const isSmall = process.argv.includes('--small')
const file = process.argv.at(-1)!
const on = device('cuda')
const dtypes = ['float32', 'float16', 'bfloat16'] as const

const rows: { name: string; ms: number }[] = []

/** The median of blocks of calls, each ended by a wait. */
function measure(name: string, call: () => unknown): void {
  const block = (calls: number): number => {
    const begun = performance.now()
    for (let i = 0; i < calls; i++) tidy(() => void call())
    on.synchronizeSync()
    return (performance.now() - begun) / calls
  }
  const calls = isSmall ? 1 : 20
  block(calls)
  const times = Array.from({ length: isSmall ? 1 : 11 }, () => block(calls)).sort((a, b) => a - b)
  rows.push({ name, ms: Number(times[times.length >> 1]!.toPrecision(4)) })
}

/** Gives a gradient's memory back at once: nothing is collected while a block queues. */
function drop(x: Tensor): void {
  x.grad?.dispose()
  x.grad = null
}

const random = (shape: number[], dtype: (typeof dtypes)[number]): Tensor => randn(shape, { device: 'cuda' }).to(dtype)
const [side, T, width, vocabulary, parameters] = isSmall ? [128, 64, 64, 100, 1e4] : [4096, 2048, 4096, 50304, 1e8]

noGrad(() => {
  for (const dtype of dtypes) {
    const [a, b] = [random([side, side], dtype), random([side, side], dtype)]
    measure(`matmul ${dtype}`, () => a.matmul(b))
    const x = random([T, width], dtype)
    measure(`softmax ${dtype}`, () => ops.softmax(x))
    measure(`gelu ${dtype}`, () => ops.gelu(x))
    measure(`layerNorm ${dtype}`, () => ops.layerNorm(x, [width]))
    const [q, k, v] = [1, 2, 3].map(() => random([4, 16, T, 64], dtype)) as [Tensor, Tensor, Tensor]
    measure(`attention ${dtype}`, () => ops.scaledDotProductAttention(q, k, v, { isCausal: true }))
  }
})
for (const dtype of dtypes) {
  const [q, k, v] = [1, 2, 3].map(() => random([4, 16, T, 64], dtype).requiresGrad_()) as [Tensor, Tensor, Tensor]
  measure(`attention with gradients ${dtype}`, () => {
    ops.scaledDotProductAttention(q, k, v, { isCausal: true }).sum().backward()
    for (const x of [q, k, v]) drop(x)
  })
}
const logits = random([T, vocabulary], 'float32').requiresGrad_()
const target = randint(vocabulary, [T], { device: 'cuda' })
measure('cross entropy with gradients float32', () => {
  ops.crossEntropy(logits, target).backward()
  drop(logits)
})
const parameter = new nn.Parameter(random([parameters], 'float32'))
parameter.grad = random([parameters], 'float32')
const optimizer = new optim.AdamW([parameter], { lr: 1e-4 })
measure('AdamW float32', () => optimizer.step())

writeFileSync(file, `${JSON.stringify(rows, null, 1)}\n`)
console.log(`${rows.length} measurements on ${cuda.getDeviceName()}`)
