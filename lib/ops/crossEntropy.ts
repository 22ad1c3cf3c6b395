// Cross entropy with class targets, by itself and joined with the linear layer before it.

import { autocasting } from '../autograd/autocast'
import { FLOAT16, FLOAT32, INT32, INT64, statisticsDType, UINT8 } from '../dtype'
import { ArgumentError, DTypeError, describeShape, describeValue, ShapeError, StateError } from '../errors'
import { readOptions } from '../options'
import { tidy } from '../tensor/scope'
import { contiguousStrides, type Shape, sameShape, Tensor } from '../tensor/tensor'
import { autocastProduct, autocastsToFloat32 } from './autocast'
import {
  expectFloating,
  expectTensor,
  type NativeOp,
  native,
  needsGrad,
  type OpRecord,
  type Output,
  record,
  run,
  runMany,
} from './registry'
import { permute, reshape } from './shape'

/** What becomes of the losses of single elements: their mean, their sum, or nothing. */
export type Reduction = 'mean' | 'sum' | 'none'

/** Options of crossEntropy. */
export interface CrossEntropyOptions {
  /** Weight of each class, [C]. A mean divides by the sum of the weights of the targets. */
  weight?: Tensor | null
  /** Target that counts for nothing; default -100. */
  ignoreIndex?: number
  /** Share of the target's probability that is spread over all classes; default 0. */
  labelSmoothing?: number
  /** Default 'mean', over what is not ignored. */
  reduction?: Reduction
}

const crossEntropyOp = native('crossEntropy', 'ignoreIndex,labelSmoothing,reduction')
const crossEntropyBackwardOp = native('crossEntropyBackward', 'ignoreIndex,labelSmoothing,reduction')
const linearCrossEntropyOp = native(
  'linearCrossEntropy',
  'ignoreIndex,labelSmoothing,reduction,gradients,skipIgnored,products,chunkBytes',
)
const scaleOp: NativeOp = native('scaleByScalar')
const copyOp = native('copy')

const codes: Readonly<Record<Reduction, number>> = { none: 0, mean: 1, sum: 2 }

/** @internal The native code of a reduction. */
export function expectReduction(op: string, reduction: Reduction): number {
  const code = Object.hasOwn(codes, reduction) ? codes[reduction] : undefined
  if (code === undefined) {
    throw new ArgumentError(op, {
      problem: 'unknown reduction',
      got: describeValue(reduction),
      expected: "'mean', 'sum' or 'none'",
    })
  }
  return code
}

/** @internal */
export function expectClassTarget(op: string, target: Tensor): void {
  expectTensor(op, 'target', target)
  if (target._dtype !== INT64 && target._dtype !== INT32 && target._dtype !== UINT8) {
    throw new DTypeError(op, {
      problem: 'target has no class indices',
      got: target.dtype,
      expected: 'int64, int32 or uint8',
      action: "make class indices with { dtype: 'int64' }, or convert them with .to('int64')",
    })
  }
}

/** @internal */
export function expectClassWeight(op: string, weight: Tensor, classes: number): void {
  expectTensor(op, 'weight', weight)
  expectFloating(op, 'weight', weight)
  if (weight.ndim !== 1 || weight.shape[0] !== classes) {
    throw new ShapeError(op, {
      problem: 'class weights do not fit',
      got: describeShape(weight.shape),
      expected: `${describeShape([classes])}, one for each class`,
    })
  }
}

/** @internal */
export function expectSmoothing(op: string, labelSmoothing: number): void {
  if (!(labelSmoothing >= 0 && labelSmoothing <= 1)) {
    throw new ArgumentError(op, {
      problem: 'labelSmoothing is not a share',
      got: describeValue(labelSmoothing),
      expected: '0 to 1',
    })
  }
}

function options(
  op: string,
  { ignoreIndex = -100, labelSmoothing = 0, reduction = 'mean' }: CrossEntropyOptions,
): number[] {
  if (!Number.isSafeInteger(ignoreIndex)) {
    throw new ArgumentError(op, { problem: 'ignoreIndex is not a whole number', got: describeValue(ignoreIndex) })
  }
  expectSmoothing(op, labelSmoothing)
  return [ignoreIndex, labelSmoothing, expectReduction(op, reduction)]
}

// --- cross entropy --------------------------------------------------------------------------------------------------

const crossEntropyRecord: OpRecord = { name: 'crossEntropy', autocast: 'float32', backward: () => null }

/** @internal Losses of rows: logits [N, C], target [N] -> [] or [N]. The kernel reads 16-bit logits as they are, also
 *  under autocast, which asks for a loss in float32. */
export function crossEntropyRows(logits: Tensor, target: Tensor, weight: Tensor | null, attrs: number[]): Tensor {
  const [rows] = logits.shape as [number]
  const statistics = statisticsDType(logits._dtype)
  const lossDType = autocasting && autocastsToFloat32('crossEntropy', logits) ? FLOAT32 : logits._dtype
  const inputs = weight === null ? [logits, target] : [logits, target, weight]
  const [loss, logsumexp, divisor] = runMany(
    crossEntropyOp,
    inputs,
    [
      [attrs[2] === 0 ? [rows] : [], lossDType],
      [[rows], statistics],
      [[], statistics],
    ],
    attrs,
  ) as [Tensor, Tensor, Tensor]
  if (needsGrad([logits])) {
    const saved = [logits, target, logsumexp, divisor]
    if (weight !== null) saved.push(weight)
    record(crossEntropyRecord, loss, [logits], saved, (context, g) => {
      const operands = saved.map((_, i) => context.saved(i))
      return run(crossEntropyBackwardOp, [g, ...operands], operands[0]!.shape, operands[0]!._dtype, attrs)
    })
  }
  for (const each of [logsumexp, divisor]) each.dispose() // the tape's from here on
  return loss
}

/** @internal crossEntropy with class targets. */
export function crossEntropyOfClasses(input: Tensor, target: Tensor, given: CrossEntropyOptions = {}): Tensor {
  const op = 'crossEntropy'
  expectTensor(op, 'input', input)
  expectFloating(op, 'input', input)
  expectClassTarget(op, target)
  const { shape } = input
  const classDim = shape.length === 1 ? 0 : 1
  const classes = shape[classDim] ?? 0
  const rows = shape.filter((_, d) => d !== classDim)
  if (classes === 0 || rows.length !== target.ndim || rows.some((size, d) => size !== target.shape[d])) {
    throw new ShapeError(op, {
      problem: 'input and target do not fit',
      got: `input ${describeShape(shape)} and target ${describeShape(target.shape)}`,
      expected: 'input [N, C, ...] and target [N, ...], or [C] and []',
      action: 'for sequences flatten both: logits.view(B * T, V) and target.view(B * T)',
    })
  }
  const weight = given.weight ?? null
  if (weight !== null) expectClassWeight(op, weight, classes)
  const attrs = options(op, given)
  if (shape.length === 2) return crossEntropyRows(input, target, weight, attrs)
  return tidy(() => {
    const last = shape.length > 2 ? permute(input, [0, ...rows.slice(1).map((_, i) => i + 2), 1]) : input
    const logits = reshape(last, [target.numel, classes])
    const loss = crossEntropyRows(logits, reshape(target, [target.numel]), weight, attrs)
    return loss.shape.length === 0 ? loss : reshape(loss, target.shape as number[])
  })
}

// --- linear + cross entropy -----------------------------------------------------------------------------------------

const linearCrossEntropyRecord: OpRecord = { name: 'linearCrossEntropy', autocast: 'lower', backward: () => null }

/** Another handle on the same elements: gradients outlive the tape, which frees what it saved. Nobody else has the
 *  elements then, so the result is no view and can become a parameter's `.grad` without a copy. */
function handOver(x: Tensor, shape: Shape): Tensor {
  const owner = Tensor._view(x, shape, contiguousStrides(shape), 0)
  ;(owner as { _base: Tensor | null })._base = null
  return owner
}

// Gradients of float16 stay in float32 until the incoming one is known: by themselves they would leave float16's range,
// which is what a loss scale is there for.
const keptIn = (dtype: number): number => (dtype === FLOAT16 ? FLOAT32 : dtype)

/** @internal Bytes of logits that `linearCrossEntropy` holds at once unless it is told otherwise. Every chunk reads the
 *  weight twice and its gradient once. */
export const logitChunkBytes = 256 << 20

/** Options of `linearCrossEntropy`. */
export interface LinearCrossEntropyOptions extends Omit<CrossEntropyOptions, 'weight'> {
  /** Weight of each class [C]; `weight` is the layer's. */
  classWeight?: Tensor | null
  /** Leaves ignored rows out of the products. Default true. */
  skipIgnored?: boolean
  /** Logits that are there at once, in bytes; default 256 MB. More of them make fewer, larger products. */
  chunkBytes?: number
}

const linearOptionNames = [
  'classWeight',
  'skipIgnored',
  'chunkBytes',
  'ignoreIndex',
  'labelSmoothing',
  'reduction',
] as const

/** crossEntropy(linear(x, weight), target) without the logits: rows pass in chunks of at most `chunkBytes` of them, and
 *  the gradients are made along with the loss, while a chunk is at hand. Ignored rows cost nothing, unless
 *  `skipIgnored` is false (for measuring).
 *  x [..., K], weight [C, K] of one floating dtype (under autocast of any), target with one class index for each row of x
 *  -> float32 [] (float64 for float64). `classWeight`, ignoreIndex, labelSmoothing and reduction ('mean' or 'sum') as in
 *  crossEntropy.
 *  backward() can pass once, also with `retainGraph`: the first pass takes the gradients.
 *  @throws ShapeError when shapes do not fit; DTypeError when dtypes do not; ArgumentError for an
 *  option that does not exist or makes no sense; StateError when backward passes a second time
 *  @see Wijmans et al. 2024, arXiv:2411.09009
 *  @example linearCrossEntropy(hidden, head.weight, target, { ignoreIndex: -100 }) */
export function linearCrossEntropy(
  x: Tensor,
  weight: Tensor,
  target: Tensor,
  optionsGiven: LinearCrossEntropyOptions = {},
): Tensor {
  const op = 'linearCrossEntropy'
  if (optionsGiven !== null && typeof optionsGiven === 'object' && 'weight' in optionsGiven) {
    const action = "write classWeight; weight is the layer's and comes second"
    throw new ArgumentError(op, { problem: 'unknown option', got: 'weight', action })
  }
  const read = readOptions(op, optionsGiven, linearOptionNames)
  const { classWeight = null, skipIgnored = true, chunkBytes = logitChunkBytes, ...given } = read
  for (const [name, each] of [
    ['x', x],
    ['weight', weight],
  ] as const) {
    expectTensor(op, name, each)
    expectFloating(op, name, each)
  }
  expectClassTarget(op, target)
  const width = x.shape[x.ndim - 1] ?? 0
  const rows = target.numel
  if (x.ndim === 0 || weight.ndim !== 2 || weight.shape[1] !== width || weight.shape[0] === 0) {
    throw new ShapeError(op, {
      problem: 'x and weight do not fit',
      got: `x ${describeShape(x.shape)} and weight ${describeShape(weight.shape)}`,
      expected: '[..., K] and [C, K]',
    })
  }
  const leading = x.shape.slice(0, -1)
  if (!sameShape(target.shape, leading) && !sameShape(target.shape, [leading.reduce((a, b) => a * b, 1)])) {
    throw new ShapeError(op, {
      problem: 'x and target do not fit',
      got: `x ${describeShape(x.shape)} and target ${describeShape(target.shape)}`,
      expected: 'one target for each row of x: the shape of x without its last dim, or [rows]',
    })
  }
  const low = autocasting ? autocastProduct(op, [x, weight]) : -1
  if (low < 0 && x._dtype !== weight._dtype) {
    throw new DTypeError(op, { problem: 'dtypes differ', got: `x ${x.dtype} and weight ${weight.dtype}` })
  }
  if (classWeight !== null) expectClassWeight(op, classWeight, weight.shape[0]!)
  const [ignoreIndex, labelSmoothing, reduction] = options(op, given) as [number, number, number]
  if (reduction === 0) {
    throw new ArgumentError(op, {
      problem: 'there is no loss of single rows',
      got: "reduction 'none'",
      expected: "'mean' or 'sum'",
      action: 'use linear and crossEntropy',
    })
  }
  if (!(Number.isSafeInteger(chunkBytes) && chunkBytes > 0)) {
    throw new ArgumentError(op, { problem: 'chunkBytes is not a size', got: describeValue(chunkBytes) })
  }
  const matrix = x.ndim === 2 ? x : reshape(x, [rows, width])
  const wanted = needsGrad([matrix, weight])
  const statistics = statisticsDType(x._dtype)
  const gradients: Output[] = [
    [wanted ? matrix.shape : [0], keptIn(x._dtype)],
    [wanted ? weight.shape : [0], keptIn(weight._dtype)],
  ]
  const labels = target.ndim === 1 ? target : reshape(target, [rows])
  const inputs = [matrix, weight, labels]
  if (classWeight !== null) inputs.push(classWeight)
  const [loss, divisor, dx, dweight] = runMany(
    linearCrossEntropyOp,
    inputs,
    [[[], statistics], [[], statistics], ...gradients],
    [ignoreIndex, labelSmoothing, reduction, wanted ? 1 : 0, skipIgnored ? 1 : 0, Math.max(low, FLOAT32), chunkBytes],
  ) as [Tensor, Tensor, Tensor, Tensor]
  divisor.dispose()
  if (labels !== target) labels.dispose()
  if (!wanted) {
    for (const each of [dx, dweight]) each.dispose()
    if (matrix !== x) matrix.dispose()
    return loss
  }
  const dtypes = [x._dtype, weight._dtype]
  let isSpent = false
  record(linearCrossEntropyRecord, loss, [matrix, weight], [dx, dweight], (context, g) => {
    if (isSpent) {
      throw new StateError(`backward of ${op}`, {
        problem:
          'backward can pass once through it: its gradients were made along with the loss, and the first pass took them',
        action: 'use linear and crossEntropy to pass again',
      })
    }
    isSpent = true
    const made = [context.saved(0), context.saved(1)]
    const factor = g._dtype === statistics ? g : run(copyOp, [g], [], statistics)
    for (const each of made) each._accumulates = true // unscaled they are no gradients
    runMany(scaleOp, [factor], made)
    return made.map((each, i) => {
      if (!context.needs(i)) return null
      return each._dtype === dtypes[i] ? handOver(each, each.shape) : run(copyOp, [each], each.shape, dtypes[i]!)
    })
  })
  for (const each of [dx, dweight]) each.dispose() // the tape's from here on
  if (matrix !== x) matrix.dispose()
  return loss
}
