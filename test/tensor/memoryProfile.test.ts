import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { afterEach, describe, expect, it } from 'vitest'
import {
  amp,
  autograd,
  device,
  memory,
  models,
  nn,
  OutOfMemoryError,
  ones,
  optim,
  randint,
  type Tensor,
} from '../../lib/index'
import { profile as profileAtMost } from '../../lib/tensor/memoryProfile'
import { collect } from '../support/collect'

const config = { vocabSize: 64, nLayer: 2, nHead: 2, nEmbd: 64, blockSize: 64, dropout: 0.1 }
const ids = randint(64, [8, 64])

/** A model with an optimizer, and one step of it. */
function trained() {
  const model = new models.GPT(config)
  const optimizer = new optim.AdamW(model.parameters())
  const step = (): void => {
    optimizer.zeroGrad()
    const { loss, logits } = model.forward({ inputIds: ids, labels: ids })
    loss.backward()
    optimizer.step()
    for (const each of [loss, logits]) each.dispose()
  }
  return { model, optimizer, step, bytes: 4 * model.numParameters() }
}

const settled = (): Promise<void> => device('cpu').synchronize()

describe('memory.profile', () => {
  it("finds the allocator's peak, and divides it up without a rest", async () => {
    const { model, optimizer, step } = trained()
    step()
    await settled()
    memory.resetPeak()
    const profile = await memory.profile(step, { model, optimizer })
    expect(profile.peak).toBe(memory.maxAllocated())
    expect(profile.peak).toBe(Math.max(...profile.phases.map(({ peak }) => peak)))
    expect(Math.max(...profile.timeline)).toBe(profile.peak)
    for (const { peak, kinds } of profile.phases) {
      expect(Object.values(kinds).reduce((a, b) => a + b)).toBe(peak)
      expect(Math.min(...Object.values(kinds))).toBeGreaterThanOrEqual(0)
    }
  })

  it('is of the device that the model or the optimizer is on', async () => {
    const model = new nn.Linear(8, 8).to('cpu:1')
    const optimizer = new optim.AdamW(model.parameters())
    const step = (): void => {
      optimizer.zeroGrad()
      model
        .forward(ones([4, 8], { device: 'cpu:1' }))
        .sum()
        .backward()
      optimizer.step()
    }
    step()
    for (const options of [{ model, optimizer }, { model }, { optimizer }, { device: 'cpu:1' as const }]) {
      const { peak, phases } = await memory.profile(step, options)
      expect(peak).toBeGreaterThan(4 * model.numParameters())
      expect(phases.map(({ name }) => name)).toEqual(['forward', 'backward', 'step'])
    }
    const { phases } = await memory.profile(step, { model, optimizer, device: 'cpu' })
    expect(phases.map(({ kinds }) => kinds.weights + kinds.optimizer)).toEqual(phases.map(() => 0))
  })

  it('tells phases and kinds apart', async () => {
    const { model, optimizer, step, bytes } = trained()
    step()
    const { phases } = await memory.profile(step, { model, optimizer })
    expect(phases.map(({ name }) => name)).toEqual(['forward', 'backward', 'step'])
    const [forward, backward, update] = phases.map(({ kinds }) => kinds)
    for (const kinds of [forward!, backward!, update!]) {
      expect(kinds.weights).toBe(bytes)
      expect(kinds.optimizer).toBe(2 * bytes)
    }
    expect(forward!.gradients).toBe(0)
    expect(update!.gradients).toBe(bytes)
    expect(forward!.activations).toBeGreaterThan(update!.activations)
    expect(backward!.workspace).toBeGreaterThan(0)
  })

  it('sees states and gradients as they are made in the first step', async () => {
    const { model, optimizer, step, bytes } = trained()
    const { phases } = await memory.profile(step, { model, optimizer })
    expect(phases[2]!.kinds).toMatchObject({ weights: bytes, gradients: bytes, optimizer: 2 * bytes })
  })

  it('names the modules whose tensors are alive at the peak, recomputed ones too', async () => {
    const { model, optimizer, step } = trained()
    const plain = await memory.profile(step, { model, optimizer })
    const sizes = new Map(plain.modules.map(({ path, bytes }) => [path, bytes]))
    const rows = 8 * 64
    // of the block that backward is in, or of one whose activations wait: the pre-activation
    expect(sizes.get('GPT.transformer.h.0.mlp')).toBeGreaterThanOrEqual(4 * rows * 256)
    expect(sizes.get('GPT.transformer.h.0.attn.c_attn')).toBe(4 * rows * 3 * 64)
    model.gradientCheckpointing()
    const spared = await memory.profile(step, { model, optimizer })
    expect(spared.peak).toBeLessThan(plain.peak)
    expect(spared.modules.some(({ path }) => path.endsWith('.mlp'))).toBe(true)
    expect(spared.modules.filter(({ path }) => path.endsWith('.c_attn')).length).toBe(1)
  })

  it('prints itself as a table', async () => {
    const { model, optimizer, step } = trained()
    step()
    const text = String(await memory.profile(step, { model, optimizer }))
    expect(text).toMatch(/^peak in MiB +weights +gradients +optimizer +activations +workspace .*total\n/)
    expect(text).toMatch(/\nforward +\d+\.\d/)
    expect(text).toMatch(/\nactivations and workspace at the peak +MiB\n/)
    expect(memory.summary()).toMatch(
      /^memory in MiB +cpu\nin use +\d+\.\d\npeak +\d+\.\d\nreserved +\d+\.\d\nlimit +\d+/,
    )
  })

  it('takes async functions, and gradients of an accumulated and scaled step', async () => {
    const { model, optimizer, bytes } = trained()
    const batch = { inputIds: ids, labels: ids }
    const scaler = new amp.GradScaler()
    const { phases } = await memory.profile(() => optim.accumulate(model, [batch, batch], { optimizer, scaler }), {
      model,
      optimizer,
    })
    expect(phases[2]!.kinds).toMatchObject({ weights: bytes, gradients: bytes })
  })

  it('refuses a second one meanwhile, and is over when the function throws', async () => {
    await expect(memory.profile(() => memory.profile(() => {}))).rejects.toThrow(
      'memory.profile: a profile is under way; await it before the next one.',
    )
    await expect(memory.profile(() => Promise.reject(new RangeError('mine')))).rejects.toThrow('mine')
    await expect(memory.profile(3 as never)).rejects.toThrow('memory.profile: not a function: got 3')
    const both = await Promise.allSettled([memory.profile(() => ones([4])), memory.profile(() => ones([4]))])
    expect(both.map(({ status }) => status)).toEqual(['fulfilled', 'rejected'])
    await expect(memory.profile(() => {}, { model: 5 as never })).rejects.toThrow(
      'memory.profile: model is no module: got 5',
    )
    await expect(memory.profile(() => {}, { optimizer: {} as never })).rejects.toThrow(
      'memory.profile: optimizer is no optimizer: got an object',
    )
    expect((await memory.profile(() => ones([4]))).phases).toHaveLength(1)
  })

  it('is the only one of the process, and over when its thread ends', async () => {
    const addon = process.env.GRADUS_ADDON ?? join(__dirname, '../../build/Release/gradus.node')
    const other = new Worker(
      `const { parentPort } = require('node:worker_threads')
       const addon = require(${JSON.stringify(addon)})
       addon.setScratch(new Float64Array(32768))
       parentPort.on('message', (value) => parentPort.postMessage(addon.memoryControl(0, 4, value)))`,
      { eval: true },
    )
    const control = (value: number): Promise<unknown> => {
      const answer = new Promise((resolve) => other.once('message', resolve))
      other.postMessage(value)
      return answer
    }
    const mine = await memory.profile(async () => {
      const kept = ones([1 << 18])
      expect(await control(1)).toEqual([4, expect.stringContaining('memory.profile: a profile is under way'), 0])
      await control(0) // not its own
      return kept
    })
    expect(mine.modules).toEqual([{ path: '', bytes: 2 ** 20 }])
    expect(await control(1)).toBeUndefined()
    await expect(memory.profile(() => {})).rejects.toMatchObject({
      code: 'ERR_GRADUS_STATE',
      message: 'memory.profile: a profile is under way in this process; await it before the next one',
    })
    await other.terminate()
    expect((await memory.profile(() => ones([4]))).phases).toHaveLength(1)
  })

  it('refuses to tell half of what happened', async () => {
    await expect(profileAtMost(() => [1, 2, 3, 4].map((n) => ones([n])), {}, 3)).rejects.toMatchObject({
      code: 'ERR_GRADUS_STATE',
      message:
        'memory.profile: the log was full before fn was done: got 4 events, expected at most 3; profile a step or a few of them.',
    })
  })
})

describe('memory.setLimit', () => {
  it('refuses what is no number of bytes', () => {
    const before = memory.limit()
    for (const bytes of [-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, '1', undefined]) {
      expect(() => memory.setLimit(bytes as never)).toThrow('memory.setLimit: not a number of bytes')
    }
    expect(() => memory.setLimit(Number.POSITIVE_INFINITY)).toThrow(
      'got Infinity, expected a whole number of at least 0; 0 restores the default.',
    )
    expect(memory.limit()).toBe(before)
  })
})

describe('out of memory', () => {
  afterEach(() => memory.setLimit(0))

  it('names what is in use, not the unused rest of blocks of small tensors', async () => {
    await collect() // nothing of the tests before is released meanwhile
    // each size takes a block of its own, most of which stays unused
    const small = [1, 8, 16, 40, 100, 200, 500, 1000, 2000, 4000, 8000].map((size) => ones([size]))
    await small[0]!.data()
    const large = ones([1 << 20])
    await large.data()
    memory.setLimit(memory.allocated())
    const error: Error = await ones([1 << 20])
      .data()
      .then(
        () => new Error('enough'),
        (thrown) => thrown,
      )
    const [, inUse, list] = /with ([\d.]+) MiB in use .*\(largest: ([^)]*)\)/.exec(error.message)!
    const named = [...list!.matchAll(/([\d.]+) MiB/g)].reduce((sum, [, mib]) => sum + Number(mib), 0)
    expect(named).toBeGreaterThanOrEqual(4)
    // a block keeps a remainder of less than 64 KiB, which counts here
    expect(named).toBeLessThanOrEqual(1.5 * Number(inUse))
    for (const each of [...small, large]) each.dispose()
  })

  it('says what a step of the model needs and what would be less', async () => {
    const { model, step } = trained()
    await settled()
    memory.setLimit(memory.allocated() + 2 ** 20)
    step()
    const failure = await settled().catch((error) => error)
    expect(failure).toBeInstanceOf(OutOfMemoryError)
    const need = (options: object): string =>
      String(Math.ceil(models.estimateMemory(model, { batchSize: 8, sequenceLength: 64, ...options }).total / 2 ** 20))
    expect(failure.message).toContain(
      `a training step of this GPT on 8 x 64 tokens with AdamW needs about ${need({})} MiB, ` +
        `${need({ checkpoint: true })} MiB with gradientCheckpointing(), ${need({ batchSize: 4 })} MiB with a batch of 4; ` +
        'use a smaller batch with gradient accumulation (optim.accumulate), activation checkpointing',
    )
  })
})

describe('out of memory under autocast', () => {
  afterEach(() => memory.setLimit(0))

  const bert = { vocabSize: 64, hiddenSize: 64, numHiddenLayers: 2, numAttentionHeads: 2, intermediateSize: 256 }
  const cases: [name: string, make: () => models.GPT | models.BERT][] = [
    ['GPT', () => new models.GPT(config)],
    ['BERT', () => new models.BERT(bert)],
  ]

  it.each(cases)('says what a step of the %s needs there, and without it after a step without it', (name, make) => {
    const model = make()
    const forward = (): unknown => (model as models.GPT).forward({ inputIds: ids, labels: ids })
    const needs = (autocast: 'bfloat16' | 'float16' | null): string => {
      const { total } = models.estimateMemory(model, { batchSize: 8, sequenceLength: 64, autocast })
      const under = autocast === null ? '' : ` under autocast to ${autocast}`
      return `this ${name} on 8 x 64 tokens with AdamW${under} needs about ${Math.ceil(total / 2 ** 20)} MiB, `
    }
    for (const dtype of ['bfloat16', 'float16'] as const) {
      amp.autocast({ dtype }, forward)
      expect(model.memoryAdvice()).toContain(needs(dtype))
    }
    amp.autocast({ enabled: false }, forward)
    expect(model.memoryAdvice()).toContain(needs(null))
    forward()
    expect(model.memoryAdvice()).toContain(needs(null))
  })

  it('quotes it in the error', async () => {
    const model = new models.GPT(config)
    await settled()
    memory.setLimit(memory.allocated() + 2 ** 20)
    const many = ids.repeat(16, 1) // needs more than the garbage of other tests leaves when it is collected
    amp.autocast({ dtype: 'bfloat16' }, () => model.forward({ inputIds: many, labels: many }))
    const failure = await settled().catch((error) => error)
    expect(failure).toBeInstanceOf(OutOfMemoryError)
    expect(failure.message).toContain('with AdamW under autocast to bfloat16 needs about')
  })
})

describe('the allocator', () => {
  const faults = (): number => process.resourceUsage().minorPageFault

  it('keeps blocks from step to step: no page faults for them', async () => {
    const layer = new nn.Linear(512, 512)
    const x = ones([2048, 512])
    const step = async (): Promise<void> => {
      layer.zeroGrad()
      autograd
        .checkpoint((h: Tensor) => layer.forward(h).square(), x)
        .mean()
        .backward()
      await settled()
    }
    for (let i = 0; i < 3; i++) await step()
    const before = faults()
    for (let i = 0; i < 20; i++) await step()
    // 12 MiB of tensors a step: 3,000 pages of 4 KiB. What is counted here is the heap of JavaScript.
    expect((faults() - before) / 20).toBeLessThan(200)
  })

  it('gives memory back when it is told to', async () => {
    const resident = (): number => process.memoryUsage().rss
    memory.trim()
    const large = ones([64 << 20])
    await settled()
    const [full, reserved] = [resident(), memory.reserved()]
    large.dispose()
    await settled()
    expect(memory.reserved()).toBe(reserved)
    expect(resident()).toBeGreaterThan(full - (32 << 20))
    memory.trim()
    expect(memory.reserved()).toBeLessThanOrEqual(reserved - (256 << 20))
    expect(resident()).toBeLessThan(full - (128 << 20))
  })

  it('gives back what small tensors were cut from, when none of it is in use', async () => {
    const place = device('cpu', 5) // an account of its own
    const small = (count: number): Tensor[] =>
      Array.from({ length: count }, (_, i) => ones([1 + (i % 99)], { device: place }))
    const reserved = async (): Promise<number> => {
      await place.synchronize()
      memory.trim(place)
      return memory.reserved(place)
    }
    const settle = async (tensors: Tensor[]): Promise<void> => {
      await Promise.all(tensors.map((each) => each.data()))
      for (const each of tensors) each.dispose()
    }
    const kept = ones([3], { device: place })
    await settle(small(5000))
    expect(await reserved()).toBeGreaterThan(0)
    expect(await kept.array()).toEqual([1, 1, 1])
    await settle(small(5000)) // from what the kept one holds
    kept.dispose()
    expect(await reserved()).toBe(0)
    await settle(small(100)) // from the start
    expect(await reserved()).toBe(0)
  })
})
