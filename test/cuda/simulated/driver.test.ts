// What is said where there is no device to use, and of more than one.
import { describe, expect, it } from 'vitest'
import { ask, expectMissing } from '../askDriver'

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
    'an old driver',
    { CUDASIM_DRIVER_VERSION: '12020' },
    /^cuda: the NVIDIA driver is too old: got CUDA 12\.2, expected 1\d\.\d or newer; update the driver/,
  ],
]

describe('cuda', () => {
  it('counts its devices', () => {
    expect(ask({ CUDASIM_DEVICES: '3' })).toEqual({ available: true, count: 3, failures: [null, null] })
  })

  it.each(missing)('tells of %s, again and again, also in gradus doctor, and prints nothing', (_, env, message) => {
    expectMissing(env, message)
  })
})
