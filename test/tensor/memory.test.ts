import { constants, PerformanceObserver } from 'node:perf_hooks'
import { describe, expect, it } from 'vitest'
import { amp, memory, nn, noGrad, ones, ops, zeros } from '../../lib/index'
import { collect } from '../support/collect'

describe('memory', () => {
  it('gives back what is no longer reachable', async () => {
    await collect()
    const before = memory.tensors()
    for (let i = 0; i < 10; i++) zeros([100])
    expect(memory.tensors()).toBe(before + 10)
    await collect()
    expect(memory.tensors()).toBe(before)
  })

  it('does not keep casts of regions that hooks open in backward', async () => {
    const once = async (): Promise<void> => {
      const weight = ones([1, 1, 4, 8]).requiresGrad_()
      const x = ones([2]).requiresGrad_()
      x.registerHook(() => {
        using _ = amp.autocast()
        ops.scaledDotProductAttention(weight, weight, weight)
      })
      // the region around makes autocast's state of backward visible to the hook
      amp.autocast(() => x.sum().backward())
      await new Promise((resolve) => setImmediate(resolve))
    }
    await once()
    await collect()
    const before = memory.tensors()
    for (let i = 0; i < 5; i++) await once()
    await collect()
    expect(memory.tensors()).toBe(before)
  })

  async function majorCollections(turns: number, step: () => void): Promise<number> {
    await collect()
    let major = 0
    const observer = new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) {
        const { kind } = (entry as unknown as { detail: { kind: number } }).detail
        if (kind === constants.NODE_PERFORMANCE_GC_MAJOR) major++
      }
    })
    observer.observe({ entryTypes: ['gc'] })
    for (let i = 0; i < turns; i++) {
      step()
      await new Promise((resolve) => setImmediate(resolve))
    }
    await new Promise((resolve) => setTimeout(resolve, 20))
    observer.disconnect()
    return major
  }

  it('makes V8 collect for what only V8 can free, not for what was disposed of', async () => {
    const dropped = await majorCollections(400, () => void ones([1 << 20]))
    const disposed = await majorCollections(400, () => ones([1 << 20]).dispose())
    expect(dropped).toBeGreaterThan(4)
    expect(disposed).toBeLessThan(dropped / 2)
  })

  it("causes no collection by a tensor above V8's own bound that the next line disposes of", async () => {
    expect(await majorCollections(30, () => ones([1 << 25]).dispose())).toBeLessThan(4)
  })

  // 32 results of 4 MB that wait for their backward
  const leaf = ones([1 << 20]).requiresGrad_()
  const trainingStep = (): void => {
    leaf.grad = null
    let x = leaf.mul(1)
    for (let i = 0; i < 31; i++) x = x.mul(leaf)
    x.sum().backward()
  }

  it('causes no collection by what a step keeps for its backward', async () => {
    for (let i = 0; i < 8; i++) trainingStep() // what one step holds is known after it
    expect(await majorCollections(40, trainingStep)).toBeLessThan(7)
  })

  it('finds what steps drop beside what they release', async () => {
    const before = memory.tensors()
    let most = 0
    const major = await majorCollections(100, () => {
      trainingStep()
      for (let i = 0; i < 8; i++) ones([1 << 20])
      most = Math.max(most, memory.tensors() - before)
    })
    expect(major).toBeGreaterThan(4)
    expect(most).toBeLessThan(400) // of 800
  })

  it('finds what is dropped after something large was released', async () => {
    const before = memory.tensors()
    let most = 0
    ones([1 << 27]).dispose() // 512 MB: as much may be there before V8 hears of more
    await majorCollections(800, () => {
      ones([1 << 20])
      most = Math.max(most, memory.tensors() - before)
    })
    expect(most).toBeLessThan(340) // of 800 with 4 MB each
  })

  it('keeps parameters that were converted when the tensors between are collected', async () => {
    const layer = new nn.Linear(64, 64)
    layer.to('bfloat16').to('float64')
    await collect()
    const filler = Array.from({ length: 20 }, () => ones([64, 64]))
    const sum = await noGrad(() => layer.forward(zeros([1, 64], { dtype: 'float64' }))).data()
    expect(Array.from(sum, Number).some((value) => value !== 0)).toBe(true)
    expect(filler.length).toBe(20)
  })
})
