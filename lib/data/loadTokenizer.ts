// Any tokenizer of a tokenizer.json.

import { BpeTokenizer } from './bpe'
import { ByteTokenizer, CharTokenizer, type Tokenizer } from './tokenizer'

interface BpeModel {
  type: string
  vocab: Record<string, number>
  merges: unknown[]
  unk_token?: string | null
}

/** Loads a tokenizer.json, whichever tokenizer saved it: `CharTokenizer`, `ByteTokenizer`, or anything else (of Python,
 *  too) as `BpeTokenizer`.
 *  @throws FileError when the file is missing or is no tokenizer.json
 *  @example const tokenizer = await data.loadTokenizer('runs/x/tokenizer.json') */
export async function loadTokenizer(path: string): Promise<Tokenizer> {
  const loaded = await BpeTokenizer.load(path)
  const { model, ...parts } = loaded.toJson() as { model: BpeModel; pre_tokenizer?: object | null }
  if (model.type !== 'BPE' || model.merges.length > 0) return loaded

  // Without merges it is one of ours if ours would be saved as the same file.
  const same = (tokenizer: Tokenizer) => JSON.stringify(tokenizer.toJson()) === JSON.stringify({ ...parts, model })
  const bytes = new ByteTokenizer()
  if (same(bytes)) return bytes
  if (parts.pre_tokenizer !== null) return loaded
  const tokens = Object.keys(model.vocab).sort((a, b) => model.vocab[a]! - model.vocab[b]!)
  const characters = new CharTokenizer(tokens, model.unk_token ? { unkToken: model.unk_token } : {})
  return same(characters) ? characters : loaded
}
