// What a call of attention asks for: its operands and options checked, and in the form that the native operators take.

import { autocasting } from '../autograd/autocast'
import { BOOL, INT32, INT64, isFloatingCode } from '../dtype'
import { ArgumentError, DTypeError, describeShape, describeValue, IndexError, ShapeError } from '../errors'
import { expectFlag } from '../options'
import { fromTypedArray } from '../tensor/create'
import { type Shape, Tensor } from '../tensor/tensor'
import { autocast } from './autocast'
import { BlockMask } from './blockMask'
import { expectFloating, expectTensor } from './registry'

/** Which keys a query sees. What several options say holds together. */
export interface AttentionVisibility {
  /** Broadcasts to [B, H, L, S]: bool (true takes part) or floating (added to the scores). */
  attnMask?: Tensor | null
  /** Query i sees keys 0 to i, also when L and S differ. Default false. */
  isCausal?: boolean
  /** Sliding window: query i sees keys i - left to i + right, -1 for no bound on a side; a number stands for both.
   *  Tiles outside of it cost nothing. */
  windowSize?: number | readonly [left: number, right: number] | null
  /** Key-padding: of batch entry b the first keyLengths[b] keys take part; integers [B]. Keys beyond cost nothing. */
  keyLengths?: Tensor | readonly number[] | null
  /** Blocks of queries and keys that see each other (see `BlockMask`); what is hidden costs nothing. */
  blockMask?: BlockMask | null
}

/** Options of scaledDotProductAttention. */
export interface AttentionOptions extends AttentionVisibility {
  /** Probability with which an attention weight is dropped; default 0. Applied whenever it is not 0: pass 0 outside
   *  of training. */
  dropoutP?: number
  /** Factor of the scores; default 1 / sqrt(D). */
  scale?: number | null
  /** Allows fewer heads of key and value than of query; default false. */
  enableGqa?: boolean
}

/** @internal */
export const visibilityOptions = ['attnMask', 'isCausal', 'windowSize', 'keyLengths', 'blockMask'] as const

/** @internal */
export const attentionOptions = [...visibilityOptions, 'dropoutP', 'scale', 'enableGqa'] as const

/** @internal The attributes that every native operator of attention begins with. */
export const attentionAttributes = 'scale,causal,seed,offset,p,left,right,blockQueries,blockKeys'

/** @internal A call as the native operators take it. */
export interface AttentionCall {
  /** Mask, offsets of packed queries, offsets of packed keys or lengths of keys, block mask. */
  readonly masks: readonly (Tensor | null)[]
  /** In the order of `attentionAttributes`. */
  readonly attrs: readonly number[]
  /** Tensors that were made for the call. */
  readonly made: readonly Tensor[]
}

// --- operands -----------------------------------------------------------------------------------------------------

/** @internal */
export const describeOperands = (q: Tensor, k: Tensor, v: Tensor): string =>
  `query ${describeShape(q.shape)}, key ${describeShape(k.shape)}, value ${describeShape(v.shape)}`

/** @internal The operands as attention gets them: under autocast in its dtype. Throws unless they are tensors of one
 *  floating dtype then. */
export function inOneDtype(op: string, query: Tensor, key: Tensor, value: Tensor): [Tensor, Tensor, Tensor] {
  const given = [query, key, value] as const
  given.forEach((x, i) => {
    const name = ['query', 'key', 'value'][i]!
    expectTensor(op, name, x)
    expectFloating(op, name, x)
  })
  // the policy of all forms of attention is that of the one that PyTorch has
  const cast = (x: Tensor): Tensor => (autocasting ? autocast('scaledDotProductAttention', x) : x)
  const [q, k, v] = [cast(query), cast(key), cast(value)]
  if (k._dtype === q._dtype && v._dtype === q._dtype) return [q, k, v]
  throw new DTypeError(op, {
    problem: 'dtypes differ',
    got: `query ${q.dtype}, key ${k.dtype}, value ${v.dtype}`,
    action: 'convert them with to()',
  })
}

/** @internal */
export function expectOperands(op: string, q: Tensor, k: Tensor, v: Tensor, enableGqa: boolean): void {
  if (q.ndim < 2 || q.ndim > 4 || k.ndim !== q.ndim || v.ndim !== q.ndim) {
    throw new ShapeError(op, {
      problem: 'wrong number of dims',
      got: describeOperands(q, k, v),
      expected: '[B, H, T, D], [H, T, D] or [T, D]',
    })
  }
  const [B, H, , D] = fourDims(q.shape)
  const [kB, kH, kS, kD] = fourDims(k.shape)
  const [vB, vH, vS] = fourDims(v.shape)
  if (kB !== B || vB !== B || kS !== vS || kD !== D || kH !== vH) {
    throw new ShapeError(op, {
      problem: 'the operands do not fit together',
      got: describeOperands(q, k, v),
      expected: 'query [B, H, L, D], key [B, H, S, D], value [B, H, S, E]',
    })
  }
  expectHeads(op, H, kH, enableGqa)
}

/** @internal */
export function expectHeads(op: string, heads: number, kvHeads: number, enableGqa: boolean): void {
  expectFlag(op, 'enableGqa', enableGqa)
  if (kvHeads === heads || (enableGqa && kvHeads > 0 && heads % kvHeads === 0)) return
  throw new ShapeError(op, {
    problem: 'numbers of heads differ',
    got: `${heads} of query, ${kvHeads} of key and value`,
    expected: enableGqa ? "a divisor of the query's" : 'equal numbers',
    action: 'enableGqa lets several heads of query share one of key and value',
  })
}

/** @internal [T, D] or [H, T, D] as [B, H, T, D]. */
export function fourDims(shape: Shape): [number, number, number, number] {
  return [...Array<number>(Math.max(0, 4 - shape.length)).fill(1), ...shape] as [number, number, number, number]
}

// --- masks --------------------------------------------------------------------------------------------------------

function expectMask(op: string, mask: Tensor, scores: Shape): void {
  expectTensor(op, 'attnMask', mask)
  if (mask._dtype !== BOOL && !isFloatingCode(mask._dtype)) {
    throw new DTypeError(op, {
      problem: 'attnMask is neither bool nor floating',
      got: mask.dtype,
      expected: "bool (true takes part) or an additive mask; convert 0 and 1 with .to('bool')",
    })
  }
  const from = scores.length - mask.ndim
  if (from < 0 || mask.shape.some((size, d) => size !== 1 && size !== scores[from + d])) {
    throw new ShapeError(op, {
      problem: 'attnMask does not broadcast to the scores',
      got: describeShape(mask.shape),
      expected: `a shape that broadcasts to ${describeShape(scores)} (batch, heads, queries, keys)`,
    })
  }
}

/** @internal */
export function readWindow(op: string, given: AttentionVisibility['windowSize']): readonly [number, number] {
  if (given === null || given === undefined) return [-1, -1]
  const sides: readonly unknown[] = typeof given === 'number' ? [given, given] : Array.isArray(given) ? given : []
  const [left, right, ...rest] = sides
  const isBound = (n: unknown): n is number => Number.isSafeInteger(n) && (n as number) >= -1
  if (isBound(left) && isBound(right) && rest.length === 0) return [left, right]
  throw new ArgumentError(op, {
    problem: 'windowSize is no window',
    got: Array.isArray(given) ? `[${given.map(describeValue).join(', ')}]` : describeValue(given),
    expected: 'a whole number of keys, or [left, right], with -1 for no bound',
  })
}

/** @internal Integers of one dim as a tensor; `made` receives it when it is new. */
export function readIntegers(op: string, name: string, given: unknown, { device }: Tensor, made: Tensor[]): Tensor {
  if (given instanceof Tensor) {
    expectTensor(op, name, given)
    if (given._dtype !== INT32 && given._dtype !== INT64) {
      throw new DTypeError(op, { problem: `${name} has no integers`, got: given.dtype, expected: 'int32 or int64' })
    }
    if (given.ndim !== 1) {
      throw new ShapeError(op, {
        problem: `${name} has the wrong number of dims`,
        got: describeShape(given.shape),
        expected: 'one dim',
      })
    }
    return given
  }
  const list = ArrayBuffer.isView(given) ? Array.from(given as Int32Array, Number) : given
  if (!Array.isArray(list)) {
    throw new ArgumentError(op, {
      problem: `${name} is no list of integers`,
      got: describeValue(given),
      expected: 'an int32 or int64 tensor, or an array',
    })
  }
  const wrong = list.findIndex((n) => !Number.isSafeInteger(n))
  if (wrong >= 0) {
    throw new ArgumentError(op, {
      problem: `${name} has an element that is no integer`,
      got: `${describeValue(list[wrong])} at position ${wrong}`,
    })
  }
  const integers = fromTypedArray(BigInt64Array.from(list as number[], BigInt), undefined, { device })
  made.push(integers)
  return integers
}

// An array is checked here; the elements of a tensor by the kernel, when they are there.
function readLengths(op: string, given: Tensor | readonly number[], q: Tensor, S: number, made: Tensor[]): Tensor {
  const B = q.shape[0]!
  const lengths = readIntegers(op, 'keyLengths', given, q, made)
  if (lengths.numel !== B) {
    throw new ShapeError(op, {
      problem: 'wrong number of keyLengths',
      got: String(lengths.numel),
      expected: `one for each of ${B} batch entries`,
    })
  }
  const wrong = given instanceof Tensor ? -1 : given.findIndex((n) => n < 0 || n > S)
  if (wrong >= 0) {
    throw new IndexError(op, {
      problem: 'a length of keyLengths is out of range',
      got: `${(given as readonly number[])[wrong]} for batch entry ${wrong}`,
      expected: `0 to ${S}`,
    })
  }
  return lengths
}

function expectBlockMask(op: string, given: BlockMask, [B, H, L, S]: Shape): void {
  if (!(given instanceof BlockMask)) {
    throw new ArgumentError(op, {
      problem: 'blockMask is no BlockMask',
      got: describeValue(given),
      action: 'make one with BlockMask.local, .strided, .global or .from; a dense mask is attnMask',
    })
  }
  const [B1, H1] = fourDims(given.blocks.shape)
  if (given.queryLength !== L || given.keyLength !== S || (B1 !== 1 && B1 !== B) || (H1 !== 1 && H1 !== H)) {
    throw new ShapeError(op, {
      problem: 'blockMask is for other lengths',
      got: `${describeShape(given.blocks.shape)} blocks for ${given.queryLength} queries and ${given.keyLength} keys`,
      expected: `${L} queries and ${S} keys, of ${B} batch entries and ${H} heads or for all of them`,
    })
  }
}

/** @internal */
export function readScale(op: string, scale: number | null | undefined, headDim: number): number {
  if (headDim === 0 && (scale === null || scale === undefined)) {
    throw new ShapeError(op, {
      problem: 'the heads have no elements',
      got: 'a head dim of 0',
      expected: 'at least 1, or a scale',
    })
  }
  const factor = scale ?? 1 / Math.sqrt(headDim)
  if (Number.isFinite(factor)) return factor
  throw new ArgumentError(op, { problem: 'not a scale', got: describeValue(factor), expected: 'a finite number' })
}

/** @internal The options of a call of queries [B, H, L, D] with scores [B, H, L, S]. `random` is the stream of its dropout. */
export function readCall(
  op: string,
  options: AttentionOptions,
  q: Tensor,
  scores: Shape,
  scale: number,
  random = { seed: 0, offset: 0 },
): AttentionCall {
  const { attnMask = null, isCausal = false, windowSize, keyLengths = null, blockMask = null, dropoutP = 0 } = options
  if (attnMask !== null) expectMask(op, attnMask, scores)
  const window = readWindow(op, windowSize)
  if (blockMask !== null) expectBlockMask(op, blockMask, scores)
  const made: Tensor[] = []
  const lengths = keyLengths === null ? null : readLengths(op, keyLengths, q, scores[3]!, made)
  return {
    masks: [attnMask, null, lengths, blockMask?._blocksOn(q.device) ?? null],
    attrs: [
      scale,
      expectFlag(op, 'isCausal', isCausal) ? 1 : 0,
      random.seed,
      random.offset,
      dropoutP,
      ...window,
      ...(blockMask?.blockSize ?? [1, 1]),
    ],
    made,
  }
}
