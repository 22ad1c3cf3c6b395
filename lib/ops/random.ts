// Random tensors and dropout. All of it is philox (native/cpu/philox.h): an element's value depends on the seed, the
// stream's position and its place in row-major order only. A call advances the stream by one counter for four elements.

import { type DType, dtypeCode, FLOAT32, FLOAT64, INT64, isFloatingCode, promote } from '../dtype'
import { ArgumentError, DTypeError, describeShape, describeValue, ShapeError } from '../errors'
import { expectFlag, expectProbability, readOptions } from '../options'
import { defaultGenerator, Generator } from '../random'
import { likeOptions, type NewArguments, placeOf, readNew, type TensorOptions, tensorOptions } from '../tensor/create'
import type { Shape, Tensor } from '../tensor/tensor'
import { readShape } from './arguments'
import { sameShape } from './broadcast'
import { cast } from './operands'
import {
  type Backward,
  defineMethods,
  expectFloating,
  expectTensor,
  expectWritable,
  make,
  native,
  needsGrad,
  record,
  run,
  runInto,
} from './registry'
import { contiguous, copy_ } from './shape'

const uniformOp = native('uniform', 'seed,offset,low,high')
const normalOp = native('normal', 'seed,offset,mean,std')
const randintOp = native('randint', 'seed,offset,low,high')
const bernoulliOp = native('bernoulli', 'seed,offset')
const dropoutOp = native('dropout', 'seed,offset,p')
const dropoutAddOp = native('dropoutAdd', 'seed,offset,p')
const randpermOp = native('randperm', 'seed,offset')
const multinomialOp = native('multinomial', 'seed,offset,replacement')

/** Options of functions that draw numbers. */
export interface RandomOptions {
  /** The stream to draw from; by default the one that `random.seed` seeds. */
  generator?: Generator
}

type Options = TensorOptions & RandomOptions

const drawOptions = [...tensorOptions, 'generator'] as const

/** Seed and position for `elements` elements. */
function draw(op: string, elements: number, generator: Generator = defaultGenerator): [number, number] {
  if (!(generator instanceof Generator)) {
    throw new ArgumentError(op, {
      problem: 'not a generator',
      got: describeValue(generator),
      expected: 'a random.Generator',
    })
  }
  const { seed, offset } = generator.take(elements)
  return [seed, offset]
}

function expectNumber(op: string, what: string, value: unknown): number {
  if (typeof value !== 'number' || !Number.isFinite(value)) {
    throw new ArgumentError(op, { problem: `not a ${what}`, got: describeValue(value), expected: 'a finite number' })
  }
  return value
}

const count = (shape: Shape): number => shape.reduce((n, size) => n * size, 1)

function floatingCode(op: string, dtype: DType | undefined): number {
  const code = dtype === undefined ? FLOAT32 : dtypeCode(dtype, op)
  if (isFloatingCode(code)) return code
  throw new DTypeError(op, { problem: 'no fractions', got: dtype!, expected: 'a floating dtype' })
}

const withGrad = (x: Tensor, { requiresGrad }: Options): Tensor => (requiresGrad ? x.requiresGrad_() : x)

// --- new tensors --------------------------------------------------------------------------------------------------

/** Uniform numbers in [0, 1): (word >> 8) 2^-24, 53 bits for float64. `rand([2, 3])` or `rand(2, 3)`.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.rand.html
 *  @example rand([2, 3]).shape // [2, 3] */
export function rand(shape: readonly number[] | number, options?: Options): Tensor
export function rand(...sizes: number[]): Tensor
export function rand(...sizes: [...sizes: number[], options: Options]): Tensor
export function rand(...args: NewArguments<Options>): Tensor {
  const [sizes, options] = readNew('rand', args, drawOptions)
  const code = floatingCode('rand', options.dtype)
  const attrs = [...draw('rand', count(sizes), options.generator), 0, 1]
  return withGrad(make(uniformOp, sizes, code, placeOf(options), attrs), options)
}

/** Normal numbers of mean 0 and standard deviation 1 (Box & Muller 1958). `randn([2, 3])` or `randn(2, 3)`.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.randn.html
 *  @example randn([2, 3]).shape // [2, 3] */
export function randn(shape: readonly number[] | number, options?: Options): Tensor
export function randn(...sizes: number[]): Tensor
export function randn(...sizes: [...sizes: number[], options: Options]): Tensor
export function randn(...args: NewArguments<Options>): Tensor {
  const [sizes, options] = readNew('randn', args, drawOptions)
  const code = floatingCode('randn', options.dtype)
  const attrs = [...draw('randn', count(sizes), options.generator), 0, 1]
  return withGrad(make(normalOp, sizes, code, placeOf(options), attrs), options)
}

/** `rand` in another tensor's shape, dtype and device.
 *  @example randLike(zeros([2, 3])).shape // [2, 3] */
export function randLike(x: Tensor, options: Options = {}): Tensor {
  expectTensor('randLike', 'x', x)
  return rand(x.shape, likeOptions('randLike', x, options, drawOptions))
}

/** `randn` in another tensor's shape, dtype and device.
 *  @example randnLike(zeros([2, 3])).shape // [2, 3] */
export function randnLike(x: Tensor, options: Options = {}): Tensor {
  expectTensor('randnLike', 'x', x)
  return randn(x.shape, likeOptions('randnLike', x, options, drawOptions))
}

/** Whole numbers in [low, high), all equally likely: `randint(high, shape)` or `randint(low, high, shape)`; int64 unless
 *  `dtype` says otherwise.
 *  @throws ArgumentError when the range is empty
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.randint.html
 *  @example randint(10, [4]) */
export function randint(high: number, shape: readonly number[], options?: Options): Tensor
export function randint(low: number, high: number, shape: readonly number[], options?: Options): Tensor
export function randint(
  first: number,
  second: number | readonly number[],
  third?: readonly number[] | Options,
  fourth?: Options,
): Tensor {
  const ranged = typeof second === 'number'
  const [low, high] = ranged ? [first, second] : [0, first]
  const shape = (ranged ? third : second) as readonly number[]
  const [sizes, options] = readNew('randint', [shape, (ranged ? fourth : third) as Options | undefined], drawOptions)
  if (!Number.isSafeInteger(low) || !Number.isSafeInteger(high) || low >= high) {
    throw new ArgumentError('randint', {
      problem: 'the range is empty',
      got: `${describeValue(low)} to ${describeValue(high)}`,
      expected: 'whole numbers, low < high',
    })
  }
  const code = options.dtype === undefined ? INT64 : dtypeCode(options.dtype, 'randint')
  const attrs = [...draw('randint', count(sizes), options.generator), low, high]
  return withGrad(make(randintOp, sizes, code, placeOf(options), attrs), options)
}

/** The numbers 0 to n - 1 in random order, int64 (Fisher & Yates).
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.randperm.html
 *  @example randperm(5) */
export function randperm(n: number, options: RandomOptions & Pick<TensorOptions, 'device'> = {}): Tensor {
  const { generator, ...rest } = readOptions('randperm', options, ['generator', 'device'])
  const [size] = readShape('randperm', n) as [number]
  return make(randpermOp, [size], INT64, placeOf(rest), draw('randperm', size, generator))
}

/** 1 with the probability that x holds, else 0; x's shape and dtype, no gradient.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.bernoulli.html
 *  @example bernoulli(tensor([0, 1])) // [0, 1] */
export function bernoulli(x: Tensor, { generator }: RandomOptions = {}): Tensor {
  expectTensor('bernoulli', 'x', x)
  expectFloating('bernoulli', 'x', x)
  return run(bernoulliOp, [x], x.shape, x._dtype, draw('bernoulli', x.numel, generator))
}

/** `samples` positions of each row, drawn with the row's weights (which need not add up to 1).
 *  weights [n] or [rows, n] -> int64 [samples] or [rows, samples]. Default: without replacement.
 *  @throws ShapeError for more samples than weights without replacement. A negative or non-finite weight, or a row
 *  without any, is a StateError at the next wait
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.multinomial.html
 *  @example multinomial(tensor([0, 3, 1]), 1) */
export function multinomial(
  weights: Tensor,
  samples: number,
  options: RandomOptions & { replacement?: boolean } = {},
): Tensor {
  const { replacement = false, generator } = readOptions('multinomial', options, ['replacement', 'generator'])
  expectTensor('multinomial', 'weights', weights)
  expectFloating('multinomial', 'weights', weights)
  if (!Number.isInteger(samples) || samples < 1) {
    throw new ArgumentError('multinomial', {
      problem: 'not a number of samples',
      got: describeValue(samples),
      expected: 'a whole number of at least 1',
    })
  }
  const choices = weights.shape.at(-1)
  if (choices === undefined || choices === 0 || weights.ndim > 2 || (!replacement && samples > choices)) {
    throw new ShapeError('multinomial', {
      problem: 'the weights do not fit',
      got: `${describeShape(weights.shape)} for ${samples} samples`,
      expected: replacement ? '[n] or [rows, n]' : `[n] or [rows, n] with n >= ${samples}, or { replacement: true }`,
    })
  }
  const shape = [...weights.shape.slice(0, -1), samples]
  const drawn = Math.max(weights.numel, count(shape))
  return run(multinomialOp, [weights], shape, INT64, [...draw('multinomial', drawn, generator), replacement ? 1 : 0])
}

// --- in place -----------------------------------------------------------------------------------------------------

function fillRandom(op: string, x: Tensor, fill: (target: Tensor) => Tensor): Tensor {
  expectTensor(op, 'x', x)
  expectFloating(op, 'x', x)
  expectWritable(op, x)
  return x._strides === null ? fill(x) : copy_(x, fill(contiguous(x)))
}

/** Sets every element to a uniform number in [low, high); default [0, 1).
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.Tensor.uniform_.html
 *  @example zeros([2]).uniform_(5, 6).floor() // [5, 5] */
export function uniform_(x: Tensor, low = 0, high = 1, { generator }: RandomOptions = {}): Tensor {
  const range = [expectNumber('uniform_', 'bound', low), expectNumber('uniform_', 'bound', high)]
  return fillRandom('uniform_', x, (target) =>
    runInto(uniformOp, [], target, [...draw('uniform_', x.numel, generator), ...range]),
  )
}

/** Sets every element to a normal number; default mean 0, standard deviation 1.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.Tensor.normal_.html
 *  @example zeros([2]).normal_(5, 0) // [5, 5] */
export function normal_(x: Tensor, mean = 0, std = 1, { generator }: RandomOptions = {}): Tensor {
  const form = [expectNumber('normal_', 'mean', mean), expectNumber('normal_', 'standard deviation', std)]
  if (std < 0) {
    throw new ArgumentError('normal_', {
      problem: 'not a standard deviation',
      got: String(std),
      expected: 'at least 0',
    })
  }
  return fillRandom('normal_', x, (target) =>
    runInto(normalOp, [], target, [...draw('normal_', x.numel, generator), ...form]),
  )
}

// --- dropout ------------------------------------------------------------------------------------------------------

/** Sets elements to 0 with probability p and divides the others by 1 - p, while `training`; else x itself.
 *  Its gradient draws the same elements again from the stream's position: no mask is stored. Default p 0.5.
 *  @throws ArgumentError when p is not in [0, 1]
 *  @see Srivastava et al. 2014, "Dropout: A Simple Way to Prevent Neural Networks from Overfitting"
 *  @example dropout(ones([2, 2]), 0.5, false) // [[1, 1], [1, 1]] */
export function dropout(x: Tensor, p = 0.5, training = true, { generator }: RandomOptions = {}): Tensor {
  expectTensor('dropout', 'x', x)
  expectFloating('dropout', 'x', x)
  expectProbability('dropout', 'p', p)
  expectFlag('dropout', 'training', training)
  if (!training || p === 0) return x
  const attrs = [...draw('dropout', x.numel, generator), p]
  const apply = (input: Tensor): Tensor => run(dropoutOp, [input], x.shape, x._dtype, attrs)
  const y = apply(x)
  if (!needsGrad([x])) return y
  record({ name: 'dropout', autocast: 'keep', backward: (_, g) => apply(g) }, y, [x], [])
  y._recipe = { inputs: [x], compute: ([input], dtype) => cast(apply(input!), dtype) }
  return y
}

/** `residual + dropout(x, p)` in one pass over memory.
 *  x and residual of one shape -> the same shape, dtypes promote.
 *  @example dropoutAdd(tensor([1, 2]), tensor([3, 4]), 0.1, false) // [4, 6] */
export function dropoutAdd(
  x: Tensor,
  residual: Tensor,
  p = 0.5,
  training = true,
  { generator }: RandomOptions = {},
): Tensor {
  expectTensor('dropoutAdd', 'x', x)
  expectTensor('dropoutAdd', 'residual', residual)
  expectFloating('dropoutAdd', 'x', x)
  expectProbability('dropoutAdd', 'p', p)
  expectFlag('dropoutAdd', 'training', training)
  expectFloating('dropoutAdd', 'residual', residual)
  if (!sameShape(x.shape, residual.shape)) {
    throw new ShapeError('dropoutAdd', {
      problem: 'x and residual differ',
      got: `${describeShape(x.shape)} and ${describeShape(residual.shape)}`,
      expected: 'one shape',
    })
  }
  const dtype = promote(x._dtype, residual._dtype)
  const drops = training && p > 0
  const attrs = drops ? [...draw('dropoutAdd', x.numel, generator), p] : [0, 0, 0]
  const y = run(dropoutAddOp, [dtype === FLOAT64 ? cast(x, dtype) : x, cast(residual, dtype)], x.shape, dtype, attrs)
  const [xDType, residualDType] = [x._dtype, residual._dtype]
  const backward: Backward = (context, g) => [
    context.needs(0) ? (drops ? run(dropoutOp, [g], g.shape, xDType, attrs) : cast(g, xDType)) : null,
    context.needs(1) ? cast(g, residualDType) : null,
  ]
  return record({ name: 'dropoutAdd', autocast: 'keep', backward }, y, [x, residual], [])
}

declare module '../tensor/tensor' {
  interface Tensor {
    bernoulli(options?: RandomOptions): Tensor
    multinomial(samples: number, options?: RandomOptions & { replacement?: boolean }): Tensor
    uniform_(low?: number, high?: number, options?: RandomOptions): Tensor
    normal_(mean?: number, std?: number, options?: RandomOptions): Tensor
  }
}

defineMethods({ bernoulli, multinomial, uniform_, normal_ })
