// Embeddings on cuda against the cpu: rows, and their gradients, which have the same bits because they are summed in
// the same order.
import { describe, expect, it } from 'vitest'
import { type DType, IndexError, ops, type Tensor, tensor } from '../../lib/index'
import { native, run, runInto } from '../../lib/tensor/dispatch'
import { code, expectEqual, floats, indices, spread } from './support'

const backwardOp = native('embeddingBackward', 'paddingIdx,accumulate')

describe('embedding', () => {
  for (const dtype of floats) {
    it(`takes rows of ${dtype}`, () => {
      for (const [rows, width] of [
        [5, 1],
        [11, 3],
        [40, 64],
        [9, 520],
      ]) {
        for (const whole of ['int64', 'int32', 'uint8'] as DType[]) {
          const [index, weight] = [indices([4, 7], rows!, whole), spread([rows!, width!], dtype)]
          expectEqual(
            ops.embedding(index.to('cuda'), weight.to('cuda')),
            ops.embedding(index, weight),
            `${rows} x ${width}`,
          )
        }
      }
    })
  }

  for (const table of floats) {
    for (const g of floats) {
      if ((table === 'float64') !== (g === 'float64')) continue
      it(`sums gradients of ${g} into ${table}`, () => {
        for (const [rows, width, n] of [
          [3, 5, 70],
          [300, 8, 5000],
          [70000, 4, 130],
          [90, 64, 500],
          [10, 1032, 40],
          [4, 6, 0],
        ]) {
          const [index, gradient] = [indices([n!], rows!), spread([n!, width!], g)]
          for (const padding of [-1, 1]) {
            const sum = (i: Tensor, x: Tensor): Tensor =>
              run(backwardOp, [x, i], [rows!, width!], code(table), [padding, 0])
            expectEqual(sum(index.to('cuda'), gradient.to('cuda')), sum(index, gradient), `${rows}, ${width}, ${n}`)
            const add = (i: Tensor, x: Tensor, to: Tensor): Tensor => runInto(backwardOp, [x, i], to, [padding, 1])
            const start = spread([rows!, width!], table, 3)
            expectEqual(
              add(index.to('cuda'), gradient.to('cuda'), start.to('cuda')),
              add(index, gradient, start.clone()),
              `${rows}, ${width}, ${n}, added`,
            )
          }
        }
      })
    }
  }

  it('reads strided gradients and indices', () => {
    const [index, gradient] = [indices([6, 8], 10), spread([4, 8, 6], 'float32')]
    const sum = (i: Tensor, x: Tensor): Tensor => run(backwardOp, [x.permute(2, 1, 0), i], [10, 4], 0, [-1, 0])
    expectEqual(sum(index.to('cuda'), gradient.to('cuda')), sum(index, gradient), 'strided')
  })

  it('reports an index out of range and leaves the sum as it was', async () => {
    const weight = spread([4, 3], 'float32').to('cuda')
    await expect(ops.embedding(tensor([1, 9], { dtype: 'int64', device: 'cuda' }), weight).array()).rejects.toThrow(
      IndexError,
    )
    const before = weight.arraySync()
    runInto(
      backwardOp,
      [spread([2, 3], 'float32').to('cuda'), tensor([0, -1], { dtype: 'int64', device: 'cuda' })],
      weight,
      [-1, 1],
    )
    await expect(weight.array()).rejects.toThrow('embeddingBackward')
    expect(weight.arraySync()).toEqual(before)
  })
})
