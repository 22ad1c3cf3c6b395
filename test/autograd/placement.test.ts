// Gradients that do not fit what they are the gradients of are refused at the line that hands them over.
import { describe, expect, it } from 'vitest'
import {
  ArgumentError,
  autograd,
  type Device,
  DeviceError,
  DTypeError,
  device,
  nn,
  ShapeError,
  StateError,
  type Tensor,
  tensor,
  zeros,
} from '../../lib/index'

const other: Device = device('cpu:1')
const leaf = (): Tensor => tensor([1, 2], { requiresGrad: true })

describe('.grad', () => {
  it('takes what fits, and null', () => {
    const x = leaf()
    const grad = tensor([3, 4])
    x.grad = grad
    expect(x.grad).toBe(grad)
    x.mul(2).sum().backward()
    expect(x.grad!.arraySync()).toEqual([5, 6])
    x.grad = null
    expect(x.grad).toBe(null)
    const half = nn.parameter(zeros([2], { dtype: 'bfloat16' }))
    half.grad = zeros([2])
    expect(half.grad!.dtype).toBe('float32')
  })

  it.each([
    ['on another device', () => zeros([2], { device: other }), DeviceError, /got cpu:1, expected cpu; move it with/],
    [
      'of another shape',
      () => zeros([1, 2]),
      ShapeError,
      /another shape than its tensor: got \[1, 2\], expected \[2\]/,
    ],
    ['of another dtype', () => zeros([2], { dtype: 'float16' }), DTypeError, /got float16, expected float32; convert/],
    ['that is no tensor', () => 4 as never, ArgumentError, /not a tensor: got 4, expected a Tensor, or null/],
    ['that is undefined', () => undefined as never, ArgumentError, /not a tensor: got undefined/],
  ])('refuses one %s', (_, make, type, message) => {
    const x = leaf()
    const assign = () => {
      x.grad = make()
    }
    expect(assign).toThrow(type)
    expect(assign).toThrow(message)
    expect(x.grad).toBe(null)
  })

  it('refuses a released one', () => {
    const x = leaf()
    const gone = zeros([2])
    gone.dispose()
    expect(() => {
      x.grad = gone
    }).toThrow(StateError)
  })
})

describe('backward', () => {
  it('refuses a gradient on another device', () => {
    const y = leaf().mul(2)
    const far = zeros([2], { device: other })
    for (const call of [
      () => y.backward(far),
      () => y.backward({ gradient: far }),
      () => autograd.grad(y, leaf(), { gradOutputs: far }),
    ]) {
      expect(call).toThrow(DeviceError)
      expect(call).toThrow(
        "backward: the gradient is on another device than the tensor: got cpu:1, expected cpu; move it with .to('cpu').",
      )
    }
    expect(() => y.backward(zeros([3]))).toThrow(ShapeError)
    expect(() => y.backward(zeros([2], { dtype: 'float64' }))).toThrow(ShapeError)
  })

  it.each([
    ['a leaf', (x: Tensor) => [x, x.mul(2).sum()] as const],
    [
      'a result',
      (x: Tensor) => {
        const y = x.mul(2)
        return [y, y.sum()] as const
      },
    ],
  ])('refuses what a hook of %s moved', (_, make) => {
    const x = leaf()
    const [hooked, loss] = make(x)
    hooked.registerHook((grad) => grad.to(other))
    const call = () => loss.backward({ retainGraph: true })
    expect(call).toThrow(DeviceError)
    expect(call).toThrow('registerHook: the hook moved the gradient to another device: got cpu:1, expected cpu')
    expect(x.grad).toBe(null)
  })

  it('refuses what the formula of a function moved', () => {
    const moved = autograd.customFunction({
      name: 'moved',
      forward: (_, x: Tensor) => x.mul(2),
      backward: (_, grad) => grad.to(other),
    })
    const call = () => (moved(leaf()) as Tensor).sum().backward()
    expect(call).toThrow(DeviceError)
    expect(call).toThrow('backward: moved gave a gradient on another device: got cpu:1, expected cpu')
  })
})
