// Softmax and its gradients on cuda against the cpu: rows in registers, longer rows, columns, and rows that packs of 128
// bits do not fit.
import { describe, it } from 'vitest'
import { type Tensor, tensor } from '../../lib/index'
import { expectSame, type Tolerance } from './alike'
import { code, computedUnit, floats, leastNormal, spread, sumUnits } from './support'

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

/** How far gradients may be off: by what the dtype rounds, and by what the sums of a line and exponentials are off. */
function ofGradient(op: string, g: Tensor, y: Tensor, dim: number): Tolerance {
  const { dtype, shape } = g
  const unit = computedUnit(dtype)
  const sum = (x: Tensor): Tensor => (shape.length === 0 ? x : x.sum(dim, { keepdim: true }).expand(shape))
  const [wide, result] = [g.to('float64'), y.to('float64')]
  const apart = sumUnits(shape[dim] ?? 1)
  const isHalf = dtype === 'float16' || dtype === 'bfloat16'
  const errors =
    op === 'softmax'
      ? // y (g - S) with S = sum(g y): y times what the two S are apart
        sum(wide.mul(result).abs()).mul(result).mul(apart)
      : // g - e^y S with S = sum(g): e^y times what they are apart; and 4 units of e^y, 1 on the cpu and 1 on cuda, whose
        // ex2 may be off by 2 more
        sum(wide.abs()).mul(apart).add(sum(wide).abs().mul(4)).mul(result.exp())
  // of the result itself: one rounding each; in softmax's float32 and float64 one of the difference, and one of the product
  const ulps = op === 'softmax' && !isHalf ? 2 : 1
  // sums of a line are never seen to be off by more, however much a worst case would allow
  const most = op === 'softmax' ? 6 : 1008
  const numbers = errors.contiguous().dataSync() as Float64Array
  const beside = numbers.map((units) => unit * Math.min(units, most))
  return { ulps, scale: leastNormal(dtype), beside }
}

describe('softmax', () => {
  for (const op of ['softmax', 'logSoftmax']) {
    it.each(floats)(`${op} and its gradient in %s`, (dtype) => {
      for (const { shape, dim, take = (x: Tensor) => x } of layouts) {
        const x = spread(shape, dtype).mul(2)
        const out = [take(x).shape, code(dtype)] as const
        const call = { attributes: 'dim', attrs: [dim], outputs: [out] }
        const [y] = expectSame({ ...call, op, inputs: [x], take }, { ulps: 32, scale: op === 'softmax' ? 2 ** -10 : 1 })
        const g = spread(y!.shape, dtype, 2)
        expectSame({ ...call, op: `${op}Backward`, inputs: [g, y!] }, ofGradient(op, g, y!, dim))
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
