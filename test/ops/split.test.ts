import { describe, expect, it } from 'vitest'
import { arange, autograd, type Tensor, tensor, zeros } from '../../lib/index'

const leaf = (...shape: number[]): Tensor =>
  arange(
    shape.reduce((a, b) => a * b, 1),
    { dtype: 'float64' },
  )
    .view(shape)
    .clone()
    .requiresGrad_()

describe('split, chunk and unbind', () => {
  it('cut as PyTorch does', () => {
    expect(
      arange(7)
        .split(3)
        .map((part) => part.arraySync()),
    ).toEqual([[0, 1, 2], [3, 4, 5], [6]])
    expect(
      arange(7)
        .split([1, 4, 2])
        .map((part) => part.shape),
    ).toEqual([[1], [4], [2]])
    expect(
      arange(7)
        .chunk(5)
        .map((part) => part.size(0)),
    ).toEqual([2, 2, 2, 1])
    expect(
      zeros([2, 3, 4])
        .unbind(-1)
        .map((part) => part.shape),
    ).toEqual(Array(4).fill([2, 3]))
    expect(
      arange(6)
        .view(2, 3)
        .t()
        .unbind(0)
        .map((part) => part.arraySync()),
    ).toEqual([
      [0, 3],
      [1, 4],
      [2, 5],
    ])
    expect(
      zeros([0, 2])
        .split(3)
        .map((part) => part.shape),
    ).toEqual([[0, 2]])
  })

  it('have the gradients of central differences, also when parts go unused', () => {
    const cases: [string, (x: Tensor) => Tensor][] = [
      [
        'split',
        (x) =>
          x.split([1, 2], 1).reduce(
            (sum, part, i) =>
              sum.add(
                part
                  .mul(part)
                  .mul(i + 1)
                  .slice(1, 0, 1),
              ),
            tensor([0], { dtype: 'float64' }),
          ),
      ],
      ['one part', (x) => x.split(1, 1)[1]!.mul(3)],
      [
        'unbind',
        (x) => {
          const [a, b] = x.unbind(0) as [Tensor, Tensor]
          return a.mul(b)
        },
      ],
      [
        'chunk of a transpose',
        (x) => {
          const [a, b] = x.transpose(0, 2).chunk(2, 0) as [Tensor, Tensor]
          return a.mul(b)
        },
      ],
    ]
    for (const [name, fn] of cases) expect(autograd.gradcheck(fn, [leaf(2, 3, 4)]), name).toBe(true)
  })

  it('take gradients that already lie in one tensor as they are', () => {
    const x = leaf(2, 3, 4)
    const parts = x.unbind(1)
    const gradient = arange(24, { dtype: 'float64' }).view(2, 3, 4).clone()
    const fake = autograd.customFunction({
      forward: (_, a: Tensor, b: Tensor, c: Tensor) => a.add(b).add(c),
      backward: () => gradient.unbind(1),
    })
    fake(...(parts as [Tensor, Tensor, Tensor])).backward({ gradient: zeros([2, 4], { dtype: 'float64' }) })
    expect(x.grad?.arraySync()).toEqual(gradient.arraySync())
  })

  it('refuse sizes that do not add up', () => {
    expect(() => arange(7).split([1, 2])).toThrow(
      'the sizes do not add up to the dim: got [1, 2] for dim 0 of shape [7], expected sizes that add up to 7',
    )
    expect(() => arange(7).split(0)).toThrow('not a size')
    expect(() => arange(7).chunk(0)).toThrow('not a number of chunks')
  })
})
