// MultiheadAttention and the encoder against PyTorch in float64; fixtures/nn/make_nn.py recorded the cases.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { autograd, nn, ones, onesLike, ops, ShapeError, type Tensor, tensor, zeros } from '../../lib/index'
import { expectClose, goldenTensors } from '../support/golden'

interface LayerCase {
  name: string
  layer: 'MultiheadAttention' | 'TransformerEncoderLayer'
  inputs: number
  masks: string[]
  weights: boolean
  batchFirst: boolean
  bias: boolean
  call?: nn.MultiheadAttentionCall
  normFirst?: boolean
  activation?: 'relu' | 'gelu'
}

const { cases } = JSON.parse(readFileSync(join(__dirname, '../fixtures/nn/nn.json'), 'utf8')) as { cases: LayerCase[] }
const close = { rtol: 1e-9, atol: 1e-10 }

describe('attention layers agree with PyTorch', () => {
  for (const each of cases) {
    it(each.name, async () => {
      const all = await goldenTensors('nn/nn.safetensors')
      const part = (prefix: string): Record<string, Tensor> =>
        Object.fromEntries(
          Object.entries(all)
            .filter(([name]) => name.startsWith(`${each.name}/${prefix}/`))
            .map(([name, value]) => [name.slice(each.name.length + prefix.length + 2), value]),
        )
      const masks = part('mask')
      const inputs = Object.values(part('in')).map((x) => x.clone().requiresGrad_())
      let layer: nn.Module
      let out: Tensor
      let weights: Tensor | null = null
      if (each.layer === 'MultiheadAttention') {
        const { batchFirst, bias } = each
        const attention = new nn.MultiheadAttention(8, 2, { batchFirst, bias }).to('float64')
        layer = attention
        attention.loadStateDict(part('state'))
        const [query, key = query, value = key] = inputs as [Tensor, Tensor?, Tensor?]
        ;[out, weights] = attention.forward(query, key, value, { ...each.call, ...masks })
      } else {
        const { batchFirst, bias, normFirst = false, activation = 'relu' } = each
        const options = { batchFirst, bias, normFirst, activation, dimFeedforward: 12, dropout: 0 }
        const encoder = new nn.TransformerEncoderLayer(8, 2, options).to('float64')
        layer = encoder
        encoder.loadStateDict(part('state'))
        out = encoder.forward(inputs[0]!, masks)
      }
      await expectClose(out, all[`${each.name}/out`]!, close)
      expect(weights !== null).toBe(each.weights)
      if (weights !== null) await expectClose(weights, all[`${each.name}/weights`]!, close)
      out.backward({ gradient: all[`${each.name}/gout`]! })
      const grads = part('grad')
      for (const [name, p] of layer.namedParameters()) await expectClose(p.grad!, grads[name]!, close)
      const expected = Object.values(part('gin'))
      for (const [i, x] of inputs.entries()) await expectClose(x.grad!, expected[i]!, close)
    })
  }
})

describe('MultiheadAttention', () => {
  it('hides the future with isCausal alone, fused or not', async () => {
    const layer = new nn.MultiheadAttention(8, 2, { batchFirst: true })
    const x = ops.randn([2, 5, 8])
    const mask = ones([5, 5], { dtype: 'bool' }).triu(1)
    const [expected] = layer.forward(x, x, x, { attnMask: mask })
    for (const needWeights of [true, false]) {
      const [out] = layer.forward(x, x, x, { isCausal: true, needWeights })
      await expectClose(out, expected, { rtol: 1e-4, atol: 1e-5 })
    }
  })

  it('gives zeros and finite gradients where a query may see nothing', async () => {
    const layer = new nn.MultiheadAttention(4, 1, { batchFirst: true, bias: false })
    const x = ops.randn([1, 3, 4]).requiresGrad_()
    for (const needWeights of [true, false]) {
      x.grad = null
      const [out] = layer.forward(x, x, x, { keyPaddingMask: ones([1, 3], { dtype: 'bool' }), needWeights })
      out.backward({ gradient: onesLike(out) })
      expect(Array.from(await out.data(), Number).every((value) => value === 0)).toBe(true)
      expect(Array.from(await x.grad!.data(), Number).every((value) => value === 0)).toBe(true)
    }
  })

  it('drops probabilities while training', async () => {
    const layer = new nn.MultiheadAttention(4, 1, { batchFirst: true, dropout: 0.5 })
    const x = ops.randn([1, 8, 4])
    const run = async (): Promise<string> => String(await layer.forward(x, x, x, { needWeights: false })[0].data())
    expect(await run()).not.toBe(await run())
    layer.eval()
    expect(await run()).toBe(await run())
  })

  it('starts as PyTorch: Xavier for the projections in, zero biases', () => {
    const layer = new nn.MultiheadAttention(64, 4)
    const values = Array.from(layer.in_proj_weight.dataSync(), Number)
    expect(Math.max(...values.map(Math.abs))).toBeLessThanOrEqual(Math.sqrt(6 / (64 + 192)))
    expect(Array.from(layer.in_proj_bias!.dataSync(), Number).every((value) => value === 0)).toBe(true)
    expect(Array.from(layer.out_proj.bias!.dataSync(), Number).every((value) => value === 0)).toBe(true)
  })

  it('takes masks of the shapes that PyTorch takes, and no other of as many elements', async () => {
    const layer = new nn.MultiheadAttention(4, 2, { batchFirst: true })
    const [q, k] = [ops.randn([2, 3, 4]), ops.randn([2, 6, 4])]
    const hides = (shape: number[]) => zeros(shape, { dtype: 'bool' })
    const refused = (call: nn.MultiheadAttentionCall, message: string, [x, y] = [q, k]) =>
      expect(() => layer.forward(x!, y!, y!, call)).toThrow(
        expect.objectContaining({ code: 'ERR_GRADUS_SHAPE', message: `MultiheadAttention: ${message}.` }),
      )
    const [wrongPadding, wrongMask] = ['keyPaddingMask has the wrong shape', 'attnMask has the wrong shape']
    refused({ keyPaddingMask: hides([6, 2]) }, `${wrongPadding}: got [6, 2], expected [2, 6]`)
    refused({ keyPaddingMask: hides([12]) }, `${wrongPadding}: got [12], expected [2, 6]`)
    for (const shape of [[6, 3], [18], [3, 6, 1], [4, 6, 3], [2, 2, 3, 6], [2, 3, 6]]) {
      refused({ attnMask: hides(shape) }, `${wrongMask}: got [${shape.join(', ')}], expected [3, 6] or [4, 3, 6]`)
    }
    const [plain] = layer.forward(q, k, k)
    for (const call of [{ keyPaddingMask: hides([2, 6]) }, { attnMask: hides([3, 6]) }, { attnMask: hides([4, 3, 6]) }])
      await expectClose(layer.forward(q, k, k, call)[0], plain, { rtol: 1e-5, atol: 1e-6 })
    const single = [q.select(0, 0), k.select(0, 0)] as [Tensor, Tensor]
    refused({ keyPaddingMask: hides([1, 6]) }, `${wrongPadding}: got [1, 6], expected [6]`, single)
    refused({ attnMask: hides([6, 3]) }, `${wrongMask}: got [6, 3], expected [3, 6] or [2, 3, 6]`, single)
    const masks = { keyPaddingMask: hides([6]), attnMask: hides([2, 3, 6]) }
    expect(layer.forward(single[0], single[1], single[1], masks)[0].shape).toEqual([3, 4])
    const encoder = new nn.TransformerEncoderLayer(4, 2, { batchFirst: true })
    expect(() => encoder.forward(k, { srcKeyPaddingMask: hides([6, 2]) })).toThrow(ShapeError)
  })

  it('says what does not fit', () => {
    expect(() => new nn.MultiheadAttention(10, 3)).toThrow(
      'MultiheadAttention: the heads do not divide the width: got embedDim 10 and numHeads 3, expected a multiple of numHeads.',
    )
    const layer = new nn.MultiheadAttention(4, 2, { batchFirst: true })
    const x = zeros([2, 3, 4])
    expect(() => layer.forward(x, x, zeros([2, 3, 5]))).toThrow('value has the wrong shape: got [2, 3, 5]')
    expect(() => layer.forward(x, x, x, { attnMask: zeros([2, 3]) })).toThrow(ShapeError)
    expect(() =>
      layer.forward(x, x, x, {
        keyPaddingMask: tensor(
          [
            [1, 0, 0],
            [0, 0, 0],
          ],
          { dtype: 'int64' },
        ),
      }),
    ).toThrow('MultiheadAttention: keyPaddingMask has the wrong dtype: got int64, expected bool or float32.')
  })
})

describe('TransformerEncoder', () => {
  it('copies the given layer, as PyTorch does, or takes what a function makes', async () => {
    const options = { dimFeedforward: 16, batchFirst: true, dropout: 0, normFirst: true } as const
    const layer = new nn.TransformerEncoderLayer(8, 2, options)
    const copies = new nn.TransformerEncoder(layer, 2, { norm: new nn.LayerNorm(8) })
    expect(copies.layers.at(0)).not.toBe(layer)
    await expectClose(copies.layers.at(1).linear1.weight, layer.linear1.weight, { rtol: 0, atol: 0 })
    const made = new nn.TransformerEncoder(() => new nn.TransformerEncoderLayer(8, 2, options), 2)
    expect(String(made.layers.at(0).linear1.weight)).not.toBe(String(made.layers.at(1).linear1.weight))
    const x = ops.randn([2, 4, 8])
    const byHand = copies.norm as nn.LayerNorm
    const expected = byHand.forward(copies.layers.at(1).forward(copies.layers.at(0).forward(x)))
    await expectClose(copies.forward(x), expected, { rtol: 1e-6, atol: 1e-6 })
    expect(copies.namedParameters()[0]![0]).toBe('layers.0.self_attn.in_proj_weight')
    expect(() => new nn.TransformerEncoder(3 as never, 2)).toThrow('TransformerEncoder: not a layer')
  })

  it('calls hooks of a layer that could have been fused', () => {
    const layer = new nn.TransformerEncoderLayer(8, 2, { batchFirst: true, activation: 'gelu', dropout: 0 })
    const seen: number[] = []
    layer.linear1.registerForwardHook((_, __, output) => {
      seen.push((output as Tensor).size(-1))
    })
    layer.forward(zeros([1, 2, 8]))
    expect(seen).toEqual([2048])
  })

  it('asks its dropout modules: their own mode, their hooks, and what takes their place', async () => {
    const layer = new nn.TransformerEncoderLayer(8, 2, { batchFirst: true, activation: 'gelu' }).eval()
    const x = ones([1, 3, 8])
    const still = layer.forward(x).arraySync()
    expect(layer.forward(x).arraySync()).toEqual(still)
    for (const dropout of [layer.dropout, layer.dropout1, layer.dropout2]) {
      dropout.train()
      expect(layer.forward(x).arraySync()).not.toEqual(still)
      dropout.eval()
      let calls = 0
      const remove = dropout.registerForwardHook(() => void calls++)
      layer.forward(x)
      expect(calls).toBe(1)
      remove()
    }
    layer.train()
    Object.assign(layer, { dropout: new nn.Identity(), dropout1: new nn.Identity(), dropout2: new nn.Identity() })
    layer.self_attn.eval()
    await expectClose(layer.forward(x), (still as number[][][]).flat(2), { rtol: 1e-5, atol: 1e-6 })
  })

  it('has right gradients in float64', () => {
    const layer = new nn.TransformerEncoderLayer(4, 2, { dimFeedforward: 6, batchFirst: true, dropout: 0 }).to(
      'float64',
    )
    const x = ops.randn([1, 3, 4], { dtype: 'float64' }).requiresGrad_()
    expect(autograd.gradcheck((input) => layer.forward(input), [x])).toBe(true)
  })
})
