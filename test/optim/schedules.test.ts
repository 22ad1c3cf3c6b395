import { describe, expect, it } from 'vitest'
import { ArgumentError, nn, optim, StateError, tensor } from '../../lib/index'
import { expectClose, goldenCases, goldenTensors } from '../support/golden'

const twoGroups = (rates = [0.1, 0.3]): optim.SGD =>
  new optim.SGD(rates.map((lr) => ({ params: [nn.parameter(tensor([1]))], lr })))

describe('schedules refuse', () => {
  it('rates that are no rates, naming the step', () => {
    expect(() => new optim.LambdaLR(twoGroups(), () => Number.NaN)).toThrow(
      'LambdaLR: not a learning rate: got NaN for group 0 at step 0, expected a finite number of at least 0.',
    )
    const schedule = new optim.LambdaLR(twoGroups(), (step) => (step < 1 ? 1 : -1))
    expect(() => schedule.step()).toThrow('got -0.1 for group 0 at step 1')
  })

  it('what is no optimizer, and a width of 0', () => {
    expect(() => optim.inverseSqrt(null as never)).toThrow('inverseSqrt: not an optimizer: got null')
    expect(() => optim.inverseSqrt(twoGroups(), { dModel: 0 })).toThrow(
      'inverseSqrt: dModel is not a width: got 0, expected a number above 0.',
    )
  })
})

const makers: Record<string, (optimizer: optim.SGD, params: Record<string, number>) => optim.LRScheduler> = {
  lambda_linear: (optimizer, { warmup, total }) =>
    new optim.LambdaLR(optimizer, (s) =>
      s < warmup! ? s / Math.max(1, warmup!) : Math.max(0, (total! - s) / Math.max(1, total! - warmup!)),
    ),
  hf_linear: (optimizer, { warmup, total }) =>
    optim.linearWarmup(optimizer, { warmupSteps: warmup!, totalSteps: total! }),
  hf_cosine: (optimizer, { warmup, total }) =>
    optim.cosineWarmup(optimizer, { warmupSteps: warmup!, totalSteps: total! }),
  hf_inverse_sqrt: (optimizer, { warmup }) => optim.inverseSqrt(optimizer, { warmupSteps: warmup!, mode: 'relative' }),
  hf_inverse_sqrt_ts: (optimizer, { warmup, timescale }) =>
    optim.inverseSqrt(optimizer, { warmupSteps: warmup!, mode: 'relative', timescale: timescale! }),
  exponential: (optimizer, { gamma }) => new optim.ExponentialLR(optimizer, gamma!),
}

describe('schedules: recorded rates', () => {
  for (const each of goldenCases('schedules', /./)) {
    it(each.name, async () => {
      const stored = await goldenTensors(each.file)
      const optimizer = twoGroups(each.params.base_lr)
      const schedule = makers[each.op]!(optimizer, each.params)
      const rates = [schedule.getLastLr()]
      for (let step = 0; step < each.params.steps; step++) {
        schedule.step()
        rates.push(schedule.getLastLr())
      }
      const reference = stored[(each.outputs as Record<string, string>).lr!]!
      await expectClose(tensor(rates, { dtype: 'float64' }), reference, each.tolerance)
    })
  }
})

const ratesOf = (make: (optimizer: optim.SGD) => optim.LRScheduler, steps: number): number[] => {
  const optimizer = twoGroups([1])
  const schedule = make(optimizer)
  return Array.from({ length: steps }, () => {
    const { lr } = optimizer.paramGroups[0]!
    schedule.step()
    return lr
  })
}

describe('schedules', () => {
  it('sets the rate of the next update', async () => {
    const w = nn.parameter(tensor([1]))
    const optimizer = new optim.SGD([w], { lr: 1 })
    const schedule = optim.linearWarmup(optimizer, { warmupSteps: 2, totalSteps: 4 })
    const seen: number[] = []
    for (let step = 0; step < 3; step++) {
      w.grad = tensor([1])
      optimizer.step()
      schedule.step()
      seen.push(await w.item())
    }
    expect(seen).toEqual([1, 0.5, -0.5]) // rates 0, 0.5, 1
  })

  it('works without a warmup, and stays at its end', () => {
    const options = { warmupSteps: 0, totalSteps: 4 }
    expect(ratesOf((optimizer) => optim.linearWarmup(optimizer, options), 7)).toEqual([1, 0.75, 0.5, 0.25, 0, 0, 0])
    const cosine = ratesOf((optimizer) => optim.cosineWarmup(optimizer, options), 9)
    expect(cosine[0]).toBe(1)
    expect(cosine.slice(4)).toEqual([0, 0, 0, 0, 0])
    expect(ratesOf((optimizer) => optim.inverseSqrt(optimizer, { warmupSteps: 0 }), 5)[4]).toBe(0.5)
  })

  it('inverseSqrt: peaks where the warmup ends, with and without a width', () => {
    const noam = (dModel?: number): number[] =>
      ratesOf((optimizer) => optim.inverseSqrt(optimizer, dModel === undefined ? {} : { dModel }), 8000)
    expect(Math.max(...noam())).toBeCloseTo(0.015811, 6)
    const wide = noam(512)
    expect(wide[4000]).toBe(Math.max(...wide))
    expect(wide[4000]).toBeCloseTo(6.9877e-4, 8)
    expect(wide[0]).toBe(wide[1]) // s = max(1, step)
  })

  it('ExponentialLR: may grow, and keeps a change by hand', () => {
    expect(ratesOf((optimizer) => new optim.ExponentialLR(optimizer, 2), 4)).toEqual([1, 2, 4, 8])
    const optimizer = twoGroups([1])
    const schedule = new optim.ExponentialLR(optimizer, 0.5)
    optimizer.paramGroups[0]!.lr = 8
    schedule.step()
    expect(schedule.getLastLr()).toEqual([4])
  })

  it('takes one function a group', () => {
    const optimizer = twoGroups([1, 2])
    const schedule = new optim.LambdaLR(optimizer, [(s) => s, (s) => 10 * s])
    schedule.step()
    expect(schedule.getLastLr()).toEqual([1, 20])
    expect(() => new optim.LambdaLR(optimizer, [(s) => s])).toThrow(
      'LambdaLR: not one function a group: got 1 for 2 groups, expected a function of the step, or 2 of them.',
    )
  })

  it('continues from its state', () => {
    const options = { warmupSteps: 3, totalSteps: 9 }
    const first = optim.cosineWarmup(twoGroups(), options)
    for (let step = 0; step < 5; step++) first.step()
    const second = optim.cosineWarmup(twoGroups([7, 7]), options)
    second.loadStateDict(first.stateDict())
    expect(second.getLastLr()).toEqual(first.getLastLr())
    first.step()
    second.step()
    expect(second.getLastLr()).toEqual(first.getLastLr())
    expect(() => second.loadStateDict({ lastEpoch: 1, baseLrs: [1], lastLr: [1] })).toThrow(StateError)
  })

  it('says what is out of range', () => {
    // @ts-expect-error totalSteps is missing
    expect(() => optim.linearWarmup(twoGroups(), { warmupSteps: 1 })).toThrow(
      'linearWarmup: totalSteps is not a number of steps: got undefined, expected a number of at least 0.',
    )
    expect(() => new optim.ExponentialLR(twoGroups(), 0)).toThrow(ArgumentError)
    // @ts-expect-error not an optimizer
    expect(() => new optim.ExponentialLR({}, 2)).toThrow('ExponentialLR: not an optimizer')
  })
})
