// Beside another library that uses CUDA on Node's thread: what it has made current there stays so, whatever gradus does.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { cuda, ones } from '../../../lib/index'

process.env.CUDASIM_DEVICES = '3'
process.env.GRADUS_NO_CUDA_MEMORY_CACHING = '0' // so that emptyCache has something to give back

const folder = mkdtempSync(join(tmpdir(), 'gradus-guest-'))
let guest: { use(index: number): number; current(): number }

beforeAll(() => {
  const built = join(folder, 'guest.node')
  const headers = 'node_modules/node-api-headers/include'
  execFileSync('c++', ['-shared', '-fPIC', '-I', headers, '-o', built, 'test/cuda/simulated/guest.cc', '-ldl'])
  guest = require(built)
})
afterAll(() => rmSync(folder, { recursive: true }))

describe('the context of another library', () => {
  it.each([
    [2, 0],
    [-1, 1], // none is current
    [1, 0],
  ])('of device %i stays current while cuda:%i is used', async (other, index) => {
    const context = guest.use(other)
    expect(context === 0).toBe(other < 0)
    const place = `cuda:${index}` as const
    const x = ones([1 << 16], { device: place })
    expect(guest.current()).toBe(context)
    const [start, end] = [new cuda.Event({ enableTiming: true }), new cuda.Event({ enableTiming: true })]
    start.record(place)
    const doubled = x.mul(2)
    const sum = doubled.sum()
    end.record(place)
    expect(sum.itemSync()).toBe(2 << 16)
    await end.synchronize()
    expect(start.elapsedTime(end)).toBeGreaterThanOrEqual(0)
    expect(guest.current()).toBe(context)
    const [before] = cuda.memGetInfo(place)
    for (const each of [x, doubled, sum]) each.dispose()
    await cuda.synchronize(place)
    expect(cuda.memGetInfo(place)[0]).toBe(before) // it is kept for reuse
    cuda.emptyCache(place)
    expect(cuda.memGetInfo(place)[0]).toBeGreaterThan(before)
    expect(guest.current()).toBe(context)
  })
})
