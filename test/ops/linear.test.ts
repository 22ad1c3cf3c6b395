import { describe, expect, it } from 'vitest'
import { autograd, type DType, onesLike, ops, ShapeError, type Tensor, tensor, zeros } from '../../lib/index'
import { expectClose } from '../support/golden'

function filled(shape: readonly number[], seed: number, dtype: DType = 'float32'): Tensor {
  let state = seed
  const values = Array.from({ length: shape.reduce((n, size) => n * size, 1) }, () => {
    state = (state * 48271) % 2147483647
    return state / 1073741823.5 - 1
  })
  return tensor(values, { dtype }).view(shape as number[])
}

/** Backward of the sum of all elements. */
const summed = (x: Tensor): void => x.backward({ gradient: onesLike(x) })
const leaf = (shape: readonly number[], seed: number, dtype: DType = 'float64'): Tensor =>
  filled(shape, seed, dtype).detach().requiresGrad_()

describe('linear', () => {
  it('has the gradients of its formula for every rank, with and without bias', () => {
    for (const shape of [[4], [3, 4], [2, 3, 4], [0, 4]]) {
      const inputs = [leaf(shape, 2), leaf([5, 4], 3), leaf([5], 4)]
      expect(autograd.gradcheck((x, w, b) => ops.linear(x, w, b), inputs)).toBe(true)
      expect(autograd.gradcheck((x, w) => ops.linear(x, w), inputs.slice(0, 2))).toBe(true)
    }
    const inputs = [leaf([4, 3, 2], 2), leaf([4, 5], 3), leaf([5], 4)]
    expect(autograd.gradcheck((x, w, b) => ops.linear(x.permute(1, 2, 0), w.t(), b), inputs)).toBe(true)
  })

  it('computes only what is wanted', () => {
    const [x, w, b] = [filled([3, 4], 1), filled([2, 4], 2), filled([2], 3)]
    for (const wanted of [[0], [1], [2], [0, 2], [1, 2]]) {
      const inputs = [x, w, b].map((each, i) => each.detach().requiresGrad_(wanted.includes(i)))
      summed(ops.linear(inputs[0]!, inputs[1]!, inputs[2]!))
      expect(inputs.map(({ grad }) => grad !== null)).toEqual([0, 1, 2].map((i) => wanted.includes(i)))
    }
  })

  it('accumulates inside the product', async () => {
    const [x, w, b] = [leaf([6, 4], 1, 'float32'), leaf([3, 4], 2, 'float32'), leaf([3], 3, 'float32')]
    summed(ops.linear(x, w, b))
    const first = [w.grad!.clone(), b.grad!.clone()]
    const grad = w.grad
    summed(ops.linear(x, w, b))
    expect(w.grad).toBe(grad)
    await expectClose(w.grad!, first[0]!.mul(2), { rtol: 1e-6, atol: 1e-6 })
    await expectClose(b.grad!, first[1]!.mul(2), { rtol: 1e-6, atol: 1e-6 })
  })

  it('says what does not fit', () => {
    expect(() => ops.linear(zeros([2, 3]), zeros([4, 5]))).toThrow(
      'linear: weight does not fit: got weight [4, 5] for x [2, 3], expected [outputs, 3]; check the sizes of the layers.',
    )
    expect(() => ops.linear(zeros([2, 3]), zeros([4, 3]), zeros([3]))).toThrow(ShapeError)
    expect(() => ops.linear(zeros([2, 3]), zeros([4, 3], { dtype: 'bfloat16' }))).toThrow('dtypes differ')
  })
})

type Five = [Tensor, Tensor, Tensor, Tensor, Tensor]

describe('mlp', () => {
  const shapes = [[3, 4], [6, 4], [6], [5, 6], [5]]

  it('has the gradients of its formula', () => {
    for (const approximate of ['none', 'tanh'] as const) {
      const inputs = shapes.map((shape, i) => leaf(shape, i + 2))
      const form = { approximate }
      expect(autograd.gradcheck((x, w1, b1, w2, b2) => ops.mlp(x!, w1!, b1!, w2!, b2!, form), inputs)).toBe(true)
      for (const frozen of [[1, 2], [3, 4], [1, 2, 3, 4], [0, 1], [4]]) {
        const some = shapes.map((shape, i) => filled(shape, i + 2, 'float64').requiresGrad_(!frozen.includes(i)))
        expect(autograd.gradcheck((x, w1, b1, w2, b2) => ops.mlp(x!, w1!, b1!, w2!, b2!, form), some)).toBe(true)
      }
    }
  })

  it('agrees with float64 in the other dtypes, over several blocks of rows, accumulated', async () => {
    const sizes = [[1100, 40], [72, 40], [72], [36, 72], [36]]
    for (const dtype of ['float32', 'bfloat16', 'float16'] as const) {
      const bound = { float32: 2e-5, bfloat16: 4e-2, float16: 6e-3 }[dtype]
      const given = sizes.map((shape, i) => leaf(shape, i + 2, dtype)) as Five
      const exact = given.map((each) => each.detach().to('float64').requiresGrad_()) as Five
      const gradient = filled([1100, 36], 9, dtype).mul(0.05)
      const run = (inputs: Five, g: Tensor): Tensor => {
        const out = ops.mlp(...inputs, { approximate: 'tanh' })
        out.backward({ gradient: g, retainGraph: true })
        out.backward({ gradient: g })
        return out
      }
      const expected = run(exact, gradient.to('float64'))
      await expectClose(run(given, gradient), expected, { rtol: bound, atol: bound * 2 })
      for (const [i, each] of given.entries()) {
        await expectClose(each.grad!, exact[i]!.grad!, { rtol: bound, atol: bound * 4 })
      }
    }
  })

  it('is linear, gelu and linear, however many rows there are', async () => {
    for (const rows of [1, 63, 64, 300]) {
      for (const approximate of ['none', 'tanh'] as const) {
        const sizes = [[rows, 40], [256, 40], [256], [36, 256], [36]]
        const [x, w1, b1, w2, b2] = sizes.map((shape, i) => filled(shape, i + 2, 'float64')) as Five
        const expected = ops.linear(ops.gelu(ops.linear(x, w1, b1), { approximate }), w2, b2)
        const single = [x, w1, b1, w2, b2].map((each) => each.to('float32')) as Five
        await expectClose(ops.mlp(...single, { approximate }), expected, { rtol: 2e-5, atol: 4e-5 })
      }
    }
  })

  it('refuses an unknown form', () => {
    const inputs = shapes.map((shape) => zeros(shape)) as [Tensor, Tensor, Tensor, Tensor, Tensor]
    // @ts-expect-error not a form
    expect(() => ops.mlp(...inputs, { approximate: 'fast' })).toThrow('mlp: unknown form of gelu: got "fast"')
  })
})
