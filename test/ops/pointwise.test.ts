// Elementwise operators: PyTorch's values and gradients, numerical derivatives, dtypes, strides and errors.
import { describe, expect, it } from 'vitest'
import {
  ArgumentError,
  autograd,
  type DType,
  DTypeError,
  noGrad,
  ops,
  StateError,
  Tensor,
  tensor,
} from '../../lib/index'
import { type GoldenOps, goldenCases, runGolden } from './golden'

const number = (value: unknown): number =>
  typeof value === 'string' ? Number(value.replace('inf', 'Infinity')) : (value as number)

const table: GoldenOps = {
  'a + b': ({ a, b }) => a!.add(b!),
  'torch.add(a,b,alpha)': ({ a, b }, { alpha }) => a!.add(b!, { alpha }),
  'a - b': ({ a, b }) => a!.sub(b!),
  'a * b': ({ a, b }) => a!.mul(b!),
  'a / b': ({ a, b }) => a!.div(b!),
  'a / b (int64)': ({ a, b }) => a!.div(b!),
  'a + s': ({ a }, { s }) => a!.add(s),
  's - a': ({ a }, { s }) => ops.sub(s, a!),
  's / a': ({ a }, { s }) => ops.div(s, a!),
  'torch.pow(a,b)': ({ a, b }) => a!.pow(b!),
  'torch.pow(a,s)': ({ a }, { s }) => a!.pow(s),
  'torch.maximum(a,b)': ({ a, b }) => ops.maximum(a!, b!),
  'torch.minimum(a,b)': ({ a, b }) => ops.minimum(a!, b!),
  'torch.clamp(a,min,max)': ({ a }, { min, max }) => a!.clamp(min, max),
  "torch.div(a,b,rounding_mode='floor')": ({ a, b }) => a!.div(b!, { roundingMode: 'floor' }),
  'torch.remainder(a,b)': ({ a, b }) => a!.remainder(b!),
  'torch.round(x)': ({ x }) => x!.round(),
  'torch.where(cond,a,b)': ({ cond, a, b }) => ops.where(cond!, a!, b!),
  'x.masked_fill(mask,value)': ({ x, mask }, { value }) => x!.maskedFill(mask!, number(value)),
  'F.gelu(x,approximate)': ({ x }, { approximate }) => ops.gelu(x!, { approximate }),
}
const functions = {
  exp: ops.exp,
  expm1: ops.expm1,
  log: ops.log,
  log1p: ops.log1p,
  log2: ops.log2,
  sqrt: ops.sqrt,
  rsqrt: ops.rsqrt,
  tanh: ops.tanh,
  sigmoid: ops.sigmoid,
  relu: ops.relu,
  silu: ops.silu,
  neg: ops.neg,
  abs: ops.abs,
  erf: ops.erf,
  sin: ops.sin,
  cos: ops.cos,
  square: ops.square,
  reciprocal: ops.reciprocal,
  softplus: ops.softplus,
}
for (const [name, fn] of Object.entries(functions)) table[`${name}(x)`] = ({ x }) => fn(x!)

describe('golden values', () => {
  for (const each of goldenCases(table)) it(each.name, () => runGolden(each, table))
})

// Values away from kinks, of which no two are equal.
const f64 = (shape: number[], start = 0.3, requiresGrad = true): Tensor => {
  const n = shape.reduce((a, b) => a * b, 1)
  const x = tensor(Float64Array.from({ length: n }, (_, i) => start + ((i * 0.37) % 1.9) + i * 1e-3)).view(shape)
  return x.clone().detach().requiresGrad_(requiresGrad)
}

describe('gradients', () => {
  const unary: Record<string, (x: Tensor) => Tensor> = {
    ...functions,
    geluTanh: (x) => ops.gelu(x, { approximate: 'tanh' }),
    geluErf: (x) => ops.gelu(x),
    softplusBeta: (x) => ops.softplus(x, { beta: 2, threshold: 3 }),
    clamp: (x) => x.clamp(0.5, 1.5),
    pow: (x) => x.pow(2.5),
    cube: (x) => x.pow(3),
    powOf: (x) => ops.pow(2, x),
    rsub: (x) => ops.sub(3, x),
    rdiv: (x) => ops.div(3, x),
    scaled: (x) => x.add(2, { alpha: 3 }),
  }
  for (const [name, fn] of Object.entries(unary)) {
    it(`${name} is the derivative`, () => {
      expect(autograd.gradcheck(fn, [f64([2, 5])])).toBe(true)
      expect(autograd.gradcheck((x) => fn(x.t()), [f64([3, 4])])).toBe(true)
    })
  }
  const binary: Record<string, (a: Tensor, b: Tensor) => Tensor> = {
    add: (a, b) => a.add(b, { alpha: -2 }),
    sub: (a, b) => a.sub(b),
    mul: (a, b) => a.mul(b),
    div: (a, b) => a.div(b),
    pow: (a, b) => a.pow(b),
    maximum: (a, b) => a.maximum(b),
    minimum: (a, b) => a.minimum(b),
    remainder: (a, b) => a.remainder(b),
    where: (a, b) => ops.where(tensor([true, false, true, true]), a, b),
    addcmul: (a, b) => ops.addcmul(a, b, a, { value: 0.5 }),
  }
  for (const [name, fn] of Object.entries(binary)) {
    it(`${name} is the derivative, broadcast too`, () => {
      expect(autograd.gradcheck(fn, [f64([3, 4]), f64([3, 4], 0.85)])).toBe(true)
      expect(autograd.gradcheck(fn, [f64([3, 1]), f64([2, 1, 4], 0.85)])).toBe(true)
      expect(autograd.gradcheck(fn, [f64([]), f64([3, 4], 0.85)])).toBe(true)
    })
  }
  it('of in-place forms are those of what they compute', () => {
    const inPlace: ((a: Tensor, b: Tensor) => Tensor)[] = [
      (a, b) => a.clone().add_(b, { alpha: 2 }),
      (a, b) => a.clone().sub_(b),
      (a, b) => a.clone().mul_(b),
      (a, b) => a.clone().div_(b),
      (a) => a.clone().mul_(3).div_(2).add_(1),
      (a, b) => a.clone().addcmul_(a, b, { value: 2 }),
      (a) => a.clone().clamp_(0.5, 1.5),
      (a) => a.clone().neg_().exp_(),
      (a) => a.clone().sqrt_(),
      (a) => a.clone().neg_().tanh_(),
      (a) => a.clone().sigmoid_(),
      (a) => a.clone().sub_(1).relu_(),
      (a) => a.clone().maskedFill_(tensor([true, false, true, true]), 7),
    ]
    for (const fn of inPlace) expect(autograd.gradcheck(fn, [f64([3, 4]), f64([4], 0.85)])).toBe(true)
  })
  it('are halved between equal operands of maximum, and 1 at the bounds of clamp', () => {
    const a = tensor([1, 2], { requiresGrad: true })
    a.maximum(tensor([1, 5]))
      .sum()
      .backward()
    expect(a.grad!.arraySync()).toEqual([0.5, 0])
    const c = tensor([-1, 0, 1, 2], { requiresGrad: true })
    c.clamp(-1, 1).sum().backward()
    expect(c.grad!.arraySync()).toEqual([1, 1, 1, 0])
  })
  it('go through a NaN slope of what where did not choose, as in PyTorch', () => {
    const x = tensor([0, 4], { requiresGrad: true })
    ops.where(x.gt(0), x.sqrt(), 0).sum().backward()
    expect(x.grad!.arraySync()).toEqual([Number.NaN, 0.25])
  })
})

describe('dtypes', () => {
  const result = (a: DType, b: DType): string => tensor([1], { dtype: a }).add(tensor([1], { dtype: b })).dtype
  it('promote as in PyTorch', () => {
    expect(result('bfloat16', 'float16')).toBe('float32')
    expect(result('float16', 'float32')).toBe('float32')
    expect(result('int64', 'float16')).toBe('float16')
    expect(result('uint8', 'int32')).toBe('int32')
    expect(tensor([1], { dtype: 'float16' }).mul(tensor(2)).dtype).toBe('float16')
    expect(tensor([1], { dtype: 'int32' }).add(1).dtype).toBe('int32')
    expect(tensor([1], { dtype: 'int32' }).add(0.5).dtype).toBe('float32')
    expect(tensor([1], { dtype: 'int32' }).div(2).arraySync()).toEqual([0.5])
    expect(tensor([true]).add(1).dtype).toBe('int64')
    expect(tensor([1, 2], { dtype: 'int64' }).sqrt().dtype).toBe('float32')
  })
  it('compute 16-bit floats in float32 and round once, half to even', () => {
    const x = tensor([1, 1], { dtype: 'bfloat16' }).add(tensor([2 ** -8, 3 * 2 ** -8], { dtype: 'bfloat16' }))
    expect(x.arraySync()).toEqual([1, 1 + 2 ** -6])
    expect(tensor([1, 1], { dtype: 'float16' }).add(tensor([2 ** -11, 3 * 2 ** -11])).dtype).toBe('float32')
    expect(tensor([60000], { dtype: 'float16' }).mul(2).arraySync()).toEqual([Number.POSITIVE_INFINITY])
  })
  it('wrap integers, and keep int64 exact', () => {
    expect(tensor([255], { dtype: 'uint8' }).add(3).arraySync()).toEqual([2])
    expect(
      tensor([2 ** 31 - 1], { dtype: 'int32' })
        .add(1)
        .arraySync(),
    ).toEqual([-(2 ** 31)])
    expect(
      tensor([2n ** 62n])
        .add(1)
        .dataSync(),
    ).toEqual(BigInt64Array.of(2n ** 62n + 1n))
    expect(tensor([-7, 7], { dtype: 'int64' }).floorDivide(2).arraySync()).toEqual([-4, 3])
    expect(tensor([-7, 7], { dtype: 'int32' }).remainder(-2).arraySync()).toEqual([-1, -1])
    expect(tensor([3], { dtype: 'int64' }).pow(5).arraySync()).toEqual([243])
  })
  it('convert with saturation where a value does not fit', () => {
    const x = tensor([1.9, -1.9, Number.NaN, 300])
    expect(x.to('int64').arraySync()).toEqual([1, -1, 0, 300])
    expect(x.to('bool').arraySync()).toEqual([true, true, true, true])
    expect(tensor([0, 0.5]).to('bool').arraySync()).toEqual([false, true])
    expect(tensor([1e300], { dtype: 'float64' }).to('float32').arraySync()).toEqual([Number.POSITIVE_INFINITY])
  })
  it('compare with NaN, numbers with fractions, and 16-bit floats', () => {
    const x = tensor([1, Number.NaN])
    expect(x.ne(x).arraySync()).toEqual([false, true])
    expect(x.eq(x).arraySync()).toEqual([true, false])
    expect(tensor([3, 4], { dtype: 'int64' }).gt(3.5).arraySync()).toEqual([false, true])
    expect(tensor([0.1], { dtype: 'bfloat16' }).eq(0.1).arraySync()).toEqual([true])
    expect(ops.maximum(x, tensor([Number.NaN, 0])).arraySync()).toEqual([Number.NaN, Number.NaN])
    expect(ops.logicalXor(x, 0).arraySync()).toEqual([true, true])
    expect(ops.isfinite(tensor([1, 1 / 0, Number.NaN])).arraySync()).toEqual([true, false, false])
  })
})

describe('strides', () => {
  const shapes: number[][] = [[0], [], [1], [3], [7, 1], [65], [33, 70], [3, 1, 17, 5], [2, 3, 4, 5, 2, 3], [1000, 3]]
  for (const dtype of ['float32', 'float64', 'bfloat16', 'int64', 'uint8'] as const) {
    it(`of any kind give the same elements, ${dtype}`, () => {
      for (const shape of shapes) {
        const n = shape.reduce((a, b) => a * b, 1)
        const values = Array.from({ length: n }, (_, i) => (i * 7) % 23)
        const x = tensor(values, { dtype }).view(shape)
        const reversed = shape.map((_, d) => shape.length - 1 - d)
        const transposed = x.permute(reversed).contiguous().permute(reversed)
        const row = tensor(
          Array.from({ length: shape.at(-1) ?? 1 }, (_, i) => i % 5),
          { dtype },
        )
        const sum = shape.length > 0 ? x.add(row) : x.add(row.view([]))
        const expected = values.map((v, i) => v + ((i % (shape.at(-1) ?? 1)) % 5))
        expect(Array.from(sum.dataSync(), Number)).toEqual(expected)
        expect(Array.from(transposed.add(shape.length > 0 ? row : row.view([])).dataSync(), Number)).toEqual(expected)
        expect(Array.from(transposed.add(x).dataSync(), Number)).toEqual(values.map((v) => 2 * v))
        expect(Array.from(transposed.add(1).dataSync(), Number)).toEqual(values.map((v) => v + 1))
        const target = x.permute(reversed).contiguous().permute(reversed)
        target.add_(x)
        expect(Array.from(target.dataSync(), Number)).toEqual(values.map((v) => 2 * v))
      }
    })
  }
  it('of slices with steps, and of expanded operands', () => {
    const x = ops.reshape(tensor(Array.from({ length: 60 }, (_, i) => i)), 6, 10)
    const part = x.slice(0, 1, 6, 2).slice(1, 0, 10, 3)
    expect(part.mul(2).arraySync()).toEqual([1, 3, 5].map((i) => [0, 3, 6, 9].map((j) => 2 * (10 * i + j))))
    part.add_(100)
    expect(x.index(3, 6).itemSync()).toBe(136)
    expect(x.index(2, 6).itemSync()).toBe(26)
    expect(
      tensor([[1], [2]])
        .expand(2, 200)
        .add(tensor([1]).expand(2, 200))
        .sum()
        .itemSync(),
    ).toBe(1000)
  })
  it('of large transposes, blocked for the caches', () => {
    for (const [rows, columns] of [
      [513, 300],
      [64, 2048],
      [1, 70000],
    ] as const) {
      const x = tensor(Float32Array.from({ length: rows * columns }, (_, i) => i)).view(rows, columns)
      const copy = x.t().contiguous().dataSync()
      const sum = x.t().add(x.t().contiguous()).dataSync()
      for (let i = 0; i < rows * columns; i += 37) {
        const [c, r] = [Math.floor(i / rows), i % rows]
        expect(copy[i]).toBe(r * columns + c)
        expect(sum[i]).toBe(2 * (r * columns + c))
      }
    }
  })
  it('of outputs that bypass the caches', () => {
    const n = (16 << 20) / 4 + 7
    const x = ops.add(tensor([1]).expand(n), 1)
    expect(x.add(x).sum().itemSync()).toBe(4 * n)
  })
})

describe('errors', () => {
  it('name what was wrong', () => {
    const x = tensor([[1, 2, 3]])
    expect(() => x.add(tensor([1, 2]))).toThrow('add: shapes do not broadcast at dim -1: got [1, 3] and [2]')
    expect(() => ops.add('1' as never, x)).toThrow(ArgumentError)
    expect(() => ops.where(x, x, x)).toThrow('where: the condition is not a truth value: got float32, expected bool')
    expect(() => ops.neg(tensor([true]))).toThrow(DTypeError)
    expect(() => tensor([true]).sub(tensor([true]))).toThrow('use logicalXor')
    expect(() => x.clamp()).toThrow('clamp: there is no bound')
    expect(() => ops.gelu(x, { approximate: 'fast' as never })).toThrow("got \"fast\", expected 'none' or 'tanh'")
    expect(() => tensor([2], { dtype: 'int64' }).pow(-1)).toThrow('pow: an integer to a negative power is a fraction')
    expect(() => x.div(x, { roundingMode: 'up' as never })).toThrow('div: no such roundingMode')
  })
  it('of in-place forms leave the tensor as it was', () => {
    const x = tensor([1, 2], { dtype: 'int64' })
    expect(() => x.add_(0.5)).toThrow('add_: the result has fractions: got a int64 tensor to overwrite')
    expect(() => x.add_(tensor([[1], [2]], { dtype: 'int64' }))).toThrow('add_: the result does not fit in place')
    expect(x.arraySync()).toEqual([1, 2])
    const leaf = tensor([1], { requiresGrad: true })
    expect(() => leaf.mul_(2)).toThrow(StateError)
    expect(noGrad(() => leaf.mul_(2)).arraySync()).toEqual([2])
    expect(() => tensor([1]).expand(3).add_(1)).toThrow('add: the output is an expanded view')
  })
  it('of integers divided by zero come with the wait, and nothing is written', () => {
    const x = tensor([4, 6], { dtype: 'int64' })
    expect(() => x.floorDivide(tensor([2, 0], { dtype: 'int64' })).arraySync()).toThrow(
      'floorDivide: division of integers by zero',
    )
    expect(x.floorDivide(2).arraySync()).toEqual([2, 3])
    expect(tensor([1, -1, 0]).div(0).arraySync()).toEqual([1 / 0, -1 / 0, Number.NaN])
  })
  it('every method is there', () => {
    for (const name of ['add', 'sub_', 'gelu', 'relu', 'maskedFill', 'isnan', 'allclose', 'equal', 'where']) {
      expect(typeof Tensor.prototype[name as keyof Tensor]).toBe('function')
    }
    const x = tensor([1, Number.NaN])
    expect(x.allclose(x)).toBe(false)
    expect(x.allclose(x, { equalNan: true })).toBe(true)
    expect(x.equal(tensor([1]))).toBe(false)
    expect(tensor([1, 2]).equal(tensor([1, 2]))).toBe(true)
    expect(x.where(tensor([true, false]), 5).arraySync()).toEqual([1, 5])
  })
})
