// Byte-level BPE: trained here, run by Hugging Face's own JavaScript tokenizers, so that ids are those of Python.

import { readFile } from 'node:fs/promises'
import { Tokenizer as Library } from '@huggingface/tokenizers'
import { ArgumentError, FileError } from '../errors'
import { fileError } from '../io/atomic'
import { readOptions } from '../options'
import { type BpeTrainOptions, trainBpe } from './bpeTrainer'
import { bpeJson, checkId, expectIds, expectText, saveTokenizer, type Tokenizer } from './tokenizer'

/** Options of encode. */
export interface EncodeOptions {
  /** Add what the tokenizer's template asks for, such as [CLS] and [SEP]. Default true. */
  addSpecialTokens?: boolean
}

/** Options of decode. */
export interface DecodeOptions {
  /** Leave out special tokens. Default true. */
  skipSpecialTokens?: boolean
}

/** A tokenizer of a tokenizer.json: one trained here, or a pretrained model's (BPE, WordPiece, Unigram).
 *  @example
 *  const tokenizer = data.BpeTokenizer.train(text, { vocabSize: 1024, specialTokens: ['<|endoftext|>'] })
 *  // Python: Tokenizer.from_file('tokenizer.json')
 *  await tokenizer.save('tokenizer.json') */
export class BpeTokenizer implements Tokenizer {
  private readonly library: Library
  readonly vocabSize: number

  private constructor(private readonly json: object) {
    this.library = new Library(json, {})
    let last = -1
    for (const id of this.library.get_vocab().values()) last = Math.max(last, id)
    this.vocabSize = last + 1
  }

  /** Learns a vocabulary from text: one string, or many (documents, chapters). Words never cross from one to the next. */
  static train(texts: string | Iterable<string>, options: BpeTrainOptions): BpeTokenizer {
    const op = 'BpeTokenizer.train'
    const { specialTokens = [] } = readOptions(op, options, ['vocabSize', 'minFrequency', 'specialTokens'])
    if (typeof (texts as Iterable<string> | null)?.[Symbol.iterator] !== 'function') expectText(op, texts)
    const { vocab, merges } = trainBpe(typeof texts === 'string' ? [texts] : texts, options)
    const level = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true }
    const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true }
    const addedTokens = specialTokens.map((content, id) => ({ id, content, ...flags }))
    const parts = { added_tokens: addedTokens, pre_tokenizer: level, post_processor: level, decoder: level }
    return new BpeTokenizer(bpeJson(vocab, merges, parts))
  }

  /** @throws ArgumentError when it is not the content of a tokenizer.json */
  static fromJson(json: object): BpeTokenizer {
    try {
      return new BpeTokenizer(json)
    } catch (error) {
      throw new ArgumentError('BpeTokenizer.fromJson', {
        problem: 'not a tokenizer.json that can be used',
        got: (error as Error).message,
        cause: error,
      })
    }
  }

  /** @throws FileError when the file is missing or is no tokenizer.json */
  static async load(path: string): Promise<BpeTokenizer> {
    const op = 'BpeTokenizer.load'
    try {
      return new BpeTokenizer(JSON.parse(await readFile(path, 'utf8')) as object)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).syscall !== undefined) throw fileError(op, `cannot read ${path}`, error)
      throw new FileError(op, { problem: `${path} is no tokenizer.json`, got: (error as Error).message, cause: error })
    }
  }

  encode(text: string, { addSpecialTokens = true }: EncodeOptions = {}): Int32Array {
    expectText('BpeTokenizer.encode', text)
    const options = { add_special_tokens: addSpecialTokens }
    return text === '' && !addSpecialTokens
      ? new Int32Array(0)
      : Int32Array.from(this.library.encode(text, options).ids)
  }

  decode(ids: ArrayLike<number | bigint>, { skipSpecialTokens = true }: DecodeOptions = {}): string {
    expectIds('BpeTokenizer.decode', ids)
    const list = Array.from(ids, (id, i) => checkId('BpeTokenizer.decode', id, this.vocabSize, i))
    if (list.length === 0) return ''
    return this.library.decode(list, { skip_special_tokens: skipSpecialTokens, clean_up_tokenization_spaces: false })
  }

  tokenToId(token: string): number | undefined {
    return this.library.token_to_id(token)
  }

  idToToken(id: number): string | undefined {
    return this.library.id_to_token(id)
  }

  toJson(): object {
    return this.json
  }

  save(path: string): Promise<void> {
    return saveTokenizer(this, path)
  }
}
