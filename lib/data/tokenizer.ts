// Text to numbers and back. All tokenizers are saved as the tokenizer.json of Hugging Face, which Python's `tokenizers`
// and `transformers` load as well.

import { ArgumentError, describeValue, IndexError } from '../errors'
import { writeAtomically, writeFully } from '../io/atomic'
import { byteToChar } from './bytes'

/** Text to token ids and back. */
export interface Tokenizer {
  /** Ids are 0 to `vocabSize - 1`. */
  readonly vocabSize: number
  encode(text: string): Int32Array
  decode(ids: ArrayLike<number | bigint>): string
  tokenToId(token: string): number | undefined
  idToToken(id: number): string | undefined
  /** The content of a tokenizer.json. */
  toJson(): object
  /** Writes a tokenizer.json, atomically. */
  save(path: string): Promise<void>
}

/** @internal */
export async function saveTokenizer(tokenizer: Pick<Tokenizer, 'toJson'>, path: string): Promise<void> {
  const text = `${JSON.stringify(tokenizer.toJson(), null, 2)}\n`
  await writeAtomically('tokenizer.save', path, (file) => writeFully(file, Buffer.from(text)))
}

/** @internal Throws unless the value is a string. */
export function expectText(op: string, text: unknown): asserts text is string {
  if (typeof text === 'string') return
  throw new ArgumentError(op, { problem: 'not text', got: describeValue(text), expected: 'a string' })
}

/** @internal Throws unless the value can be read like an array. */
export function expectIds(op: string, ids: unknown): void {
  if (ids !== null && typeof ids === 'object' && typeof (ids as { length?: unknown }).length === 'number') return
  throw new ArgumentError(op, {
    problem: 'not a list of ids',
    got: describeValue(ids),
    expected: 'an array or a typed array',
    action: 'of a tensor pass await ids.data()',
  })
}

/** @internal An id as a number that is in range. */
export function checkId(op: string, id: unknown, vocabSize: number, position: number): number {
  const value = Number(id)
  if (Number.isInteger(value) && value >= 0 && value < vocabSize) return value
  throw new IndexError(op, {
    problem: `id at position ${position} is not in the vocabulary`,
    got: describeValue(id),
    expected: `0 to ${vocabSize - 1}`,
  })
}

/** @internal A tokenizer.json with a byte-pair model. */
export function bpeJson(
  vocab: Record<string, number>,
  merges: readonly [string, string][],
  parts: object,
  unkToken?: string,
) {
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: [] as object[],
    normalizer: null,
    pre_tokenizer: null,
    post_processor: null,
    decoder: null,
    ...parts,
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: unkToken ?? null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab,
      merges,
    },
  }
}

/** One token a character (Unicode code point).
 *  @example
 *  const tokenizer = data.CharTokenizer.fromText('hello')
 *  tokenizer.encode('hole') // [1, 3, 2, 0] */
export class CharTokenizer implements Tokenizer {
  private readonly ids: Map<string, number>
  private readonly unknown: number | undefined

  /** @param tokens characters in the order of their ids
   *  @param options.unkToken one of the tokens, for characters that have none; default: such a character is an error */
  constructor(
    private readonly tokens: readonly string[],
    private readonly options: { unkToken?: string } = {},
  ) {
    if (!Array.isArray(tokens) || !tokens.every((token) => typeof token === 'string')) {
      throw new ArgumentError('CharTokenizer', {
        problem: 'not a list of tokens',
        got: Array.isArray(tokens) ? 'an array that holds something else' : describeValue(tokens),
        expected: 'an array of characters in the order of their ids',
        action: 'of a text: CharTokenizer.fromText(text), [...characters]',
      })
    }
    this.ids = new Map(tokens.map((token, id) => [token, id]))
    const wrong = tokens.findIndex(
      (token, id) => this.ids.get(token) !== id || ([...token].length !== 1 && token !== options.unkToken),
    )
    if (wrong >= 0) {
      throw new ArgumentError('CharTokenizer', {
        problem: `token ${wrong} is not a character of its own`,
        got: describeValue(tokens[wrong]),
      })
    }
    this.unknown = options.unkToken === undefined ? undefined : this.ids.get(options.unkToken)
    if (options.unkToken !== undefined && this.unknown === undefined) {
      throw new ArgumentError('CharTokenizer', {
        problem: 'unkToken is not a token',
        got: describeValue(options.unkToken),
      })
    }
  }

  /** The characters of a text, in the order of their code points. */
  static fromText(text: string): CharTokenizer {
    expectText('CharTokenizer.fromText', text)
    const characters = [...new Set(text)]
    return new CharTokenizer(characters.sort((a, b) => a.codePointAt(0)! - b.codePointAt(0)!))
  }

  get vocabSize(): number {
    return this.tokens.length
  }

  /** @throws IndexError naming the first character that is not in the vocabulary */
  encode(text: string): Int32Array {
    expectText('CharTokenizer.encode', text)
    const ids = new Int32Array(text.length)
    let count = 0
    for (const character of text) {
      const id = this.ids.get(character) ?? this.unknown
      if (id === undefined) {
        throw new IndexError('CharTokenizer.encode', {
          problem: `character ${count} is not in the vocabulary`,
          got: describeValue(character),
          expected: `one of ${this.vocabSize} characters`,
          action: 'build the vocabulary from all of the text, or give an unkToken',
        })
      }
      ids[count++] = id
    }
    return ids.subarray(0, count)
  }

  decode(ids: ArrayLike<number | bigint>): string {
    expectIds('CharTokenizer.decode', ids)
    return Array.from(ids, (id, i) => this.tokens[checkId('CharTokenizer.decode', id, this.vocabSize, i)]!).join('')
  }

  tokenToId(token: string): number | undefined {
    return this.ids.get(token)
  }

  idToToken(id: number): string | undefined {
    return this.tokens[id]
  }

  toJson(): object {
    return bpeJson(Object.fromEntries(this.ids), [], { decoder: { type: 'Fuse' } }, this.options.unkToken)
  }

  save(path: string): Promise<void> {
    return saveTokenizer(this, path)
  }
}

/** One token a byte of UTF-8: 256 ids, any text, nothing to train. */
export class ByteTokenizer implements Tokenizer {
  readonly vocabSize = 256

  encode(text: string): Int32Array {
    expectText('ByteTokenizer.encode', text)
    return Int32Array.from(new TextEncoder().encode(text))
  }

  /** Bytes that are no UTF-8 become U+FFFD. */
  decode(ids: ArrayLike<number | bigint>): string {
    expectIds('ByteTokenizer.decode', ids)
    return new TextDecoder('utf-8', { ignoreBOM: true }).decode(
      Uint8Array.from(ids, (id, i) => checkId('ByteTokenizer.decode', id, 256, i)),
    )
  }

  tokenToId(token: string): number | undefined {
    const id = byteToChar.indexOf(token)
    return id < 0 ? undefined : id
  }

  idToToken(id: number): string | undefined {
    return byteToChar[id]
  }

  toJson(): object {
    const level = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false }
    const vocab = Object.fromEntries(byteToChar.map((character, byte) => [character, byte]))
    return bpeJson(vocab, [], { pre_tokenizer: level, decoder: level })
  }

  save(path: string): Promise<void> {
    return saveTokenizer(this, path)
  }
}

/** Text of ids that come one by one: a character is given when its last byte is there.
 *  @example for await (const id of ids) process.stdout.write(decoder.push(id)) */
export class StreamDecoder {
  private pending: number[] = []

  constructor(private readonly tokenizer: Pick<Tokenizer, 'decode'>) {}

  /** The text that this id completes; often all of it, sometimes none. */
  push(id: number): string {
    this.pending.push(id)
    const text = this.tokenizer.decode(this.pending)
    // A character has at most four bytes: longer waiting would be for bytes that are no text.
    if (text.endsWith('\ufffd') && this.pending.length < 4) return ''
    this.pending = []
    return text
  }

  /** What is left at the end. */
  end(): string {
    const text = this.pending.length === 0 ? '' : this.tokenizer.decode(this.pending)
    this.pending = []
    return text
  }
}
