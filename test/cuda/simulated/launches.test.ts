// How many kernels a training step of GPT-2 small launches: a real model, on a driver that records and computes nothing.
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import {
  amp,
  cuda,
  type DType,
  getDefaultDevice,
  models,
  optim,
  setDefaultDevice,
  tidy,
  zeros,
} from '../../../lib/index'
import { checkLaunches } from '../launches'
import { simulator } from './simulator'

const before = getDefaultDevice()

beforeAll(() => {
  simulator.control('recordOnly=1 checks=none memory=64G')
  setDefaultDevice('cuda')
  vi.spyOn(process, 'emitWarning').mockImplementation(() => {}) // all that is read is 0, also the loss scale
})

afterAll(() => {
  vi.restoreAllMocks()
  setDefaultDevice(before)
  simulator.control('recordOnly=0 checks=all')
})

/** Kernels of a step with so many layers, clipping and loss scaling included. */
async function launches(nLayer: number, dtype: DType, returnLogits: boolean): Promise<number> {
  const model = new models.GPT({ nLayer }) // else gpt2s: 12 heads of 64, 1024 positions, 50257 classes, dropout
  const optimizer = new optim.AdamW(model.parameters(), { lr: 1e-3 })
  const scaler = new amp.GradScaler()
  const inputIds = zeros([4, 1024], { dtype: 'int64' })
  const precision = dtype === 'float32' ? { enabled: false } : { dtype: dtype as amp.AutocastDType }
  const step = (): void =>
    tidy(() => {
      optimizer.zeroGrad()
      const { loss } = amp.autocast(precision, () => model.forward({ inputIds, labels: inputIds, returnLogits }))
      scaler.scale(loss!).backward()
      scaler.step(optimizer, { maxNorm: 1 })
      scaler.update()
    })
  step() // makes the optimizer's states
  await cuda.synchronize()
  simulator.control('reset')
  step()
  await cuda.synchronize()
  const { kernels } = JSON.parse(simulator.counters()).submitted as { kernels: number }
  for (const parameter of model.parameters()) parameter.dispose()
  return kernels
}

describe('checkLaunches', () => {
  it('asks here, where kernels are counted', async () => {
    const check = vi.fn()
    await checkLaunches(check)
    expect(check).toHaveBeenCalledOnce()
  })
})

describe('a training step of gpt2s', () => {
  it.each(['float32', 'float16', 'bfloat16'] as const)(
    'launches at most 40 kernels a layer, forward and backward, and 40 besides: %s',
    async (dtype) => {
      const few = await launches(4, dtype, true)
      const all = await launches(12, dtype, true)
      const perLayer = (all - few) / 8
      const besides = few - 4 * perLayer
      expect(perLayer).toBeLessThanOrEqual(40)
      expect(besides).toBeLessThanOrEqual(40)
      // what did not run was not counted
      expect(perLayer).toBeGreaterThan(20)
      expect(await launches(4, dtype, false)).toBeLessThanOrEqual(4 * 40 + 60) // with logits in chunks
    },
    180_000,
  )
})
