import { describe, expect, it } from 'vitest'
import { amp, data, memory, models, nn, ones, ops, optim, randn, random, type Tensor, tensor } from '../../lib/index'

const { accumulate } = optim

const ids = (rows: number[][]): Tensor => tensor(rows, { dtype: 'int64' })
const flat = (x: Tensor): number[] => [...(x.dataSync() as Float32Array)]

/** A batch of all samples, padded to one length; micro-batches of them, padded as little as each needs. */
function batches(lengths: number[], sizes: number[]) {
  random.seed(11)
  const texts = lengths.map((n) => Array.from({ length: n }, () => Math.floor(random.uniform() * 20)))
  const make = (some: number[][]) => {
    const T = Math.max(...some.map((each) => each.length))
    const pad = (value: number, of: (text: number[]) => number[]) =>
      ids(some.map((text) => [...of(text), ...Array<number>(T - text.length).fill(value)]))
    return {
      inputIds: pad(0, (text) => text),
      attentionMask: pad(0, (text) => text.map(() => 1)),
      labels: pad(-100, (text) => text.map((token, i) => (i % 5 === 3 ? -100 : token))),
    }
  }
  const left = [...texts]
  return { whole: make(texts), micro: sizes.map((size) => make(left.splice(0, size))) }
}

const { whole, micro } = batches([12, 3, 7, 2, 2, 9, 5, 12, 1], [2, 1, 3, 2, 1])

const largestOf = (x: Tensor): number => Math.max(...flat(x).map(Math.abs))

/** Relative to the largest element; some gradients are 0 but for rounding, so there it is that of all parameters. */
function expectClose(actual: Tensor, expected: Tensor, tolerance = 1e-6, largest = largestOf(expected)): void {
  const want = flat(expected)
  flat(actual).forEach((value, i) => {
    expect(Math.abs(value - want[i]!)).toBeLessThanOrEqual(tolerance * largest)
  })
}

function gpt(): models.GPT {
  random.seed(1)
  return new models.GPT({ vocabSize: 20, nLayer: 2, nHead: 2, nEmbd: 16, blockSize: 16, dropout: 0 })
}

function bert(): models.BERT {
  random.seed(1)
  return new models.BERT({
    vocabSize: 20,
    hiddenSize: 16,
    numHiddenLayers: 2,
    numAttentionHeads: 2,
    intermediateSize: 32,
    maxPositionEmbeddings: 16,
    hiddenDropout: 0,
    attentionDropout: 0,
  })
}

describe('accumulate', () => {
  it('takes no step when a micro-batch fails on the device, not even for the others', async () => {
    const model = gpt()
    const before = model.parameters().map(flat)
    const ok = { inputIds: ids([[1, 2, 3]]), labels: ids([[1, 2, 3]]) }
    const bad = { inputIds: ids([[1, 99, 3]]), labels: ids([[1, 2, 3]]) }
    for (const group of [
      [ok, bad],
      [bad, ok],
    ]) {
      const { loss } = await accumulate(model, group, { optimizer: new optim.SGD(model.parameters(), { lr: 1 }) })
      await expect(loss.item()).rejects.toThrow('index')
      expect(model.parameters().map(flat)).toEqual(before)
    }
  })

  it('leaves the counts of its caller alone, whatever their dtype', async () => {
    const model = new nn.Linear(2, 1)
    const count = tensor(2, { dtype: 'float64' })
    const options = {
      optimizer: new optim.SGD(model.parameters(), { lr: 1 }),
      loss: (x: Tensor) => model.forward(x).mean(),
      targets: () => count,
    }
    for (let epoch = 0; epoch < 2; epoch++) await accumulate(model, [randn([2, 2]), randn([2, 2])], options)
    expect(await count.item()).toBe(2)
  })

  it('counts a micro-batch as none whose count is no number of targets', async () => {
    const model = new nn.Linear(2, 1)
    const start = model.parameters().map(flat)
    const loss = (x: Tensor): Tensor => model.forward(x).mean()
    const batches = [ones([2, 2]), ones([2, 2]).mul(3)]
    for (const odd of [Number.NaN, -3, Number.POSITIVE_INFINITY]) {
      const targets = (x: Tensor): Tensor => tensor(x === batches[0] ? odd : 5)
      const optimizer = new optim.SGD(model.parameters(), { lr: 0 })
      const both = await accumulate(model, batches, { optimizer, loss, targets })
      const gradients = model.parameters().map((param) => flat(param.grad!))
      const one = await accumulate(model, [batches[1]!], { optimizer, loss, targets })
      expect(await both.targets.item()).toBe(5)
      expect(await both.loss.item()).toBe(await one.loss.item())
      expect(gradients).toEqual(model.parameters().map((param) => flat(param.grad!)))
      await accumulate(model, [batches[0]!], { optimizer: new optim.SGD(model.parameters(), { lr: 1 }), loss, targets })
      expect(model.parameters().map(flat)).toEqual(start)
    }
  })

  for (const [name, make] of [
    ['GPT', gpt],
    ['BERT', bert as unknown as typeof gpt],
  ] as const) {
    it(`${name}: micro-batches of any lengths and sizes give loss, gradients and step of one batch`, async () => {
      const [one, many] = [make(), make()]
      const loss = one.forward(whole).loss
      loss.backward()
      const norm = nn.utils.clipGradNorm_(one.parameters(), 1e9)
      const optimizer = new optim.SGD(many.parameters(), { lr: 0.1 })
      const result = await accumulate(many, micro, { optimizer, maxNorm: 1e9 })
      expect(result.loss.itemSync()).toBeCloseTo(loss.itemSync(), 6)
      expect(result.norm!.itemSync()).toBeCloseTo(norm.itemSync(), 5)
      expect(result.step).toBeNull()
      new optim.SGD(one.parameters(), { lr: 0.1 }).step()
      const expected = one.parameters()
      const largest = Math.max(...expected.map(({ grad }) => largestOf(grad!)))
      many.parameters().forEach((param, i) => {
        expectClose(param.grad!, expected[i]!.grad!, 1e-6, largest)
        expectClose(param, expected[i]!, 1e-6, Math.max(largest, largestOf(expected[i]!)))
      })
    })
  }

  it('counts what the loss is a mean over', async () => {
    const model = gpt()
    const counts = [...micro, whole].map((batch) => model.countTargets(batch).itemSync())
    expect(counts.slice(0, -1).reduce((a, b) => a + b)).toBe(counts.at(-1))
    expect(counts.slice(0, -1)).toContain(0) // a text of one token
    const optimizer = new optim.SGD(model.parameters(), { lr: 0 })
    expect((await accumulate(model, micro, { optimizer })).targets.itemSync()).toBe(counts.at(-1))
    const classifier = new models.BERT({ ...bert().config, head: 'classifier', numLabels: 3 })
    const labels = (x: Tensor): number => classifier.countTargets({ inputIds: whole.inputIds, labels: x }).itemSync()
    expect(labels(ids([[1]]).view(1))).toBe(1)
    expect(labels(tensor([1, -100, 2], { dtype: 'int64' }))).toBe(2)
    expect(labels(randn([4, 3]))).toBe(4)
  })

  it('is unlike the mean of the means, which gives short micro-batches too much weight', () => {
    const [one, many] = [gpt(), gpt()]
    one.forward(whole).loss.backward()
    for (const batch of micro.slice(0, 4)) many.forward(batch).loss.div(4).backward()
    const off = many.parameters().map((param, i) => {
      const exact = one.parameters()[i]!.grad!
      return param.grad!.sub(exact).norm().itemSync() / exact.norm().itemSync()
    })
    expect(Math.max(...off)).toBeGreaterThan(0.1)
  })

  it('steps the last group, which may be shorter, and clears gradients itself', async () => {
    const model = new nn.Linear(2, 1, { bias: false })
    const samples = Array.from({ length: 7 }, (_, i) => Float32Array.from([i, 1]))
    const loader = new data.DataLoader(new data.ArrayDataset(samples), { batchSize: 1 })
    const optimizer = new optim.SGD(model.parameters(), { lr: 0 })
    const means: number[][] = []
    for await (const group of data.groups(loader, 3)) {
      const loss = (x: Tensor): Tensor => model.forward(x).mean()
      const { norm } = await accumulate(model, group, { optimizer, loss, targets: (x) => x.size(0), maxNorm: 0.5 })
      means.push(flat(model.weight.grad!))
      expect(norm!.itemSync()).toBeGreaterThan(0.5)
    }
    expect(means).toEqual([
      [1, 1],
      [4, 1],
      [6, 1],
    ])
  })

  it('goes through a scaler, which skips a step that overflows', async () => {
    const [plain, scaled] = [gpt(), gpt()]
    const options = { lr: 1e-2 }
    const scaler = new amp.GradScaler({ initScale: 1024 })
    await accumulate(plain, micro, { optimizer: new optim.AdamW(plain.parameters(), options), maxNorm: 0.1 })
    const optimizer = new optim.AdamW(scaled.parameters(), options)
    let moved = 0
    const scheduler = { step: () => void moved++ }
    const before = scaled.forward(whole).loss.itemSync()
    const { loss, step, norm } = await accumulate(scaled, micro, { optimizer, scaler, maxNorm: 0.1, scheduler })
    expect(await step).toBe(true)
    expect(loss.itemSync()).toBeCloseTo(before, 5)
    expect(norm!.itemSync()).toBeGreaterThan(0.1)
    for (const [i, param] of scaled.parameters().entries()) expectClose(param, plain.parameters()[i]!, 1e-5)
    const weights = scaled.parameters().map(flat)
    const bad = (batch: (typeof micro)[0]): Tensor => scaled.forward(batch).loss.mul(Number.POSITIVE_INFINITY)
    const skipped = await accumulate(scaled, micro, { optimizer, scaler, loss: bad, scheduler })
    expect(await skipped.step).toBe(false)
    expect(scaled.parameters().map(flat)).toEqual(weights)
    expect(await scaler.getScale()).toBe(512)
    expect(moved).toBe(1)
  })

  it('weighs by counts of any size: weights of samples that add up to less than 1', async () => {
    const inputs = [tensor([[1, 2]]), tensor([[3, -1]])]
    const weights = [0.1, 0.4]
    const results: Tensor[] = []
    for (const scale of [1, 100]) {
      random.seed(2)
      const model = new nn.Linear(2, 1)
      await accumulate(model as never, inputs as never[], {
        optimizer: new optim.SGD(model.parameters(), { lr: 0 }),
        loss: ((x: Tensor) => model.forward(x).sum()) as never,
        targets: ((x: Tensor) => weights[inputs.indexOf(x)]! * scale) as never,
      })
      results.push(model.weight.grad!)
    }
    expect(flat(results[0]!).map((each) => +each.toFixed(6))).toEqual([2.6, -0.4]) // 0.2 (1, 2) + 0.8 (3, -1)
    expectClose(results[0]!, results[1]!)
  })

  it('exchanges gradients with the last micro-batch only', async () => {
    const quiet: number[] = []
    let seen = 0
    const model = Object.assign(gpt(), {
      noSync(fn: () => void): void {
        quiet.push(seen)
        fn()
      },
    })
    model.registerForwardHook(() => {
      seen++
    })
    await accumulate(model, micro, { optimizer: new optim.SGD(model.parameters(), { lr: 0 }) })
    expect(seen).toBe(5)
    expect(quiet).toEqual([0, 1, 2, 3])
  })

  it('leaves nothing behind', async () => {
    const model = gpt()
    const optimizer = new optim.AdamW(model.parameters())
    const run = async (): Promise<number> => {
      const { loss, targets, norm } = await accumulate(model, micro, { optimizer, maxNorm: 1 })
      for (const each of [loss, targets, norm]) each!.dispose()
      return memory.tensors()
    }
    await run()
    expect(await run()).toBe(await run())
  })

  it('refuses what it cannot work with, before it clears a gradient', async () => {
    const model = gpt()
    const optimizer = new optim.SGD(model.parameters(), { lr: 1 })
    const error = async (...args: unknown[]): Promise<string> => {
      const failure = await (accumulate as (...all: unknown[]) => Promise<unknown>)(...args).catch((e) => e)
      return (failure as Error).message
    }
    expect(await error(model, [], { optimizer })).toBe(
      'accumulate: no group of micro-batches: got an array of length 0, expected an array of at least one batch; take groups from data.groups(loader, n).',
    )
    expect(await error(3, micro, { optimizer })).toContain('no model: got 3')
    expect(await error(model, micro, {})).toContain('no optimizer: got undefined')
    expect(await error(model, micro, { optimizer, maxNorm: -1 })).toContain('maxNorm is out of range: got -1')
    expect(await error(model, micro, { optimizer, clip: 1 })).toContain('unknown option: got clip')
    const linear = new nn.Linear(2, 2)
    expect(await error(linear, [randn([1, 2])], { optimizer })).toContain(
      'accumulate: Linear does not say how many targets a batch has: expected a method countTargets(batch); pass { targets:',
    )
    const targets = (): number => 1
    expect(await error(linear, [randn([1, 2])], { optimizer, targets })).toContain(
      'accumulate: no loss: got undefined, expected a Tensor of one element; let forward return { loss }',
    )
    expect(await error(linear, [randn([1, 2])], { optimizer, targets, loss: (x: Tensor) => ops.relu(x) })).toContain(
      'accumulate: the loss is not one number: got [1, 2], expected []',
    )
    expect(await error(model, micro, { optimizer, scaler: true })).toBe(
      'accumulate: scaler is no scaler: got true, expected an amp.GradScaler.',
    )
    expect(await error(model, micro, { optimizer, scheduler: {} })).toBe(
      'accumulate: scheduler is no schedule: got an object, expected an object with a step method.',
    )
    expect(await error(model, micro, { optimizer, loss: 5 })).toContain('accumulate: not a function: got 5')
    expect(await error(model, micro, { optimizer, targets: 5 })).toContain('accumulate: not a function: got 5')
    expect(await error(model, micro, { optimizer, maxNorm: '1' })).toContain('maxNorm is out of range: got "1"')
    for (const count of [Number.NaN, -3, Number.POSITIVE_INFINITY]) {
      expect(await error(model, micro, { optimizer, targets: () => count })).toBe(
        `accumulate: no number of targets: got ${count}, expected a finite number of at least 0.`,
      )
    }
    const rejects = async (): Promise<Tensor> => {
      throw new Error('nobody hears of this one, and it ends no process')
    }
    expect(await error(model, micro, { optimizer, loss: rejects })).toContain('accumulate: no loss: got a promise')
    expect(await error(model, [null], { optimizer })).toContain('GPT: the batch has no inputIds: got null')
    expect(() => model.forward(undefined as never)).toThrow('GPT: the batch has no inputIds: got undefined')
  })
})
