// Runs what docs/cuda.md shows.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import * as gradus from '../../lib/index'

process.env.CUDASIM_DEVICES = '2' // of the simulator

const text = readFileSync(join(__dirname, '../../docs/cuda.md'), 'utf8')
const blocks = [...text.matchAll(/^```ts\n([\s\S]*?)^```$/gm)].map(([, code]) => code!)
const AsyncFunction = Object.getPrototypeOf(async () => {}).constructor as new (
  ...parts: string[]
) => (...values: unknown[]) => Promise<void>

describe('docs/cuda.md', () => {
  it('has examples', () => expect(blocks.length).toBeGreaterThan(2))

  // a card need not have NCCL, see ncclCalls.test.ts
  const runs = blocks.filter((code) => !code.includes('nccl') || gradus.cuda.nccl.isAvailable([]))
  it.each(runs.map((code) => [code.split('\n', 1)[0]!, code]))('runs: %s', async (_, code) => {
    const log = vi.spyOn(console, 'log').mockImplementation(() => {})
    try {
      await new AsyncFunction(...Object.keys(gradus), code)(...Object.values(gradus))
      await gradus.cuda.synchronize()
    } finally {
      log.mockRestore()
    }
  })
})
