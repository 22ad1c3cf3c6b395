// Casts that autocast keeps for a region: what they may not change.

import { expect, it } from 'vitest'
import { amp, autograd, getNumThreads, ops, randn, random, setNumThreads, type Tensor } from '../../lib/index'
import { expectClose } from '../support/golden'

const operand = (): Tensor => randn([1, 1, 6, 8])

it('a cast is shared, its gradient is not: two losses of one region pass backward on their own', async () => {
  random.seed(1)
  const [query, k1, v1, k2, v2] = [operand().requiresGrad_(), operand(), operand(), operand(), operand()]
  const losses = (): [Tensor, Tensor] => [
    ops.scaledDotProductAttention(query, k1, v1).sum(),
    ops.scaledDotProductAttention(query, k2, v2).sum(),
  ]
  const [a, b] = amp.autocast(losses)
  a.backward()
  b.backward()
  const together = query.grad!
  query.grad = null
  const [c, d] = losses()
  c.add(d).backward()
  await expectClose(together, query.grad!, { rtol: 0.03, atol: 0.03 })
})

it('a checkpointed function does the same in both runs, whatever was cast before it', async () => {
  random.seed(2)
  const [query, key, value] = [operand().requiresGrad_(), operand(), operand()]
  const attend = (q: Tensor): Tensor => ops.scaledDotProductAttention(q, key, value)
  const gradient = async (run: (q: Tensor) => Tensor): Promise<number[]> => {
    query.grad = null
    amp
      .autocast(() => {
        attend(query)
        return run(query).sum()
      })
      .backward()
    return Array.from((await query.grad!.data()) as Float32Array)
  }
  const plain = await gradient(attend)
  expect(await gradient((q) => autograd.selectiveCheckpoint(() => true, attend, q))).toEqual(plain)
  expect(await gradient((q) => autograd.checkpoint(attend, q))).toEqual(plain)
})

it('linear + cross entropy in bfloat16 takes scratch for every product, also with many threads', async () => {
  random.seed(3)
  const threads = getNumThreads()
  const [x, weight] = [randn([300, 512]), randn([2100, 512])]
  const target = ops.argmax(randn([300, 2100]), 1)
  const loss = () => amp.autocast(() => ops.linearCrossEntropy(x, weight, target)).item()
  const expected = await loss()
  setNumThreads(16)
  try {
    expect(await loss()).toBeCloseTo(expected, 4)
  } finally {
    setNumThreads(threads)
  }
})
