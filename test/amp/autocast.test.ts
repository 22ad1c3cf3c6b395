import { describe, expect, test } from 'vitest'
import { autocasting, autocastState, runWithAutocast } from '../../lib/autograd/autocast'
import {
  ArgumentError,
  amp,
  DeviceError,
  DTypeError,
  getDefaultDevice,
  noGrad,
  ones,
  ops,
  randn,
  random,
  StateError,
  type Tensor,
  tensor,
} from '../../lib/index'
import { bounds, errorOf, gradients } from '../support/amp'

const product = (): string => ops.matmul(ones([2, 2]), ones([2, 2])).dtype
const lower = getDefaultDevice().type === 'cuda' ? 'float16' : 'bfloat16'
const other = lower === 'float16' ? 'bfloat16' : 'float16'
const tick = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 1))

describe('regions', () => {
  test('outside nothing is cast', () => {
    expect(amp.isAutocastEnabled()).toBe(false)
    expect(amp.getAutocastDtype()).toBe(lower)
    expect(autocasting).toBe(false)
    expect(product()).toBe('float32')
  })

  test('inside products have the dtype of the region', () => {
    expect(amp.autocast(product)).toBe(lower)
    expect(amp.autocast({ dtype: other }, product)).toBe(other)
    expect(amp.autocast({ device: 'cpu' }, amp.getAutocastDtype)).toBe('bfloat16')
    expect(amp.autocast({ device: 'cpu', dtype: 'float16' }, amp.getAutocastDtype)).toBe('float16')
    expect(amp.autocast(() => amp.isAutocastEnabled())).toBe(true)
    expect(product()).toBe('float32')
  })

  test('regions nest, and one that is disabled casts nothing', () => {
    const seen = amp.autocast(() => {
      const inner = amp.autocast({ dtype: other }, product)
      const off = amp.autocast({ enabled: false }, () => [product(), amp.isAutocastEnabled(), amp.autocast(product)])
      return [inner, off, product()]
    })
    expect(seen).toEqual([other, ['float32', false, lower], lower])
  })

  test('a region without a dtype has that of the one around, also inside of a disabled one', () => {
    const inner = (): string => amp.autocast(product)
    expect(amp.autocast({ dtype: other }, inner)).toBe(other)
    expect(amp.autocast({ dtype: other }, () => amp.autocast({ enabled: false }, inner))).toBe(other)
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
      await amp.autocast({ dtype: other }, async () => {
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
    expect(seen).toEqual([lower, lower, other, lower])
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
      expect(product()).toBe(lower)
      {
        using _ = amp.autocast({ enabled: false })
        expect(product()).toBe('float32')
      }
      expect(product()).toBe(lower)
    }
    expect(product()).toBe('float32')
  })

  test('using across an await throws, and the region ended at the await', async () => {
    const seen: string[] = []
    const interrupted = async (): Promise<void> => {
      using _ = amp.autocast({ dtype: other })
      seen.push(product())
      await tick()
      seen.push(product())
    }
    await expect(interrupted()).rejects.toThrow(StateError)
    await expect(interrupted()).rejects.toThrow('write amp.autocast(async () => ...)')
    expect(seen).toEqual([other, 'float32', other, 'float32'])
    expect(autocasting).toBe(false)
  })

  test('a setting can be taken along and used again', () => {
    const state = amp.autocast({ dtype: other, cacheEnabled: false }, autocastState)
    expect(runWithAutocast(state, product)).toBe(other)
    expect(runWithAutocast(autocastState(), product)).toBe('float32')
    expect(amp.autocast(() => runWithAutocast(autocastState(), product))).toBe(lower)
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

  test('refuses options behind the function', () => {
    expect(() => call(product, { dtype: 'float16' })).toThrow('write amp.autocast(options, fn)')
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
    const y = amp.autocast({ dtype: 'bfloat16' }, () => ops.linear(x, weight, bias))
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
      expect(product()).toBe(lower)
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
    const out = amp.autocast({ dtype: 'bfloat16' }, () => attend(q, k, v))
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
