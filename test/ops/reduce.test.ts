// Reductions, extrema, sorting and running sums: PyTorch's values and gradients, float64 sums, any dims and strides.
import { describe, expect, it } from 'vitest'
import {
  autograd,
  type DType,
  DTypeError,
  IndexError,
  ops,
  ShapeError,
  type Tensor,
  tensor,
  zeros,
} from '../../lib/index'
import { type GoldenOps, goldenCases, runGolden } from './golden'

const number = (value: number | string): number =>
  typeof value === 'string' ? Number(value.replace('inf', 'Infinity')) : value

const table: GoldenOps = {
  'x.sum()': ({ x }) => x!.sum(),
  'x.sum() (bool)': ({ x }) => x!.sum(),
  'x.mean()': ({ x }) => x!.mean(),
  'x.var()': ({ x }) => x!.var(),
  'x.std()': ({ x }) => x!.std(),
  'x.max()': ({ x }) => x!.max(),
  'x.min()': ({ x }) => x!.min(),
  'x.prod()': ({ x }) => x!.prod(),
  'x.norm()': ({ x }) => x!.norm(),
  'torch.argmax(x)': ({ x }) => x!.argmax(),
  'torch.argmax(x,dim)': ({ x }, { dim }) => x!.argmax(dim),
  'torch.sum(x,dim)': ({ x }, { dim }) => x!.sum(dim),
  'torch.amax(x,dim)': ({ x }, { dim }) => x!.amax(dim),
  'torch.logsumexp(x,dim)': ({ x }, { dim }) => x!.logsumexp(dim),
  'torch.sum(x,dim,keepdim)': ({ x }, { dim, keepdim }) => x!.sum(dim, { keepdim }),
  'torch.mean(x,dim,keepdim)': ({ x }, { dim, keepdim }) => x!.mean(dim, { keepdim }),
  'torch.logsumexp(x,dim,keepdim)': ({ x }, { dim, keepdim }) => x!.logsumexp(dim, { keepdim }),
  'torch.amax(x,dim,keepdim)': ({ x }, { dim, keepdim }) => x!.amax(dim, { keepdim }),
  'torch.var(x,dim,keepdim)': ({ x }, { dim, keepdim }) => x!.var(dim, { keepdim }),
  'torch.std(x,dim,keepdim)': ({ x }, { dim, keepdim }) => x!.std(dim, { keepdim }),
  'torch.var(x,dim,correction=0)': ({ x }, { dim, correction }) => x!.var(dim, { correction }),
  'torch.max(x,dim,keepdim)': ({ x }, { dim, keepdim }) => Object.values(x!.max(dim, { keepdim })),
  'torch.min(x,dim,keepdim)': ({ x }, { dim, keepdim }) => Object.values(x!.min(dim, { keepdim })),
  'torch.max(x,dim)': ({ x }, { dim }) => Object.values(x!.max(dim)),
  'torch.topk(x,k,dim)': ({ x }, { k, dim }) => Object.values(x!.topk(k, dim)),
  'torch.linalg.vector_norm(x,p,dim)': ({ x }, { p, dim }) => x!.norm(number(p), dim),
  'torch.linalg.vector_norm(x,2,dim)': ({ x }, { p, dim }) => x!.norm(number(p), dim),
  'torch.cumsum(x,dim)': ({ x }, { dim }) => x!.cumsum(dim),
}

describe('golden values', () => {
  for (const each of goldenCases(table)) it(each.name, () => runGolden(each, table))
})

const f64 = (...shape: number[]): Tensor => {
  const n = shape.reduce((a, b) => a * b, 1)
  const x = tensor(Float64Array.from({ length: n }, (_, i) => ((i * 0.737) % 2.3) - 1.1 + i * 1e-3)).view(shape)
  return x.clone().detach().requiresGrad_()
}

describe('gradients', () => {
  const functions: Record<string, (x: Tensor) => Tensor> = {
    sum: (x) => x.sum([0, 2]),
    mean: (x) => x.mean(1, { keepdim: true }),
    prod: (x) => x.prod(1),
    amax: (x) => x.amax([0, 1]),
    amin: (x) => x.amin(2),
    max: (x) => x.max(1).values,
    min: (x) => x.min(0, { keepdim: true }).values,
    var: (x) => x.var([0, 1]),
    std: (x) => x.std(2, { correction: 0, keepdim: true }),
    logsumexp: (x) => x.logsumexp([1, 2]),
    norm1: (x) => x.norm(1, 0),
    norm2: (x) => x.norm(2, [1, 2]),
    norm3: (x) => x.norm(3, 1),
    normInf: (x) => x.norm(Number.POSITIVE_INFINITY, 2),
    cumsum: (x) => x.cumsum(1),
    sort: (x) => x.sort(1).values,
    topk: (x) => x.topk(2, 0, { largest: false }).values,
  }
  for (const [name, fn] of Object.entries(functions)) {
    it(`${name} is the derivative`, () => {
      expect(autograd.gradcheck(fn, [f64(3, 4, 2)])).toBe(true)
      expect(autograd.gradcheck((x) => fn(x.permute(2, 0, 1)), [f64(4, 2, 3)])).toBe(true)
    })
  }
  it('of prod with zeros goes to what multiplies the others', () => {
    const x = tensor(
      [
        [2, 0, 3],
        [0, 0, 5],
        [1, 2, 3],
      ],
      { requiresGrad: true },
    )
    x.prod(1).sum().backward()
    expect(x.grad!.arraySync()).toEqual([
      [0, 6, 0],
      [0, 0, 0],
      [6, 3, 2],
    ])
  })
  it('are shared between ties of max(), but not of max(dim)', () => {
    const x = tensor(
      [
        [2, 2],
        [1, 2],
      ],
      { requiresGrad: true },
    )
    x.max().backward()
    expect(x.grad!.arraySync()).toEqual(
      [
        [1 / 3, 1 / 3],
        [0, 1 / 3],
      ].map((row) => row.map(Math.fround)),
    )
    x.grad = null
    x.max(1).values.sum().backward()
    expect(x.grad!.arraySync()).toEqual([
      [1, 0],
      [0, 1],
    ])
  })
  it('are 0 where a norm or a deviation is 0', () => {
    for (const fn of [(x: Tensor) => x.norm(), (x: Tensor) => x.std()]) {
      const x = zeros([4], { requiresGrad: true })
      fn(x).backward()
      expect(x.grad!.arraySync()).toEqual([0, 0, 0, 0])
    }
  })
})

/** Reduces nested values by index arithmetic in float64. */
function reference(
  values: ArrayLike<number>,
  shape: number[],
  dims: number[],
  fold: (part: number[]) => number,
): number[] {
  const groups = new Map<string, number[]>()
  for (let i = 0; i < values.length; i++) {
    let rest = i
    const place = new Array<number>(shape.length)
    for (let d = shape.length - 1; d >= 0; d--) {
      place[d] = rest % shape[d]!
      rest = Math.floor(rest / shape[d]!)
    }
    const key = place.map((p, d) => (dims.includes(d) ? 0 : p)).join()
    if (!groups.has(key)) groups.set(key, [])
    groups.get(key)!.push(values[i]!)
  }
  return [...groups.values()].map(fold)
}

const total = (part: number[]): number => part.reduce((a, b) => a + b, 0)

describe('any dims and strides', () => {
  const cases: [number[], number[]][] = [
    [[70000], [0]],
    [[3, 50001], [1]],
    [[5003, 37], [0]],
    [
      [600, 700],
      [0, 1],
    ],
    [[7, 65, 9], [1]],
    [
      [7, 65, 9],
      [0, 2],
    ],
    [
      [4, 3, 5, 6, 2],
      [1, 3],
    ],
    [[2, 2, 1, 3], [2]],
    [[300, 2, 300], [0]],
  ]
  for (const [shape, dims] of cases) {
    it(`[${shape}] over [${dims}] agrees with float64`, () => {
      const n = shape.reduce((a, b) => a * b, 1)
      const values = Float32Array.from({ length: n }, (_, i) => Math.sin(i * 12.9898) * 2 + 0.25)
      const x = tensor(values).view(shape)
      const reversed = shape.map((_, d) => shape.length - 1 - d)
      for (const each of [x, x.permute(reversed).contiguous().permute(reversed)]) {
        const check = (got: Tensor, fold: (part: number[]) => number): void => {
          const expected = reference(values, shape, dims, fold)
          const found = got.dataSync()
          expect(found.length).toBe(expected.length)
          expected.forEach((value, i) => {
            expect(Math.abs(Number(found[i]) - value)).toBeLessThanOrEqual(2e-6 + 2e-5 * Math.abs(value))
          })
        }
        check(each.sum(dims), total)
        check(each.amax(dims), (part) => part.reduce((a, b) => Math.max(a, b)))
        check(each.amin(dims), (part) => part.reduce((a, b) => Math.min(a, b)))
        check(each.var(dims, { correction: 0 }), (part) => {
          const mean = total(part) / part.length
          return total(part.map((v) => (v - mean) ** 2)) / part.length
        })
        check(each.logsumexp(dims), (part) => Math.log(total(part.map(Math.exp))))
        check(each.norm(2, dims), (part) => Math.sqrt(total(part.map((v) => v * v))))
        check(each.to('float64').sum(dims), total)
        if (dims.length === 1) {
          const dim = dims[0]!
          check(each.argmax(dim), (part) => part.indexOf(part.reduce((a, b) => Math.max(a, b))))
          check(each.min(dim).indices, (part) => part.indexOf(part.reduce((a, b) => Math.min(a, b))))
          const last = shape.map((_, d) => d).filter((d) => d !== dim)
          const sums = each
            .cumsum(dim)
            .permute([...last, dim])
            .contiguous()
            .view(-1, shape[dim]!)
          check(sums.select(1, shape[dim]! - 1), total)
          check(sums.select(1, 0), (part) => part[0]!)
          const sorted = each.sort(dim)
          const lines = sorted.values
            .permute([...last, dim])
            .contiguous()
            .view(-1, shape[dim]!)
          check(lines.select(1, 0), (part) => part.reduce((a, b) => Math.min(a, b)))
          expect(
            lines
              .slice(1, 1)
              .ge(lines.slice(1, 0, -1))
              .all()
              .itemSync(),
          ).toBe(1)
        }
      }
    })
  }
  it('give the same bits again', () => {
    const x = tensor(Float32Array.from({ length: 300_000 }, (_, i) => Math.sin(i))).view(300, 1000)
    const bits = (): Uint8Array => new Uint8Array(x.sum().dataSync().buffer)
    const first = bits()
    for (let i = 0; i < 5; i++) expect(bits()).toEqual(first)
  })
})

describe('dtypes', () => {
  it('sum integers and truth values as int64, and 16-bit floats in float32', () => {
    expect(tensor([true, true]).sum().dtype).toBe('int64')
    expect(tensor([200, 100], { dtype: 'uint8' }).sum().itemSync()).toBe(300)
    expect(
      tensor([2n ** 62n, 1n])
        .sum()
        .dataSync(),
    ).toEqual(BigInt64Array.of(2n ** 62n + 1n))
    const ones = ops.add(zeros([4097], { dtype: 'bfloat16' }), 1)
    expect(ones.sum().itemSync()).toBe(4096) // 256 is where adding one by one would stop
    expect(() => tensor([1, 2], { dtype: 'int64' }).mean()).toThrow(DTypeError)
  })
  it('any, all, amax and argmax of every dtype', () => {
    for (const dtype of ['float32', 'float64', 'float16', 'bfloat16', 'int64', 'int32', 'uint8'] as DType[]) {
      const x = tensor(
        [
          [0, 3, 1],
          [0, 0, 0],
        ],
        { dtype },
      )
      expect(x.any(1).arraySync()).toEqual([true, false])
      expect(x.all(0).arraySync()).toEqual([false, false, false])
      expect(x.amax(1).dtype).toBe(dtype)
      expect(x.amax(1).arraySync()).toEqual([3, 0])
      expect(x.argmax(1).arraySync()).toEqual([1, 0])
      expect(x.sort(1, { descending: true }).indices.arraySync()).toEqual([
        [1, 2, 0],
        [0, 1, 2],
      ])
      expect(x.topk(2, 1).values.arraySync()).toEqual([
        [3, 1],
        [0, 0],
      ])
      expect(x.cumsum(0).arraySync()).toEqual([
        [0, 3, 1],
        [0, 3, 1],
      ])
    }
    expect(tensor([0.5, Number.NaN]).any().itemSync()).toBe(1)
  })
})

describe('special values', () => {
  it('NaN wins in extrema and sorts last', () => {
    const x = tensor([1, Number.NaN, 3, Number.NaN, -1])
    expect(x.amax().itemSync()).toBeNaN()
    expect(x.amin().itemSync()).toBeNaN()
    expect(x.argmax().itemSync()).toBe(1)
    expect(x.max(0).indices.itemSync()).toBe(1)
    expect(x.sort().indices.arraySync()).toEqual([4, 0, 2, 1, 3])
    expect(x.sort(0, { descending: true }).indices.arraySync()).toEqual([1, 3, 2, 0, 4])
    expect(tensor([0, -0, 1]).sort(0, { descending: true }).indices.arraySync()).toEqual([2, 0, 1])
  })
  it('empty dims: sum 0, prod 1, mean NaN, no extreme', () => {
    const x = zeros([2, 0])
    expect(x.sum(1).arraySync()).toEqual([0, 0])
    expect(x.prod(1).arraySync()).toEqual([1, 1])
    expect(x.mean(1).arraySync()).toEqual([Number.NaN, Number.NaN])
    expect(x.sum(0).shape).toEqual([0])
    expect(x.amax(0).shape).toEqual([0])
    expect(() => x.amax(1)).toThrow('amax: there is no extreme of nothing: got [2, 0]')
    expect(() => x.argmax()).toThrow(ShapeError)
    expect(x.sort(1).values.shape).toEqual([2, 0])
    expect(x.cumsum(1).shape).toEqual([2, 0])
    expect(tensor([1]).var().itemSync()).toBeNaN()
  })
  it('rank 0 tensors are their own extreme', () => {
    const x = tensor(3, { requiresGrad: true })
    expect(x.max(0).indices.itemSync()).toBe(0)
    expect(x.sum().itemSync()).toBe(3)
    expect(x.sort().values.itemSync()).toBe(3)
    expect(x.topk(1).values.itemSync()).toBe(3)
    x.cumsum(0).backward()
    expect(x.grad!.itemSync()).toBe(1)
  })
})

describe('errors', () => {
  it('name the dim and the range', () => {
    const x = zeros([2, 3])
    expect(() => x.sum(2)).toThrow(IndexError)
    expect(() => x.sum([0, 0])).toThrow('sum: a dim is named twice')
    expect(() => x.max(-3)).toThrow('max: dim is out of range: got -3, expected -2 to 1')
    expect(() => x.topk(4)).toThrow('topk: k is out of range: got 4, expected a whole number from 0 to 3')
    expect(() => x.sort(0.5)).toThrow('sort: dim is not a whole number')
    expect(() => tensor([1], { dtype: 'int64' }).norm()).toThrow('norm: the operand has no fractions: got int64')
    expect(() => x.var(0, { correction: '1' as never })).toThrow('var: not correction')
  })
})
