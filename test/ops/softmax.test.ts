import { describe, expect, it } from 'vitest'
import { autograd, type DType, fromTypedArray, ops, type Tensor, tensor, zeros } from '../../lib/index'
import { goldenCases } from '../support/golden'
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

describe('softmax and logSoftmax', () => {
  const cases = [...goldenCases('ops', /^(log_)?softmax/), ...goldenCases('lowp', /^softmax/, 2)]
  it.each(cases.map((each) => [each.name, each] as const))('golden %s', async (name, golden) => {
    const op = name.startsWith('log_') ? ops.logSoftmax : ops.softmax
    await expectGolden(golden, ({ x }, { dim }) => op(x!, dim))
  })

  it('have the gradients of central differences over every dim and any strides', () => {
    for (const op of [ops.softmax, ops.logSoftmax]) {
      for (const dim of [0, 1, -1]) {
        expect(autograd.gradcheck((x) => op(x, dim), [make([3, 5, 2]).requiresGrad_()])).toBe(true)
        expect(autograd.gradcheck((x) => op(x.transpose(0, 2), dim), [make([3, 5, 2]).requiresGrad_()])).toBe(true)
      }
    }
  })

  it('round what float64 has, give or take float32, for rows of every length, over the last and over inner dims', async () => {
    for (const n of [1, 2, 15, 16, 17, 63, 64, 65, 129, 1000]) {
      const x = make([3, n], n)
      for (const dtype of ['float32', 'bfloat16', 'float16'] as const) {
        const given = x.to(dtype)
        const exact = ops.softmax(given.to('float64'))
        // sums in float32 differ in the last places by their order, so two roundings are right where one is between them
        const [low, high] = [1 - 2e-6, 1 + 2e-6].map((factor) => exact.mul(factor).to(dtype).arraySync()) as [
          number[][],
          number[][],
        ]
        for (const y of [ops.softmax(given), ops.softmax(given.t().contiguous(), 0).t()]) {
          ;(y.arraySync() as number[][]).forEach((row, i) => {
            row.forEach((value, j) => {
              expect(value, `${dtype} [${i}, ${j}] of ${n}`).toBeGreaterThanOrEqual(low[i]![j]!)
              expect(value, `${dtype} [${i}, ${j}] of ${n}`).toBeLessThanOrEqual(high[i]![j]!)
            })
          })
        }
      }
      const sums = (ops.softmax(x).arraySync() as number[][]).map((row) => row.reduce((a, b) => a + b, 0))
      for (const sum of sums) expect(sum).toBeCloseTo(1, 12)
    }
  })

  it('take away what is infinitely far below', () => {
    const row = ops.softmax(tensor([0, Number.NEGATIVE_INFINITY, 0, -1000])).arraySync()
    expect(row).toEqual([0.5, 0, 0.5, 0])
    expect(ops.softmax(tensor([Number.NaN, 1])).arraySync()).toEqual([Number.NaN, Number.NaN])
    expect(ops.softmax(tensor([Number.POSITIVE_INFINITY, 1])).arraySync()).toEqual(
      [Number.NaN, 0].map(() => Number.NaN),
    )
  })

  it('give the same bits however large the output: stored around the caches or not', async () => {
    const values = Float32Array.from(spread(4096 * 600))
    const large = fromTypedArray(values, [4096, 600])
    const whole = ops.softmax(large)
    const parts = ops.softmax(large.narrow(0, 4000, 96).clone())
    expect(await whole.narrow(0, 4000, 96).clone().data()).toEqual(await parts.data())
  })

  it('handle tensors without elements and without dims', () => {
    expect(ops.softmax(zeros([0, 3])).shape).toEqual([0, 3])
    expect(ops.softmax(zeros([3, 0])).shape).toEqual([3, 0])
    expect(ops.softmax(tensor(5)).itemSync()).toBe(1)
    expect(ops.logSoftmax(tensor(5)).itemSync()).toBe(0)
  })

  it('say what they do not take', () => {
    expect(() => ops.softmax(tensor([1, 2], { dtype: 'int64' }))).toThrow(
      "softmax: x has no fractions: got int64, expected float32, float64, float16 or bfloat16; convert it with .to('float32').",
    )
    expect(() => ops.logSoftmax(zeros([2]), 1)).toThrow('logSoftmax: dim is out of range: got 1, expected -1 to 0')
  })
})
