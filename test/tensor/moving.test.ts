// Between devices and dtypes: what `to`, `copy_` and their relatives take. `cpu:1` stands for another device.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import {
  ArgumentError,
  cuda,
  Device,
  DeviceError,
  DTypeError,
  device,
  io,
  nn,
  optim,
  type Tensor,
  tensor,
  zeros,
} from '../../lib/index'

const other = device('cpu:1')
const misuse = (fn: (...args: never[]) => unknown) => fn as (...args: unknown[]) => unknown

describe('device', () => {
  it('takes an index beside the type', () => {
    expect(device('cpu', 1)).toBe(other)
    expect(device('cpu', 0)).toBe(Device.cpu)
  })

  it.each([
    ['cpu:1', 1, 'an index goes with a type alone'],
    ['gpu', 1, 'an index goes with a type alone'],
    ['cpu', 16, 'no such device: got "cpu" and 16'],
    ['cpu', '1', 'no such device'],
    ['cpu', 0.5, 'no such device'],
  ])('refuses %j, %j', (type, index, message) => {
    expect(() => device(type as 'cpu', index as number)).toThrow(DeviceError)
    expect(() => device(type as 'cpu', index as number)).toThrow(`device: ${message}`)
  })
})

describe('Tensor.to', () => {
  const x = tensor([1.7, -2.2])

  it('takes a device and a dtype', () => {
    for (const moved of [x.to('cpu:1', 'int32'), x.to(other, 'int32', {}), x.to({ device: other, dtype: 'int32' })]) {
      expect([moved.device, moved.dtype, moved.arraySync()]).toEqual([other, 'int32', [1, -2]])
    }
    expect(x.to('cpu', 'float32')).toBe(x)
    const like = x.to(zeros([1], { device: other, dtype: 'float64' }))
    expect([like.device, like.dtype]).toEqual([other, 'float64'])
  })

  it.each([
    [[undefined], 'no dtype and no device: got undefined'],
    [['float16', 'cpu'], 'more arguments than mean something: got "float16", "cpu"'],
    [[{ device: 'cpu' }, 'float16'], 'more arguments than mean something'],
    [['cpu', {}, 'float16'], 'more arguments than mean something'],
    [[{ devise: 'cpu' }], 'unknown option: got devise, expected dtype, device'],
    [['cpu:1', 'float16', { nonblocking: true }], 'unknown option: got nonblocking'],
    [['cpu:1', true], 'the options are not an object: got true'],
  ])('refuses %j', (args, message) => {
    for (const to of [misuse(x.to.bind(x)), misuse(new nn.Linear(2, 2).to.bind(new nn.Linear(2, 2)))]) {
      expect(() => to(...args)).toThrow(ArgumentError)
      expect(() => to(...args)).toThrow(`to: ${message}`)
    }
  })

  it('names dtypes and devices where it knows neither', () => {
    for (const to of [misuse(x.to.bind(x)), misuse(new nn.Linear(2, 2).to.bind(new nn.Linear(2, 2)))]) {
      expect(() => to('gpu')).toThrow(DTypeError)
      expect(() => to('gpu')).toThrow(/^to: unknown dtype or device: got "gpu", expected one of float32, .* cpu, cuda/)
      expect(() => to('cpu', 'float15')).toThrow('to: unknown dtype: got "float15"')
    }
  })

  it('has short forms', () => {
    expect(x.cpu()).toBe(x)
    expect(x.to(other).cpu().device).toBe(Device.cpu)
    expect([x.isCuda, x.to(other).isCuda]).toEqual([false, false])
    const layer = new nn.Linear(2, 2).to(other)
    expect(layer.cpu()).toBe(layer)
    expect(layer.weight.device).toBe(Device.cpu)
    for (const call of [() => misuse(x.cuda.bind(x))('cpu'), () => misuse(layer.cuda.bind(layer))('cpu')]) {
      expect(call).toThrow(DeviceError)
      expect(call).toThrow('cuda: not a CUDA device: got cpu')
    }
    expect(() => x.cuda(16)).toThrow('device: no such device: got "cuda" and 16')
    if (!cuda.isAvailable()) expect(() => x.cuda()).toThrow(DeviceError)
  })
})

describe('copy_', () => {
  it('takes nonBlocking, as a flag or an option', () => {
    const source = tensor([1, 2], { device: other })
    expect(zeros([2]).copy_(source, true).arraySync()).toEqual([1, 2])
    expect(zeros([2]).copy_(source, { nonBlocking: true }).arraySync()).toEqual([1, 2])
  })

  it.each([
    [{ foo: 1 }, 'unknown option: got foo, expected nonBlocking'],
    [{ nonBlocking: 1 }, 'nonBlocking is neither true nor false: got 1'],
    [1, 'the options are not an object: got 1'],
  ])('refuses %j', (options, message) => {
    const x = zeros([2])
    expect(() => x.copy_(tensor([1, 2]), options as never)).toThrow(ArgumentError)
    expect(() => x.copy_(tensor([1, 2]), options as never)).toThrow(`copy_: ${message}`)
    expect(x.arraySync()).toEqual([0, 0])
  })
})

describe('Module.to', () => {
  const trained = () => {
    const layer = new nn.Linear(2, 1)
    layer
      .forward(tensor([[1, 2]]))
      .sum()
      .backward()
    return layer
  }

  it('takes a device and a dtype, and leaves whole numbers what they are', () => {
    const layer = new nn.Linear(2, 1)
    layer.registerBuffer('count', tensor([3], { dtype: 'int64' }))
    const { weight } = layer
    for (const [device, dtype, move] of [
      [other, 'float64', () => layer.to('cpu:1', 'float64')],
      [Device.cpu, 'float32', () => layer.to({ device: 'cpu', dtype: 'float32' })],
      [other, 'bfloat16', () => layer.to(other, 'bfloat16', { nonBlocking: true })],
    ] as const) {
      expect(move()).toBe(layer)
      expect(layer.weight).toBe(weight)
      expect([weight.device, weight.dtype]).toEqual([device, dtype])
      const count = layer.namedBuffers()[0]![1]
      expect([count.device, count.dtype, count.arraySync()]).toEqual([device, 'int64', [3]])
    }
    expect(() => layer.to('cpu', 'int64')).toThrow('to: parameters have no gradients in this dtype: got int64')
    expect(() => layer.to({ dtype: 'int64' })).toThrow('to: parameters have no gradients in this dtype: got int64')
  })

  it('takes gradients along, the same objects', () => {
    const layer = trained()
    const { grad } = layer.weight
    layer.to('cpu:1', 'float64')
    expect(layer.weight.grad).toBe(grad)
    expect([grad!.device, grad!.dtype, grad!.arraySync()]).toEqual([other, 'float64', [[1, 2]]])
    expect(layer.bias!.grad!.device).toBe(other)
    layer.to('cpu')
    expect([grad!.device, grad!.arraySync()]).toEqual([Device.cpu, [[1, 2]]])
  })

  it('lets an optimizer step, and backward add, where they are then', () => {
    const [moved, stayed] = [trained(), trained()]
    stayed.loadStateDict(moved.stateDict())
    moved.to(other)
    for (const [layer, on] of [
      [moved, other],
      [stayed, Device.cpu],
    ] as const) {
      layer
        .forward(tensor([[1, 2]], { device: on }))
        .sum()
        .backward()
      new optim.SGD(layer.parameters(), { lr: 0.5 }).step()
    }
    const values = ({ weight }: { weight: Tensor }) => weight.arraySync()
    expect(values(moved)).toEqual(values(stayed))
    expect(moved.weight.grad!.arraySync()).toEqual([[2, 4]])
  })
})

describe('modules and optimizers', () => {
  it('refuse options that they do not know', () => {
    const layer = new nn.Linear(2, 2)
    const calls: [string, () => unknown][] = [
      ['zeroGrad', () => layer.zeroGrad({ set_to_none: true } as never)],
      ['zeroGrad', () => new optim.SGD(layer.parameters(), { lr: 1 }).zeroGrad({ foo: 1 } as never)],
      ['numParameters', () => layer.numParameters({ foo: 1 } as never)],
      ['registerBuffer', () => layer.registerBuffer('b', zeros([1]), { foo: 1 } as never)],
    ]
    for (const [op, call] of calls) {
      expect(call).toThrow(ArgumentError)
      expect(call).toThrow(`${op}: unknown option`)
    }
  })
})

describe('io.loadFile and io.safeOpen', () => {
  const folder = mkdtempSync(join(tmpdir(), 'gradus-moving-'))
  const path = join(folder, 'x.safetensors')

  it('read to a device', async () => {
    try {
      await io.saveFile({ x: tensor([[1, 2]]) }, path)
      const { x } = await io.loadFile(path, { device: 'cpu:1' })
      expect([x!.device, x!.arraySync()]).toEqual([other, [[1, 2]]])
      expect((await io.loadFile(path)).x!.device).toBe(Device.cpu)
      const file = await io.safeOpen(path, { device: other })
      expect([(await file.get('x')).device, (await file.rows('x', 0, 1)).device]).toEqual([other, other])
      await file.close()
      for (const read of [misuse(io.loadFile), misuse(io.safeOpen)]) {
        await expect(read(path, { dtype: 'float16' })).rejects.toThrow(/unknown option: got dtype, expected device/)
        await expect(read(path, 'cpu')).rejects.toThrow(ArgumentError)
        await expect(read(path, { device: 'gpu' })).rejects.toThrow(DeviceError)
      }
    } finally {
      rmSync(folder, { recursive: true })
    }
  })
})

describe('functions of cuda', () => {
  const { synchronize, Event, nvtx } = cuda
  const calls: [string, (device: 'cuda') => unknown][] = [
    ['cuda.getDeviceName', cuda.getDeviceName],
    ['cuda.getDeviceCapability', cuda.getDeviceCapability],
    ['cuda.memoryAllocated', cuda.memoryAllocated],
    ['cuda.maxMemoryAllocated', cuda.maxMemoryAllocated],
    ['cuda.memoryReserved', cuda.memoryReserved],
    ['cuda.resetPeakMemoryStats', cuda.resetPeakMemoryStats],
    ['cuda.emptyCache', cuda.emptyCache],
    ['cuda.memorySummary', cuda.memorySummary],
    ['CUDAGraph', (device) => new cuda.CUDAGraph(device)],
    ['Event.record', (device) => new Event().record(device)],
    ['nvtx.mark', (device) => nvtx.mark('x', device)],
  ]

  it.each(calls)('%s refuses the cpu, and takes an index', (op, call) => {
    expect(() => call('cpu' as 'cuda')).toThrow(DeviceError)
    expect(() => call('cpu' as 'cuda')).toThrow(
      `${op}: not a CUDA device: got cpu, expected 'cuda', one with an index such as 'cuda:1', or the index.`,
    )
    expect(() => call(16 as never)).toThrow('device: no such device: got "cuda" and 16')
    if (cuda.isAvailable()) call(0 as never)
  })

  it('synchronize, too', async () => {
    await expect(synchronize('cpu')).rejects.toThrow('cuda.synchronize: not a CUDA device: got cpu')
    await expect(synchronize(16)).rejects.toThrow('device: no such device: got "cuda" and 16')
    if (cuda.isAvailable()) await synchronize(0)
  })
})
