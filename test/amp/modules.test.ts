// Layers and models under autocast: what they keep, what dtypes gradients have, and that they learn.

import { describe, expect, test } from 'vitest'
import {
  amp,
  autograd,
  getDefaultDevice,
  memory,
  models,
  nn,
  ones,
  ops,
  optim,
  randn,
  random,
  type Tensor,
  tensor,
  tidy,
} from '../../lib/index'
import { autocastPolicies } from '../../lib/ops/autocastPolicy'
import { bounds, errorOf } from '../support/amp'

const product = (): string => ops.matmul(ones([2, 2]), ones([2, 2])).dtype

test('a residual stream stays float32', () => {
  const x = randn([2, 4, 8]).requiresGrad_()
  const weight = randn([8, 8]).requiresGrad_()
  for (const p of [0, 0.5]) {
    const y = amp.autocast(() => ops.dropoutAdd(ops.linear(ops.layerNorm(x, 8), weight), x, p))
    expect(y.dtype).toBe('float32')
    x.grad = null
    y.sum().backward()
    expect([x.grad!.dtype, weight.grad!.dtype]).toEqual(['float32', 'float32'])
  }
  expect(autograd.isGradEnabled()).toBe(true)
})

describe('norms', () => {
  const C = 96
  const norms: Record<string, (x: Tensor, w: Tensor, b: Tensor) => Tensor> = {
    layerNorm: (x, w, b) => ops.layerNorm(x, C, w, b),
    'layerNorm without bias': (x, w) => ops.layerNorm(x, C, w),
    'layerNorm of two dims': (x, w, b) => ops.layerNorm(x.view(5, 8, 12), [8, 12], w.view(8, 12), b.view(8, 12)),
    rmsNorm: (x, w) => ops.rmsNorm(x, C, w, 1e-6),
  }

  test.each(Object.entries(norms))('%s keeps what it normalized in 16 bits', async (_, norm) => {
    random.seed(6)
    const x = randn([5, C]).mul(3).add(1).requiresGrad_()
    const weight = randn([C]).requiresGrad_()
    const bias = randn([C]).requiresGrad_()
    const projection = randn([7, C])
    const run = (p: Tensor, w: Tensor, b: Tensor, head: Tensor): Tensor => {
      const y = norm(p, w, b)
      expect(y.dtype).toBe(p.dtype)
      // used by a product, which reads it again in backward, and by something else
      return ops.linear(y.view(5, C), head).to(p.dtype).square().sum().add(y.square().sum())
    }
    const reference = [x, weight, bias].map((each) => each.detach().to('float64').requiresGrad_())
    run(...(reference as [Tensor, Tensor, Tensor]), projection.to('float64')).backward()
    for (const dtype of ['bfloat16', 'float16'] as const) {
      const leaves = [x, weight, bias].map((each) => each.detach().clone().requiresGrad_())
      const head = projection.clone().requiresGrad_()
      amp.autocast({ dtype }, () => run(...(leaves as [Tensor, Tensor, Tensor]), head)).backward()
      for (const i of [0, 1, 2]) {
        if (reference[i]!.grad === null) continue
        expect(leaves[i]!.grad!.dtype).toBe('float32')
        const [got, right] = [await leaves[i]!.grad!.data(), await reference[i]!.grad!.data()]
        expect(errorOf(got as Float32Array, right as Float64Array)).toBeLessThan(bounds[dtype])
      }
    }
  })

  test('the residual stream is not kept', () => {
    const weight = ones([256]).requiresGrad_()
    const head = randn([8, 256]).requiresGrad_()
    const x = ones([512, 256]).requiresGrad_()
    const held = (dtype: 'bfloat16' | null): number => {
      getDefaultDevice().synchronizeSync()
      const before = memory.allocated()
      const loss = amp.autocast({ enabled: dtype !== null }, () =>
        tidy(() => {
          const stream = x.mul(2)
          return ops.linear(ops.layerNorm(stream, 256, weight), head).sum()
        }),
      )
      getDefaultDevice().synchronizeSync()
      const after = memory.allocated()
      loss.backward()
      return after - before
    }
    held(null)
    const [wide, narrow] = [held(null), held('bfloat16')]
    expect(narrow).toBeLessThan(0.55 * wide)
  })

  test('float64 activations stay as they are, and 16-bit ones where the device normalizes in their dtype', () => {
    for (const dtype of ['float64', 'bfloat16'] as const) {
      const x = randn([3, 8]).to(dtype).requiresGrad_()
      const y = amp.autocast(() => ops.layerNorm(x, 8))
      const widened = dtype === 'bfloat16' && autocastPolicies[x.device.type].get('layerNorm') === 'float32'
      expect(y.dtype).toBe(widened ? 'float32' : dtype)
      y.sum().backward()
      expect(x.grad!.dtype).toBe(dtype)
    }
  })

  test('the parameters of float32 activations are float32', () => {
    expect(() => ops.layerNorm(randn([3, 8]), 8, ones([8], { dtype: 'bfloat16' }))).toThrow(
      'layerNorm: the dtypes of x and its parameters do not fit: got x float32 and a parameter bfloat16, expected float32',
    )
  })
})

describe('modules', () => {
  const text = tensor([Array.from({ length: 16 }, (_, i) => (i * 7) % 11)], { dtype: 'int64' })

  /** The first and the last loss of a few steps. */
  async function train(model: nn.Module, forward: () => Tensor): Promise<[first: number, last: number]> {
    const optimizer = new optim.AdamW(model.parameters(), { lr: 1e-2 })
    const losses: number[] = []
    for (let step = 0; step < 8; step++) {
      optimizer.zeroGrad()
      const loss = forward()
      expect(loss.dtype).toBe('float32')
      loss.backward()
      optimizer.step()
      losses.push(await loss.item())
    }
    return [losses[0]!, losses.at(-1)!]
  }

  const makers: Record<string, () => [nn.Module, () => Tensor]> = {
    GPT: () => {
      const model = new models.GPT({ vocabSize: 11, nLayer: 2, nHead: 2, nEmbd: 32, blockSize: 16, dropout: 0.1 })
      return [model, () => model.forward({ inputIds: text, labels: text }).loss]
    },
    'GPT without logits': () => {
      const model = new models.GPT({ vocabSize: 11, nLayer: 2, nHead: 2, nEmbd: 32, blockSize: 16, dropout: 0 })
      return [model, () => model.forward({ inputIds: text, labels: text, returnLogits: false }).loss]
    },
    'GPT with attentions': () => {
      const model = new models.GPT({ vocabSize: 11, nLayer: 1, nHead: 2, nEmbd: 32, blockSize: 16, dropout: 0 })
      const attentionMask = ones([1, 16], { dtype: 'int64' })
      return [model, () => model.forward({ inputIds: text, labels: text, attentionMask, outputAttentions: true }).loss]
    },
    BERT: () => {
      const size = { vocabSize: 11, hiddenSize: 32, numHiddenLayers: 2, numAttentionHeads: 2, intermediateSize: 64 }
      const model = new models.BERT({ ...size, maxPositionEmbeddings: 16 })
      return [model, () => model.forward({ inputIds: text, labels: text }).loss]
    },
    'BERT classifier': () => {
      const size = { vocabSize: 11, hiddenSize: 32, numHiddenLayers: 1, numAttentionHeads: 2, intermediateSize: 64 }
      const model = new models.BERT({ ...size, maxPositionEmbeddings: 16, head: 'classifier', numLabels: 1 })
      return [model, () => model.forward({ inputIds: text, labels: tensor([0.5]) }).loss]
    },
    TransformerEncoderLayer: () => {
      const layer = new nn.TransformerEncoderLayer(32, 4, { dimFeedforward: 64, batchFirst: true, activation: 'gelu' })
      const [x, y] = [randn([2, 5, 32]), randn([2, 5, 32])]
      const srcMask = ones([5, 5]).tril().log()
      return [layer, () => ops.mseLoss(layer.forward(x, { srcMask }), y)]
    },
    'MultiheadAttention with weights': () => {
      const attention = new nn.MultiheadAttention(32, 4, { batchFirst: true })
      const [x, y] = [randn([2, 5, 32]), randn([2, 5, 32])]
      const keyPaddingMask = tensor([[false, false, false, true, true], Array(5).fill(false)])
      return [attention, () => ops.mseLoss(attention.forward(x, x, x, { keyPaddingMask })[0], y)]
    },
  }

  test.each(Object.keys(makers).flatMap((name) => [[name, 'bfloat16'] as const, [name, 'float16'] as const]))(
    '%s trains under autocast with %s',
    async (name, dtype) => {
      random.seed(7)
      const [model, forward] = makers[name]!()
      const [first, last] = await train(model, () => amp.autocast({ dtype }, forward))
      expect(last).toBeLessThan(first)
      for (const parameter of model.parameters()) expect(parameter.dtype).toBe('float32')
    },
  )

  test.each(['GPT', 'GPT without logits', 'BERT'])('%s in bfloat16 trains without autocast', async (name) => {
    random.seed(8)
    const [model, forward] = makers[name]!()
    model.to('bfloat16')
    const optimizer = new optim.SGD(model.parameters(), { lr: 0.3 })
    const losses: number[] = []
    for (let step = 0; step < 10; step++) {
      optimizer.zeroGrad()
      const loss = forward()
      loss.backward()
      for (const { grad, dtype } of model.parameters())
        if (grad !== null) expect([grad.dtype, dtype]).toEqual([dtype, 'bfloat16'])
      optimizer.step()
      losses.push(await loss.item())
    }
    expect(losses.at(-1)).toBeLessThan(losses[0]!)
  })

  test('generation under autocast', async () => {
    const model = new models.GPT({ vocabSize: 11, nLayer: 1, nHead: 2, nEmbd: 32, blockSize: 16 }).eval()
    const prompt = text.narrow(1, 0, 4)
    const out = await amp.autocast(() => model.generate(prompt, { maxNewTokens: 3, temperature: 0 }))
    expect(out.shape).toEqual([1, 7])
  })
})

test('a checkpointed function is computed again in its own region', () => {
  random.seed(9)
  const x = randn([4, 16]).requiresGrad_()
  const weight = randn([16, 16]).requiresGrad_()
  const dtypes: string[] = []
  const block = (input: Tensor): Tensor => {
    dtypes.push(product())
    const y = ops.linear(ops.layerNorm(input, 16), weight)
    return y.to('float32').add(input)
  }
  const gradientsOf = (forward: (input: Tensor) => Tensor): Tensor[] => {
    x.grad = null
    weight.grad = null
    amp
      .autocast({ dtype: 'float16' }, () => forward(x))
      .sum()
      .backward()
    return [x.grad!, weight.grad!] as Tensor[]
  }
  const expected = gradientsOf(block)
  const got = gradientsOf((input) => autograd.checkpoint(block, input))
  expect(dtypes).toEqual(['float16', 'float16', 'float16'])
  got.forEach((grad, i) => {
    expect(ops.equal(grad, expected[i]!)).toBe(true)
  })
})
