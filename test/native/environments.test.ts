// The addon in worker threads: separate handles, one executor, and nothing left when a worker is terminated in mid-step.
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { describe, expect, it } from 'vitest'
import { memory, ones } from '../../lib/index'
import { binding } from '../../lib/native'

const addon = process.env.GRADUS_ADDON ?? join(__dirname, '../../build/Release/gradus.node')

const worker = (body: string): Worker =>
  new Worker(
    `const { parentPort } = require('node:worker_threads')
     const addon = require(${JSON.stringify(addon)})
     const scratch = new Float64Array(32768)
     addon.setScratch(scratch)
     const ops = new Map(addon.opTable().map((row, id) => [row.name, id]))
     const fill = (n, value) => { scratch.set([ops.get('fill'), 0, 0, 1, 1, 0, 0, 0, 1, n, value]); addon.dispatch(); return scratch[0] }
     const add = (a, b) => { scratch.set([ops.get('add'), 0, 2, 1, 3, -1, a, b, -1, 0, 0, 0, 1]); addon.dispatch(); return scratch[0] }
     ${body}`,
    { eval: true },
  )

describe('environments', () => {
  it('compute side by side with handles of their own', async () => {
    const results = await Promise.all(
      [1, 2, 3].map(
        (value) =>
          new Promise((resolve, reject) => {
            worker(`let x = fill(4, ${value}); for (let i = 0; i < 100; i++) x = add(x, fill(4, 1))
                    const out = new Uint8Array(16); scratch[0] = x
                    addon.read(out).then(() => parentPort.postMessage(new Float32Array(out.buffer)[3]))`)
              .once('message', resolve)
              .once('error', reject)
          }),
      ),
    )
    expect(results).toEqual([101, 102, 103])
  })

  it('leave nothing when 100 of them are terminated in mid-step', async () => {
    await ones([1]).item()
    const before = memory.allocated()
    for (let round = 0; round < 10; round++) {
      await Promise.all(
        Array.from({ length: 10 }, async () => {
          const busy = worker(`parentPort.postMessage('busy'); let x = fill(1 << 16, 1)
                               for (;;) { x = add(x, x); const out = new Uint8Array(1 << 18); scratch[0] = x; addon.read(out) }`)
          await new Promise((resolve) => busy.once('message', resolve))
          await new Promise((resolve) => setTimeout(resolve, 5))
          await busy.terminate()
        }),
      )
    }
    expect(await ones([2]).array()).toEqual([1, 1])
    expect(memory.allocated()).toBeLessThan(before + 4096)
  }, 120_000)
})

describe('the boundary', () => {
  it('survives any scratch contents', () => {
    const scratch = new Float64Array(32768)
    binding.setScratch(scratch)
    let state = 12345
    const random = (): number => {
      state = (Math.imul(state, 1103515245) + 12345) >>> 0
      return state / 2 ** 32
    }
    const odd = [
      0,
      -1,
      1,
      2,
      3,
      0.5,
      1e300,
      Number.NaN,
      Number.POSITIVE_INFINITY,
      -1e17,
      2 ** 24,
      2 ** 24 + 1,
      4096,
      8,
      9,
    ]
    for (let i = 0; i < 20_000; i++) {
      const n = 5 + Math.floor(random() * 20)
      for (let k = 0; k < n; k++)
        scratch[k] = random() < 0.6 ? odd[Math.floor(random() * odd.length)]! : Math.floor(random() * 130)
      const failure = random() < 0.7 ? binding.dispatch() : random() < 0.5 ? binding.view() : binding.release()
      if (failure !== undefined) expect(typeof failure[1]).toBe('string')
    }
  })
})
