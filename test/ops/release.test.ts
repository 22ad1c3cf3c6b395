// What an operator makes for itself is released with its results, without a collection of garbage: a synchronous loop
// of calls outside any module or tidy keeps its memory.

import { describe, expect, it } from 'vitest'
import { memory, noGrad, ones, onesLike, ops, rand, randint, type Tensor, tidy } from '../../lib/index'

type Case = [name: string, inputs: () => Tensor[], fn: (...x: Tensor[]) => Tensor | Tensor[]]

const labels = randint(0, 5, [6])
const labels2 = randint(0, 5, [2, 3])
const index = randint(0, 4, [2, 3])
const some = index.gt(1)
const mask = rand([2, 1, 3, 3]).gt(0.3)

const cases: Case[] = [
  ['add, broadcast', () => [rand([4, 3]), rand([3])], (a, b) => a!.add(b!)],
  ['where, broadcast', () => [rand([2, 3]), rand([3])], (a, b) => ops.where(some, a!, b!)],
  ['matmul', () => [rand([2, 3, 4]), rand([4, 5])], (a, b) => a!.matmul(b!)],
  ['matmul, batches', () => [rand([2, 1, 3, 4]), rand([3, 4, 5])], (a, b) => a!.matmul(b!)],
  ['einsum', () => [rand([2, 3, 4]), rand([2, 4, 5])], (a, b) => ops.einsum('bij,bjk->bki', a!, b!)],
  ['linear', () => [rand([2, 3, 4]), rand([5, 4]), rand([5])], (x, w, b) => ops.linear(x!, w!, b)],
  [
    'mlp',
    () => [rand([2, 3, 4]), rand([8, 4]), rand([8]), rand([4, 8]), rand([4])],
    (x, w1, b1, w2, b2) => ops.mlp(x!, w1!, b1!, w2!, b2!),
  ],
  ['layerNorm', () => [rand([2, 3, 4]), rand([4]), rand([4])], (x, w, b) => ops.layerNorm(x!, [4], w, b)],
  ['rmsNorm', () => [rand([2, 3, 4]), rand([4])], (x, w) => ops.rmsNorm(x!, [4], w)],
  ['gelu', () => [rand([4, 3])], (x) => ops.gelu(x!)],
  ['softmax', () => [rand([4, 3])], (x) => x!.softmax(0)],
  ['logSoftmax', () => [rand([4, 3])], (x) => x!.logSoftmax(-1)],
  ['dropout', () => [rand([4, 3])], (x) => ops.dropout(x!, 0.5, true)],
  ['dropoutAdd', () => [rand([4, 3]), rand([4, 3])], (x, y) => ops.dropoutAdd(x!, y!, 0.5, true)],
  ['embedding', () => [rand([4, 3])], (w) => ops.embedding(index, w!)],
  ['crossEntropy', () => [rand([6, 5])], (x) => ops.crossEntropy(x!, labels)],
  ['crossEntropy, classes inside', () => [rand([2, 5, 3])], (x) => ops.crossEntropy(x!, labels2)],
  ['linearCrossEntropy', () => [rand([6, 4]), rand([5, 4])], (x, w) => ops.linearCrossEntropy(x!, w!, labels)],
  [
    'linearCrossEntropy, 3 dims',
    () => [rand([2, 3, 4]), rand([5, 4])],
    (x, w) => ops.linearCrossEntropy(x!, w!, labels2),
  ],
  [
    'attention',
    () => [rand([2, 2, 3, 4]), rand([2, 2, 3, 4]), rand([2, 2, 3, 4])],
    (q, k, v) => ops.scaledDotProductAttention(q!, k!, v!, { isCausal: true }),
  ],
  [
    'attention, masked, from one projection',
    () => [rand([2, 3, 3, 2, 4])],
    (qkv) =>
      tidy(() => {
        const [q, k, v] = qkv!.unbind(2).map((part) => part.transpose(1, 2)) as [Tensor, Tensor, Tensor]
        return ops.scaledDotProductAttention(q, k, v, { attnMask: mask })
      }),
  ],
  ['sum', () => [rand([4, 3])], (x) => x!.sum(1)],
  ['mean', () => [rand([4, 3])], (x) => x!.mean()],
  ['var', () => [rand([4, 3])], (x) => x!.var(1)],
  ['cat', () => [rand([4, 3]), rand([2, 3])], (a, b) => ops.cat([a!, b!], 0)],
  ['stack', () => [rand([4, 3]), rand([4, 3])], (a, b) => ops.stack([a!, b!], 1)],
  ['gather', () => [rand([2, 4])], (x) => x!.gather(1, index)],
  ['indexSelect', () => [rand([5, 4])], (x) => x!.indexSelect(0, labels)],
  ['topk', () => [rand([4, 5])], (x) => Object.values(x!.topk(2)) as Tensor[]],
  ['sort', () => [rand([4, 5])], (x) => Object.values(x!.sort()) as Tensor[]],
  ['cumsum', () => [rand([4, 5])], (x) => x!.cumsum(1)],
  ['tril', () => [rand([4, 5])], (x) => x!.tril()],
  ['clamp', () => [rand([4, 5])], (x) => x!.clamp(0.2, 0.8)],
]

describe('operators release what they made', () => {
  it.each(cases)('%s', (_, inputs, fn) => {
    const leaves = inputs().map((x) => x.requiresGrad_())
    const once = (): void => {
      const results = [fn(...leaves)].flat()
      const y = results[0]!
      const gradient = onesLike(y)
      y.backward({ gradient })
      for (const each of [...results, gradient]) if (!each.isReleased) each.dispose()
      for (const leaf of leaves) {
        leaf.grad?.dispose()
        leaf.grad = null
      }
      noGrad(() => {
        for (const each of [fn(...leaves)].flat()) each.dispose()
      })
    }
    once()
    const before = memory.tensors()
    once()
    expect(memory.tensors() - before).toBe(0)
  })

  it('the count sees what is kept', () => {
    const before = memory.tensors()
    const kept = ones([2])
    expect(memory.tensors() - before).toBe(1)
    kept.dispose()
  })
})
