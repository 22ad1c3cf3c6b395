import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { ArgumentError, DTypeError, models, nn, ops, ShapeError, type Tensor, tensor, zeros } from '../../lib/index'
import { expectClose } from '../support/golden'

const config = { vocabSize: 23, blockSize: 16, nLayer: 2, nHead: 2, nEmbd: 8, dropout: 0 }
const ids = (rows: number[][]): Tensor => tensor(rows, { dtype: 'int64' })
const exact = { rtol: 0, atol: 0 }
const std = async (x: Tensor): Promise<number> => {
  const values = Array.from(await x.data(), Number)
  return Math.sqrt(values.reduce((sum, v) => sum + v * v, 0) / values.length)
}

describe('a batch', () => {
  const inputIds = ids([[1, 2, 3]])
  const gpt = new models.GPT(config)
  const bert = new models.BERT({ vocabSize: 23, numHiddenLayers: 1, numAttentionHeads: 1, hiddenSize: 8 })

  it.each([
    ['mask', 'attentionMask'],
    ['attnMask', 'attentionMask'],
    ['keyPaddingMask', 'attentionMask'],
    ['attentionMaks', 'attentionMask'],
    ['AttentionMask', 'attentionMask'],
    ['target', 'labels'],
    ['targets', 'labels'],
    ['label', 'labels'],
    ['positionId', 'positionIds'],
  ])('with %s is refused: it means %s', (name, meant) => {
    for (const [op, model] of [
      ['GPT', gpt],
      ['BERT', bert],
    ] as const) {
      const message = new RegExp(`${op}: the batch has an unknown key: got ${name}, .*did you mean ${meant}\\?`)
      const given = { inputIds, [name]: inputIds }
      const run = () => (model.forward as (batch: object) => unknown)(given)
      expect(run).toThrow(ArgumentError)
      expect(run).toThrow(message)
    }
  })

  it('may hold what is no name of the model, and the other name beside the one that is meant', () => {
    const more = { index: 1, text: 'x', y: inputIds, weights: 2 }
    gpt.forward({ inputIds, labels: inputIds, label: 3, attentionMask: null, ...more })
    bert.forward({ inputIds, attentionMask: inputIds, mask: inputIds, ...more })
  })
})

describe('GPT', () => {
  it("has GPT-2's number of parameters by formula, tied and untied", () => {
    expect(models.GPT.parameterCount()).toBe(124_439_808)
    for (const each of [config, { ...config, tieWeights: false, nInner: 13 }, { ...config, nLayer: 0 }]) {
      expect(new models.GPT(each).numParameters()).toBe(models.GPT.parameterCount(each))
    }
  })

  it('starts as published: N(0, 0.02), the residual projections smaller by sqrt(2 nLayer), zero biases', async () => {
    const model = new models.GPT({ ...config, vocabSize: 200, nEmbd: 64, nLayer: 8 })
    const { wte, h } = model.transformer
    expect(await std(wte.weight)).toBeCloseTo(0.02, 3)
    expect(await std(h.at(3).attn.c_attn.weight)).toBeCloseTo(0.02, 3)
    expect(await std(h.at(3).attn.c_proj.weight)).toBeCloseTo(0.02 / 4, 3)
    expect(await std(h.at(3).mlp.c_proj.weight)).toBeCloseTo(0.02 / 4, 3)
    expect(await std(h.at(3).mlp.c_fc.bias!)).toBe(0)
  })

  it("has Hugging Face's names and layouts in its state, sharing memory", async () => {
    const model = new models.GPT(config)
    const state = model.stateDict()
    expect(state['transformer.h.0.attn.c_attn.weight']!.shape).toEqual([8, 24])
    expect(Object.keys(state)).toContain('transformer.wpe.weight')
    expect(Object.keys(state)).not.toContain('lm_head.weight')
    const other = new models.GPT(config)
    other.loadStateDict(state)
    await expectClose(other.transformer.h.at(1).mlp.c_fc.weight, model.transformer.h.at(1).mlp.c_fc.weight, exact)
    // files that hold the tied weight twice load as well; an untied model needs it
    other.loadStateDict({ ...state, 'lm_head.weight': state['transformer.wte.weight']! })
    expect(() => new models.GPT({ ...config, tieWeights: false }).loadStateDict(state)).toThrow('lm_head.weight')
  })

  it('foretells labels[t + 1] at t and ignores -100', async () => {
    const model = new models.GPT(config)
    const inputIds = ids([[3, 1, 4, 1, 5]])
    const { loss, logits } = model.forward({ inputIds, labels: ids([[3, 1, -100, 1, 5]]) })
    const rows = ops.logSoftmax(logits, -1).arraySync() as number[][][]
    const expected = -(rows[0]![0]![1]! + rows[0]![2]![1]! + rows[0]![3]![5]!) / 3
    expect(await loss.item()).toBeCloseTo(expected, 5)
    expect(model.forward({ inputIds }).loss).toBeUndefined()
  })

  it('gives the same loss and gradients without logits', async () => {
    const model = new models.GPT(config)
    const inputIds = ids([
      [3, 1, 4, 1, 5, 9],
      [2, 6, 5, 3, 0, 0],
    ])
    const attentionMask = ids([
      [1, 1, 1, 1, 1, 1],
      [1, 1, 1, 1, 0, 0],
    ])
    const batch = { inputIds, attentionMask, labels: inputIds }
    const whole = model.forward(batch)
    whole.loss.backward()
    const grads = model.parameters().map((p) => p.grad!.clone())
    model.zeroGrad()
    const pieces = model.forward({ ...batch, returnLogits: false })
    expect(pieces.logits).toBeUndefined()
    pieces.loss.backward()
    await expectClose(pieces.loss, whole.loss, { rtol: 1e-6, atol: 0 })
    for (const [i, p] of model.parameters().entries()) await expectClose(p.grad!, grads[i]!, { rtol: 1e-4, atol: 1e-6 })
    expect(() => model.forward({ inputIds, returnLogits: false })).toThrow('there is nothing to return')
  })

  for (const side of ['right', 'left'] as const) {
    for (const returnLogits of [true, false]) {
      it(`does not see what stands in padding on the ${side}${returnLogits ? '' : ', without logits'}`, async () => {
        const model = new models.GPT(config)
        const real = [7, 8, 9]
        const run = async (filler: number): Promise<string[]> => {
          const pad = [filler, filler, filler]
          const row = side === 'right' ? [...real, ...pad] : [...pad, ...real]
          const mask = side === 'right' ? [1, 1, 1, 0, 0, 0] : [0, 0, 0, 1, 1, 1]
          const inputIds = ids([row, [1, 2, 3, 4, 5, 6]])
          const attentionMask = ids([mask, [1, 1, 1, 1, 1, 1]])
          model.zeroGrad()
          const { loss } = model.forward({ inputIds, attentionMask, labels: inputIds, returnLogits })
          loss.backward()
          const state = await Promise.all(model.parameters().map(async (p) => String(await p.grad!.data())))
          return [String(await loss.data()), ...state]
        }
        const first = await run(0)
        expect(first.join()).not.toContain('NaN')
        expect(await run(22)).toEqual(first)
      })
    }
  }

  it('shows attention probabilities that are causal and add up to one', async () => {
    const { attentions, hiddenStates } = new models.GPT(config).forward({
      inputIds: ids([[1, 2, 3]]),
      outputAttentions: true,
      outputHiddenStates: true,
    })
    expect(attentions!.map(({ shape }) => shape)).toEqual([
      [1, 2, 3, 3],
      [1, 2, 3, 3],
    ])
    expect(hiddenStates!.length).toBe(3)
    const rows = attentions![0]!.arraySync() as number[][][][]
    expect(rows[0]![0]![0]).toEqual([1, 0, 0])
    for (const row of rows[0]![1]!) expect(row.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 5)
  })

  it('takes positions from the batch', async () => {
    const model = new models.GPT(config)
    const inputIds = ids([[1, 2, 3]])
    const [a, b] = [model.forward({ inputIds }), model.forward({ inputIds, positionIds: ids([[0, 1, 2]]) })]
    await expectClose(a.logits, b.logits, { rtol: 1e-6, atol: 1e-7 })
    const shifted = model.forward({ inputIds, positionIds: ids([[4, 5, 6]]) })
    expect(String(await shifted.logits.data())).not.toBe(String(await a.logits.data()))
  })

  it('calls hooks of layers that are otherwise fused', () => {
    const model = new models.GPT(config)
    const seen: string[] = []
    const { mlp } = model.transformer.h.at(0)
    mlp.c_fc.registerForwardHook(() => void seen.push('c_fc'))
    mlp.act.registerForwardHook(() => void seen.push('act'))
    model.forward({ inputIds: ids([[1, 2]]) })
    expect(seen).toEqual(['c_fc', 'act'])
  })

  it('releases what a step made, and keeps logits readable after backward', async () => {
    const model = new models.GPT(config)
    const { loss, logits } = model.forward({ inputIds: ids([[1, 2, 3]]), labels: ids([[1, 2, 3]]) })
    loss.backward()
    expect((await logits.data()).length).toBe(3 * 23)
  })

  it('writes a folder that it reads again', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'gradus-gpt-'))
    try {
      const model = new models.GPT({ ...config, activation: 'relu', eosTokenId: 5, tieWeights: false }).eval()
      await model.savePretrained(folder)
      expect(JSON.parse(await readFile(join(folder, 'config.json'), 'utf8')).n_embd).toBe(8)
      const again = await models.GPT.fromPretrained(folder)
      expect(again.config).toEqual(model.config)
      expect(again.training).toBe(false)
      const inputIds = ids([[1, 2, 3]])
      await expectClose(again.forward({ inputIds }).logits, model.forward({ inputIds }).logits, exact)
      await expect(models.GPT.fromPretrained(folder, { nEmbd: 16, nHead: 2 })).rejects.toThrow('has another shape')
      await expect(models.GPT.fromPretrained(folder, { nLayer: 3 })).rejects.toThrow('lacks weights')
    } finally {
      await rm(folder, { recursive: true })
    }
    await expect(models.GPT.fromPretrained(folder)).rejects.toThrow('the file cannot be read')
  })

  it('says what does not fit', () => {
    const model = new models.GPT(config)
    expect(() => new models.GPT({ ...config, nHead: 3 })).toThrow(
      'GPT: the heads do not divide the width: got nEmbd 8 and nHead 3, expected nEmbd to be a multiple of nHead.',
    )
    expect(() => new models.GPT({ ...config, activation: 'mish' as never })).toThrow('the activation is not known')
    expect(() => model.forward(ids([[1]]) as never)).toThrow('GPT: the batch has no inputIds: got a tensor [1, 1]')
    expect(() => model.forward({ inputIds: zeros([1, 2]) })).toThrow(DTypeError)
    expect(() => model.forward({ inputIds: ids([[1, 2]]), labels: ids([[1]]) })).toThrow(ShapeError)
    expect(() => model.forward({ inputIds: ids([[1, 2]]), attentionMask: ids([[1]]) })).toThrow('attentionMask')
    expect(() => model.forward({ inputIds: zeros([1, 17], { dtype: 'int64' }) })).toThrow(
      'GPT: the text is longer than the model can look at: got 17 tokens, expected at most blockSize 16.',
    )
    expect(() => model.forward(null as never)).toThrow(ArgumentError)
    const inputIds = ids([[1, 2]])
    expect(() => model.forward({ inputIds, attentionMask: [1, 1] as never })).toThrow('attentionMask is not a tensor')
    expect(() => model.forward({ inputIds, labels: 7 as never })).toThrow('labels is not a tensor')
  })

  it("names the field that has Python's spelling", () => {
    const model = new models.GPT(config)
    const inputIds = ids([[1, 2]])
    expect(() => model.forward({ inputIds, attention_mask: inputIds } as never)).toThrow(
      'GPT: unknown option: got attention_mask, expected inputIds, attentionMask, labels, positionIds, outputAttentions, outputHiddenStates, returnLogits; write attentionMask.',
    )
    expect(() => model.forward({ input_ids: inputIds } as never)).toThrow('got input_ids')
    expect(() => model.forward({ ids: inputIds } as never)).toThrow(
      'GPT: the batch has no inputIds: got an object with ids, expected { inputIds, attentionMask?, returnLogits?, labels? }',
    )
    expect(model.forward({ inputIds, source: 'book' } as never)).toHaveProperty('logits')
    const bert = new models.BERT({
      head: 'none',
      hiddenSize: 4,
      numHiddenLayers: 1,
      numAttentionHeads: 1,
      vocabSize: 8,
    })
    expect(() => bert.forward({ inputIds, token_type_ids: inputIds } as never)).toThrow('write tokenTypeIds.')
  })

  it('learns with every part of nn around it', async () => {
    const model = new models.GPT({ ...config, dropout: 0.1 })
    nn.init.transformer(model)
    const inputIds = ids([[1, 2, 3, 4, 5, 6, 7, 8]])
    let last = Number.POSITIVE_INFINITY
    for (let step = 0; step < 30; step++) {
      model.zeroGrad()
      const { loss } = model.forward({ inputIds, labels: inputIds })
      loss.backward()
      for (const p of model.parameters()) p.detach().add_(p.grad!, { alpha: -0.5 })
      last = await loss.item()
    }
    expect(last).toBeLessThan(1.5)
  })
})
