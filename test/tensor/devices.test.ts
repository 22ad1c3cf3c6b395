// Several CPU devices: streams and memory accounts of their own on the same cores.
import { describe, expect, it } from 'vitest'
import {
  autograd,
  Device,
  DeviceError,
  device,
  getDefaultDevice,
  IndexError,
  linspace,
  memory,
  models,
  nn,
  OutOfMemoryError,
  ones,
  ops,
  optim,
  rand,
  random,
  setDefaultDevice,
  type Tensor,
  tensor,
  zeros,
} from '../../lib/index'
import { native, run } from '../../lib/tensor/dispatch'

const other = device('cpu:1')
const embedding = native('embedding')

/** An operation whose index is out of range, which only the executor finds out. */
const failing = (on: Device): Tensor =>
  run(embedding, [tensor([7], { dtype: 'int64', device: on }), zeros([4, 2], { device: on })], [1, 2], 0)

describe('devices', () => {
  it('are found by name, one object each', () => {
    expect(device('cpu:0')).toBe(Device.cpu)
    expect(device('cpu:1')).toBe(other)
    expect([String(other), other.type, other.index]).toEqual(['cpu:1', 'cpu', 1])
    expect(String(Device.cpu)).toBe('cpu')
  })

  it.each(['gpu', 'cpu:', 'cpu:01', 'cpu:16', 'cpu:-1', '', 5, null])('refuses %j', (name) => {
    expect(() => device(name as 'cpu')).toThrow(DeviceError)
    expect(() => device(name as 'cpu')).toThrow(/device: no such device: got .*, expected 'cpu', 'cuda'/)
  })

  it('hold what is made on them', async () => {
    const x = ones([2, 3], { device: 'cpu:1' })
    expect(x.device).toBe(other)
    const y = x.mul(2).add(x)
    expect(y.device).toBe(other)
    expect(await y.array()).toEqual([
      [3, 3, 3],
      [3, 3, 3],
    ])
    expect(tensor([1, 2], { device: other }).view(2, 1).device).toBe(other)
    expect(tensor([1, 2], { dtype: 'int32', device: other }).arraySync()).toEqual([1, 2])
    expect(rand([3], { device: other }).sum().device).toBe(other)
  })

  it('may be another where none is named', () => {
    expect(getDefaultDevice()).toBe(Device.cpu)
    const before = setDefaultDevice('cpu:1')
    try {
      const made = [
        zeros([2]),
        tensor([1, 2], { dtype: 'int32' }),
        rand([2]),
        ops.oneHot(tensor([0], { dtype: 'int64' }), 2),
        linspace(0, 1, 3),
      ]
      expect(made.map((each) => each.device)).toEqual(made.map(() => other))
      expect(new nn.Linear(2, 2).weight.device).toBe(other)
      expect(ones([2], { device: 'cpu' }).device).toBe(Device.cpu)
      const x = tensor([0.3, -0.4], { dtype: 'float64' }).requiresGrad_()
      expect(autograd.gradcheck((y) => y.tanh(), [x])).toBe(true)
      expect(() => setDefaultDevice('gpu' as 'cpu')).toThrow(DeviceError)
    } finally {
      setDefaultDevice(before)
    }
    expect(ones([1]).device).toBe(Device.cpu)
  })

  it('do not mix, and the error names both at the line of the caller', () => {
    const [a, b] = [ones([2]), ones([2], { device: 'cpu:1' })]
    expect(() => a.add(b)).toThrow(DeviceError)
    expect(() => a.add(b)).toThrow(
      "add: operands are on different devices: got cpu and cpu:1, expected one device; move one of them with to('cpu').",
    )
    expect(() => ops.where(tensor([true, false]), b, 0)).toThrow(DeviceError)
    try {
      a.add(b)
    } catch (error) {
      expect((error as Error).stack).toContain('devices.test.ts')
    }
  })
})

describe('to', () => {
  it('copies between devices in the order of both', async () => {
    const x = zeros([64, 64])
    for (let round = 1; round <= 50; round++) {
      x.add_(1)
      const y = x.to('cpu:1')
      x.mul_(1) // later changes of the source are not seen
      y.add_(round)
      const back = y.to('cpu').transpose(0, 1).to('cpu:1').to('cpu')
      expect((await back.sum().item()) / 4096).toBe(2 * round)
    }
  })

  it('is the tensor itself where it is so already', () => {
    const x = ones([2], { device: 'cpu:1' })
    expect(x.to('cpu:1')).toBe(x)
    expect(x.to({ dtype: 'float32', device: 'cpu:1' })).toBe(x)
    const moved = x.to({ dtype: 'float64', device: 'cpu' })
    expect([moved.dtype, String(moved.device), moved.arraySync()]).toEqual(['float64', 'cpu', [1, 1]])
  })

  it.each([[[]], [[0]], [[3, 0, 2]], [[5]]])('takes the shape %j', (shape) => {
    const there = ones(shape, { dtype: 'int64' }).to('cpu:1')
    expect(there.shape).toEqual(shape)
    expect(there.to('cpu').arraySync()).toEqual(ones(shape, { dtype: 'int64' }).arraySync())
  })

  it('leads gradients back', async () => {
    const x = tensor([1, 2, 3]).requiresGrad_()
    const y = x.to('cpu:1').mul(tensor([4, 5, 6], { device: 'cpu:1' }))
    y.to('cpu').sum().backward()
    expect(x.grad!.device).toBe(Device.cpu)
    expect(await x.grad!.array()).toEqual([4, 5, 6])
  })

  it('carries a failure along, which the source still reports once', async () => {
    const moved = failing(Device.cpu).to('cpu:1')
    await expect(moved.add(1).array()).rejects.toThrow(IndexError)
    await other.synchronize()
    failing(other)
    await Device.cpu.synchronize()
    await expect(other.synchronize()).rejects.toThrow(IndexError)
    await other.synchronize()
  })

  it('waits for work that takes its time', async () => {
    const a = rand([512, 512], { device: 'cpu:1' })
    let product = a
    for (let i = 0; i < 8; i++) product = product.matmul(a).mul(1 / 256)
    const copy = product.to('cpu').to('cpu:2')
    expect(await copy.array()).toEqual(await product.array())
  })
})

// Devices of their own: on others the collector may release something meanwhile.
describe('memory', () => {
  it('is counted by device', async () => {
    const third = device('cpu:3')
    await Device.cpu.synchronize()
    const before = memory.allocated()
    const x = ones([1024, 256], { device: third })
    await third.synchronize()
    expect(memory.allocated('cpu:3')).toBe(2 ** 20)
    expect(memory.allocated()).toBeLessThanOrEqual(before)
    x.dispose()
    await third.synchronize()
    expect(memory.allocated('cpu:3')).toBe(0)
    expect(memory.maxAllocated('cpu:3')).toBe(2 ** 20)
    expect(memory.summary('cpu:3')).toContain('cpu:3')
  })

  it('has a limit of its own', async () => {
    memory.setLimit(1024, 'cpu:4')
    await expect(ones([1024], { device: 'cpu:4' }).array()).rejects.toThrow(OutOfMemoryError)
    expect(() => ones([1024]).to('cpu:4')).toThrow(OutOfMemoryError)
    expect(await ones([1024]).sum().item()).toBe(1024)
    memory.setLimit(0, 'cpu:4')
    expect(await ones([1024], { device: 'cpu:4' }).sum().item()).toBe(1024)
  })

  it('is profiled by device', async () => {
    const profile = await memory.profile(() => ones([2 ** 18], { device: 'cpu:1' }).dispose(), { device: 'cpu:1' })
    expect(profile.peak).toBeGreaterThanOrEqual(2 ** 20)
  })
})

const config = { vocabSize: 17, nLayer: 2, nHead: 2, nEmbd: 16, blockSize: 8, dropout: 0.1 }
const ids = [
  [1, 2, 3, 4, 5, 6, 7, 8],
  [8, 7, 6, 5, 4, 3, 2, 1],
]

/** Losses of a few steps, with everything that training has. */
function losses(on: 'cpu' | 'cpu:1'): number[] {
  random.seed(3)
  const model = new models.GPT(config).to(on)
  const optimizer = new optim.AdamW(model.parameters(), { lr: 1e-2 })
  const inputIds = tensor(ids, { dtype: 'int64', device: on })
  return Array.from({ length: 4 }, () => {
    optimizer.zeroGrad()
    const { loss } = model.forward({ inputIds, labels: inputIds })
    loss!.backward()
    nn.utils.clipGradNorm_(model.parameters(), 1)
    optimizer.step()
    return loss!.itemSync()
  })
}

describe('training', () => {
  it('gives the same bits on every cpu device', () => {
    expect(losses('cpu:1')).toEqual(losses('cpu'))
  })

  it('runs a model whose layers are on two devices', async () => {
    random.seed(5)
    const [first, second] = [new nn.Linear(4, 8), new nn.Linear(8, 1).to('cpu:1')]
    const optimizer = new optim.AdamW([...first.parameters(), ...second.parameters()], { lr: 0.05 })
    const x = rand([16, 4])
    const target = x.sum(1, { keepdim: true }).to('cpu:1')
    const values: number[] = []
    for (let step = 0; step < 30; step++) {
      optimizer.zeroGrad()
      const loss = ops.mseLoss(second.forward(first.forward(x).tanh().to('cpu:1')), target)
      loss.backward()
      optimizer.step({ maxNorm: 1 })
      values.push(await loss.item())
    }
    expect(values.at(-1)!).toBeLessThan(values[0]! / 4)
    const states = [first, second].map((layer) => String((optimizer.state.get(layer.weight)!.expAvg as Tensor).device))
    expect(states).toEqual(['cpu', 'cpu:1'])
  })

  it('takes an optimizer along when its module moves later', () => {
    const layer = new nn.Linear(2, 2)
    const optimizer = new optim.AdamW(layer.parameters(), { lr: 0.1 })
    const step = (on: 'cpu' | 'cpu:1'): void => {
      layer
        .forward(ones([1, 2], { device: on }))
        .sum()
        .backward()
      optimizer.step()
      optimizer.zeroGrad()
    }
    step('cpu')
    layer.to('cpu:1')
    step('cpu:1')
    expect((optimizer.state.get(layer.weight)!.expAvg as Tensor).device).toBe(other)
  })
})
