import { describe, expect, it } from 'vitest'
import { arange, IndexError, nn, ops, ShapeError, type Tensor, tensor, zeros } from '../../lib/index'

const x: Tensor = arange(6).to('float32').view(2, 3)

describe("PyTorch's other names", () => {
  it('for dtypes', () => {
    const made = [x.float(), x.double(), x.half(), x.bfloat16(), x.long(), x.int(), x.bool()]
    expect(made.map(({ dtype }) => dtype)).toEqual([
      'float32',
      'float64',
      'float16',
      'bfloat16',
      'int64',
      'int32',
      'bool',
    ])
    expect(x.float()).toBe(x)
    expect(x.typeAs(zeros([1], { dtype: 'int32' })).dtype).toBe('int32')
    const layer = new nn.Linear(2, 2)
    expect([layer.double().weight.dtype, layer.half().weight.dtype]).toEqual(['float64', 'float16'])
    expect([layer.bfloat16().weight.dtype, layer.float().weight.dtype]).toEqual(['bfloat16', 'float32'])
  })

  it('for shapes', () => {
    expect(x.T.arraySync()).toEqual([
      [0, 3],
      [1, 4],
      [2, 5],
    ])
    expect(zeros([4, 2, 3]).mT.shape).toEqual([4, 3, 2])
    expect(() => zeros([2, 3, 4]).T).toThrow(ShapeError)
    expect(() => zeros([2]).mT).toThrow('mT: not a matrix: got [2]')
    expect(x.size()).toEqual([2, 3])
    expect(x.size(-1)).toBe(3)
    expect(() => x.size(2)).toThrow(IndexError)
    expect(x.dim()).toBe(2)
    expect(x.viewAs(zeros([3, 2])).shape).toEqual([3, 2])
    expect(x.T.reshapeAs(zeros([6])).shape).toEqual([6])
  })

  it('for bounds', () => {
    expect(x.clampMin(2).arraySync()).toEqual([
      [2, 2, 2],
      [3, 4, 5],
    ])
    expect(x.clampMax(2).arraySync()).toEqual([
      [0, 1, 2],
      [2, 2, 2],
    ])
  })
})

describe('index', () => {
  it('names the ways to take what no view can', () => {
    const text = "expected a number, 'start:end:step', '...' or null; take positions with indexSelect() or gather()"
    expect(() => x.index(tensor([0]) as never)).toThrow(text)
    expect(() => x.index([0, 1] as never)).toThrow('and what a mask says with maskedSelect().')
  })
})

describe('maskedSelect', () => {
  it('takes what the mask says, in row-major order, and sends the gradient back', async () => {
    const y = x.clone().requiresGrad_()
    const taken = await y.maskedSelect(y.gt(2))
    expect(await taken.array()).toEqual([3, 4, 5])
    taken.sum().backward()
    expect(y.grad!.arraySync()).toEqual([
      [0, 0, 0],
      [1, 1, 1],
    ])
    expect(await (await x.maskedSelect(tensor([true, false, true]))).array()).toEqual([0, 2, 3, 5])
    expect((await ops.maskedSelect(x, tensor([false]))).shape).toEqual([0])
    await expect(x.maskedSelect(x)).rejects.toThrow('maskedSelect: the mask is not a truth value: got float32')
  })
})
