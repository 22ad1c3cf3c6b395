import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { BpeTokenizer, ByteTokenizer, CharTokenizer, loadTokenizer, StreamDecoder } from '../../lib/data/index'
import { ArgumentError, FileError, IndexError, tensor } from '../../lib/index'

const fixtures = join(__dirname, '../fixtures/bpe')
const excerpt = readFileSync(join(fixtures, 'excerpt.txt'), 'utf8')
// Trained and encoded by Hugging Face's tokenizers for Python on the excerpt.
const golden = JSON.parse(readFileSync(join(fixtures, 'trained.json'), 'utf8')) as {
  vocab: Record<string, number>
  merges: [string, string][]
  cases: { text: string; ids: number[]; decoded: string }[]
  excerptTokens: number
  excerptHead: number[]
}
const folder = mkdtempSync(join(tmpdir(), 'gradus-tokenizer-'))
afterAll(() => rmSync(folder, { recursive: true }))

const strange = 'naïve 😀 “x”\t\n\r e\u0301 \u{10ffff}'

describe('BpeTokenizer', () => {
  const tokenizer = BpeTokenizer.train(excerpt, { vocabSize: 600, specialTokens: ['<|endoftext|>'] })
  const json = tokenizer.toJson() as { model: { vocab: object; merges: unknown } }

  it('learns the merges and ids that the reference learns', () => {
    expect(json.model.merges).toEqual(golden.merges)
    expect(json.model.vocab).toEqual(golden.vocab)
    expect(tokenizer.vocabSize).toBe(600)
  })

  it('encodes and decodes as the reference', () => {
    for (const { text, ids, decoded } of golden.cases) {
      expect(Array.from(tokenizer.encode(text))).toEqual(ids)
      expect(tokenizer.decode(ids)).toBe(decoded)
    }
    const ids = tokenizer.encode(excerpt)
    expect([ids.length, Array.from(ids.subarray(0, 50))]).toEqual([golden.excerptTokens, golden.excerptHead])
    expect(tokenizer.decode(ids)).toBe(excerpt)
  })

  it('gives back any text, and special tokens on request', () => {
    expect(tokenizer.decode(tokenizer.encode(strange))).toBe(strange)
    const ids = tokenizer.encode('<|endoftext|>a')
    expect(ids[0]).toBe(tokenizer.tokenToId('<|endoftext|>'))
    expect(tokenizer.idToToken(0)).toBe('<|endoftext|>')
    expect(tokenizer.decode(ids, { skipSpecialTokens: false })).toBe('<|endoftext|>a')
    expect(tokenizer.decode([])).toBe('')
  })

  it('saves a tokenizer.json and loads it', async () => {
    const path = join(folder, 'tokenizer.json')
    await tokenizer.save(path)
    const loaded = await BpeTokenizer.load(path)
    expect(loaded.encode(excerpt)).toEqual(tokenizer.encode(excerpt))
    expect(BpeTokenizer.fromJson(tokenizer.toJson()).vocabSize).toBe(600)
  })

  it('counts documents apart and stops when no pair is frequent', () => {
    const merges = (texts: Iterable<string>, minFrequency?: number) =>
      (BpeTokenizer.train(texts, { vocabSize: 300, ...(minFrequency && { minFrequency }) }).toJson() as typeof json)
        .model.merges
    expect(merges(['ab', 'ab', 'cd'])).toEqual([['a', 'b']])
    expect(merges('abababab ab')).toEqual([
      ['a', 'b'],
      ['ab', 'ab'],
    ])
    expect(merges(['ab', 'ab', 'cd'], 3)).toEqual([])
    expect(merges([])).toEqual([])
  })

  it('refuses a vocabulary that is too small, ids that are not in it, files that are none', async () => {
    expect(() => BpeTokenizer.train('a', { vocabSize: 256, specialTokens: ['<s>'] })).toThrow(
      'BpeTokenizer.train: vocabSize is out of range: got 256, expected 257 (256 bytes and 1 special tokens) to 16777216.',
    )
    expect(() => tokenizer.decode([1, 600])).toThrow(
      'id at position 1 is not in the vocabulary: got 600, expected 0 to 599.',
    )
    expect(() => tokenizer.encode(5 as never)).toThrow(ArgumentError)
    expect(() => BpeTokenizer.fromJson({})).toThrow(ArgumentError)
    writeFileSync(join(folder, 'broken.json'), '{"model":')
    await expect(BpeTokenizer.load(join(folder, 'broken.json'))).rejects.toThrow(FileError)
    await expect(BpeTokenizer.load(join(folder, 'none.json'))).rejects.toThrow('cannot read')
  })
})

describe('a tokenizer of Python', () => {
  it('encodes and decodes as there', () => {
    const golden = (name: string) => JSON.parse(readFileSync(join(__dirname, `../fixtures/tokenizers/${name}`), 'utf8'))
    const tokenizer = BpeTokenizer.fromJson(golden('bpe.json'))
    const { single } = golden('bpe.golden.json') as {
      single: { text: string; ids: number[]; no_special_ids: number[]; decoded: string }[]
    }
    for (const { text, ids, no_special_ids: plain, decoded } of single) {
      expect(Array.from(tokenizer.encode(text))).toEqual(ids)
      expect(Array.from(tokenizer.encode(text, { addSpecialTokens: false }))).toEqual(plain)
      expect(tokenizer.decode(ids)).toBe(decoded)
    }
    expect(single.length).toBeGreaterThan(20)
  })
})

describe('CharTokenizer', () => {
  it('is made of a list of characters', () => {
    for (const wrong of ['abc', null, 3, ['a', 3], { 0: 'a' }]) {
      expect(() => new CharTokenizer(wrong as never)).toThrow('CharTokenizer: not a list of tokens: got ')
    }
  })

  it('has an id for each character of the text, in order', () => {
    const tokenizer = CharTokenizer.fromText('hello 😀')
    expect(tokenizer.vocabSize).toBe(6)
    expect(tokenizer.encode('hole 😀')).toEqual(Int32Array.of(2, 4, 3, 1, 0, 5))
    expect(tokenizer.decode([5, 2, 1n])).toBe('😀he')
    expect([tokenizer.tokenToId('o'), tokenizer.idToToken(5), tokenizer.tokenToId('z')]).toEqual([4, '😀', undefined])
  })

  it('names a character that it does not know, or gives it the unknown token', () => {
    expect(() => CharTokenizer.fromText('abc').encode('abz')).toThrow(IndexError)
    expect(() => CharTokenizer.fromText('abc').encode('abz')).toThrow('character 2 is not in the vocabulary: got "z"')
    const tokenizer = new CharTokenizer(['<unk>', 'a', 'b'], { unkToken: '<unk>' })
    expect(tokenizer.encode('abz')).toEqual(Int32Array.of(1, 2, 0))
    expect(() => tokenizer.decode([3])).toThrow('got 3, expected 0 to 2')
    expect(() => new CharTokenizer(['a', 'a'])).toThrow('token 0 is not a character of its own')
    expect(() => new CharTokenizer(['ab'])).toThrow('token 0 is not a character of its own: got "ab"')
    expect(() => new CharTokenizer(['a'], { unkToken: '?' })).toThrow('unkToken is not a token')
  })
})

describe('ByteTokenizer', () => {
  it('gives the bytes of UTF-8 and back', () => {
    const tokenizer = new ByteTokenizer()
    expect(tokenizer.encode('aé')).toEqual(Int32Array.of(97, 195, 169))
    expect(tokenizer.decode(tokenizer.encode(`\ufeff${strange}`))).toBe(`\ufeff${strange}`)
    expect(tokenizer.decode([195])).toBe('\ufffd')
    expect(() => tokenizer.decode([256])).toThrow('got 256, expected 0 to 255')
    expect([tokenizer.tokenToId('Ġ'), tokenizer.idToToken(32), tokenizer.tokenToId('😀')]).toEqual([32, 'Ġ', undefined])
  })
})

describe('tokenizer.json', () => {
  it('of characters and bytes is run by the library of the format with the same ids', () => {
    const characters = CharTokenizer.fromText(strange)
    expect(BpeTokenizer.fromJson(characters.toJson()).encode(strange)).toEqual(characters.encode(strange))
    expect(BpeTokenizer.fromJson(characters.toJson()).decode(characters.encode(strange))).toBe(strange)
    const bytes = new ByteTokenizer()
    expect(BpeTokenizer.fromJson(bytes.toJson()).encode(strange)).toEqual(bytes.encode(strange))
    expect(BpeTokenizer.fromJson(bytes.toJson()).decode(bytes.encode(strange))).toBe(strange)
  })
})

describe('loadTokenizer', () => {
  it.each([
    ['characters', CharTokenizer.fromText('0189 halo 😀')],
    ['characters with an unknown token', new CharTokenizer(['<unk>', 'b', 'a'], { unkToken: '<unk>' })],
    ['bytes', new ByteTokenizer()],
    ['pairs', BpeTokenizer.train('aaaa aaaa', { vocabSize: 258 })],
    ['no pairs', BpeTokenizer.train('', { vocabSize: 256 })],
  ])('gives back the tokenizer of %s', async (_, tokenizer) => {
    const path = join(folder, 'any.json')
    await tokenizer.save(path)
    const loaded = await loadTokenizer(path)
    expect(loaded.constructor).toBe(tokenizer.constructor)
    expect(loaded.vocabSize).toBe(tokenizer.vocabSize)
    expect(loaded.encode('aa')).toEqual(tokenizer.encode('aa'))
  })
})

describe('StreamDecoder', () => {
  it('gives characters when they are whole', () => {
    const decoder = new StreamDecoder(new ByteTokenizer())
    const ids = new ByteTokenizer().encode('aé😀')
    expect(Array.from(ids, (id) => decoder.push(id))).toEqual(['a', '', 'é', '', '', '', '😀'])
    expect(decoder.push(240)).toBe('')
    expect(decoder.end()).toBe('\ufffd')
    expect(decoder.end()).toBe('')
  })
})

describe('tokenizers refuse', () => {
  const bpe = BpeTokenizer.train('abc', { vocabSize: 256 })
  const char = CharTokenizer.fromText('abc')
  const byte = new ByteTokenizer()

  it('what is no text', () => {
    for (const each of [bpe, char, byte]) {
      for (const text of [5, null, undefined, ['a']]) expect(() => each.encode(text as never)).toThrow(ArgumentError)
    }
    expect(() => char.encode(5 as never)).toThrow('CharTokenizer.encode: not text: got 5, expected a string.')
    expect(() => CharTokenizer.fromText(null as never)).toThrow('CharTokenizer.fromText: not text: got null')
    expect(() => BpeTokenizer.train(null as never, { vocabSize: 300 })).toThrow(
      'BpeTokenizer.train: not text: got null',
    )
    expect(() => BpeTokenizer.train([3] as never, { vocabSize: 300 })).toThrow('BpeTokenizer.train: not text: got 3')
    expect(() => BpeTokenizer.train('a', undefined as never)).toThrow('the options are not an object: got undefined')
  })

  it('what is no list of ids, a tensor above all', () => {
    for (const each of [bpe, char, byte]) {
      for (const ids of [null, 5, tensor([1, 2])]) expect(() => each.decode(ids as never)).toThrow(ArgumentError)
    }
    expect(() => char.decode(tensor([0]) as never)).toThrow(
      'CharTokenizer.decode: not a list of ids: got a Tensor, expected an array or a typed array; of a tensor pass await ids.data().',
    )
  })
})
