// Writing on: one token after the other, each chosen from the model's foretelling.

import { noGrad } from '../autograd/mode'
import { Device } from '../device'
import { ArgumentError, describeShape, describeValue, IndexError } from '../errors'
import type { Module } from '../nn/module'
import { expectTensor } from '../ops/registry'
import { expectCount } from '../options'
import { fromTypedArray } from '../tensor/create'
import { tidy } from '../tensor/scope'
import { Tensor } from '../tensor/tensor'
import { KeyValueCache } from './kvCache'
import { chooseTokens, readSampling, type SamplingOptions } from './sampling'

/** Options of `generate` and `stream`. */
export interface GenerateOptions extends SamplingOptions {
  /** Most tokens to add; default 20. */
  maxNewTokens?: number
  /** [B, T]: 1 for tokens, 0 for padding, which must stand to the left; default all tokens. */
  attentionMask?: Tensor | null
  /** Token that ends a text; default the model's; null: none. */
  eosTokenId?: number | null
  /** Token that follows the end of a text while others go on; default eosTokenId, or 0. */
  padTokenId?: number
  /** Stops between two tokens when aborted. */
  signal?: AbortSignal
}

/** @internal What a model gets to foretell the next token. */
export interface NextCall {
  positionIds: Tensor | null
  mask: Tensor | null
  cache: KeyValueCache
}

/** @internal A model that can write on. */
export interface CausalLM extends Module {
  readonly blockSize: number
  readonly eosTokenId: number | null
  next(inputIds: Tensor, call: NextCall): Tensor
}

type Prompt = Tensor | number[] | number[][]

/** @internal Tokens [B, T + n] of prompts and what follows them. */
export async function generate(model: CausalLM, prompt: Prompt, options: GenerateOptions): Promise<Tensor> {
  const rows = await readPrompt(prompt)
  for await (const tokens of write(model, rows, options)) {
    for (let b = 0; b < rows.length; b++) rows[b]!.push(tokens[b]!)
  }
  return fromTypedArray(BigInt64Array.from(rows.flat(), BigInt), [rows.length, rows[0]!.length])
}

/** @internal New tokens as they are made, one a prompt. */
export async function* stream(
  model: CausalLM,
  prompt: Prompt,
  options: GenerateOptions,
): AsyncGenerator<number[], void> {
  yield* write(model, await readPrompt(prompt), options)
}

async function readPrompt(prompt: Prompt): Promise<number[][]> {
  if (prompt instanceof Tensor) {
    if (prompt.ndim !== 2 || prompt._dtype < 4 || prompt.numel === 0) {
      throw new ArgumentError('generate', {
        problem: 'the prompt is not a batch of tokens',
        got: `${prompt.dtype} ${describeShape(prompt.shape)}`,
        expected: 'int64 [B, T] with at least one token',
      })
    }
    return (await prompt.array()) as number[][]
  }
  const rows = Array.isArray(prompt) && prompt.every((each) => typeof each === 'number') ? [prompt] : prompt
  const sound =
    Array.isArray(rows) &&
    rows.length > 0 &&
    rows.every(
      (row) =>
        Array.isArray(row) &&
        row.length > 0 &&
        row.length === (rows[0] as number[]).length &&
        row.every(Number.isInteger),
    )
  if (!sound) {
    throw new ArgumentError('generate', {
      problem: 'the prompt is not a batch of tokens',
      got: describeValue(prompt),
      expected: 'a Tensor [B, T], or arrays of tokens of one length, at least one',
      action: 'pad shorter prompts on the left and pass attentionMask',
    })
  }
  return (rows as number[][]).map((row) => [...row])
}

/** Number of padded tokens in front of each prompt. */
async function readPadding(mask: Tensor | null | undefined, rows: number[][]): Promise<number[]> {
  if (mask === null || mask === undefined) return rows.map(() => 0)
  expectTensor('generate', 'attentionMask', mask)
  const T = rows[0]!.length
  if (mask.ndim !== 2 || mask.shape[0] !== rows.length || mask.shape[1] !== T) {
    throw new ArgumentError('generate', {
      problem: 'attentionMask has the wrong shape',
      got: describeShape(mask.shape),
      expected: describeShape([rows.length, T]),
    })
  }
  const values = ((await mask.array()) as (number | boolean)[][]).map((row) => row.map((value) => Number(value) !== 0))
  return rows.map((_, b) => {
    const row = values[b]!
    const padding = row.indexOf(true)
    if (padding < 0 || row.indexOf(false, padding) >= 0) {
      throw new ArgumentError('generate', {
        problem: `prompt ${b} is not padded on the left`,
        got: row.map(Number).join(''),
        expected: 'attentionMask of zeros, then ones: what follows a prompt must follow its last token',
      })
    }
    return padding
  })
}

/** Runs fn with dropout off, leaving the model as it was. */
function evaluating<R>(model: Module, fn: () => R): R {
  const training = model.modules().filter((module) => module.training)
  for (const module of training) module.training = false
  try {
    return fn()
  } finally {
    for (const module of training) module.training = true
  }
}

async function* write(
  model: CausalLM,
  rows: readonly (readonly number[])[],
  options: GenerateOptions,
): AsyncGenerator<number[], void> {
  const maxNewTokens = expectCount('generate', 'maxNewTokens', options.maxNewTokens ?? 20, 0)
  const eos = options.eosTokenId === undefined ? model.eosTokenId : options.eosTokenId
  const pad = options.padTokenId ?? eos ?? 0
  const sampling = readSampling(options)
  const texts = rows.map((row) => [...row])
  const padding = await readPadding(options.attentionMask, texts)
  const { blockSize } = model
  const T = texts[0]!.length
  if (T > blockSize) {
    throw new IndexError('generate', {
      problem: 'the prompt is longer than the model can look at',
      got: `${T} tokens`,
      expected: `at most blockSize ${blockSize}`,
      action: 'keep its end',
    })
  }
  const ended = texts.map(() => false)
  const place = model.parameters()[0]?.device ?? Device._default
  const cache = new KeyValueCache(Math.min(blockSize, T + maxNewTokens))
  let first = 0 // where the window starts in the texts
  let read = 0 // tokens of the texts that the cache has
  try {
    for (let step = 0; step < maxNewTokens && !ended.every(Boolean); step++) {
      options.signal?.throwIfAborted()
      const length = texts[0]!.length
      if (length - first > blockSize) {
        // Positions are absolute, so nothing can be taken out of a full cache: the later half is read again, which
        // keeps the cost of a token constant over a window.
        cache.dispose()
        first = length - Math.max(1, blockSize >> 1)
        read = first
      }
      const chosen = noGrad(() =>
        evaluating(model, () =>
          tidy(() => chooseTokens(model.next(...input(texts, padding, first, read, cache, place)), sampling)),
        ),
      )
      read = length
      const tokens = (await chosen.array()) as number[]
      chosen.dispose()
      tokens.forEach((token, b) => {
        if (ended[b]) tokens[b] = pad
        else if (token === eos) ended[b] = true
        texts[b]!.push(tokens[b]!)
      })
      yield tokens
    }
  } finally {
    cache.dispose()
  }
}

/** The unread tokens [B, n], their positions (counted without padding) and which keys are real. */
function input(
  texts: readonly (readonly number[])[],
  padding: readonly number[],
  first: number,
  read: number,
  cache: KeyValueCache,
  device: Device,
): [inputIds: Tensor, call: NextCall] {
  const length = texts[0]!.length
  const from = Math.max(first, read)
  const shape = [texts.length, length - from]
  const ids = Int32Array.from(texts.flatMap((text) => text.slice(from)))
  // Padding left of the window is forgotten.
  const hidden = padding.map((count) => Math.max(0, count - first))
  if (hidden.every((count) => count === 0)) {
    return [fromTypedArray(ids, shape, { device }), { positionIds: null, mask: null, cache }]
  }
  const positions = Int32Array.from(
    hidden.flatMap((count) => Array.from({ length: length - from }, (_, t) => Math.max(0, from - first + t - count))),
  )
  const real = Uint8Array.from(
    hidden.flatMap((count) => Array.from({ length: length - first }, (_, s) => (s < count ? 0 : 1))),
  )
  return [
    fromTypedArray(ids, shape, { device }),
    {
      positionIds: fromTypedArray(positions, shape, { device }),
      mask: fromTypedArray(real, [texts.length, 1, 1, length - first], { dtype: 'bool', device }),
      cache,
    },
  ]
}
