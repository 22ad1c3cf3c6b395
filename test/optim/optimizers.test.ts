import { describe, expect, it } from 'vitest'
import { ArgumentError, nn, noGrad, ops, optim, ShapeError, StateError, Tensor, tensor, zeros } from '../../lib/index'
import { expectClose, type GoldenCase, goldenCases, goldenTensors } from '../support/golden'

const { parameter } = nn

const makers: Record<string, (groups: never, options: object) => optim.Optimizer> = {
  AdamW: (groups, options) => new optim.AdamW(groups, options),
  Adam: (groups, options) => new optim.Adam(groups, options),
  SGD: (groups, options) => new optim.SGD(groups, options),
  RMSprop: (groups, options) => new optim.RMSprop(groups, options),
  Adagrad: (groups, options) => new optim.Adagrad(groups, options),
}

const camelCase = (options: object): object =>
  Object.fromEntries(
    Object.entries(options).map(([name, value]) => [name.replace(/_([a-z])/g, (_, c) => c.toUpperCase()), value]),
  )

async function runGolden(each: GoldenCase): Promise<void> {
  const stored = await goldenTensors(each.file)
  const names = Object.keys(each.inputs.init)
  const params = new Map(names.map((name) => [name, parameter(stored[each.inputs.init[name]]!.clone())]))
  const groups = each.param_groups?.map((group) => ({
    ...camelCase(group),
    params: group.params.map((name) => params.get(name)!),
  }))
  const { _missing: missing = {}, ...options } = each.params
  const optimizer = makers[each.op.split('.').at(-1)!]!((groups ?? [...params.values()]) as never, camelCase(options))
  for (let step = 0; step < 20; step++) {
    for (const [name, param] of params) {
      const absent = missing[name]?.includes(step) ?? false
      param.grad = absent ? null : stored[each.inputs.grads[name]]!.select(0, step).clone()
    }
    optimizer.step()
    for (const [name, param] of params) {
      const key = (each.outputs as Record<string, string>)[`step${step + 1}/${name}`]
      if (key !== undefined) await expectClose(param, stored[key]!, each.tolerance)
    }
  }
}

/** Updates of a parameter so far, whoever counts them. */
function stepsOf(optimizer: optim.AdamW, param: Tensor): number {
  const { step } = optimizer.state.get(param)!
  return step instanceof Tensor ? step.itemSync() : step!
}

describe('optimizers: 20 steps on recorded gradients', () => {
  for (const each of goldenCases('optim', /./)) it(each.name, () => runGolden(each))
})

const weights = (values: number[], dtype: 'float32' | 'float64' | 'bfloat16' | 'float16' = 'float32'): Tensor =>
  parameter(tensor(values, { dtype }))

describe('Optimizer', () => {
  it('decays apart from the gradient in AdamW, and through it in Adam', async () => {
    for (const scale of [1, 1000]) {
      const [w, v] = [weights([2]), weights([2])]
      w.grad = tensor([scale])
      v.grad = tensor([scale])
      const rates = { lr: 0.1, eps: 0 }
      new optim.AdamW([w], { ...rates, weightDecay: 0.5 }).step()
      new optim.AdamW([v], { ...rates, weightDecay: 0 }).step()
      // the decay is lr * weightDecay * p = 0.1, whatever the gradient
      expect((await v.item()) - (await w.item())).toBeCloseTo(0.1, 6)
    }
    const [w, v] = [weights([2]), weights([2])]
    w.grad = tensor([1000])
    v.grad = tensor([1000])
    new optim.Adam([w], { lr: 0.1, weightDecay: 0.5 }).step()
    new optim.Adam([v], { lr: 0.1, weightDecay: 0 }).step()
    expect((await v.item()) - (await w.item())).toBeCloseTo(0, 6)
  })

  it('steps 16-bit parameters with states in float32 and gradients of either width', async () => {
    for (const dtype of ['bfloat16', 'float16', 'float64'] as const) {
      const param = weights([1, -2, 3], dtype)
      param.grad = tensor([0.5, 0.25, -1], { dtype })
      const optimizer = new optim.AdamW([param], { lr: 0.125, weightDecay: 0 })
      optimizer.step()
      expect(param.dtype).toBe(dtype)
      expect((optimizer.state.get(param)!.expAvg as Tensor).dtype).toBe(dtype === 'float64' ? dtype : 'float32')
      await expectClose(param, [0.875, -2.125, 3.125], { rtol: 4e-3, atol: 0 })
    }
    const param = weights([1, 1], 'bfloat16')
    param.grad = tensor([1, -1])
    new optim.SGD([param], { lr: 0.5 }).step()
    expect(await param.array()).toEqual([0.5, 1.5])
  })

  it('takes tensors of any size, more than one native call holds', async () => {
    const params = Array.from({ length: 900 }, (_, i) => parameter(zeros([i % 40])))
    for (const param of params) param.grad = zeros(param.shape).add(1)
    new optim.SGD(params, { lr: 0.5, momentum: 0.9 }).step()
    for (const param of params) expect(await param.array()).toEqual(Array(param.numel).fill(-0.5))
  })

  it('counts steps by parameter, and leaves those without a gradient', async () => {
    const [a, b] = [weights([1]), weights([1])]
    const optimizer = new optim.AdamW([a, b])
    a.grad = tensor([1])
    optimizer.step()
    b.grad = tensor([1])
    optimizer.step()
    expect(stepsOf(optimizer, a)).toBe(2)
    expect(stepsOf(optimizer, b)).toBe(1)
  })

  it('adds gradients up until zeroGrad', async () => {
    const w = weights([1, 2])
    w.grad = tensor([1, 1])
    const optimizer = new optim.SGD([w])
    const { grad } = w
    optimizer.zeroGrad({ setToNone: false })
    expect(w.grad).toBe(grad)
    expect(await w.grad.array()).toEqual([0, 0])
    optimizer.zeroGrad()
    expect(w.grad).toBeNull()
    expect(grad.isReleased).toBe(true)
  })

  it('continues to the bit from its state', async () => {
    const run = async (restart: boolean): Promise<unknown> => {
      let w = weights([1, 2, 3])
      let optimizer = new optim.AdamW([{ params: [w], lr: 0.1 }], { amsgrad: true })
      for (let step = 0; step < 6; step++) {
        if (restart && step === 3) {
          const state = optimizer.stateDict()
          w = parameter(w.detach().clone())
          optimizer = new optim.AdamW([w])
          optimizer.loadStateDict(state)
        }
        w.grad = tensor([Math.sin(step), 1, -step])
        optimizer.step()
      }
      return w.array()
    }
    expect(await run(true)).toEqual(await run(false))
  })

  it("numbers parameters over all groups in its state, as PyTorch's", () => {
    const [a, b, c] = [weights([1]), weights([2]), weights([3])]
    const optimizer = new optim.SGD([{ params: [a, b] }, { params: [c], lr: 0.5 }], { lr: 0.1, momentum: 0.9 })
    c.grad = tensor([1])
    optimizer.step()
    const { state, paramGroups } = optimizer.stateDict()
    expect(paramGroups.map(({ params, lr }) => [params, lr])).toEqual([
      [[0, 1], 0.1],
      [[2], 0.5],
    ])
    expect(Object.keys(state)).toEqual(['2'])
  })

  it('says what does not fit, and changes nothing then', () => {
    const w = weights([1, 2])
    expect(() => new optim.AdamW([])).toThrow('AdamW: no parameters: got an empty list; pass model.parameters().')
    expect(() => new optim.AdamW([w, w])).toThrow('a parameter is given twice')
    expect(() => new optim.AdamW([zeros([2])])).toThrow(StateError)
    expect(() => new optim.AdamW([w], { lr: -1 })).toThrow(
      'AdamW: lr is out of range: got -1, expected a number of at least 0.',
    )
    expect(() => new optim.AdamW([w], { betas: [0.9, 1] })).toThrow('betas[1] is out of range')
    expect(() => new optim.SGD([w], { nesterov: true })).toThrow(ArgumentError)
    // @ts-expect-error not parameters
    expect(() => new optim.SGD(5)).toThrow('SGD: no parameters: got 5')
    const optimizer = new optim.AdamW([w])
    w.grad = tensor([1, 1])
    optimizer.step()
    const { paramGroups } = optimizer.stateDict()
    const misfit = { paramGroups, state: { 0: { step: 1, expAvg: zeros([3]), expAvgSq: zeros([3]) } } }
    expect(() => optimizer.loadStateDict(misfit)).toThrow(ShapeError)
    expect(() => optimizer.loadStateDict({ paramGroups: [], state: {} })).toThrow('the parameter groups differ')
    const whole = { step: 1, expAvg: zeros([2]), expAvgSq: zeros([2]) }
    for (const missing of ['step', 'expAvg', 'expAvgSq'] as const) {
      const state = { 0: { ...whole, [missing]: undefined } }
      expect(() => optimizer.loadStateDict({ paramGroups, state })).toThrow(ArgumentError)
      expect(() => optimizer.loadStateDict({ paramGroups, state })).toThrow(`expected also ${missing}.`)
    }
    const torch = { step: 1, exp_avg: zeros([2]), exp_avg_sq: zeros([2]) }
    expect(() => optimizer.loadStateDict({ paramGroups, state: { 0: torch } })).toThrow(
      'AdamW.loadStateDict: the state of parameter 0 is not complete: got step, exp_avg, exp_avg_sq, expected also expAvg, expAvgSq.',
    )
    expect(() => optimizer.loadStateDict({ paramGroups, state: { 0: null as never } })).toThrow(
      'the state of parameter 0 is not complete: got null',
    )
    expect(stepsOf(optimizer, w)).toBe(1)
  })
})

describe('Optimizer refuses', () => {
  const withGrad = () => {
    const param = nn.parameter(tensor([1, 2]))
    param.grad = tensor([1, 1])
    return param
  }

  it('the state of another kind of optimizer, and options that make no sense', () => {
    const sgd = new optim.SGD([withGrad()], { momentum: 0.9 })
    sgd.step()
    const adamw = new optim.AdamW([withGrad()])
    expect(() => adamw.loadStateDict(sgd.stateDict() as never)).toThrow(
      'AdamW.loadStateDict: the state is that of another optimizer: got options lr, momentum, dampening, weightDecay, nesterov, maximize, expected lr, betas, eps, weightDecay, amsgrad, maximize.',
    )
    const state = adamw.stateDict()
    state.paramGroups[0]!.lr = 'fast'
    expect(() => adamw.loadStateDict(state)).toThrow('AdamW: lr is out of range: got "fast"')
    expect(adamw.paramGroups[0]!.lr).toBe(1e-3)
  })

  it('a rate that became NaN, before anything is changed', () => {
    const param = withGrad()
    const adamw = new optim.AdamW([param])
    adamw.paramGroups[0]!.lr = Number.NaN
    expect(() => adamw.step()).toThrow('AdamW: lr is out of range: got NaN, expected a number of at least 0.')
    expect(param.arraySync()).toEqual([1, 2])
  })

  it('gradients that are no tensors or do not fit', () => {
    const param = withGrad()
    const adamw = new optim.AdamW([param])
    param._grad = 4 as never
    expect(() => adamw.step()).toThrow('AdamW: the gradient of a parameter is not a tensor: got 4')
    param._grad = zeros([3])
    expect(() => adamw.step()).toThrow('AdamW: a gradient has another shape than its parameter: got [3], expected [2].')
    param.grad = zeros([2])
    adamw.step()
  })
})

describe('paramGroupsWithDecay', () => {
  class Embedding extends nn.Module {
    weight = parameter(zeros([5, 2]))
  }
  class Model extends nn.Module {
    embed = new Embedding()
    weight = parameter(zeros([2, 2]))
    bias = parameter(zeros([2]))
    head = this.embed.weight
    frozen = parameter(zeros([2, 2]), false)
  }

  it('decays matrices, and neither vectors nor embeddings nor what is tied to them', () => {
    const model = new Model()
    const [decay, rest] = optim.paramGroupsWithDecay(model, 0.1)
    expect(decay).toEqual({ params: [model.weight], weightDecay: 0.1 })
    expect(rest.weightDecay).toBe(0)
    expect(new Set(rest.params)).toEqual(new Set([model.embed.weight, model.bias]))
  })
})

describe('step({ maxNorm })', () => {
  it('clips for an optimizer with an update of its own, too', () => {
    class Descent extends optim.Optimizer<{ lr: number }> {
      protected check(): void {}
      protected update({ lr }: { lr: number }, params: Tensor[]): void {
        for (const param of params) noGrad(() => ops.sub_(param, param.grad!.mul(lr)))
      }
    }
    const param = parameter(zeros([2]))
    param.grad = tensor([3, 4])
    const norm = new Descent([param], { lr: 1 }).step({ maxNorm: 1 })
    expect(norm.itemSync()).toBe(5)
    for (const [i, value] of (param.arraySync() as number[]).entries()) expect(value).toBeCloseTo([-0.6, -0.8][i]!, 5)
  })

  const makeAll = (params: Tensor[]): optim.Optimizer[] => [
    new optim.AdamW([{ params: params.slice(0, 1) }, { params: params.slice(1), lr: 0.1 }]),
    new optim.SGD(params, { lr: 0.1, momentum: 0.9 }),
    new optim.RMSprop(params),
    new optim.Adagrad(params),
  ]
  const gradients = [
    [0.3, -4, 12],
    [84, 0, 0.5],
  ]

  it('gives the bits of clipGradNorm_ and step, and leaves the gradients', async () => {
    for (const kind of makeAll([weights([1])]).keys()) {
      for (const maxNorm of [1, 1000]) {
        const run = async (folded: boolean): Promise<unknown> => {
          const params = [weights([1, 2, 3]), weights([4, 5, 6])]
          const optimizer = makeAll(params)[kind]!
          const norms: number[] = []
          for (let step = 0; step < 3; step++) {
            for (const [i, param] of params.entries()) param.grad = tensor(gradients[i]!)
            const norm = folded ? optimizer.step({ maxNorm }) : nn.utils.clipGradNorm_(params, maxNorm)
            if (folded) expect(await params[0]!.grad!.array()).toEqual([expect.closeTo(0.3, 6), -4, 12])
            else optimizer.step()
            norms.push(await norm.item())
          }
          expect(norms[0]).toBeCloseTo(Math.hypot(...gradients.flat()), 4)
          return [await Promise.all(params.map((param) => param.array())), norms]
        }
        expect(await run(true)).toEqual(await run(false))
      }
    }
  })

  it('clips 16-bit gradients without rounding them in between', async () => {
    const param = weights([0, 0], 'bfloat16')
    param.grad = tensor([3, 4], { dtype: 'bfloat16' })
    const norm = new optim.SGD([param], { lr: 1 }).step({ maxNorm: 2 })
    expect(await norm.item()).toBe(5)
    await expectClose(param, [-1.2, -1.6], { rtol: 4e-3, atol: 0 })
  })

  it('counts a gradient that two parameters share once, and an infinite one as PyTorch does', async () => {
    const [a, b] = [weights([0, 0]), weights([0, 0])]
    a.grad = tensor([3, 4])
    b.grad = a.grad
    expect(await new optim.SGD([a, b], { lr: 1 }).step({ maxNorm: 1 }).item()).toBe(5)
    a.grad = tensor([3, Number.POSITIVE_INFINITY])
    const norm = new optim.SGD([a], { lr: 1 }).step({ maxNorm: 1 })
    expect(await norm.item()).toBe(Number.POSITIVE_INFINITY)
    expect(await a.array()).toEqual([expect.closeTo(-0.6, 5), Number.NaN])
  })

  it('only tells the norm where it is not limited, as clipGradNorm_ does', async () => {
    const [a, b] = [weights([0, 0]), weights([0, 0])]
    for (const grad of [
      [3, 4],
      [3, Number.POSITIVE_INFINITY],
    ]) {
      for (const each of [a, b]) each.grad = tensor(grad)
      const got = new optim.SGD([a], { lr: 1 }).step({ maxNorm: Number.POSITIVE_INFINITY })
      const expected = nn.utils.clipGradNorm_([b], Number.POSITIVE_INFINITY)
      new optim.SGD([b], { lr: 1 }).step()
      expect(await got.item()).toBe(await expected.item())
      expect(await a.array()).toEqual(await b.array())
    }
  })

  it('refuses what is no norm, and other options', () => {
    const param = weights([1], 'float32')
    const optimizer = new optim.AdamW([param])
    expect(() => optimizer.step({ maxNorm: -1 })).toThrow(
      'AdamW.step: maxNorm is out of range: got -1, expected a number of at least 0.',
    )
    expect(() => optimizer.step({ maxNorm: Number.NaN })).toThrow('maxNorm is out of range: got NaN')
    // @ts-expect-error Python's name
    expect(() => optimizer.step({ max_norm: 1 })).toThrow('AdamW.step: unknown option: got max_norm, expected maxNorm')
  })
})
