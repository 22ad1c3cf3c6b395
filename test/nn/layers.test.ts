import { describe, expect, it } from 'vitest'
import { ArgumentError, IndexError, nn, ones, ops, ShapeError, type Tensor, tensor, zeros } from '../../lib/index'
import { expectClose } from '../support/golden'

const numbers = (x: Tensor): number[] => Array.from(x.dataSync(), Number)
const spread = (x: Tensor): { mean: number; std: number; min: number; max: number } => {
  const values = numbers(x)
  const mean = values.reduce((a, b) => a + b, 0) / values.length
  const std = Math.sqrt(values.reduce((sum, v) => sum + (v - mean) ** 2, 0) / values.length)
  return { mean, std, min: Math.min(...values), max: Math.max(...values) }
}

describe('Linear', () => {
  it('starts as uniform in ± 1 / sqrt(inFeatures), like PyTorch', () => {
    const layer = new nn.Linear(256, 300)
    const { min, max, std } = spread(layer.weight)
    expect(layer.weight.shape).toEqual([300, 256])
    expect(min).toBeGreaterThanOrEqual(-1 / 16)
    expect(max).toBeLessThanOrEqual(1 / 16)
    expect(max - min).toBeGreaterThan(0.12)
    expect(std).toBeCloseTo(1 / 16 / Math.sqrt(3), 3)
    expect(spread(layer.bias!).max).toBeLessThanOrEqual(1 / 16)
    expect(new nn.Linear(2, 3, { bias: false }).bias).toBeNull()
  })

  it('computes x weightᵀ + bias, in every floating dtype', async () => {
    for (const dtype of ['float32', 'float64', 'bfloat16', 'float16'] as const) {
      const layer = new nn.Linear(2, 3).to(dtype)
      layer.loadStateDict({
        weight: tensor([
          [1, 2],
          [3, 4],
          [5, 6],
        ]),
        bias: tensor([10, 20, 30]),
      })
      const y = layer.forward(
        tensor(
          [
            [1, -1],
            [0, 2],
          ],
          { dtype },
        ),
      )
      expect(y.dtype).toBe(dtype)
      expect(numbers(y)).toEqual([9, 19, 29, 14, 28, 42])
    }
  })

  it('prints its sizes', () => {
    expect(String(new nn.Linear(2, 3, { bias: false }))).toBe('Linear(2, 3, bias: false)  # 6 parameters')
  })

  it('refuses sizes that are none', () => {
    expect(() => new nn.Linear(0, 3)).toThrow(
      'Linear: inFeatures is not a size: got 0, expected a whole number of at least 1.',
    )
    expect(() => new nn.Linear(2, Number.NaN)).toThrow(ArgumentError)
    expect(() => new nn.Linear(2, 3).forward(ones([4, 5]))).toThrow(ShapeError)
  })
})

describe('Embedding', () => {
  it('starts as N(0, 1) with a padding row of zeros, which gets no gradient', async () => {
    const table = new nn.Embedding(500, 64, { paddingIdx: -500 })
    expect(table.paddingIdx).toBe(0)
    expect(spread(table.weight).std).toBeCloseTo(1, 1)
    expect(numbers(table.weight.select(0, 0)).every((value) => value === 0)).toBe(true)
    const out = table.forward(
      tensor(
        [
          [0, 3],
          [3, 499],
        ],
        { dtype: 'int64' },
      ),
    )
    expect(out.shape).toEqual([2, 2, 64])
    ops.sum(out).backward()
    const rows = numbers(table.weight.grad!.select(1, 5))
    expect([rows[0], rows[3], rows[499], rows[1]]).toEqual([0, 2, 1, 0])
  })

  it('refuses a padding row outside the table', () => {
    expect(() => new nn.Embedding(10, 4, { paddingIdx: 10 })).toThrow(
      'Embedding: paddingIdx is outside the table: got 10, expected -10 to 9.',
    )
  })

  it('names an index outside the table, and works afterwards', async () => {
    const table = new nn.Embedding(4, 2)
    await expect(table.forward(tensor([1, 4], { dtype: 'int64' })).data()).rejects.toThrow(IndexError)
    expect((await table.forward(tensor([1, 3], { dtype: 'int64' })).data()).length).toBe(4)
  })
})

describe('norms', () => {
  it('LayerNorm centres and scales, with 1 and 0 at the start', async () => {
    const layer = new nn.LayerNorm(4, { eps: 0 }).to('float64')
    const y = layer.forward(tensor([[1, 2, 3, 4]], { dtype: 'float64' }))
    const root = Math.sqrt(1.25)
    await expectClose(
      y,
      [-1.5, -0.5, 0.5, 1.5].map((v) => v / root),
      { rtol: 1e-12, atol: 1e-12 },
    )
    expect(new nn.LayerNorm([2, 3], { elementwiseAffine: false }).parameters()).toEqual([])
    expect(new nn.LayerNorm(4, { bias: false }).parameters().length).toBe(1)
    expect(new nn.LayerNorm([2, 3]).forward(zeros([5, 2, 3])).shape).toEqual([5, 2, 3])
  })

  it("RMSNorm's eps is the dtype's when none is given", async () => {
    const layer = new nn.RMSNorm(2)
    const tiny = 1e-4 // of the order of the root of float32's eps
    const y = layer.forward(tensor([[tiny, tiny]]))
    const expected = tiny / Math.sqrt(tiny ** 2 + 2 ** -23)
    await expectClose(y, [expected, expected], { rtol: 1e-5, atol: 0 })
    await expectClose(
      new nn.RMSNorm(2, { eps: 0 }).forward(tensor([[3, 4]])),
      [3, 4].map((v) => v / Math.sqrt(12.5)),
      {
        rtol: 1e-6,
        atol: 0,
      },
    )
  })
})

describe('Dropout', () => {
  it('drops while training only, and keeps the mean', () => {
    const layer = new nn.Dropout(0.25)
    const x = ones([200, 200])
    const { mean } = spread(layer.forward(x))
    expect(mean).toBeCloseTo(1, 1)
    expect(new Set(numbers(layer.forward(x)))).toEqual(new Set([0, Math.fround(4 / 3)]))
    expect(numbers(layer.eval().forward(x)).every((value) => value === 1)).toBe(true)
    expect(() => new nn.Dropout(1.5)).toThrow(
      'Dropout: p is not a probability: got 1.5, expected a number from 0 to 1.',
    )
  })
})

describe('activations', () => {
  it('are the operators of their names', async () => {
    const x = tensor([-2, -0.5, 0, 0.5, 3], { dtype: 'float64' })
    const phi = (v: number): number => v / (1 + Math.exp(-v))
    const reference: [nn.Module & { forward(x: Tensor): Tensor }, (v: number) => number][] = [
      [new nn.ReLU(), (v) => Math.max(0, v)],
      [new nn.SiLU(), phi],
      [new nn.Tanh(), Math.tanh],
      [new nn.Sigmoid(), (v) => 1 / (1 + Math.exp(-v))],
      [new nn.Softplus({ beta: 2 }), (v) => Math.log1p(Math.exp(2 * v)) / 2],
      [
        new nn.GELU({ approximate: 'tanh' }),
        (v) => 0.5 * v * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (v + 0.044715 * v ** 3))),
      ],
    ]
    for (const [layer, formula] of reference) {
      await expectClose(layer.forward(x), numbers(x).map(formula), {
        rtol: 1e-9,
        atol: 1e-12,
      })
    }
    await expectClose(ops.sum(new nn.Softmax(0).forward(x)), [1], { rtol: 1e-12, atol: 0 })
    const logs = numbers(new nn.Softmax(-1).forward(x)).map(Math.log)
    await expectClose(new nn.LogSoftmax(-1).forward(x), logs, { rtol: 1e-9, atol: 1e-12 })
  })
})
