// Every view is compared with the same rearrangement done by index arithmetic on nested arrays.
import { describe, expect, it } from 'vitest'
import { arange, autograd, ops, ShapeError, type Tensor, tensor, zeros } from '../../lib/index'

const x3 = (): Tensor => arange(24, { dtype: 'float64' }).view(2, 3, 4)
const at = (i: number, j: number, k: number): number => i * 12 + j * 4 + k
const range = (n: number): number[] => [...Array(n).keys()]
const leaf = (...shape: number[]): Tensor =>
  arange(
    shape.reduce((a, b) => a * b, 1),
    { dtype: 'float64' },
  )
    .view(shape)
    .clone()
    .requiresGrad_()

describe('views', () => {
  it('rearrange the same elements', () => {
    const x = x3()
    expect(x.transpose(0, -1).arraySync()).toEqual(
      range(4).map((k) => range(3).map((j) => range(2).map((i) => at(i, j, k)))),
    )
    expect(x.permute(1, 2, 0).arraySync()).toEqual(
      range(3).map((j) => range(4).map((k) => range(2).map((i) => at(i, j, k)))),
    )
    expect(x.select(1, -1).arraySync()).toEqual(range(2).map((i) => range(4).map((k) => at(i, 2, k))))
    expect(x.slice(2, 1, -1).arraySync()).toEqual(range(2).map((i) => range(3).map((j) => [at(i, j, 1), at(i, j, 2)])))
    expect(x.index(':', '1:', '::2').arraySync()).toEqual(
      range(2).map((i) => [1, 2].map((j) => [at(i, j, 0), at(i, j, 2)])),
    )
    expect(x.index('...', -1).shape).toEqual([2, 3])
    expect(x.index(0, null, '...').shape).toEqual([1, 3, 4])
    expect(x.narrow(0, 1, 1).arraySync()).toEqual([range(3).map((j) => range(4).map((k) => at(1, j, k)))])
    expect(
      tensor([[1], [2]])
        .expand(-1, 3)
        .arraySync(),
    ).toEqual([
      [1, 1, 1],
      [2, 2, 2],
    ])
  })

  it('infer one size, and copy only when no strides fit', () => {
    const x = x3()
    expect(x.reshape(6, -1).shape).toEqual([6, 4])
    expect(x.transpose(0, 1).reshape(-1).arraySync()).toEqual(
      range(3).flatMap((j) => range(2).flatMap((i) => range(4).map((k) => at(i, j, k)))),
    )
    expect(x.transpose(1, 2).view(2, 2, 2, 3).arraySync()).toEqual(
      range(2).map((i) => range(2).map((a) => range(2).map((b) => range(3).map((j) => at(i, j, 2 * a + b))))),
    )
    expect(() => x.transpose(0, 1).view(-1)).toThrow('use reshape(), which copies where it must')
    expect(x.view(2, 12)._base).toBe(x._base ?? x)
    expect(zeros([0, 3]).view(3, 0).shape).toEqual([3, 0])
    expect(zeros([1, 1]).view([]).shape).toEqual([])
  })

  it('write through to their base', () => {
    const x = zeros([2, 3])
    x.select(1, 1).fill_(5)
    x.slice(0, 1)
      .slice(1, 2)
      .copy_(tensor([[7]]))
    expect(x.arraySync()).toEqual([
      [0, 5, 0],
      [0, 5, 7],
    ])
  })

  it('outlive the tensor that they view', () => {
    const x = x3()
    const view = x.select(0, 1).transpose(0, 1)
    x.dispose()
    expect(view.select(0, 0).arraySync()).toEqual([12, 16, 20])
  })

  it('change the shape as their names say', () => {
    expect(x3().flatten(1).shape).toEqual([2, 12])
    expect(x3().unflatten(-1, [2, -1]).shape).toEqual([2, 3, 2, 2])
    expect(zeros([2, 1, 3, 1]).squeeze().shape).toEqual([2, 3])
    expect(zeros([2, 1, 3, 1]).squeeze(1).shape).toEqual([2, 3, 1])
    expect(zeros([2, 3]).squeeze(0).shape).toEqual([2, 3])
    expect(zeros([2, 3]).unsqueeze(-1).shape).toEqual([2, 3, 1])
    expect(zeros([2, 3]).t().shape).toEqual([3, 2])
  })

  it('have the gradients of central differences', () => {
    const cases: [string, (x: Tensor) => Tensor][] = [
      ['view', (x) => x.view(4, 6)],
      ['reshape of a transpose', (x) => x.transpose(0, 2).reshape(6, 4)],
      ['permute', (x) => x.permute(2, 0, 1)],
      ['slice', (x) => x.slice(2, 1, 4, 2)],
      ['select', (x) => x.select(1, 2)],
      ['index', (x) => x.index(':', '1:', -1)],
      ['expand', (x) => x.slice(2, 0, 1).expand(2, 3, 5)],
      ['squeeze and unsqueeze', (x) => x.unsqueeze(0).squeeze()],
      ['overlapping uses', (x) => x.slice(0, 0, 1).add(x.slice(0, 1))],
      ['clone and contiguous', (x) => x.transpose(0, 1).contiguous().clone()],
      ['copy_', (x) => x.mul(2).copy_(x.select(0, 0))],
      ['to', (x) => x.to('float64').mul(1)],
    ]
    for (const [name, fn] of cases) expect(autograd.gradcheck(fn, [leaf(2, 3, 4)]), name).toBe(true)
  })

  it('refuse what does not fit, with both shapes', () => {
    const x = x3()
    expect(() => x.view(5, 5)).toThrow(
      'view: the shape has another number of elements: got [5, 5] for a tensor of shape [2, 3, 4]',
    )
    expect(() => x.view(-1, -1)).toThrow(ShapeError)
    expect(() => x.transpose(0, 3)).toThrow('dim is out of range: got 3, expected -3 to 2')
    expect(() => x.permute(0, 0, 1)).toThrow('not an order of the dims')
    expect(() => x.expand(4, 3, 4)).toThrow('only dims of size 1 can be repeated')
    expect(() => x.select(0, 2)).toThrow('index is out of range: got 2, expected -2 to 1 for dim 0 of shape [2, 3, 4]')
    expect(() => x.narrow(0, 1, 5)).toThrow('the part is not inside the dim')
    expect(() => x.index('1:2:x')).toThrow('not a position')
    expect(() => x.slice(0, 0, 2, 0)).toThrow('not a step')
    expect(() => ops.flatten(x, 2, 1)).toThrow('startDim comes after endDim')
  })
})
