// A tensor of rank 0 on the cpu goes along with tensors on a CUDA device, as in PyTorch; the reference is the same on the
// cpu, and where the gradient comes to.
import { describe, expect, it } from 'vitest'
import { autograd, DeviceError, memory, ops, type Tensor, tensor, tidy } from '../../lib/index'

const formulas: Record<string, (x: Tensor, s: Tensor) => Tensor> = {
  add: (x, s) => x.add(s),
  'sub, the other way round': (x, s) => s.sub(x, { alpha: 3 }),
  mul: (x, s) => x.mul(s),
  'div, the other way round': (x, s) => s.div(x),
  pow: (x, s) => x.pow(s),
  maximum: (x, s) => s.maximum(x),
  where: (x, s) => ops.where(x.gt(1.5), s, x),
  'where, chosen by a scalar': (x, s) => ops.where(s.gt(1), x, s),
  addcmul: (x, s) => x.addcmul(s, x, { value: 2 }),
  addcdiv: (x, s) => s.addcdiv(x, s),
  addcmul_: (x, s) => x.mul(2).addcmul_(s, x, { value: 3 }),
  'twice, and by itself': (x, s) => x.mul(s).add(s.mul(s)),
  'in a checkpointed function': (x, s) => autograd.checkpoint((a: Tensor, b: Tensor) => a.mul(b).exp(), x, s),
  'add_, mul_ and div_': (x, s) => x.mul(2).add_(s).mul_(s).div_(s),
  'with a scalar that is there': (x, s) => x.sum().mul(s),
}

function gradients(formula: (x: Tensor, s: Tensor) => Tensor, place: 'cpu' | 'cuda') {
  const x = tensor([1, 2, 3]).to(place).requiresGrad_()
  const s = tensor(1.75).requiresGrad_()
  const y = formula(x, s).keep()
  y.mul(tensor(0.5)).sum().backward()
  return { y, x: x.grad!, s: s.grad! }
}

describe('a scalar on the cpu', () => {
  it.each(Object.entries(formulas))('follows tensors on CUDA: %s', (_, formula) => {
    const [there, here] = [gradients(formula, 'cuda'), gradients(formula, 'cpu')]
    expect([there.y.isCuda, there.x.isCuda, there.s.isCuda]).toEqual([true, true, false])
    for (const name of ['y', 'x', 's'] as const) {
      expect(there[name].dtype).toBe(here[name].dtype)
      const [got, expected] = [there[name], here[name]].map((each) => each.cpu().view(-1).arraySync() as number[])
      got!.forEach((value, i) => {
        expect(value).toBeCloseTo(expected![i]!, 5)
      })
    }
  })

  it('has gradients that accumulate, that hooks see and that autograd.grad returns where it is', () => {
    const x = tensor([1, 2, 3]).cuda()
    const s = tensor(2, { dtype: 'float64' }).requiresGrad_()
    const seen: string[] = []
    s.registerHook((grad) => void seen.push(`${grad.device} ${grad.dtype}`))
    for (let i = 0; i < 2; i++) tidy(() => x.mul(s).sum().backward())
    expect([s.grad!.isCuda, s.grad!.dtype, s.grad!.itemSync()]).toEqual([false, 'float64', 12])
    expect(seen).toEqual(['cpu float64', 'cpu float64'])
    const [grad] = autograd.grad(x.mul(s.mul(1)).sum(), [s])
    expect([String(grad!.device), grad!.itemSync()]).toEqual(['cpu', 6])
    const between = s.mul(1)
    between.retainGrad()
    x.mul(between).sum().backward()
    expect([String(between.grad!.device), between.grad!.itemSync()]).toEqual(['cpu', 6])
  })

  it('keeps the dtype that it would have there', () => {
    const half = tensor([1, 2], { dtype: 'float16' }).cuda()
    expect([half.mul(tensor(3)).dtype, half.mul(tensor(3)).arraySync()]).toEqual(['float16', [3, 6]])
    expect(half.gt(tensor(1)).arraySync()).toEqual([false, true])
    const whole = tensor([1, 2], { dtype: 'int64' }).cuda()
    expect([whole.mul(tensor(1.5)).dtype, whole.mul(tensor(1.5)).arraySync()]).toEqual(['float32', [1.5, 3]])
  })

  it('leaves no copy behind', () => {
    const [x, s] = [tensor([1, 2]).cuda(), tensor(2)]
    x.mul(s).dispose()
    x.device.synchronizeSync()
    const before = memory.allocated('cuda')
    for (let i = 0; i < 5; i++) x.mul(s).dispose()
    x.device.synchronizeSync()
    expect(memory.allocated('cuda')).toBe(before)
  })

  it('is all that follows', () => {
    const x = tensor([1, 2]).cuda()
    const message =
      "mul: operands are on different devices: got cuda:0 and cpu, expected one device; move one of them with to('cuda:0')."
    expect(() => x.mul(tensor([3]))).toThrow(message)
    expect(() => tensor([3, 4]).mul(tensor(2).cuda())).toThrow(DeviceError)
    expect(() => tensor(2).add_(tensor(2).cuda())).toThrow(DeviceError)
  })
})
