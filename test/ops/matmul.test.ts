import { describe, expect, it } from 'vitest'
import {
  autograd,
  type DType,
  DTypeError,
  onesLike,
  ops,
  ShapeError,
  type Tensor,
  tensor,
  zeros,
} from '../../lib/index'
import { expectClose, goldenCases, goldenTensors } from '../support/golden'

// A linear congruence: the same values everywhere, without the library's own generator.
function values(count: number, seed = 1): number[] {
  let state = seed
  return Array.from({ length: count }, () => {
    state = (state * 48271) % 2147483647
    return state / 1073741823.5 - 1
  })
}

const count = (shape: readonly number[]): number => shape.reduce((n, size) => n * size, 1)
const filled = (shape: readonly number[], seed = 1, dtype: DType = 'float32'): Tensor =>
  tensor(values(count(shape), seed), { dtype }).view(shape as number[])
/** Backward of the sum of all elements. */
const summed = (x: Tensor): void => x.backward({ gradient: onesLike(x) })
const checked = (shape: readonly number[], seed = 1): Tensor => filled(shape, seed, 'float64').requiresGrad_()

/** a [m, k] b [k, n] in float64. */
function reference(a: ArrayLike<number>, b: ArrayLike<number>, m: number, k: number, n: number): number[] {
  const c = new Array<number>(m * n).fill(0)
  for (let i = 0; i < m; i++) {
    for (let p = 0; p < k; p++) {
      for (let j = 0; j < n; j++) c[i * n + j]! += a[i * k + p]! * b[p * n + j]!
    }
  }
  return c
}

const tolerance = (k: number, dtype: DType) =>
  ({
    float64: { rtol: 1e-13, atol: 1e-13 * k },
    float32: { rtol: 2e-6, atol: 4e-7 * Math.sqrt(k) + 1e-6 },
    bfloat16: { rtol: 8e-3, atol: 1e-2 },
    float16: { rtol: 1e-3, atol: 1e-3 },
  })[dtype as 'float32']

const functions: Record<string, (inputs: Record<string, Tensor>, params: Record<string, number>) => Tensor> = {
  'a @ b': ({ a, b }) => a!.matmul(b!),
  'torch.addmm(c,a,b,beta,alpha)': ({ c, a, b }, { alpha, beta }) => ops.addmm(c!, a!, b!, { alpha, beta }),
  'F.linear(x,w,b)': ({ x, w, b }) => ops.linear(x!, w!, b!),
  'F.linear(x,w)': ({ x, w }) => ops.linear(x!, w!),
}

describe('matrix products: golden cases', () => {
  for (const each of [
    ...goldenCases('ops', /^(matmul|addmm|linear)(?!_cross)/),
    ...goldenCases('lowp', /^(matmul|linear)_(bf16|fp16)$/, 2),
  ]) {
    it(each.name, async () => {
      const stored = await goldenTensors(each.file)
      const inputs: Record<string, Tensor> = {}
      for (const [name, key] of Object.entries(each.inputs)) {
        let x = stored[key]!.detach()
        for (const [, d0, d1] of each.views?.[name] ?? []) x = x.transpose(d0, d1)
        inputs[name] = x.detach().requiresGrad_()
      }
      const out = functions[each.op]!(inputs, each.params)
      await expectClose(out, stored[(each.outputs as string[])[0]!]!, each.tolerance)
      out.backward({ gradient: stored[each.grad_outputs!['0']!]! })
      for (const [name, key] of Object.entries(each.grads)) {
        await expectClose(inputs[name]!.grad!, stored[key]!, each.tolerance)
      }
    })
  }
})

describe('matmul', () => {
  // around the edges of register tiles, of blocks of rows and of steps of k
  const sizes: [number, number, number][] = [
    [1, 1, 1],
    [1, 5, 3],
    [3, 1, 70],
    [13, 600, 33],
    [14, 7, 32],
    [15, 513, 31],
    [29, 64, 65],
    [113, 20, 40],
    [200, 300, 1],
    [1, 300, 200],
    [40, 1100, 50],
    [130, 1100, 150],
    [300, 140, 33],
    [1030, 130, 70],
  ]
  for (const [m, k, n] of sizes) {
    it(`[${m}, ${k}] @ [${k}, ${n}] in any layout and floating dtype`, async () => {
      for (const dtype of ['float32', 'float64', 'bfloat16', 'float16'] as const) {
        const a = filled([m, k], 3, dtype).mul(0.5)
        const b = filled([k, n], 5, dtype).mul(0.5)
        const exact = reference((await a.data()) as Float32Array, (await b.data()) as Float32Array, m, k, n)
        const columns = (x: Tensor): Tensor => x.t().contiguous().t()
        const gaps = (x: Tensor): Tensor => {
          const wide = zeros([x.shape[0]!, 2, x.shape[1]!, 3], { dtype })
          const part = wide.select(3, 1).select(1, 1)
          part.copy_(x)
          return part
        }
        for (const layoutA of [(x: Tensor) => x, columns, gaps]) {
          for (const layoutB of [(x: Tensor) => x, columns, gaps]) {
            await expectClose(layoutA(a).matmul(layoutB(b)), exact, tolerance(k, dtype))
          }
        }
      }
    })
  }

  it('gives the same bits for one thread and for several, twice', async () => {
    const a = filled([300, 700])
    const b = filled([700, 260])
    const first = await a.matmul(b).data()
    expect(await a.matmul(b).data()).toEqual(first)
  })

  it('takes k beyond one packed block', async () => {
    const ones = zeros([3, 20_000]).add(1)
    expect(await ones.matmul(zeros([20_000, 40]).add(0.5)).array()).toEqual(Array(3).fill(Array(40).fill(10_000)))
  })

  it('broadcasts batches and folds them where one matrix serves all', async () => {
    const a = filled([2, 1, 5, 4], 2)
    const b = filled([3, 4, 6], 3)
    const out = a.matmul(b)
    expect(out.shape).toEqual([2, 3, 5, 6])
    for (const [i, j] of [
      [0, 0],
      [1, 2],
    ] as const) {
      const single = a.select(0, i).select(0, 0).matmul(b.select(0, j))
      await expectClose(out.select(0, i).select(0, j).contiguous(), single, { rtol: 0, atol: 0 })
    }
    const folded = filled([4, 3, 5, 7], 4).matmul(filled([7, 2], 5))
    const rows = filled([4, 3, 5, 7], 4)
      .view(60, 7)
      .matmul(filled([7, 2], 5))
    await expectClose(folded.view(60, 2), rows, { rtol: 0, atol: 0 })
  })

  it("multiplies integers, and wraps as two's complement", async () => {
    const a = tensor(
      [
        [1, 2],
        [3, -4],
      ],
      { dtype: 'int64' },
    )
    expect(await a.matmul(a).array()).toEqual([
      [7, -6],
      [-9, 22],
    ])
    const big = tensor([[65536]], { dtype: 'int32' })
    expect(await big.matmul(big).array()).toEqual([[0]])
  })

  it('gives zeros without inner elements, and empty results', async () => {
    expect(
      await zeros([2, 0])
        .matmul(zeros([0, 3]))
        .array(),
    ).toEqual([
      [0, 0, 0],
      [0, 0, 0],
    ])
    expect(zeros([0, 4]).matmul(zeros([4, 3])).shape).toEqual([0, 3])
    expect(zeros([3, 0, 4]).matmul(zeros([4, 3])).shape).toEqual([3, 0, 3])
  })

  it('keeps NaN and infinity where they belong', async () => {
    const a = tensor([
      [Number.NaN, 1],
      [1, 1],
    ])
    const b = tensor([
      [1, 2],
      [Number.POSITIVE_INFINITY, 3],
    ])
    expect(await a.matmul(b).array()).toEqual([
      [Number.NaN, Number.NaN],
      [Number.POSITIVE_INFINITY, 5],
    ])
  })

  it('has the gradients of its formula for every rank', () => {
    const pairs: [number[], number[]][] = [
      [
        [3, 4],
        [4, 2],
      ],
      [[4], [4]],
      [[3, 4], [4]],
      [[4], [4, 2]],
      [
        [2, 3, 4],
        [4, 2],
      ],
      [
        [2, 3, 4],
        [2, 4, 3],
      ],
      [
        [3, 4],
        [2, 4, 3],
      ],
      [
        [2, 1, 2, 3],
        [3, 3, 2],
      ],
      [[2, 3, 4], [4]],
      [[4], [2, 4, 3]],
    ]
    for (const [a, b] of pairs) {
      expect(autograd.gradcheck((x, y) => x.matmul(y), [checked(a, 2), checked(b, 3)])).toBe(true)
    }
    expect(autograd.gradcheck((x, y) => x.t().matmul(y.t()), [checked([4, 3]), checked([2, 4])])).toBe(true)
    expect(autograd.gradcheck((x, y) => ops.bmm(x, y), [checked([2, 3, 2]), checked([2, 2, 3])])).toBe(true)
    expect(autograd.gradcheck((x, y) => ops.outer(x, y), [checked([3]), checked([2])])).toBe(true)
    const options = { alpha: -2, beta: 0.5 }
    for (const shape of [[3, 2], [2], [3, 1], []]) {
      const inputs = [checked(shape), checked([3, 4], 2), checked([4, 2], 3)]
      expect(autograd.gradcheck((c, x, y) => ops.addmm(c, x, y, options), inputs)).toBe(true)
    }
    const inputs = [checked([2, 3, 2]), checked([2, 3, 4], 2), checked([2, 4, 2], 3)]
    expect(autograd.gradcheck((c, x, y) => ops.baddbmm(c, x, y, options), inputs)).toBe(true)
  })

  it('adds a gradient into the one that is there', async () => {
    const a = filled([5, 4]).requiresGrad_()
    const b = filled([4, 3], 2).requiresGrad_()
    for (let i = 0; i < 2; i++) summed(a.matmul(b))
    const once = filled([5, 4]).requiresGrad_()
    summed(once.matmul(b.detach()))
    await expectClose(a.grad!, once.grad!.mul(2), { rtol: 1e-6, atol: 1e-6 })
  })

  it('says what does not fit', () => {
    expect(() => zeros([4, 8]).matmul(zeros([6, 3]))).toThrow(
      new ShapeError('matmul', {
        problem: 'inner dimensions differ',
        got: 'a [4, 8] and b [6, 3]',
        expected: 'a[-1] == b[-2]',
        action: 'transpose one of them or check the sizes',
      }),
    )
    expect(() => zeros([2, 4, 8]).matmul(zeros([3, 8, 3]))).toThrow('matmul: shapes do not broadcast at dim -1')
    expect(() => zeros([2, 2]).matmul(zeros([2, 2], { dtype: 'float64' }))).toThrow(DTypeError)
    expect(() => zeros([2, 2]).matmul(tensor(2))).toThrow('rank 0 is no matrix')
    expect(() => ops.bmm(zeros([2, 2, 2]), zeros([3, 2, 2]))).toThrow('bmm: batch sizes differ')
    expect(() => ops.mm(zeros([2]), zeros([2, 2]))).toThrow('mm: a has the wrong rank: got [2], expected rank 2')
  })
})

describe('einsum', () => {
  const cases: [string, number[][]][] = [
    [
      'ij,jk->ik',
      [
        [3, 4],
        [4, 2],
      ],
    ],
    [
      'bij,bjk->bik',
      [
        [2, 3, 4],
        [2, 4, 2],
      ],
    ],
    [
      'bhqd,bhkd->bhqk',
      [
        [2, 2, 3, 4],
        [2, 2, 5, 4],
      ],
    ],
    ['ij->ji', [[3, 4]]],
    ['ij->', [[3, 4]]],
    [
      'ij,ij->i',
      [
        [3, 4],
        [3, 4],
      ],
    ],
    ['i,j', [[3], [4]]],
    ['ii->i', [[3, 3]]],
    ['ii', [[3, 3]]],
    [
      'ijj,jk->ki',
      [
        [2, 3, 3],
        [3, 2],
      ],
    ],
    [
      'ij,jk,kl->il',
      [
        [2, 3],
        [3, 4],
        [4, 2],
      ],
    ],
    [
      '...ij,...jk->...ik',
      [
        [2, 3, 4],
        [4, 2],
      ],
    ],
    ['b...d,d->b...', [[2, 3, 4], [4]]],
    [
      'ij,kj->k',
      [
        [3, 4],
        [2, 4],
      ],
    ],
    ['bi,bj,b->ij', [[4, 2], [4, 3], [4]]],
    ['ij,j->ij', [[3, 1], [4]]],
  ]

  // Every index of every letter, one after the other.
  function bySum(equation: string, shapes: number[][], data: number[][]): number[] {
    const [left, right] = equation.split('->') as [string, string | undefined]
    const rest = Math.max(...left.split(',').map((term, i) => shapes[i]!.length - term.replace('...', '').length))
    const fill = (term: string, rank: number): string => {
      const letters = 'XYZ'.slice(3 - (rank - term.replace('...', '').length))
      return term.replace('...', letters)
    }
    const terms = left.split(',').map((term, i) => fill(term, shapes[i]!.length))
    const sizes: Record<string, number> = {}
    for (const [i, term] of terms.entries()) {
      for (const [d, c] of [...term].entries()) sizes[c] = Math.max(sizes[c] ?? 1, shapes[i]![d]!)
    }
    const all = terms.join('')
    const implicit = [...new Set(all)].filter((c) => all.indexOf(c) === all.lastIndexOf(c)).sort()
    const output = right === undefined ? implicit : [...right.replace('...', 'XYZ'.slice(3 - rest))]
    const letters = Object.keys(sizes)
    const out = new Array<number>(output.reduce((n, c) => n * sizes[c]!, 1)).fill(0)
    for (let flat = 0; flat < letters.reduce((n, c) => n * sizes[c]!, 1); flat++) {
      const at: Record<string, number> = {}
      let left = flat
      for (const c of letters) {
        at[c] = left % sizes[c]!
        left = Math.floor(left / sizes[c]!)
      }
      const place = output.reduce((n, c) => n * sizes[c]! + at[c]!, 0)
      out[place]! += terms.reduce((product, term, i) => {
        const index = [...term].reduce((n, c, d) => n * shapes[i]![d]! + Math.min(at[c]!, shapes[i]![d]! - 1), 0)
        return product * data[i]![index]!
      }, 1)
    }
    return out
  }

  for (const [equation, shapes] of cases) {
    it(equation, async () => {
      const inputs = shapes.map((shape, i) => checked(shape, i + 2))
      const data = shapes.map((shape, i) => values(count(shape), i + 2))
      await expectClose(ops.einsum(equation, ...inputs), bySum(equation, shapes, data), { rtol: 1e-12, atol: 1e-12 })
      expect(autograd.gradcheck((...x) => ops.einsum(equation, ...x), inputs)).toBe(true)
    })
  }

  it('says what does not fit', () => {
    expect(() => ops.einsum('ij,jk->ik', zeros([2, 3]), zeros([4, 2]))).toThrow('einsum: "j" has two sizes: got [3, 4]')
    expect(() => ops.einsum('ij->ik', zeros([2, 3]))).toThrow('no operand has the output\'s "k"')
    expect(() => ops.einsum('ij', zeros([2]))).toThrow('einsum: "ij" does not fit its operand')
    expect(() => ops.einsum('ij,jk', zeros([2, 2]))).toThrow('the equation does not fit the operands')
  })
})
