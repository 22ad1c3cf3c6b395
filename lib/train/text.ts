// The text of a language model, and what is known of it without one.

import { readFile } from 'node:fs/promises'
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

function countTokens(tokens: Int32Array): Map<number, number> {
  const counts = new Map<number, number>()
  for (const token of tokens) counts.set(token, (counts.get(token) ?? 0) + 1)
  return counts
}

/** Entropy of the tokens' frequencies, in nats: the loss of a model that knows nothing but them. */
export function unigramEntropy(tokens: Int32Array): number {
  let entropy = 0
  for (const count of countTokens(tokens).values()) {
    entropy -= (count / tokens.length) * Math.log(count / tokens.length)
  }
  return entropy
}

/** The token that comes most often; in most texts the space. */
export function commonestToken(tokens: Int32Array): number {
  const [[token]] = [...countTokens(tokens)].sort(([, a], [, b]) => b - a) as [[number, number]]
  return token
}
