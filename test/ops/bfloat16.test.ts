// Products whose operands are bfloat16, or are rounded to it while they are packed. A product of two bfloat16 is exact
// in float32, so against float64 there is only the rounding of float32 sums, and of the result.

import { describe, expect, it } from 'vitest'
import { BFLOAT16 } from '../../lib/dtype'
import { type DType, eye, linspace, ones, ops, randn, random, type Tensor, zeros } from '../../lib/index'
import { logitChunkBytes } from '../../lib/ops/crossEntropy'
import { native, runInto, runMany } from '../../lib/tensor/dispatch'
import { expectClose } from '../support/golden'

const matmulOp = native('matmul', 'alpha,beta')
const mlpOp = native('mlp', 'tanh')
const mlpBackwardOp = native('mlpBackward', 'tanh,accumulate')
const lossOp = native(
  'linearCrossEntropy',
  'ignoreIndex,labelSmoothing,reduction,gradients,skipIgnored,products,chunkBytes',
)

const exact = (x: Tensor): Tensor => x.to('bfloat16').to('float64')
// The sum of the first j of k products of normal numbers is about sqrt(j), and each addition rounds it by half an ulp at
// most, evenly spread: the errors have a deviation of k 2^-24 / sqrt(6). Four of them.
const sums = (k: number) => ({ rtol: 2 ** -22, atol: (4 * (k + 4) * 2 ** -24) / Math.sqrt(6) })
const roundedOnce = (k: number) => ({ rtol: 2 ** -8, atol: sums(k).atol })

type Layout = (rows: number, cols: number, dtype: DType) => Tensor
const layouts: Record<string, Layout> = {
  rows: (r, c, dtype) => randn([r, c]).to(dtype),
  columns: (r, c, dtype) => randn([c, r]).to(dtype).t(),
  'rows with gaps': (r, c, dtype) =>
    randn([r, c + 3])
      .to(dtype)
      .narrow(1, 1, c),
  'columns with gaps': (r, c, dtype) =>
    randn([c, r + 5])
      .to(dtype)
      .narrow(1, 2, r)
      .t(),
  'every other element': (r, c, dtype) => randn([r, c, 2]).to(dtype).select(2, 1),
}

describe('products in bfloat16', () => {
  const sizes = [
    [5, 1, 3],
    [14, 32, 16],
    [15, 33, 17],
    [29, 70, 31],
    [130, 65, 201],
    [64, 800, 64],
    [33, 40, 4099],
    [130, 70, 300],
    [17, 70, 4098],
  ] as const

  it('agree with float64 in every layout, mixed with float32, in both dtypes of the result', async () => {
    random.seed(1)
    for (const [m, n, k] of sizes) {
      for (const left of Object.values(layouts)) {
        for (const right of Object.values(layouts)) {
          const a = left(m, k, 'bfloat16')
          const b = right(k, n, m % 2 === 0 ? 'float32' : 'bfloat16')
          const expected = exact(a).matmul(exact(b))
          const whole = runInto(matmulOp, [a, b], zeros([m, n]), [1, 0])
          await expectClose(whole.to('float64'), expected, sums(k))
          const narrow = runInto(matmulOp, [b.t(), a.t()], zeros([n, m], { dtype: 'bfloat16' }), [1, 0])
          await expectClose(narrow.to('float64'), expected.t(), roundedOnce(k))
        }
      }
    }
  })

  it('are added to what is there', async () => {
    random.seed(2)
    for (const dtype of ['float32', 'bfloat16'] as const) {
      const [a, b] = [randn([40, 50]).to('bfloat16'), randn([50, 60]).to('bfloat16')]
      const before = randn([40, 60]).to(dtype)
      const expected = exact(a).matmul(exact(b)).mul(0.5).add(before.to('float64').mul(2))
      const sum = runInto(matmulOp, [a, b], before, [0.5, 2])
      await expectClose(sum.to('float64'), expected, dtype === 'float32' ? sums(50) : roundedOnce(50))
    }
  })

  it('keep infinities and NaN', async () => {
    const a = zeros([20, 40], { dtype: 'bfloat16' })
    a.select(0, 0).fill_(Number.POSITIVE_INFINITY)
    a.select(0, 1).fill_(Number.NaN)
    const product = await a.matmul(zeros([40, 30], { dtype: 'bfloat16' }).add(1)).data()
    expect(Number(product[0])).toBe(Number.POSITIVE_INFINITY)
    expect(Number(product[30])).toBeNaN()
    expect(Number(product[60])).toBe(0)
  })
})

describe('the feed-forward network in bfloat16', () => {
  // hidden values are rounded as a bfloat16 program would, so the bound is that of two roundings over the sum
  const close = { rtol: 2e-2, atol: 2e-2 }

  it('agrees with float64, with float32 weights and gradients', async () => {
    random.seed(3)
    for (const [rows, width, hidden, form] of [
      [70, 24, 96, 'tanh'],
      [70, 24, 96, 'none'],
      [1100, 32, 64, 'tanh'],
      [3, 16, 48, 'tanh'],
      // hidden values that the epilogue cannot leave in panels: odd rows, also in the last chunk only, part of a panel
      [71, 24, 96, 'tanh'],
      [1025, 32, 64, 'tanh'],
      [70, 24, 80, 'tanh'],
    ] as const) {
      const x = randn([rows, width])
      const params = [randn([hidden, width]).mul(0.2), randn([hidden]), randn([width, hidden]).mul(0.1), randn([width])]
      const [w1, b1, w2, b2] = params as [Tensor, Tensor, Tensor, Tensor]
      const BFLOAT16 = x.to('bfloat16')._dtype
      const [y, pre] = runMany(
        mlpOp,
        [x, ...params],
        [
          [[rows, width], BFLOAT16],
          [[rows, hidden], BFLOAT16],
        ],
        [form === 'tanh' ? 1 : 0],
      ) as [Tensor, Tensor]
      const leaves = [exact(x), exact(w1), b1.to('float64'), exact(w2), b2.to('float64')].map((each) =>
        each.detach().requiresGrad_(),
      )
      const [X, W1, B1, W2, B2] = leaves as [Tensor, Tensor, Tensor, Tensor, Tensor]
      const expected = ops.mlp(X, W1, B1, W2, B2, { approximate: form })
      await expectClose(y.to('float64'), expected.detach(), close)
      const g = randn([rows, width]).mul(0.1).to('bfloat16')
      expected.backward({ gradient: g.to('float64') })
      const shapes = [x, ...params].map((each) => [each.shape, each._dtype] as const)
      const gradients = runMany(mlpBackwardOp, [g, x, pre, w1, w2], shapes, [form === 'tanh' ? 1 : 0, 0])
      for (let i = 0; i < 5; i++) {
        const reference = leaves[i]!.grad!
        const scale = (await reference.abs().max().item()) as number
        await expectClose(gradients[i]!.to('float64'), reference, { rtol: 2e-2, atol: 1e-2 * scale })
      }
    }
  })
})

describe('gelu in bfloat16', () => {
  // half an ulp for the rounding, and 2^-12 for the logistic function, which is computed to 2^-13
  it('is within its rounding of float64, and so is its derivative', async () => {
    const width = 32
    const one = eye(width, { dtype: 'bfloat16' })
    const none = zeros([width], { dtype: 'bfloat16' })
    const x = linspace(-12, 12, 96 * width)
      .reshape([96, width])
      .to('bfloat16')
    const exactX = x.to('float64').requiresGrad_()
    const expected = ops.gelu(exactX, { approximate: 'tanh' })
    const [y, pre] = runMany(
      mlpOp,
      [x, one, none, one, none],
      [
        [x.shape, x._dtype],
        [x.shape, x._dtype],
      ],
      [1],
    ) as [Tensor, Tensor]
    const tolerance = { rtol: 2 ** -8 + 2 ** -12, atol: 1e-30 }
    await expectClose(y.to('float64'), expected.detach(), tolerance)
    expected.sum().backward()
    const gradients = runMany(
      mlpBackwardOp,
      [ones([96, width], { dtype: 'bfloat16' }), x, pre, one, one],
      [[96, width], [width, width], [width], [width, width], [width]].map((shape) => [shape, x._dtype] as const),
      [1, 0],
    )
    // the two terms of the derivative cancel near its zero at -0.75
    await expectClose(gradients[0]!.to('float64'), exactX.grad!, { rtol: 2 ** -8, atol: 2 ** -12 })
  })
})

describe('linear + cross entropy in bfloat16', () => {
  // an odd number is read in pairs by the 0 behind each row; rows of 2048 would lie whole pages apart
  it.each([
    [37, 2100],
    [37, 2101],
    [600, 2101],
    [600, 2048],
  ])('agrees with float64, gradients of float32 weights included: %i rows, %i classes', async (rows, classes) => {
    random.seed(4)
    const width = 48
    const x = randn([rows, width])
    const weight = randn([classes, width]).mul(0.3)
    const target = ops.argmax(randn([rows, classes]), 1)
    const [loss, , dx, dweight] = runMany(
      lossOp,
      [x, weight, target],
      [
        [[], x._dtype],
        [[], x._dtype],
        [x.shape, x._dtype],
        [weight.shape, x._dtype],
      ],
      [-100, 0.1, 1, 1, 1, BFLOAT16, logitChunkBytes],
    ) as [Tensor, Tensor, Tensor, Tensor]
    const [X, W] = [exact(x).detach().requiresGrad_(), exact(weight).detach().requiresGrad_()]
    const expected = ops.linearCrossEntropy(X, W, target, { labelSmoothing: 0.1 })
    expected.backward()
    const logits = ops.linear(exact(x), exact(weight)).to('bfloat16').to('float64')
    const lossOfRounded = ops.crossEntropy(logits, target, { labelSmoothing: 0.1 })
    await expectClose(loss.to('float64'), lossOfRounded, { rtol: 1e-5, atol: 0 })
    for (const [mine, reference] of [
      [dx, X.grad!],
      [dweight, W.grad!],
    ] as const) {
      // rounded are a logit, which moves its probability, and its gradient, each by 2^-9 at most
      const error = mine.to('float64').sub(reference)
      const deviation = Number(await error.square().mean().sqrt().item())
      expect(deviation).toBeLessThan(2 ** -8 * Number(await reference.square().mean().sqrt().item()))
      expect(Number(await error.abs().max().item())).toBeLessThan(2 ** -7 * Number(await reference.abs().max().item()))
    }
  })
})
