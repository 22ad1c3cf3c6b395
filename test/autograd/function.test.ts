import { describe, expect, it } from 'vitest'
import { ArgumentError, autograd, ones, ShapeError, type Tensor, tensor } from '../../lib/index'

const { customFunction } = autograd
const leaf = (values: number[]) => tensor(values, { requiresGrad: true })
const returning = (result: unknown) =>
  customFunction({ name: 'mine', forward: (_, x: Tensor) => x.mul(1), backward: () => result as Tensor })

describe('customFunction', () => {
  it('that returns its input leaves the input what it was', () => {
    const reverse = customFunction({ forward: (_, x: Tensor) => x, backward: (_, g) => g.neg() })
    const x = leaf([1, 2])
    for (let pass = 1; pass <= 2; pass++) {
      const y = reverse(x)
      expect(y).not.toBe(x)
      expect(x.isLeaf).toBe(true)
      y.mul(2).sum().backward()
      expect(x.grad!.arraySync()).toEqual([-2 * pass, -2 * pass])
    }
    const z = leaf([1, 2])
    const h = z.mul(3)
    reverse(h).add(h.mul(10)).sum().backward() // only one of the ways is reversed
    expect(z.grad!.arraySync()).toEqual([27, 27])
  })

  it('gives one gradient an input, each shaped like it', () => {
    expect(() =>
      returning(ones([7]))(leaf([1, 2]))
        .sum()
        .backward(),
    ).toThrow('backward of mine: gradient 0 does not fit its input: got [7], expected [2].')
    expect(() =>
      returning(ones([7]))(leaf([1, 2]))
        .sum()
        .backward(),
    ).toThrow(ShapeError)
    expect(() =>
      returning(7)(leaf([1, 2]))
        .sum()
        .backward(),
    ).toThrow('gradient 0 is not a tensor: got 7')
    const product = customFunction({ forward: (_, x: Tensor, y: Tensor) => x.mul(y), backward: (_, g) => g })
    expect(() =>
      product(leaf([1]), leaf([2]))
        .sum()
        .backward(),
    ).toThrow(
      'backward of customFunction: not one gradient an input: got 1, expected 2; return null for inputs without one.',
    )
    expect(() =>
      returning([ones([2]), ones([2])])(leaf([1, 2]))
        .sum()
        .backward(),
    ).toThrow(ArgumentError)
  })

  it('may give null, also for arguments that are no tensors, and another dtype', () => {
    const x = leaf([1, 2])
    returning([null, null])(x).sum().backward()
    expect(x.grad).toBeNull()
    returning(ones([2], { dtype: 'float64' }))(x)
      .sum()
      .backward()
    expect(x.grad!.dtype).toBe('float32')
  })

  it('is made of a forward and a backward', () => {
    expect(() => customFunction(7 as never)).toThrow('customFunction: not a definition: got 7')
    expect(() => customFunction({ forward: () => ones([1]) } as never)).toThrow(ArgumentError)
  })
})
