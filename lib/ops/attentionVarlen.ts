// Attention of sequences that lie packed one after the other.

import { IndexError, ShapeError } from '../errors'
import { expectFlag, expectProbability, readOptions } from '../options'
import { defaultGenerator } from '../random'
import { tidy } from '../tensor/scope'
import { Tensor } from '../tensor/tensor'
import { attend, release } from './attention'
import {
  type AttentionCall,
  describeOperands,
  expectHeads,
  inOneDtype,
  readIntegers,
  readScale,
  readWindow,
} from './attentionCall'

/** Options of scaledDotProductAttentionVarlen. */
export interface VarlenAttentionOptions {
  /** Probability with which an attention weight is dropped; default 0. */
  dropoutP?: number
  /** Within each sequence query i sees keys up to i + (its keys - its queries): the last query sees the last key, as in
   *  flash-attn. Default false. */
  isCausal?: boolean
  /** Sliding window around that diagonal, as of scaledDotProductAttention. */
  windowSize?: number | readonly [left: number, right: number] | null
  /** Factor of the scores; default 1 / sqrt(D). */
  scale?: number | null
  /** Allows fewer heads of key and value than of query; default false. */
  enableGqa?: boolean
}

const varlenOptions = ['dropoutP', 'isCausal', 'windowSize', 'scale', 'enableGqa'] as const

function expectPacked(op: string, query: Tensor, key: Tensor, value: Tensor, enableGqa: boolean): void {
  const [, heads, D] = query.shape
  const [tokens, kvHeads, kD] = key.shape
  const fits = [query, key, value].every((x) => x.ndim === 3) && kD === D
  if (!fits || value.shape[0] !== tokens || value.shape[1] !== kvHeads) {
    throw new ShapeError(op, {
      problem: 'the operands are not packed sequences that fit together',
      got: describeOperands(query, key, value),
      expected: 'query [tokens, H, D], key [tokens of the keys, H, D], value [tokens of the keys, H, E]',
    })
  }
  expectHeads(op, heads!, kvHeads!, enableGqa)
}

// An array is checked here; the elements of a tensor by the kernel, when they are there.
function expectOffsets(op: string, name: string, given: unknown, tokens: number): void {
  if (given instanceof Tensor) return
  const offsets = Array.from(given as ArrayLike<number | bigint>, Number)
  const wrong = offsets.findIndex((at, i) => (i === 0 ? at !== 0 : at < offsets[i - 1]!))
  if (wrong >= 0) {
    throw new IndexError(op, {
      problem: `${name} is no list of cumulative lengths`,
      got: `${offsets[wrong]} at position ${wrong}`,
      expected: wrong === 0 ? '0' : `at least ${offsets[wrong - 1]}, the one before`,
    })
  }
  if (offsets.at(-1) !== tokens) {
    throw new IndexError(op, {
      problem: `the lengths of ${name} do not add up`,
      got: `${offsets.at(-1) ?? 'none'}`,
      expected: `${tokens} tokens`,
    })
  }
}

/** Attention of a batch of sequences of different lengths without padding: sequence n is tokens cuSeqlens[n] up to
 *  cuSeqlens[n + 1], and its queries see the keys of the same number only.
 *  query [tokens, H, D], key [tokens of the keys, H, D], value [tokens of the keys, H, E] -> [tokens, H, E];
 *  cuSeqlensQ, cuSeqlensK: N + 1 integers from 0 to the number of tokens, int32 or int64 or an array. A sequence without
 *  keys gives 0.
 *  @throws ShapeError, DTypeError when operands do not fit; IndexError when lengths do not add up (for a tensor of
 *    lengths, when the result is waited for)
 *  @see flash-attn's flash_attn_varlen_func, https://github.com/Dao-AILab/flash-attention;
 *    PyTorch's varlen_attn, https://docs.pytorch.org/docs/stable/nn.attention.varlen.html
 *  @example
 *  const packed = randn([12, 2, 8]) // sequences of 5, 3 and 4 tokens
 *  scaledDotProductAttentionVarlen(packed, packed, packed, [0, 5, 8, 12], [0, 5, 8, 12], { isCausal: true }) */
export function scaledDotProductAttentionVarlen(
  query: Tensor,
  key: Tensor,
  value: Tensor,
  cuSeqlensQ: Tensor | readonly number[] | Int32Array | BigInt64Array,
  cuSeqlensK: Tensor | readonly number[] | Int32Array | BigInt64Array,
  given: VarlenAttentionOptions = {},
): Tensor {
  const op = 'scaledDotProductAttentionVarlen'
  const { isCausal = false, dropoutP = 0, enableGqa = false } = readOptions(op, given, varlenOptions)
  const window = readWindow(op, given.windowSize)
  return tidy(() => {
    const [q, k, v] = inOneDtype(op, query, key, value)
    expectPacked(op, q, k, v, enableGqa)
    expectProbability(op, 'dropoutP', dropoutP)
    const made: Tensor[] = []
    const [offsetsQ, offsetsK] = [cuSeqlensQ, cuSeqlensK].map((offsets, i) => {
      const name = i === 0 ? 'cuSeqlensQ' : 'cuSeqlensK'
      const packed = i === 0 ? q : k
      const integers = readIntegers(op, name, offsets, packed, made)
      expectOffsets(op, name, offsets, packed.shape[0]!)
      return integers
    }) as [Tensor, Tensor]
    if (offsetsQ.numel !== offsetsK.numel || offsetsQ.numel === 0) {
      throw new ShapeError(op, {
        problem: 'numbers of sequences differ',
        got: `${offsetsQ.numel} offsets of queries, ${offsetsK.numel} of keys`,
        expected: 'as many, one more than there are sequences',
      })
    }
    const [tokens, H, D] = q.shape as [number, number, number]
    const { seed, offset } = dropoutP > 0 ? defaultGenerator.take(H * tokens * k.shape[0]!) : { seed: 0, offset: 0 }
    const call: AttentionCall = {
      masks: [null, offsetsQ, offsetsK, null],
      attrs: [
        readScale(op, given.scale, D),
        expectFlag(op, 'isCausal', isCausal) ? 1 : 0,
        seed,
        offset,
        dropoutP,
        ...window,
        1,
        1,
      ],
      made,
    }
    const [heads, keys, values] = [q, k, v].map((x) => x.transpose(0, 1).unsqueeze(0)) as [Tensor, Tensor, Tensor]
    const [out, logsumexp] = attend(heads, keys, values, call) // [1, H, tokens, E]
    release([logsumexp, ...made])
    return out.squeeze(0).transpose(0, 1)
  })
}
