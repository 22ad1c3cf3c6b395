// Adam and AdamW.

import type { DType } from '../dtype'
import { ArgumentError, describeValue } from '../errors'
import { sameShape } from '../ops/broadcast'
import { adam8bitStep, adamStep, dequantizeBlocks, quantizeBlocks, quantizedBlock } from '../ops/optim'
import { zeros } from '../tensor/create'
import { unscoped } from '../tensor/scope'
import type { Tensor } from '../tensor/tensor'
import { checkRange, withDefaults, zerosFor } from './arguments'
import { Optimizer, type OptimizerState, type ParamGroup, type ParamState, type Params } from './optimizer'

/** Options of Adam and AdamW. */
export interface AdamOptions {
  /** Learning rate; default 1e-3. */
  lr: number
  /** Decay of the averages of gradient and squared gradient; default [0.9, 0.999]. */
  betas: readonly [number, number]
  /** Added to the root of the corrected second average; default 1e-8. */
  eps: number
  /** Default 0.01 for AdamW, where it is decoupled from the gradient, and 0 for Adam, where it is an L2 penalty. */
  weightDecay: number
  /** Divides by the largest second average so far; default false. */
  amsgrad: boolean
  /** Ascends; default false. */
  maximize: boolean
  /** 8 keeps both averages in 8 bits, in blocks of 256 elements with a magnitude each: 2.03 bytes a parameter instead of
   *  8. An average is off by at most 0.71 % of its block's largest (0.36 % for squares, which never round to 0); the
   *  update itself is computed in float32. Tensors of fewer than 4096 elements, and float64 ones, stay as they are; so
   *  should embeddings, in a group with `stateBits: 32`. Not with amsgrad. Default 32. */
  stateBits: 8 | 32
}

abstract class AdamFamily extends Optimizer<AdamOptions> {
  /** @internal */
  override readonly _decidesOnDevice = true
  protected abstract readonly decoupled: boolean

  /** @internal */
  protected check(options: AdamOptions): void {
    const name = this.constructor.name
    checkRange(name, 'lr', options.lr, 0)
    checkRange(name, 'eps', options.eps, 0)
    checkRange(name, 'betas[0]', options.betas?.[0], 0, 1)
    checkRange(name, 'betas[1]', options.betas?.[1], 0, 1)
    checkRange(name, 'weightDecay', options.weightDecay, 0)
    const { stateBits = 32, amsgrad } = options // states of earlier versions lack it
    if (stateBits !== 32 && (stateBits !== 8 || amsgrad)) {
      throw new ArgumentError(name, {
        problem: 'no such state',
        got: `stateBits ${describeValue(stateBits)}${amsgrad ? ' with amsgrad' : ''}`,
        expected: '32, or 8 without amsgrad',
      })
    }
  }

  /** @internal */
  protected update(group: ParamGroup<AdamOptions>, params: Tensor[]): void {
    const narrow = group.stateBits === 8 ? params.filter(isLarge) : []
    const wide = narrow.length === 0 ? params : params.filter((param) => !isLarge(param))
    for (const param of params) this.convert(param, group.stateBits === 8 && isLarge(param))
    const names = group.amsgrad ? ['expAvg', 'expAvgSq', 'maxExpAvgSq'] : ['expAvg', 'expAvgSq']
    for (const cohort of this.cohorts(wide)) {
      adamStep(this.operands(cohort, names), group, this.decoupled, cohort.step)
      this.countStep(cohort)
    }
    for (const cohort of this.cohorts(narrow)) {
      adam8bitStep(this.operands(cohort, narrowNames), group, this.decoupled, cohort.step)
      this.countStep(cohort)
    }
  }

  /** @internal */
  protected override create(group: ParamGroup<AdamOptions>, param: Tensor): ParamState {
    if (group.stateBits === 8 && isLarge(param)) return { step: 0, ...narrowZeros(param) }
    const state: ParamState = { step: 0, expAvg: zerosFor(param), expAvgSq: zerosFor(param) }
    if (group.amsgrad) state.maxExpAvgSq = zerosFor(param)
    return state
  }

  // The width was changed, or the state loaded is of the other one.
  private convert(param: Tensor, narrow: boolean): void {
    const state = this.state.get(param)
    const { expAvg, expAvgSq, expAvgScale, expAvgSqScale } = (state ?? {}) as Record<string, Tensor | undefined>
    if (state === undefined || expAvg === undefined || expAvgSq === undefined) return
    if ((expAvg.dtype === 'uint8') === narrow) return
    unscoped(() => {
      if (narrow) {
        ;[state.expAvg, state.expAvgScale] = quantizeBlocks(expAvg, true)
        ;[state.expAvgSq, state.expAvgSqScale] = quantizeBlocks(expAvgSq, false)
      } else {
        state.expAvg = dequantizeBlocks(expAvg, expAvgScale!, true)
        state.expAvgSq = dequantizeBlocks(expAvgSq, expAvgSqScale!, false)
        delete state.expAvgScale
        delete state.expAvgSqScale
      }
    })
    for (const old of [expAvg, expAvgSq, expAvgScale, expAvgSqScale]) old?.dispose()
  }

  /** Takes over options and states of an optimizer with equal groups. Tensors are copied and converted;
   *  a step count that is a tensor, as in PyTorch's files, is waited for.
   *  @throws ArgumentError naming what the state of a parameter lacks; ShapeError when groups or states do not fit the
   *  parameters, StateError for another kind of optimizer's; nothing is changed then */
  override loadStateDict(dict: OptimizerState): void {
    const groups: unknown = dict?.paramGroups
    const isOfAdam = Array.isArray(groups) && groups.every((group) => group?.betas !== undefined)
    if (isOfAdam) {
      for (const [name, state] of Object.entries(dict.state ?? {})) {
        expectWhole(`${this.constructor.name}.loadStateDict`, name, state)
      }
    }
    super.loadStateDict(dict)
  }

  /** @internal */
  protected override stateDType(key: string, saved: ParamState, param: Tensor): DType | null {
    const value = saved[key] as Tensor
    if (key.endsWith('Scale')) return sameShape(value.shape, [blocksOf(param)]) ? 'float32' : null
    const dtype = super.stateDType(key, saved, param)
    if (value.dtype !== 'uint8' || dtype === null) return dtype
    return isLarge(param) && saved[`${key}Scale`] !== undefined ? 'uint8' : null
  }
}

// As in bitsandbytes: below this a state is too small to save anything, and biases and norms are sensitive.
const fewestElements = 4096
const isLarge = (param: Tensor): boolean => param.numel >= fewestElements && param.dtype !== 'float64'
const blocksOf = (param: Tensor): number => Math.ceil(param.numel / quantizedBlock)

const narrowNames = ['expAvg', 'expAvgSq', 'expAvgScale', 'expAvgSqScale'] as const

function expectWhole(op: string, parameter: string, state: ParamState | null): void {
  const present = Object.entries(state ?? {}).flatMap(([name, value]) => (value === undefined ? [] : [name]))
  const scaled = ['expAvg', 'expAvgSq'].filter((name) => (state?.[name] as Tensor | undefined)?.dtype === 'uint8')
  const needed = ['step', 'expAvg', 'expAvgSq', ...scaled.map((name) => `${name}Scale`)]
  const missing = needed.filter((name) => !present.includes(name))
  if (missing.length === 0) return
  throw new ArgumentError(op, {
    problem: `the state of parameter ${parameter} is not complete`,
    got: present.join(', ') || describeValue(state),
    expected: `also ${missing.join(', ')}`,
  })
}

// A block of magnitude 0 is 0 whatever its codes.
function narrowZeros(param: Tensor): Record<(typeof narrowNames)[number], Tensor> {
  const codes = (): Tensor => zeros(param.shape, { dtype: 'uint8', device: param.device })
  const magnitudes = (): Tensor => zeros([blocksOf(param)], { device: param.device })
  return { expAvg: codes(), expAvgSq: codes(), expAvgScale: magnitudes(), expAvgSqScale: magnitudes() }
}

const defaults: AdamOptions = {
  lr: 1e-3,
  betas: [0.9, 0.999],
  eps: 1e-8,
  weightDecay: 0,
  amsgrad: false,
  maximize: false,
  stateBits: 32,
}

/** Adam with weight decay that is independent of the gradient:
 *  p <- (1 - lr weightDecay) p;  m <- beta1 m + (1 - beta1) g;  v <- beta2 v + (1 - beta2) g^2;
 *  p <- p - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps).
 *  @throws ArgumentError for options out of range; StateError for tensors that are no parameters
 *  @see Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2
 *  @example new optim.AdamW(model.parameters(), { lr: 3e-4, weightDecay: 0.1 }) */
export class AdamW extends AdamFamily {
  protected readonly decoupled = true

  constructor(params: Params<AdamOptions>, options: Partial<AdamOptions> = {}) {
    super(params, withDefaults('AdamW', { ...defaults, weightDecay: 0.01 }, options))
  }
}

/** Adam; its weight decay is added to the gradient as an L2 penalty (use AdamW for decoupled decay).
 *  @throws ArgumentError for options out of range; StateError for tensors that are no parameters
 *  @see Kingma & Ba 2015, arXiv:1412.6980, algorithm 1
 *  @example new optim.Adam(model.parameters(), { lr: 1e-3 }) */
export class Adam extends AdamFamily {
  protected readonly decoupled = false

  constructor(params: Params<AdamOptions>, options: Partial<AdamOptions> = {}) {
    super(params, withDefaults('Adam', defaults, options))
  }
}

/** AdamW with both averages in 8 bits: `new AdamW(params, { stateBits: 8 })` under bitsandbytes' name.
 *  @throws ArgumentError for options out of range; StateError for tensors that are no parameters
 *  @see Dettmers et al. 2022, arXiv:2110.02861
 *  @example new optim.AdamW8bit(model.parameters(), { lr: 3e-4 }) */
export class AdamW8bit extends AdamW {
  constructor(params: Params<AdamOptions>, options: Partial<AdamOptions> = {}) {
    super(params, { stateBits: 8, ...options })
  }
}
