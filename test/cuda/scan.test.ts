// Extrema with their places, and running sums, on cuda against the cpu.
import { describe, it } from 'vitest'
import { type Tensor, tensor } from '../../lib/index'
import { expectSame } from './alike'
import { code, floats, spread, whole } from './support'

interface Layout {
  shape: number[]
  dim: number
  take?: (x: Tensor) => Tensor
}

const layouts: Layout[] = [
  { shape: [5, 70], dim: 1 },
  { shape: [300, 3], dim: 1 },
  { shape: [7, 20], dim: 0 },
  { shape: [5, 1100], dim: 0 },
  { shape: [3, 4, 400], dim: 1 },
  { shape: [2, 40_001], dim: 1 },
  { shape: [9, 10], dim: 1, take: (x) => x.transpose(0, 1) },
  { shape: [1, 6], dim: 0, take: (x) => x.expand(4, 6) },
  { shape: [], dim: 0 },
]

const without = (shape: readonly number[], dim: number): number[] => shape.filter((_, d) => d !== dim)

describe('extrema', () => {
  for (const op of ['maxDim', 'minDim', 'argmax', 'argmin']) {
    it.each([...floats, ...whole])(`${op} of %s`, (dtype) => {
      for (const { shape, dim, take = (x: Tensor) => x } of layouts) {
        const x = spread(shape, dtype)
        const sizes = without(take(x).shape, dim)
        const index = [sizes, code('int64')] as const
        const outputs = op.endsWith('Dim') ? [[sizes, code(dtype)] as const, index] : [index]
        expectSame({ op, attributes: 'dim', attrs: [dim], inputs: [x], outputs, take })
        if (outputs.length === 1) {
          expectSame({ op, attributes: 'dim', attrs: [-1], inputs: [x], outputs: [[[], code('int64')]], take })
        }
      }
    })

    it(`${op}: NaN wins, and the first among equals`, () => {
      const x = tensor([
        [1, Number.NaN, 3, Number.NaN],
        [2, 5, 5, 2],
        [-Infinity, -Infinity, Infinity, Infinity],
        [0, -0, 0, -0],
      ])
      const outputs = op.endsWith('Dim')
        ? [[[4], code('float32')] as const, [[4], code('int64')] as const]
        : [[[4], code('int64')] as const]
      for (const dim of [0, 1]) expectSame({ op, attributes: 'dim', attrs: [dim], inputs: [x], outputs })
    })
  }
})

describe('cumsum', () => {
  it.each([...floats, ...whole, 'bool' as const])('of %s', (dtype) => {
    for (const { shape, dim, take = (x: Tensor) => x } of [
      ...layouts,
      { shape: [600, 300], dim: 1 },
      { shape: [0, 3], dim: 1 },
    ]) {
      const x = spread(shape, dtype)
      const out = [take(x).shape, code(floats.includes(dtype) ? dtype : 'int64')] as const
      for (const reverse of [0, 1]) {
        const call = {
          op: 'cumsum',
          attributes: 'dim,reverse',
          attrs: [dim, reverse],
          inputs: [x],
          outputs: [out],
          take,
        }
        expectSame(call, { ulps: 2, scale: 1 })
      }
    }
  })
})
