// What is said where there is no device to use. Every case is a process of its own: the driver is loaded once in each.
import { spawnSync } from 'node:child_process'
import { describe, expect, it } from 'vitest'

const script = `
  const { cuda, ones } = require('./dist')
  const failures = [0, 1].map(() => { try { ones([1], { device: 'cuda' }); return null } catch (e) { return [e.code, e.message] } })
  console.log(JSON.stringify({ available: cuda.isAvailable(), count: cuda.deviceCount(), failures }))`

interface Said {
  available: boolean
  count: number
  failures: ([code: string, message: string] | null)[]
}

function ask(env: NodeJS.ProcessEnv): Said {
  const { stdout, stderr, status } = spawnSync(process.execPath, ['-e', script], {
    encoding: 'utf8',
    env: { ...process.env, ...env },
  })
  expect([status, stderr]).toEqual([0, ''])
  return JSON.parse(stdout)
}

const missing: [string, NodeJS.ProcessEnv, RegExp][] = [
  [
    'no driver',
    { LD_LIBRARY_PATH: '' },
    /^cuda: no NVIDIA driver: got ".*libcuda\.so\.1.*", expected libcuda\.so\.1; install/,
  ],
  [
    'no device',
    { CUDASIM_DEVICES: '0' },
    /^cuda: no device: got none from the driver \(CUDA \d+\.\d\); see whether nvidia-smi/,
  ],
  [
    'devices that are hidden',
    { CUDA_VISIBLE_DEVICES: '' },
    /^cuda: no device: got CUDA_VISIBLE_DEVICES="", which hides all of them, expected the number of one; unset it/,
  ],
  [
    'an old driver',
    { CUDASIM_DRIVER_VERSION: '12020' },
    /^cuda: the NVIDIA driver is too old: got CUDA 12\.2, expected 1\d\.\d or newer; update the driver/,
  ],
]

describe('cuda', () => {
  it('counts its devices', () => {
    expect(ask({ CUDASIM_DEVICES: '3' })).toEqual({ available: true, count: 3, failures: [null, null] })
  })

  it.each(missing)('tells of %s, again and again, and prints nothing', (_, env, message) => {
    const { available, count, failures } = ask(env)
    expect([available, count]).toEqual([false, 0])
    for (const failure of failures) {
      expect(failure![0]).toBe('ERR_GRADUS_DEVICE')
      expect(failure![1]).toMatch(message)
    }
  })

  it('is one line of gradus doctor', () => {
    const { stdout } = spawnSync(process.execPath, ['dist/cli/main.js', 'doctor'], { encoding: 'utf8' })
    expect(stdout).toMatch(/^CUDA {9}driver \d+\.\d; cuda:0 .*\(\d+\.\d, [\d.]+ GiB\); kernels .*ptx$/m)
  })

  it.each(missing)('says in one line of gradus doctor that there is %s, which is nothing to fix', (_, env, message) => {
    const { stdout, stderr, status } = spawnSync(process.execPath, ['dist/cli/main.js', 'doctor'], {
      encoding: 'utf8',
      env: { ...process.env, ...env },
    })
    expect([status, stderr]).toEqual([0, ''])
    const line = /^CUDA {9}(.*)$/m.exec(stdout)![1]
    expect(`cuda: ${line}`).toMatch(message)
  })
})
