// What a process of its own finds of the driver, which is loaded once in each.
import { spawnSync } from 'node:child_process'
import { expect } from 'vitest'

const script = `
  const { cuda, ones } = require('./dist')
  const failures = [0, 1].map(() => { try { ones([1], { device: 'cuda' }); return null } catch (e) { return [e.code, e.message] } })
  console.log(JSON.stringify({ available: cuda.isAvailable(), count: cuda.deviceCount(), failures }))`

interface Said {
  available: boolean
  count: number
  failures: ([code: string, message: string] | null)[]
}

function run(args: string[], env: NodeJS.ProcessEnv): string {
  const { stdout, stderr, status } = spawnSync(process.execPath, args, {
    encoding: 'utf8',
    env: { ...process.env, ...env },
  })
  expect([status, stderr]).toEqual([0, ''])
  return stdout
}

export const ask = (env: NodeJS.ProcessEnv): Said => JSON.parse(run(['-e', script], env))

/** What gradus doctor says of CUDA. */
export const doctorLine = (env: NodeJS.ProcessEnv = {}): string =>
  /^CUDA {9}(.*)$/m.exec(run(['dist/cli/main.js', 'doctor'], env))![1]!

/** Expects that there is no device to use, and that both say why. */
export function expectMissing(env: NodeJS.ProcessEnv, message: RegExp): void {
  const { available, count, failures } = ask(env)
  expect([available, count]).toEqual([false, 0])
  for (const failure of failures) {
    expect(failure![0]).toBe('ERR_GRADUS_DEVICE')
    expect(failure![1]).toMatch(message)
  }
  expect(`cuda: ${doctorLine(env)}`).toMatch(message)
}
