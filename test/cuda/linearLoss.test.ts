// linear + cross entropy on cuda against the cpu, which is held to independent values in test/ops.
import { describe, expect, it } from 'vitest'
import { amp, type DType, ops, type Tensor, tensor, zeros } from '../../lib/index'
import { native, type Output, runMany } from '../../lib/tensor/dispatch'
import { checkLaunches, restartCounts } from './launches'
import { code, expectAlike, indices, values } from './support'

const op = native(
  'linearCrossEntropy',
  'ignoreIndex,labelSmoothing,reduction,gradients,skipIgnored,products,chunkBytes',
)
const [N, K, C] = [37, 24, 53]
const [mean, sum] = [1, 2]

interface Case {
  x: DType
  weight: DType
  ignored?: boolean
  classWeight?: boolean
  smoothing?: number
  reduction?: number
  gradients?: boolean
  skipIgnored?: boolean
  products?: DType
  chunkBytes?: number
  target?: DType
}

const cases: Record<string, Case> = {
  float32: { x: 'float32', weight: 'float32' },
  float64: { x: 'float64', weight: 'float64', smoothing: 0.1 },
  bfloat16: { x: 'bfloat16', weight: 'bfloat16' },
  'bfloat16 in chunks': { x: 'bfloat16', weight: 'bfloat16', chunkBytes: 10 * 2 * C, ignored: true },
  'products in bfloat16': { x: 'float32', weight: 'float32', products: 'bfloat16' },
  'a weight of another dtype': { x: 'float32', weight: 'float16', ignored: true },
  'ignored rows': { x: 'float32', weight: 'float32', ignored: true, classWeight: true, smoothing: 0.2 },
  'ignored rows, computed all the same': { x: 'float32', weight: 'float32', ignored: true, skipIgnored: false },
  'chunks, a sum': { x: 'float32', weight: 'float32', reduction: sum, chunkBytes: 7 * 4 * C, ignored: true },
  'chunks of all rows': { x: 'float32', weight: 'float32', chunkBytes: 7 * 4 * C, skipIgnored: false },
  'no gradients': { x: 'float32', weight: 'float32', gradients: false, ignored: true },
  'targets of int32': { x: 'float64', weight: 'float64', target: 'int32', ignored: true },
  'targets of uint8': { x: 'float32', weight: 'float32', target: 'uint8' },
}

const keptIn = (dtype: DType): number => code(dtype === 'float16' ? 'float32' : dtype)

function call(
  c: Case,
  on: 'cpu' | 'cuda',
  x: Tensor,
  weight: Tensor,
  target: Tensor,
  classWeight: Tensor | null,
): Tensor[] {
  const gradients = c.gradients ?? true
  const type = c.x === 'float64' ? code('float64') : code('float32')
  const outputs: Output[] = [
    [[], type],
    [[], type],
    [gradients ? x.shape : [0], keptIn(c.x)],
    [gradients ? weight.shape : [0], keptIn(c.weight)],
  ]
  const inputs = [x, weight, target, classWeight].map((each) => each?.to(on) ?? null)
  const flags = [gradients, c.skipIgnored ?? true].map(Number)
  return runMany(op, inputs, outputs, [
    -100,
    c.smoothing ?? 0,
    c.reduction ?? mean,
    ...flags,
    code(c.products ?? 'float32'),
    c.chunkBytes ?? 256 << 20,
  ])
}

function targets(c: Case): Tensor {
  const classes = values(N, 'int64', 5)
    .add(20)
    .clamp(0, C - 1)
  const target = c.ignored ? classes.maskedFill(values(N, 'float32', 6, true).lt(0), -100) : classes
  return c.target ? target.to(c.target) : target
}

describe('linearCrossEntropy', () => {
  it.each(Object.entries(cases))('%s', (what, c) => {
    const x = values(N * K, c.x, 1, true).view(N, K)
    const weight = values(C * K, c.weight, 2, true).view(C, K)
    const classWeight = c.classWeight ? values(C, 'float32', 3, true).abs() : null
    const operands = [x, weight, targets(c), classWeight] as const
    const wanted = call(c, 'cpu', ...operands)
    const got = call(c, 'cuda', ...operands)
    const low = c.products || c.x === 'bfloat16' || c.weight === 'bfloat16'
    for (const [i, each] of wanted.entries()) {
      if (low) expectNear(got[i]!, each, `${what}: output ${i}`)
      else expectAlike(got[i]!, each, `${what}: output ${i}`, 256)
    }
  })

  it('keeps what is not a number in an ignored row out of the gradients', () => {
    const x = values(N * K, 'float32', 1, true).view(N, K)
    x.select(0, 3).fill_(Number.NaN)
    const target = values(N, 'int64', 5)
      .add(20)
      .clamp(0, C - 1)
    target.select(0, 3).fill_(-100)
    const weight = values(C * K, 'float32', 2, true).view(C, K)
    const got = call({ x: 'float32', weight: 'float32' }, 'cuda', x, weight, target, null)
    for (const each of got) expect(Array.from(each.dataSync(), Number).every(Number.isFinite)).toBe(true)
  })

  it('is not a number over no rows, with gradients of 0', () => {
    const c: Case = { x: 'float32', weight: 'float32' }
    const x = values(4 * K, 'float32', 1, true).view(4, K)
    const weight = values(C * K, 'float32', 2, true).view(C, K)
    const all = tensor([-100, -100, -100, -100], { dtype: 'int64' })
    const [loss, , dx, dweight] = call(c, 'cuda', x, weight, all, null)
    expect(loss!.dataSync()[0]).toBeNaN()
    for (const each of [dx!, dweight!]) expect(each.dataSync().every((value) => value === 0)).toBe(true)
    const none = call(c, 'cuda', zeros([0, K]), weight, tensor([], { dtype: 'int64' }), null)
    expect(none[3]!.dataSync().every((value) => value === 0)).toBe(true)
  })

  it('reports a target that is no class at the next read', () => {
    const x = values(4 * K, 'float32', 1, true).view(4, K)
    const weight = values(C * K, 'float32', 2, true).view(C, K)
    const target = tensor([1, C, 0, 2], { dtype: 'int64' })
    const [loss] = call({ x: 'float32', weight: 'float32' }, 'cuda', x, weight, target, null)
    expect(() => loss!.dataSync()).toThrow(`linearCrossEntropy: target out of range: got ${C} in row 1`)
  })
})

describe('linearCrossEntropy in float16', () => {
  // Quarters: their logits are exact in float16, so all that is rounded are the gradients of the logits.
  const quarters = (shape: readonly number[], seed: number): Tensor => indices(shape, 9, 'float32', seed).sub(4).div(4)

  interface Half {
    rows: number
    classes: number
    smoothing?: number
    classWeight?: number
    skipIgnored?: boolean
    chunkBytes?: number
    parameters?: DType
  }
  const halfCases: Record<string, Half> = {
    'few classes': { rows: 37, classes: 53, smoothing: 0.1 },
    // over the divisor they would be below 2^-24, float16's least
    'gradients that are small by themselves': { rows: 300, classes: 1024 },
    'rows in chunks': { rows: 70, classes: 64, chunkBytes: 20 * 2 * 64 },
    'rows that stay in their places': { rows: 70, classes: 64, skipIgnored: false, chunkBytes: 20 * 2 * 64 },
    'large class weights': { rows: 40, classes: 48, classWeight: 3e5, smoothing: 0.2 },
    'small class weights': { rows: 40, classes: 48, classWeight: 3e-7, smoothing: 0.2 },
    'operands of float16': { rows: 40, classes: 48, parameters: 'float16' },
  }

  it.each(Object.entries(halfCases))('%s', async (_, c) => {
    const { rows, classes, smoothing = 0, skipIgnored = true, chunkBytes = 1 << 28, parameters = 'float32' } = c
    const [x, weight] = [quarters([rows, 24], 1), quarters([classes, 24], 2)]
    const all = indices([rows], classes, 'int64', 3)
    const target = all.maskedFill(indices([rows], 4, 'float32', 4).eq(0), -100)
    const classWeight =
      c.classWeight === undefined ? null : indices([classes], 7, 'float32', 5).add(1).mul(c.classWeight)
    const [gx, gw] = [x, weight].map((each) => each.to(parameters).to('cuda').requiresGrad_()) as [Tensor, Tensor]
    await restartCounts()
    const options = { labelSmoothing: smoothing, skipIgnored, chunkBytes, classWeight: classWeight?.to('cuda') ?? null }
    const loss = amp.autocast({ dtype: 'float16' }, () => ops.linearCrossEntropy(gx, gw, target.to('cuda'), options))
    loss.backward()
    await checkLaunches((launches) => {
      const products = [...launches.keys()].filter((name) => /^gradus_gemm_(mma|large|small)/.test(name))
      expect(products.every((name) => name.endsWith('_float16'))).toBe(true)
      expect(products.length).toBeGreaterThan(0)
    })

    const logits = x.to('float64').matmul(weight.to('float64').transpose(0, 1)).requiresGrad_()
    const wanted = ops.crossEntropy(logits, target, {
      labelSmoothing: smoothing,
      weight: classWeight?.to('float64') ?? null,
    })
    wanted.backward()
    expect(loss.dtype).toBe('float32')
    expect(Math.abs(loss.itemSync() - wanted.itemSync())).toBeLessThan(2 ** -20 * wanted.itemSync())
    // half a unit of float16 for each gradient, and for its exponential and the sums float32's
    const g = logits.grad!
    const kept = parameters === 'float16' ? 2 ** -11 : 0 // gradients of float16 are rounded themselves
    const close = (got: Tensor, by: Tensor, magnitudes: Tensor, what: string): void => {
      const [a, b, sizes] = [got, by, magnitudes].map((each) => each.dataSync())
      b!.forEach((value, i) => {
        const bound = (2 ** -11 + 2 ** -18) * Number(sizes![i]) + kept * (Math.abs(Number(value)) + 2 ** -14)
        const error = Math.abs(Number(a![i]) - Number(value))
        if (!(error <= bound)) expect.fail(`${what}: element ${i} is ${a![i]}, by float64 ${value}`)
      })
    }
    const [x64, w64] = [x.to('float64'), weight.to('float64')]
    close(gx.grad!, g.matmul(w64), g.abs().matmul(w64.abs()), 'dx')
    const gT = g.transpose(0, 1)
    close(gw.grad!, gT.matmul(x64), gT.abs().matmul(x64.abs()), 'dweight')
  })
})

/** Within what logits that are rounded to bfloat16 allow: of the largest value. */
function expectNear(got: Tensor, wanted: Tensor, what: string): void {
  expect([got.shape, got.dtype], what).toEqual([wanted.shape, wanted.dtype])
  const [a, b] = [got.to('cpu').to('float32').dataSync(), wanted.to('float32').dataSync()].map((x) =>
    Array.from(x as Float32Array),
  )
  const largest = Math.max(...b!.map(Math.abs))
  for (const [i, y] of b!.entries()) {
    expect(Math.abs(a![i]! - y), `${what}: element ${i}`).toBeLessThanOrEqual(0.02 * largest)
  }
}
