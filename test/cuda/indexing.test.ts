// Gather, scatter and their kin on cuda against the cpu, to the bit: sums follow row-major order on both.
import { describe, expect, it } from 'vitest'
import { IndexError, ops, type Tensor, tensor, zeros } from '../../lib/index'
import { expectAlike, expectEqual, floats, indices, spread, whole } from './support'

const sizes: [number[], number[], number][] = [
  [[50], [200], 0],
  [[7, 5], [9, 5], 0],
  [[7, 5], [7, 31], 1],
  [[3, 4, 6], [3, 11, 5], 1],
]

describe('indexing', () => {
  for (const dtype of [...floats, ...whole]) {
    it(`of ${dtype}`, () => {
      for (const [shape, box, dim] of sizes) {
        const [x, source, index] = [spread(shape, dtype), spread(box, dtype, 2), indices(box, shape[dim]!)]
        const on = [x, source, index].map((t) => t.to('cuda')) as [Tensor, Tensor, Tensor]
        const what = `${shape} by ${box}`
        expectEqual(ops.gather(on[0], dim, on[2]), ops.gather(x, dim, index), `gather, ${what}`)
        expectEqual(ops.scatter(on[0], dim, on[2], on[1]), ops.scatter(x, dim, index, source), `scatter, ${what}`)
        expectEqual(ops.scatter(on[0], dim, on[2], 3), ops.scatter(x, dim, index, 3), `scatter of 3, ${what}`)
        expectAlike(
          ops.scatterAdd(on[0], dim, on[2], on[1]),
          ops.scatterAdd(x, dim, index, source),
          `scatterAdd, ${what}`,
          1,
        )
        const row = indices([13], shape[dim]!)
        expectEqual(ops.indexSelect(on[0], dim, row.to('cuda')), ops.indexSelect(x, dim, row), `indexSelect, ${what}`)
        const rows = spread(
          shape.map((size, d) => (d === dim ? 13 : size)),
          dtype,
          5,
        )
        expectAlike(
          ops.indexAdd(on[0], dim, row.to('cuda'), rows.to('cuda'), { alpha: 2 }),
          ops.indexAdd(x, dim, row, rows, { alpha: 2 }),
          `indexAdd, ${what}`,
          1,
        )
      }
    })
  }

  it('of strided operands', () => {
    const [x, index] = [spread([6, 8], 'float32'), indices([8, 6], 8)]
    const at = index.to('cuda')
    expectEqual(ops.gather(x.to('cuda').transpose(0, 1), 0, at), ops.gather(x.transpose(0, 1), 0, index), 'gather')
    const source = spread([6, 8], 'float32', 3)
    expectAlike(
      ops.scatterAdd(x.to('cuda').transpose(0, 1), 0, at, source.to('cuda').transpose(0, 1)),
      ops.scatterAdd(x.transpose(0, 1), 0, index, source.transpose(0, 1)),
      'scatterAdd',
      1,
    )
  })

  it('reports an index out of range and changes nothing in place', () => {
    const x = spread([4, 3], 'float32').to('cuda')
    const before = x.arraySync()
    const index = tensor([[0, 1, 4]], { dtype: 'int64', device: 'cuda' })
    for (const call of [
      () => ops.scatter_(x, 0, index, 7),
      () => ops.scatterAdd_(x, 0, index, spread([1, 3], 'float32').to('cuda')),
      () => ops.indexAdd_(x, 0, tensor([-1], { dtype: 'int64', device: 'cuda' }), spread([1, 3], 'float32').to('cuda')),
    ]) {
      call()
      expect(() => x.arraySync()).toThrow(IndexError)
      expect(x.arraySync()).toEqual(before)
    }
  })

  it.each([
    ['indexSelect', () => empty([0, 3]).indexSelect(0, at([0]))],
    ['gather', () => empty([3, 0]).gather(1, at([[0], [0], [0]]))],
    ['embedding', () => ops.embedding(at([0, 0]), empty([0, 4]))],
    ['scatter', () => empty([3, 0]).scatter(1, at([[0], [0], [0]]), spread([3, 1], 'float32').to('cuda'))],
    ['scatterAdd', () => empty([3, 0]).scatterAdd(1, at([[0], [0], [0]]), spread([3, 1], 'float32').to('cuda'))],
    ['indexAdd', () => empty([0, 3]).indexAdd(0, at([0]), spread([1, 3], 'float32').to('cuda'))],
  ])('finds no index in an empty dim, and reads nothing there: %s', async (op, call) => {
    const text = `${op}: index is out of range: got 0 at position 0, expected a dim that is not empty instead of size 0`
    await expect(call().array()).rejects.toThrow(text)
    expect(await at([3]).add(1).array()).toEqual([4]) // the device goes on
  })
})

const empty = (shape: number[]): Tensor => zeros(shape, { device: 'cuda' })
const at = (list: number[] | number[][]): Tensor => tensor(list, { dtype: 'int64', device: 'cuda' })
