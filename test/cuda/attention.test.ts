// Attention on cuda against the cpu, which is held to independent values in test/ops.
import { describe, expect, it } from 'vitest'
import { type DType, device, fromTypedArray, type Tensor, tensor } from '../../lib/index'
import { native, type Output, runMany } from '../../lib/tensor/dispatch'

const cuda = device('cuda')
const floats: DType[] = ['float32', 'float64', 'float16', 'bfloat16']
const names = 'scale,causal,seed,offset,p,left,right,blockQueries,blockKeys'
const forward = native('attention', names)
const backward = native('attentionBackward', `${names},layout`)
const statistics = native('attentionStatistics', names)
const weights = native('attentionWeights', names)
const tolerance: Partial<Record<DType, number>> = { float32: 2e-5, float64: 1e-12, float16: 4e-3, bfloat16: 3e-2 }

function expectAlike(got: Tensor, wanted: Tensor, what: string, bound: number): void {
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
  const numbers = Float64Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state / 2 ** 31 - 1
  })
  return fromTypedArray(numbers).to(dtype).view(shape)
}

interface Case {
  /** B, H, Hkv, L, S, D, Dv */
  sizes: [number, number, number, number, number, number, number]
  causal?: boolean
  p?: number
  window?: [number, number]
  block?: [number, number]
  masks?: (Tensor | null)[]
}

const bools = (shape: number[], share: number): Tensor => values(shape, 'float32', 9).lt(share)

// Heads of up to 32, 64, 128 and 256 features have kernels of their own on tensor cores, and tiles of 32, 64 or 128
// rows: sizes are around those.
const cases: Record<string, Case> = {
  plain: { sizes: [2, 2, 2, 40, 40, 16, 16] },
  causal: { sizes: [1, 2, 2, 140, 140, 32, 32], causal: true },
  'odd sizes': { sizes: [2, 3, 3, 5, 37, 7, 9] },
  'more keys than queries, causal': { sizes: [1, 1, 1, 65, 130, 64, 64], causal: true },
  'more queries than keys': { sizes: [1, 1, 1, 130, 33, 40, 64] },
  'shared heads': { sizes: [1, 4, 2, 33, 33, 20, 20], causal: true },
  'one query': { sizes: [1, 2, 1, 1, 65, 64, 64] },
  '128 features': { sizes: [1, 2, 1, 70, 70, 128, 128], causal: true },
  '256 features': { sizes: [1, 2, 1, 66, 68, 256, 200], causal: true },
  'values wider than keys': { sizes: [1, 1, 1, 33, 34, 24, 130] },
  'very large heads': { sizes: [1, 1, 1, 33, 34, 130, 300], causal: true },
  window: { sizes: [1, 2, 2, 200, 200, 8, 8], window: [9, 3] },
  'window to the left': { sizes: [1, 1, 1, 150, 150, 72, 72], window: [70, 0] },
  dropout: { sizes: [2, 2, 2, 34, 36, 16, 16], p: 0.3 },
  'dropout of odd rows': { sizes: [2, 2, 1, 34, 35, 40, 40], p: 0.3, causal: true },
  'dropout of everything': { sizes: [1, 1, 1, 9, 9, 16, 16], p: 1 },
  'boolean mask': { sizes: [2, 2, 2, 34, 40, 16, 16], masks: [bools([2, 1, 34, 40], 0.5)] },
  'padding mask': { sizes: [2, 2, 2, 34, 40, 16, 16], masks: [bools([2, 1, 1, 40], -0.5)] },
  'nothing visible': { sizes: [1, 1, 1, 34, 40, 16, 16], masks: [bools([1, 40], -2)] },
  'additive mask': { sizes: [1, 2, 2, 34, 40, 16, 16], masks: [values([2, 34, 40], 'float32', 5)] },
  'additive mask of 16 bits': { sizes: [1, 2, 2, 34, 40, 16, 16], masks: [values([34, 40], 'bfloat16', 5)] },
  'mask of -1e9 over whole rows': {
    sizes: [1, 1, 1, 6, 40, 16, 16],
    masks: [values([6, 1], 'float32', 5).lt(0).to('float32').mul(-1e9)],
  },
  'absorbing mask': {
    sizes: [1, 1, 1, 6, 40, 16, 16],
    masks: [values([40], 'float32', 5).lt(0).to('float32').mul(-1e35)],
  },
  'key lengths': { sizes: [3, 2, 2, 34, 70, 16, 16], masks: [null, null, tensor([70, 0, 33], { dtype: 'int64' })] },
  packed: {
    sizes: [1, 2, 1, 80, 83, 16, 16],
    causal: true,
    masks: [null, tensor([0, 40, 40, 73, 80], { dtype: 'int32' }), tensor([0, 45, 46, 80, 83], { dtype: 'int32' })],
  },
  blocks: { sizes: [1, 2, 2, 140, 140, 16, 16], block: [16, 24], masks: [null, null, null, bools([2, 9, 6], 0.2)] },
  'fine blocks': { sizes: [1, 1, 1, 40, 70, 48, 48], block: [1, 3], masks: [null, null, null, bools([40, 24], -0.4)] },
}

/** Those of forward: beside an additive mask, maximum and sum of a row. */
function forwardOutputs({ sizes: [B, H, , L, , , Dv], masks = [] }: Case, dtype: DType): Output[] {
  const apart = masks[0] != null && masks[0].dtype !== 'bool'
  return [
    [[B, L, H, Dv], floats.indexOf(dtype)],
    [apart ? [2, B, H, L] : [B, H, L], dtype === 'float64' ? 1 : 0],
  ]
}

const attributes = (c: Case): number[] => [
  c.sizes[5] ** -0.5,
  c.causal ? 1 : 0,
  7,
  11,
  c.p ?? 0,
  ...(c.window ?? [-1, -1]),
  ...(c.block ?? [0, 0]),
]

const heads = (x: Tensor): Tensor => x.transpose(1, 2)

describe.each(floats)('attention: %s', (dtype) => {
  it.each(Object.entries(cases))('%s', (what, c) => {
    const [B, H, Hkv, L, S, D, Dv] = c.sizes
    const code = floats.indexOf(dtype)
    const attrs = attributes(c)
    const masks = c.masks ?? []
    // positions before heads, as projections leave them
    const merged = [values([B, L, H, D], dtype, 1), values([B, S, Hkv, D], dtype, 2), values([B, S, Hkv, Dv], dtype, 3)]
    const g = values([B, L, H, Dv], dtype, 4)
    const outputs = forwardOutputs(c, dtype)
    const wanted = runMany(forward, [...merged.map(heads), ...masks], outputs, attrs)
    const onCuda = merged.map((x) => heads(x.to('cuda')))
    const masksOnCuda = masks.map((x) => x?.to('cuda') ?? null)
    const got = runMany(forward, [...onCuda, ...masksOnCuda], outputs, attrs)
    const bound = tolerance[dtype]!
    expectAlike(got[0]!, wanted[0]!, `${what}: output`, bound)
    expectAlike(got[1]!, wanted[1]!, `${what}: logsumexp`, bound)
    const [out, logsumexp] = wanted as [Tensor, Tensor]
    for (const layout of [0, 2]) {
      const shape = (n: number, h: number, d: number): Output => [layout === 0 ? [B, n, h, d] : [B, h, n, d], code]
      const gradients = [shape(L, H, D), shape(S, Hkv, D), shape(S, Hkv, Dv)]
      const inputs = [heads(g), ...merged.map(heads), heads(out), logsumexp, ...masks]
      const expected = runMany(backward, inputs, gradients, [...attrs, layout])
      const again = [heads(g.to('cuda')), ...onCuda, heads(out.to('cuda')), logsumexp.to('cuda'), ...masksOnCuda]
      const made = runMany(backward, again, gradients, [...attrs, layout])
      for (const i of [0, 1, 2]) expectAlike(made[i]!, expected[i]!, `${what}: gradient ${i}`, 4 * bound)
    }
  })

  it.each(Object.entries(cases).filter(([, { masks = [] }]) => masks[1] == null))('looks at weights: %s', (what, c) => {
    const [B, H, Hkv, L, S, D, Dv] = c.sizes
    const masks = c.masks ?? []
    const attrs = attributes({ ...c, p: 0 })
    const [q, k, v] = [
      values([B, L, H, D], dtype, 1),
      values([B, S, Hkv, D], dtype, 2),
      values([B, S, Hkv, Dv], dtype, 3),
    ]
    const [, terms] = runMany(forward, [heads(q), heads(k), heads(v), ...masks], forwardOutputs(c, dtype), attrs)
    const type = dtype === 'float64' ? 1 : 0
    const here = [heads(q), heads(k), terms!, ...masks]
    const there = [
      heads(q.to('cuda')),
      heads(k.to('cuda')),
      terms!.to('cuda'),
      ...masks.map((x) => x?.to('cuda') ?? null),
    ]
    const rows: Output[] = [
      [[B, H, L], type],
      [[B, H, S], type],
    ]
    const whole: Output[] = [[[B, H, L, S], floats.indexOf(dtype)]]
    const bound = 4 * tolerance[dtype]!
    const [wanted, got] = [here, there].map((inputs) => runMany(statistics, inputs, rows, attrs)) as [
      Tensor[],
      Tensor[],
    ]
    expectAlike(got[0]!, wanted[0]!, `${what}: entropy`, bound)
    expectAlike(got[1]!, wanted[1]!, `${what}: received`, bound)
    expectAlike(runMany(weights, there, whole, attrs)[0]!, runMany(weights, here, whole, attrs)[0]!, what, bound)
  })

  it('takes operands in any strides', () => {
    const [B, H, L, S, D] = [2, 2, 20, 40, 24]
    // every second feature of a wider tensor, and heads that begin anywhere
    const wide = (n: number, seed: number): Tensor => values([B, H, n, 2 * D + 1], dtype, seed)
    const cut = (x: Tensor): Tensor => x.slice(3, 1, 2 * D + 1, 2)
    const shift = (x: Tensor): Tensor => x.slice(3, 1, D + 1)
    const [q, k, v] = [wide(L, 1), wide(S, 2), wide(S, 3)]
    const outputs: Output[] = [
      [[B, L, H, D], floats.indexOf(dtype)],
      [[B, H, L], dtype === 'float64' ? 1 : 0],
    ]
    const attrs = [D ** -0.5, 0, 0, 0, 0, -1, -1, 0, 0]
    const [wanted] = runMany(forward, [cut(q), shift(k), shift(v)], outputs, attrs)
    const [got] = runMany(forward, [cut(q.to('cuda')), shift(k.to('cuda')), shift(v.to('cuda'))], outputs, attrs)
    expectAlike(got!, wanted!, 'strides', tolerance[dtype]!)
  })

  it('writes the gradients of one projection', () => {
    const [B, T, H, D] = [2, 35, 2, 8]
    const code = floats.indexOf(dtype)
    const qkv = values([B, T, 3, H, D], dtype, 1)
    const parts = (x: Tensor): Tensor[] => [0, 1, 2].map((i) => heads(x.select(2, i)))
    const attrs = [D ** -0.5, 1, 0, 0, 0, -1, -1, 0, 0]
    const outputs: Output[] = [
      [[B, T, H, D], code],
      [[B, H, T], dtype === 'float64' ? 1 : 0],
    ]
    const [out, logsumexp] = runMany(forward, parts(qkv), outputs, attrs) as [Tensor, Tensor]
    const g = values([B, T, H, D], dtype, 2)
    const gradients: Output[] = [
      [[B, T, 3, H, D], code],
      [[0], code],
      [[0], code],
    ]
    const [wanted] = runMany(backward, [heads(g), ...parts(qkv), heads(out), logsumexp], gradients, [...attrs, 1])
    const inputs = [heads(g.to('cuda')), ...parts(qkv.to('cuda')), heads(out.to('cuda')), logsumexp.to('cuda')]
    expectAlike(runMany(backward, inputs, gradients, [...attrs, 1])[0]!, wanted!, 'fused', 4 * tolerance[dtype]!)
  })
})

it('attention: refuses lengths that do not describe the operands, and reports them at the read', () => {
  const [q, k] = [values([2, 1, 5, 8], 'float32', 1).to('cuda'), values([2, 1, 6, 8], 'float32', 2).to('cuda')]
  const outputs: Output[] = [
    [[2, 5, 1, 8], 0],
    [[2, 1, 5], 0],
  ]
  const lengths = tensor([6, 7], { dtype: 'int64' }).to('cuda')
  const attrs = [1, 0, 0, 0, 0, -1, -1, 0, 0]
  const [out] = runMany(forward, [q, k, k, null, null, lengths], outputs, attrs)
  expect(() => out!.dataSync()).toThrow(
    'attention: a length of keyLengths is out of range: got 7 for batch entry 1, expected 0 to 6',
  )
})
