// The number of threads is what was asked for, in our kernels and in oneDNN's.
import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { expect, it } from 'vitest'

// CPU seconds a second while products run; JavaScript waits asleep.
const script = `
  const { device, randn, tidy } = require(${JSON.stringify(join(__dirname, '../../dist/index.js'))})
  const [a, b] = [randn([768, 768]), randn([768, 768])]
  const run = (times) => {
    for (let i = 0; i < times; i++) tidy(() => a.matmul(b).matmul(b.t()))
    device('cpu').synchronizeSync()
  }
  run(3)
  const [cpu, from] = [process.cpuUsage(), performance.now()]
  run(40)
  const { user, system } = process.cpuUsage(cpu)
  console.log((user + system) / 1e3 / (performance.now() - from))
`

it('one thread takes one core', () => {
  const env = { ...process.env, GRADUS_NUM_THREADS: '1' }
  const share = Number(execFileSync(process.execPath, ['-e', script], { encoding: 'utf8', env }))
  expect(share).toBeLessThan(1.2)
})
