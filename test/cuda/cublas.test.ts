// Products by cuBLASLt against float64: by the library of a machine that has it (GRADUS_CUBLASLT names its file), or by
// the simulator's, which holds callers to its rules. Without one our own kernels are held to the same.
import { spawnSync } from 'node:child_process'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { cuda, models, type nn, ops, type Tensor, tensor, zeros } from '../../lib/index'
import { describeBlas } from '../../lib/tensor/cuda'
import { native, type Output, run, runInto, runMany } from '../../lib/tensor/dispatch'
import './matmul.test'
import {
  type Bounded,
  columnSums,
  exact,
  expectWithin,
  gelu,
  geluGradient,
  numbers,
  plus,
  product,
  rounded,
  scaled,
  transposed,
} from './products'
import { code, onCuda } from './support'

process.env.GRADUS_CUBLASLT = process.env.GRADUS_TEST_CUBLASLT ?? '' // before anything looks for it

const require = createRequire(__filename)
const floats = ['float32', 'float64', 'float16', 'bfloat16'] as const
const halves = ['float16', 'bfloat16'] as const
const matmul = native('matmul', 'alpha,beta')
const linear = native('linear', '')
const linearBackwardWeight = native('linearBackwardWeight', 'accumulate,bias')
const mlp = native('mlp', 'tanh')
const mlpBackward = native('mlpBackward', 'tanh,accumulate')

const there = (x: Tensor): Tensor => x.to('cuda')
/** The same values, on an address that no vector begins on. */
const aside = (x: Tensor): Tensor => {
  const around = zeros([x.shape[0]! + 1], { dtype: x.dtype, device: 'cuda' }).slice(0, 1)
  return around.copy_(x)
}

describe(`products where gradus has ${describeBlas()}`, () => {
  it.each(floats)('are those of matrices in any order of memory, of any size and none: %s', async (dtype) => {
    const sizes = [
      [1, 1, 1],
      [65, 33, 17],
      [128, 64, 96],
      [1, 50, 70],
      [50, 1, 70],
      [33, 24, 1],
      [24, 40, 1500],
      [5, 7, 0],
      [0, 5, 3],
      [4, 0, 3],
    ] as const
    for (const [m, n, k] of sizes) {
      const [x, y] = [numbers([m, k], dtype, 1), numbers([k, n], dtype, 2)]
      const wanted = rounded(scaled(product(exact(x), exact(y), dtype), 0.5), dtype)
      const forms = m > 60 ? ['rows', 'columns', 'steps', 'window'] : ['rows', 'columns']
      for (const left of forms) {
        for (const right of forms) {
          const got = run(matmul, [onCuda(x, left), onCuda(y, right)], [m, n], code(dtype), [0.5, 0])
          await expectWithin(got, wanted, `${dtype} ${m} x ${n} x ${k}, ${left} by ${right}`)
        }
      }
    }
  })

  it.each(floats)('are those of a layer of a model: %s', async (dtype) => {
    const [m, n, k] = [128, 256, 512]
    const [x, y] = [numbers([m, k], dtype, 1), numbers([k, n], dtype, 2)]
    const wanted = rounded(product(exact(x), exact(y), dtype), dtype)
    for (const left of ['rows', 'columns']) {
      for (const right of ['rows', 'columns']) {
        const [a, b] = [onCuda(x, left), onCuda(y, right)]
        const got = a.matmul(b)
        await expectWithin(got, wanted, `${left} by ${right}`)
        expect(a.matmul(b).dataSync(), 'the same bits').toEqual(got.dataSync())
      }
    }
  })

  it.each(floats)('have batches of any strides: %s', async (dtype) => {
    const shapes = [
      [
        [3, 17, 24],
        [3, 24, 9],
      ],
      [
        [2, 3, 5, 8],
        [3, 8, 6],
      ],
      [
        [2, 1, 5, 8],
        [1, 4, 8, 6],
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
    for (const [left, right] of shapes) {
      const [x, y] = [numbers(left, dtype, 1), numbers(right, dtype, 2)]
      const wanted = rounded(product(exact(x), exact(y), dtype), dtype)
      await expectWithin(there(x).matmul(there(y)), wanted, `${left} by ${right}`)
    }
    const [q, k] = [1, 2].map((seed) => numbers([2, 5, 3, 16], dtype, seed)) as [Tensor, Tensor]
    const scores = product(exact(q.transpose(1, 2)), exact(k.transpose(1, 2).transpose(2, 3)), dtype)
    const [heads, others] = [there(q).transpose(1, 2), there(k).transpose(1, 2)]
    await expectWithin(heads.matmul(others.transpose(2, 3)), rounded(scores, dtype), 'heads')
  })

  it.each(floats)('are added to what is there: %s', async (dtype) => {
    for (const shape of [
      [33, 20, 9],
      [64, 128, 96],
      [2, 24, 1500, 40],
    ]) {
      const [n, k, m] = [shape.at(-1)!, shape.at(-2)!, shape.at(-3)!]
      const batch = shape.slice(0, -3)
      const [x, y] = [numbers([...batch, m, k], dtype, 1), numbers([...batch, k, n], dtype, 2)]
      const old = numbers([...batch, m, n], dtype, 3)
      const target = there(old)
      runInto(matmul, [there(x), there(y)], target, [2, 0.5])
      const sum = plus(scaled(product(exact(x), exact(y), dtype), 2), scaled(exact(old), 0.5), dtype)
      await expectWithin(target, rounded(sum, dtype), `${shape}`)
    }
  })

  it('spoil a gradient that they add to after a failure, also beside sums that would leave it', async () => {
    const [x, g] = [there(numbers([4, 16], 'float32', 1)), there(numbers([4, 8], 'float32', 2))]
    const outputs: Output[] = [
      [[8, 16], code('float32')],
      [[8], code('float32')],
    ]
    const gradients = runMany(linearBackwardWeight, [g, x], outputs, [0, 1]) as [Tensor, Tensor]
    await cuda.synchronize()
    const failed = ops.embedding(tensor([0, 9, 1, 2], { dtype: 'int64', device: 'cuda' }), g)
    runMany(linearBackwardWeight, [failed, x], gradients, [1, 1])
    const text = 'embedding: index is out of range: got 9'
    await expect(cuda.synchronize()).rejects.toThrow(text)
    // by the library the sum holds what nobody should read; by our kernels it is as it was
    const read = gradients[0].data()
    const isOurs = /not found|turned off/.test(describeBlas())
    await (isOurs ? expect(read).resolves.toHaveLength(128) : expect(read).rejects.toThrow(text))
  })

  it.each(halves)('of 16 bits are float32 where that is wanted: %s', async (dtype) => {
    const [x, y, old] = [numbers([48, 40], dtype, 1), numbers([40, 24], dtype, 2), numbers([48, 24], 'float32', 3)]
    const target = there(old)
    runInto(matmul, [there(x), there(y)], target, [1, 1])
    const sum = plus(product(exact(x), exact(y), dtype), exact(old), 'float32')
    await expectWithin(target, rounded(sum, 'float32'), dtype)
  })

  it.each(floats)('take biases, also those of another dtype and on any address: %s', async (dtype) => {
    for (const [K, N] of [
      [40, 88],
      [7, 5],
    ] as const) {
      const [x, weight] = [numbers([2, 70, K], dtype, 1), numbers([N, K], dtype, 2)]
      const sums = product(exact(x), transposed(exact(weight)), dtype)
      for (const of of dtype === 'float64' ? [dtype] : [dtype, 'float32' as const]) {
        const bias = numbers([N], of, 3)
        // it may be rounded to the result's dtype before it is added
        const wanted = rounded(plus(sums, rounded(exact(bias), dtype), dtype), dtype)
        for (const each of [there(bias), aside(bias)]) {
          const got = run(linear, [there(x), there(weight), each], [2, 70, N], code(dtype))
          await expectWithin(got, wanted, `${K} to ${N}, bias of ${of}`)
        }
      }
      const without = run(linear, [there(x), there(weight)], [2, 70, N], code(dtype))
      await expectWithin(without, rounded(sums, dtype), `${K} to ${N}`)
    }
  })

  it.each(floats)('make the gradients of weight and bias, new or added: %s', async (dtype) => {
    const [g, x] = [numbers([210, 33], dtype, 1), numbers([210, 40], dtype, 2)]
    for (const of of dtype === 'float64' ? [dtype] : [dtype, 'float32' as const]) {
      const outputs: Output[] = [
        [[33, 40], code(of)],
        [[33], code(of)],
      ]
      const once = [product(transposed(exact(g)), exact(x), dtype), columnSums(exact(g), dtype)]
      const got = runMany(linearBackwardWeight, [there(g), there(x)], outputs, [0, 1])
      for (const [i, each] of once.entries()) await expectWithin(got[i]!, rounded(each, of), `${of} output ${i}`)
      const twice = once.map((each) => rounded(plus(each, rounded(each, of), of), of))
      runMany(linearBackwardWeight, [there(g), there(x)], got, [1, 1])
      for (const [i, each] of twice.entries()) await expectWithin(got[i]!, each, `${of} sum ${i}`)
    }
  })

  it.each(floats)('take gelu and its derivative, in both forms: %s', async (dtype) => {
    const c = code(dtype)
    for (const [rows, C, H] of [
      [70, 40, 88],
      [33, 24, 37], // rows of the hidden values begin anywhere
    ] as const) {
      for (const approximate of ['tanh', 'none'] as const) {
        const tanh = approximate === 'tanh' ? 1 : 0
        const what = (name: string): string => `${name} of ${rows} x ${C} x ${H}, ${approximate}`
        const [x, w1, b1] = [numbers([rows, C], dtype, 1), numbers([H, C], dtype, 2), numbers([H], dtype, 3)]
        const [w2, b2, g] = [numbers([C, H], dtype, 4), numbers([C], dtype, 5), numbers([rows, C], dtype, 6)]
        const parameters = [w1, b1, w2, b2].map(there)

        const pre = rounded(plus(product(exact(x), transposed(exact(w1)), dtype), exact(b1), dtype), dtype)
        const hidden = rounded(gelu(pre, dtype, approximate), dtype)
        const y = rounded(plus(product(hidden, transposed(exact(w2)), dtype), exact(b2), dtype), dtype)
        const outputs: Output[] = [
          [[rows, C], c],
          [[rows, H], c],
        ]
        const [got, gotPre] = runMany(mlp, [there(x), ...parameters], outputs, [tanh]) as [Tensor, Tensor]
        await expectWithin(gotPre, pre, what('what gelu is taken of'))
        await expectWithin(got, y, what('mlp'))

        const at = gotPre.to('cpu')
        const kept = rounded(gelu(exact(at), dtype, approximate), dtype)
        const slopes = geluGradient(product(exact(g), exact(w2), dtype), at, dtype, approximate)
        const dpre = rounded(slopes, dtype)
        const wanted: Bounded[] = [
          product(dpre, exact(w1), dtype),
          product(transposed(dpre), exact(x), dtype),
          columnSums(dpre, dtype),
          product(transposed(exact(g)), kept, dtype),
          columnSums(exact(g), dtype),
        ]
        const shapes = [[rows, C], [H, C], [H], [C, H], [C]]
        const targets = shapes.map((shape): Output => [shape, c])
        const inputs = [there(g), there(x), gotPre, parameters[0]!, parameters[2]!]
        const made = runMany(mlpBackward, inputs, targets, [tanh, 0])
        for (const [i, each] of wanted.entries())
          await expectWithin(made[i]!, rounded(each, dtype), what(`gradient ${i}`))
      }
    }
  })

  it('make the gradients of a whole training step as on the cpu', async () => {
    const config = { vocabSize: 17, blockSize: 8, nLayer: 2, nHead: 2, nEmbd: 16, dropout: 0 }
    const model = new models.GPT(config)
    const copy = new models.GPT(config).to('cuda')
    copy.loadStateDict(model.stateDict())
    const inputIds = zeros([2, 8], { dtype: 'int64' })
    const gradients = async (each: nn.Module & typeof model): Promise<number[][]> => {
      const ids = inputIds.to(each.parameters()[0]!.device)
      for (let i = 0; i < 2; i++) each.forward({ inputIds: ids, labels: ids }).loss!.backward()
      return Promise.all(each.parameters().map(async ({ grad }) => Array.from(await grad!.data(), Number)))
    }
    const [wanted, got] = [await gradients(model), await gradients(copy)]
    for (const [i, each] of wanted.entries()) {
      for (const [j, value] of each.entries()) expect(Math.abs(got[i]![j]! - value)).toBeLessThan(1e-4)
    }
  })

  it.each(['float32', 'bfloat16'] as const)('are captured in a graph, to the bit: %s', async (dtype) => {
    const inputs = [[24, 40], [88, 40], [88], [40, 88], [40]].map((shape, i) => there(numbers(shape, dtype, i)))
    const [x, w1, b1, w2, b2] = inputs as [Tensor, Tensor, Tensor, Tensor, Tensor]
    const call = (): Tensor => ops.mlp(x, w1, b1, w2, b2, { approximate: 'tanh' })
    const graph = new cuda.CUDAGraph()
    const captured = graph.capture(call)
    for (const seed of [7, 8]) {
      x.copy_(numbers([24, 40], dtype, seed))
      graph.replay()
      expect(await captured.data()).toEqual(await call().data())
    }
    // and a product that the library had not seen before
    const first = new cuda.CUDAGraph()
    const square = first.capture(() => w1.transpose(0, 1).matmul(w1))
    first.replay()
    const wanted = product(transposed(exact(w1)), exact(w1), dtype)
    await expectWithin(square, rounded(wanted, dtype), 'captured')
  })
})

describe('a machine', () => {
  const ask = (setting: string | undefined): { found: string; said: unknown } => {
    const script = `
      const { ones } = require('./dist')
      const { describeBlas } = require('./dist/tensor/cuda')
      const found = describeBlas()
      const x = ones([4, 4], { device: 'cuda' })
      x.matmul(x).data().then((d) => d[0], (e) => [e.name, e.message]).then((said) =>
        console.log(JSON.stringify({ found, said })))`
    const env = { ...process.env, CUDASIM_REPORT: '', GRADUS_CUBLASLT: setting }
    if (setting === undefined) delete env.GRADUS_CUBLASLT
    const { stdout } = spawnSync(process.execPath, ['-e', script], { encoding: 'utf8', env })
    return JSON.parse(stdout)
  }

  it('says which library it has, or that there is none', () => {
    const { found, said } = ask(undefined)
    expect(found).toMatch(
      /^cuBLASLt (13\.\d+\.\d+ \(libcublasLt\.so\.13\)$|not found \(libcublasLt\.so\.13\), products by)/,
    )
    expect(said).toBe(4)
  })

  it('has a line of gradus doctor for it', () => {
    const env = { ...process.env, CUDASIM_REPORT: '' }
    const { stdout } = spawnSync(process.execPath, ['dist/cli/main.js', 'doctor'], { encoding: 'utf8', env })
    expect(stdout.split('\n').map((line) => line.trim())).toContain(`cuBLAS       ${describeBlas()}`)
  })

  it('multiplies by our kernels where it is told to', () => {
    expect(ask('0')).toEqual({
      found: "cuBLASLt turned off by GRADUS_CUBLASLT=0, products by gradus's own kernels",
      said: 4,
    })
  })

  it('whose library is not there, or lacks a function, says so in a typed error', () => {
    const gone = ask('/nowhere/libcublasLt.so')
    expect(gone.said).toEqual([
      'DeviceError',
      expect.stringMatching(/^cuda: no cuBLASLt: got GRADUS_CUBLASLT=\/nowhere/),
    ])
    const other = require('node-gyp-build').resolve(join(__dirname, '../..')) // a library, but of something else
    const text = `cuda: cuBLASLt is not usable: got ${other} without cublasLtGetVersion, expected that of CUDA 13;`
    const lacking = ask(other)
    expect(lacking.said).toEqual(['DeviceError', expect.stringContaining(text)])
    expect(lacking.found).toContain(text)
  })
})
