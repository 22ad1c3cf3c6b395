// What is said of the devices that are there, and of those that are hidden.
import { describe, expect, it } from 'vitest'
import { doctorLine, expectMissing } from './askDriver'

describe('cuda', () => {
  it('is one line of gradus doctor', () => {
    expect(doctorLine()).toMatch(/^driver \d+\.\d; cuda:0 .*\(\d+\.\d, [\d.]+ GiB\); kernels ptx(, sm_\d+)*$/)
  })

  it('tells of devices that are hidden, again and again, and prints nothing', () => {
    expectMissing(
      { CUDA_VISIBLE_DEVICES: '' },
      /^cuda: no device: got CUDA_VISIBLE_DEVICES="", which hides all of them, expected the number of one; unset it/,
    )
  })
})
