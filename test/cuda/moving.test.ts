// What moves to a CUDA device and back, and functions of `cuda` that take an index.
import { describe, expect, it } from 'vitest'
import {
  amp,
  cuda,
  DeviceError,
  type DeviceName,
  device,
  memory,
  nn,
  ones,
  optim,
  setDefaultDevice,
  tensor,
  zeros,
} from '../../lib/index'

process.env.CUDASIM_DEVICES = '2' // of the simulator

describe('a CUDA device', () => {
  const x = tensor([1, 2])

  it('is reached by cuda() and left by cpu()', () => {
    expect([x.cuda().isCuda, String(x.cuda(0).device), x.cuda().cpu().isCuda]).toEqual([true, 'cuda:0', false])
    expect(String(x.cuda())).toBe('tensor([1., 2.], shape [2], float32, device cuda:0)')
    const half = x.to('cuda', 'float16')
    expect([half.dtype, half.isCuda, half.arraySync()]).toEqual(['float16', true, [1, 2]])
    expect(zeros([2]).cuda().copy_(x, true).arraySync()).toEqual([1, 2])
    const layer = new nn.Linear(2, 2).cuda()
    expect(layer.weight.isCuda).toBe(true)
    expect(layer.cpu().weight.isCuda).toBe(false)
  })

  it('takes gradients along, and refuses those of elsewhere', () => {
    const layer = new nn.Linear(2, 1)
    layer.forward(x.view(1, 2)).sum().backward()
    layer.to('cuda')
    const { weight } = layer
    expect([weight.grad!.isCuda, weight.grad!.arraySync()]).toEqual([true, [[1, 2]]])
    expect(() => {
      weight.grad = zeros([1, 2])
    }).toThrow(
      "grad: the gradient is on another device than its tensor: got cpu, expected cuda:0; move it with .to('cuda:0').",
    )
    const y = layer.forward(x.cuda().view(1, 2))
    expect(() => y.backward(zeros([1, 1]))).toThrow(DeviceError)
    weight.registerHook((grad) => grad.cpu())
    expect(() => y.sum().backward()).toThrow(/registerHook: the hook moved the gradient to another device/)
  })

  it('is what memory.profile looks at when the model is there', async () => {
    const model = new nn.Linear(8, 8).cuda()
    const optimizer = new optim.AdamW(model.parameters())
    const input = ones([4, 8]).cuda()
    const { phases } = await memory.profile(
      () => {
        model.forward(input).sum().backward()
        optimizer.step()
      },
      { model, optimizer },
    )
    expect(phases[0]!.kinds.weights).toBeGreaterThanOrEqual(4 * model.numParameters())
  })

  it('has an index', async () => {
    cuda.getDeviceName(0)
    const { name, major, minor, totalMemory, multiProcessorCount, warpSize } = cuda.getDeviceProperties(0)
    expect([name, [major, minor]]).toEqual([cuda.getDeviceName(0), cuda.getDeviceCapability(0)])
    expect([warpSize, multiProcessorCount > 0]).toEqual([32, true])
    const [free, total] = cuda.memGetInfo(0)
    expect([free > 0, free <= total - cuda.memoryReserved(0), total]).toEqual([true, true, totalMemory])
    await cuda.synchronize(0)
    if (cuda.deviceCount() < 2) return
    expect(device('cuda', 1)).toBe(device('cuda:1'))
    expect(String(zeros([1]).cuda(1).device)).toBe('cuda:1')
    await cuda.synchronize(1)
    expect(new cuda.CUDAGraph(1).device).toBe(device('cuda:1'))
    expect(cuda.getDeviceName(1)).toBe(cuda.getDeviceName('cuda:1'))
    expect(cuda.memoryAllocated(1)).toBeGreaterThanOrEqual(0)
    cuda.nvtx.mark('here', 1)
  })

  it('is the default one where that is a CUDA device and a call names none', async () => {
    if (cuda.deviceCount() < 2) return
    const before = setDefaultDevice('cuda:1')
    try {
      const second = device('cuda:1')
      expect([new cuda.CUDAGraph().device, tensor([1], { device: 'cpu' }).cuda().device]).toEqual([second, second])
      const held = zeros([1024])
      await cuda.synchronize()
      expect(cuda.memoryAllocated()).toBe(cuda.memoryAllocated(1))
      expect(cuda.memoryAllocated()).toBeGreaterThanOrEqual(4096)
      held.dispose()
      expect(device('cuda')).toBe(device('cuda:0'))
    } finally {
      setDefaultDevice(before)
    }
  })

  it('takes the scale of a GradScaler that is on another one', async () => {
    if (cuda.deviceCount() < 2) return
    const steps = async (first: DeviceName, second: DeviceName, at: DeviceName): Promise<unknown> => {
      const [a, b] = [ones([2], { device: first }), ones([2], { device: second })].map((x) => x.requiresGrad_())
      const optimizer = new optim.SGD([a!, b!], { lr: 0.25 })
      const scaler = new amp.GradScaler({ device: at, initScale: 8, growthInterval: 1 })
      for (const factor of [1, Number.POSITIVE_INFINITY, 2]) {
        optimizer.zeroGrad()
        scaler.scale(a!.mul(factor).to(second).mul(b!).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
      }
      return Promise.all([a!.array(), b!.array(), scaler.getScale()])
    }
    expect(await steps('cuda:0', 'cuda:1', 'cuda:0')).toEqual(await steps('cpu', 'cpu', 'cpu'))
  })
})
