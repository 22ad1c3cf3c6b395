import { describe, expect, it, vi } from 'vitest'
import {
  amp,
  autograd,
  device,
  memory,
  models,
  nn,
  noGrad,
  ones,
  ops,
  rand,
  randn,
  random,
  StateError,
  type Tensor,
  tensor,
  zeros,
} from '../../lib/index'

const { checkpoint, checkpointSequential, isRecomputing, selectiveCheckpoint } = autograd
const settle = (): void => device('cpu').synchronizeSync()
const bytes = (x: Tensor): Uint8Array => new Uint8Array((x.dataSync() as Float32Array).buffer)

const ran = vi.hoisted(() => new Map<string, number>())

vi.mock('../../lib/native', async (original) => {
  const actual = await original<typeof import('../../lib/native')>()
  const names = actual.binding.opTable().map(({ name }) => name)
  const dispatch = (): ReturnType<typeof actual.binding.dispatch> => {
    const name = names[actual.scratch[0]!]!
    ran.set(name, (ran.get(name) ?? 0) + 1)
    return actual.binding.dispatch()
  }
  return { ...actual, binding: { ...actual.binding, dispatch } }
})

/** What fn gives, and the native operations that ran, by name. */
function counted<R>(fn: () => R): [R, Map<string, number>] {
  ran.clear()
  const result = fn()
  return [result, new Map(ran)]
}

class Block extends nn.Module {
  norm = new nn.LayerNorm(16)
  up = new nn.Linear(16, 32)
  down = new nn.Linear(32, 16)

  forward(x: Tensor): Tensor {
    const hidden = ops.gelu(this.up.forward(this.norm.forward(x)))
    return ops.dropoutAdd(this.down.forward(ops.dropout(hidden, 0.2)), x, 0.3)
  }
}

/** Loss, gradients of everything, and the random state behind, of one step from the same seed. */
function step(blocks: readonly Block[], x: Tensor, run: (x: Tensor) => Tensor) {
  random.seed(7)
  for (const block of blocks) block.zeroGrad()
  x.grad = null
  const loss = run(x).square().mean()
  loss.backward()
  const grads = [x, ...blocks.flatMap((block) => block.parameters())].map((each) => each.grad && bytes(each.grad))
  return { loss: loss.itemSync(), grads, random: random.getState() }
}

describe('checkpoint', () => {
  const blocks = [new Block(), new Block(), new Block(), new Block()]
  const x = randn([4, 8, 16]).requiresGrad_()
  const plain = (input: Tensor): Tensor => blocks.reduce((h, block) => block.forward(h), input)
  const expected = step(blocks, x, plain)

  it('gives loss, gradients and random state equal to the bit to those without', () => {
    const each = (input: Tensor): Tensor => blocks.reduce((h, block) => checkpoint((y) => block.forward(y), h), input)
    expect(step(blocks, x, each)).toEqual(expected)
    const whole = (input: Tensor): Tensor => checkpoint(plain, input)
    expect(step(blocks, x, whole)).toEqual(expected)
  })

  it('nests to any depth', () => {
    const run = (list: readonly Block[], input: Tensor): Tensor =>
      list.length === 1
        ? checkpoint((y) => list[0]!.forward(y), input)
        : checkpoint((y) => run(list.slice(list.length / 2), run(list.slice(0, list.length / 2), y)), input)
    expect(step(blocks, x, (input) => run(blocks, input))).toEqual(expected)
  })

  it('gives parameter gradients for inputs that require none', () => {
    const input = x.detach()
    const without = step(blocks, input, plain)
    expect(without.grads[0]).toBeNull()
    expect(step(blocks, input, (h) => checkpoint(plain, h))).toEqual(without)
  })

  it('passes other arguments through, and gives several outputs of which not all are used', () => {
    const w = tensor([2, 3], { requiresGrad: true })
    const fn = (a: Tensor, { by, also }: { by: number; also: Tensor }, name: string): { a: Tensor; b: Tensor } => {
      expect(name).toBe('n')
      return { a: a.mul(by).exp(), b: a.mul(also).exp() }
    }
    const { a, b } = checkpoint(fn, w, { by: 2, also: tensor([1, 1]) }, 'n')
    expect(b.arraySync()).toEqual(w.exp().arraySync())
    a.sum().backward()
    const grad = w.grad!.arraySync() as number[]
    expect(grad[0]).toBeCloseTo(2 * Math.exp(4), 3)
    expect(grad[1]).toBeCloseTo(2 * Math.exp(6), 2)
  })

  it('runs the function again once in backward, and not beyond what gradients read', () => {
    const w = tensor([2], { requiresGrad: true })
    const seen: string[] = []
    const y = checkpoint((v) => {
      seen.push(isRecomputing() ? 'first again' : 'first')
      const z = v.square()
      seen.push('last')
      return z.add(1)
    }, w)
    y.sum().backward()
    expect(seen).toEqual(['first', 'last', 'first again'])
    expect(w.grad!.arraySync()).toEqual([4])
    expect(isRecomputing()).toBe(false)
  })

  it('gives generators of its own back their states, too, and leaves them as they were', () => {
    const x = randn([1000]).requiresGrad_()
    const draw = (generator: random.Generator) => (y: Tensor) =>
      autograd.checkpoint((z: Tensor) => z.mul(rand([1000], { generator })), y.mul(1)).mul(rand([1000], { generator }))
    const gradients = [draw, (g: random.Generator) => (y: Tensor) => autograd.checkpoint(draw(g), y)].map((make) => {
      const generator = new random.Generator(3)
      x.grad = null
      const y = make(generator)(x)
      const state = generator.getState()
      y.sum().backward()
      expect(generator.getState()).toEqual(state)
      return bytes(x.grad!)
    })
    const generator = new random.Generator(3)
    const expected = rand([1000], { generator }).mul(rand([1000], { generator }))
    for (const each of gradients) expect(each).toEqual(bytes(expected))
  })

  it('leaves the stream of random numbers as it is between forward and backward', () => {
    random.seed(3)
    const w = ones([64]).requiresGrad_()
    const y = checkpoint((v) => ops.dropout(v, 0.5).square(), w)
    random.seed(99)
    const [first] = randn([1]).arraySync() as number[]
    random.seed(99)
    const kept = (y.arraySync() as number[]).map((value) => value * 2) // (2x)² and its derivative 8x, where x = 1 was kept
    y.sum().backward()
    expect((randn([1]).arraySync() as number[])[0]).toBe(first)
    expect(w.grad!.arraySync()).toEqual(kept)
  })

  it('holds the input instead of the activations, and frees what it computed again as backward passes', () => {
    const input = randn([64, 1024]).requiresGrad_()
    const deep = (h: Tensor): Tensor => {
      let y = h
      for (let i = 0; i < 8; i++) y = y.sin()
      return y
    }
    // bytes that fn leaves behind
    const live = (fn: () => unknown): number => {
      settle()
      const before = memory.allocated()
      fn()
      settle()
      return memory.allocated() - before
    }
    let y: Tensor
    const stored = live(() => (y = ops.mul(deep(input), 1)))
    y!.sum().backward()
    const spared = live(() => (y = checkpoint(deep, input)))
    expect(stored).toBeGreaterThan(8 * input.nbytes)
    expect(spared).toBe(input.nbytes) // y
    const tensors = memory.tensors()
    y!.sum().backward()
    settle()
    expect(memory.tensors()).toBeLessThanOrEqual(tensors + 1)
    y!.dispose()
  })

  it('finds what the function closes over, although the module around it released that', () => {
    class Around extends nn.Module {
      inner = new nn.Linear(4, 4)
      forward(h: Tensor): Tensor {
        const scale = ones([4]).mul(3)
        const doubled = h.mul(2)
        return checkpoint((v) => this.inner.forward(v.exp()).mul(scale), doubled)
      }
    }
    const around = new Around()
    const h = randn([2, 4]).requiresGrad_()
    around.forward(h).sum().backward()
    const grad = h.grad!.arraySync()
    h.grad = null
    ops
      .mul(around.inner.forward(h.mul(2).exp()), tensor([3, 3, 3, 3]))
      .sum()
      .backward()
    expect(h.grad!.arraySync()).toEqual(grad)
  })

  it('serves autograd.grad, hooks and retained graphs', () => {
    const w = tensor([1, 2], { requiresGrad: true })
    const make = (): Tensor => checkpoint((v) => v.mul(v).mul(v), w)
    const [g] = autograd.grad(make().sum(), w)
    expect(g!.arraySync()).toEqual([3, 12])
    expect(w.grad).toBeNull()
    const y = make().sum()
    y.backward({ retainGraph: true })
    y.backward({ retainGraph: true })
    y.backward()
    expect(w.grad!.arraySync()).toEqual([9, 36])
    w.grad = null
    const hook = w.registerHook((grad) => grad.mul(10))
    make().sum().backward()
    hook()
    expect(w.grad!.arraySync()).toEqual([30, 120])
  })

  it('passes twice over a graph whose two ends share a checkpoint', () => {
    const w = tensor([1, 2], { requiresGrad: true })
    const [a, b] = checkpoint((v) => [v.square(), v.exp().mul(v)], w) as [Tensor, Tensor]
    a.sum().backward()
    b.sum().backward()
    const want = [1, 2].map((v) => 2 * v + Math.exp(v) * (1 + v))
    ;(w.grad!.arraySync() as number[]).forEach((value, i) => void expect(value).toBeCloseTo(want[i]!, 4))
  })

  it('just runs the function where gradients are disabled', () => {
    const y = noGrad(() => checkpoint((v) => v.mul(2), tensor([1], { requiresGrad: true })))
    expect(y.requiresGrad).toBe(false)
    expect(y.arraySync()).toEqual([2])
  })

  it('works under detectAnomaly', () => {
    const w = tensor([1], { requiresGrad: true })
    autograd.detectAnomaly(() =>
      checkpoint((v) => v.square().add(1), w)
        .sum()
        .backward(),
    )
    expect(w.grad!.arraySync()).toEqual([2])
    expect(() =>
      autograd.detectAnomaly(() =>
        checkpoint((v) => v.sub(1).sqrt(), w)
          .sum()
          .backward(),
      ),
    ).toThrow(autograd.AnomalyError)
  })

  it('refuses functions that do not return tensors', () => {
    const w = tensor([1], { requiresGrad: true })
    expect(() => checkpoint(((v: Tensor) => v.itemSync()) as never, w)).toThrow(
      'checkpoint: the function did not return tensors: got 1, expected a Tensor, or tensors in an array or a plain object; return what is no tensor by other means.',
    )
    expect(() => checkpoint((async (v: Tensor) => v.mul(2)) as never, w)).toThrow(
      'got a Promise, expected a Tensor, or tensors in an array or a plain object; let it be synchronous',
    )
    const rejects = async (): Promise<Tensor> => {
      throw new Error('nobody hears of this one, and it ends no process')
    }
    expect(() => checkpoint(rejects as never, w)).toThrow('got a Promise')
    expect(() => checkpoint(((v: Tensor) => [v, null]) as never, w)).toThrow('got null')
    expect(() => checkpoint(3 as never, w)).toThrow('checkpoint: not a function: got 3')
  })

  it('refuses functions that change in place what they did not make', () => {
    const w = tensor([1], { requiresGrad: true })
    const buffer = ones([1])
    const message =
      'checkpoint: the function changes in place a tensor of shape [1] that it did not make: expected a function that can run again in backward'
    expect(() => checkpoint((v, b) => v.mul(b.add_(1)), w, buffer)).toThrow(message)
    expect(() => checkpoint((v) => v.mul(buffer.view(1).mul_(2)), w)).toThrow(message)
    expect(checkpoint((v) => v.mul(2).add_(1), w).arraySync()).toEqual([3])
  })

  it('refuses to run again on what was changed before backward', () => {
    const w = tensor([1], { requiresGrad: true })
    const buffer = ones([1])
    const y = checkpoint((v) => v.mul(buffer), w).sum()
    buffer.add_(1)
    expect(() => y.backward()).toThrow(
      'checkpoint: a tensor of shape [1] that the function reads was changed in place before backward: got version 1, expected version 0',
    )
  })

  it('says so when the function does something else the second time', () => {
    const w = ones([2]).requiresGrad_()
    const other = checkpoint((v) => (isRecomputing() ? v.view(1, 2).exp() : v.exp()), w)
    expect(() => other.sum().backward()).toThrow(
      'checkpoint: the function does not do the same when it runs again in backward: got view, expected exp, as in the first run',
    )
    const less = checkpoint((v) => (isRecomputing() ? v : v.exp()).add(0), w)
    expect(() => less.sum().backward()).toThrow('got add, expected exp')
    const none = checkpoint((v) => (isRecomputing() ? v.detach() : v.exp()), w)
    expect(() => none.sum().backward()).toThrow('got nothing more as tensor 0 that gradients need')
    const shape = checkpoint((v) => v.narrow(0, 0, isRecomputing() ? 1 : 2).exp(), w)
    expect(() => shape.sum().backward()).toThrow('got a tensor of shape [1] as tensor 0 that gradients need')
  })

  it('says so when it uses another parameter, drops something, or has one layer more', () => {
    const [a, b, c] = [0, 1, 2].map(() => new nn.Linear(8, 8)) as [nn.Linear, nn.Linear, nn.Linear]
    const x = ones([2, 8])
    const again = 'the function does not do the same when it runs again in backward: got'
    const cases: [(v: Tensor) => Tensor, string][] = [
      [(v) => c.forward((isRecomputing() ? a : b).forward(v).relu()), 'another parameter of shape [8, 8]'],
      [(v) => c.forward(isRecomputing() ? ops.gelu(a.forward(v)) : a.forward(v).relu()), 'gelu'],
      [(v) => c.forward(ops.dropout(a.forward(v), 0.5, !isRecomputing())).mul(2), 'a module in training'],
      [(v) => c.forward(isRecomputing() ? a.forward(v).add(b.forward(v)) : a.forward(v)), 'another parameter'],
    ]
    for (const [fn, got] of cases) {
      const y = checkpoint(fn, x).square().sum()
      expect(() => y.backward(), got).toThrow(`${again} ${got}`)
    }
  })

  it('says so when the mode of a model changed between forward and backward', () => {
    const sizes = { vocabSize: 16, nLayer: 2, nHead: 2, nEmbd: 8, blockSize: 4, dropout: 0.1 }
    const model = new models.GPT(sizes)
    model.gradientCheckpointing()
    const ids = zeros([1, 4], { dtype: 'int64' })
    const { loss } = model.forward({ inputIds: ids, labels: ids })
    model.eval()
    expect(() => loss!.backward()).toThrow(
      'got a module in evaluation, expected a module in training, as in the first run',
    )
  })

  it('refuses a second backward, and an error in the function leaves nothing behind', () => {
    const w = tensor([1], { requiresGrad: true })
    const y = checkpoint((v) => v.exp(), w).sum()
    y.backward()
    expect(() => y.backward()).toThrow(StateError)
    const tensors = memory.tensors()
    expect(() =>
      checkpoint((v) => {
        v.exp().mul(2)
        throw new RangeError('mine')
      }, w),
    ).toThrow('mine')
    expect(memory.tensors()).toBe(tensors)
  })
})

describe('a feed-forward part at the end of a checkpointed function', () => {
  for (const dtype of ['float32', 'float64', 'bfloat16', 'float16'] as const) {
    for (const [rows, C, inner] of [
      [5, 8, 16],
      [200, 96, 384],
      [1500, 64, 200],
    ] as const) {
      it(`${dtype}, ${rows} rows: runs its first product again, gradients equal to the bit`, () => {
        const shapes = [[rows, C], [inner, C], [inner], [C, inner], [C]]
        const inputs = shapes.map((shape) => randn(shape).mul(0.2).to(dtype).requiresGrad_()) as [
          Tensor,
          Tensor,
          Tensor,
          Tensor,
          Tensor,
        ]
        const grads = (wrap: (fn: () => Tensor) => Tensor): unknown => {
          for (const each of inputs) each.grad = null
          wrap(() => ops.dropoutAdd(ops.mlp(...inputs), inputs[0], 0, true))
            .square()
            .sum()
            .backward()
          return inputs.map((each) => each.grad!.arraySync())
        }
        const expected = grads((fn) => fn())
        const [actual, counts] = counted(() => grads((fn) => checkpoint(fn)))
        expect(actual).toEqual(expected)
        expect([counts.get('mlp'), counts.get('linear')]).toEqual([1, 1])
      })
    }
  }
})

describe('selectiveCheckpoint', () => {
  const w1 = randn([8, 8]).requiresGrad_()
  const w2 = randn([8, 8]).requiresGrad_()
  const x = randn([4, 8]).requiresGrad_()
  const fn = (v: Tensor): Tensor => ops.gelu(ops.linear(ops.gelu(ops.linear(v, w1)), w2)).square()
  const grads = (run: () => Tensor): Uint8Array[] => {
    for (const each of [w1, w2, x]) each.grad = null
    run().sum().backward()
    return [w1, w2, x].map((each) => bytes(each.grad!))
  }

  it('runs only what is not stored again, with gradients equal to the bit', () => {
    const expected = grads(() => fn(x))
    const [all, twice] = counted(() => grads(() => checkpoint(fn, x)))
    const [some, once] = counted(() => grads(() => selectiveCheckpoint(autograd.expensiveOps, fn, x)))
    const [none, spared] = counted(() => grads(() => selectiveCheckpoint((op) => op !== 'square', fn, x)))
    expect([all, some, none]).toEqual([expected, expected, expected])
    expect(twice.get('linear')! - once.get('linear')!).toBe(2)
    expect(once.get('gelu')).toBe(twice.get('gelu'))
    expect(spared.get('gelu')!).toBeLessThan(once.get('gelu')!)
  })

  it('works around and inside of other checkpoints', () => {
    const expected = grads(() => fn(fn(x)))
    const outer = (): Tensor => selectiveCheckpoint(['linear'], (v) => checkpoint(fn, fn(v)), x)
    const inner = (): Tensor => checkpoint((v) => selectiveCheckpoint(['linear'], fn, fn(v)), x)
    const both = (): Tensor => selectiveCheckpoint(['linear'], (v) => selectiveCheckpoint(['linear'], fn, fn(v)), x)
    for (const run of [outer, inner, both]) expect(grads(run)).toEqual(expected)
  })

  it('serves retained graphs', () => {
    x.grad = null
    const y = selectiveCheckpoint(['linear'], fn, x).sum()
    y.backward({ retainGraph: true })
    const once = x.grad!.clone()
    y.backward()
    expect(x.grad!.arraySync()).toEqual(once.mul(2).arraySync())
  })

  it('refuses to give a stored result that was changed in place', () => {
    const y = selectiveCheckpoint(['linear'], (v) => ops.linear(v, w1).add_(1).exp(), x)
    expect(() => y.sum().backward()).toThrow('selectiveCheckpoint: a stored result of linear was changed in place')
  })
})

describe('checkpointSequential', () => {
  it('checkpoints all segments but the last', () => {
    const blocks = new nn.Sequential(...Array.from({ length: 5 }, () => new Block()))
    const x = randn([2, 4, 16]).requiresGrad_()
    const list = [...blocks] as Block[]
    const expected = step(list, x, (h) => blocks.forward(h))
    const runs: number[] = []
    list.forEach((block, i) => {
      block.registerForwardPreHook(() => {
        if (isRecomputing()) runs.push(i)
      })
    })
    expect(step(list, x, (h) => checkpointSequential(blocks, 2, h))).toEqual(expected)
    expect(runs).toEqual([0, 1])
  })

  it('refuses what is no chain and segments that do not fit', () => {
    const x = ones([1])
    expect(() => checkpointSequential([(h) => h], 2, x)).toThrow('got 2, expected a whole number from 1 to 1')
    expect(() => checkpointSequential([() => 5 as unknown as Tensor, (h) => h.mul(2)], 1, x)).toThrow(
      'checkpointSequential: link 0 of the chain did not return a tensor: got 5',
    )
    expect(() => checkpointSequential(3 as never, 1, x)).toThrow('checkpointSequential: no chain of modules: got 3')
    expect(() => checkpointSequential([3 as never], 1, x)).toThrow('a link of the chain cannot be called: got 3')
    expect(() => checkpointSequential([(h) => h], 1, 5 as never)).toThrow(
      'checkpointSequential: the input is no tensor: got 5, expected a Tensor.',
    )
    for (const segments of [1, 2]) {
      expect(() => checkpointSequential([(h) => h.mul(2), () => 'hello' as never], segments, x)).toThrow(
        'checkpointSequential: the function did not return tensors: got "hello"',
      )
    }
  })
})

it('selectiveCheckpoint and gradientCheckpointing refuse operations that do not exist', () => {
  const w = tensor([1], { requiresGrad: true })
  const message =
    'no such operation to save: got "atention", expected names of native/ops.def such as linear, matmul, mlp, attention'
  expect(() => autograd.selectiveCheckpoint(['linear', 'atention'], (v) => v.mul(2), w)).toThrow(
    `selectiveCheckpoint: ${message}`,
  )
  expect(() => autograd.selectiveCheckpoint([3 as never], (v) => v.mul(2), w)).toThrow('got 3')
  const noChoice = 'no choice of operations to save'
  for (const save of [null, undefined, 'linear', 3, {}]) {
    const call = (): unknown => autograd.selectiveCheckpoint(save as never, (v) => v.mul(2), w)
    expect(call).toThrow(`selectiveCheckpoint: ${noChoice}: got `)
    expect(() => noGrad(call)).toThrow(noChoice)
  }
  const model = new nn.Sequential(new nn.Linear(2, 2))
  expect(() => model.gradientCheckpointing({ save: ['atention'] })).toThrow(`gradientCheckpointing: ${message}`)
  expect(() => model.gradientCheckpointing({ save: 'attention' as never })).toThrow(
    `gradientCheckpointing: ${noChoice}: got "attention", expected names of operations in an array, or a function of a name.`,
  )
  expect(model.isGradientCheckpointing).toBe(false)
  expect(model.gradientCheckpointing({ save: ['linear'] }).isGradientCheckpointing).toBe(true)
})

describe('Module.gradientCheckpointing', () => {
  const ids = tensor(
    [
      [1, 2, 3, 4, 5, 6],
      [6, 5, 4, 3, 2, 1],
    ],
    { dtype: 'int64' },
  )
  const gpt = new models.GPT({ vocabSize: 16, nLayer: 3, nHead: 2, nEmbd: 16, blockSize: 8, dropout: 0.1 })
  const bert = new models.BERT({
    vocabSize: 16,
    hiddenSize: 16,
    numHiddenLayers: 3,
    numAttentionHeads: 2,
    intermediateSize: 32,
    maxPositionEmbeddings: 8,
  })

  type Dtype = amp.AutocastDType | 'float32'
  const run = (model: Pick<models.GPT, 'forward' | 'namedParameters' | 'zeroGrad'>, dtype: Dtype): unknown => {
    random.seed(5)
    model.zeroGrad()
    const forward = () => model.forward({ inputIds: ids, labels: ids })
    const { loss } = dtype === 'float32' ? forward() : amp.autocast({ dtype }, forward)
    loss!.backward()
    return [loss!.itemSync(), model.namedParameters().map(([name, p]) => [name, bytes(p.grad!)]), random.getState()]
  }

  for (const [name, model, dtype] of [
    ['GPT', gpt, 'float32'],
    ['GPT', gpt, 'bfloat16'],
    ['GPT', gpt, 'float16'],
    ['BERT', bert as unknown as models.GPT, 'float32'],
    ['BERT', bert as unknown as models.GPT, 'bfloat16'],
    ['BERT', bert as unknown as models.GPT, 'float16'],
  ] as const) {
    it(`${name} in ${dtype}: gradients are equal to the bit with any choice of layers`, () => {
      const expected = run(model, dtype)
      const [, plain] = counted(() => run(model, dtype))
      for (const options of [
        {},
        { every: 2 },
        { save: autograd.expensiveOps },
        { layers: (_: string, module: nn.Module) => module instanceof nn.LayerNorm },
      ]) {
        expect(model.gradientCheckpointing(options).isGradientCheckpointing).toBe(true)
        expect(run(model, dtype)).toEqual(expected)
      }
      model.gradientCheckpointing({ every: 2 })
      const [, some] = counted(() => run(model, dtype))
      expect(some.get('attention')! - plain.get('attention')!).toBe(2)
      expect(model.gradientCheckpointing(false).isGradientCheckpointing).toBe(false)
    })
  }

  it('gives attention probabilities once', () => {
    gpt.gradientCheckpointing()
    const { loss, attentions } = gpt.forward({ inputIds: ids, labels: ids, outputAttentions: true })
    loss!.backward()
    expect(attentions).toHaveLength(3)
    gpt.gradientCheckpointing(false)
  })

  it('does nothing in evaluation', async () => {
    gpt.gradientCheckpointing().eval()
    const [, counts] = counted(() => run(gpt, 'float32'))
    expect(counts.get('attention')).toBe(3)
    await gpt.generate([[1, 2]], { maxNewTokens: 2 })
    gpt.train().gradientCheckpointing(false)
  })

  it('refuses models without layers, and options out of range', () => {
    expect(() => new nn.Linear(2, 2).gradientCheckpointing()).toThrow(
      'gradientCheckpointing: Linear has no ModuleList of layers; pass { layers: (path, module) => ... }, or call autograd.checkpoint in forward.',
    )
    expect(() => gpt.gradientCheckpointing({ every: 0 })).toThrow(
      'gradientCheckpointing: every is out of range: got 0, expected a whole number of at least 1',
    )
    expect(() => gpt.gradientCheckpointing({ evry: 2 } as never)).toThrow('unknown option: got evry')
    expect(() => gpt.gradientCheckpointing({ layers: () => false })).toThrow('no layer was chosen')
  })
})
