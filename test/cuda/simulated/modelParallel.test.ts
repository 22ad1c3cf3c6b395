// examples/modelParallel.ts on two cards, which the simulator has when it is asked before it starts.
import { describe, expect, it } from 'vitest'
import { type Result, train } from '../../../examples/modelParallel'
import { cuda, memory } from '../../../lib/index'

process.env.CUDASIM_DEVICES = '2'

/** The largest difference of two lists. */
const distance = (a: ArrayLike<number>, b: ArrayLike<number>): number => {
  expect(a.length).toBe(b.length)
  return Math.max(...Array.from(a, (x, i) => Math.abs(x - b[i]!)))
}

const expectAlike = (a: Result, b: Result, tolerance: number): void => {
  expect(distance(a.losses, b.losses)).toBeLessThanOrEqual(tolerance)
  expect(Object.keys(a.gradients)).toEqual(Object.keys(b.gradients))
  for (const [name, gradient] of Object.entries(a.gradients)) {
    expect(distance(gradient, b.gradients[name]!), name).toBeLessThanOrEqual(tolerance)
  }
}

describe('modelParallel on two CUDA devices', () => {
  it('trains as on one device: losses and gradients', async () => {
    expect(cuda.deviceCount()).toBe(2)
    const apart = await train(['cuda:0', 'cuda:1'])
    for (const device of ['cuda:0', 'cuda:1'] as const) {
      expect(memory.maxAllocated(device), device).toBeGreaterThan(32 * 1024) // a layer, its gradients and states
    }
    const together = await train(['cuda:1', 'cuda:1'])
    expect(apart.losses).toHaveLength(20)
    expect(apart.losses.at(-1)!).toBeLessThan(apart.losses[0]! - 0.5)
    expectAlike(apart, together, 1e-6)
    expectAlike(apart, await train(['cpu', 'cpu']), 2e-5)
  }, 120_000)
})
