import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { afterEach, describe, expect, it, vi } from 'vitest'
import {
  amp,
  getDefaultDevice,
  io,
  memory,
  nn,
  noGrad,
  ops,
  optim,
  randn,
  random,
  type Tensor,
  tensor,
  zeros,
} from '../../lib/index'
import { Fixtures } from '../../scripts/parity/fixtures'
import { runCase } from '../../scripts/parity/run'
import { started, weights } from '../support/gradScaler'

const { GradScaler } = amp
const inf = Number.POSITIVE_INFINITY

// Trajectories recorded from PyTorch warn of the collapses that they are about.
afterEach(() => vi.restoreAllMocks())
const silenced = () => vi.spyOn(process, 'emitWarning').mockImplementation(() => {})

describe('GradScaler: trajectories recorded from PyTorch', () => {
  const fixtures = new Fixtures(join(__dirname, '../fixtures'))
  const cases = fixtures.cases.filter((each) => each.op === 'torch.amp.GradScaler')
  it.each(cases.map((each) => [each.name, each] as const))('%s', async (_, each) => {
    silenced()
    expect(await runCase(each, fixtures, true)).toMatchObject({ status: 'passed' })
    await getDefaultDevice().synchronize()
    await new Promise(setImmediate) // so that a warning is not the next test's
  })
})

describe('GradScaler', () => {
  it("has PyTorch's defaults, and tells them", async () => {
    const scaler = new GradScaler()
    expect(await scaler.getScale()).toBe(65536)
    expect([scaler.getGrowthFactor(), scaler.getBackoffFactor(), scaler.getGrowthInterval()]).toEqual([2, 0.5, 2000])
    expect(scaler.isEnabled()).toBe(true)
    scaler.setGrowthFactor(3)
    scaler.setBackoffFactor(0.25)
    scaler.setGrowthInterval(7)
    expect(scaler.stateDict()).toEqual({
      scale: 65536,
      growthFactor: 3,
      backoffFactor: 0.25,
      growthInterval: 7,
      growthTracker: 0,
    })
  })

  it('scales a tensor and lists of them, gradients included, and keeps a half tensor half', async () => {
    const scaler = new GradScaler({ initScale: 8 })
    const x = weights([1, 2])
    const scaled = scaler.scale(x.sum())
    expect(await scaled.item()).toBe(24)
    scaled.backward()
    expect(await x.grad!.array()).toEqual([8, 8])
    const [a, [b]] = scaler.scale([tensor(1), [tensor([2])]] as const)
    expect([await a.item(), await b.array()]).toEqual([8, [16]])
    expect(scaler.scale(tensor([1], { dtype: 'float16' })).dtype).toBe('float16')
    expect(() => scaler.scale(3 as never)).toThrow(
      'GradScaler.scale: nothing to scale: got 3, expected a tensor, or tensors in an array.',
    )
  })

  it('leaves the loss to its caller', async () => {
    const x = weights([1, 2])
    const loss = x.mul(3).sum()
    new GradScaler().scale(loss).backward()
    expect(await loss.item()).toBe(9)
  })

  it('unscales in place and steps with the same bits as a step that unscales as it reads', async () => {
    const values = Array.from({ length: 300 }, (_, i) => Math.sin(i) * 10 ** ((i % 7) - 3))
    const results: unknown[] = []
    for (const explicit of [true, false]) {
      const { scaler, param, optimizer } = started(values, { initScale: 3 }) // no power of two: unscaling rounds
      const before = await param.grad!.array()
      if (explicit) scaler.unscale_(optimizer)
      const step = scaler.step(optimizer)
      expect(await step).toBe(true)
      if (!explicit) expect(await param.grad!.array()).toEqual(before)
      results.push([await param.array(), await step.norm!.item()])
    }
    expect(results[0]).toEqual(results[1])
    const sum = values.reduce((total, x) => total + x * x, 0)
    expect((results[0] as [unknown, number])[1] / Math.sqrt(sum)).toBeCloseTo(1, 6)
  })

  it('clips with the bits of unscale_ and clipGradNorm_', async () => {
    const results: unknown[] = []
    for (const way of ['explicit', 'folded', 'mixed']) {
      const { scaler, param, optimizer } = started([3, 4, -12, 0.1], { initScale: 5 })
      let norm: Tensor
      if (way !== 'folded') scaler.unscale_(optimizer)
      if (way === 'explicit') {
        norm = nn.utils.clipGradNorm_([param], 1)
        scaler.step(optimizer)
      } else {
        norm = scaler.step(optimizer, { maxNorm: 1 }).norm!
      }
      results.push([await param.array(), await norm.item()])
    }
    expect(results[1]).toEqual(results[0])
    expect(results[2]).toEqual(results[0])
    expect((results[0] as [unknown, number])[1]).toBeCloseTo(Math.hypot(3, 4, 12, 0.1), 4)
  })

  it('knows the norm of what it unscaled until a gradient changes', async () => {
    const { scaler, param, optimizer } = started([3, 4])
    scaler.unscale_(optimizer)
    noGrad(() => param.grad!.mul_(2))
    expect(await nn.utils.clipGradNorm_([param], inf).item()).toBe(10)
    const step = scaler.step(optimizer, { maxNorm: 1 })
    expect(await step.norm!.item()).toBe(10)
    expect((await param.array()) as number[]).toEqual([expect.closeTo(1 - 0.6), expect.closeTo(1 - 0.8)])
  })

  it('leaves a norm that the caller releases', async () => {
    const { scaler, param, optimizer } = started([3, 4])
    scaler.unscale_(optimizer)
    nn.utils.clipGradNorm_([param], 1).dispose()
    expect(await nn.utils.clipGradNorm_([param], 100).item()).toBeCloseTo(1, 5)
    expect(await scaler.step(optimizer)).toBe(true)
  })

  it('unscales gradients with strides, and one that two parameters share once', async () => {
    const scaler = new GradScaler({ initScale: 2 })
    scaler.scale(tensor(1))
    const [a, b] = [nn.parameter(zeros([2, 3])), nn.parameter(zeros([2, 3]))]
    a.grad = tensor([
      [2, 4],
      [6, 8],
      [10, 12],
    ]).transpose(0, 1)
    b.grad = a.grad
    const optimizer = new optim.SGD([a, b], { lr: 1 })
    scaler.unscale_(optimizer)
    expect(await a.grad.array()).toEqual([
      [1, 3, 5],
      [2, 4, 6],
    ])
    expect(await scaler.step(optimizer)).toBe(true)
    expect(await b.array()).toEqual([
      [-1, -3, -5],
      [-2, -4, -6],
    ])
  })

  const optimizers: [string, (params: Tensor[]) => optim.Optimizer][] = [
    ['AdamW', (params) => new optim.AdamW(params, { lr: 0.1 })],
    ['Adam with amsgrad', (params) => new optim.Adam(params, { lr: 0.1, amsgrad: true })],
    ['AdamW8bit', (params) => new optim.AdamW8bit(params, { lr: 0.1 })],
    ['SGD', (params) => new optim.SGD(params, { lr: 0.1 })],
    ['SGD with dampening', (params) => new optim.SGD(params, { lr: 0.1, momentum: 0.9, dampening: 0.5 })],
    ['RMSprop', (params) => new optim.RMSprop(params, { lr: 0.1, momentum: 0.5, centered: true })],
    ['Adagrad', (params) => new optim.Adagrad(params, { lr: 0.1, lrDecay: 0.1 })],
  ]

  it.each(optimizers)('%s: a skipped step changes nothing, counts and states included', async (_, make) => {
    // the same gradients, with and without overflows between them: the large parameter has 8-bit states where asked for
    const grads = Array.from({ length: 6 }, (_, step) => [Math.sin(step + 1), Math.cos(step), (step % 3) - 1])
    const run = async (overflows: boolean): Promise<unknown> => {
      const [a, b] = [weights([1, -2, 3]), nn.parameter(zeros([5000]))]
      const optimizer = make([a, b])
      const scaler = new GradScaler({ initScale: 1, backoffFactor: 1 - Number.EPSILON / 2, growthInterval: 1e6 })
      scaler.scale(tensor(1))
      const attempt = async (values: number[], without: boolean): Promise<boolean> => {
        a.grad = without ? null : tensor(values)
        b.grad = zeros([5000]).add(values[0]!)
        const stepped = scaler.step(optimizer)
        scaler.update(1)
        return stepped
      }
      for (const [i, values] of grads.entries()) {
        if (overflows && i % 2 === 0) expect(await attempt([inf, 1, 1], i === 4)).toBe(false)
        if (overflows && i === 3) expect(await attempt([Number.NaN, 1, 1], false)).toBe(false)
        expect(await attempt(values, i === 2)).toBe(true)
      }
      const states = await Promise.all(
        [...optimizer.state.values()].flatMap((state) =>
          Object.entries(state).map(async ([name, value]) => [
            name,
            typeof value === 'number' ? value : await (value as Tensor).array(),
          ]),
        ),
      )
      return [await a.array(), await b.array(), states]
    }
    expect(await run(true)).toEqual(await run(false))
  })

  it.each(optimizers)('%s: steps as without a scaler', async (_, make) => {
    const run = async (scaled: boolean): Promise<unknown> => {
      const [a, b] = [weights([1, -2, 3]), nn.parameter(zeros([5000]))]
      const optimizer = make([a, b])
      const scaler = new GradScaler({ initScale: 1024 })
      scaler.scale(tensor(1))
      for (let step = 0; step < 5; step++) {
        a.grad = tensor([Math.sin(step), 1, -step]).mul(scaled ? 1024 : 1)
        b.grad = step === 1 ? null : zeros([5000]).add((scaled ? 1024 : 1) / (step + 1))
        // turns from one to the other in the middle: counts go on
        if (!scaled) optimizer.step()
        else if (step === 3) {
          scaler.unscale_(optimizer)
          optimizer.step()
          scaler.update()
        } else {
          scaler.step(optimizer)
          scaler.update()
        }
      }
      return [await a.array(), await b.array()]
    }
    expect(await run(true)).toEqual(await run(false))
  })

  it('refuses to grow to a scale that is not finite, and counts again', async () => {
    const { scaler, optimizer } = started([1], { initScale: 2 ** 127, growthInterval: 1 })
    for (let i = 0; i < 3; i++) {
      scaler.step(optimizer)
      scaler.update()
      expect(await scaler.getScale()).toBe(2 ** 127)
      expect(await (scaler.stateDict().growthTracker as Tensor).item()).toBe(0)
    }
  })

  it('takes a new scale from a number or a tensor', async () => {
    const { scaler } = started([1])
    scaler.update(16)
    expect(await scaler.getScale()).toBe(16)
    const given = tensor([3])
    scaler.update(given)
    noGrad(() => given.fill_(7))
    expect(await scaler.getScale()).toBe(3)
    expect(() => scaler.update(0)).toThrow(
      'GradScaler.update: newScale is out of range: got 0, expected a finite number',
    )
    expect(() => scaler.update(tensor([1, 2]))).toThrow('newScale is not a number: got a tensor of shape [2]')
  })

  it('keeps its scale where that of a tensor is none', async () => {
    const { scaler } = started([1])
    const none = [tensor(0), tensor(-2), tensor(Number.NaN), tensor(inf), tensor(1e-60, { dtype: 'float64' })]
    for (const each of none) {
      scaler.update(each)
      expect(await scaler.getScale()).toBe(4)
      scaler.loadStateDict({ ...(scaler.stateDict() as amp.GradScalerState), scale: each })
      expect(await scaler.getScale()).toBe(4)
    }
    scaler.update(tensor([8], { dtype: 'int64' }))
    expect(await scaler.getScale()).toBe(8)
  })

  it('returns a promise of a step as good as any', async () => {
    const { scaler, optimizer } = started([1])
    const step = scaler.step(optimizer)
    const heard: string[] = []
    expect(await step.finally(() => heard.push('finally'))).toBe(true)
    expect(await step.catch(() => heard.push('catch'))).toBe(true)
    scaler.update()
    optimizer.paramGroups[0]!.params[0]!.grad = tensor([1])
    const scheduler = {
      step() {
        throw new RangeError('mine')
      },
    }
    const failing = scaler.step(optimizer, { scheduler })
    expect(await failing.catch((error: Error) => error.message)).toBe('mine')
    await expect(failing.finally(() => heard.push('finally'))).rejects.toThrow('mine')
    expect(heard).toEqual(['finally', 'finally'])
  })

  it('refuses a schedule whose step is asynchronous, and hears what it fails with', async () => {
    const { scaler, optimizer } = started([1])
    const scheduler = {
      async step() {
        throw new RangeError('nobody awaits this')
      },
    }
    await expect(scaler.step(optimizer, { scheduler })).rejects.toMatchObject({
      code: 'ERR_GRADUS_ARGUMENT',
      message:
        'GradScaler.step: the step of the schedule is asynchronous: got a Promise, expected a rate that is set when step returns; await what it needs before the optimizer steps.',
    })
  })

  it('takes an infinite maxNorm, which only asks for the norm', async () => {
    const { scaler, optimizer, param } = started([3])
    expect(await scaler.step(optimizer, { maxNorm: inf }).norm!.item()).toBe(3)
    expect(await param.array()).toEqual([-2])
  })

  it('says how its state is written as JSON', () => {
    const { scaler } = started([1])
    expect(() => JSON.stringify(scaler.stateDict())).toThrow('await t.array()')
  })

  it('continues from its state to the bit, numbers or tensors', async () => {
    const { scaler, optimizer, param } = started([1], { initScale: 64, growthInterval: 3 })
    const next = new GradScaler({ growthInterval: 5 })
    for (let i = 0; i < 4; i++) {
      param.grad = tensor([i === 1 ? inf : 1])
      scaler.step(optimizer)
      scaler.update()
    }
    const state = scaler.stateDict()
    next.loadStateDict(state)
    expect([await next.getScale(), next.getGrowthInterval()]).toEqual([32, 3])
    expect(await (next.stateDict().growthTracker as Tensor).item()).toBe(2)
    scaler.step(optimizer)
    scaler.update()
    expect([await scaler.getScale(), await next.getScale()]).toEqual([64, 32])
    next.step(optimizer)
    next.update()
    expect(await next.getScale()).toBe(64)
    next.loadStateDict({ scale: 4, growthFactor: 2, backoffFactor: 0.5, growthInterval: 9, growthTracker: 1 })
    expect(await next.getScale()).toBe(4)
    expect(() => next.loadStateDict({})).toThrow('GradScaler.loadStateDict: not the state of a scaler')
    const torch = { scale: 4, growth_factor: 2, backoff_factor: 0.5, growth_interval: 9, _growth_tracker: 1 }
    expect(() => next.loadStateDict(torch as never)).toThrow(
      'GradScaler.loadStateDict: not the state of a scaler: got { scale, growth_factor, backoff_factor, growth_interval, _growth_tracker }, expected { scale, growthFactor, backoffFactor, growthInterval, growthTracker }.',
    )
    expect(() => next.loadStateDict({ ...(next.stateDict() as amp.GradScalerState), growthFactor: 1 })).toThrow(
      'GradScaler: growthFactor is out of range: got 1, expected a finite number above 1.',
    )
    expect(await next.getScale()).toBe(4)
  })

  it('does nothing when it is disabled', async () => {
    const scaler = new GradScaler({ enabled: false })
    const loss = tensor(2)
    expect(scaler.scale(loss)).toBe(loss)
    const param = weights([1], [inf])
    const optimizer = new optim.SGD([param], { lr: 1 })
    scaler.unscale_(optimizer)
    expect(await scaler.step(optimizer)).toBe(true)
    scaler.update()
    expect(await param.array()).toEqual([-inf])
    expect([await scaler.getScale(), scaler.getScaleSync(), scaler.stateDict()]).toEqual([1, 1, {}])
    scaler.loadStateDict({})
  })
})

describe('GradScaler with a schedule', () => {
  it('moves it on with steps that were taken, whether or not anything waits', async () => {
    for (const waits of [true, false]) {
      const { scaler, param, optimizer } = started([1])
      const schedule = new optim.ExponentialLR(optimizer, 0.5)
      const rates: number[] = []
      for (const bad of [0, 1, 0, 1, 1, 0]) {
        param.grad = tensor([bad ? inf : 4])
        const step = scaler.step(optimizer, { scheduler: schedule })
        scaler.update(4)
        if (waits) await step
        if (waits) rates.push(optimizer.paramGroups[0]!.lr)
      }
      if (waits) expect(rates).toEqual([0.5, 0.5, 0.25, 0.25, 0.25, 0.125])
      expect(schedule.getLastLr()).toEqual([0.125])
      expect(schedule.stateDict().lastEpoch).toBe(3)
      expect(await param.array()).toEqual([1 - 1 - 0.5 - 0.25])
    }
  })

  it('throws what the schedule threw, to whoever waits or else at the next step', async () => {
    for (const waits of [true, false]) {
      const { scaler, param, optimizer } = started([1])
      param.grad = tensor([4])
      const broken = {
        step() {
          throw new RangeError('mine')
        },
      }
      const step = scaler.step(optimizer, { scheduler: broken })
      scaler.update()
      if (waits) await expect(step).rejects.toThrow('mine')
      await new Promise((resolve) => setTimeout(resolve, 20)) // the decision arrives meanwhile
      param.grad = tensor([4])
      const next = (): unknown => scaler.step(optimizer)
      if (waits) next()
      else expect(next).toThrow('mine')
    }
  })

  it('settles before the state of the optimizer is taken', async () => {
    const { scaler, optimizer } = started([1])
    const schedule = new optim.ExponentialLR(optimizer, 0.5)
    scaler.step(optimizer, { scheduler: schedule })
    expect(optimizer.stateDict().paramGroups[0]!.lr).toBe(0.5)
    expect(schedule.lastEpoch).toBe(1)
  })
})

describe('GradScaler with an optimizer of the caller', () => {
  class Plain extends optim.Optimizer<{ lr: number }> {
    protected check(): void {}
    protected update(group: optim.ParamGroup<{ lr: number }>, params: Tensor[]): void {
      noGrad(() => {
        for (const param of params) param.sub_(param.grad!.mul(group.lr))
      })
    }
  }

  it('waits, unscales, clips and skips', async () => {
    const param = weights([1, 1])
    const optimizer = new Plain([param], { lr: 1 })
    const scaler = new GradScaler({ initScale: 2 })
    scaler.scale(tensor(1))
    param.grad = tensor([6, 8])
    const step = scaler.step(optimizer, { maxNorm: 1 })
    scaler.update()
    expect([await step, await step.norm!.item()]).toEqual([true, 5])
    expect(await param.array()).toEqual([expect.closeTo(0.4, 5), expect.closeTo(0.2, 5)])
    param.grad = tensor([inf, 8])
    expect(scaler.step(optimizer).steppedSync()).toBe(false)
    expect(await param.array()).toEqual([expect.closeTo(0.4, 5), expect.closeTo(0.2, 5)])
  })
})

describe('GradScaler in training', () => {
  class Mlp extends nn.Module {
    up = new nn.Linear(32, 64)
    down = new nn.Linear(64, 32)
    forward(x: Tensor): Tensor {
      return this.down.forward(ops.gelu(this.up.forward(x)))
    }
  }

  /** Losses and which steps were taken; without a scaler, those of `taken`. */
  async function train(half: boolean, folder?: string, taken?: boolean[]): Promise<[number[], boolean[]]> {
    random.seed(1)
    let model = new Mlp()
    let optimizer = new optim.AdamW(model.parameters(), { lr: 3e-3 })
    let scaler = new GradScaler({ enabled: half, initScale: 2 ** 30 })
    const [losses, steps]: [number[], boolean[]] = [[], []]
    for (let step = 0; step < 60; step++) {
      if (folder !== undefined && step === 30) {
        await io.saveCheckpoint(folder, { model, optimizer, scaler }, { step })
        model = new Mlp()
        optimizer = new optim.AdamW(model.parameters())
        scaler = new GradScaler()
        await io.loadCheckpoint(folder, { model, optimizer, scaler })
      }
      random.seed(1000 + step)
      const x = randn([64, 32])
      optimizer.zeroGrad()
      const loss = amp.autocast({ dtype: 'float16', enabled: half }, () =>
        ops.mseLoss(model.forward(x).float(), x.cumsum(1).mul(0.2)),
      )
      scaler.scale(loss).backward()
      const takes = taken?.[step] ?? true
      if (takes) steps.push(await scaler.step(optimizer, { maxNorm: 1 }))
      if (takes) scaler.update()
      losses.push(await loss.item())
    }
    return [losses, steps]
  }

  it('follows float32 in float16, from a scale that is too large at first', async () => {
    const [half, steps] = await train(true)
    expect(steps.indexOf(true)).toBeGreaterThan(2)
    const [full] = await train(false, undefined, steps)
    expect(full.at(-1)).toBeLessThan(full[0]! / 2)
    half.forEach((loss, i) => {
      expect(Math.abs(loss / full[i]! - 1)).toBeLessThan(0.02)
    })
  })

  it('takes the step of a group of micro-batches', async () => {
    const run = async (scaler?: amp.GradScaler): Promise<unknown> => {
      random.seed(1)
      const model = new Mlp()
      const optimizer = new optim.AdamW(model.parameters())
      const group = [randn([4, 32]), randn([2, 32])]
      const loss = (x: Tensor): Tensor => ops.mseLoss(model.forward(x), x)
      const targets = (x: Tensor): number => x.numel
      const given = { optimizer, maxNorm: 0.1, loss, targets, ...(scaler && { scaler }) }
      const { norm, step } = await optim.accumulate(model as never, group, given)
      if (scaler) expect(await step).toBe(true)
      return [await norm!.item(), await model.up.weight.array()]
    }
    expect(await run(new GradScaler({ initScale: 1024 }))).toEqual(await run())
  })

  it('resumes from a checkpoint with the same bits', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'gradus-scaler-'))
    try {
      expect(await train(true, folder)).toEqual(await train(true))
    } finally {
      await rm(folder, { recursive: true })
    }
  })

  it('holds no more memory after many steps', async () => {
    const { scaler, param, optimizer } = started([1, 2, 3])
    const schedule = new optim.LambdaLR(optimizer, () => 1)
    const steps = async (count: number): Promise<number> => {
      for (let i = 0; i < count; i++) {
        optimizer.zeroGrad()
        param.grad = tensor([1, 2, 3])
        await scaler.step(optimizer, { maxNorm: 1, scheduler: schedule })
        scaler.update()
      }
      setFlagsFromString('--expose-gc')
      for (let i = 0; i < 3; i++) {
        runInNewContext('gc')()
        await new Promise((resolve) => setTimeout(resolve, 10))
      }
      return memory.allocated()
    }
    const before = await steps(20)
    expect(await steps(400)).toBeLessThanOrEqual(before + 1024)
  })
})
