// What attention looks at: its probabilities, and statistics of them.

import { statisticsDType } from '../dtype'
import { readOptions } from '../options'
import { zeros } from '../tensor/create'
import type { Shape, Tensor } from '../tensor/tensor'
import {
  attend,
  callOf,
  expectAttention,
  inFourDims,
  probabilities,
  release,
  rowDot,
  scoreGradient,
  shareHeads,
  swapLast,
  toMask,
} from './attention'
import {
  type AttentionCall,
  type AttentionOptions,
  type AttentionVisibility,
  attentionAttributes,
  attentionOptions,
  visibilityOptions,
} from './attentionCall'
import { type Backward, native, needsGrad, type OpRecord, record, run, runMany } from './registry'

const matmulOp = native('matmul', 'alpha,beta')
const sumOp = native('sum', 'dims')
const statisticsOp = native('attentionStatistics', attentionAttributes)

const weightsRecord: OpRecord = { name: 'attentionWithWeights', autocast: 'lower', backward: () => null }

// dS = P * (dP - rowsum(dP * P)), dQ = scale dS K, dK = scale dS' Q, summed over the query heads that share a key.
function weightsGradient(scale: number, mask: Tensor | null): Backward {
  return (context, g) => {
    const [q, k, weights] = [0, 1, 2].map((i) => context.saved(i)) as [Tensor, Tensor, Tensor]
    const [B, H, , D] = q.shape as [number, number, number, number]
    const [, kvHeads, S] = k.shape as [number, number, number]
    const type = q._dtype
    const dscores = scoreGradient(weights, g, rowDot(g, weights))
    const dq = context.needs(0) ? run(matmulOp, [dscores, shareHeads(k, H)], q.shape, type, [scale, 0]) : null
    let dk: Tensor | null = null
    if (context.needs(1)) {
      dk = run(matmulOp, [swapLast(dscores), q], [B, H, S, D], type, [scale, 0])
      const grouped: Shape = [B, kvHeads, H / kvHeads, S, D]
      if (kvHeads !== H) dk = run(sumOp, [dk.reshape(grouped as number[])], k.shape, type, [2 ** 2])
    }
    return [dq, dk, context.needs(2) ? toMask(dscores, mask!) : null]
  }
}

const warnFrom = 2 ** 28
let warned = false

// Once a process: who asks for the weights of a long sequence meets their size sooner or later, and then wants to know.
function warnOfMemory(bytes: number): void {
  if (warned || bytes < warnFrom) return
  warned = true
  process.emitWarning(
    `attentionWithWeights holds ${Math.round(bytes / 2 ** 20)} MiB of probabilities, and once more their gradient where it is wanted; attentionStatistics gives entropy and attention received in O(T)`,
    { code: 'GRADUS_ATTENTION_WEIGHTS' },
  )
}

/** Attention that also returns its probabilities: what `outputAttentions` of a model asks for.
 *  Operands and options as for `scaledDotProductAttention` -> [output [B, H, L, E], weights [B, H, L, S]].
 *  The output is that of `scaledDotProductAttention` to the bit; the weights are before dropout, rounded to the operands'
 *  dtype, and rows of queries that see no key are 0. Both have gradients. The weights take O(L S) memory, a warning is
 *  given once from 256 MiB; `attentionStatistics` sums them up in O(L + S).
 *  @throws as scaledDotProductAttention
 *  @example attentionWithWeights(q, k, v, { isCausal: true })[1].shape // [2, 8, 64, 64] */
export function attentionWithWeights(
  query: Tensor,
  key: Tensor,
  value: Tensor,
  given: AttentionOptions = {},
): [output: Tensor, weights: Tensor] {
  const op = 'attentionWithWeights'
  readOptions(op, given, attentionOptions)
  const operands = expectAttention(op, query, key, value, given)
  return inFourDims(operands, (q, k, v) => {
    const call = callOf(op, q, k, given)
    const [out, logsumexp] = attend(q, k, v, call)
    const weights = recordedWeights(q, k, logsumexp, call)
    release([logsumexp, ...call.made])
    return [out, weights] as [Tensor, Tensor]
  })
}

function recordedWeights(q: Tensor, k: Tensor, logsumexp: Tensor, call: AttentionCall): Tensor {
  const weights = probabilities(q, k, logsumexp, call)
  warnOfMemory(weights.nbytes)
  const mask = call.masks[0] ?? null
  const inputs = [q, k, mask]
  if (!needsGrad(inputs)) return weights
  return record(weightsRecord, weights, inputs, [q, k, weights], weightsGradient(call.attrs[0]!, mask))
}

/** Options of attentionStatistics. */
export interface AttentionStatisticsOptions extends AttentionVisibility {
  /** Factor of the scores; default 1 / sqrt(D). */
  scale?: number | null
  /** Allows fewer heads of key than of query; default false. */
  enableGqa?: boolean
}

const statisticsOptions = [...visibilityOptions, 'scale', 'enableGqa'] as const

/** Statistics of the probabilities of attention, made tile by tile: memory is O(L + S) and not O(L S).
 *  query [B, H, L, D], key [B, H, S, D], also without the leading dims -> `entropy` [B, H, L] of every query's
 *  distribution, in nats (0 where it sees no key), and `received` [B, H, S], what every key gets from all queries; its
 *  sum is the number of queries that see a key. float32 (float64 for float64), without gradient.
 *  @throws as scaledDotProductAttention
 *  @example attentionStatistics(q, k, { isCausal: true }).entropy.shape // [2, 8, 64] */
export function attentionStatistics(
  query: Tensor,
  key: Tensor,
  given: AttentionStatisticsOptions = {},
): { entropy: Tensor; received: Tensor } {
  const op = 'attentionStatistics'
  readOptions(op, given, statisticsOptions)
  const operands = expectAttention(op, query, key, key, given)
  const [entropy, received] = inFourDims(operands.map((x) => x.detach()) as typeof operands, (q, k) => {
    const [B, H, L] = q.shape as [number, number, number]
    const S = k.shape[2]!
    const call = callOf(op, q, k, given)
    // values of no width: only the logsumexp is wanted
    const values = zeros([B, k.shape[1]!, S, 0], { dtype: q.dtype, device: q.device })
    const [out, logsumexp] = attend(q, k, values, { ...call, masks: call.masks.map((mask) => mask?.detach() ?? null) })
    const statistics = runMany(
      statisticsOp,
      [q, k, logsumexp, ...call.masks],
      [
        [[B, H, L], statisticsDType(q._dtype)],
        [[B, H, S], statisticsDType(q._dtype)],
      ],
      call.attrs,
    )
    release([out, logsumexp, values, ...call.made])
    return statistics as [Tensor, Tensor]
  })
  return { entropy, received }
}
