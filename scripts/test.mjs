// npm test [-- vitest's arguments]: the stages below, one after the other, and what each took of its time. With
// arguments only the first runs, with them.

import { spawnSync } from 'node:child_process'
import { root } from './sources.mjs'

// Budgets in seconds on two cores. More is told, and fails nothing: machines differ.
const stages = [
  { name: 'cpu', budget: 900, command: 'npx', args: ['vitest', 'run'] },
  { name: 'CUDA simulator', budget: 360, command: process.execPath, args: ['scripts/testCuda.mjs', '--simulator'] },
  { name: 'cuda, in four orders', budget: 300, command: process.execPath, args: ['scripts/testCuda.mjs', '--orders'] },
  { name: 'cuda devices', budget: 180, command: process.execPath, args: ['scripts/testCuda.mjs', '--devices'] },
  { name: 'cpu tests on cuda', budget: 600, command: process.execPath, args: ['scripts/testCuda.mjs', '--on-cuda'] },
]

const given = process.argv.slice(2)
const lines = []
let failed = false
for (const { name, budget, command, args } of given.length > 0 ? stages.slice(0, 1) : stages) {
  const begun = performance.now()
  const { status } = spawnSync(command, [...args, ...given], { cwd: root, stdio: 'inherit' })
  const seconds = (performance.now() - begun) / 1000
  failed ||= status !== 0
  const verdict = `${status === 0 ? 'passed' : 'FAILED'}${seconds > budget ? ', over its budget' : ''}`
  lines.push(`  ${name.padEnd(21)} ${seconds.toFixed(0).padStart(5)} s of ${budget}  ${verdict}`)
}
process.stdout.write(`\ntest: stages\n${lines.join('\n')}\n`)
process.exit(failed ? 1 : 0)
