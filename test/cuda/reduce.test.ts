// Reductions on cuda against the cpu.
import { describe, expect, it } from 'vitest'
import { type DType, isFloatingPoint, type Tensor } from '../../lib/index'
import { expectAlike, floats, values, whole } from './support'

type Reduction = (x: Tensor, dim?: number | number[]) => Tensor

const floating: Record<string, Reduction> = {
  mean: (x, dim) => x.mean(dim),
  variance: (x, dim) => x.var(dim),
  logsumexp: (x, dim) => x.logsumexp(dim ?? [0, 1, 2]),
  norm: (x, dim) => x.norm(2, dim),
  'norm of order 1': (x, dim) => x.norm(1, dim),
  'norm of order 3': (x, dim) => x.norm(3, dim),
  'norm of order infinity': (x, dim) => x.norm(Infinity, dim),
}
const everywhere: Record<string, Reduction> = {
  sum: (x, dim) => x.sum(dim),
  prod: (x, dim) => x.mul(x.dtype === 'float16' ? 0.4 : 1).prod(dim),
  amax: (x, dim) => x.amax(dim),
  amin: (x, dim) => x.amin(dim),
  any: (x, dim) => x.gt(3).any(dim),
  all: (x, dim) => x.gt(-4).all(dim),
}

const dims = [undefined, 0, 1, 2, [0, 2], [1, 2], [0, 1]] as const

function check(
  name: string,
  f: Reduction,
  dtype: DType,
  x: Tensor,
  only: readonly (number | readonly number[] | undefined)[] = dims,
): void {
  for (const dim of only) {
    const along = dim as number | number[] | undefined
    expectAlike(f(x.to('cuda'), along), f(x, along), `${name} of ${dtype} ${x.shape} over ${dim}`, 64)
  }
}

describe('reductions', () => {
  for (const dtype of floats) {
    it.each(Object.keys({ ...floating, ...everywhere }))(`%s of ${dtype}, over any dims`, (name) => {
      const f = { ...floating, ...everywhere }[name]!
      check(name, f, dtype, values(3 * 5 * 7, dtype, 2, true).view(3, 5, 7))
    })
  }
  for (const dtype of whole) {
    it.each(Object.keys(everywhere))(`%s of ${dtype}`, (name) => {
      check(name, everywhere[name]!, dtype, values(60, dtype, 3).view(3, 4, 5), [0, 2, [0, 2], undefined])
    })
  }

  it.each([...floats, ...whole])('of %s read rows in packs', (dtype) => {
    // above 0: a sum that cancels has the bits of its order
    const x = values(2 * 3 * 1600, dtype, 9, true)
      .add(5)
      .view(2, 3, 1600)
    for (const [name, f] of Object.entries(isFloatingPoint(dtype) ? { ...floating, ...everywhere } : everywhere)) {
      if (name === 'prod') continue // of so many it is 0 or beyond
      check(name, f, dtype, x, [2, undefined])
      check(name, f, dtype, x.slice(2, 0, 96), [2])
    }
  })

  it.each([...floats, ...whole])('of %s fold columns in packs of neighbours', (dtype) => {
    const x = values(37 * 3 * 16, dtype, 11, true)
      .add(5)
      .view(37, 3, 16)
    const forms = isFloatingPoint(dtype) ? { ...floating, ...everywhere } : everywhere
    for (const [name, f] of Object.entries(forms)) {
      if (name === 'prod') continue
      check(name, f, dtype, x, [0, 1, [0, 1]])
      // a rest of columns, columns that begin beside a boundary
      for (const [from, to] of [
        [0, 8],
        [0, 12],
        [0, 11],
        [1, 9],
      ] as const) {
        check(name, f, dtype, x.slice(2, from, to), [0, [0, 1]])
      }
    }
  })

  it('read strides', () => {
    const x = values(4 * 6 * 8, 'float32', 5, true).view(4, 6, 8)
    for (const f of [everywhere.sum!, everywhere.amax!, floating.variance!]) {
      const forms: ((y: Tensor) => Tensor)[] = [
        (y) => f(y.transpose(0, 2), 1),
        (y) => f(y.slice(2, 1, 8, 3), [0, 2]),
        (y) => f(y.flip([1]), 1),
      ]
      for (const form of forms) expectAlike(form(x.to('cuda')), form(x), String(form), 64)
    }
  })

  it('cut few long rows and columns into parts, in the same order every time', () => {
    const x = values(40_000, 'float32', 7, true)
    const y = x.to('cuda')
    expectAlike(y.sum(), x.sum(), 'all', 64)
    expectAlike(y.view(2, 20_000).sum(1), x.view(2, 20_000).sum(1), 'rows', 64)
    expectAlike(y.view(20_000, 2).mean(0), x.view(20_000, 2).mean(0), 'columns', 64)
    expectAlike(y.view(10_000, 4).mean(0), x.view(10_000, 4).mean(0), 'packed columns', 64)
    expectAlike(y.view(10_000, 4).var(0), x.view(10_000, 4).var(0), 'variance of packed columns', 64)
    expect(y.sum().itemSync()).toBe(y.sum().itemSync())
  })

  it('let NaN win, and keep infinities', () => {
    const x = values(51, 'float32').view(1, 51, 1)
    for (const name of ['amax', 'amin', 'sum']) check(name, everywhere[name]!, 'float32', x, [1])
    const infinite = values(9, 'float32', 1, true).mul(0).add(-Infinity)
    expectAlike(infinite.to('cuda').logsumexp(0), infinite.logsumexp(0), 'logsumexp')
  })

  it('reduce nothing', () => {
    const x = values(0, 'float32').view(0, 3)
    expectAlike(x.to('cuda').sum(0), x.sum(0), 'sum')
    expectAlike(x.to('cuda').mean(0), x.mean(0), 'mean')
    expectAlike(x.to('cuda').prod(0), x.prod(0), 'prod')
  })
})
