// Copies to the device beside its stream.
import { describe, expect, it } from 'vitest'
import { ArgumentError, cuda, data, empty, ones, type Tensor, tensor } from '../../lib/index'

const device = 'cuda:0'

describe('to(device, { nonBlocking: true })', () => {
  it('gives whoever uses the copy what was there at the call', async () => {
    const x = tensor([1, 2, 3])
    const there = x.to(device, { nonBlocking: true })
    x.fill_(9)
    expect(await there.add(1).array()).toEqual([2, 3, 4])
    expect(await there.array()).toEqual([1, 2, 3])
    const narrow = x.to({ dtype: 'float16', device }, { nonBlocking: true })
    expect([narrow.dtype, await narrow.array()]).toEqual(['float16', [9, 9, 9]])
  })

  it('waits for kernels that still read the memory, and memory that is free again for the copy', async () => {
    const sums: Tensor[] = []
    for (let turn = 0; turn < 12; turn++) {
      const x = tensor(new Array(1000).fill(turn)).to(device, { nonBlocking: true })
      if (turn % 3 !== 0) sums.push(x.mul(2).sum())
      x.dispose() // every third one before anybody used it
      ones([1000], { device }).dispose()
    }
    const wanted = [1, 2, 4, 5, 7, 8, 10, 11].map((turn) => 2000 * turn)
    expect(await Promise.all(sums.map((sum) => sum.item()))).toEqual(wanted)
  })

  it('copies what is empty, and refuses options that do not exist', async () => {
    expect(await empty([0, 3]).to(device, { nonBlocking: true }).array()).toEqual([])
    expect(() => ones([1]).to(device, { non_blocking: true } as never)).toThrow(/write nonBlocking/)
    expect(() => ones([1]).to(device, { nonBlocking: 1 } as never)).toThrow(ArgumentError)
  })
})

describe('data.DataLoader with a device', () => {
  const samples = Array.from({ length: 10 }, (_, i) => ({ x: i, y: Int32Array.of(i, -i) }))

  it('gives batches there, in order, and knows how many it has handed out', async () => {
    const loader = new data.DataLoader(samples, { batchSize: 4, device })
    const seen: unknown[] = []
    for await (const { x, y } of loader) {
      expect([x.device.toString(), y.dtype]).toEqual([device, 'int32'])
      seen.push([loader.stateDict().position, await x.array(), ((await y.array()) as number[][]).length])
    }
    expect(seen).toEqual([
      [1, [0, 1, 2, 3], 4],
      [2, [4, 5, 6, 7], 4],
      [3, [8, 9], 2],
    ])
  })

  it('lets go of the batch that is on its way when the loop ends early', async () => {
    const loader = new data.DataLoader(samples, { batchSize: 2, device })
    await cuda.synchronize()
    const before = cuda.memoryAllocated()
    for await (const { x, y } of loader) {
      x.dispose()
      y.dispose()
      break
    }
    await cuda.synchronize()
    expect(cuda.memoryAllocated()).toBe(before)
  })
})
