// Softmax and its gradients on cuda against the cpu: rows in registers, longer rows, columns, and rows that packs of 128
// bits do not fit.
import { describe, it } from 'vitest'
import { type Tensor, tensor } from '../../lib/index'
import { expectSame } from './alike'
import { code, floats, spread } from './support'

interface Layout {
  shape: number[]
  dim: number
  take?: (x: Tensor) => Tensor
}

const layouts: Layout[] = [
  { shape: [5, 64], dim: 1 },
  { shape: [3, 7], dim: 1 },
  { shape: [70, 1], dim: 1 },
  { shape: [9, 1001], dim: 1 },
  { shape: [2, 4096], dim: 1 },
  { shape: [2, 9000], dim: 1 },
  { shape: [1, 20_001], dim: 1 },
  { shape: [4, 10, 24], dim: 1 },
  { shape: [40, 3], dim: 0 },
  { shape: [6, 16], dim: 1, take: (x) => x.transpose(0, 1).transpose(0, 1).slice(1, 4, 12) },
  { shape: [8, 6], dim: 1, take: (x) => x.transpose(0, 1) },
  { shape: [], dim: 0 },
  { shape: [0, 4], dim: 1 },
  { shape: [4, 0], dim: 1 },
]

describe('softmax', () => {
  for (const op of ['softmax', 'logSoftmax']) {
    it.each(floats)(`${op} and its gradient in %s`, (dtype) => {
      for (const { shape, dim, take = (x: Tensor) => x } of layouts) {
        const x = spread(shape, dtype).mul(2)
        const out = [take(x).shape, code(dtype)] as const
        const call = { attributes: 'dim', attrs: [dim], outputs: [out] }
        const [y] = expectSame({ ...call, op, inputs: [x], take }, { ulps: 32, scale: op === 'softmax' ? 2 ** -10 : 1 })
        expectSame(
          { ...call, op: `${op}Backward`, inputs: [spread(y!.shape, dtype, 2), y!] },
          // y (g - sum) and g - e^y sum: what rounds is g and the sum, however small the difference
          op === 'softmax' ? { ulps: 8, scale: 1 } : { ulps: 64, scale: 16 },
        )
      }
    })

    it(`${op} of infinities and NaN`, () => {
      const rows = [
        [1, -Infinity, 3, 2],
        [-Infinity, -Infinity, -Infinity, -Infinity],
        [Infinity, 0, 1, 2],
        [Number.NaN, 0, 1, 2],
        [1e30, -1e30, 0, 1e30],
      ]
      for (const dim of [0, 1]) {
        expectSame({
          op,
          attributes: 'dim',
          attrs: [dim],
          inputs: [tensor(rows)],
          outputs: [[[5, 4], code('float32')]],
        })
      }
    })
  }
})
