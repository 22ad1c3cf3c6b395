import { describe, expect, it } from 'vitest'
import { nn, StateError, type Tensor, tensor, zeros } from '../../lib/index'
import { expectClose, goldenCases, goldenTensors } from '../support/golden'

const withGrad = (grad: Tensor): Tensor => {
  const param = nn.parameter(zeros(grad.shape, { dtype: grad.dtype }))
  param.grad = grad
  return param
}

describe('clipGradNorm_', () => {
  for (const each of goldenCases('ops', /^clip_grad_norm/)) {
    it(each.name, async () => {
      const stored = await goldenTensors(each.file)
      const params = Object.values(each.inputs).map((key) => withGrad(stored[key]!.clone()))
      const { max_norm: maxNorm, norm_type: order } = each.params
      const normType = order === 'inf' ? Number.POSITIVE_INFINITY : order
      const norm = nn.utils.clipGradNorm_(params, maxNorm, { normType })
      const [total, ...clipped] = Array.isArray(each.outputs) ? each.outputs : Object.values(each.outputs)
      await expectClose(norm, stored[total!]!, each.tolerance)
      for (const [i, key] of clipped.entries()) await expectClose(params[i]!.grad!, stored[key]!, each.tolerance)
    })
  }

  it('leaves gradients that are short enough to the bit', async () => {
    const param = withGrad(tensor([0.3, -0.4]))
    expect(await nn.utils.clipGradNorm_([param], 1).item()).toBeCloseTo(0.5, 6)
    expect(await param.grad!.data()).toEqual(Float32Array.of(0.3, -0.4))
  })

  it('gives the norm of all gradients for every order and dtype', async () => {
    for (const dtype of ['float32', 'float64', 'bfloat16', 'float16'] as const) {
      const params = [withGrad(tensor([3, -4, 0], { dtype })), withGrad(zeros([40_000], { dtype }).add(0.5))]
      const expected: [number, number][] = [
        [2, Math.sqrt(25 + 10_000)],
        [1, 7 + 20_000],
        [Number.POSITIVE_INFINITY, 4],
        [Number.NEGATIVE_INFINITY, 0],
        [0, 40_002],
        [3, (27 + 64 + 5000) ** (1 / 3)],
      ]
      for (const [normType, norm] of expected) {
        expect((await nn.utils.clipGradNorm_(params, 1e9, { normType }).item()) / (norm || 1)).toBeCloseTo(
          norm ? 1 : 0,
          5,
        )
      }
    }
  })

  it('refuses a norm that is not finite when asked to, and changes nothing then', async () => {
    const param = withGrad(tensor([1, Number.POSITIVE_INFINITY]))
    expect(() => nn.utils.clipGradNorm_([param], 1, { errorIfNonFinite: true })).toThrow(StateError)
    expect(await param.grad!.array()).toEqual([1, Number.POSITIVE_INFINITY])
    nn.utils.clipGradNorm_([param], 1)
    expect(await param.grad!.array()).toEqual([0, Number.NaN])
  })

  it('takes gradients with any strides, as the optimizer does', () => {
    const p = zeros([2, 2]).requiresGrad_()
    p.grad = tensor([
      [3, 0],
      [4, 0],
    ]).t()
    nn.utils.clipGradNorm_([p], 1)
    const [row, empty] = p.grad!.arraySync() as [number[], number[]]
    expect(row[0]).toBeCloseTo(0.6, 5)
    expect(row[1]).toBeCloseTo(0.8, 5)
    expect(empty).toEqual([0, 0])
    nn.utils.clipGradValue_([p], 0.7)
    expect((p.grad!.arraySync() as number[][])[0]![1]).toBeCloseTo(0.7, 6)
  })

  it('takes parameters without gradients', async () => {
    expect(await nn.utils.clipGradNorm_([nn.parameter(zeros([2]))], 1).item()).toBe(0)
    expect(() => nn.utils.clipGradNorm_([], -1)).toThrow('clipGradNorm_: maxNorm is out of range: got -1')
  })
})

describe('clipGradValue_', () => {
  for (const each of goldenCases('ops', /^clip_grad_value/)) {
    it(each.name, async () => {
      const stored = await goldenTensors(each.file)
      const params = Object.values(each.inputs).map((key) => withGrad(stored[key]!.clone()))
      nn.utils.clipGradValue_(params, each.params.clip)
      for (const [i, key] of Object.values(each.outputs).entries()) {
        await expectClose(params[i]!.grad!, stored[key]!, each.tolerance)
      }
    })
  }

  it('keeps NaN', async () => {
    const param = withGrad(tensor([Number.NaN, 5, -5, 0.1]))
    nn.utils.clipGradValue_(param, 1)
    expect(await param.grad!.data()).toEqual(Float32Array.of(Number.NaN, 1, -1, 0.1))
  })
})
