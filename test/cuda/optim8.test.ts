// AdamW with 8-bit states on cuda against the cpu: the same codes, several steps in a row.
import { describe, expect, it } from 'vitest'
import { type DType, full, type Tensor, tensor, zeros } from '../../lib/index'
import { native, runMany } from '../../lib/tensor/dispatch'
import { expectSame } from './alike'
import { code, expectAlike, expectEqual, spread } from './support'

const blocks = (n: number): number => Math.ceil(n / 256)
const sizes = [1, 7, 255, 256, 257, 4096, 20_001]
const attributes = 'count,counted,maxNorm,lr,beta1,beta2,eps,weightDecay,decoupled,amsgrad,maximize,step'

describe('8-bit blocks', () => {
  for (const signed of [1, 0]) {
    it(`of ${signed ? 'signed' : 'positive'} numbers and back, to the bit`, () => {
      for (const n of sizes) {
        // seven decades and more
        const x = spread([n])
          .pow(2)
          .mul(spread([n], 'float32', 2).exp())
          .pow(2)
          .mul(spread([n], 'float32', 3).sign())
        const of = signed ? x : x.abs()
        const [codes, magnitudes] = expectSame(
          {
            op: 'quantizeBlocks',
            attributes: 'signed',
            attrs: [signed],
            inputs: [of],
            outputs: [
              [[n], code('uint8')],
              [[blocks(n)], code('float32')],
            ],
          },
          { ulps: 0 },
        )
        const every = tensor(
          Array.from({ length: n }, (_, i) => i % 256),
          { dtype: 'uint8' },
        )
        for (const from of [codes!, every]) {
          const inputs = [from, magnitudes!]
          const outputs = [[[n], code('float32')] as const]
          expectSame({ op: 'dequantizeBlocks', attributes: 'signed', attrs: [signed], inputs, outputs }, { ulps: 0 })
        }
      }
    })
  }

  it('that begin beside a boundary', () => {
    const take = (x: Tensor): Tensor => (x.dtype === 'uint8' || x.numel > 2 ? x.slice(0, 3) : x)
    const outputs = [[[300], code('uint8')] as const, [[2], code('float32')] as const]
    const call = { attributes: 'signed', attrs: [1], take }
    const [codes, magnitudes] = expectSame(
      { ...call, op: 'quantizeBlocks', inputs: [spread([303])], outputs },
      { ulps: 0 },
    )
    const inputs = [full([303], 9, { dtype: 'uint8' }), magnitudes!]
    expectSame({ ...call, op: 'dequantizeBlocks', inputs, outputs: [[[300], code('float32')]] }, { ulps: 0 })
    expect(codes!.numel).toBe(300)
  })

  it('of nothing but zeros', () => {
    const outputs = [[[300], code('uint8')] as const, [[2], code('float32')] as const]
    const [codes] = expectSame({
      op: 'quantizeBlocks',
      attributes: 'signed',
      attrs: [1],
      inputs: [zeros([300])],
      outputs,
    })
    expect(new Set(codes!.arraySync() as number[])).toEqual(new Set([127]))
  })
})

interface Setting {
  counted: boolean
  scale?: number
  foundInf?: number
  norm?: number
}

const types: [DType, DType][] = [
  ['float32', 'float32'],
  ['float16', 'float16'],
  ['bfloat16', 'bfloat16'],
  ['float16', 'float32'],
  ['bfloat16', 'float32'],
]

/** Parameters, codes, magnitudes and counts after three steps. */
function steps(place: 'cpu' | 'cuda', setting: Setting, count: number): Tensor[] {
  const kinds = Array.from({ length: count }, (_, i) => ({ n: sizes[i % 5]!, type: types[i % types.length]! }))
  const params = kinds.map(({ n, type }, i) => spread([n], type[0], i + 1).to(place))
  const codes = [127, 0].flatMap((zero) => kinds.map(({ n }) => full([n], zero, { dtype: 'uint8', device: place })))
  const magnitudes = [0, 1].flatMap(() => kinds.map(({ n }) => zeros([blocks(n)], { device: place })))
  const counts = setting.counted ? kinds.map(() => zeros([], { device: place })) : []
  const number = (x: number | undefined): Tensor | null => (x === undefined ? null : full([], x, { device: place }))
  const results = [...params, ...codes, ...magnitudes, ...counts]
  for (let step = 1; step <= 3; step++) {
    const grads = kinds.map(({ n, type }, i) => spread([n], type[1], 100 * step + i).to(place))
    const conditions = [number(setting.scale), number(setting.foundInf), number(setting.norm)]
    runMany(
      native('adamw8bit', attributes),
      [...params, ...grads, ...codes, ...magnitudes, ...counts, ...conditions],
      results,
      [count, Number(setting.counted), 1.5, 0.01, 0.9, 0.99, 1e-8, 0.1, 1, 0, 0, step],
    )
  }
  return results
}

describe('AdamW with 8-bit states', () => {
  it.each([
    { counted: false },
    { counted: true, scale: 4, foundInf: 0, norm: 6 },
    { counted: true, foundInf: 1 },
    { counted: false, norm: 0.5 },
  ] as Setting[])('%o', (setting) => {
    for (const count of [6, 60]) {
      const here = steps('cpu', setting, count)
      steps('cuda', setting, count).forEach((x, i) => {
        const what = `${count} tensors, result ${i}`
        if (x.dtype === 'uint8') expectEqual(x, here[i]!, what)
        else expectAlike(x, here[i]!, what, 16, 1)
      })
    }
  })
})
