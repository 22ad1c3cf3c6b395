// From a text file to the samples of a language model.

import { readFile } from 'node:fs/promises'
import { Dataset, type SampleContext } from '../data/dataset'
import { FileError } from '../errors'

/** Reads a UTF-8 text.
 *  @throws FileError when it is missing, cannot be read, or is not text */
export async function readText(path: string): Promise<string> {
  let bytes: Uint8Array
  try {
    bytes = await readFile(path)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    const problem =
      code === 'ENOENT' ? 'no such file' : code === 'EISDIR' ? 'a folder is not a text' : `cannot read (${code})`
    throw new FileError('readText', { problem, got: path, expected: 'a UTF-8 text file', cause: error })
  }
  const zero = bytes.indexOf(0)
  if (zero >= 0) {
    throw new FileError('readText', {
      problem: 'a binary file',
      got: `${path} with a zero byte at ${zero}`,
      expected: 'a UTF-8 text file',
    })
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (cause) {
    throw new FileError('readText', {
      problem: 'not valid UTF-8',
      got: path,
      expected: 'a UTF-8 text file',
      action: 'convert it, for example with iconv -t UTF-8',
      cause,
    })
  }
}

/** A sequence for a model that shifts its labels itself. */
export interface Window {
  inputIds: Int32Array
  labels: Int32Array
}

const windowAt = (tokens: Int32Array, start: number, length: number): Window => {
  const inputIds = tokens.subarray(start, start + length)
  return { inputIds, labels: inputIds }
}

/** Sequences from random places of the tokens; a pass draws about as many tokens as there are. */
export class RandomWindows extends Dataset<Window> {
  readonly length: number

  constructor(
    private readonly tokens: Int32Array,
    private readonly size: number,
  ) {
    super()
    this.length = Math.max(1, Math.floor(tokens.length / size))
  }

  get(_index: number, { random }: SampleContext): Window {
    return windowAt(this.tokens, random.integer(this.tokens.length - this.size + 1), this.size)
  }
}

/** The tokens in order, in sequences that overlap by one token: so that each but the first is predicted once. */
export class ConsecutiveWindows extends Dataset<Window> {
  readonly length: number

  constructor(
    private readonly tokens: Int32Array,
    private readonly size: number,
  ) {
    super()
    this.length = Math.floor((tokens.length - 1) / (size - 1))
  }

  get(index: number): Window {
    return windowAt(this.tokens, index * (this.size - 1), this.size)
  }
}

/** Entropy of the tokens' frequencies, in nats: the loss of a model that knows nothing but them. */
export function unigramEntropy(tokens: Int32Array): number {
  const counts = new Map<number, number>()
  for (const token of tokens) counts.set(token, (counts.get(token) ?? 0) + 1)
  let entropy = 0
  for (const count of counts.values()) entropy -= (count / tokens.length) * Math.log(count / tokens.length)
  return entropy
}
