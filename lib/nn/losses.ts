// Losses as modules; each is the operator of its name in `ops`.

import { binaryCrossEntropyWithLogits, crossEntropy, klDiv, l1Loss, mseLoss, nllLoss, smoothL1Loss } from '../ops/index'
import { expectProbability, readOptions } from '../options'
import type { Tensor } from '../tensor/tensor'
import { expectOneOf } from './arguments'
import { Module } from './module'

/** What becomes of the losses of single elements: their mean, their sum, or nothing. */
export type Reduction = 'mean' | 'sum' | 'none'

const reductions = ['mean', 'sum', 'none'] as const

/** Options of losses over classes. */
export interface ClassLossOptions {
  /** Weight of each class, [C]. */
  weight?: Tensor | null
  /** Target that counts for nothing; default -100. */
  ignoreIndex?: number
  /** Default 'mean', over what is not ignored. */
  reduction?: Reduction
}

/** Cross entropy between logits and class targets.
 *  input [N, C] or [N, C, ...] or [C], target [N], [N, ...] or [] of an integer dtype (or probabilities shaped like
 *  input) -> [] or, without reduction, the target's shape. With every target ignored the mean is NaN.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.nn.CrossEntropyLoss.html
 *  @example new nn.CrossEntropyLoss({ labelSmoothing: 0.1 }).forward(logits, targets) */
export class CrossEntropyLoss extends Module {
  readonly ignoreIndex: number
  readonly reduction: Reduction
  readonly labelSmoothing: number
  weight: Tensor | null = null

  constructor(options: ClassLossOptions & { labelSmoothing?: number } = {}) {
    super()
    readOptions('CrossEntropyLoss', options, ['weight', 'ignoreIndex', 'reduction', 'labelSmoothing'])
    const { weight = null, ignoreIndex = -100, reduction = 'mean', labelSmoothing = 0 } = options
    this.ignoreIndex = ignoreIndex
    this.reduction = expectOneOf('CrossEntropyLoss', 'reduction', reduction, reductions)
    this.labelSmoothing = expectProbability('CrossEntropyLoss', 'labelSmoothing', labelSmoothing)
    if (weight !== null) this.registerBuffer('weight', weight)
  }

  forward(input: Tensor, target: Tensor): Tensor {
    const { weight, ignoreIndex, reduction, labelSmoothing } = this
    return crossEntropy(input, target, { weight, ignoreIndex, reduction, labelSmoothing })
  }
}

/** Negative log likelihood of log-probabilities, as logSoftmax gives them.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.nn.NLLLoss.html
 *  @example new nn.NLLLoss().forward(ops.logSoftmax(logits, 1), targets) */
export class NLLLoss extends Module {
  readonly ignoreIndex: number
  readonly reduction: Reduction
  weight: Tensor | null = null

  constructor(options: ClassLossOptions = {}) {
    super()
    readOptions('NLLLoss', options, ['weight', 'ignoreIndex', 'reduction'])
    const { weight = null, ignoreIndex = -100, reduction = 'mean' } = options
    this.ignoreIndex = ignoreIndex
    this.reduction = expectOneOf('NLLLoss', 'reduction', reduction, reductions)
    if (weight !== null) this.registerBuffer('weight', weight)
  }

  forward(input: Tensor, target: Tensor): Tensor {
    const { weight, ignoreIndex, reduction } = this
    return nllLoss(input, target, { weight, ignoreIndex, reduction })
  }
}

/** (input - target)². @see https://docs.pytorch.org/docs/stable/generated/torch.nn.MSELoss.html
 *  @example new nn.MSELoss().forward(tensor([1, 2]), tensor([1, 4])) // 2 */
export class MSELoss extends Module {
  readonly reduction: Reduction

  constructor(options: { reduction?: Reduction } = {}) {
    super()
    const { reduction = 'mean' } = readOptions('MSELoss', options, ['reduction'])
    this.reduction = expectOneOf('MSELoss', 'reduction', reduction, reductions)
  }

  forward(input: Tensor, target: Tensor): Tensor {
    return mseLoss(input, target, { reduction: this.reduction })
  }
}

/** |input - target|. @see https://docs.pytorch.org/docs/stable/generated/torch.nn.L1Loss.html
 *  @example new nn.L1Loss().forward(tensor([1, 2]), tensor([1, 4])) // 1 */
export class L1Loss extends Module {
  readonly reduction: Reduction

  constructor(options: { reduction?: Reduction } = {}) {
    super()
    const { reduction = 'mean' } = readOptions('L1Loss', options, ['reduction'])
    this.reduction = expectOneOf('L1Loss', 'reduction', reduction, reductions)
  }

  forward(input: Tensor, target: Tensor): Tensor {
    return l1Loss(input, target, { reduction: this.reduction })
  }
}

/** Squared below beta, linear above. @see https://docs.pytorch.org/docs/stable/generated/torch.nn.SmoothL1Loss.html
 *  @example new nn.SmoothL1Loss().forward(tensor([0.5]), tensor([0])) // 0.125 */
export class SmoothL1Loss extends Module {
  readonly reduction: Reduction
  readonly beta: number

  constructor(options: { reduction?: Reduction; beta?: number } = {}) {
    super()
    const { reduction = 'mean', beta = 1 } = readOptions('SmoothL1Loss', options, ['reduction', 'beta'])
    this.reduction = expectOneOf('SmoothL1Loss', 'reduction', reduction, reductions)
    this.beta = beta
  }

  forward(input: Tensor, target: Tensor): Tensor {
    return smoothL1Loss(input, target, { reduction: this.reduction, beta: this.beta })
  }
}

/** Binary cross entropy of sigmoid(input), without overflow; posWeight multiplies the positive examples' part.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.nn.BCEWithLogitsLoss.html
 *  @example new nn.BCEWithLogitsLoss().forward(tensor([0]), tensor([1])) // 0.6931 */
export class BCEWithLogitsLoss extends Module {
  readonly reduction: Reduction
  weight: Tensor | null = null
  posWeight: Tensor | null = null

  constructor(options: { weight?: Tensor | null; posWeight?: Tensor | null; reduction?: Reduction } = {}) {
    super()
    readOptions('BCEWithLogitsLoss', options, ['weight', 'posWeight', 'reduction'])
    const { weight = null, posWeight = null, reduction = 'mean' } = options
    this.reduction = expectOneOf('BCEWithLogitsLoss', 'reduction', reduction, reductions)
    if (weight !== null) this.registerBuffer('weight', weight)
    if (posWeight !== null) this.registerBuffer('posWeight', posWeight)
  }

  forward(input: Tensor, target: Tensor): Tensor {
    const { weight, posWeight, reduction } = this
    return binaryCrossEntropyWithLogits(input, target, { weight, posWeight, reduction })
  }
}

/** target (log target - input), where input holds log-probabilities; 'batchmean' divides by the first dim.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.nn.KLDivLoss.html
 *  @example new nn.KLDivLoss({ reduction: 'batchmean' }).forward(ops.logSoftmax(x, 1), ops.softmax(y, 1)) */
export class KLDivLoss extends Module {
  readonly reduction: Reduction | 'batchmean'
  readonly logTarget: boolean

  constructor(options: { reduction?: Reduction | 'batchmean'; logTarget?: boolean } = {}) {
    super()
    const { reduction = 'mean', logTarget = false } = readOptions('KLDivLoss', options, ['reduction', 'logTarget'])
    this.reduction = expectOneOf('KLDivLoss', 'reduction', reduction, [...reductions, 'batchmean'] as const)
    this.logTarget = logTarget
  }

  forward(input: Tensor, target: Tensor): Tensor {
    return klDiv(input, target, { reduction: this.reduction, logTarget: this.logTarget })
  }
}
