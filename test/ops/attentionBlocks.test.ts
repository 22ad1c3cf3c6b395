// Attention under block masks of many tiles: forward and gradients against the same mask written out.

import { describe, expect, it } from 'vitest'
import {
  type AttentionOptions,
  type DType,
  type BlockMask as Mask,
  ops,
  randn,
  random,
  type Tensor,
  tensor,
} from '../../lib/index'
import { expectClose } from '../support/golden'

const { BlockMask, scaledDotProductAttention: attention } = ops

const T = 700 // eleven tiles, the last one not full

const patterns: Record<string, () => Mask> = {
  'a local window': () => BlockMask.local(T, 1),
  'every fourth block': () => BlockMask.strided(T, 4),
  // the first keys are seen by all, and the first queries see all
  'every fourth block and global tokens': () => BlockMask.strided(T, 4).or(BlockMask.global(T, 1)),
  'a window and global tokens in smaller blocks': () => {
    const small = { blockSize: [32, 16] as const }
    return BlockMask.local(T, 2, small).or(BlockMask.global(T, 1, small))
  },
  'queries without keys, keys without queries': () => BlockMask.from((i, j) => i % 3 !== 0 && j % 4 !== 1, T),
  'another mask for every head': () => {
    const blocks = Array.from({ length: 4 * 11 * 11 }, (_, at) => (at * 48271) % 7 < 2)
    return BlockMask.from(tensor(blocks, { dtype: 'bool' }).view(4, 11, 11), T)
  },
}

/** Output and gradients for query, key and value [1, heads, T, D], which lie as `cut` makes them. */
function results(
  dtype: DType,
  shapes: readonly number[][],
  cut: (x: Tensor) => Tensor,
  options: AttentionOptions,
): Tensor[] {
  random.seed(3)
  const leaves = shapes.map((shape) => randn(shape).to(dtype).requiresGrad_())
  const [q, k, v] = leaves.map(cut) as [Tensor, Tensor, Tensor]
  const out = attention(q, k, v, { ...options, enableGqa: true })
  out.backward({ gradient: randn(out.shape).to(dtype) })
  return [out, ...leaves.map((leaf) => leaf.grad!)]
}

const asIs = (x: Tensor): Tensor => x
const merged = (x: Tensor): Tensor => x.transpose(1, 2)

describe('attention under a block mask', () => {
  const tolerances = { float32: 2e-5, float64: 1e-12, bfloat16: 2e-2 } as const
  for (const [name, pattern] of Object.entries(patterns)) {
    for (const [dtype, atol] of Object.entries(tolerances) as [keyof typeof tolerances, number][]) {
      it(`equals dense attention with ${name}, ${dtype}`, async () => {
        const blockMask = pattern()
        // 64 lies in memory as the kernel packs it, 20 does not
        for (const D of dtype === 'float64' ? [20] : [64, 20]) {
          const shapes = [4, 2, 2].map((heads) => [1, heads, T, D])
          for (const isCausal of [false, true]) {
            const sparse = results(dtype, shapes, asIs, { blockMask, isCausal })
            const dense = results(dtype, shapes, asIs, { attnMask: blockMask.dense(), isCausal })
            for (const [i, x] of sparse.entries()) await expectClose(x, dense[i]!, { rtol: atol, atol })
          }
        }
      })
    }
  }

  it('gives the same bits wherever its operands lie', async () => {
    const blockMask = patterns['every fourth block and global tokens']!()
    for (const dtype of ['float32', 'bfloat16'] as const) {
      const shapes = [4, 2, 2].map((heads) => [1, T, heads, 64])
      const apart = results(dtype, shapes, merged, { blockMask })
      const packed = results(dtype, shapes, (x) => merged(x).contiguous(), { blockMask })
      for (const [i, x] of apart.entries()) await expectClose(x, packed[i]!, { rtol: 0, atol: 0 })
    }
  })
})

describe('BlockMask.from a function', () => {
  it('wants true or false of it', () => {
    for (const answer of ['a', 1, undefined, null]) {
      expect(() => BlockMask.from(() => answer as never, 4)).toThrow(
        'BlockMask.from: the function does not say whether a block is seen: got ',
      )
    }
  })
})
