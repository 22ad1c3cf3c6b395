// Matrix products on cuda against the cpu, which is held to independent values in test/ops.
import { describe, expect, it } from 'vitest'
import { type DType, device, fromTypedArray, type Tensor } from '../../lib/index'
import { native, type Output, run, runInto, runMany } from '../../lib/tensor/dispatch'
import { onCuda } from './support'

const cuda = device('cuda')
const floats: DType[] = ['float32', 'float64', 'float16', 'bfloat16']
const codes: DType[] = [...floats, 'int64', 'int32', 'uint8']
const code = (dtype: DType): number => codes.indexOf(dtype)

// Of sums of products whose terms are below 1: float32 sums, rounded once to the dtype. A processor that multiplies
// bfloat16 takes the same operands, another one does not round float32 ones; so mixed dtypes are as bfloat16.
const tolerance: Partial<Record<DType, number>> = { float32: 1e-5, float64: 1e-13, float16: 4e-3, bfloat16: 3e-2 }

function expectAlike(got: Tensor, wanted: Tensor, what: string, bound = tolerance[got.dtype] ?? 0): void {
  expect(got.device, what).toBe(cuda)
  expect([got.shape, got.dtype], what).toEqual([wanted.shape, wanted.dtype])
  const [a, b] = [got.dataSync(), wanted.dataSync()]
  for (let i = 0; i < b.length; i++) {
    const [x, y] = [Number(a[i]), Number(b[i])]
    if (Object.is(x, y) || Math.abs(x - y) <= bound * Math.max(1, Math.abs(y))) continue
    expect.fail(`${what}: element ${i} is ${x}, on cpu ${y}`)
  }
}

function values(shape: number[], dtype: DType, seed: number): Tensor {
  let state = seed
  const n = shape.reduce((a, b) => a * b, 1)
  const numbers = Float64Array.from({ length: n }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return dtype.includes('int') ? state >>> 24 : state / 2 ** 31 - 1
  })
  return fromTypedArray(numbers).to(dtype).view(shape)
}

const matmul = native('matmul', 'alpha,beta')
const linear = native('linear', '')
const linearBackwardWeight = native('linearBackwardWeight', 'accumulate,bias')
const mlp = native('mlp', 'tanh')
const mlpBackward = native('mlpBackward', 'tanh,accumulate')

/** A matrix as it lies: rows or columns contiguous, with steps, or with rows that begin anywhere. */
const forms: Record<string, (rows: number, cols: number, dtype: DType, seed: number) => Tensor> = {
  rows: (m, n, dtype, seed) => values([m, n], dtype, seed),
  columns: (m, n, dtype, seed) => values([n, m], dtype, seed).transpose(0, 1),
  steps: (m, n, dtype, seed) => values([m, 2 * n], dtype, seed).slice(1, 0, 2 * n, 2),
  window: (m, n, dtype, seed) =>
    values([m + 1, n + 3], dtype, seed)
      .slice(0, 1)
      .slice(1, 2, n + 2),
}

describe('matmul', () => {
  const sizes = [
    [1, 1, 1],
    [64, 64, 32],
    [65, 33, 17],
    [3, 200, 130],
    [130, 136, 72],
    [5, 7, 0],
  ] as const
  it.each(floats)('multiplies matrices in any order of memory: %s', (dtype) => {
    for (const [m, n, k] of sizes) {
      for (const [left, a] of Object.entries(forms)) {
        for (const [right, b] of Object.entries(forms)) {
          const [x, y] = [a(m, k, dtype, 1), b(k, n, dtype, 2)]
          const wanted = run(matmul, [x, y], [m, n], code(dtype), [0.5, 0])
          // views travel as they are: a copy to another device keeps no strides
          const again = [a, b].map((form, i) => (i === 0 ? form(m, k, dtype, 1) : form(k, n, dtype, 2)))
          const got = run(matmul, [onCuda(again[0]!, left), onCuda(again[1]!, right)], [m, n], code(dtype), [0.5, 0])
          expectAlike(got, wanted, `${m} x ${n} x ${k}, ${left} by ${right}`, Math.sqrt(k + 1) * tolerance[dtype]!)
        }
      }
    }
  })

  it('cuts long sums into ranges, for all kinds of epilogues', () => {
    for (const dtype of floats) {
      // results whose rows begin on 16 bytes, and others
      for (const [m, n] of [
        [24, 40],
        [5, 33],
      ] as const) {
        const k = 1500
        const scale = 1 / Math.sqrt(k)
        const [x, y] = [values([2, m, k], dtype, 1).mul(scale), values([2, k, n], dtype, 2)]
        const bound = 8 * tolerance[dtype]!
        const options = [2, 0.5]
        const wanted = values([2, m, n], dtype, 3)
        const got = wanted.to('cuda')
        runInto(matmul, [x.to('cuda'), y.to('cuda')], got, options)
        runInto(matmul, [x, y], wanted, options)
        expectAlike(got, wanted, `${m} x ${n}, added`, bound)
        const [weight, bias] = [values([n, k], dtype, 4), values([n], dtype, 5)]
        const call = (all: Tensor[]): Tensor => run(linear, all, [2, m, n], code(dtype))
        expectAlike(call(move([x, weight, bias])), call([x, weight, bias]), `${m} x ${n}, with bias`, bound)
        // the same bits each time
        const again = call(move([x, weight, bias])).dataSync()
        expect(again, 'again').toEqual(call(move([x, weight, bias])).dataSync())
      }
    }
  })

  it('accumulates, also into a transposed output', () => {
    for (const dtype of floats) {
      const [x, y] = [values([33, 20], dtype, 1), values([20, 9], dtype, 2)]
      const out = values([9, 33], dtype, 3)
      const target = out.to('cuda')
      runInto(matmul, [x.to('cuda'), y.to('cuda')], target.transpose(0, 1), [2, 0.5])
      const wanted = out.clone()
      runInto(matmul, [x, y], wanted.transpose(0, 1), [2, 0.5])
      expectAlike(target, wanted, dtype, 6 * tolerance[dtype]!)
    }
  })

  it('broadcasts batches', () => {
    for (const dtype of floats) {
      const shapes = [
        [
          [2, 3, 5, 8],
          [3, 8, 6],
        ],
        [
          [2, 1, 5, 8],
          [1, 4, 8, 6],
        ],
        [
          [3, 5, 8],
          [8, 6],
        ],
        [
          [5, 8],
          [2, 8, 6],
        ],
        [
          [0, 5, 8],
          [8, 6],
        ],
      ] as const
      for (const [a, b] of shapes) {
        const [x, y] = [values([...a], dtype, 1), values([...b], dtype, 2)]
        expectAlike(x.to('cuda').matmul(y.to('cuda')), x.matmul(y), `${a} by ${b}`, 4 * tolerance[dtype]!)
      }
      const heads = values([2, 5, 3, 8], dtype, 1)
      const [q, onDevice] = [heads.transpose(1, 2), heads.to('cuda').transpose(1, 2)]
      expectAlike(onDevice.matmul(onDevice.transpose(2, 3)), q.matmul(q.transpose(2, 3)), dtype, 4 * tolerance[dtype]!)
    }
  })

  it('mixes dtypes as the cpu does', () => {
    for (const a of ['float32', 'float16', 'bfloat16'] as DType[]) {
      for (const b of ['float32', 'float16', 'bfloat16'] as DType[]) {
        const [x, y] = [values([20, 24], a, 1), values([24, 18], b, 2)]
        for (const c of ['float32', 'float16', 'bfloat16'] as DType[]) {
          const wanted = run(matmul, [x, y], [20, 18], code(c), [1, 0])
          const bound = [a, b, c].includes('bfloat16') ? 0.05 : 0.01
          expectAlike(
            run(matmul, [x.to('cuda'), y.to('cuda')], [20, 18], code(c), [1, 0]),
            wanted,
            `${a} ${b} ${c}`,
            bound,
          )
        }
      }
    }
  })

  it('multiplies integers, which wrap', () => {
    for (const dtype of ['int64', 'int32', 'uint8'] as DType[]) {
      const [x, y] = [values([2, 5, 7], dtype, 1), values([7, 6], dtype, 2)]
      expectAlike(x.to('cuda').matmul(y.to('cuda')), x.matmul(y), dtype)
    }
  })

  it('keeps infinities and NaN to their rows', () => {
    const x = fromTypedArray(Float32Array.of(Infinity, 1, Number.NaN, 2, 3, 4)).view(3, 2)
    const y = fromTypedArray(Float32Array.of(1, 2, 3, 4)).view(2, 2)
    for (const dtype of floats) {
      expectAlike(x.to(dtype).to('cuda').matmul(y.to(dtype).to('cuda')), x.to(dtype).matmul(y.to(dtype)), dtype)
    }
  })
})

function move(inputs: Tensor[]): Tensor[] {
  return inputs.map((x) => x.to('cuda'))
}

describe('layers', () => {
  const rows = 70
  const [C, H] = [40, 88]
  it.each(floats)('linear adds its bias: %s', (dtype) => {
    for (const [K, N] of [
      [C, H],
      [7, 5],
    ] as const) {
      const inputs = [values([2, rows, K], dtype, 1), values([N, K], dtype, 2), values([N], dtype, 3)]
      const call = (all: Tensor[]): Tensor => run(linear, all, [2, rows, N], code(dtype))
      expectAlike(call(move(inputs)), call(inputs), 'with bias', 8 * tolerance[dtype]!)
      expectAlike(call(move(inputs.slice(0, 2))), call(inputs.slice(0, 2)), 'without', 8 * tolerance[dtype]!)
    }
  })

  it.each(floats)('linear makes the gradients of weight and bias, new or added: %s', (dtype) => {
    const inputs = [values([3, rows, 33], dtype, 1), values([3, rows, C], dtype, 2)]
    const outputs: Output[] = [
      [[33, C], code(dtype)],
      [[33], code(dtype)],
    ]
    const wanted = runMany(linearBackwardWeight, inputs, outputs, [0, 1])
    const got = runMany(linearBackwardWeight, move(inputs), outputs, [0, 1])
    for (const i of [0, 1]) expectAlike(got[i]!, wanted[i]!, `output ${i}`, 15 * tolerance[dtype]!)
    runMany(linearBackwardWeight, inputs, wanted, [1, 1])
    runMany(linearBackwardWeight, move(inputs), got, [1, 1])
    for (const i of [0, 1]) expectAlike(got[i]!, wanted[i]!, `sum ${i}`, 30 * tolerance[dtype]!)
  })

  it('sums columns of any number, order of memory and length, in one step or two', () => {
    const cases: [rows: number, columns: number, form: string][] = [
      [517, 40, 'rows'], // whole packs, the last block half empty
      [300, 24, 'window'],
      [130, 37, 'rows'],
      [200, 33, 'columns'],
      [20_000, 16, 'rows'], // ranges of packs
      [300, 528, 'rows'], // enough blocks for one step
    ]
    for (const dtype of floats) {
      for (const [n, columns, form] of cases) {
        const g = forms[form]!(n, columns, dtype, 3)
        const x = values([n, 1], dtype, 4)
        const outputs: Output[] = [
          [[columns, 1], code(dtype)],
          [[columns], code(dtype)],
        ]
        const got = runMany(linearBackwardWeight, [onCuda(g, form), x.to('cuda')], outputs, [0, 1])[1]!
        const wanted = g.to('float64').sum(0).to(dtype)
        // pairs of threads add every 128th row, which a tree puts together: few roundings of sums below n
        const bound = dtype === 'float64' ? 2 ** -44 : Math.max(tolerance[dtype]! / 4, (n / 64) * 2 ** -23)
        expectAlike(got, wanted, `${n} x ${columns} ${form} of ${dtype}`, bound)
      }
    }
  })

  it.each(floats)('mlp and its gradients, with both forms of gelu: %s', (dtype) => {
    const c = code(dtype)
    for (const tanh of [0, 1]) {
      const [x, w1, b1] = [values([rows, C], dtype, 1), values([H, C], dtype, 2), values([H], dtype, 3)]
      const [w2, b2] = [values([C, H], dtype, 4), values([C], dtype, 5)]
      const outputs: Output[] = [
        [[rows, C], c],
        [[rows, H], c],
      ]
      const wanted = runMany(mlp, [x, w1, b1, w2, b2], outputs, [tanh])
      const got = runMany(mlp, move([x, w1, b1, w2, b2]), outputs, [tanh])
      for (const i of [0, 1]) expectAlike(got[i]!, wanted[i]!, `mlp ${i}`, 20 * tolerance[dtype]!)
      const gradients: Output[] = [
        [[rows, C], c],
        [[H, C], c],
        [[H], c],
        [[C, H], c],
        [[C], c],
      ]
      const inputs = [values([rows, C], dtype, 6), x, wanted[1]!, w1, w2]
      const expected = runMany(mlpBackward, inputs, gradients, [tanh, 0])
      const made = runMany(mlpBackward, move(inputs), gradients, [tanh, 0])
      for (const i of gradients.keys()) expectAlike(made[i]!, expected[i]!, `gradient ${i}`, 40 * tolerance[dtype]!)
      runMany(mlpBackward, inputs, expected, [tanh, 1])
      runMany(mlpBackward, move(inputs), made, [tanh, 1])
      for (const i of gradients.keys()) expectAlike(made[i]!, expected[i]!, `sum ${i}`, 80 * tolerance[dtype]!)
    }
  })

  it('take no rows', () => {
    const inputs = move([values([0, 33], 'float32', 1), values([0, C], 'float32', 2)])
    const [dweight, dbias] = runMany(
      linearBackwardWeight,
      inputs,
      [
        [[33, C], 0],
        [[33], 0],
      ],
      [0, 1],
    )
    expect(dweight!.dataSync().every((x) => x === 0)).toBe(true)
    expect(dbias!.dataSync().every((x) => x === 0)).toBe(true)
  })
})
