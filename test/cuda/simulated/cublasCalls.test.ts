// Which products cuBLASLt takes, and in how many calls: of the simulator's library, which counts them.
import { afterAll, beforeEach, describe, expect, it } from 'vitest'
import { amp, cuda, type DType, models, ops, randn, type Tensor, zeros } from '../../../lib/index'
import { native, type Output, run, runMany } from '../../../lib/tensor/dispatch'
import { code } from '../support'
import { simulator } from './simulator'

delete process.env.GRADUS_CUBLASLT // before anything looks for it

/** What a call submits: kernels of ours, and calls of the library. */
async function submitted(call: () => unknown): Promise<{ kernels: number; tasks: number }> {
  await cuda.synchronize()
  simulator.control('reset')
  call()
  await cuda.synchronize()
  const { kernels, tasks } = JSON.parse(simulator.counters()).submitted
  return { kernels, tasks }
}

const random = (shape: number[], dtype: DType): Tensor => randn(shape, { device: 'cuda' }).to(dtype)

beforeEach(() => simulator.control('reset'))
afterAll(() => simulator.control('recordOnly=0 checks=all'))

describe('cuBLASLt', () => {
  it.each(['float32', 'float64', 'float16', 'bfloat16'] as const)(
    'takes a product of %s in one call',
    async (dtype) => {
      const [a, b] = [random([3, 17, 24], dtype), random([3, 24, 9], dtype)]
      expect(await submitted(() => a.matmul(b))).toEqual({ kernels: 0, tasks: 1 })
      expect(await submitted(() => a.matmul(random([9, 24], dtype).transpose(0, 1)))).toMatchObject({ tasks: 1 })
    },
  )

  it('takes bias and, of 16 bits, gelu by tanh along; another gelu is a pass behind it', async () => {
    for (const dtype of ['float32', 'float16', 'bfloat16'] as const) {
      const [x, w1, w2] = [random([5, 16], dtype), random([32, 16], dtype), random([16, 32], dtype)]
      const [b1, b2] = [random([32], dtype), random([16], dtype)]
      expect(await submitted(() => ops.linear(x, w1, b1))).toEqual({ kernels: 0, tasks: 1 })
      const mlp = (approximate: 'tanh' | 'none') => ops.mlp(x, w1, b1, w2, b2, { approximate })
      expect(await submitted(() => mlp('tanh'))).toEqual({ kernels: dtype === 'float32' ? 1 : 0, tasks: 2 })
      expect(await submitted(() => mlp('none'))).toEqual({ kernels: 1, tasks: 2 })
    }
  })

  it('takes the derivative of gelu by tanh along, of 16 bits', async () => {
    const shapes = [
      [5, 16],
      [5, 16],
      [5, 32],
      [32, 16],
      [16, 32],
    ]
    const gradients = [[5, 16], [32, 16], [32], [16, 32], [16]]
    for (const [dtype, tanh, tasks] of [
      ['bfloat16', 1, 4],
      ['float16', 1, 4],
      ['bfloat16', 0, 3],
      ['float32', 1, 3],
    ] as const) {
      const inputs = shapes.map((shape) => random(shape, dtype))
      const outputs = gradients.map((shape): Output => [shape, code(dtype)])
      const count = await submitted(() => runMany(native('mlpBackward', 'tanh,accumulate'), inputs, outputs, [tanh, 0]))
      // the hidden values, or all of the step, and two sums of columns
      expect(count, `${dtype} ${tanh}`).toEqual({ kernels: 3, tasks })
    }
  })

  it('has biases of another dtype, and on any address, copied', async () => {
    const [x, w, bias] = [random([4, 8], 'bfloat16'), random([8, 8], 'bfloat16'), random([9], 'bfloat16')]
    const call = (): Tensor => run(native('linear', ''), [x, w, bias.slice(0, 1)], [4, 8], code('bfloat16'))
    expect(await submitted(call)).toEqual({ kernels: 0, tasks: 1 }) // such a copy is the driver's
    const [input, weight] = [random([4, 8], 'float32'), random([8, 8], 'float32')]
    const under = (): Tensor =>
      amp.autocast({ dtype: 'bfloat16' }, () => ops.linear(input, weight, weight.select(0, 0)))
    expect(await submitted(under)).toEqual({ kernels: 3, tasks: 1 }) // of the operands, too
  })

  it('leaves to our kernels what it does not have', async () => {
    const a = random([6, 8], 'float32')
    // a batch of which no single stride tells where its entries are
    const batch = random([2, 3, 8, 5], 'float32').transpose(0, 1)
    expect((await submitted(() => a.matmul(batch))).tasks).toBe(0)
    // rows that are the same memory
    expect(
      (
        await submitted(() =>
          random([1, 8], 'float32')
            .expand([6, 8])
            .matmul(random([8, 5], 'float32')),
        )
      ).tasks,
    ).toBe(0)
    // a bias of 16 bits where rows of the result begin anywhere, which the library adds to a rounded sum
    const [x, w, bias] = [random([6, 8], 'bfloat16'), random([5, 8], 'bfloat16'), random([5], 'bfloat16')]
    expect((await submitted(() => ops.linear(x, w, bias))).tasks).toBe(0)
    expect((await submitted(() => ops.linear(x, w))).tasks).toBe(1)
    simulator.control('recordOnly=1 checks=none')
    // more entries than a grid has in a dim
    const many = zeros([65_536, 1, 1], { device: 'cuda' })
    expect((await submitted(() => many.matmul(many))).tasks).toBe(0)
    expect((await submitted(() => many.slice(0, 1).matmul(many.slice(0, 1)))).tasks).toBe(1)
  })

  it.each(['float32', 'float16', 'bfloat16'] as const)(
    'takes all products of a layer that trains, but for the loss: %s',
    async (dtype) => {
      simulator.control('recordOnly=1 checks=none')
      const steps = async (nLayer: number): Promise<number> => {
        const config = { vocabSize: 17, blockSize: 8, nLayer, nHead: 2, nEmbd: 16, dropout: 0 }
        const model = new models.GPT(config).to('cuda')
        const inputIds = zeros([2, 8], { dtype: 'int64', device: 'cuda' })
        const precision = dtype === 'float32' ? { enabled: false } : { dtype }
        const step = (): void =>
          amp.autocast(precision, () => model.forward({ inputIds, labels: inputIds }).loss!).backward()
        return (await submitted(step)).tasks
      }
      // forward 4, backward 8 (float32: but the step from the output of gelu to its input)
      expect((await steps(3)) - (await steps(2))).toBe(dtype === 'float32' ? 11 : 12)
    },
  )
})
