import { describe, expect, it } from 'vitest'
import { arange, autograd, ones, ops, ShapeError, type Tensor, tensor, zeros } from '../../lib/index'
import { goldenCases } from '../support/golden'
import { expectGolden, type GoldenCall, spread } from '../support/goldenOp'

const leaf = (shape: number[], seed = 1): Tensor =>
  tensor(
    spread(
      shape.reduce((a, b) => a * b, 1),
      seed,
    ),
    { dtype: 'float64' },
  )
    .view(shape)
    .clone()
    .requiresGrad_()

const calls: Record<string, GoldenCall> = {
  cat: ({ a, b, c }, { dim }) => ops.cat([a!, b!, c!], dim),
  cat_same_twice: ({ a }, { dim }) => ops.cat([a!, a!], dim),
  stack: ({ a, b }, { dim }) => ops.stack([a!, b!], dim),
  tril: ({ x }, { diagonal }) => ops.tril(x!, diagonal),
  triu: ({ x }, { diagonal }) => ops.triu(x!, diagonal),
  repeat: ({ x }, { reps }) => ops.repeat(x!, reps),
  repeat_interleave: ({ x }, { n, dim }) => ops.repeatInterleave(x!, n, dim),
  flip: ({ x }, { dims }) => ops.flip(x!, dims),
}

describe('joining, repeating and turning', () => {
  const cases = goldenCases('ops', new RegExp(`^(${Object.keys(calls).join('|')})$`))
  it('covers the golden cases', () => expect(cases.length).toBe(Object.keys(calls).length))
  it.each(cases.map((each) => [each.name, each] as const))('golden %s', async (name, golden) => {
    await expectGolden(golden, calls[name]!)
  })

  it('has the gradients of central differences', () => {
    const parts = [leaf([2, 3]), leaf([2, 1], 2), leaf([2, 2], 3)]
    expect(autograd.gradcheck((...all) => ops.cat(all, -1), parts)).toBe(true)
    expect(autograd.gradcheck((a, b) => ops.cat([a!.t(), b!.t(), a!.t()], 0), parts.slice(0, 2))).toBe(true)
    expect(autograd.gradcheck((a, b) => ops.stack([a!, b!], 1), [leaf([2, 3]), leaf([2, 3], 2)])).toBe(true)
    expect(autograd.gradcheck((x) => ops.repeat(x, 2, 1, 3), [leaf([2, 3])])).toBe(true)
    expect(autograd.gradcheck((x) => ops.repeatInterleave(x, [2, 0, 1], 1), [leaf([2, 3])])).toBe(true)
    expect(autograd.gradcheck((x) => ops.repeatInterleave(x.t(), 2), [leaf([2, 3])])).toBe(true)
    expect(autograd.gradcheck((x) => ops.flip(x.t(), 0, 1), [leaf([2, 3])])).toBe(true)
    expect(autograd.gradcheck((x) => ops.tril(x.transpose(0, 2), -1), [leaf([2, 3, 4])])).toBe(true)
  })

  it('joins many parts, promotes dtypes and leaves out empty vectors', () => {
    const many = Array.from({ length: 5000 }, (_, i) => tensor([i], { dtype: 'int32' }))
    expect(ops.cat(many).arraySync()).toEqual(Array.from({ length: 5000 }, (_, i) => i))
    expect(ops.cat([tensor([1], { dtype: 'int64' }), tensor([0.5])]).dtype).toBe('float32')
    expect(ops.cat([zeros([0]), ones([2, 2])]).shape).toEqual([2, 2])
    expect(ops.cat([zeros([0]), zeros([0])]).shape).toEqual([0])
    expect(ops.cat([tensor([true]), tensor([false])]).arraySync()).toEqual([true, false])
  })

  it('cuts triangles of every dtype, batched, wide and tall', () => {
    for (const dtype of ['float32', 'float64', 'bfloat16', 'float16', 'int64', 'int32', 'uint8'] as const) {
      const x = arange(1, 13, { dtype }).view(2, 2, 3)
      expect(x.tril().arraySync()).toEqual([
        [
          [1, 0, 0],
          [4, 5, 0],
        ],
        [
          [7, 0, 0],
          [10, 11, 0],
        ],
      ])
      expect(x.select(0, 0).t().triu(-1).arraySync()).toEqual([
        [1, 4],
        [2, 5],
        [0, 6],
      ])
    }
    expect(ones([2, 2]).triu(5).arraySync()).toEqual([
      [0, 0],
      [0, 0],
    ])
    expect(ones([2, 2]).tril(-5).arraySync()).toEqual([
      [0, 0],
      [0, 0],
    ])
    expect(zeros([0, 3]).tril().shape).toEqual([0, 3])
  })

  it('repeats and turns as PyTorch does', () => {
    expect(tensor([1, 2]).repeat(2, 2).arraySync()).toEqual([
      [1, 2, 1, 2],
      [1, 2, 1, 2],
    ])
    expect(tensor(3).repeat(2).arraySync()).toEqual([3, 3])
    expect(tensor([1, 2]).repeat(0).shape).toEqual([0])
    expect(
      tensor([[1, 2]])
        .repeatInterleave(2)
        .arraySync(),
    ).toEqual([1, 1, 2, 2])
    expect(zeros([0]).flip(0).shape).toEqual([0])
    expect(
      tensor([
        [1, 2],
        [3, 4],
      ])
        .flip(-1)
        .arraySync(),
    ).toEqual([
      [2, 1],
      [4, 3],
    ])
  })

  it('says what does not fit', () => {
    expect(() => ops.cat([zeros([2, 3]), zeros([2, 4])])).toThrow(
      'cat: tensor 1 does not fit: got [2, 4], expected the sizes of [2, 3] but for dim 0.',
    )
    expect(() => ops.cat([])).toThrow('cat: no tensors to join: got an array of length 0')
    expect(() => ops.stack([zeros([2]), zeros([3])])).toThrow(
      'stack: tensor 1 has another shape: got [3], expected [2].',
    )
    expect(() => ops.cat([tensor(1)])).toThrow(ShapeError)
    expect(() => zeros([2, 3]).repeat(2)).toThrow('repeat: the repeats do not fit: got [2] for shape [2, 3]')
    expect(() => zeros([2]).tril()).toThrow('tril: not a matrix: got [2], expected rank 2 or more.')
    expect(() => zeros([2]).flip(0, 0)).toThrow('flip: a dim is named twice: got [0, 0].')
  })
})
