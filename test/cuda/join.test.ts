// Joining tensors and picking their parts on cuda against the cpu.
import { describe, expect, it } from 'vitest'
import { arange, full, ops, type Tensor } from '../../lib/index'
import { native, runInto } from '../../lib/tensor/dispatch'
import { all, cuda, expectEqual, spread } from './support'

const moved = (tensors: Tensor[]): Tensor[] => tensors.map((x) => x.to('cuda'))

describe('cat', () => {
  it.each(all)('of %s along any dim', (dtype) => {
    for (const [dim, shapes] of [
      [0, [[3], [0], [70], [1]]],
      [
        0,
        [
          [2, 64],
          [5, 64],
        ],
      ],
      [
        1,
        [
          [3, 16],
          [3, 48],
          [3, 16],
        ],
      ],
      [
        1,
        [
          [3, 5],
          [3, 1],
          [3, 9],
        ],
      ],
      [
        1,
        [
          [4, 3, 7],
          [4, 2, 7],
        ],
      ],
      [
        2,
        [
          [2, 3, 40],
          [2, 3, 8],
        ],
      ],
      [
        1,
        [
          [2, 9000],
          [2, 17],
        ],
      ],
      [0, [[20_000], [9]]],
    ] as [number, number[][]][]) {
      const parts = shapes.map((shape, i) => spread(shape, dtype, i + 1))
      expectEqual(ops.cat(moved(parts), dim), ops.cat(parts, dim), `dim ${dim} of ${shapes.join(' | ')}`)
    }
  })

  it('of more operands than a launch takes, through strides and offsets', () => {
    const many = Array.from({ length: 300 }, (_, i) => spread([2, (i % 5) + 1], 'float32', i + 1))
    expectEqual(ops.cat(moved(many), 1), ops.cat(many, 1), 'many')
    const [a, b] = [spread([6, 8]), spread([8, 6], 'float32', 2)]
    const join = (x: Tensor, y: Tensor): Tensor => ops.cat([x, y.transpose(0, 1), x.slice(1, 1, 4)], 1)
    expectEqual(join(a.to('cuda'), b.to('cuda')), join(a, b), 'strided')
  })
})

describe('triangles', () => {
  it.each(all)('of %s', (dtype) => {
    for (const shape of [
      [1, 1],
      [5, 7],
      [2, 3, 16],
      [2, 33, 64],
      [0, 3],
      [3, 0],
    ]) {
      const x = spread(shape, dtype)
      for (const diagonal of [-40, -3, 0, 2, 50]) {
        expectEqual(ops.tril(x.to('cuda'), diagonal), ops.tril(x, diagonal), `tril ${diagonal} of ${shape}`)
        expectEqual(ops.triu(x.to('cuda'), diagonal), ops.triu(x, diagonal), `triu ${diagonal} of ${shape}`)
      }
    }
    const x = spread([6, 9], dtype).transpose(0, 1)
    expectEqual(ops.tril(x.to('cuda')), ops.tril(x), 'transposed')
  })

  it('in place', () => {
    const x = spread([9, 8]).to('cuda')
    const wanted = ops.triu(x, 1).arraySync()
    runInto(native('triu', 'diagonal'), [x], x, [1])
    expect(x.arraySync()).toEqual(wanted)
  })
})

describe('what is not zero', () => {
  it.each(all)('of %s is counted and found', async (dtype) => {
    for (const shape of [[1], [0], [7, 5], [3, 4, 6], [5000], [3, 2048]]) {
      // every third is 0
      const x = ops.mul(
        spread(shape, dtype),
        arange(spread(shape).numel)
          .remainder(3)
          .ne(0)
          .view(...shape)
          .to(dtype),
      )
      const there = x.to(dtype).to('cuda')
      expectEqual(ops.countNonzero(there), ops.countNonzero(x.to(dtype)), `count of ${shape}`)
      expectEqual(await ops.nonzero(there), await ops.nonzero(x.to(dtype)), `positions of ${shape}`)
    }
  })

  it('finds nothing among zeros of either sign, and one in a scalar', async () => {
    const zeros = full([40], 0, { device: cuda }).mul(-1)
    expect(ops.countNonzero(zeros).itemSync()).toBe(0)
    expect((await ops.nonzero(zeros)).shape).toEqual([0, 1])
    expect((await ops.nonzero(full([], 2, { device: cuda }))).shape).toEqual([1, 0])
  })
})
