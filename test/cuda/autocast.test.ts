// What products multiply under autocast: 16 bits on tensor cores, from operands of any dtype, each parameter cast once.
import { beforeEach, describe, expect, it } from 'vitest'
import { amp, autograd, noGrad, ops, type Tensor } from '../../lib/index'
import { checkLaunches, countOf, restartCounts } from './launches'
import { cuda as device, spread } from './support'

const halves = ['float16', 'bfloat16'] as const
type Half = (typeof halves)[number]

// Units of rounding: of the 16-bit dtypes, and of float32, in which sums are made.
const unit = { float16: 2 ** -11, bfloat16: 2 ** -8, float32: 2 ** -24 } as const

beforeEach(restartCounts)

const elements = (x: Tensor): number[] => Array.from(x.dataSync(), Number)

/** A leaf on cuda, and what a product under autocast sees of it, in float64. */
function operand(shape: number[], seed: number, half: Half): { x: Tensor; seen: Tensor } {
  const x = spread(shape, 'float32', seed).mul(0.25)
  return { x: x.to(device).requiresGrad_(), seen: x.to(half).to('float64') }
}

/** Expects what float64 gives for the same operands: sums of `terms` products, rounded to the dtype of the result. */
function expectSums(got: Tensor, wanted: Tensor, magnitudes: Tensor, terms: number, what: string): void {
  const [a, b, sizes] = [got, wanted, magnitudes].map((x) => x.dataSync())
  const rounding = unit[got.dtype as Half | 'float32']
  b!.forEach((value, i) => {
    const bound = rounding * Math.abs(Number(value)) + terms * unit.float32 * Number(sizes![i])
    const error = Math.abs(Number(a![i]) - Number(value))
    if (!(error <= bound))
      expect.fail(`${what}: element ${i} is ${a![i]}, by float64 ${value}, off by ${error / bound}`)
  })
}

/** Expects x y as the product, and as gradients g y' and x' g. */
function expectProduct(out: Tensor, a: Tensor, b: Tensor, half: Half, seen: { a: Tensor; b: Tensor }): void {
  const [m, k, n] = [a.shape[0]!, a.shape[1]!, b.shape[1]!]
  const g = spread([m, n], half, 5)
  out.backward(g.to(device))
  const [g64, t] = [g.to('float64'), (x: Tensor) => x.transpose(0, 1)]
  const sums = (got: Tensor, x: Tensor, y: Tensor, terms: number, what: string): void =>
    expectSums(got, x.matmul(y), x.abs().matmul(y.abs()), terms, what)
  sums(out, seen.a, seen.b, k, 'the product')
  sums(a.grad!, g64, t(seen.b), n, 'da')
  sums(b.grad!, t(seen.a), g64, m, 'db')
  expect([out.dtype, a.grad!.dtype, b.grad!.dtype]).toEqual([half, 'float32', 'float32'])
}

function expectTensorCores(half: Half, products: number): Promise<void> {
  return checkLaunches((launches) => {
    expect(countOf(launches, new RegExp(`^gradus_gemm_mma_\\w+_.._${half}$`))).toBe(products)
    expect(countOf(launches, /^gradus_gemm_(small|large)_/)).toBe(0)
  })
}

describe.each(halves)('autocast to %s', (half) => {
  it('multiplies matrices on tensor cores, forward and backward', async () => {
    const [a, b] = [operand([130, 72], 1, half), operand([72, 136], 2, half)]
    const out = amp.autocast({ dtype: half }, () => a.x.matmul(b.x))
    expectProduct(out, a.x, b.x, half, { a: a.seen, b: b.seen })
    await expectTensorCores(half, 3)
  })

  it('multiplies matrices for addmm', async () => {
    const [a, b] = [operand([40, 72], 1, half), operand([72, 56], 2, half)]
    const input = spread([56], 'float32', 3)
    const out = amp.autocast({ dtype: half }, () => ops.addmm(input.to(device), a.x, b.x, { beta: 0 }))
    expectProduct(out, a.x, b.x, half, { a: a.seen, b: b.seen })
    await expectTensorCores(half, 3)
  })

  it('computes a linear layer of float32 and of 16-bit activations', async () => {
    for (const kind of ['float32', half] as const) {
      await restartCounts()
      const weight = operand([136, 72], 2, half)
      const bias = spread([136], 'float32', 3).to(device).requiresGrad_()
      const given = spread([3, 41, 72], kind, 1)
      const [x, g] = [given.to(device).requiresGrad_(), spread([3, 41, 136], half, 5)]
      const out = amp.autocast({ dtype: half }, () => ops.linear(x, weight.x, bias))
      out.backward(g.to(device))
      await expectTensorCores(half, 3)
      const seen = given.to(half).to('float64')
      const [rows, g64] = [seen.view(123, 72), g.to('float64').view(123, 136)]
      const w = weight.seen
      const biasSeen = bias.to('cpu').detach().to('float64')
      expectSums(out, ops.linear(seen, w, biasSeen), ops.linear(seen.abs(), w.abs(), biasSeen.abs()), 73, 'out')
      expectSums(x.grad!.view(123, 72), g64.matmul(w), g64.abs().matmul(w.abs()), 136, 'dx')
      const gT = g64.transpose(0, 1)
      expectSums(weight.x.grad!, gT.matmul(rows), gT.abs().matmul(rows.abs()), 123, 'dweight')
      expectSums(bias.grad!, g64.sum(0), g64.abs().sum(0), 123, 'dbias')
      expect([x.grad!.dtype, weight.x.grad!.dtype, bias.grad!.dtype]).toEqual([kind, 'float32', 'float32'])
    }
  })

  it('computes a feed-forward layer', async () => {
    const [x, w1, w2] = [operand([70, 40], 1, half), operand([96, 40], 2, half), operand([40, 96], 3, half)]
    const [b1, b2] = [96, 40].map((n, i) =>
      spread([n], 'float32', 4 + i)
        .to(device)
        .requiresGrad_(),
    )
    const out = amp.autocast({ dtype: half }, () => ops.mlp(x.x, w1.x, b1!, w2.x, b2!))
    const g = spread([70, 40], half, 6)
    out.backward(g.to(device))
    await expectTensorCores(half, 6)
    // what stands between the products is rounded, and where float64 is close to the middle of two numbers, to the other
    const rounded = (value: Tensor): Tensor => value.to(half).to('float64').detach().requiresGrad_()
    const [a, u, d] = [x.seen, w1.seen, w2.seen].map((each) => each.requiresGrad_()) as [Tensor, Tensor, Tensor]
    const [c1, c2] = [b1!, b2!].map((each) => each.to('cpu').detach().to('float64').requiresGrad_())
    const pre = ops.linear(a, u, c1!)
    const preSeen = rounded(pre)
    const hidden = ops.gelu(preSeen)
    const hiddenSeen = rounded(hidden)
    const wanted = ops.linear(hiddenSeen, d, c2!)
    wanted.backward(g.to('float64'))
    hidden.backward(hiddenSeen.grad!)
    const preGradient = preSeen.grad!.to(half).to('float64')
    pre.backward(preGradient)
    const close = (got: Tensor, by: Tensor, magnitudes: Tensor, what: string): void => {
      const [p, q, sizes] = [got, by, magnitudes].map((each) => each.dataSync())
      q!.forEach((value, i) => {
        const bound = 2 * unit[half] * Number(sizes![i])
        const error = Math.abs(Number(p![i]) - Number(value))
        if (!(error <= bound)) expect.fail(`${what}: element ${i} is ${p![i]}, by float64 ${value}`)
      })
    }
    const [g64, t] = [g.to('float64').abs(), (each: Tensor) => each.transpose(0, 1)]
    const [h, dh] = [hiddenSeen.detach().abs(), preGradient.abs()]
    close(out, wanted, ops.linear(h, d.detach().abs(), c2!.detach().abs()), 'out')
    close(w2.x.grad!, d.grad!, t(g64).matmul(h), 'dw2')
    close(b2!.grad!, c2!.grad!, g64.sum(0), 'db2')
    close(w1.x.grad!, u.grad!, t(dh).matmul(a.detach().abs()), 'dw1')
    close(b1!.grad!, c1!.grad!, dh.sum(0), 'db1')
    close(x.x.grad!, a.grad!, dh.matmul(u.detach().abs()), 'dx')
  })
})

describe('casts of parameters', () => {
  const copies = /^gradus_pointwise_copy/
  const expectCopies = (n: number): Promise<void> =>
    checkLaunches((launches) => expect(countOf(launches, copies)).toBe(n))
  const autocast = <R>(fn: () => R): R => amp.autocast({ dtype: 'float16' }, fn)
  const activations = (): Tensor => spread([8, 32], 'float16', 1).to(device).requiresGrad_()
  const parameter = (): Tensor => spread([48, 32], 'float32', 2).to(device).requiresGrad_()

  it('are made once for a region, for all forward and backward products', async () => {
    const [x, weight] = [activations(), parameter()]
    await restartCounts()
    const out = autocast(() => [ops.linear(x, weight), autocast(() => ops.linear(x, weight))])
    await expectCopies(1)
    for (const each of out) each.backward(spread([8, 48], 'float16', 3).to(device))
    await checkLaunches((launches) => expect(countOf(launches, /^gradus_gemm_mma_/)).toBe(6))
    await expectCopies(1)
    autocast(() => ops.linear(x, weight))
    await expectCopies(2)
  })

  it('are made again when the parameter has changed', async () => {
    const [x, weight] = [activations(), parameter()]
    const [before, after] = autocast(() => {
      const first = ops.linear(x, weight)
      noGrad(() => weight.mul_(2))
      return [first, ops.linear(x, weight)]
    })
    expect(elements(after!)).toEqual(elements(before!.mul(2)))
    before!.backward(spread([8, 48], 'float16', 3).to(device)) // by the weight as it was
    const was = x.grad!.to('cpu')
    x.grad = null
    after!.backward(spread([8, 48], 'float16', 3).to(device))
    expect(elements(x.grad!)).toEqual(elements(was.mul(2)))
  })

  it('are made at every use without the cache, to the same bits', async () => {
    const step = (cacheEnabled: boolean): Tensor[] => {
      const [x, weight] = [activations(), parameter()]
      const loss = amp.autocast({ dtype: 'float16', cacheEnabled }, () =>
        ops.linear(x, weight).add(ops.linear(x, weight)),
      )
      loss.backward(spread([8, 48], 'float16', 3).to(device))
      return [loss, x.grad!, weight.grad!]
    }
    const cached = step(true)
    let fewer = 0
    await checkLaunches((launches) => {
      fewer = countOf(launches, copies)
    })
    const plain = step(false)
    await checkLaunches((launches) => expect(countOf(launches, copies)).toBe(2 * fewer + 1))
    expect(plain.map(elements)).toEqual(cached.map(elements))
  })

  it('serve a checkpointed function, which runs twice', () => {
    const gradients = (checkpointed: boolean): Tensor[] => {
      const [x, weight] = [activations(), parameter()]
      const layer = (input: Tensor): Tensor => ops.gelu(ops.linear(input, weight))
      const out = autocast(() => (checkpointed ? autograd.checkpoint(layer, x) : layer(x)))
      out.backward(spread([8, 48], 'float16', 3).to(device))
      return [out, x.grad!, weight.grad!]
    }
    expect(gradients(true).map(elements)).toEqual(gradients(false).map(elements))
  })
})
