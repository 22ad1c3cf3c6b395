// Losses that are compositions: their operators read each element a few times, which no model has noticed yet.
// Cross entropy with class targets, where it does matter, has kernels of its own (crossEntropy.ts).

import { autocasting } from '../autograd/autocast'
import { isFloatingCode } from '../dtype'
import { ArgumentError, describeShape, describeValue, ShapeError } from '../errors'
import { readOptions } from '../options'
import type { Tensor } from '../tensor/tensor'
import { softplus } from './activation'
import { autocast } from './autocast'
import { sameShape } from './broadcast'
import { eq, gt, logicalNot, lt, maskedFill, where } from './compare'
import {
  type CrossEntropyOptions,
  crossEntropyOfClasses,
  expectClassTarget,
  expectClassWeight,
  expectReduction,
  expectSmoothing,
  type Reduction,
} from './crossEntropy'
import { gather, indexSelect } from './indexing'
import { add, div, mul, sub } from './pointwise'
import { mean, sum } from './reduce'
import { expectFloating, expectTensor } from './registry'
import { reshape, squeeze, to, unsqueeze } from './shape'
import { logSoftmax } from './softmax'
import { abs, exp, log, neg, square } from './unary'

/** Options of losses between tensors of one shape. */
export interface LossOptions {
  /** Default 'mean'. */
  reduction?: Reduction
}

function reduced(op: string, losses: Tensor, reduction: Reduction): Tensor {
  expectReduction(op, reduction)
  return reduction === 'mean' ? mean(losses) : reduction === 'sum' ? sum(losses) : losses
}

function expectPair(op: string, input: Tensor, target: Tensor): void {
  for (const [name, each] of [
    ['input', input],
    ['target', target],
  ] as const) {
    expectTensor(op, name, each)
    expectFloating(op, name, each)
  }
}

// --- classes --------------------------------------------------------------------------------------------------------

/** Cross entropy between logits and classes: -log softmax(input)[target], one kernel each way; or, for targets that
 *  are probabilities, -sum_c target_c log softmax(input)_c.
 *  input [N, C], [C] or [N, C, d...]; target [N], [] or [N, d...] of an integer dtype, or floating and shaped like input
 *  -> [] or, without reduction, one loss for each row. The gradient of an ignored row is 0; when all are ignored, the
 *  mean is NaN. A mean of weighted classes divides by the sum of the targets' weights, that of probabilities by the
 *  number of rows. Classes outside of [0, C) are found on the device: the next wait throws.
 *  @throws ShapeError when shapes do not fit; DTypeError for targets that are neither
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.cross_entropy.html
 *  @example crossEntropy(logits, target, { ignoreIndex: -100 }) */
export function crossEntropy(input: Tensor, target: Tensor, options: CrossEntropyOptions = {}): Tensor {
  readOptions('crossEntropy', options, ['weight', 'ignoreIndex', 'reduction', 'labelSmoothing'])
  expectTensor('crossEntropy', 'target', target)
  if (!isFloatingCode(target._dtype)) return crossEntropyOfClasses(input, target, options)
  return crossEntropyOfProbabilities(input, target, options)
}

function crossEntropyOfProbabilities(
  input: Tensor,
  target: Tensor,
  { weight = null, labelSmoothing = 0, reduction = 'mean' }: CrossEntropyOptions,
): Tensor {
  const op = 'crossEntropy'
  expectPair(op, input, target)
  if (autocasting) {
    input = autocast(op, input)
    target = autocast(op, target)
  }
  expectReduction(op, reduction)
  expectSmoothing(op, labelSmoothing)
  const classDim = input.ndim === 1 ? 0 : 1
  const classes = input.shape[classDim] ?? 0
  if (target.ndim === input.ndim - 1) expectClassTarget(op, target) // it is meant to be one
  if (classes === 0 || target.ndim !== input.ndim || target.shape.some((size, d) => size !== input.shape[d])) {
    throw new ShapeError(op, {
      problem: 'probabilities do not fit',
      got: `input ${describeShape(input.shape)} and target ${describeShape(target.shape)}`,
      expected: 'equal shapes',
    })
  }
  const spread = labelSmoothing > 0 ? add(mul(target, 1 - labelSmoothing), labelSmoothing / classes) : target
  let terms = mul(logSoftmax(input, classDim), spread)
  if (weight !== null) {
    expectClassWeight(op, weight, classes)
    terms = mul(terms, reshape(weight, [classes, ...Array<number>(input.ndim - 1 - classDim).fill(1)]))
  }
  const losses = neg(sum(terms, classDim))
  return reduced(op, losses, reduction)
}

/** Negative log likelihood: -input[target] of log-probabilities, as logSoftmax gives them.
 *  input [N, C], [C] or [N, C, d...], target [N], [] or [N, d...] of an integer dtype; weight, ignoreIndex and reduction
 *  as in crossEntropy.
 *  @throws ShapeError when shapes do not fit
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.nll_loss.html
 *  @example nllLoss(logSoftmax(logits, 1), target) */
export function nllLoss(
  input: Tensor,
  target: Tensor,
  options: Omit<CrossEntropyOptions, 'labelSmoothing'> = {},
): Tensor {
  const op = 'nllLoss'
  const names = ['weight', 'ignoreIndex', 'reduction'] as const
  const { weight = null, ignoreIndex = -100, reduction = 'mean' } = readOptions(op, options, names)
  expectTensor(op, 'input', input)
  expectFloating(op, 'input', input)
  if (autocasting) input = autocast(op, input)
  expectClassTarget(op, target)
  expectReduction(op, reduction)
  const classDim = input.ndim === 1 ? 0 : 1
  const classes = input.shape[classDim] ?? 0
  const rows = input.shape.filter((_, d) => d !== classDim)
  if (classes === 0 || rows.length !== target.ndim || rows.some((size, d) => size !== target.shape[d])) {
    throw new ShapeError(op, {
      problem: 'input and target do not fit',
      got: `input ${describeShape(input.shape)} and target ${describeShape(target.shape)}`,
      expected: 'input [N, C, ...] and target [N, ...], or [C] and []',
    })
  }
  const ignored = eq(target, ignoreIndex)
  const index = to(maskedFill(target, ignored, 0), 'int64')
  let losses = neg(squeeze(gather(input, classDim, unsqueeze(index, classDim)), classDim))
  let divisor = to(logicalNot(ignored), input.dtype)
  if (weight !== null) {
    expectClassWeight(op, weight, classes)
    const weights = reshape(indexSelect(weight, 0, reshape(index, [index.numel])), rows)
    losses = mul(losses, weights)
    divisor = mul(weights, divisor)
  }
  losses = maskedFill(losses, ignored, 0)
  if (reduction === 'none') return losses
  return reduction === 'sum' ? sum(losses) : div(sum(losses), sum(divisor))
}

// --- distances ------------------------------------------------------------------------------------------------------

/** (input - target)^2.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.mse_loss.html
 *  @example mseLoss(tensor([1, 2]), tensor([1, 4])) // 2 */
export function mseLoss(input: Tensor, target: Tensor, options: LossOptions = {}): Tensor {
  const { reduction = 'mean' } = readOptions('mseLoss', options, ['reduction'])
  expectPair('mseLoss', input, target)
  if (autocasting) {
    input = autocast('mseLoss', input)
    target = autocast('mseLoss', target)
  }
  return reduced('mseLoss', square(sub(input, target)), reduction)
}

/** |input - target|, with gradient 0 where they are equal.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.l1_loss.html
 *  @example l1Loss(tensor([1, 2]), tensor([1, 4])) // 1 */
export function l1Loss(input: Tensor, target: Tensor, options: LossOptions = {}): Tensor {
  const { reduction = 'mean' } = readOptions('l1Loss', options, ['reduction'])
  expectPair('l1Loss', input, target)
  if (autocasting) {
    input = autocast('l1Loss', input)
    target = autocast('l1Loss', target)
  }
  return reduced('l1Loss', abs(sub(input, target)), reduction)
}

/** d^2 / (2 beta) where d = |input - target| is below beta (default 1), d - beta / 2 above; l1Loss when beta is 0.
 *  @throws ArgumentError for a negative beta
 *  @see Girshick 2015, arXiv:1504.08083, eq. 3
 *  @example smoothL1Loss(tensor([0.5, 3]), tensor([0, 0]), { reduction: 'none' }) // [0.125, 2.5] */
export function smoothL1Loss(input: Tensor, target: Tensor, options: LossOptions & { beta?: number } = {}): Tensor {
  const op = 'smoothL1Loss'
  const { reduction = 'mean', beta = 1 } = readOptions(op, options, ['reduction', 'beta'])
  expectPair(op, input, target)
  if (autocasting) {
    input = autocast(op, input)
    target = autocast(op, target)
  }
  if (!(beta >= 0)) throw new ArgumentError(op, { problem: 'beta is negative', got: describeValue(beta) })
  const difference = sub(input, target)
  const distance = abs(difference)
  if (beta === 0) return reduced(op, distance, reduction)
  const near = mul(square(difference), 0.5 / beta)
  return reduced(op, where(lt(distance, beta), near, sub(distance, 0.5 * beta)), reduction)
}

// --- probabilities --------------------------------------------------------------------------------------------------

/** Options of binaryCrossEntropyWithLogits. */
export interface BinaryCrossEntropyOptions extends LossOptions {
  /** Factor of each loss; broadcasts. */
  weight?: Tensor | null
  /** Factor of the positive examples' part; broadcasts. */
  posWeight?: Tensor | null
}

/** -[posWeight y log sigmoid(x) + (1 - y) log(1 - sigmoid(x))], as (1 - y) x + (1 + (posWeight - 1) y) softplus(-x),
 *  which overflows nowhere.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.binary_cross_entropy_with_logits.html
 *  @example binaryCrossEntropyWithLogits(tensor([0]), tensor([1])) // 0.6931 */
export function binaryCrossEntropyWithLogits(
  input: Tensor,
  target: Tensor,
  options: BinaryCrossEntropyOptions = {},
): Tensor {
  const op = 'binaryCrossEntropyWithLogits'
  const names = ['weight', 'posWeight', 'reduction'] as const
  const { weight = null, posWeight = null, reduction = 'mean' } = readOptions(op, options, names)
  expectPair(op, input, target)
  if (autocasting) {
    input = autocast(op, input)
    target = autocast(op, target)
  }
  if (!sameShape(input.shape, target.shape)) {
    throw new ShapeError(op, {
      problem: 'input and target differ in shape',
      got: `input ${describeShape(input.shape)} and target ${describeShape(target.shape)}`,
      expected: 'equal shapes',
      action: 'reshape one of them: broadcasting would compare each with every other',
    })
  }
  let positive = softplus(neg(input))
  if (posWeight !== null) positive = mul(add(mul(sub(posWeight, 1), target), 1), positive)
  let losses = add(mul(sub(1, target), input), positive)
  if (weight !== null) losses = mul(losses, weight)
  return reduced(op, losses, reduction)
}

export { binaryCrossEntropyWithLogits as bceWithLogits }

/** Kullback-Leibler divergence: target (log target - input), where input holds log-probabilities (and target too, with
 *  `logTarget`). 'batchmean' divides the sum by the first dim, which is the divergence's definition; 'mean' divides by
 *  the number of elements.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.kl_div.html
 *  @example klDiv(logSoftmax(x, 1), softmax(y, 1), { reduction: 'batchmean' }) */
export function klDiv(
  input: Tensor,
  target: Tensor,
  options: { reduction?: Reduction | 'batchmean'; logTarget?: boolean } = {},
): Tensor {
  const op = 'klDiv'
  const { reduction = 'mean', logTarget = false } = readOptions(op, options, ['reduction', 'logTarget'])
  expectPair(op, input, target)
  if (autocasting) {
    input = autocast(op, input)
    target = autocast(op, target)
  }
  // 0 log 0 is 0: the logarithm of what stands in its place meets the factor 0
  const logarithm = logTarget ? target : log(where(gt(target, 0), target, 1))
  const losses = mul(logTarget ? exp(target) : target, sub(logarithm, input))
  if (reduction !== 'batchmean') return reduced(op, losses, reduction)
  return div(sum(losses), Math.max(input.shape[0] ?? 1, 1))
}
