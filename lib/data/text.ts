// Language-model data from token files that need not fit into memory: a file is nothing but its ids, one after the
// other, as uint16 or uint32 in the machine's (little-endian) order, as nanoGPT writes them.

import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { open, readFile } from 'node:fs/promises'
import { ArgumentError, describeValue, FileError, IndexError, StateError } from '../errors'
import { fileError, writeAtomically, writeFully } from '../io/atomic'
import { readOptions } from '../options'
import { Dataset, type SampleContext, type WorkerSpec } from './dataset'
import { checkCount } from './sampler'
import type { Tokenizer } from './tokenizer'

/** Ids in memory. */
export type TokenArray = Uint8Array | Uint16Array | Uint32Array | Int32Array

/** Type of the ids in a token file. */
export type TokenType = 'uint16' | 'uint32'

/** Options of TextDataset. */
export interface TextDatasetOptions {
  /** Tokens of a sample. */
  blockSize: number
  /** 'same': labels are the inputs, for models that shift them (models.GPT). 'shifted': label t is input t + 1, which
   *  reads one token more. Default 'same'. */
  labels?: 'same' | 'shifted'
  /** 'sequential': sample i begins at i * stride. 'random': wherever the pass's seed says. Default 'sequential'. */
  windows?: 'sequential' | 'random'
  /** From one sequential window to the next. Default blockSize. */
  stride?: number
  /** Samples in a pass of random windows. Default: tokens / blockSize. */
  length?: number
  /** Type of the ids in a file. Default 'uint16'. */
  dtype?: TokenType
  /** First token to use. Default 0. */
  start?: number
  /** Token behind the last to use, so that one file can hold training and validation text. Default: all. */
  end?: number
  /** Ids must be below. Default: not checked here (an embedding checks again). */
  vocabSize?: number
}

/** A sample: int32 [blockSize] both. */
export interface TextSample {
  inputIds: Int32Array
  labels: Int32Array
}

const optionNames = [
  'blockSize',
  'labels',
  'windows',
  'stride',
  'length',
  'dtype',
  'start',
  'end',
  'vocabSize',
] as const satisfies readonly (keyof TextDatasetOptions)[]

const isTokenArray = (source: unknown): source is TokenArray =>
  [Uint8Array, Uint16Array, Uint32Array, Int32Array].some((type) => source instanceof type)

const itemBytes = { uint16: 2, uint32: 4 } as const

// Files are closed with their datasets: a thread that ends closes its own, and this closes those of forgotten datasets.
const forgotten = new FinalizationRegistry<{ fd: number }>(({ fd }) => {
  if (fd >= 0) closeSync(fd)
})

/** Windows of a token file (or of ids in memory).
 *  @throws FileError when the file is missing, cut in a token or shorter than a window; IndexError for an id that is not
 *  below vocabSize, with its position
 *  @example
 *  const train = new data.TextDataset('train.bin', { blockSize: 256, windows: 'random' })
 *  const loader = new data.DataLoader(train, { batchSize: 32, numWorkers: 2 }) */
export class TextDataset extends Dataset<TextSample> {
  readonly length: number
  /** Tokens that are used. */
  readonly tokens: number
  private readonly file = { fd: -1 }
  private readonly itemBytes: number
  private readonly start: number
  private readonly window: number

  constructor(
    private readonly source: string | TokenArray,
    private readonly options: TextDatasetOptions,
  ) {
    super()
    const op = 'TextDataset'
    readOptions(op, options, optionNames)
    const { blockSize, labels = 'same', windows = 'sequential', dtype = 'uint16', start = 0 } = options
    if (typeof source !== 'string' && !isTokenArray(source)) {
      throw new ArgumentError(op, {
        problem: 'not a source of tokens',
        got: describeValue(source),
        expected: 'the path of a token file, or a Uint8Array, Uint16Array, Uint32Array or Int32Array',
      })
    }
    checkCount(op, 'blockSize', blockSize)
    checkChoice('labels', labels, ['same', 'shifted'])
    checkChoice('windows', windows, ['sequential', 'random'])
    checkChoice('dtype', dtype, ['uint16', 'uint32'])
    const stride = options.stride ?? blockSize
    checkCount(op, 'stride', stride)
    checkCount(op, 'start', start, 0)
    this.itemBytes = itemBytes[dtype]
    this.window = blockSize + (labels === 'shifted' ? 1 : 0)
    const total = typeof source === 'string' ? this.open(source) : source.length
    const end = options.end ?? total
    checkCount(op, 'end', end, 0)
    this.start = start
    this.tokens = Math.min(end, total) - start
    if (this.tokens < this.window || end > total) {
      this.close()
      throw new ArgumentError(op, {
        problem: end > total ? 'end is behind the text' : 'the text is shorter than a window',
        got: end > total ? `end ${end}` : `${Math.max(0, this.tokens)} tokens`,
        expected: end > total ? `at most ${total} tokens` : `at least ${this.window}`,
        action: end > total ? 'check the dtype of the file' : 'take more text or a smaller blockSize',
      })
    }
    const whole = Math.floor(this.tokens / blockSize)
    const sequential = Math.floor((this.tokens - this.window) / stride) + 1
    if (options.length !== undefined) checkCount(op, 'length', options.length)
    this.length = windows === 'random' ? (options.length ?? whole) : sequential
  }

  get(index: number, context: SampleContext): TextSample {
    if (!(Number.isInteger(index) && index >= 0 && index < this.length)) {
      throw new IndexError('TextDataset', {
        problem: 'no such sample',
        got: describeValue(index),
        expected: `0 to ${this.length - 1}`,
      })
    }
    const { blockSize, stride = blockSize, labels, windows } = this.options
    const first = windows === 'random' ? context.random.integer(this.tokens - this.window + 1) : index * stride
    const ids = this.read(this.start + first)
    const inputIds = ids.subarray(0, blockSize)
    return { inputIds, labels: labels === 'shifted' ? ids.subarray(1) : inputIds }
  }

  override toWorker(): WorkerSpec {
    return { module: __filename, name: 'TextDataset', args: [this.source, this.options] }
  }

  /** Closes the file; a later `get` is an error. */
  close(): void {
    if (this.file.fd < 0) return
    closeSync(this.file.fd)
    this.file.fd = -1
    forgotten.unregister(this)
  }

  private open(path: string): number {
    let size: number
    try {
      this.file.fd = openSync(path, 'r')
      forgotten.register(this, this.file, this)
      const stats = fstatSync(this.file.fd)
      if (stats.isDirectory()) throw Object.assign(new Error('a folder'), { code: 'EISDIR' })
      size = stats.size
    } catch (error) {
      this.close()
      throw fileError('TextDataset', `cannot read ${path}`, error)
    }
    if (size % this.itemBytes === 0) return size / this.itemBytes
    this.close()
    throw new FileError('TextDataset', {
      problem: `${path} ends inside a token`,
      got: `${size} bytes`,
      expected: `a multiple of ${this.itemBytes}`,
      action: 'check the dtype, or write the file again',
    })
  }

  private read(first: number): Int32Array {
    const stored =
      typeof this.source === 'string' ? this.readFile(first) : this.source.subarray(first, first + this.window)
    const { vocabSize = 2 ** 31 } = this.options
    for (let i = 0; i < stored.length; i++) {
      if (stored[i]! < vocabSize && stored[i]! >= 0) continue
      throw new IndexError('TextDataset', {
        problem: `token ${first + i} is not in the vocabulary`,
        got: `${stored[i]}`,
        expected: `0 to ${vocabSize - 1}`,
        action: 'check the dtype of the file and its tokenizer',
      })
    }
    return Int32Array.from(stored)
  }

  private readFile(first: number): Uint16Array | Uint32Array {
    if (this.file.fd < 0) throw new StateError('TextDataset', { problem: `${this.source} is closed` })
    const bytes = new Uint8Array(this.window * this.itemBytes)
    const position = first * this.itemBytes
    let read = 0
    try {
      read = readSync(this.file.fd, bytes, 0, bytes.byteLength, position)
    } catch (error) {
      throw fileError('TextDataset', `cannot read ${this.source}`, error)
    }
    if (read < bytes.byteLength) {
      throw new FileError('TextDataset', {
        problem: `${this.source} was truncated after it was opened`,
        got: `${read} bytes at byte ${position}`,
        expected: `${bytes.byteLength}`,
      })
    }
    return this.itemBytes === 2 ? new Uint16Array(bytes.buffer) : new Uint32Array(bytes.buffer)
  }
}

function checkChoice(name: string, value: string, choices: readonly string[]): void {
  if (choices.includes(value)) return
  throw new ArgumentError('TextDataset', {
    problem: `unknown ${name}`,
    got: describeValue(value),
    expected: choices.map((choice) => `'${choice}'`).join(' or '),
  })
}

function checkText(op: string, path: string, decode: () => string, position: number): string {
  let text: string | undefined
  try {
    text = decode()
  } catch {
    text = undefined
  }
  const zero = text?.indexOf('\0') ?? -1
  if (text !== undefined && zero < 0) return text
  throw new FileError(op, {
    problem: `${path} is no text`,
    got: text === undefined ? `bytes that are not UTF-8 after byte ${position}` : `a zero byte after byte ${position}`,
    expected: 'UTF-8',
    action: 'convert it, or name another file',
  })
}

/** Reads a text file whole. @throws FileError when it is missing, or binary */
export async function readText(path: string): Promise<string> {
  let bytes: Uint8Array
  try {
    bytes = await readFile(path)
  } catch (error) {
    throw fileError('readText', `cannot read ${path}`, error)
  }
  return checkText('readText', path, () => new TextDecoder('utf-8', { fatal: true }).decode(bytes), 0)
}

/** Where a text can be cut so that both halves give the tokens of the whole: before white space that follows something
 *  else, because the words of byte-level BPE begin with their space. 0 when there is no such place. */
function lastBoundary(text: string): number {
  for (let i = text.length - 1; i > 0; i--) if (/\s/.test(text[i]!) && /\S/.test(text[i - 1]!)) return i
  return 0
}

/** Writes the ids of a text file of any size to a token file, piece by piece.
 *  @returns how many tokens there are, and their type: uint16 when the vocabulary fits
 *  @throws FileError when the text is missing or binary, or the file cannot be written
 *  @example const { dtype } = await data.tokenizeFile('book.txt', tokenizer, 'book.bin') */
export async function tokenizeFile(
  textPath: string,
  tokenizer: Pick<Tokenizer, 'encode' | 'vocabSize'>,
  tokenPath: string,
): Promise<{ tokens: number; dtype: TokenType }> {
  const op = 'tokenizeFile'
  const dtype: TokenType = tokenizer.vocabSize <= 2 ** 16 ? 'uint16' : 'uint32'
  const source = await open(textPath, 'r').catch((error) => {
    throw fileError(op, `cannot read ${textPath}`, error)
  })
  const decoder = new TextDecoder('utf-8', { fatal: true })
  const piece = new Uint8Array(2 ** 20)
  let tokens = 0
  try {
    await writeAtomically(op, tokenPath, async (target) => {
      const write = async (text: string) => {
        const ids = text === '' ? new Int32Array(0) : tokenizer.encode(text)
        const stored = dtype === 'uint16' ? Uint16Array.from(ids) : Uint32Array.from(ids)
        tokens += stored.length
        await writeFully(target, new Uint8Array(stored.buffer))
      }
      let rest = ''
      for (let position = 0; ; ) {
        const { bytesRead } = await source.read(piece, 0, piece.byteLength, position)
        const last = bytesRead === 0
        const decode = () => decoder.decode(piece.subarray(0, bytesRead), { stream: !last })
        rest += checkText(op, textPath, decode, position)
        if (last) break
        position += bytesRead
        const cut = lastBoundary(rest)
        await write(rest.slice(0, cut))
        rest = rest.slice(cut)
      }
      await write(rest)
    })
  } finally {
    await source.close()
  }
  return { tokens, dtype }
}
