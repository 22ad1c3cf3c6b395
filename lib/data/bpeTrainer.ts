// Learns the merges of a byte-level BPE from text. No kept npm library does (see docs/dependencies.md), so this follows
// Hugging Face's BpeTrainer: words by GPT-2's pattern, the most frequent pair first, of equals that with the lower ids.
// Source: Sennrich et al. 2016, arXiv:1508.07909, algorithm 1; pair counts are updated instead of counted again.

import { ArgumentError, describeValue } from '../errors'
import { byteToChar } from './bytes'
import { expectText } from './tokenizer'

/** Options of BpeTokenizer.train. */
export interface BpeTrainOptions {
  /** Tokens in all: special tokens, 256 bytes, and as many merges as fit (or as the text has pairs for). */
  vocabSize: number
  /** Pairs that are rarer are not merged. Default 2. */
  minFrequency?: number
  /** Tokens that stand for themselves and get the first ids, such as '<|endoftext|>'. Default none. */
  specialTokens?: readonly string[]
}

/** @internal GPT-2's pattern of words: contractions, letters, digits, other signs (each with a space before), spaces. */
export const wordPattern = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu

/** @internal */
export interface TrainedBpe {
  vocab: Record<string, number>
  merges: [string, string][]
}

/** A word of the text as the ids of its parts, and how often it occurs. */
interface Word {
  parts: number[]
  count: number
}

interface Pair {
  left: number
  right: number
  count: number
  /** Indices of words that had this pair when they were looked at. */
  words: Set<number>
}

// Two ids in one exact number; ids stay far below 2^26.
const pairKey = (left: number, right: number): number => left * 2 ** 26 + right

/** @internal */
export function trainBpe(texts: Iterable<string>, options: BpeTrainOptions): TrainedBpe {
  const { vocabSize, minFrequency = 2, specialTokens = [] } = options
  const least = specialTokens.length + 256
  if (!Number.isInteger(vocabSize) || vocabSize < least || vocabSize > 2 ** 24) {
    throw new ArgumentError('BpeTokenizer.train', {
      problem: 'vocabSize is out of range',
      got: describeValue(vocabSize),
      expected: `${least} (256 bytes and ${specialTokens.length} special tokens) to ${2 ** 24}`,
    })
  }
  // Ids in the order of the characters, as in the reference.
  const tokens = [...specialTokens, ...[...byteToChar].sort()]
  const ids = new Map(tokens.map((token, id) => [token, id]))
  const words = countWords(texts, ids)
  const pairs = new PairTable(words)
  const merges: [string, string][] = []

  while (tokens.length < vocabSize) {
    const best = pairs.pop()
    if (best === undefined || best.count < minFrequency) break
    const left = tokens[best.left]!
    const right = tokens[best.right]!
    const merged = left + right
    // Two pairs may spell one token; the second keeps its id.
    let id = ids.get(merged)
    if (id === undefined) {
      id = tokens.push(merged) - 1
      ids.set(merged, id)
    }
    merges.push([left, right])
    pairs.merge(best, id)
  }
  return { vocab: Object.fromEntries(ids), merges }
}

function countWords(texts: Iterable<string>, ids: ReadonlyMap<string, number>): Word[] {
  const counts = new Map<string, number>()
  for (const text of texts) {
    expectText('BpeTokenizer.train', text)
    for (const [word] of text.matchAll(wordPattern)) counts.set(word, (counts.get(word) ?? 0) + 1)
  }
  const idOfByte = byteToChar.map((character) => ids.get(character)!)
  const encoder = new TextEncoder()
  return Array.from(counts, ([word, count]) => ({
    parts: Array.from(encoder.encode(word), (byte) => idOfByte[byte]!),
    count,
  }))
}

/** The pairs of all words with a queue of the most frequent. A pair whose count fell is noticed when it comes up. */
class PairTable {
  private readonly pairs = new Map<number, Pair>()
  private readonly queue: { pair: Pair; count: number }[] = []

  constructor(private readonly words: readonly Word[]) {
    words.forEach(({ parts, count }, index) => {
      for (let i = 1; i < parts.length; i++) this.add(parts[i - 1]!, parts[i]!, count, index)
    })
    for (const pair of this.pairs.values()) this.push(pair)
  }

  private add(left: number, right: number, count: number, word: number): Pair {
    const key = pairKey(left, right)
    let pair = this.pairs.get(key)
    if (pair === undefined) {
      pair = { left, right, count: 0, words: new Set() }
      this.pairs.set(key, pair)
    }
    pair.count += count
    if (count > 0) pair.words.add(word)
    return pair
  }

  /** The most frequent pair. */
  pop(): Pair | undefined {
    for (;;) {
      const top = this.popTop()
      if (top === undefined || top.count === top.pair.count) return top?.pair
      if (top.pair.count < top.count && top.pair.count > 0) this.push(top.pair)
    }
  }

  /** Replaces a pair by a token in all words. */
  merge(pair: Pair, id: number): void {
    const { left, right } = pair
    const grown = new Set<Pair>()
    for (const index of pair.words) {
      const { parts, count } = this.words[index]!
      let kept = 0
      for (let i = 0; i < parts.length; i++) {
        if (parts[i] !== left || parts[i + 1] !== right) {
          parts[kept++] = parts[i]!
          continue
        }
        // What stood before the pair is already merged, what comes after is not.
        if (kept > 0) {
          this.add(parts[kept - 1]!, left, -count, index)
          grown.add(this.add(parts[kept - 1]!, id, count, index))
        }
        if (i + 2 < parts.length) {
          this.add(right, parts[i + 2]!, -count, index)
          grown.add(this.add(id, parts[i + 2]!, count, index))
        }
        parts[kept++] = id
        i++
      }
      parts.length = kept
    }
    pair.count = 0
    pair.words.clear()
    for (const each of grown) if (each.count > 0) this.push(each)
  }

  private static before(a: { pair: Pair; count: number }, b: { pair: Pair; count: number }): boolean {
    if (a.count !== b.count) return a.count > b.count
    return a.pair.left !== b.pair.left ? a.pair.left < b.pair.left : a.pair.right < b.pair.right
  }

  private push(pair: Pair): void {
    const { queue } = this
    const entry = { pair, count: pair.count }
    let i = queue.push(entry) - 1
    for (let parent = (i - 1) >> 1; i > 0 && PairTable.before(entry, queue[parent]!); parent = (i - 1) >> 1) {
      queue[i] = queue[parent]!
      i = parent
    }
    queue[i] = entry
  }

  private popTop(): { pair: Pair; count: number } | undefined {
    const { queue } = this
    const top = queue[0]
    const last = queue.pop()
    if (last === undefined || queue.length === 0) return top
    let i = 0
    for (;;) {
      let child = 2 * i + 1
      if (child >= queue.length) break
      if (child + 1 < queue.length && PairTable.before(queue[child + 1]!, queue[child]!)) child++
      if (PairTable.before(last, queue[child]!)) break
      queue[i] = queue[child]!
      i = child
    }
    queue[i] = last
    return top
  }
}
