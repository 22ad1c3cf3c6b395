import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { sampleContext } from '../../lib/data/fetch'
import {
  BpeTokenizer,
  ByteTokenizer,
  CharTokenizer,
  DataLoader,
  readText,
  TextDataset,
  tokenizeFile,
} from '../../lib/data/index'
import { ArgumentError, FileError, IndexError, type Tensor } from '../../lib/index'

const folder = mkdtempSync(join(tmpdir(), 'gradus-text-'))
afterAll(() => rmSync(folder, { recursive: true }))

const counting = Uint16Array.from({ length: 103 }, (_, i) => i)
const file = join(folder, 'counting.bin')
writeFileSync(file, counting)

const context = (index: number) => sampleContext({ seed: 1, epoch: 0 }, index)
const read = (dataset: TextDataset, index: number) => {
  const { inputIds, labels } = dataset.get(index, context(index))
  return [Array.from(inputIds), Array.from(labels)]
}

describe.each([
  ['a file', file],
  ['memory', counting],
])('TextDataset of %s', (_, source) => {
  it('cuts the text into windows, labels the same or shifted', () => {
    const same = new TextDataset(source, { blockSize: 10 })
    expect([same.length, same.tokens]).toEqual([10, 103])
    expect(read(same, 9)).toEqual([
      [90, 91, 92, 93, 94, 95, 96, 97, 98, 99],
      [90, 91, 92, 93, 94, 95, 96, 97, 98, 99],
    ])
    const shifted = new TextDataset(source, { blockSize: 4, labels: 'shifted', stride: 3 })
    expect(shifted.length).toBe(33)
    expect(read(shifted, 32)).toEqual([
      [96, 97, 98, 99],
      [97, 98, 99, 100],
    ])
  })

  it('uses a part of the text', () => {
    const part = new TextDataset(source, { blockSize: 5, start: 90, end: 100 })
    expect(part.length).toBe(2)
    expect(read(part, 1)[0]).toEqual([95, 96, 97, 98, 99])
  })

  it('random windows come from the whole text, the same for the same seed', () => {
    const dataset = new TextDataset(source, { blockSize: 3, windows: 'random', labels: 'shifted', length: 2000 })
    const starts = Array.from({ length: 2000 }, (_, i) => read(dataset, i)[0]![0]!)
    expect(new Set(starts).size).toBe(100)
    expect([Math.min(...starts), Math.max(...starts)]).toEqual([0, 99])
    expect(read(dataset, 7)).toEqual(read(dataset, 7))
    expect(new TextDataset(source, { blockSize: 25, windows: 'random' }).length).toBe(4)
  })

  it('names a token that is not in the vocabulary', () => {
    const dataset = new TextDataset(source, { blockSize: 10, vocabSize: 25 })
    expect(read(dataset, 1)[0]![9]).toBe(19)
    expect(() => read(dataset, 2)).toThrow(IndexError)
    expect(() => read(dataset, 2)).toThrow('TextDataset: token 25 is not in the vocabulary: got 25, expected 0 to 24')
  })

  it('refuses options that cannot be', () => {
    const make = (options: object) => () => new TextDataset(source, { blockSize: 10, ...options })
    expect(make({ blockSize: 0 })).toThrow('blockSize is out of range: got 0')
    expect(make({ blockSize: 104 })).toThrow('the text is shorter than a window: got 103 tokens, expected at least 104')
    expect(make({ blockSize: 103, labels: 'shifted' })).toThrow('got 103 tokens, expected at least 104')
    expect(make({ end: 104 })).toThrow('end is behind the text: got end 104, expected at most 103 tokens')
    expect(make({ start: 200 })).toThrow('got 0 tokens')
    expect(make({ stride: 0 })).toThrow('stride is out of range')
    expect(make({ labels: 'next' })).toThrow("unknown labels: got \"next\", expected 'same' or 'shifted'")
    expect(make({ dtype: 'int8' })).toThrow('unknown dtype')
  })

  it('reads in workers what it reads here', async () => {
    const dataset = new TextDataset(source, { blockSize: 8, windows: 'random', length: 12 })
    const collect = async (numWorkers: number) => {
      const rows = []
      for await (const { inputIds } of new DataLoader(dataset, { batchSize: 4, shuffle: true, seed: 2, numWorkers })) {
        expect([inputIds.dtype, inputIds.shape]).toEqual(['int32', [4, 8]])
        rows.push(await (inputIds as Tensor).array())
      }
      return rows
    }
    expect(await collect(2)).toEqual(await collect(0))
  })
})

describe('token files', () => {
  it('reads uint32', () => {
    const path = join(folder, 'wide.bin')
    writeFileSync(path, Uint32Array.of(70_000, 2, 3, 2 ** 31))
    const dataset = new TextDataset(path, { blockSize: 3, dtype: 'uint32', stride: 1 })
    expect(read(dataset, 0)[0]).toEqual([70_000, 2, 3])
    expect(() => read(dataset, 1)).toThrow(IndexError)
  })

  it('refuses files that are missing, cut or closed', () => {
    expect(() => new TextDataset(join(folder, 'none.bin'), { blockSize: 2 })).toThrow(
      /TextDataset: cannot read .*none\.bin: got ENOENT/,
    )
    const path = join(folder, 'cut.bin')
    writeFileSync(path, new Uint8Array(41))
    expect(() => new TextDataset(path, { blockSize: 2 })).toThrow(
      /ends inside a token: got 41 bytes, expected a multiple of 2/,
    )
    writeFileSync(path, new Uint8Array(40))
    const dataset = new TextDataset(path, { blockSize: 5 })
    truncateSync(path, 32)
    expect(read(dataset, 0)[0]).toEqual([0, 0, 0, 0, 0])
    expect(() => read(dataset, 3)).toThrow(/was truncated after it was opened: got 2 bytes at byte 30, expected 10/)
    dataset.close()
    dataset.close()
    expect(() => read(dataset, 0)).toThrow(/cut\.bin is closed/)
  })
})

describe('tokenizeFile', () => {
  const text = `${'Call me Ishmael.  Some\n\n years ago — never mind how long 😀 '.repeat(40_000)}\n`
  const path = join(folder, 'book.txt')
  writeFileSync(path, text)

  it('gives the ids of the whole text, piece by piece', async () => {
    const bpe = BpeTokenizer.train(text.slice(0, 600), { vocabSize: 300 })
    for (const tokenizer of [new ByteTokenizer(), CharTokenizer.fromText(text), bpe]) {
      const target = join(folder, 'book.bin')
      const { tokens, dtype } = await tokenizeFile(path, tokenizer, target)
      const expected = Uint16Array.from(tokenizer.encode(text))
      expect([tokens, dtype]).toEqual([expected.length, 'uint16'])
      expect(readFileSync(target).equals(new Uint8Array(expected.buffer))).toBe(true)
    }
  })

  it('writes uint32 for a large vocabulary', async () => {
    const large = { vocabSize: 2 ** 16 + 1, encode: (part: string) => new Int32Array(part.length).fill(2 ** 16) }
    const small = join(folder, 'small.txt')
    writeFileSync(small, 'abc')
    expect(await tokenizeFile(small, large, join(folder, 'large.bin'))).toEqual({ tokens: 3, dtype: 'uint32' })
    expect(read(new TextDataset(join(folder, 'large.bin'), { blockSize: 3, dtype: 'uint32' }), 0)[0]).toEqual([
      65536, 65536, 65536,
    ])
  })

  it('refuses a binary or missing text and leaves the old tokens', async () => {
    const target = join(folder, 'kept.bin')
    writeFileSync(target, 'old')
    const binary = join(folder, 'binary')
    for (const [content, got] of [
      [Uint8Array.of(97, 0, 98), 'a zero byte after byte 0'],
      [Uint8Array.of(97, 0xff), 'bytes that are not UTF-8 after byte 0'],
      [Uint8Array.of(97, 0xc3), 'bytes that are not UTF-8 after byte'],
    ] as const) {
      writeFileSync(binary, content)
      await expect(tokenizeFile(binary, new ByteTokenizer(), target)).rejects.toThrow(
        `${binary} is no text: got ${got}`,
      )
      await expect(readText(binary)).rejects.toThrow(FileError)
    }
    await expect(tokenizeFile(join(folder, 'none'), new ByteTokenizer(), target)).rejects.toThrow(FileError)
    await expect(readText(folder)).rejects.toThrow(FileError)
    await expect(readText(join(folder, 'none'))).rejects.toThrow('got ENOENT; check the path.')
    expect(readFileSync(target, 'utf8')).toBe('old')
    expect(await readText(path)).toBe(text)
  })

  it('an empty text has no tokens, and no window', async () => {
    const empty = join(folder, 'empty.txt')
    writeFileSync(empty, '')
    expect(await tokenizeFile(empty, new ByteTokenizer(), join(folder, 'empty.bin'))).toEqual({
      tokens: 0,
      dtype: 'uint16',
    })
    expect(() => new TextDataset(join(folder, 'empty.bin'), { blockSize: 1 })).toThrow(ArgumentError)
  })
})

describe('TextDataset refuses', () => {
  it('folders, foreign sources and samples out of range', () => {
    expect(() => new TextDataset(folder, { blockSize: 8 })).toThrow(FileError)
    expect(() => new TextDataset(5 as never, { blockSize: 8 })).toThrow(
      'TextDataset: not a source of tokens: got 5, expected the path of a token file, or a Uint8Array, Uint16Array, Uint32Array or Int32Array.',
    )
    const dataset = new TextDataset(file, { blockSize: 8 })
    for (const index of [-1, 12, 1.5, Number.NaN]) {
      expect(() => dataset.get(index, context(0))).toThrow(IndexError)
    }
    expect(() => dataset.get(12, context(0))).toThrow('TextDataset: no such sample: got 12, expected 0 to 11.')
  })
})
