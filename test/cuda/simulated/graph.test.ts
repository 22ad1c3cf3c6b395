// What only the driver sees of a graph: how much is submitted, and memory that is not there.
import { afterEach, describe, expect, it } from 'vitest'
import { cuda, OutOfMemoryError, ones } from '../../../lib/index'
import { inUse, makeTraining } from '../trainingStep'
import { simulator } from './simulator'

const submitted = (): Record<'kernels' | 'graphs' | 'copies' | 'sets', number> =>
  JSON.parse(simulator.counters()).submitted

afterEach(() => simulator.control('reset'))

describe('cuda.CUDAGraph', () => {
  it('is one launch a step', async () => {
    const training = makeTraining({ dropout: 0.1 })
    await training.step()
    await cuda.synchronize()
    simulator.control('reset')
    await training.step()
    const eager = submitted()
    expect(eager.kernels).toBeGreaterThan(50)
    const graph = new cuda.CUDAGraph()
    graph.capture(training.queue)
    await cuda.synchronize()
    simulator.control('reset')
    graph.replay()
    await cuda.synchronize()
    expect(submitted()).toMatchObject({ kernels: 0, graphs: 1, sets: 0 })
  })

  it('tells of memory that it cannot have, and leaves nothing', async () => {
    const x = ones([8], { device: 'cuda' })
    const before = await inUse()
    for (const n of [1, 2, 3]) {
      await cuda.synchronize()
      simulator.control(`failAllocation=${n} failAllocations=2`)
      expect(() => new cuda.CUDAGraph().capture(() => x.add(1).mul(2))).toThrow(OutOfMemoryError)
      simulator.control('reset')
    }
    expect(await inUse()).toBe(before)
    expect(await x.array()).toEqual(new Array(8).fill(1))
  })
})
