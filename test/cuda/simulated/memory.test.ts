// Memory as it is kept for reuse, on a card that has little: what graphs leave, what a limit holds for, what an error says.
import { afterEach, describe, expect, it } from 'vitest'
import './caching'

process.env.CUDASIM_MEMORY = '96M'
process.env.CUDASIM_DEVICES = '2'

import { cuda, full, memory, OutOfMemoryError, ones, type Tensor, tidy, zeros } from '../../../lib/index'

const MEBI = 1 << 20
const device = 'cuda'

afterEach(() => memory.setLimit(0, device))

describe('memory of a CUDA device', () => {
  it('comes back from graphs that were reset, small tensors in them or not', async () => {
    for (const size of [4, MEBI]) {
      const x = ones([size], { device })
      for (let n = 0; n < 20; n++) {
        const graph = new cuda.CUDAGraph()
        const y = graph.capture(() => x.mul(2))
        graph.replay()
        y.dispose()
        graph.reset()
        await cuda.synchronize()
      }
      x.dispose()
    }
    await cuda.synchronize()
    cuda.emptyCache()
    expect([cuda.memoryAllocated(), cuda.memoryReserved()]).toEqual([0, 0])
  })

  it('is taken from a graph that was reset when there is no other', async () => {
    const x = ones([2 * MEBI], { device, dtype: 'float64' })
    const graph = new cuda.CUDAGraph()
    const y = graph.capture(() => x.mul(2))
    graph.replay()
    graph.reset()
    const first = y.select(0, 0)
    expect(await first.item()).toBe(2) // it stays while a tensor lies in it
    first.dispose()
    y.dispose()
    const large = zeros([5 * MEBI], { device, dtype: 'float64' })
    await cuda.synchronize()
    for (const each of [x, large]) each.dispose()
    await cuda.synchronize()
    cuda.emptyCache()
    expect(cuda.memoryReserved()).toBe(0)
  })

  it('is there for a graph where the cache has what was used before', async () => {
    const x = ones([2 * MEBI], { device, dtype: 'float64' })
    const step = (): Tensor => tidy(() => x.mul(2).add(1)) // two of 16 MiB
    step().dispose()
    const graph = new cuda.CUDAGraph()
    const y = graph.capture(step)
    graph.replay()
    const one = y.select(0, 0)
    expect(await one.item()).toBe(3)
    const reserved = cuda.memoryReserved()
    for (const each of [x, y, one]) each.dispose()
    await cuda.synchronize()
    cuda.emptyCache()
    expect(cuda.memoryReserved()).toBe(reserved) // of x, which the graph reads, and of what it writes
    cuda.resetPeakMemoryStats()
    expect([cuda.memoryAllocated(), cuda.maxMemoryAllocated()]).toEqual([16 * MEBI, 16 * MEBI]) // x
    graph.reset()
    await cuda.synchronize()
    cuda.emptyCache()
    expect([cuda.memoryAllocated(), cuda.memoryReserved()]).toEqual([0, 0])
  })

  it('comes back from a capture that finds too little', async () => {
    const graph = new cuda.CUDAGraph()
    for (let i = 0; i < 2; i++) {
      const all = (): Tensor[] => Array.from({ length: 10 }, (_, k) => full([MEBI], k, { device, dtype: 'float64' }))
      expect(() => graph.capture(() => [...all(), ...all()])).toThrow(OutOfMemoryError)
    }
    await cuda.synchronize()
    cuda.emptyCache()
    expect([cuda.memoryAllocated(), cuda.memoryReserved()]).toEqual([0, 0])
  })

  it('comes in smaller pieces where the driver has no large one', async () => {
    const held = zeros([5 * MEBI], { device, dtype: 'float64' }) // and less is left than the cache asks for at once
    const more = Array.from({ length: 5 }, () => ones([MEBI], { device, dtype: 'float64' }))
    const one = more[4]!.select(0, 7)
    expect(await one.item()).toBe(1)
    for (const each of [held, ...more, one]) each.dispose()
    await cuda.synchronize()
    cuda.emptyCache()
  })

  it('is limited for a graph, too, and an error says where and how much is in use', async () => {
    const x = ones([2 * MEBI], { device, dtype: 'float64' })
    await cuda.synchronize()
    memory.setLimit(25 * MEBI, device)
    const graph = new cuda.CUDAGraph()
    const capture = (): unknown => graph.capture(() => x.mul(2))
    expect(capture).toThrow(OutOfMemoryError)
    expect(capture).toThrow(
      /out of memory on cuda:0, the memory limit is reached: got a request for 16\.0 MiB with 16\.0 MiB in use and \d+\.\d MiB reserved.*, expected at most 25\.0 MiB/,
    )
    memory.setLimit(33 * MEBI, device)
    const y = graph.capture(() => x.mul(2)).keep()
    await expect(ones([MEBI], { device }).data()).rejects.toThrow(/with 32\.0 MiB in use/)
    await expect(ones([25 * MEBI], { device: 'cuda:1' }).data()).rejects.toThrow(/on cuda:1, the memory limit/)
    for (const each of [x, y]) each.dispose()
    graph.reset()
  })
})
