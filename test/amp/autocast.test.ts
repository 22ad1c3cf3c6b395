import { describe, expect, test } from 'vitest'
import { autocasting, autocastState, runWithAutocast } from '../../lib/autograd/autocast'
import {
  ArgumentError,
  amp,
  autograd,
  DeviceError,
  DTypeError,
  device,
  memory,
  models,
  nn,
  noGrad,
  ones,
  ops,
  optim,
  randn,
  random,
  StateError,
  type Tensor,
  tensor,
  tidy,
} from '../../lib/index'

const product = (): string => ops.matmul(ones([2, 2]), ones([2, 2])).dtype
const tick = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 1))

/** Gradients of both, and the result, of sum(f(a, b) * g). */
async function gradients(f: (a: Tensor, b: Tensor) => Tensor, a: Tensor, b: Tensor): Promise<Float32Array[]> {
  const leaves = [a, b].map((x) => x.detach().clone().requiresGrad_())
  const out = f(leaves[0]!, leaves[1]!).keep()
  out.to('float64').mul(weightsLike(out)).sum().backward()
  return Promise.all([out, leaves[0]!.grad!, leaves[1]!.grad!].map(async (x) => (await x.data()) as Float32Array))
}

const weightsLike = (x: Tensor): Tensor =>
  tensor(
    Array.from({ length: x.numel }, (_, i) => Math.sin(i + 1)),
    { dtype: 'float64' },
  ).view(x.shape)

/** |got - reference| / |reference|, Euclidean. */
function errorOf(got: ArrayLike<number>, reference: ArrayLike<number>): number {
  let errors = 0
  let squares = 0
  for (let i = 0; i < reference.length; i++) {
    errors += (got[i]! - reference[i]!) ** 2
    squares += reference[i]! ** 2
  }
  return Math.sqrt(errors / squares)
}

// Operands and results are rounded to 8 or 11 bits, half a unit of the last one each time, and sums may cancel.
const bounds = { bfloat16: 2 ** -6, float16: 2 ** -9 } as const

describe('regions', () => {
  test('outside nothing is cast', () => {
    expect(amp.isAutocastEnabled()).toBe(false)
    expect(amp.getAutocastDtype()).toBe('bfloat16')
    expect(autocasting).toBe(false)
    expect(product()).toBe('float32')
  })

  test('inside products have the dtype of the region', () => {
    expect(amp.autocast(product)).toBe('bfloat16')
    expect(amp.autocast({ dtype: 'float16' }, product)).toBe('float16')
    expect(amp.autocast({ device: 'cpu', dtype: 'float16' }, amp.getAutocastDtype)).toBe('float16')
    expect(amp.autocast(() => amp.isAutocastEnabled())).toBe(true)
    expect(product()).toBe('float32')
  })

  test('regions nest, and one that is disabled casts nothing', () => {
    const seen = amp.autocast(() => {
      const inner = amp.autocast({ dtype: 'float16' }, product)
      const off = amp.autocast({ enabled: false }, () => [product(), amp.isAutocastEnabled(), amp.autocast(product)])
      return [inner, off, product()]
    })
    expect(seen).toEqual(['float16', ['float32', false, 'bfloat16'], 'bfloat16'])
  })

  test('an error ends the region', () => {
    expect(() =>
      amp.autocast(() => {
        throw new Error('stop')
      }),
    ).toThrow('stop')
    expect(product()).toBe('float32')
  })

  test('an async function keeps its region across awaits, and nobody else is in it', async () => {
    const seen: string[] = []
    const inside = amp.autocast(async () => {
      seen.push(product())
      await tick()
      seen.push(product())
      expect(amp.autocast({ enabled: false }, product)).toBe('float32')
      await amp.autocast({ dtype: 'float16' }, async () => {
        await tick()
        seen.push(product())
      })
      seen.push(product())
      return 7
    })
    expect(product()).toBe('float32')
    const outside = (async () => {
      for (let i = 0; i < 5; i++) {
        await tick()
        expect(product()).toBe('float32')
        expect(amp.isAutocastEnabled()).toBe(false)
      }
    })()
    expect(await inside).toBe(7)
    await outside
    expect(seen).toEqual(['bfloat16', 'bfloat16', 'float16', 'bfloat16'])
    expect(autocasting).toBe(false)
  })

  test('a region that failed asynchronously is over', async () => {
    await expect(
      amp.autocast(async () => {
        await tick()
        throw new Error('late')
      }),
    ).rejects.toThrow('late')
    expect(autocasting).toBe(false)
  })

  test('what an async function left running is outside when the function is over', async () => {
    let late = Promise.resolve('')
    await amp.autocast(async () => {
      late = (async () => {
        await tick()
        return product()
      })()
    })
    expect(await amp.autocast(async () => late)).toBe('float32')
  })

  test('using opens a region for synchronous code', () => {
    {
      using _ = amp.autocast()
      expect(product()).toBe('bfloat16')
      {
        using _ = amp.autocast({ enabled: false })
        expect(product()).toBe('float32')
      }
      expect(product()).toBe('bfloat16')
    }
    expect(product()).toBe('float32')
  })

  test('using across an await throws, and the region ended at the await', async () => {
    const seen: string[] = []
    const interrupted = async (): Promise<void> => {
      using _ = amp.autocast({ dtype: 'float16' })
      seen.push(product())
      await tick()
      seen.push(product())
    }
    await expect(interrupted()).rejects.toThrow(StateError)
    await expect(interrupted()).rejects.toThrow('write amp.autocast(async () => ...)')
    expect(seen).toEqual(['float16', 'float32', 'float16', 'float32'])
    expect(autocasting).toBe(false)
  })

  test('a setting can be taken along and used again', () => {
    const state = amp.autocast({ dtype: 'float16', cacheEnabled: false }, autocastState)
    expect(runWithAutocast(state, product)).toBe('float16')
    expect(runWithAutocast(autocastState(), product)).toBe('float32')
    expect(amp.autocast(() => runWithAutocast(autocastState(), product))).toBe('bfloat16')
  })
})

describe('arguments', () => {
  // biome-ignore lint/suspicious/noExplicitAny: wrong on purpose
  const call = amp.autocast as any

  test.each([
    [{ dtype: 'bf16' }, DTypeError, `got "bf16", expected 'bfloat16' or 'float16'`],
    [{ dtype: 'float32' }, DTypeError, 'pass { enabled: false } to compute in float32'],
    [{ dtype: 'int64' }, DTypeError, `got "int64", expected 'bfloat16' or 'float16'`],
    [{ dtype: 'float64' }, DTypeError, 'no dtype to compute products in'],
    [{ device: 'tpu' }, DeviceError, 'no such device'],
    [{ enabled: 'no' }, ArgumentError, 'enabled is neither true nor false: got "no", expected a boolean'],
    [{ cacheEnabled: 1 }, ArgumentError, 'cacheEnabled is neither true nor false'],
    [{ cache_enabled: true }, ArgumentError, 'write cacheEnabled'],
    [{ deviceType: 'cpu' }, ArgumentError, 'unknown option: got deviceType'],
    ['cpu', ArgumentError, 'the options are not an object'],
    [null, ArgumentError, 'the options are not an object'],
  ])('refuses %j', (options, type, text) => {
    expect(() => call(options, product)).toThrow(type)
    expect(() => call(options, product)).toThrow(text)
  })

  test.each([[5], [undefined], [null], ['fn']])('refuses %j as a function', (fn) => {
    expect(() => call({}, fn)).toThrow(ArgumentError)
  })
})

describe('products', () => {
  const [rows, inner, columns] = [33, 20, 17]

  test.each(['bfloat16', 'float16'] as const)('%s: results and gradients of any mix of dtypes', async (dtype) => {
    random.seed(3)
    const cases: Record<string, [(a: Tensor, b: Tensor) => Tensor, Tensor, Tensor]> = {
      linear: [(a, b) => ops.linear(a, b), randn([rows, inner]), randn([columns, inner])],
      linear3: [(a, b) => ops.linear(a, b), randn([3, 5, inner]), randn([columns, inner])],
      vector: [(a, b) => ops.linear(a, b), randn([inner]), randn([columns, inner])],
      bias: [(a, b) => ops.linear(a, ones([columns, inner]), b), randn([rows, inner]), randn([columns])],
      matmul: [(a, b) => ops.matmul(a, b), randn([rows, inner]), randn([inner, columns])],
      batches: [(a, b) => ops.matmul(a, b), randn([2, 3, rows, inner]), randn([3, inner, columns])],
      folded: [(a, b) => ops.matmul(a, b), randn([2, 3, rows, inner]), randn([inner, columns])],
      addmm: [(a, b) => ops.addmm(ones([columns]), a, b), randn([rows, inner]), randn([inner, columns])],
      added: [(a, b) => ops.addmm(b, a, ones([inner, columns]), { beta: 2 }), randn([rows, inner]), randn([columns])],
      einsum: [(a, b) => ops.einsum('bij,kj->bik', a, b), randn([2, rows, inner]), randn([columns, inner])],
      mlp: [
        (a, b) => ops.mlp(a, b, ones([columns]), ones([inner, columns]), ones([inner])),
        randn([rows, inner]).mul(0.2),
        randn([columns, inner]).mul(0.2),
      ],
      frozenMlp: [
        (a, b) => ops.mlp(a, ones([columns, inner]), ones([columns]), b, ones([inner])),
        randn([rows, inner]).mul(0.2),
        randn([inner, columns]),
      ],
    }
    for (const [name, [f, a, b]] of Object.entries(cases)) {
      const [double, singles] = [
        await gradients(f64(f), a.to('float64'), b.to('float64')),
        [
          [a, b],
          [a.to(dtype), b],
          [a, b.to(dtype)],
          [a.to(dtype), b.to(dtype)],
        ] as const,
      ]
      for (const [x, w] of singles) {
        const got = await gradients((p, q) => amp.autocast({ dtype }, () => f(p, q)), x, w)
        for (let i = 0; i < 3; i++) expect(errorOf(got[i]!, double[i]!), `${name} ${i}`).toBeLessThan(bounds[dtype])
      }
    }
  })

  /** The same in float64: what a case makes itself is float32. */
  const f64 =
    (f: (a: Tensor, b: Tensor) => Tensor) =>
    (a: Tensor, b: Tensor): Tensor =>
      f(a.to('float32'), b.to('float32')).to('float64')

  test('results have the dtype of the region, gradients that of their operands', () => {
    const x = randn([4, 8]).to('bfloat16').requiresGrad_()
    const weight = randn([6, 8]).requiresGrad_()
    const bias = randn([6]).to('float16').requiresGrad_()
    const y = amp.autocast(() => ops.linear(x, weight, bias))
    expect([y.dtype, y.gradFn]).toEqual(['bfloat16', 'linear'])
    y.sum().backward()
    expect([x, weight, bias].map(({ grad }) => grad!.dtype)).toEqual(['bfloat16', 'float32', 'float16'])
  })

  test('gradients of weights are added up in the kernel', async () => {
    const weight = randn([6, 8]).requiresGrad_()
    const x = randn([4, 8])
    const once = (): void =>
      amp
        .autocast(() => ops.linear(x, weight))
        .sum()
        .backward()
    once()
    const first = weight.grad!
    const values = first.mul(2)
    once()
    expect(weight.grad).toBe(first)
    expect(ops.allclose(first, values, { rtol: 1e-2, atol: 1e-2 })).toBe(true)
  })

  test('backward inside of a region casts nothing', () => {
    const x = randn([4, 4], { dtype: 'float32' }).requiresGrad_()
    let seen = ''
    amp.autocast(() => {
      const y = x.mul(2)
      y.registerHook(() => {
        seen = product()
      })
      y.sum().backward()
      expect(product()).toBe('bfloat16')
    })
    expect(seen).toBe('float32')
  })

  test('mixed dtypes are refused outside, and float64 with others everywhere', () => {
    const [x, low, double] = [ones([2, 2]), ones([2, 2], { dtype: 'bfloat16' }), ones([2, 2], { dtype: 'float64' })]
    expect(() => ops.matmul(x, low)).toThrow(DTypeError)
    expect(() => ops.linear(x, low)).toThrow(DTypeError)
    expect(() => amp.autocast(() => ops.linear(x, double))).toThrow(DTypeError)
    expect(amp.autocast(() => ops.linear(double, double)).dtype).toBe('float64')
    expect(
      amp.autocast(() => ops.matmul(tensor([[2]], { dtype: 'int64' }), tensor([[3]], { dtype: 'int64' }))).dtype,
    ).toBe('int64')
  })
})

describe('losses', () => {
  const target = tensor([1, 0, 3], { dtype: 'int64' })

  test('cross entropy reads 16-bit logits and keeps its range', async () => {
    random.seed(4)
    const logits = randn([3, 5]).to('bfloat16')
    const reference = logits.to('float64').requiresGrad_()
    const expected = ops.crossEntropy(reference, target, { labelSmoothing: 0.1 })
    expected.backward()
    for (const reduction of ['mean', 'sum', 'none'] as const) {
      const low = logits.clone().requiresGrad_()
      const loss = amp.autocast(() => ops.crossEntropy(low, target, { labelSmoothing: 0.1, reduction })).keep()
      expect(loss.dtype).toBe('float32')
      loss.sum().backward()
      expect(low.grad!.dtype).toBe('bfloat16')
      const mean = reduction === 'mean' ? loss : loss.sum().div(3)
      expect(await mean.item()).toBeCloseTo(await expected.item(), 5)
      const grad = reduction === 'mean' ? low.grad! : low.grad!.to('float64').div(3)
      expect(ops.allclose(grad.to('float64'), reference.grad!, { rtol: 1e-2, atol: 1e-3 })).toBe(true)
    }
  })

  test.each(['bfloat16', 'float16'] as const)('%s: linear + cross entropy', async (dtype) => {
    random.seed(5)
    const x = randn([7, 24])
    const weight = randn([1500, 24]).mul(0.3) // more than a block of classes
    const labels = tensor([3, -100, 1200, 0, 1024, 1499, 77], { dtype: 'int64' })
    const run = (a: Tensor, b: Tensor): Tensor => ops.linearCrossEntropy(a, b, labels, { labelSmoothing: 0.05 })
    const reference = [x, weight].map((each) => each.to('float64').requiresGrad_()) as [Tensor, Tensor]
    const expected = run(...reference)
    expected.backward()
    for (const [a, b] of [
      [x, weight],
      [x.to(dtype), weight],
      [x, weight.to(dtype)],
    ] as const) {
      const leaves = [a, b].map((each) => each.clone().requiresGrad_()) as [Tensor, Tensor]
      const loss = amp.autocast({ dtype }, () => run(...leaves))
      expect(loss.dtype).toBe('float32')
      loss.backward()
      expect(leaves.map(({ grad }) => grad!.dtype)).toEqual([a.dtype, b.dtype])
      expect(Math.abs((await loss.item()) - (await expected.item()))).toBeLessThan(0.02)
      for (const i of [0, 1]) {
        const [got, right] = [await leaves[i]!.grad!.data(), await reference[i]!.grad!.data()]
        expect(errorOf(got as Float32Array, right as Float64Array)).toBeLessThan(bounds[dtype])
      }
    }
    expect(() => run(x, weight.to(dtype))).toThrow('dtypes differ')
  })

  test('operators of the float32 list do not overflow in float16', async () => {
    const big = tensor([300, 300], { dtype: 'float16' })
    const [product, loss] = amp.autocast({ dtype: 'float16' }, () => [ops.prod(big), ops.mseLoss(big, big.mul(0))])
    expect(await product!.item()).toBe(90_000)
    expect(await loss!.item()).toBe(90_000)
  })
})

describe('casts', () => {
  const attend = (q: Tensor, k: Tensor, v: Tensor): Tensor => ops.scaledDotProductAttention(q, k, v)

  test('attention takes operands of several dtypes; gradients get theirs back', () => {
    const q = randn([1, 2, 4, 8]).requiresGrad_()
    const k = randn([1, 2, 4, 8]).to('bfloat16').requiresGrad_()
    const v = randn([1, 2, 4, 8]).to('float16').requiresGrad_()
    expect(() => attend(q, k, v)).toThrow(DTypeError)
    const out = amp.autocast(() => attend(q, k, v))
    expect(out.dtype).toBe('bfloat16')
    out.sum().backward()
    expect([q, k, v].map(({ grad }) => grad!.dtype)).toEqual(['float32', 'bfloat16', 'float16'])
  })

  test('a parameter is cast once for a region, until it changes', () => {
    const weight = randn([1, 2, 4, 8]).requiresGrad_()
    const use = (): Tensor => attend(weight, weight, weight)
    // every use has a node of its own around the elements that it shares
    const castOf = (node: unknown): Tensor => {
      const [output] = (node as { outputs: Tensor[] }).outputs
      return output!._base ?? output!
    }
    const casts = (outputs: Tensor[]): number =>
      new Set(outputs.flatMap(({ _node }) => _node!.next.slice(0, 3).map(castOf))).size
    expect(amp.autocast(() => casts([use(), use()]))).toBe(1)
    expect(amp.autocast(() => casts([use(), amp.autocast(use)]))).toBe(1)
    expect(amp.autocast({ cacheEnabled: false }, () => casts([use()]))).toBe(3)
    const changed = amp.autocast(() => {
      const before = use()
      noGrad(() => weight.mul_(2))
      return [before, use()]
    })
    expect(casts(changed)).toBe(2)
    expect(casts([amp.autocast(use), amp.autocast(use)])).toBe(2)
  })

  test('a cast made without recording is not used while recording', () => {
    const weight = randn([1, 2, 4, 8]).requiresGrad_()
    const out = amp.autocast(() => {
      noGrad(() => attend(weight, weight, weight))
      return attend(weight, weight, weight)
    })
    out.sum().backward()
    expect(weight.grad).not.toBeNull()
  })
})

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
      device('cpu').synchronizeSync()
      const before = memory.allocated()
      const loss = amp.autocast({ enabled: dtype !== null }, () =>
        tidy(() => {
          const stream = x.mul(2)
          return ops.linear(ops.layerNorm(stream, 256, weight), head).sum()
        }),
      )
      device('cpu').synchronizeSync()
      const after = memory.allocated()
      loss.backward()
      return after - before
    }
    held(null)
    const [wide, narrow] = [held(null), held('bfloat16')]
    expect(narrow).toBeLessThan(0.55 * wide)
  })

  test('float64 and 16-bit activations stay as they are', () => {
    for (const dtype of ['float64', 'bfloat16'] as const) {
      const x = randn([3, 8]).to(dtype).requiresGrad_()
      const y = amp.autocast(() => ops.layerNorm(x, 8))
      expect(y.dtype).toBe(dtype)
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
