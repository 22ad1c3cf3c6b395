import { describe, expect, it } from 'vitest'
import {
  ArgumentError,
  arange,
  DeviceError,
  DTypeError,
  empty,
  eye,
  fromTypedArray,
  full,
  linspace,
  ones,
  onesLike,
  rand,
  randn,
  ShapeError,
  StateError,
  tensor,
  zeros,
  zerosLike,
} from '../../lib/index'

describe('tensor', () => {
  it('takes numbers, nested arrays, booleans, BigInt and typed arrays', () => {
    expect(tensor(3).shape).toEqual([])
    expect(tensor(3).itemSync()).toBe(3)
    expect(tensor([[1, 2, 3]]).arraySync()).toEqual([[1, 2, 3]])
    expect(tensor([true, false]).dtype).toBe('bool')
    expect(tensor([true, false]).arraySync()).toEqual([true, false])
    expect(tensor([1n, 2n]).dtype).toBe('int64')
    expect(tensor(new Int32Array([1, 2])).dtype).toBe('int32')
    expect(tensor([]).shape).toEqual([0])
    expect(tensor([[], []]).shape).toEqual([2, 0])
  })

  it('is not written as JSON before it is read', async () => {
    const x = tensor([[1, 2]])
    expect(() => JSON.stringify({ x })).toThrow(
      'toJSON: a tensor is not written as JSON: got float32 [1, 2]; read it first: await t.array(), or save it with io.saveFile.',
    )
    expect(() => JSON.stringify(x)).toThrow(StateError)
    expect(JSON.stringify(await x.array())).toBe('[[1,2]]')
  })

  it('keeps 64-bit integers exact, and says when a number cannot be', async () => {
    const big = tensor([2n ** 60n + 1n])
    expect((await big.data())[0]).toBe(2n ** 60n + 1n)
    expect(() => big.arraySync()).toThrow('an int64 element is not exact as a JavaScript number')
  })

  it('refuses ragged rows, foreign elements and cycles', () => {
    expect(() => tensor([[1, 2], [3]])).toThrow('rows differ in length: got 1 elements at depth 1, expected 2 elements')
    expect(() => tensor([1, 'x' as never])).toThrow('an element is not a number: got "x"')
    expect(() => tensor([{} as never])).toThrow(ArgumentError)
    const cycle: unknown[] = []
    cycle.push(cycle)
    expect(() => tensor(cycle as never)).toThrow('nested too deep')
    expect(() => tensor([1.5], { dtype: 'int64' })).toThrow('an element is not a whole number: got 1.5')
  })
})

describe('fromTypedArray', () => {
  it('copies, so that later writes to the source do not show', async () => {
    const source = new Float32Array([1, 2, 3, 4])
    const x = fromTypedArray(source, [2, 2])
    source.fill(9)
    expect(await x.array()).toEqual([
      [1, 2],
      [3, 4],
    ])
  })

  it('takes every kind of array, and parts of a buffer', () => {
    expect(fromTypedArray(new Uint16Array([65535])).arraySync()).toEqual([65535])
    expect(fromTypedArray(new Uint32Array([2 ** 32 - 1])).arraySync()).toEqual([2 ** 32 - 1])
    expect(fromTypedArray(new Int8Array([-1])).arraySync()).toEqual([-1])
    expect(fromTypedArray(new Float32Array([0, 1, 2, 3]).subarray(1, 3)).arraySync()).toEqual([1, 2])
    expect(fromTypedArray(new Uint8Array([0, 2, 255]), [3], { dtype: 'bool' }).arraySync()).toEqual([false, true, true])
  })

  it('refuses shapes that do not fit', () => {
    expect(() => fromTypedArray(new Float32Array(5), [2, 3])).toThrow(
      'fromTypedArray: the shape does not fit the array: got 5 elements for shape [2, 3], expected 6 elements.',
    )
    expect(() => fromTypedArray([1, 2] as never)).toThrow(ArgumentError)
  })
})

describe('filled tensors', () => {
  it('have the value, shape and dtype asked for', () => {
    expect(zeros([2, 2]).arraySync()).toEqual([
      [0, 0],
      [0, 0],
    ])
    expect(ones(3, { dtype: 'int32' }).arraySync()).toEqual([1, 1, 1])
    expect(full([], 2.5).itemSync()).toBe(2.5)
    expect(empty([0, 3]).arraySync()).toEqual([])
    expect(onesLike(zeros([2], { dtype: 'float64' })).dtype).toBe('float64')
    expect(eye(2, 3).arraySync()).toEqual([
      [1, 0, 0],
      [0, 1, 0],
    ])
    expect(eye(2, { dtype: 'int32' }).dtype).toBe('int32')
    expect(eye(1, 2, { dtype: 'float64' }).dtype).toBe('float64')
    expect(() => eye(2, 'x' as never)).toThrow(ShapeError)
    expect(() => eye(2, null as never)).toThrow(ShapeError)
  })

  it('refuse what is no shape', () => {
    for (const shape of [[-1], [1.5], [Number.NaN], Array(9).fill(1), 'x', {}]) {
      expect(() => zeros(shape as never), String(shape)).toThrow(ShapeError)
    }
    expect(() => zeros([1], { dtype: 'float31' as never })).toThrow(DTypeError)
    expect(() => ones([1], { dtype: 'int64', requiresGrad: true })).toThrow('only floating tensors have gradients')
  })
})

describe('sizes', () => {
  it('stand in an array or one by one, as in PyTorch', () => {
    for (const make of [zeros, ones, empty, rand, randn]) {
      expect(make([2, 3]).shape).toEqual([2, 3])
      expect(make(2, 3).shape).toEqual([2, 3])
      expect(make(2, 3, 4, { dtype: 'float64' }).dtype).toBe('float64')
      expect(make(3, { dtype: 'float64' }).shape).toEqual([3])
    }
  })

  it('are refused under the name of the function that was called', () => {
    expect(() => zeros(2, -3)).toThrow('zeros: not a shape: got [2, -3], expected up to 8 whole numbers of at least 0.')
    expect(() => ones([Number.NaN])).toThrow('ones: not a shape: got [NaN]')
    expect(() => zeros(...([[2], {}, 3] as unknown as [number]))).toThrow('zeros: not a shape and options')
    expect(() => zerosLike(3 as never)).toThrow('zerosLike: not a tensor: got 3, expected a Tensor.')
    expect(() => rand([2], { device: 'cuda' as never })).toThrow(DeviceError)
  })
})

describe('elements', () => {
  it('that do not fit their dtype are refused, as by PyTorch', () => {
    expect(() => tensor([2 ** 31], { dtype: 'int32' })).toThrow(
      'tensor: an element does not fit int32: got 2147483648, expected -2147483648 to 2147483647.',
    )
    expect(() => tensor([Number.NaN], { dtype: 'int32' })).toThrow('does not fit int32: got NaN')
    expect(() => tensor([256], { dtype: 'uint8' })).toThrow(DTypeError)
    expect(tensor([-1, 2.9], { dtype: 'uint8' }).arraySync()).toEqual([255, 2])
    expect(() => tensor([2 ** 60], { dtype: 'int64' })).toThrow('does not fit int64: got 1152921504606847000')
    expect(() => tensor([2n ** 63n])).toThrow('does not fit int64: got 9223372036854775808')
  })

  it("of Node's Buffer are bytes", () => {
    expect(fromTypedArray(Buffer.from([1, 255])).dtype).toBe('uint8')
    expect(fromTypedArray(Buffer.from([1, 255])).arraySync()).toEqual([1, 255])
  })
})

describe('ranges', () => {
  it('count like Python and like numpy', () => {
    expect(arange(5).arraySync()).toEqual([0, 1, 2, 3, 4])
    expect(arange(1, 2, 0.5).dtype).toBe('float32')
    expect(arange(5, 0, -2).arraySync()).toEqual([5, 3, 1])
    expect(linspace(0, 1, 5).arraySync()).toEqual([0, 0.25, 0.5, 0.75, 1])
    expect(() => arange(0, 5, 0)).toThrow('the range does not end')
    expect(() => arange(0, 5, -1)).toThrow(ArgumentError)
  })
})

describe('printing', () => {
  it('shows values, shape and dtype', () => {
    expect(String(tensor([[1, 2.5]]))).toBe('tensor([[1.0000, 2.5000]], shape [1, 2], float32)')
    expect(String(tensor([1, 2], { requiresGrad: true }))).toBe('tensor([1., 2.], shape [2], float32, requiresGrad)')
    expect(String(tensor([[true, false]]))).toBe('tensor([[true, false]], shape [1, 2], bool)')
    expect(String(tensor([Number.NaN, Number.POSITIVE_INFINITY, -1]))).toBe(
      'tensor([nan, inf, -1.], shape [3], float32)',
    )
    expect(String(arange(3))).toBe('tensor([0, 1, 2], shape [3], int64)')
    expect(String(ones([1], { device: 'cpu:1' }))).toBe('tensor([1.], shape [1], float32, device cpu:1)')
    expect(String(ones([1], { device: 'cpu:1', requiresGrad: true }).mul(2))).toBe(
      'tensor([2.], shape [1], float32, device cpu:1, gradFn mul)',
    )
    expect(String(zeros([0]))).toBe('tensor([], shape [0], float32)')
  })

  it('leaves out the middle of large tensors', () => {
    expect(String(zeros([100, 100])).split('\n')).toHaveLength(7)
  })
})

describe('a typed array without memory', () => {
  it('is refused in words; an empty one is not', () => {
    const array = new Float32Array(3)
    structuredClone(array.buffer, { transfer: [array.buffer] })
    for (const make of [() => tensor(array), () => fromTypedArray(array)]) {
      expect(make).toThrow(
        'fromTypedArray: the array has no memory any more: got a Float32Array of length 0 on a detached buffer; read it',
      )
    }
    expect(tensor(new Float32Array(0)).shape).toEqual([0])
  })
})
