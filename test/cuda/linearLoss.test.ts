// linear + cross entropy on cuda against the cpu, which is held to independent values in test/ops.
import { describe, expect, it } from 'vitest'
import { type DType, type Tensor, tensor, zeros } from '../../lib/index'
import { native, type Output, runMany } from '../../lib/tensor/dispatch'
import { code, expectAlike, values } from './support'

const op = native(
  'linearCrossEntropy',
  'ignoreIndex,labelSmoothing,reduction,gradients,skipIgnored,inBFloat16,chunkBytes',
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
  inBFloat16?: boolean
  chunkBytes?: number
  target?: DType
}

const cases: Record<string, Case> = {
  float32: { x: 'float32', weight: 'float32' },
  float64: { x: 'float64', weight: 'float64', smoothing: 0.1 },
  float16: { x: 'float16', weight: 'float16', smoothing: 0.1 },
  bfloat16: { x: 'bfloat16', weight: 'bfloat16' },
  'bfloat16 in chunks': { x: 'bfloat16', weight: 'bfloat16', chunkBytes: 10 * 2 * C, ignored: true },
  'products in bfloat16': { x: 'float32', weight: 'float32', inBFloat16: true },
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
  const flags = [gradients, c.skipIgnored ?? true, c.inBFloat16 ?? false].map(Number)
  return runMany(op, inputs, outputs, [
    -100,
    c.smoothing ?? 0,
    c.reduction ?? mean,
    ...flags,
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
    const low = c.inBFloat16 || c.x === 'bfloat16' || c.weight === 'bfloat16'
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
