import { expect, test } from 'vitest'
import { train } from '../../examples/basicLoop'
import { makeModel, step } from '../../examples/checkpointing'
import { train as trainIn } from '../../examples/mixedPrecision'
import { train as trainOn } from '../../examples/modelParallel'
import { rates, schedules } from '../../examples/schedules'

test('basicLoop: the loss falls from that of a guess', async () => {
  const losses = await train(8, () => {})
  expect(losses).toHaveLength(8 * 16)
  expect(losses[0]).toBeCloseTo(Math.log(32), 1)
  const last = losses.slice(-8).reduce((a, b) => a + b) / 8
  expect(last).toBeLessThan(losses[0]! - 0.1)
})

test('schedules: linear warm-up reaches the rate and falls to zero', () => {
  const linear = rates(schedules.linear!)
  expect(linear[0]).toBe(0)
  expect(linear[10]).toBeCloseTo(5e-5, 12)
  expect(linear[55]).toBeCloseTo(2.5e-5, 12)
  expect(linear[100]).toBe(0)
})

test('schedules: cosine warm-up is halfway down in the middle', () => {
  const cosine = rates(schedules.cosine!)
  expect(cosine[10]).toBeCloseTo(5e-5, 12)
  expect(cosine[55]).toBeCloseTo(2.5e-5, 12)
  expect(cosine[100]).toBeCloseTo(0, 12)
})

test('schedules: noam follows min(s^-0.5, s w^-1.5) with s = max(1, step)', () => {
  const noam = rates(schedules['inverse sqrt']!)
  const expected = (step: number): number => {
    const s = Math.max(1, step)
    return 512 ** -0.5 * Math.min(s ** -0.5, s * 10 ** -1.5)
  }
  for (const [step, rate] of noam.entries()) expect(rate).toBeCloseTo(expected(step), 12)
})

test('schedules: a multiplier by hand', () => {
  const byHand = rates(schedules['by hand']!)
  expect(byHand[0]).toBeCloseTo(5e-6, 15)
  expect(byHand[9]).toBeCloseTo(5e-5, 15)
  expect(byHand[99]).toBeCloseTo(5e-5, 15)
})

test('checkpointing: the same gradients in a third of the memory', async () => {
  const model = makeModel()
  const stored = await step(model, 'store')
  const [all, some] = [await step(model, 'checkpoint'), await step(model, 'selective')]
  expect(all.gradient).toEqual(stored.gradient)
  expect(some.gradient).toEqual(stored.gradient)
  expect(all.activations).toBeLessThan(0.35 * stored.activations)
  expect(some.activations).toBeLessThan(0.6 * stored.activations)
})

test('mixedPrecision: 16 bits learn as float32 does, and store less', async () => {
  const [whole, ...narrow] = [
    await trainIn('float32', 4, 64, 4),
    await trainIn('bfloat16', 4, 64, 4),
    await trainIn('float16', 4, 64, 4),
  ] as const
  expect(whole.losses.at(-1)!).toBeLessThan(whole.losses[0]! - 0.5)
  for (const { losses, activationBytes } of narrow) {
    for (const [i, loss] of losses.entries()) expect(Math.abs(loss - whole.losses[i]!)).toBeLessThan(0.03)
    expect(activationBytes).toBeLessThan(0.6 * whole.activationBytes)
  }
})

test('modelParallel: on two devices as on one, to the bit', async () => {
  const apart = await trainOn(['cpu:0', 'cpu:1'])
  expect(apart).toEqual(await trainOn(['cpu:0', 'cpu:0']))
  expect(apart.losses.at(-1)!).toBeLessThan(apart.losses[0]! - 0.5)
})
