// npm test [-- vitest's arguments]: the stages below, one after the other, what each took of its time, and once more the
// end of what failed. With arguments only the first runs, with them.

import { spawn } from 'node:child_process'
import { root } from './sources.mjs'

// Budgets in seconds on two cores. More is told, and fails nothing: machines differ.
const stages = [
  { name: 'cpu', budget: 900, command: 'npx', args: ['vitest', 'run'] },
  { name: 'CUDA simulator', budget: 360, command: process.execPath, args: ['scripts/testCuda.mjs', '--simulator'] },
  { name: 'cuda, in four orders', budget: 300, command: process.execPath, args: ['scripts/testCuda.mjs', '--orders'] },
  { name: 'cuda devices', budget: 180, command: process.execPath, args: ['scripts/testCuda.mjs', '--devices'] },
  { name: 'cpu tests on cuda', budget: 600, command: process.execPath, args: ['scripts/testCuda.mjs', '--on-cuda'] },
]
const linesOfFailure = 80

/** Runs a command, shows what it prints, and resolves to its exit status and the last lines. */
function run(command, args) {
  return new Promise((resolve, reject) => {
    const colors = process.stdout.isTTY ? { FORCE_COLOR: '1' } : {}
    const child = spawn(command, args, {
      cwd: root,
      stdio: ['inherit', 'pipe', 'pipe'],
      env: { ...process.env, ...colors },
    })
    let last = ''
    for (const stream of ['stdout', 'stderr']) {
      child[stream].setEncoding('utf8')
      child[stream].on('data', (text) => {
        process[stream].write(text)
        last = (last + text)
          .split('\n')
          .slice(-linesOfFailure - 1)
          .join('\n')
      })
    }
    child.on('error', reject)
    child.on('exit', (status) => {
      const end = () => resolve({ status, last })
      child.on('close', end)
      // a process that it left behind may hold the pipes
      setTimeout(() => {
        child.stdout.destroy()
        child.stderr.destroy()
        end()
      }, 1000).unref()
    })
  })
}

const given = process.argv.slice(2)
const lines = []
let failures = ''
for (const { name, budget, command, args } of given.length > 0 ? stages.slice(0, 1) : stages) {
  const begun = performance.now()
  const { status, last } = await run(command, [...args, ...given])
  const seconds = (performance.now() - begun) / 1000
  if (status !== 0) failures += `\ntest: the end of "${name}", which failed\n${last.trimEnd()}\n`
  const verdict = `${status === 0 ? 'passed' : 'FAILED'}${seconds > budget ? ', over its budget' : ''}`
  lines.push(`  ${name.padEnd(21)} ${seconds.toFixed(0).padStart(5)} s of ${budget}  ${verdict}`)
}
process.stdout.write(`${failures}\ntest: stages\n${lines.join('\n')}\n`)
process.exitCode = failures === '' ? 0 : 1
