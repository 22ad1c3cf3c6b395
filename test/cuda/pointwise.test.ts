// Pointwise operators on cuda against the cpu, which is held to independent values in test/ops.
import { describe, expect, it } from 'vitest'
import { type DType, isFloatingPoint, ones, ops, StateError, type Tensor, tensor, zeros } from '../../lib/index'
import { native, run } from '../../lib/tensor/dispatch'
import { all, code, cuda, expectAlike, floats, values, whole } from './support'

interface Case {
  op: string
  attributes: string
  attrs?: number[]
  inputs: number
  /** Dtypes beside the floating ones. */
  more?: readonly DType[]
  gives?: DType
  ulps?: number
}

const unary = (names: string, rest: Partial<Case> = {}): Case[] =>
  names.split(' ').map((op) => ({ op, attributes: '', inputs: 1, ...rest }))
const pair = (names: string, rest: Partial<Case> = {}): Case[] =>
  names.split(' ').map((op) => ({ op, attributes: 'scalar,reversed', attrs: [0, 0], inputs: 2, ...rest }))

const cases: Case[] = [
  ...unary('neg abs sign square relu round floor ceil trunc', { more: whole }),
  ...unary('exp expm1 log log1p log2 sqrt rsqrt sin cos tanh sigmoid erf reciprocal silu'),
  ...unary('logicalNot isnan isinf isfinite', { more: [...whole, 'bool'], gives: 'bool' }),
  ...unary('softplus', { attributes: 'beta,threshold', attrs: [2, 20] }),
  ...unary('gelu', { attributes: 'tanh', attrs: [0], ulps: 64 }),
  ...unary('gelu', { attributes: 'tanh', attrs: [1], ulps: 64 }),
  ...unary('clamp', { attributes: 'min,max', attrs: [-1, 2], more: ['int64', 'int32'] }),
  ...unary('tanhBackward sigmoidBackward reluBackward siluBackward signBackwardAbs', { inputs: 2, ulps: 64 }),
  ...unary('softplusBackward', { attributes: 'beta,threshold', attrs: [2, 20], inputs: 2, ulps: 64 }),
  ...unary('geluBackward', { attributes: 'tanh', attrs: [0], inputs: 2, ulps: 1024 }),
  ...unary('geluBackward', { attributes: 'tanh', attrs: [1], inputs: 2, ulps: 1024 }),
  ...unary('clampBackward', { attributes: 'min,max', attrs: [-1, 2], inputs: 2 }),
  ...pair('add sub', { attributes: 'scalar,reversed,alpha', attrs: [0, 0, 3], more: whole }),
  ...pair('mul maximum minimum pow', { more: whole, ulps: 16 }),
  ...pair('div floorDivide truncDivide remainder'),
  ...pair('eq ne lt le gt ge logicalAnd logicalOr logicalXor', { more: [...whole, 'bool'], gives: 'bool' }),
  ...unary('addcmul', { attributes: 'value', attrs: [2], inputs: 3, more: whole }),
]

describe('pointwise operators', () => {
  for (const { op, attributes, attrs = [], inputs, more = [], gives, ulps } of cases) {
    const row = native(op, attributes)
    for (const dtype of [...floats, ...more]) {
      it(`${op} ${attrs.join()} of ${dtype}`, () => {
        // dense with a tail, dense but not aligned, and through strides
        for (const take of [
          (x: Tensor) => x,
          (x: Tensor) => x.slice(0, 1),
          (x: Tensor) => x.view(17, 6).transpose(0, 1),
        ]) {
          const operands = Array.from({ length: inputs }, (_, i) => values(102, dtype, i + 1))
          const there = operands.map((x) => take(x.to('cuda')))
          const here = operands.map(take)
          const out = gives ?? dtype
          expectAlike(
            run(row, there, here[0]!.shape, code(out), attrs),
            run(row, here, here[0]!.shape, code(out), attrs),
            `${op} of ${dtype} ${here[0]!.shape}`,
            ulps,
          )
        }
      })
    }
  }

  it('take a number on either side', () => {
    const x = values(70, 'float32')
    const y = x.to('cuda')
    for (const f of [
      (a: Tensor) => a.mul(3),
      (a: Tensor) => ops.sub(2, a),
      (a: Tensor) => ops.div(1, a),
      (a: Tensor) => a.lt(0.5),
    ]) {
      expectAlike(f(y), f(x), String(f))
    }
  })

  it('broadcast', () => {
    const [a, b, c] = [values(24, 'float32'), values(6, 'bfloat16', 2), values(4, 'int32', 3)]
    const sum = (x: Tensor, y: Tensor, z: Tensor): Tensor => x.view(4, 6).add(y).mul(z.view(4, 1))
    expectAlike(sum(a.to('cuda'), b.to('cuda'), c.to('cuda')), sum(a, b, c), 'broadcast')
    const nine = (x: Tensor): Tensor => x.view(1, 2, 1, 3, 1, 2, 1, 2).add(x.view(2, 1, 3, 1, 2, 1, 2, 1))
    expectAlike(nine(a.to('cuda')), nine(a), 'eight dims')
  })

  it.each(all)('of %s read and write runs of 128 bits, whatever lies around them', (dtype) => {
    // rows of 16 of which as many are taken as make whole runs, or leave a rest, or begin beside a boundary
    const make = (seed: number): Tensor => values(6 * 16, dtype, seed, true).view(6, 16)
    const [a, b, other] = [make(1), make(2), values(16, 'int32', 3).view(1, 16)]
    const plus = (x: Tensor, y: Tensor): Tensor => (dtype === 'bool' ? x.ne(y) : x.add(y))
    const forms: ((cut: (x: Tensor) => Tensor, x: Tensor, y: Tensor, z: Tensor) => Tensor)[] = [
      (cut, x, y) => plus(cut(x), cut(y).slice(0, 2, 3)),
      (cut, x, y) => plus(cut(x), y.slice(1, 5, 6)),
      (cut, x, _, z) => cut(x).eq(cut(z)),
      (cut, x, y) => ops.where(cut(x).ne(cut(y)), cut(x), cut(y).slice(0, 1, 2)),
      (cut, x) => cut(x).logicalNot(),
      (cut, x, y) => {
        const to = x.clone()
        if (dtype !== 'bool') cut(to).add_(cut(y))
        return to
      },
    ]
    const [x, y, z] = [a, b, other].map((t) => t.to('cuda')) as [Tensor, Tensor, Tensor]
    for (const [from, to] of [
      [0, 16],
      [0, 8],
      [0, 11],
      [1, 13],
      [3, 4],
    ] as const) {
      const cut = (t: Tensor): Tensor => t.slice(1, from, to)
      for (const form of forms) expectAlike(form(cut, x, y, z), form(cut, a, b, other), `${form}, ${from} to ${to}`)
    }
  })

  it('choose by a condition', () => {
    const [mask, x, y] = [values(12, 'bool'), values(12, 'float16', 2), values(12, 'float16', 3)]
    expectAlike(ops.where(mask.to('cuda'), x.to('cuda'), y.to('cuda')), ops.where(mask, x, y), 'where')
    expectAlike(x.to('cuda').maskedFill(mask.to('cuda'), -1), x.maskedFill(mask, -1), 'maskedFill')
  })

  it('work in place', () => {
    const x = ones([5], { device: 'cuda' })
    x.add_(2).mul_(x)
    expect(x.arraySync()).toEqual([9, 9, 9, 9, 9])
    x.view(5).slice(0, 0, 5, 2).fill_(0)
    expect(x.arraySync()).toEqual([0, 9, 0, 9, 0])
  })

  it('take empty tensors', () => {
    expect(zeros([0, 3], { device: 'cuda' }).add(1).arraySync()).toEqual([])
  })
})

describe('copies', () => {
  it.each(all)('cast %s to every dtype', (from) => {
    const finite = values(64, from)
    for (const to of all) {
      const x =
        isFloatingPoint(to) || to === 'bool' || !isFloatingPoint(from)
          ? finite
          : ops.where(finite.isfinite(), finite, 5)
      expectAlike(x.to('cuda').to(to), x.to(to), `${from} to ${to}`)
    }
  })

  it('write and read any strides', () => {
    const x = values(60, 'float32').view(3, 4, 5)
    const y = x.to('cuda')
    expectAlike(y.permute(2, 0, 1).contiguous(), x.permute(2, 0, 1).contiguous(), 'permute')
    expectAlike(y.slice(1, 1, 4, 2).flip([2]), x.slice(1, 1, 4, 2).flip([2]), 'steps')
    expect(y.permute(1, 2, 0).arraySync()).toEqual(x.permute(1, 2, 0).arraySync())
    expect(x.permute(2, 1, 0).to('cuda').arraySync()).toEqual(x.permute(2, 1, 0).arraySync())
  })

  it.each(all)('of %s move rows that lie apart', (from) => {
    const x = values(3 * 4 * 2 * 16, from, 1, true).view(3, 4, 2, 16)
    const y = x.to('cuda')
    for (const to of all) {
      const swap = (t: Tensor): Tensor => t.transpose(1, 2).contiguous().to(to)
      const cast = (t: Tensor): Tensor => t.transpose(1, 2).to(to)
      const part = (t: Tensor): Tensor => t.slice(3, 0, 12).to(to)
      for (const form of [swap, cast, part]) expectAlike(form(y), form(x), `${from} to ${to}, ${form}`)
    }
  })

  it.each(all)('of one number fill %s from any place on, and nothing beside it', (dtype) => {
    for (const n of [1, 5, 16, 17, 300]) {
      for (const first of [0, 1, 3]) {
        const fill = (t: Tensor): Tensor => {
          t.slice(0, first, first + n).fill_(dtype === 'bool' ? 1 : 7)
          return t
        }
        const make = (): Tensor => values(n + first + 5, dtype, 4, true)
        expectAlike(fill(make().to('cuda')), fill(make()), `${dtype}, ${n} from ${first}`, 0)
      }
    }
  })

  it('make numbers', () => {
    for (const dtype of all) {
      expect(ops.where(tensor([true], { device: 'cuda' }), 1, 0).arraySync()).toEqual([1])
      expectAlike(ones([7], { dtype, device: 'cuda' }), ones([7], { dtype }), `ones of ${dtype}`)
    }
    expect(tensor([1, 2, 3], { dtype: 'int64', device: 'cuda' }).arraySync()).toEqual([1, 2, 3])
  })
})

describe('failures on the device', () => {
  it('of integers divided by zero are found wherever they stand', () => {
    for (const dtype of whole) {
      for (const [n, at] of [
        [8, 7],
        [9, 8],
        [33, 32],
        [64, 1],
      ] as const) {
        const divisor = Array.from({ length: n }, (_, i) => (i === at ? 0 : 2))
        for (const first of [0, 1]) {
          const x = tensor([1, ...divisor], { dtype, device: 'cuda' }).slice(0, 1 - first)
          x.floorDivide(x)
          expect(() => cuda.synchronizeSync(), `${dtype} ${n} ${at}`).toThrow('division of integers by zero')
          x.floorDivide(x.add(5))
          cuda.synchronizeSync()
        }
      }
    }
  })

  it('of integers divided by zero are thrown at the next wait, once', async () => {
    const x = tensor([4, 6], { dtype: 'int64', device: 'cuda' })
    const zero = tensor([2, 0], { dtype: 'int64', device: 'cuda' })
    const quotient = x.floorDivide(zero)
    await expect(quotient.array()).rejects.toThrow(StateError)
    await cuda.synchronize()
    x.floorDivide(zero)
    expect(() => cuda.synchronizeSync()).toThrow('floorDivide: division of integers by zero')
    expect(await x.add(1).array()).toEqual([5, 7])
  })
})
