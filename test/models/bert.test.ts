import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { models, ops, type Tensor, tensor, zeros } from '../../lib/index'
import { expectClose } from '../support/golden'

const config = {
  vocabSize: 23,
  hiddenSize: 8,
  numHiddenLayers: 2,
  numAttentionHeads: 2,
  intermediateSize: 12,
  maxPositionEmbeddings: 16,
  dropout: 0,
}
const ids = (rows: number[][]): Tensor => tensor(rows, { dtype: 'int64' })

describe('BERT', () => {
  it("has bert-base's number of parameters by formula, with each head", () => {
    expect(models.BERT.parameterCount()).toBe(109_514_298)
    for (const head of ['maskedLM', 'classifier', 'none'] as const) {
      const model = new models.BERT({ ...config, head, numLabels: 3 })
      expect(model.numParameters()).toBe(models.BERT.parameterCount({ ...config, head, numLabels: 3 }))
    }
  })

  for (const head of ['maskedLM', 'classifier'] as const) {
    it(`does not see what stands in padding, with head ${head}`, async () => {
      const model = new models.BERT({ ...config, head, numLabels: 3 })
      const run = async (filler: number): Promise<string[]> => {
        const inputIds = ids([
          [1, 2, 3, filler, filler],
          [4, 5, 6, 7, 8],
        ])
        const attentionMask = ids([
          [1, 1, 1, 0, 0],
          [1, 1, 1, 1, 1],
        ])
        const labels = head === 'maskedLM' ? inputIds : tensor([0, 2], { dtype: 'int64' })
        model.zeroGrad()
        const { loss } = model.forward({ inputIds, attentionMask, labels })
        loss.backward()
        const grads = await Promise.all(model.parameters().map(async (p) => String(await p.grad!.data())))
        return [String(await loss.data()), ...grads]
      }
      const first = await run(0)
      expect(first.join()).not.toContain('NaN')
      expect(await run(22)).toEqual(first)
    })
  }

  it('foretells masked tokens, ignoring -100', async () => {
    const model = new models.BERT(config)
    const { loss, logits } = model.forward({ inputIds: ids([[1, 2, 3]]), labels: ids([[-100, 7, -100]]) })
    const rows = ops.logSoftmax(logits, -1).arraySync() as number[][][]
    expect(logits.shape).toEqual([1, 3, 23])
    expect(await loss.item()).toBeCloseTo(-rows[0]![1]![7]!, 5)
  })

  it('sorts into classes, into several at once, or onto a line', async () => {
    const inputIds = ids([
      [1, 2],
      [3, 4],
    ])
    const classes = new models.BERT({ ...config, head: 'classifier', numLabels: 3 })
    const { loss, logits } = classes.forward({ inputIds, labels: tensor([2, 0], { dtype: 'int64' }) })
    const rows = ops.logSoftmax(logits, -1).arraySync() as number[][]
    expect(await loss.item()).toBeCloseTo(-(rows[0]![2]! + rows[1]![0]!) / 2, 5)
    const several = classes.forward({
      inputIds,
      labels: tensor([
        [1, 0, 1],
        [0, 0, 0],
      ]),
    })
    expect(await several.loss.item()).toBeGreaterThan(0)
    const line = new models.BERT({ ...config, head: 'classifier', numLabels: 1 })
    const regression = line.forward({ inputIds, labels: tensor([0.5, -1]) })
    const [a, b] = Array.from(await regression.logits.data(), Number) as [number, number]
    expect(await regression.loss.item()).toBeCloseTo(((a - 0.5) ** 2 + (b + 1) ** 2) / 2, 5)
    expect(() => line.forward({ inputIds, labels: tensor([1, 0], { dtype: 'int64' }) })).toThrow('regression')
    expect(() => classes.forward({ inputIds, labels: zeros([2]) })).toThrow('labels have the wrong shape')
  })

  it('without a head gives hidden states and the pooled first token', () => {
    const model = new models.BERT({ ...config, head: 'none' })
    const out = model.forward({ inputIds: ids([[1, 2, 3]]), outputHiddenStates: true })
    expect(out.logits).toBeUndefined()
    expect(out.lastHiddenState.shape).toEqual([1, 3, 8])
    expect(out.poolerOutput!.shape).toEqual([1, 8])
    expect(out.hiddenStates!.length).toBe(3)
    expect(() => model.forward({ inputIds: ids([[1]]), labels: ids([[1]]) })).toThrow('has no loss')
  })

  it('takes segments, default 0', async () => {
    const model = new models.BERT(config)
    const inputIds = ids([[1, 2, 3]])
    const plain = model.forward({ inputIds }).logits
    await expectClose(model.forward({ inputIds, tokenTypeIds: ids([[0, 0, 0]]) }).logits, plain, {
      rtol: 0,
      atol: 1e-7,
    })
    const other = model.forward({ inputIds, tokenTypeIds: ids([[0, 1, 1]]) }).logits
    expect(String(await other.data())).not.toBe(String(await plain.data()))
  })

  it('writes a folder that it reads again, also with a new head', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'gradus-bert-'))
    try {
      const model = new models.BERT(config).eval()
      await model.savePretrained(folder)
      const again = await models.BERT.fromPretrained(folder)
      expect(again.config).toEqual(model.config)
      const inputIds = ids([[1, 2, 3]])
      await expectClose(again.forward({ inputIds }).logits, model.forward({ inputIds }).logits, { rtol: 0, atol: 0 })
      const classifier = await models.BERT.fromPretrained(folder, { head: 'classifier', numLabels: 5 })
      expect(classifier.forward({ inputIds }).logits.shape).toEqual([1, 5])
      await expectClose(
        classifier.bert.embeddings.word_embeddings.weight,
        model.bert.embeddings.word_embeddings.weight,
        { rtol: 0, atol: 0 },
      )
      expect(Array.from(await classifier.classifier!.weight.data(), Number).some((value) => value !== 0)).toBe(true)
    } finally {
      await rm(folder, { recursive: true })
    }
  })

  it('says what does not fit', () => {
    const model = new models.BERT(config)
    expect(() => new models.BERT({ ...config, head: 'qa' as never })).toThrow(
      "BERT: head is not known: got \"qa\", expected one of 'maskedLM', 'classifier', 'none'.",
    )
    expect(() => model.forward({ inputIds: zeros([1, 17], { dtype: 'int64' }) })).toThrow(
      'BERT: the text is longer than the model has positions: got 17 tokens, expected at most maxPositionEmbeddings 16.',
    )
    expect(() => model.forward({ inputIds: ids([[1, 2]]), tokenTypeIds: ids([[1]]) })).toThrow('tokenTypeIds')
  })
})
