import { describe, expect, it } from 'vitest'
import { autograd, type DType, fromTypedArray, ones, onesLike, ops, type Tensor, tensor, zeros } from '../../lib/index'
import { expectClose, goldenCases } from '../support/golden'
import { expectGolden, spread } from '../support/goldenOp'

const make = (shape: number[], seed = 1, dtype: DType = 'float64'): Tensor =>
  tensor(
    spread(
      shape.reduce((a, b) => a * b, 1),
      seed,
    ),
    { dtype },
  )
    .view(shape)
    .clone()
const leaf = (shape: number[], seed = 1): Tensor => make(shape, seed).requiresGrad_()

describe('layerNorm and rmsNorm', () => {
  // PyTorch 2.13
  it.each([
    ['float16', [1.3535, 0.4058]],
    ['bfloat16', [1.3516, 0.4063]],
  ] as const)('rmsNorm: the default eps is that of the computation, in %s', (dtype, expected) => {
    const y = ops.rmsNorm(tensor([0.01, 0.003], { dtype }), 2).to('float32')
    for (const [i, value] of (y.arraySync() as number[]).entries()) expect(value).toBeCloseTo(expected[i]!, 3)
  })

  const cases = [...goldenCases('ops', /^(layer|rms)_norm/), ...goldenCases('lowp', /^(layer|rms)_norm/, 2)]
  it.each(cases.map((each) => [each.name, each] as const))('golden %s', async (name, golden) => {
    await expectGolden(golden, ({ x, w, b }, { eps }) => {
      const shape = x!.shape.slice(name.includes('2dims') ? -2 : -1)
      return name.startsWith('rms')
        ? ops.rmsNorm(x!, shape, w ?? null, eps ?? null)
        : ops.layerNorm(x!, shape, w ?? null, b ?? null, eps)
    })
  })

  it('have the gradients of central differences, with and without parameters, in any strides', () => {
    const [w, b] = [leaf([5], 2), leaf([5], 3)]
    for (const shape of [[5], [3, 5], [2, 3, 5]]) {
      expect(autograd.gradcheck((x, w, b) => ops.layerNorm(x, 5, w, b), [leaf(shape), w, b])).toBe(true)
      expect(autograd.gradcheck((x, w) => ops.layerNorm(x, 5, w), [leaf(shape), w])).toBe(true)
      expect(autograd.gradcheck((x) => ops.layerNorm(x, 5), [leaf(shape)])).toBe(true)
      expect(autograd.gradcheck((x, w) => ops.rmsNorm(x, 5, w), [leaf(shape), w])).toBe(true)
      expect(autograd.gradcheck((x) => ops.rmsNorm(x, 5), [leaf(shape)])).toBe(true)
    }
    expect(autograd.gradcheck((x, w) => ops.layerNorm(x.t(), 5, w), [leaf([5, 4]), w])).toBe(true)
    expect(autograd.gradcheck((x) => ops.layerNorm(x, [3, 5]), [leaf([2, 3, 5])])).toBe(true)
  })

  it('agree with float64 over many rows and odd widths, where threads share the work', async () => {
    for (const [rows, width] of [
      [700, 33],
      [257, 130],
      [64, 768],
    ] as const) {
      const values = [[rows, width], [width], [width]].map((shape, i) => make(shape as number[], i + 2))
      const run = (dtype: DType) => {
        const [x, w, b] = values.map((each) => each.to(dtype).clone().requiresGrad_()) as [Tensor, Tensor, Tensor]
        const y = ops.layerNorm(x, width, w, b)
        y.backward({ gradient: make([rows, width], 9).to(dtype) })
        return [y, x.grad!, w.grad!, b.grad!]
      }
      const [got, exact] = [run('float32'), run('float64')]
      for (const [i, each] of got.entries()) {
        await expectClose(each.to('float64'), exact[i]!, { rtol: 1e-4, atol: 2e-5 })
      }
    }
  })

  it('keep their digits when the mean is far from 0', async () => {
    const x = fromTypedArray(Float32Array.from([10000, 10001, 10002, 10003]))
    await expectClose(ops.layerNorm(x, 4), [-1.3416355, -0.4472118, 0.4472118, 1.3416355], { rtol: 1e-5, atol: 0 })
  })

  it('add to a gradient under way', async () => {
    const x = leaf([3, 4])
    const y = ops.layerNorm(x, 4).add(x)
    y.backward({ gradient: make([3, 4], 5) })
    const alone = leaf([3, 4])
    ops.layerNorm(alone, 4).backward({ gradient: make([3, 4], 5) })
    await expectClose(x.grad!, alone.grad!.add(make([3, 4], 5)), { rtol: 1e-12, atol: 1e-12 })
  })

  it('handle tensors without elements', () => {
    const w = ones([4]).requiresGrad_()
    const y = ops.layerNorm(zeros([0, 4]), 4, w)
    expect(y.shape).toEqual([0, 4])
    y.backward({ gradient: onesLike(y) })
    expect(w.grad!.arraySync()).toEqual([0, 0, 0, 0])
    expect(ops.rmsNorm(zeros([3, 0]), 0).shape).toEqual([3, 0])
  })

  it('say what does not fit', () => {
    expect(() => ops.layerNorm(zeros([2, 3]), 4)).toThrow(
      'layerNorm: normalizedShape is not that of the last dims of x: got [4] for x [2, 3], expected [3].',
    )
    expect(() => ops.layerNorm(zeros([2, 3]), 3, zeros([4]))).toThrow(
      'layerNorm: weight does not fit: got [4], expected [3].',
    )
    expect(() => ops.rmsNorm(zeros([2, 3]), 3, null, -1)).toThrow('rmsNorm: not an eps: got -1')
  })
})
