import { describe, expect, test } from 'vitest'
import { autograd, DTypeError, ones, ops, randn, random, ShapeError, type Tensor, tensor, zeros } from '../../lib/index'
import type { ConvolutionOptions } from '../../lib/ops/contraction'

const double = (...shape: number[]): Tensor => randn(shape, { dtype: 'float64' }).requiresGrad_()
const values = (x: Tensor): number[] => Array.from(x.dataSync() as Float64Array)

function expectClose(got: Tensor, expected: readonly number[], digits = 10): void {
  const list = values(got)
  expect(list.length).toBe(expected.length)
  list.forEach((value, i) => {
    expect(value).toBeCloseTo(expected[i]!, digits)
  })
}

describe('tensordot', () => {
  test('sums over pairs of dims', () => {
    random.seed(1)
    const [a, b] = [double(2, 3, 4), double(4, 3, 5)]
    const out = ops.tensordot(a, b, [
      [1, 2],
      [1, 0],
    ])
    expect(out.shape).toEqual([2, 5])
    expectClose(out, values(ops.einsum('ijk,kjl->il', a, b)))
    expect(ops.tensordot(a, double(3, 4)).shape).toEqual([2])
    expect(ops.tensordot(a, b, 0).shape).toEqual([2, 3, 4, 4, 3, 5])
    autograd.gradcheck((x, y) => ops.tensordot(x!, y!, [[1], [1]]), [a, b])
  })

  test('refuses what does not fit', () => {
    const x = ones([2, 3])
    expect(() => ops.tensordot(x, x, 1)).toThrow('the sizes of a pair of dims differ: got dim 1 of a [2, 3] and dim 0')
    expect(() => ops.tensordot(x, x, 3)).toThrow('not a number of dims: got 3, expected 0 to 2')
    expect(() => ops.tensordot(x, x, [[0], []])).toThrow('the dims do not pair up')
    expect(() => ops.tensordot(x, x.to('float64'), 1)).toThrow(DTypeError)
  })
})

describe('bilinear', () => {
  test('is a form in both inputs', () => {
    random.seed(2)
    const [a, b, w, bias] = [double(2, 3, 4), double(2, 3, 5), double(6, 4, 5), double(6)]
    const out = ops.bilinear(a, b, w, bias)
    expectClose(out, values(ops.einsum('nti,oij,ntj->nto', a, w, b).add(bias)))
    autograd.gradcheck((x, y, z, o) => ops.bilinear(x!, y!, z!, o!), [a, b, w, bias])
  })

  test('refuses what does not fit', () => {
    expect(() => ops.bilinear(ones([2, 3]), ones([2, 4]), ones([5, 4, 3]))).toThrow(ShapeError)
    expect(() => ops.bilinear(ones([2, 3]), ones([1, 4]), ones([5, 3, 4]))).toThrow('the operands do not fit together')
    expect(() => ops.bilinear(ones([2, 3]), ones([2, 4]), ones([5, 3, 4]), ones([4]))).toThrow('bias does not fit')
  })
})

describe('cdist', () => {
  test.each([1, 2, 3, Number.POSITIVE_INFINITY])('p = %d', (p) => {
    random.seed(3)
    const [a, b] = [double(2, 3, 4), double(5, 4)]
    const [x, y] = [values(a), values(b)]
    const expected = Array.from({ length: 30 }, (_, at) => {
      const [row, column] = [Math.floor(at / 5), at % 5]
      const gaps = Array.from({ length: 4 }, (_, i) => Math.abs(x[row * 4 + i]! - y[column * 4 + i]!))
      return Number.isFinite(p) ? gaps.reduce((sum, gap) => sum + gap ** p, 0) ** (1 / p) : Math.max(...gaps)
    })
    const out = ops.cdist(a, b, p)
    expect(out.shape).toEqual([2, 3, 5])
    expectClose(out, expected)
    autograd.gradcheck((s, t) => ops.cdist(s!, t!, p), [a, b])
  })

  test('a distance of 0 has gradient 0', () => {
    const x = ones([2, 3]).requiresGrad_()
    ops.cdist(x, x).sum().backward()
    expect(x.grad!.arraySync()).toEqual([
      [0, 0, 0],
      [0, 0, 0],
    ])
  })

  test('refuses what does not fit', () => {
    expect(() => ops.cdist(ones([2, 3]), ones([2, 4]))).toThrow('the rows have different sizes')
    expect(() => ops.cdist(ones([3]), ones([2, 3]))).toThrow('a has no rows')
  })
})

describe('conv1d', () => {
  const reference = (
    x: Tensor,
    w: Tensor,
    { stride = 1, padding = 0, dilation = 1, groups = 1 }: ConvolutionOptions,
  ): number[] => {
    const [N, Cin, L] = x.shape as [number, number, number]
    const [Cout, perGroup, K] = w.shape as [number, number, number]
    const [from, filter] = [values(x), values(w)]
    const length = Math.floor((L + 2 * padding - dilation * (K - 1) - 1) / stride) + 1
    const out: number[] = []
    for (let n = 0; n < N; n++) {
      for (let o = 0; o < Cout; o++) {
        const first = Math.floor(o / (Cout / groups)) * perGroup
        for (let i = 0; i < length; i++) {
          let sum = 0
          for (let c = 0; c < perGroup; c++) {
            for (let k = 0; k < K; k++) {
              const at = i * stride + k * dilation - padding
              if (at >= 0 && at < L) sum += filter[(o * perGroup + c) * K + k]! * from[(n * Cin + first + c) * L + at]!
            }
          }
          out.push(sum)
        }
      }
    }
    return out
  }

  test.each([
    {},
    { stride: 2 },
    { padding: 2 },
    { dilation: 2, padding: 1 },
    { groups: 2 },
    { groups: 4, stride: 3, padding: 3, dilation: 2 },
  ])('%j', (options) => {
    random.seed(4)
    const [x, w] = [double(2, 4, 9), double(8, 4 / (options.groups ?? 1), 3)]
    expectClose(ops.conv1d(x, w, options), reference(x, w, options))
    autograd.gradcheck((a, b) => ops.conv1d(a!, b!, options), [x, w])
  })

  test('takes a bias, and x without a batch', () => {
    const [x, w] = [double(3, 7), double(2, 3, 2)]
    const bias = tensor([5, -5], { dtype: 'float64' })
    const out = ops.conv1d(x, w, { bias })
    expect(out.shape).toEqual([2, 6])
    expectClose(out.sub(ops.conv1d(x.unsqueeze(0), w).squeeze(0)), [...Array(6).fill(5), ...Array(6).fill(-5)])
  })

  test('refuses what does not fit', () => {
    expect(() => ops.conv1d(ones([1, 3, 5]), ones([2, 2, 3]))).toThrow('x and weight do not fit')
    expect(() => ops.conv1d(ones([1, 3, 2]), ones([2, 3, 3]))).toThrow('not shorter than a window')
    expect(() => ops.conv1d(ones([1, 3, 5]), ones([2, 3, 3]), { stride: 0 })).toThrow('stride does not fit: got 0')
    expect(() => ops.conv1d(ones([1, 3, 5]), ones([2, 3, 3]), { bias: ones([3]) })).toThrow('bias does not fit')
  })
})

test('cumprod multiplies along a dim, also past zeros', () => {
  const x = tensor(
    [
      [2, 0, 3, 4, 0],
      [1, -2, 0.5, 3, 1],
    ],
    { dtype: 'float64' },
  ).requiresGrad_()
  expectClose(ops.cumprod(x, 1), [2, 0, 0, 0, 0, 1, -2, -1, -3, -3])
  expectClose(x.cumprod(0), [2, 0, 3, 4, 0, 2, -0, 1.5, 12, 0])
  expect(ops.cumprod(tensor([2, 3, 4], { dtype: 'int32' }), 0).dtype).toBe('int64')
  expect(ops.cumprod(ones([1]), 0).arraySync()).toEqual([1])
  autograd.gradcheck((a) => ops.cumprod(a!, 1), [x])
})

test('addcdiv adds a quotient', () => {
  random.seed(5)
  const [x, a, b] = [double(2, 3), double(3), ones([2, 1], { dtype: 'float64' }).mul(4).detach().requiresGrad_()]
  expectClose(ops.addcdiv(x, a, b, { value: 2 }), values(x.add(a.div(b).mul(2))))
  autograd.gradcheck((p, q, r) => ops.addcdiv(p!, q!, r!, { value: 0.5 }), [x, a, b])
  const whole = tensor([1], { dtype: 'int64' })
  expect(() => ops.addcdiv(x, whole, whole)).toThrow(DTypeError)
})

describe('indexPut', () => {
  const places = (...at: number[]): Tensor => tensor(at, { dtype: 'int64' })

  test('writes or adds at positions of the first dims', () => {
    const x = zeros([2, 3])
    expect(ops.indexPut(x, [places(0, -1), places(2, 0)], tensor([5, 6])).arraySync()).toEqual([
      [0, 0, 5],
      [6, 0, 0],
    ])
    expect(ops.indexPut(x, [places(1)], tensor([[1, 2, 3]])).arraySync()).toEqual([
      [0, 0, 0],
      [1, 2, 3],
    ])
    expect(ops.indexPut(x, [places(1, 1), places(0)], tensor([2, 3]), { accumulate: true }).arraySync()).toEqual([
      [0, 0, 0],
      [5, 0, 0],
    ])
    expect(x.arraySync()).toEqual([
      [0, 0, 0],
      [0, 0, 0],
    ])
  })

  test('has gradients', () => {
    const [x, v] = [double(3, 4), double(2, 4)]
    for (const accumulate of [false, true]) {
      autograd.gradcheck((a, b) => ops.indexPut(a!, [places(2, 0)], b!, { accumulate }), [x, v])
    }
  })

  test('refuses what does not fit', async () => {
    const x = zeros([2, 3])
    expect(() => ops.indexPut(x, [], ones([1]))).toThrow('expected an array of 1 to 2 tensors')
    expect(() => ops.indexPut(x, [places(0, 1)], ones([3, 3]))).toThrow(ShapeError)
    expect(() => ops.indexPut(x, [places(0)], ones([3], { dtype: 'float64' }))).toThrow(DTypeError)
    for (const index of [
      [places(2), places(0)],
      [places(0), places(3)],
      [places(0), places(-4)],
    ]) {
      await expect(ops.indexPut(x, index, ones([1])).array()).rejects.toThrow('out of range')
    }
  })
})

describe('groupNorm', () => {
  test('normalizes groups of channels', () => {
    random.seed(6)
    const x = double(2, 6, 5)
    const [weight, bias] = [double(6), double(6)]
    const out = ops.groupNorm(x, 3, weight, bias)
    const [from, w, b] = [x, weight, bias].map(values) as [number[], number[], number[]]
    const expected = from.map((value, at) => {
      const group = Math.floor(at / 10)
      const part = from.slice(group * 10, group * 10 + 10)
      const mean = part.reduce((sum, each) => sum + each) / 10
      const variance = part.reduce((sum, each) => sum + (each - mean) ** 2, 0) / 10
      const channel = Math.floor(at / 5) % 6
      return ((value - mean) / Math.sqrt(variance + 1e-5)) * w[channel]! + b[channel]!
    })
    expectClose(out, expected, 8)
    autograd.gradcheck((a, p, q) => ops.groupNorm(a!, 2, p!, q!), [x, weight, bias])
  })

  test('refuses what does not fit', () => {
    expect(() => ops.groupNorm(ones([2, 6]), 4)).toThrow('the groups do not divide the channels: got 4 groups')
    expect(() => ops.groupNorm(ones([2, 6]), 3, ones([5]))).toThrow('weight does not fit')
  })
})
