import { describe, expect, it } from 'vitest'
import { ArgumentError, nn, ones, ShapeError, type Tensor, tensor } from '../../lib/index'

const leaf = (values: number[]) => tensor(values, { requiresGrad: true })

describe('hooks', () => {
  it('may not change the shape or dtype of a gradient', () => {
    const x = leaf([1, 2])
    const y = x.mul(2)
    y.registerHook(() => ones([5]))
    expect(() => y.sum().backward()).toThrow(
      'registerHook: the hook changed what the gradient is: got float32 [5], expected float32 [2].',
    )
    expect(x.grad).toBeNull()
    const z = leaf([1, 2])
    z.registerHook((g) => g.to('float64'))
    expect(() => z.sum().backward()).toThrow(ShapeError)
  })

  it('return a tensor or nothing', () => {
    const x = leaf([1, 2])
    x.registerHook(() => 7 as never)
    expect(() => x.sum().backward()).toThrow(
      'registerHook: the hook returned no tensor: got 7, expected a Tensor, or nothing to leave the gradient as it is.',
    )
  })

  it('are functions', () => {
    expect(() => leaf([1]).registerHook(3 as never)).toThrow('registerHook: not a function: got 3')
    const module = new nn.Identity()
    expect(() => module.registerForwardHook(null as never)).toThrow(ArgumentError)
    expect(() => module.registerForwardPreHook('x' as never)).toThrow(ArgumentError)
    expect(() => module.registerBackwardHook({} as never)).toThrow(ArgumentError)
  })

  it('are taken off by the handle or, as in PyTorch, by its remove()', () => {
    const x = leaf([1])
    const seen: Tensor[] = []
    const handle = x.registerHook((g) => void seen.push(g))
    handle.remove()
    const module = new nn.Identity()
    module.registerForwardHook(() => void seen.push(x)).remove()
    module.registerForwardPreHook(() => void seen.push(x))()
    module.forward(x).sum().backward()
    expect(seen).toEqual([])
  })
})
