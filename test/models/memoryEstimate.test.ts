import { describe, expect, it } from 'vitest'
import { amp, device, memory, models, optim, randint, type Tensor } from '../../lib/index'

type Options = models.MemoryEstimateOptions

const optimizers = {
  sgd: (params: Tensor[]) => new optim.SGD(params, { lr: 0 }),
  adamw: (params: Tensor[]) => new optim.AdamW(params),
  adamw8bit: (params: Tensor[]) => new optim.AdamW8bit(params),
}

/** Peak of the second step, beside what was there before the model. */
async function measure(
  make: () => models.GPT | models.BERT,
  { batchSize, sequenceLength, dtype = 'float32', autocast, optimizer = 'adamw', checkpoint, returnLogits }: Options,
): Promise<number> {
  await device('cpu').synchronize()
  const before = memory.allocated()
  const model = make().to(dtype) as models.GPT
  if (checkpoint) model.gradientCheckpointing(checkpoint === true ? {} : checkpoint)
  const params = model.parameters()
  const update = optimizer === null ? null : optimizers[optimizer as keyof typeof optimizers](params)
  const inputIds = randint(100, [batchSize, sequenceLength!])
  const gone: Tensor[] = []
  const step = async (): Promise<void> => {
    model.zeroGrad()
    const forward = () =>
      (model as models.GPT).forward({ inputIds, labels: inputIds, ...(returnLogits === false && { returnLogits }) })
    const output = (autocast ? amp.autocast({ dtype: autocast }, forward) : forward()) as unknown as Record<
      string,
      Tensor
    >
    output.loss!.backward()
    update?.step()
    await device('cpu').synchronize()
    for (const each of Object.values(output)) each.dispose()
  }
  await step()
  await device('cpu').synchronize()
  memory.resetPeak()
  await step()
  const peak = memory.maxAllocated() - before
  model.zeroGrad()
  for (const each of [inputIds, ...params, ...gone]) each.dispose()
  for (const state of update?.state.values() ?? []) {
    for (const value of Object.values(state)) if (typeof value === 'object') value.dispose()
  }
  return peak
}

const gpt = { vocabSize: 512, nLayer: 4, nHead: 4, nEmbd: 128, blockSize: 128, dropout: 0 }
const bert = {
  vocabSize: 512,
  hiddenSize: 128,
  numHiddenLayers: 4,
  numAttentionHeads: 4,
  intermediateSize: 512,
  maxPositionEmbeddings: 128,
  dropout: 0,
}
const long = { batchSize: 8, sequenceLength: 128 }

type Case = [name: string, config: models.GPTConfig | models.BERTConfig, options: Options]

const cases: Case[] = [
  ['GPT', gpt, long],
  ['GPT, a large batch', gpt, { ...long, batchSize: 32 }],
  ['GPT, a small one', gpt, { batchSize: 2, sequenceLength: 64 }],
  ['GPT with dropout', { ...gpt, dropout: 0.1 }, long],
  ['GPT, many tokens', { ...gpt, vocabSize: 20_000, nLayer: 2 }, long],
  ['GPT, wide', { ...gpt, nEmbd: 384, nHead: 6, nLayer: 2 }, long],
  ['GPT, deep', { ...gpt, nLayer: 12 }, long],
  ['GPT, wide inside', { ...gpt, nInner: 1024 }, long],
  ['GPT, without logits', { ...gpt, vocabSize: 20_000 }, { ...long, returnLogits: false }],
  ['GPT, without logits, few tokens', gpt, { ...long, returnLogits: false }],
  [
    'GPT, without logits, in chunks',
    { ...gpt, nLayer: 1, vocabSize: 50_257 },
    { ...long, batchSize: 16, returnLogits: false },
  ],
  ['GPT, SGD', gpt, { ...long, optimizer: 'sgd' }],
  // few tokens beside many classes: the peak is the loss's
  ...(
    [
      [10_000, 256, 64, 2, 'sgd'],
      [5000, 128, 128, 2, 'sgd'],
      [10_000, 128, 128, 4, 'sgd'],
      [20_000, 128, 128, 4, 'sgd'],
      [20_000, 128, 128, 4, 'adamw8bit'],
      [5000, 256, 128, 2, 'adamw8bit'],
    ] as const
  ).map(
    ([vocabSize, nEmbd, sequenceLength, batchSize, optimizer]): Case => [
      `GPT, without logits, ${optimizer}, ${batchSize} x ${sequenceLength} of ${vocabSize} tokens, ${nEmbd} wide`,
      { ...gpt, vocabSize, nEmbd, nLayer: 2 },
      { batchSize, sequenceLength, optimizer, returnLogits: false },
    ],
  ),
  ...(['bfloat16', 'float16', 'float64'] as const).map(
    (dtype): Case => [
      `GPT, ${dtype}, without logits, few of many tokens, 8-bit AdamW`,
      { ...gpt, vocabSize: 5000, nEmbd: 256, nLayer: 2 },
      { batchSize: 2, sequenceLength: 128, dtype, optimizer: 'adamw8bit', returnLogits: false },
    ],
  ),
  ['GPT, untied', { ...gpt, tieWeights: false, vocabSize: 5000 }, long],
  ['GPT, checkpointed', { ...gpt, nLayer: 12 }, { ...long, batchSize: 16, checkpoint: true }],
  ['GPT, every third layer checkpointed', { ...gpt, nLayer: 12 }, { ...long, checkpoint: { every: 3 } }],
  ['GPT, float64', gpt, { ...long, dtype: 'float64' }],
  ['GPT, bfloat16', gpt, { ...long, dtype: 'bfloat16' }],
  ['GPT, bfloat16, large batch', gpt, { ...long, batchSize: 32, dtype: 'bfloat16' }],
  ...[512, 5000, 20_000, 50_257].map(
    (vocabSize): Case => [
      `GPT, bfloat16, without logits, ${vocabSize} tokens`,
      { ...gpt, vocabSize },
      { ...long, dtype: 'bfloat16', returnLogits: false },
    ],
  ),
  [
    'GPT, bfloat16, without logits, in chunks',
    { ...gpt, nLayer: 1, vocabSize: 50_257 },
    { ...long, batchSize: 32, dtype: 'bfloat16', returnLogits: false },
  ],
  ['GPT, float16, without logits', { ...gpt, vocabSize: 5000 }, { ...long, dtype: 'float16', returnLogits: false }],
  ['GPT, float64, without logits', { ...gpt, vocabSize: 5000 }, { ...long, dtype: 'float64', returnLogits: false }],
  ['BERT, bfloat16', bert, { ...long, dtype: 'bfloat16' }],
  ['BERT', bert, long],
  ['BERT, a large batch', bert, { ...long, batchSize: 32 }],
  ['BERT, many tokens', { ...bert, vocabSize: 20_000, numHiddenLayers: 2 }, long],
  ['BERT with dropout', { ...bert, dropout: 0.1 }, long],
  ['BERT, checkpointed', { ...bert, numHiddenLayers: 12 }, { ...long, batchSize: 16, checkpoint: true }],
]

const autocastCases = (
  [
    ['GPT', gpt, long],
    ['GPT, a large batch', gpt, { ...long, batchSize: 32 }],
    ['GPT, a small one', gpt, { batchSize: 2, sequenceLength: 64 }],
    ['GPT with dropout', { ...gpt, dropout: 0.1 }, long],
    ['GPT, many tokens', { ...gpt, vocabSize: 20_000, nLayer: 2 }, long],
    ['GPT, wide', { ...gpt, nEmbd: 384, nHead: 6, nLayer: 2 }, long],
    ['GPT, without logits', { ...gpt, vocabSize: 20_000 }, { ...long, returnLogits: false }],
    [
      'GPT, without logits, few of many tokens, SGD',
      { ...gpt, vocabSize: 5000, nEmbd: 256, nLayer: 2 },
      { batchSize: 2, sequenceLength: 128, optimizer: 'sgd', returnLogits: false },
    ],
    ['GPT, checkpointed', { ...gpt, nLayer: 12 }, { ...long, checkpoint: true }],
    ['GPT, every third layer checkpointed', { ...gpt, nLayer: 12 }, { ...long, checkpoint: { every: 3 } }],
    ['BERT', bert, long],
    ['BERT, a large batch', bert, { ...long, batchSize: 32 }],
    ['BERT with dropout', { ...bert, dropout: 0.1 }, long],
    ['BERT, checkpointed', { ...bert, numHiddenLayers: 12 }, { ...long, checkpoint: true }],
  ] as const satisfies Case[]
).flatMap(([name, config, options]) =>
  (['bfloat16', 'float16'] as const).map(
    (autocast): Case => [`${name}, autocast to ${autocast}`, config, { ...options, autocast }],
  ),
)

describe('estimateMemory', () => {
  it.each([...cases, ...autocastCases])('%s: within 10 % of the measured peak', async (_, config, options) => {
    const isBert = 'hiddenSize' in config
    const measured = await measure(() => (isBert ? new models.BERT(config) : new models.GPT(config)), options)
    const { total, ...parts } = models.estimateMemory(config, options)
    const { phase: _phase, ...bytes } = parts
    expect(Object.values(bytes).reduce((a, b) => a + b)).toBeCloseTo(total, 3)
    expect(total / measured).toBeGreaterThan(0.9)
    expect(total / measured).toBeLessThan(1.1)
  })

  it('takes a model for its configuration', () => {
    expect(models.estimateMemory(new models.GPT(gpt), long)).toEqual(models.estimateMemory(gpt, long))
    expect(models.estimateMemory(gpt, { batchSize: 8 })).toEqual(models.estimateMemory(gpt, long))
  })

  it('leaves parameters of 16 or 64 bits as they are under autocast', () => {
    for (const dtype of ['bfloat16', 'float64'] as const) {
      const options = { ...long, dtype }
      expect(models.estimateMemory(gpt, { ...options, autocast: 'float16' })).toEqual(
        models.estimateMemory(gpt, options),
      )
    }
    expect(models.estimateMemory(gpt, { ...long, autocast: null })).toEqual(models.estimateMemory(gpt, long))
  })

  it('refuses what makes no sense', () => {
    expect(() => models.estimateMemory(gpt, { batchSize: 0 })).toThrow('estimateMemory: batchSize is not a size: got 0')
    expect(() => models.estimateMemory(gpt, { ...long, optimizer: 'lion' as never })).toThrow(
      'estimateMemory: unknown optimizer: got "lion", expected adamw, adam, adamw8bit, sgd, momentum, rmsprop, adagrad, or null',
    )
    // a name that objects inherit
    expect(() => models.estimateMemory(gpt, { ...long, optimizer: 'toString' as never })).toThrow('unknown optimizer')
    expect(() => models.estimateMemory(gpt, { batchSize: 1, sequenceLength: 4096 })).toThrow(
      `estimateMemory: sequenceLength is longer than the model takes: got 4096, expected at most ${gpt.blockSize}`,
    )
    for (const checkpoint of [3, null, 'all']) {
      expect(() => models.estimateMemory(gpt, { ...long, checkpoint: checkpoint as never })).toThrow(
        'estimateMemory: checkpoint is no choice of layers: got',
      )
    }
    expect(() => models.estimateMemory(gpt, { ...long, checkpoint: { every: 0 } })).toThrow(
      'every is not a size: got 0',
    )
    expect(() => models.estimateMemory(gpt, { ...long, dtype: 'int64' as never })).toThrow(
      'estimateMemory: parameters have no gradients in this dtype: got "int64"',
    )
    for (const autocast of ['float32', true]) {
      expect(() => models.estimateMemory(gpt, { ...long, autocast: autocast as never })).toThrow(
        'estimateMemory: autocast computes no products in this dtype: got',
      )
    }
    expect(() => models.estimateMemory(3 as never, long)).toThrow('estimateMemory: no configuration: got 3')
    expect(() => models.estimateMemory(gpt, { ...long, batch: 3 } as never)).toThrow('unknown option: got batch')
  })
})
