import { describe, expect, it } from 'vitest'
import { ArgumentError, nn, ones, type Tensor, zeros } from '../../lib/index'

const { init } = nn
const numbers = (x: Tensor): number[] => Array.from(x.dataSync(), Number)
const std = (x: Tensor): number => {
  const values = numbers(x)
  const mean = values.reduce((a, b) => a + b, 0) / values.length
  return Math.sqrt(values.reduce((sum, v) => sum + (v - mean) ** 2, 0) / values.length)
}
const largest = (x: Tensor): number => Math.max(...numbers(x).map(Math.abs))

describe('nn.init', () => {
  it('has the bounds and deviations of the papers', () => {
    const weight = zeros([200, 300])
    expect(largest(init.xavierUniform_(weight, 2))).toBeCloseTo(2 * Math.sqrt(6 / 500), 2)
    expect(std(init.xavierNormal_(weight))).toBeCloseTo(Math.sqrt(2 / 500), 3)
    expect(std(init.kaimingUniform_(weight, { nonlinearity: 'relu' }))).toBeCloseTo(Math.sqrt(2 / 300), 3)
    expect(std(init.kaimingNormal_(weight, { mode: 'fanOut', nonlinearity: 'linear' }))).toBeCloseTo(
      Math.sqrt(1 / 200),
      3,
    )
    expect(std(init.normal_(weight, 1, 0.5))).toBeCloseTo(0.5, 2)
    expect(largest(init.uniform_(weight, -3, 2))).toBeCloseTo(3, 2)
    expect(numbers(init.constant_(zeros([2]), 7))).toEqual([7, 7])
    expect(numbers(init.ones_(zeros([2])))).toEqual([1, 1])
  })

  it('truncNormal_ stays inside its bounds and has the truncated deviation', () => {
    const weight = init.truncNormal_(zeros([300, 200]), { std: 1, a: -2, b: 2 })
    expect(largest(weight)).toBeLessThanOrEqual(2)
    expect(std(weight)).toBeCloseTo(0.8796, 2) // of N(0, 1) cut off at two deviations
    expect(() => init.truncNormal_(zeros([2]), { a: 1, b: 1 })).toThrow('nothing lies inside the bounds')
  })

  it('orthogonal_ gives orthonormal rows or columns', () => {
    for (const [n, m] of [
      [6, 9],
      [9, 6],
      [5, 5],
    ] as const) {
      const rows = init.orthogonal_(zeros([n, m], { dtype: 'float64' }), 2).arraySync() as number[][]
      const vectors = n <= m ? rows : rows[0]!.map((_, j) => rows.map((row) => row[j]!))
      for (let i = 0; i < vectors.length; i++) {
        for (let j = 0; j < vectors.length; j++) {
          const dot = vectors[i]!.reduce((sum, v, k) => sum + v * vectors[j]![k]!, 0)
          expect(dot).toBeCloseTo(i === j ? 4 : 0, 10)
        }
      }
    }
  })

  it('calculateGain knows its nonlinearities', () => {
    expect(init.calculateGain('tanh')).toBe(5 / 3)
    expect(init.calculateGain('leakyRelu', 1)).toBe(1)
    expect(() => init.calculateGain('gelu' as never)).toThrow(ArgumentError)
    expect(() => init.xavierUniform_(zeros([3]))).toThrow('xavierUniform_: a weight of fewer than two dims has no fan')
  })

  it('leaves parameters leaves', () => {
    const layer = new nn.Linear(3, 3)
    init.xavierUniform_(layer.weight)
    expect(layer.weight.isLeaf).toBe(true)
    expect(layer.weight.requiresGrad).toBe(true)
  })

  it('skipped constructs without drawing', () => {
    const layer = init.skipped(() => new nn.Linear(3, 3))
    expect(largest(layer.weight)).toBe(0)
    expect(largest(new nn.Linear(3, 3).weight)).toBeGreaterThan(0)
  })
})

class Tied extends nn.Module {
  embed = new nn.Embedding(40, 32, { paddingIdx: 2 })
  block = new nn.Sequential(new nn.Linear(32, 32), new nn.LayerNorm(32))
  head = new nn.Linear(32, 40, { bias: false })
  constructor() {
    super()
    this.head.weight = this.embed.weight
  }
}

describe('nn.init.transformer', () => {
  for (const [how, draw] of [
    ['called on the model', (model: nn.Module) => init.transformer(model, 0.05)],
    ['by apply', (model: nn.Module) => model.apply((module) => init.transformer(module, 0.05))],
  ] as const) {
    it(`draws weights, clears biases and the padding row, ${how}`, () => {
      const model = new Tied()
      init.constant_((model.block.at(1) as nn.LayerNorm).weight!, 9)
      draw(model)
      const linear = model.block.at(0) as nn.Linear
      expect(std(linear.weight)).toBeCloseTo(0.05, 2)
      expect(largest(linear.bias!)).toBe(0)
      expect(numbers((model.block.at(1) as nn.LayerNorm).weight!)).toEqual(numbers(ones([32])))
      expect(std(model.embed.weight)).toBeCloseTo(0.05, 2)
      // drawn again through the head, the padding row would not be zero
      expect(largest(model.embed.weight.select(0, 2))).toBe(0)
    })
  }

  it('takes apply without a function around it', () => {
    const model = new Tied()
    model.apply(init.transformer)
    expect(std(model.embed.weight)).toBeCloseTo(0.02, 2)
    expect(() => init.transformer({} as never)).toThrow('init.transformer: not a module')
  })
})
