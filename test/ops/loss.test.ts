import { describe, expect, it } from 'vitest'
import { autograd, type DType, DTypeError, IndexError, ops, type Tensor, tensor, zeros } from '../../lib/index'
import { expectClose, goldenCases, goldenTensors } from '../support/golden'

// A linear congruence: the same values everywhere, without the library's own generator.
function values(count: number, seed = 1): number[] {
  let state = seed * 7919 + 1
  return Array.from({ length: count }, () => {
    state = (state * 48271) % 2147483647
    return (state / 1073741823.5 - 1) * 3
  })
}

const count = (shape: readonly number[]): number => shape.reduce((n, size) => n * size, 1)
const filled = (shape: readonly number[], seed = 1, dtype: DType = 'float64'): Tensor =>
  tensor(values(count(shape), seed), { dtype }).view(shape as number[])
const leaf = (shape: readonly number[], seed = 1, dtype: DType = 'float64'): Tensor =>
  filled(shape, seed, dtype).clone().requiresGrad_()
const classes = (rows: number, of: number, ignored = 0): Tensor =>
  tensor(
    Array.from({ length: rows }, (_, i) => (ignored > 0 && i % ignored === 1 ? -100 : (i * 7 + 3) % of)),
    { dtype: 'int64' },
  )

const names: Record<string, string> = {
  ignore_index: 'ignoreIndex',
  label_smoothing: 'labelSmoothing',
  reduction: 'reduction',
}
type Call = (inputs: Record<string, Tensor>, options: Record<string, never>) => Tensor
const functions: Record<string, Call> = {
  'F.cross_entropy': ({ x, target, weight = null }, options) =>
    ops.crossEntropy(x!, target!, { weight: weight as Tensor, ...options }),
  'F.nll_loss': ({ x, target }, options) => ops.nllLoss(x!, target!, options),
  'F.mse_loss': ({ x, y }, options) => ops.mseLoss(x!, y!, options),
  'F.l1_loss': ({ x, y }, options) => ops.l1Loss(x!, y!, options),
  'F.kl_div': ({ x, y }, options) => ops.klDiv(x!, y!, options),
  'F.binary_cross_entropy_with_logits': ({ x, y, weight, pos_weight }, options) =>
    ops.binaryCrossEntropyWithLogits(x!, y!, { weight: weight ?? null, posWeight: pos_weight ?? null, ...options }),
}

describe('losses: golden cases', () => {
  for (const each of [
    ...goldenCases('ops', /^(ce_|nll|mse|l1$|kl_div|bce)/),
    ...goldenCases('lowp', /^cross_entropy/, 2),
  ]) {
    it(each.name, async () => {
      const stored = await goldenTensors(each.file)
      const inputs: Record<string, Tensor> = {}
      for (const [name, key] of Object.entries(each.inputs)) {
        inputs[name] = stored[key]!.detach()
        if (each.grads[name]) inputs[name].requiresGrad_()
      }
      const options = Object.fromEntries(Object.entries(each.params).map(([name, value]) => [names[name], value]))
      const out = functions[each.op]!(inputs, options as Record<string, never>)
      await expectClose(out, stored[(each.outputs as string[])[0]!]!, each.tolerance)
      out.backward({ gradient: stored[each.grad_outputs!['0']!]! })
      for (const [name, key] of Object.entries(each.grads)) {
        await expectClose(inputs[name]!.grad!, stored[key]!, each.tolerance)
      }
    })
  }
})

const variants = [
  {},
  { reduction: 'sum' },
  { labelSmoothing: 0.2 },
  { weighted: true },
  { labelSmoothing: 0.3, weighted: true, ignored: 3 },
  { ignored: 2 },
] as const
interface Variant {
  reduction?: 'sum'
  labelSmoothing?: number
  weighted?: boolean
  ignored?: number
}
const weightsOf = (n: number): Tensor =>
  tensor(
    values(n, 8).map((x) => Math.abs(x) + 0.1),
    { dtype: 'float64' },
  )

describe('crossEntropy', () => {
  it('has the gradients of central differences', () => {
    for (const { weighted = false, ignored = 0, ...options } of variants as readonly Variant[]) {
      const weight = weighted ? weightsOf(5) : null
      autograd.gradcheck((x) => ops.crossEntropy(x!, classes(6, 5, ignored), { weight, ...options }), [leaf([6, 5])])
      const target = classes(6, 5, ignored).view(2, 3)
      autograd.gradcheck(
        (x) => ops.crossEntropy(x!, target, { weight, ...options, reduction: 'none' }),
        [leaf([2, 5, 3])],
      )
    }
    const probabilities = ops
      .softmax(filled([4, 5], 2), 1)
      .detach()
      .requiresGrad_()
    autograd.gradcheck(
      (x, y) => ops.crossEntropy(x!, y!, { weight: weightsOf(5), labelSmoothing: 0.1 }),
      [leaf([4, 5]), probabilities],
    )
  })

  it('computes every dtype, wide rows and any layout as float64 does', async () => {
    const [N, C] = [9, 5003]
    const target = classes(N, C, 4)
    const exact = leaf([N, C])
    const loss = ops.crossEntropy(exact, target, { labelSmoothing: 0.1 })
    loss.backward()
    for (const [dtype, rtol] of [
      ['float32', 1e-5],
      ['bfloat16', 2e-2],
      ['float16', 4e-3],
    ] as const) {
      const x = filled([N, C]).to(dtype).requiresGrad_()
      const out = ops.crossEntropy(x, target, { labelSmoothing: 0.1 })
      expect(out.dtype).toBe(dtype)
      out.backward()
      await expectClose(out.to('float64'), [await loss.item()], { rtol, atol: 0 })
      await expectClose(x.grad!.to('float64'), exact.grad!, { rtol, atol: rtol / 100 })
    }
    const turned = filled([N, C]).t().contiguous().t().requiresGrad_()
    const out = ops.crossEntropy(turned, target.to('int32'), { labelSmoothing: 0.1 })
    out.backward()
    await expectClose(out, loss, { rtol: 1e-14, atol: 0 })
    await expectClose(turned.grad!, exact.grad!, { rtol: 1e-13, atol: 1e-16 })
  })

  it('is infinite where smoothing meets an impossible class, NaN without rows', async () => {
    const x = tensor([[0, Number.NEGATIVE_INFINITY, 1]])
    const target = tensor([0], { dtype: 'int64' })
    expect(await ops.crossEntropy(x, target).item()).toBeCloseTo(1.3132617, 6)
    expect(await ops.crossEntropy(x, target, { labelSmoothing: 0.1 }).item()).toBe(Number.POSITIVE_INFINITY)
    const ignored = leaf([2, 3])
    const loss = ops.crossEntropy(ignored, tensor([-100, -100], { dtype: 'int64' }))
    loss.backward()
    expect(await loss.item()).toBeNaN()
    expect(await ignored.grad!.data()).toEqual(new Float64Array(6))
  })

  it('names a target that is no class, writes nothing, and works on', async () => {
    const x = filled([3, 5])
    const loss = ops.crossEntropy(x, tensor([0, 7, 1], { dtype: 'int64' }))
    await expect(loss.item()).rejects.toThrow(
      /crossEntropy: target out of range: got 7 in row 1, expected 0 to 4 or ignoreIndex -100/,
    )
    await expect(ops.crossEntropy(x, tensor([0, 7, 1], { dtype: 'int64' })).item()).rejects.toThrow(IndexError)
    expect(await ops.crossEntropy(x, tensor([0, 2, 1], { dtype: 'int64' })).item()).toBeGreaterThan(0)
  })

  it('says what does not fit', () => {
    const x = filled([3, 5])
    expect(() => ops.crossEntropy(x, classes(4, 5))).toThrow(
      'crossEntropy: input and target do not fit: got input [3, 5] and target [4], expected input [N, C, ...] and target [N, ...], or [C] and []; for sequences flatten both: logits.view(B * T, V) and target.view(B * T).',
    )
    expect(() => ops.crossEntropy(x, classes(3, 5), { weight: filled([4]) })).toThrow(
      'crossEntropy: class weights do not fit: got [4], expected [5], one for each class.',
    )
    expect(() => ops.crossEntropy(x, classes(3, 5), { reduction: 'avg' as never })).toThrow(
      "crossEntropy: unknown reduction: got \"avg\", expected 'mean', 'sum' or 'none'.",
    )
    expect(() => ops.crossEntropy(x, classes(3, 5).to('bool'))).toThrow(DTypeError)
  })
})

describe('linearCrossEntropy', () => {
  it('equals linear and crossEntropy, with their gradients', async () => {
    const [N, K, C] = [37, 11, 2500]
    for (const dtype of ['float64', 'float32', 'bfloat16'] as const) {
      for (const { weighted = false, ignored = 0, ...options } of variants as readonly Variant[]) {
        const target = classes(N, C, ignored)
        const classWeight = weighted ? weightsOf(C) : null
        const inputs = (): [Tensor, Tensor] => [leaf([N, K], 1, dtype), leaf([C, K], 2, dtype)]
        const [x, weight] = inputs()
        const loss = ops.linearCrossEntropy(x, weight, target, { classWeight, ...options })
        loss.backward({ gradient: tensor(0.5, { dtype: loss.dtype }) })
        const [a, b] = [x, weight].map((each) => each.detach().to('float64').requiresGrad_()) as [Tensor, Tensor]
        const logits = ops.linear(a, b).keep()
        const expected = ops.crossEntropy(logits, target, { weight: classWeight, ...options })
        expected.backward({ gradient: tensor(0.5, { dtype: 'float64' }) })
        // logits have the dtype of the operands, as those of a linear layer
        const rounded = logits.detach().to(dtype).to('float64')
        const lossOfRounded = ops.crossEntropy(rounded, target, { weight: classWeight, ...options })
        const rtol = { float64: 1e-11, float32: 1e-4, bfloat16: 2e-2 }[dtype]
        await expectClose(loss.to('float64'), lossOfRounded, { rtol: dtype === 'float64' ? rtol : 1e-5, atol: 0 })
        const scale = (options.reduction === 'sum' ? 30 : 1) * rtol
        await expectClose(x.grad!.to('float64'), a.grad!, { rtol, atol: scale })
        await expectClose(weight.grad!.to('float64'), b.grad!, { rtol, atol: scale })
      }
    }
  })

  it('adds into a gradient under way, and gives none where none is wanted', async () => {
    const [x, weight] = [leaf([4, 3], 1), leaf([6, 3], 2)]
    const target = classes(4, 6)
    const run = (): void => ops.linearCrossEntropy(x, weight, target).backward()
    run()
    const once = (await weight.grad!.clone().data()) as Float64Array
    run()
    await expectClose(
      weight.grad!,
      once.map((g) => 2 * g),
      { rtol: 1e-12, atol: 0 },
    )
    const plain = ops.linearCrossEntropy(x.detach(), weight.detach(), target)
    expect(plain.requiresGrad).toBe(false)
  })

  it('takes leading dims, refuses a second pass and a loss of rows', async () => {
    const [x, weight] = [leaf([2, 3, 4], 1), leaf([7, 4], 2)]
    const target = classes(6, 7).view(2, 3)
    const loss = ops.linearCrossEntropy(x, weight, target)
    loss.backward({ retainGraph: true })
    expect(x.grad!.shape).toEqual([2, 3, 4])
    expect(() => loss.backward()).toThrow(/backward can pass once through it/)
    expect(() => ops.linearCrossEntropy(x, weight, target, { reduction: 'none' })).toThrow(
      "linearCrossEntropy: there is no loss of single rows: got reduction 'none', expected 'mean' or 'sum'; use linear and crossEntropy.",
    )
    expect(() => ops.linearCrossEntropy(x, weight, classes(5, 7))).toThrow(/x and target do not fit/)
  })
})

describe('losses', () => {
  it('have the gradients of central differences', () => {
    const [x, y] = [leaf([3, 4], 1), leaf([3, 4], 2)]
    const probabilities = ops
      .softmax(filled([3, 4], 3), 1)
      .detach()
      .requiresGrad_()
    for (const reduction of ['mean', 'sum', 'none'] as const) {
      autograd.gradcheck((a, b) => ops.mseLoss(a!, b!, { reduction }), [x, y])
      autograd.gradcheck((a, b) => ops.l1Loss(a!, b!, { reduction }), [x, y])
      autograd.gradcheck((a, b) => ops.smoothL1Loss(a!, b!, { reduction, beta: 1.5 }), [x, y])
      autograd.gradcheck((a, b) => ops.klDiv(a!, b!, { reduction }), [x, probabilities])
      autograd.gradcheck((a, b) => ops.klDiv(a!, b!, { reduction, logTarget: true }), [x, y])
      autograd.gradcheck((a) => ops.nllLoss(a!, classes(3, 4, 2), { reduction, weight: weightsOf(4) }), [x])
      autograd.gradcheck(
        (a, b) => ops.bceWithLogits(a!, b!, { reduction, weight: weightsOf(4), posWeight: weightsOf(4) }),
        [x, probabilities],
      )
    }
  })

  it('follow their formulas at the edges', async () => {
    const far = ops.bceWithLogits(tensor([200, -200]), tensor([0, 1]), { reduction: 'none' })
    expect(await far.array()).toEqual([200, 200])
    const certain = ops.klDiv(tensor([[-1, -2]]), tensor([[1, 0]]), { reduction: 'batchmean' })
    expect(await certain.item()).toBe(1)
    expect(await ops.smoothL1Loss(tensor([0.5, 3]), tensor([0, 0]), { reduction: 'none' }).array()).toEqual([
      0.125, 2.5,
    ])
    expect(() => ops.mseLoss(tensor([1]), tensor([1]), { reduction: 'max' as never })).toThrow(/unknown reduction/)
  })

  it('crossEntropy says how class indices are made', () => {
    const hint = "make class indices with { dtype: 'int64' }"
    const call = (logits: number[], target: Tensor) => () => ops.crossEntropy(zeros(logits), target)
    expect(call([2, 3], tensor([0, 1]))).toThrow(DTypeError)
    expect(call([2, 3], tensor([0, 1]))).toThrow(hint)
    expect(call([3], tensor(1))).toThrow(hint)
    expect(call([2, 3, 4], zeros([2, 4]))).toThrow(hint)
    expect(call([2, 3], zeros([3, 2]))).not.toThrow(hint) // probabilities of another shape
    expect(() => ops.linearCrossEntropy(zeros([2, 3]), zeros([4, 3]), tensor([0, 1]))).toThrow(hint)
  })

  it('binaryCrossEntropyWithLogits: does not broadcast, as in PyTorch', () => {
    expect(() => ops.binaryCrossEntropyWithLogits(zeros([2, 1]), zeros([2]))).toThrow(
      'binaryCrossEntropyWithLogits: input and target differ in shape: got input [2, 1] and target [2], expected equal shapes',
    )
  })
})
