// What replays find in their data: who hears of it, what of their results counts as lost, and for how long.
import { describe, expect, it } from 'vitest'
import { cuda, ones, ops, setDefaultDevice, type Tensor, tensor, zeros } from '../../lib/index'

setDefaultDevice('cuda')

const indexOf = (...values: number[]): Tensor => tensor(values, { dtype: 'int64' })
const outOfRange = /index is out of range: got 7/

/** A graph that looks up rows 0, 1, 2, ... of a table by an index that tests change. */
function lookUp(length = 2): { index: Tensor; picked: Tensor; graph: cuda.CUDAGraph } {
  const index = zeros([length], { dtype: 'int64' })
  const table = tensor([0, 1, 2, 3])
  const graph = new cuda.CUDAGraph()
  const picked = graph.capture(() => table.indexSelect(0, index))
  return { index, picked, graph }
}

describe('a replay that finds something in its data', () => {
  it('spoils what it makes until the next replay', async () => {
    const { index, picked, graph } = lookUp()
    index.fill_(7)
    graph.replay()
    await expect(cuda.synchronize()).rejects.toThrow(outOfRange)
    for (let i = 0; i < 2; i++) await expect(picked.data()).rejects.toThrow(outOfRange)
    index.fill_(3)
    graph.replay()
    expect(await picked.array()).toEqual([3, 3])
  })

  it('leaves alone what was computed from an earlier one, and spoils for good what is from its own', async () => {
    const { index, picked, graph } = lookUp()
    index.fill_(2)
    graph.replay()
    const before = picked.mul(10).keep()
    await cuda.synchronize()
    index.fill_(7)
    graph.replay()
    const behind = picked.mul(10).keep()
    await expect(behind.data()).rejects.toThrow(outOfRange)
    expect(await before.array()).toEqual([20, 20])
    index.fill_(1)
    graph.replay()
    expect(await before.array()).toEqual([20, 20])
    await expect(behind.data()).rejects.toThrow(outOfRange)
    expect(await picked.mul(10).array()).toEqual([10, 10])
  })

  it('keeps a graph that reads it from being replayed, and no longer', async () => {
    const { index, picked, graph } = lookUp()
    const second = new cuda.CUDAGraph()
    graph.replay()
    const doubled = second.capture(() => ones([2]).indexAdd(0, indexOf0, picked))
    second.replay()
    expect(await doubled.array()).toEqual([1, 1])
    index.fill_(7)
    graph.replay()
    await expect(cuda.synchronize()).rejects.toThrow(outOfRange)
    second.replay()
    await expect(cuda.synchronize()).rejects.toThrow(outOfRange)
    index.fill_(3)
    graph.replay()
    second.replay()
    expect(await doubled.array()).toEqual([4, 4])
  })

  it('never lets a read have what is wrong, however far the host is ahead', async () => {
    const { index, picked, graph } = lookUp(64)
    const given: number[] = []
    const reads: Promise<unknown>[] = []
    for (let i = 0; i < 60; i++) {
      const value = i % 5 === 2 ? 7 : i % 4
      given.push(value)
      index.fill_(value)
      graph.replay()
      const read = picked.data()
      read.catch(() => {})
      reads.push(read)
      if (i % 7 === 0) await new Promise((resolve) => setTimeout(resolve, i % 3))
    }
    const settled = await Promise.allSettled(reads)
    for (const [i, each] of settled.entries()) {
      if (each.status === 'fulfilled') expect(each.value, `read ${i}`).toEqual(new Float32Array(64).fill(given[i]!))
    }
    expect(settled.filter(({ status }) => status === 'rejected').length).toBeGreaterThanOrEqual(1)
    await cuda.synchronize().catch(() => {})
    index.fill_(2)
    graph.replay()
    expect(await picked.sum().item()).toBe(128)
  })
})

describe('a failure outside of a graph', () => {
  it('that is found behind replays spoils them, and not the next ones', async () => {
    const { index, picked, graph } = lookUp()
    ops.embedding(indexOf(7), zeros([4, 2]))
    index.fill_(1)
    graph.replay()
    await expect(picked.data()).rejects.toThrow(outOfRange)
    await expect(picked.data()).rejects.toThrow(outOfRange)
    graph.replay()
    expect(await picked.array()).toEqual([1, 1])
  })

  it('in what a graph reads: it is not replayed until there is something else', async () => {
    const input = zeros([2]).keep()
    const graph = new cuda.CUDAGraph()
    const output = graph.capture(() => input.add(1))
    input.copy_(tensor([1, 2, 3]).indexSelect(0, indexOf(1, 7)))
    graph.replay()
    await expect(output.data()).rejects.toThrow(outOfRange)
    graph.replay()
    await expect(output.data()).rejects.toThrow(outOfRange)
    input.copy_(tensor([5, 6]))
    graph.replay()
    expect(await output.array()).toEqual([6, 7])
  })
})

const indexOf0 = indexOf(0, 1)
