// npm test [-- vitest's arguments]: the stages below, one after the other, and what each took of its time. With
// arguments only the first runs, with them.

import { spawnSync } from 'node:child_process'
import { root } from './sources.mjs'

// Minutes on two cores. More is told, and fails nothing: machines differ.
const stages = [
  { name: 'cpu', budget: 15, command: 'npx', args: ['vitest', 'run'] },
  // what `npm run test:cuda` runs beside it, the suites of the cpu on cuda, takes ten minutes of its own
  {
    name: 'cuda, simulated',
    budget: 5,
    command: process.execPath,
    args: ['scripts/testCuda.mjs', '--project', 'cuda'],
  },
]

const given = process.argv.slice(2)
const lines = []
let failed = false
for (const { name, budget, command, args } of given.length > 0 ? stages.slice(0, 1) : stages) {
  const begun = performance.now()
  const { status } = spawnSync(command, [...args, ...given], { cwd: root, stdio: 'inherit' })
  const minutes = (performance.now() - begun) / 60_000
  failed ||= status !== 0
  const verdict = `${status === 0 ? 'passed' : 'FAILED'}${minutes > budget ? ', over its budget' : ''}`
  lines.push(`  ${name.padEnd(16)} ${minutes.toFixed(1).padStart(5)} of ${budget} min  ${verdict}`)
}
process.stdout.write(`\ntest: stages\n${lines.join('\n')}\n`)
process.exit(failed ? 1 : 0)
