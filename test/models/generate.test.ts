import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { ArgumentError, IndexError, memory, models, type Tensor, tensor } from '../../lib/index'
import { goldenTensors } from '../support/golden'

const ids = (rows: number[][]): Tensor => tensor(rows, { dtype: 'int64' })
const folder = join(__dirname, '..', 'fixtures', 'models', 'gpt2')
const tiny = (): models.GPT =>
  new models.GPT({ vocabSize: 11, blockSize: 12, nLayer: 2, nHead: 2, nEmbd: 8, initializerRange: 0.6 })

/** The same without a cache: the whole text is read again for every token. */
async function slowly(model: models.GPT, prompt: number[], n: number): Promise<number[]> {
  const text = [...prompt]
  for (let i = 0; i < n; i++) {
    const rows = (await model.forward({ inputIds: ids([text]) }).logits.array()) as number[][][]
    const last = rows[0]!.at(-1)!
    text.push(last.indexOf(Math.max(...last)))
  }
  return text
}

describe('generate', () => {
  it('decodes greedily as transformers does, also with padding on the left', async () => {
    const model = await models.GPT.fromPretrained(folder)
    const stored = await goldenTensors('models/gpt2/io.safetensors')
    const greedy = { maxNewTokens: 12, eosTokenId: null }
    const one = await model.generate(stored['in/generate_prompt']!, greedy)
    expect(await one.array()).toEqual(await stored['out/generate']!.array())
    const two = await model.generate(stored['in/generate_leftpad_prompt']!, {
      ...greedy,
      attentionMask: stored['in/generate_leftpad_mask']!,
    })
    expect(await two.array()).toEqual(await stored['out/generate_leftpad']!.array())
  })

  it('writes with its cache what it would write without one', async () => {
    const model = tiny().eval()
    expect(await (await model.generate([1, 2, 3], { maxNewTokens: 9 })).array()).toEqual([
      await slowly(model, [1, 2, 3], 9),
    ])
  })

  it('goes on beyond blockSize with the later half of what it wrote', async () => {
    const model = tiny()
    const text = (await (await model.generate([1], { maxNewTokens: 40 })).array()) as number[][]
    expect(text[0]!.length).toBe(41)
    const again = (await (await model.generate([1], { maxNewTokens: 40 })).array()) as number[][]
    expect(again).toEqual(text)
  })

  it('samples by seed, from the likeliest only when told so', async () => {
    const model = tiny()
    const write = async (options: models.GenerateOptions): Promise<number[]> =>
      ((await (await model.generate([1, 2], { maxNewTokens: 10, ...options })).array()) as number[][])[0]!
    const greedy = await write({})
    expect(await write({ topK: 1, seed: 5 })).toEqual(greedy)
    expect(await write({ topP: 1e-6, seed: 5 })).toEqual(greedy)
    expect(await write({ temperature: 0 })).toEqual(greedy)
    expect(await write({ temperature: 1e-3, seed: 1 })).toEqual(greedy)
    const drawn = await write({ temperature: 3, seed: 7 })
    expect(await write({ temperature: 3, seed: 7 })).toEqual(drawn)
    expect(await write({ temperature: 3, seed: 8 })).not.toEqual(drawn)
  })

  it('takes a temperature near 0 for what it tends to, and only a tensor for a mask', async () => {
    const model = new models.GPT({ vocabSize: 11, nLayer: 1, nHead: 1, nEmbd: 8, blockSize: 8, dropout: 0 })
    const write = async (options: models.GenerateOptions) =>
      (await model.generate([1, 2], { maxNewTokens: 5, ...options })).array()
    const likeliest = await write({ temperature: 0 })
    for (const temperature of [1e-20, 1e-31, 1e-40, Number.MIN_VALUE]) {
      for (const more of [{}, { topK: 3 }, { topP: 0.5 }])
        expect(await write({ temperature, ...more })).toEqual(likeliest)
    }
    await expect(write({ attentionMask: [[1, 1]] as never })).rejects.toThrow(
      expect.objectContaining({ code: 'ERR_GRADUS_DTYPE', message: expect.stringContaining('attentionMask') }),
    )
  })

  it('draws each token as often as its probability says, with topK and topP', async () => {
    const model = tiny()
    const rows = Array.from({ length: 500 }, () => [4])
    const logits = (await model
      .eval()
      .forward({ inputIds: ids([[4]]) })
      .logits.array()) as number[][][]
    const exps = logits[0]![0]!.map((v) => Math.exp(v))
    const order = exps.map((_, i) => i).sort((a, b) => exps[b]! - exps[a]!)
    const count = async (options: models.GenerateOptions): Promise<Map<number, number>> => {
      const counts = new Map<number, number>()
      for (let seed = 0; seed < 8; seed++) {
        const out = (await (await model.generate(rows, { maxNewTokens: 1, seed, ...options })).array()) as number[][]
        for (const row of out) counts.set(row[1]!, (counts.get(row[1]!) ?? 0) + 1 / 4000)
      }
      return counts
    }
    const expectShares = (counts: Map<number, number>, allowed: number[]): void => {
      const total = allowed.reduce((sum, i) => sum + exps[i]!, 0)
      expect([...counts.keys()].every((token) => allowed.includes(token))).toBe(true)
      // five standard deviations of a share over 4,000 draws
      for (const i of allowed) expect(Math.abs((counts.get(i) ?? 0) - exps[i]! / total)).toBeLessThan(0.04)
    }
    expectShares(await count({}), order)
    expectShares(await count({ topK: 3 }), order.slice(0, 3))
    const share = (n: number): number =>
      order.slice(0, n).reduce((sum, i) => sum + exps[i]!, 0) / exps.reduce((a, b) => a + b, 0)
    expectShares(await count({ topP: (share(2) + share(3)) / 2 }), order.slice(0, 3))
  })

  it('streams tokens, stops at the end token, and pads what ended early', async () => {
    const model = tiny()
    const [text] = (await (await model.generate([3, 1], { maxNewTokens: 8 })).array()) as [number[]]
    const eosTokenId = text[4]!
    const tokens: number[] = []
    for await (const [token] of model.stream([3, 1], { maxNewTokens: 8, eosTokenId })) tokens.push(token!)
    const end = text.indexOf(eosTokenId, 2)
    expect(tokens).toEqual(text.slice(2, end + 1))
    const both = (await (
      await model.generate([text.slice(0, 2), [5, 6]], { maxNewTokens: 8, eosTokenId, padTokenId: 9 })
    ).array()) as number[][]
    expect(both[0]!.slice(end + 1).every((token) => token === 9)).toBe(true)
  })

  it('leaves the mode of the model and no memory behind', async () => {
    const model = new models.GPT({ vocabSize: 11, blockSize: 12, nLayer: 1, nHead: 1, nEmbd: 8, dropout: 0.5 })
    model.transformer.drop.eval()
    const first = await (await model.generate([1], { maxNewTokens: 3 })).array()
    const before = memory.tensors()
    for (let i = 0; i < 5; i++) {
      const out = await model.generate([1], { maxNewTokens: 3 })
      expect(await out.array()).toEqual(first) // dropout is off while it writes
      out.dispose()
    }
    expect(memory.tensors()).toBeLessThanOrEqual(before)
    expect([model.training, model.transformer.drop.training]).toEqual([true, false])
    for await (const _ of model.stream([1], { maxNewTokens: 5 })) break
    expect(memory.tensors()).toBeLessThanOrEqual(before)
  })

  it('stops when aborted', async () => {
    const controller = new AbortController()
    const tokens: number[][] = []
    const read = async (): Promise<void> => {
      for await (const token of tiny().stream([1], { maxNewTokens: 5, signal: controller.signal })) {
        tokens.push(token)
        controller.abort()
      }
    }
    await expect(read()).rejects.toThrow('abort')
    expect(tokens.length).toBe(1)
  })

  it('says what makes no sense', async () => {
    const model = tiny()
    await expect(model.generate([])).rejects.toThrow(ArgumentError)
    await expect(model.generate([[1, 2], [3]])).rejects.toThrow('arrays of tokens of one length')
    await expect(model.generate([1], { topP: 0 })).rejects.toThrow(
      'generate: topP makes no sense: got 0, expected a number above 0 and up to 1.',
    )
    await expect(model.generate([1], { temperature: -1 })).rejects.toThrow('temperature')
    await expect(model.generate([1], { maxNewTokens: 1.5 })).rejects.toThrow('maxNewTokens')
    await expect(model.generate(Array(13).fill(1))).rejects.toThrow(IndexError)
    await expect(model.generate([99])).rejects.toThrow(IndexError)
    await expect(model.generate([1, 2], { attentionMask: ids([[1, 0]]) })).rejects.toThrow('not padded on the left')
  })
})
