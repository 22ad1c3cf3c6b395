import { describe, expect, it } from 'vitest'
import {
  autograd,
  type DType,
  DTypeError,
  getDefaultDevice,
  IndexError,
  ops,
  ShapeError,
  type Tensor,
  tensor,
  zeros,
} from '../../lib/index'
import { goldenCases } from '../support/golden'
import { expectGolden, type GoldenCall, spread } from '../support/goldenOp'

const make = (shape: number[], seed = 1): Tensor =>
  tensor(
    spread(
      shape.reduce((a, b) => a * b, 1),
      seed,
    ),
    { dtype: 'float64' },
  )
    .view(shape)
    .clone()
const leaf = (shape: number[], seed = 1): Tensor => make(shape, seed).requiresGrad_()
const index = (values: number[] | number[][]): Tensor => tensor(values, { dtype: 'int64' })

const calls: Record<string, GoldenCall> = {
  gather: ({ x, index }, { dim }) => ops.gather(x!, dim, index!),
  index_select: ({ x, index }, { dim }) => ops.indexSelect(x!, dim, index!),
  scatter_add: ({ x, index, src }, { dim }) => ops.scatterAdd(x!, dim, index!, src!),
  index_add: ({ x, index, src }, { dim }) => ops.indexAdd(x!, dim, index!, src!),
  one_hot: ({ index }, { n }) => ops.oneHot(index!, n),
  embedding: ({ index, w }) => ops.embedding(index!, w!),
  embedding_bf16: ({ index, w }) => ops.embedding(index!, w!),
  embedding_fp16: ({ index, w }) => ops.embedding(index!, w!),
  embedding_pad: ({ index, w }, { padding_idx }) => ops.embedding(index!, w!, { paddingIdx: padding_idx }),
}

describe('indexing', () => {
  const named = new RegExp(`^(${Object.keys(calls).join('|')})$`)
  const cases = [...goldenCases('ops', named), ...goldenCases('lowp', named, 2)]
  it('covers the golden cases', () => expect(cases.length).toBe(Object.keys(calls).length))
  it.each(cases.map((each) => [each.name, each] as const))('golden %s', async (name, golden) => {
    await expectGolden(golden, calls[name]!)
  })

  it('has the gradients of central differences, with equal indices and any strides', () => {
    const at = index([
      [0, 2, 2],
      [1, 1, 0],
    ])
    expect(autograd.gradcheck((x) => ops.gather(x, 1, at), [leaf([2, 4])])).toBe(true)
    expect(autograd.gradcheck((x) => ops.gather(x.t(), 0, at), [leaf([3, 4])])).toBe(true)
    for (const [x, source] of [
      [leaf([2, 4]), leaf([2, 3], 2)],
      [leaf([3, 4]), leaf([4, 5], 2)],
    ] as const) {
      expect(autograd.gradcheck((x, s) => ops.scatterAdd(x!, 1, at, s!), [x, source])).toBe(true)
    }
    const distinct = index([
      [0, 3, 2],
      [1, 2, 0],
    ])
    expect(autograd.gradcheck((x, s) => ops.scatter(x!, 1, distinct, s!), [leaf([2, 4]), leaf([2, 3], 2)])).toBe(true)
    expect(autograd.gradcheck((x) => ops.scatter(x, 1, distinct, 5), [leaf([2, 4])])).toBe(true)
    for (const dim of [0, 1, 2]) {
      const shape = [2, 2, 2].map((size, d) => (d === dim ? 4 : size))
      expect(autograd.gradcheck((x) => ops.indexSelect(x, dim, [1, 0, 0, 1]), [leaf([2, 2, 2])])).toBe(true)
      const add = (x: Tensor, s: Tensor) => ops.indexAdd(x, dim, [1, 0, 0, 1], s, { alpha: -2 })
      expect(autograd.gradcheck((x, s) => add(x!, s!), [leaf([2, 2, 2]), leaf(shape, 2)])).toBe(true)
    }
    expect(autograd.gradcheck((w) => ops.embedding(at, w), [leaf([3, 5])])).toBe(true)
    expect(autograd.gradcheck((w) => ops.embedding(at, w.t()), [leaf([5, 3])])).toBe(true)
  })

  it('moves and sums every dtype', () => {
    for (const dtype of ['float32', 'float64', 'float16', 'bfloat16', 'int64', 'int32', 'uint8'] as DType[]) {
      const x = tensor(
        [
          [1, 2, 3],
          [4, 5, 6],
        ],
        { dtype },
      )
      for (const kind of ['int64', 'int32', 'uint8'] as DType[]) {
        const at = tensor(
          [
            [2, 0],
            [1, 1],
          ],
          { dtype: kind },
        )
        expect(ops.gather(x, 1, at).arraySync()).toEqual([
          [3, 1],
          [5, 5],
        ])
        expect(ops.scatterAdd(x, 1, at, x).arraySync()).toEqual([
          [3, 2, 4],
          [4, 14, 6],
        ])
        expect(ops.scatter(x, 1, at, 9).arraySync()).toEqual([
          [9, 2, 9],
          [4, 9, 6],
        ])
        expect(ops.indexSelect(x.t(), 1, tensor([1, 0, 1], { dtype: kind })).arraySync()).toEqual([
          [4, 1, 4],
          [5, 2, 5],
          [6, 3, 6],
        ])
      }
      expect(ops.indexAdd(x, 0, [1, 1], x).arraySync()).toEqual([
        [1, 2, 3],
        [9, 12, 15],
      ])
    }
    const flags = tensor([true, false, true])
    expect(ops.gather(flags, 0, index([1, 2])).arraySync()).toEqual([false, true])
  })

  it('rounds sums of 16-bit floats once', () => {
    const parts = zeros([256]).add(0.001).to('bfloat16')
    const at = zeros([256], { dtype: 'int64' })
    const exact = 256 * (parts.arraySync() as number[])[0]!
    const [sum] = ops.scatterAdd(zeros([1], { dtype: 'bfloat16' }), 0, at, parts).arraySync() as [number]
    expect(Math.abs(sum - exact) / exact).toBeLessThan(2 ** -8)
    const [row] = ops.indexAdd(zeros([1], { dtype: 'bfloat16' }), 0, at, parts).arraySync() as [number]
    expect(row).toBe(sum)
  })

  it('works in place, also through views', () => {
    const x = zeros([2, 3])
    expect(x.scatterAdd_(1, index([[1], [1]]), zeros([2, 1]).add(2))).toBe(x)
    x.t().indexAdd_(0, [2], zeros([1, 2]).add(5))
    x.scatter_(1, index([[0]]), 7)
    expect(x.arraySync()).toEqual([
      [7, 2, 5],
      [0, 2, 5],
    ])
    const kept = leaf([3])
    const y = kept.mul(2)
    y.scatter_(0, index([1]), 0)
    y.backward({ gradient: zeros([3], { dtype: 'float64' }).add(1) })
    expect(kept.grad!.arraySync()).toEqual([2, 0, 2])
  })

  it('reads indices before it overwrites them', () => {
    const x = index([1, 1, 0])
    x.scatter_(0, x, 1e9)
    expect(x.arraySync()).toEqual([1e9, 1e9, 0])
    const y = index([1, 2, 0])
    y.scatterAdd_(0, y, index([1e9, 1e9, 1e9]))
    expect(y.arraySync()).toEqual([1e9 + 1, 1e9 + 2, 1e9])
    const z = index([2, 2, 2])
    z.indexAdd_(0, z, index([1e9, 1, 1]))
    expect(z.arraySync()).toEqual([2, 2, 1e9 + 4])
  })

  it('embeds with a deterministic gradient that accumulates', async () => {
    const tokens = index(Array.from({ length: 3000 }, (_, i) => (i * 7919) % 97))
    const grads = [0, 1].map(() => {
      const w = make([97, 33], 3).to('float32').clone().requiresGrad_()
      for (let i = 0; i < 2; i++)
        ops.embedding(tokens, w, { paddingIdx: -1 }).backward({ gradient: make([3000, 33], 5).to('float32') })
      return w.grad!
    })
    expect(await grads[0]!.data()).toEqual(await grads[1]!.data())
    const exact = new Float64Array(97 * 33)
    const g = await make([3000, 33], 5).to('float32').data()
    const rows = await tokens.data()
    for (let i = 0; i < 3000; i++) {
      const row = Number(rows[i])
      if (row !== 96) for (let c = 0; c < 33; c++) exact[row * 33 + c]! += 2 * Number(g[i * 33 + c])
    }
    const got = await grads[0]!.data()
    for (let i = 0; i < exact.length; i++) expect(Math.abs(Number(got[i]) - exact[i]!)).toBeLessThan(1e-4)
  })

  it('finds what is not zero', async () => {
    const x = tensor([
      [0, 5],
      [-0, Number.NaN],
    ])
    expect(x.countNonzero().itemSync()).toBe(2)
    expect((await x.nonzero()).arraySync()).toEqual([
      [0, 1],
      [1, 1],
    ])
    expect((await zeros([3]).nonzero()).shape).toEqual([0, 1])
  })

  it('handles indices without elements', () => {
    expect(ops.indexSelect(zeros([2, 3]), 1, []).shape).toEqual([2, 0])
    expect(ops.embedding(zeros([0], { dtype: 'int64' }), zeros([4, 2])).shape).toEqual([0, 2])
    const w = zeros([4, 2]).requiresGrad_()
    ops.embedding(zeros([0], { dtype: 'int64' }), w).backward({ gradient: zeros([0, 2]) })
    expect(w.grad!.arraySync()).toEqual(Array(4).fill([0, 0]))
  })

  it('names a bad index and changes nothing', async () => {
    const x = zeros([2, 3])
    x.scatter_(1, index([[0], [3]]), 1)
    await expect(getDefaultDevice().synchronize()).rejects.toThrow(
      'scatter: index is out of range: got 3 at position 1, expected 0 to 2',
    )
    expect(await x.array()).toEqual([
      [0, 0, 0],
      [0, 0, 0],
    ])
    await expect(ops.embedding(index([1, -1]), zeros([4, 2])).array()).rejects.toThrow(
      'embedding: index is out of range: got -1 at position 1, expected 0 to 3',
    )
    expect(() => ops.indexSelect(zeros([3]), 0, [0, 3])).toThrow(
      'indexSelect: index is out of range: got 3 at position 1, expected 0 to 2.',
    )
  })

  it('says what does not fit', () => {
    expect(() => ops.gather(zeros([2, 3]), 1, zeros([2, 3]))).toThrow(DTypeError)
    expect(() => ops.gather(zeros([2, 3]), 1, index([[0], [0], [0]]))).toThrow(
      'gather: the index does not fit x: got index [3, 1] for x [2, 3], dim 1',
    )
    expect(() => ops.indexAdd(zeros([3]), 0, [1], zeros([2]))).toThrow(
      'indexAdd: the source does not fit: got [2], expected [1].',
    )
    expect(() => ops.embedding(index([0]), zeros([4]))).toThrow(ShapeError)
    expect(() => ops.embedding(index([0]), zeros([4, 2]), { paddingIdx: 4 })).toThrow(
      'paddingIdx is out of range: got 4',
    )
    expect(() => ops.oneHot(index([0]), 0)).toThrow('oneHot: not a number of classes: got 0')
    expect(() => ops.oneHot(index([0, 3]), 3).arraySync()).toThrow(IndexError)
    expect(() => ops.oneHot(index([-1]), 3).arraySync()).toThrow('got -1 at position 0, expected 0 to 2')
  })
})
