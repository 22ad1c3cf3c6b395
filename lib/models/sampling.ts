// Choosing tokens from logits.

import { FLOAT32, INT64 } from '../dtype'
import { ArgumentError, describeValue } from '../errors'
import { amax, argmax, cumsum, softmax, sort, topk } from '../ops/index'
import { expectCount, readOptions } from '../options'
import { defaultGenerator, Generator } from '../random'
import { native, run } from '../tensor/dispatch'
import type { Tensor } from '../tensor/tensor'

/** How tokens are chosen. */
export interface SamplingOptions {
  /** Draws tokens instead of taking the likeliest; default true when one of the options below is given, else false. */
  doSample?: boolean
  /** Divides the logits: below 1 surer, above 1 bolder, 0 the likeliest. Default 1. */
  temperature?: number
  /** Draws only from the k likeliest tokens; default all. */
  topK?: number
  /** Draws only from the likeliest tokens that together reach this probability; default 1: all.
   *  @see Holtzman et al. 2019, arXiv:1904.09751 */
  topP?: number
  /** The same seed gives the same tokens; default: drawn from the library's generator. */
  seed?: number
}

/** @internal Checked options; null: the likeliest token. */
export type Sampling = { temperature: number; topK: number | null; topP: number; generator: Generator } | null

function refuse(name: string, value: unknown, expected: string): never {
  throw new ArgumentError('generate', { problem: `${name} makes no sense`, got: describeValue(value), expected })
}

const optionNames = [
  'maxNewTokens',
  'attentionMask',
  'eosTokenId',
  'padTokenId',
  'signal',
  'doSample',
  'temperature',
  'topK',
  'topP',
  'seed',
]

/** @internal Checks the options. */
export function readSampling(options: SamplingOptions): Sampling {
  readOptions('generate', options as Record<string, unknown>, optionNames)
  const { temperature = 1, topK, topP = 1, seed } = options
  const asked = [options.temperature, topK, options.topP, seed].some((option) => option !== undefined)
  if (!(Number.isFinite(temperature) && temperature >= 0)) refuse('temperature', temperature, 'a number of at least 0')
  if (!(topP > 0 && topP <= 1)) refuse('topP', topP, 'a number above 0 and up to 1')
  if (topK !== undefined) expectCount('generate', 'topK', topK)
  const generator = seed === undefined ? defaultGenerator : new Generator(seed)
  if (!(options.doSample ?? asked) || temperature === 0) return null
  return { temperature, topK: topK ?? null, topP, generator }
}

const leastPlainTemperature = 1e-30
const largestFloat32 = (2 - 2 ** -23) * 2 ** 127

const multinomialOp = native('multinomial', 'seed,offset,replacement')

/** @internal One token a row: logits [B, V] -> int64 [B]. */
export function chooseTokens(logits: Tensor, sampling: Sampling): Tensor {
  if (sampling === null) return argmax(logits, -1)
  const { temperature, topK, topP, generator } = sampling
  const [B, V] = logits.shape as [number, number]
  let scores = logits._dtype === FLOAT32 ? logits : logits.to('float32')
  // so near 0 that the quotients overflow: only what is to the highest logit counts, and -Infinity is right for the others
  if (temperature < leastPlainTemperature) scores = scores.sub(amax(scores, -1, { keepdim: true }))
  scores = scores.mul(Math.min(1 / temperature, largestFloat32))
  let order: Tensor | null = null // tokens by descending score, where only the first ones may be drawn
  if (topK !== null && topK < V) ({ values: scores, indices: order } = topk(scores, topK, -1))
  else if (topP < 1) ({ values: scores, indices: order } = sort(scores, -1, { descending: true }))
  let p = softmax(scores, -1)
  if (topP < 1) {
    const before = cumsum(p, -1).sub(p) // a token stays when those before it do not reach topP: the first always does
    p = p.maskedFill(before.ge(topP), 0)
  }
  const { seed, offset } = generator.take(B)
  const drawn = run(multinomialOp, [p], [B, 1], INT64, [seed, offset, 1])
  return (order === null ? drawn : order.gather(-1, drawn)).squeeze(-1)
}
