// What GradScaler says of collapses and of wrong use.

import { afterEach, describe, expect, it, vi } from 'vitest'
import { amp, nn, noGrad, optim, type Tensor, tensor, zeros } from '../../lib/index'
import { started } from '../support/gradScaler'

const { GradScaler } = amp

afterEach(() => vi.restoreAllMocks())
const silenced = () => vi.spyOn(process, 'emitWarning').mockImplementation(() => {})

describe('GradScaler warns', () => {
  it('once when the scale collapses, with the first parameter that overflowed', async () => {
    const warn = silenced()
    class Model extends nn.Module {
      first = new nn.Linear(2, 2)
      second = new nn.Linear(2, 1)
    }
    const model = new Model()
    const params = model.parameters()
    const optimizer = new optim.AdamW(params)
    const scaler = new GradScaler({ initScale: 4 })
    scaler.scale(tensor(1))
    for (let i = 0; i < 8; i++) {
      for (const param of params) param.grad = zeros(param.shape)
      for (const name of ['weight', 'bias'] as const) noGrad(() => model.second[name]!.grad!.fill_(Number.NaN))
      scaler.step(optimizer)
      scaler.update()
      await scaler.getScale()
    }
    expect(warn).toHaveBeenCalledTimes(1)
    expect(warn).toHaveBeenCalledWith(
      'the loss scale fell to 0.5: the gradient of second.weight is infinite or NaN however small the scale is. Look for ' +
        'NaN in the loss and the inputs, lower the learning rate, or train in bfloat16.',
      { type: 'GradScalerWarning', code: 'GRADUS_SCALE_COLLAPSED' },
    )
  })
})

describe('GradScaler warns without being waited for', () => {
  it('when updates were queued while it looked', async () => {
    const warn = silenced()
    const { scaler, param, optimizer } = started([1])
    for (let i = 0; i < 24; i++) {
      param.grad = tensor([Number.NaN])
      scaler.step(optimizer)
      scaler.update()
    }
    await vi.waitFor(() => expect(warn).toHaveBeenCalledTimes(1), 5000)
  })
})

describe('GradScaler refuses', () => {
  it('what is no flag', () => {
    expect(() => new GradScaler({ enabled: 'false' as unknown as boolean })).toThrow(
      'GradScaler: enabled is neither true nor false: got "false"',
    )
  })

  it('calls in the wrong order', () => {
    const { scaler, param, optimizer } = started([1])
    expect(() => scaler.update()).toThrow(
      'GradScaler.update: no gradient was looked at since the last update(); call step(optimizer) first.',
    )
    scaler.unscale_(optimizer)
    expect(() => scaler.unscale_(optimizer)).toThrow(
      'GradScaler.unscale_: the gradients of this optimizer are unscaled since the last update(); call it once',
    )
    scaler.step(optimizer)
    expect(() => scaler.unscale_(optimizer)).toThrow('GradScaler.unscale_: the optimizer has taken its step; call it')
    expect(() => scaler.step(optimizer)).toThrow(
      'GradScaler.step: the optimizer has taken its step since the last update(); call update() at the end',
    )
    scaler.update()
    param.grad = null
    expect(() => scaler.step(optimizer)).toThrow(
      'GradScaler.step: no parameter of the optimizer has a gradient, so no check for infinity was made; call',
    )
    const fresh = new GradScaler()
    const call = 'no loss was scaled yet; call scaler.scale(loss).backward() earlier in the iteration.'
    expect(() => fresh.unscale_(optimizer)).toThrow(`GradScaler.unscale_: ${call}`)
    expect(() => fresh.step(optimizer)).toThrow(`GradScaler.step: ${call}`)
    expect(() => fresh.update()).toThrow(`GradScaler.update: ${call}`)
  })

  it('to step with gradients that were clipped while they were scaled', async () => {
    const clips = [
      (param: Tensor) => nn.utils.clipGradNorm_([param], 1),
      (param: Tensor) => nn.utils.clipGradValue_([param], 1),
    ]
    for (const clip of clips) {
      const { scaler, param, optimizer } = started([3, 4])
      clip(param)
      expect(() => scaler.step(optimizer)).toThrow(
        'GradScaler.step: gradients were clipped while they were still scaled; call unscale_(optimizer) before clipping, or step(optimizer, { maxNorm }).',
      )
      expect(await param.array()).toEqual([1, 1])
      param.grad = tensor([4, 4])
      expect(await scaler.step(optimizer)).toBe(true)
    }
  })

  it('float16 gradients, and names the parameter', () => {
    class Half extends nn.Module {
      weight = nn.parameter(zeros([2], { dtype: 'float16' }))
    }
    const model = new Half()
    const optimizer = new optim.SGD(model.parameters())
    model.weight.grad = zeros([2], { dtype: 'float16' })
    const { scaler } = started([1])
    const message = 'attempting to unscale float16 gradients: got a float16 gradient of weight, expected'
    expect(() => scaler.unscale_(optimizer)).toThrow(`GradScaler.unscale_: ${message}`)
    expect(() => scaler.step(optimizer)).toThrow(`GradScaler.step: ${message}`)
  })

  it('options out of range and things that are no optimizers', () => {
    expect(() => new GradScaler({ growthFactor: 1 })).toThrow('GradScaler: growthFactor is out of range: got 1')
    expect(() => new GradScaler({ backoffFactor: 1 })).toThrow('GradScaler: backoffFactor is out of range: got 1')
    expect(() => new GradScaler({ growthInterval: 0.5 })).toThrow('expected a whole number above 0.')
    // float32 has to hold it
    for (const initScale of [-1, 1e39, 1e-50]) {
      expect(() => new GradScaler({ initScale })).toThrow('initScale is out of range')
    }
    // @ts-expect-error Python's name
    expect(() => new GradScaler({ init_scale: 1 })).toThrow('write initScale')
    const { scaler, optimizer } = started([1])
    expect(() => scaler.step({} as never)).toThrow('GradScaler.step: not an optimizer: got an object')
    expect(() => scaler.step(optimizer, { maxNorm: -1 })).toThrow('maxNorm is out of range: got -1')
    expect(() => scaler.step(optimizer, { scheduler: 5 as never })).toThrow(
      'GradScaler.step: scheduler is no schedule: got 5',
    )
  })

  it('to go on with a gradient whose operation failed, and leaves the weights', async () => {
    const { scaler, param, optimizer } = started([1, 1])
    const out = tensor([[1, 1]]).indexSelect(0, tensor([7], { dtype: 'int64' }))
    param.grad = out.view(2)
    const step = scaler.step(optimizer)
    scaler.update()
    await expect(step.stepped()).rejects.toThrow('indexSelect')
    expect(await param.array()).toEqual([1, 1])
    expect(await scaler.getScale()).toBe(4)
  })
})
