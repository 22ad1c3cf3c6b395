// Orders along a dim on cuda against the cpu: values and indices to the bit, equal elements in their order.
import { describe, it } from 'vitest'
import { type Tensor, tensor } from '../../lib/index'
import { expectSame } from './alike'
import { all, code, floats, spread, values } from './support'

const layouts: { shape: number[]; dim: number; take?: (x: Tensor) => Tensor }[] = [
  { shape: [1], dim: 0 },
  { shape: [7], dim: 0 },
  { shape: [5000], dim: 0 },
  { shape: [300, 9], dim: 1 },
  { shape: [300, 9], dim: 0 },
  { shape: [3, 4, 50], dim: 1 },
  { shape: [4, 2100], dim: 1 },
  { shape: [9, 10], dim: 1, take: (x) => x.transpose(0, 1) },
  { shape: [1, 6], dim: 0, take: (x) => x.expand(4, 6) },
  { shape: [], dim: 0 },
  { shape: [0, 3], dim: 1 },
]

describe('sort and topk', () => {
  it.each(all)('of %s', (dtype) => {
    for (const { shape, dim, take = (x: Tensor) => x } of layouts) {
      const x = spread(shape, dtype)
      const sizes = take(x).shape
      for (const down of [0, 1]) {
        const outputs = [[sizes, code(dtype)] as const, [sizes, code('int64')] as const]
        expectSame({ op: 'sort', attributes: 'dim,descending', attrs: [dim, down], inputs: [x], outputs, take })
        for (const k of [1, Math.ceil((sizes[dim] ?? 1) / 2)]) {
          const kept = sizes.map((size, d) => (d === dim ? Math.min(k, size) : size))
          const some = [[kept, code(dtype)] as const, [kept, code('int64')] as const]
          expectSame({ op: 'topk', attributes: 'dim,largest', attrs: [dim, down], inputs: [x], outputs: some, take })
        }
      }
    }
  })

  it.each(floats)('of NaN, infinities and zeros of either sign in %s', (dtype) => {
    const x = values(200, dtype)
    for (const down of [0, 1]) {
      const outputs = [[[200], code(dtype)] as const, [[200], code('int64')] as const]
      expectSame({ op: 'sort', attributes: 'dim,descending', attrs: [0, down], inputs: [x], outputs })
    }
  })

  it('of the ends of int64', () => {
    const x = tensor([3n, -(2n ** 63n), 2n ** 63n - 1n, 0n, -1n, 2n ** 32n, -(2n ** 32n)], { dtype: 'int64' })
    const outputs = [[[7], code('int64')] as const, [[7], code('int64')] as const]
    for (const down of [0, 1])
      expectSame({ op: 'sort', attributes: 'dim,descending', attrs: [0, down], inputs: [x], outputs })
  })
})
