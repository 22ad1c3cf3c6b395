// Steps of the optimizers: one native call over many tensors. They write in place, outside of the graph.

import type { Device } from '../device'
import { FLOAT32, UINT8 } from '../dtype'
import { ArgumentError } from '../errors'
import { capture } from '../tensor/capture'
import type { Tensor } from '../tensor/tensor'
import { plain } from './matmul'
import { callsOf, on, totalNorm } from './multiTensor'
import { expectTensor, native, run, runMany } from './registry'

const frame = 'count,counted,maxNorm'
const adamAttributes = `${frame},lr,beta1,beta2,eps,weightDecay,decoupled,amsgrad,maximize,step`
const adamwOp = native('adamw', adamAttributes)
const adamw8bitOp = native('adamw8bit', adamAttributes)
const sgdOp = native('sgd', `${frame},lr,momentum,dampening,weightDecay,nesterov,maximize,first`)
const rmspropOp = native('rmsprop', `${frame},lr,alpha,eps,weightDecay,momentum,centered,maximize`)
const adagradOp = native('adagrad', `${frame},lr,lrDecay,eps,weightDecay,maximize,step`)
const quantizeOp = native('quantizeBlocks', 'signed')
const dequantizeOp = native('dequantizeBlocks', 'signed')
// Parameters of one native call: a step has up to seven operands a parameter, and three more.
const mostParameters = adamw8bitOp.mostInputs / 8
const copyOp = native('copy')
const gateOp = native('gate')

/** @internal What the device does with the gradients of a step, and whether it takes the step at all. All are float32
 *  of rank 0. */
export interface StepConditions {
  /** Gradients are multiples of it. */
  readonly scale?: Tensor | null
  /** Not 0: nothing is changed. */
  readonly foundInf?: Tensor | null
  /** Norm of all gradients, unscaled: they are clipped to `maxNorm`. */
  readonly norm?: Tensor | null
  readonly maxNorm?: number
  /** Without which the step is not taken. */
  readonly needed?: readonly Tensor[]
}

/** @internal Parameters of one update with their gradients and states; states[s][i] belongs to params[i]. */
export interface StepOperands {
  readonly params: readonly Tensor[]
  readonly grads: readonly Tensor[]
  readonly states: readonly (readonly Tensor[])[]
  /** Updates so far, where the device counts them. */
  readonly steps: readonly Tensor[] | null
  readonly conditions: StepConditions
}

/** @internal What every native call of a step takes as `foundInf`: a late error in one of the tensors then stops all of
 *  them, and a step is taken whole or not at all. Null for none or one, whose call fails by itself. */
export function gateOf(needed: readonly Tensor[]): Tensor | null {
  if (needed.length < 2) return null
  let open = needed
  do {
    const gates = callsOf(open, gateOp.mostInputs).map((part) => run(gateOp, part, [], FLOAT32))
    open = gates.map((each) => on(each, gates[0]!._device))
  } while (open.length > 1)
  return open[0]!
}

/** @internal Not 0 where one of the flags is not. */
export const combineFlags = (flags: readonly Tensor[]): Tensor => totalNorm(flags, Number.POSITIVE_INFINITY)

const scalars = ['scale', 'foundInf', 'norm'] as const

/** @internal The conditions of a step on the device of a call's parameters. */
export function conditionsOn(device: Device, conditions: StepConditions): StepConditions {
  const placed: { -readonly [name in keyof StepConditions]: StepConditions[name] } = { ...conditions }
  for (const name of scalars) {
    const value = conditions[name]
    if (value) placed[name] = on(value, device)
  }
  return placed
}

/** @internal Releases what `conditionsOn` has copied. */
export function disposeCopies(placed: StepConditions, conditions: StepConditions): void {
  for (const name of scalars) if (placed[name] !== conditions[name]) placed[name]!.dispose()
}

// A kernel reads gradients in the parameter's dtype, or in float32 for 16-bit parameters.
function gradientOf(param: Tensor, grad: Tensor): Tensor {
  const fits = grad._dtype === param._dtype || (param._dtype > 1 && grad._dtype === FLOAT32)
  return fits ? plain(grad) : run(copyOp, [grad], grad.shape, param._dtype)
}

/** `rate` gives the learning rate, now and at replays of a graph. */
function step(
  op: ReturnType<typeof native>,
  operands: StepOperands,
  rate: () => number,
  attrs: readonly number[],
): void {
  const { params, grads, states, steps, conditions } = operands
  for (const param of params) {
    expectTensor(op.name, 'a parameter', param)
    if (param._strides !== null) {
      throw new ArgumentError(op.name, { problem: 'a parameter is not contiguous', action: 'use contiguous()' })
    }
  }
  const { scale = null, foundInf = null, norm = null, maxNorm } = conditions
  const counters = steps === null ? [] : [steps]
  for (let from = 0; from < params.length; from += mostParameters) {
    const part = <T>(list: readonly T[]): readonly T[] => list.slice(from, from + mostParameters)
    const count = Math.min(mostParameters, params.length - from)
    const changed = [...states, ...counters].flatMap(part)
    const gradients = part(grads).map((grad, i) => gradientOf(params[from + i]!, grad))
    const inputs = [...part(params), ...gradients, ...changed, scale, foundInf, maxNorm === undefined ? null : norm]
    capture?.uses(rate, params[from]!.device)
    runMany(op, inputs, [...part(params), ...changed], [count, flag(steps !== null), maxNorm ?? 0, rate(), ...attrs])
  }
}

/** @internal */
export interface AdamAttributes {
  lr: number
  betas: readonly [number, number]
  eps: number
  weightDecay: number
  amsgrad: boolean
  maximize: boolean
}

const flag = (value: boolean): number => (value ? 1 : 0)

function adamValues(a: AdamAttributes, decoupled: boolean, t: number): number[] {
  const flags = [flag(decoupled), flag(a.amsgrad), flag(a.maximize)]
  return [a.betas[0], a.betas[1], a.eps, a.weightDecay, ...flags, t]
}

/** @internal Adam, with decoupled weight decay (AdamW) or with L2 regularization; states expAvg, expAvgSq and, with
 *  amsgrad, maxExpAvgSq. `t` counts from 1. */
export function adamStep(operands: StepOperands, a: AdamAttributes, decoupled: boolean, t: number): void {
  step(adamwOp, operands, () => a.lr, adamValues(a, decoupled, t))
}

/** @internal The same with states in 8 bits: codes of expAvg and expAvgSq, then the magnitudes of their blocks. */
export function adam8bitStep(operands: StepOperands, a: AdamAttributes, decoupled: boolean, t: number): void {
  step(adamw8bitOp, operands, () => a.lr, adamValues(a, decoupled, t))
}

/** @internal Neighbouring elements that share one magnitude; native/core/blocks.h has it too. */
export const quantizedBlock = 256

/** @internal x in 8 bits: the code of each element among 256 values from -1 to 1 (or 0 to 1), and the largest magnitude
 *  of each block, which those values are shares of. Off by at most 0.71 % of that magnitude, 0.36 % without sign.
 *  @see Dettmers et al. 2022, arXiv:2110.02861 */
export function quantizeBlocks(x: Tensor, signed: boolean): [codes: Tensor, magnitudes: Tensor] {
  const blocks = Math.ceil(x.numel / quantizedBlock)
  const outputs = [
    [x.shape, UINT8],
    [[blocks], FLOAT32],
  ] as const
  return runMany(quantizeOp, [plain(x)], outputs, [flag(signed)]) as [Tensor, Tensor]
}

/** @internal float32 from codes and magnitudes. */
export function dequantizeBlocks(codes: Tensor, magnitudes: Tensor, signed: boolean): Tensor {
  return run(dequantizeOp, [codes, magnitudes], codes.shape, FLOAT32, [flag(signed)])
}

/** @internal */
export interface SgdAttributes {
  lr: number
  momentum: number
  dampening: number
  weightDecay: number
  nesterov: boolean
  maximize: boolean
}

/** @internal State momentumBuffer when momentum is not 0; `first`: the buffers are new and become the raw gradient. */
export function sgdStep(operands: StepOperands, a: SgdAttributes, first: boolean): void {
  step(sgdOp, operands, () => a.lr, [
    a.momentum,
    a.dampening,
    a.weightDecay,
    flag(a.nesterov),
    flag(a.maximize),
    flag(first),
  ])
}

/** @internal */
export interface RmspropAttributes {
  lr: number
  alpha: number
  eps: number
  weightDecay: number
  momentum: number
  centered: boolean
  maximize: boolean
}

/** @internal States squareAvg, then gradAvg when centered, then momentumBuffer with momentum. */
export function rmspropStep(operands: StepOperands, a: RmspropAttributes): void {
  step(rmspropOp, operands, () => a.lr, [a.alpha, a.eps, a.weightDecay, a.momentum, flag(a.centered), flag(a.maximize)])
}

/** @internal */
export interface AdagradAttributes {
  lr: number
  lrDecay: number
  eps: number
  weightDecay: number
  maximize: boolean
}

/** @internal State sum. `t` counts from 1. */
export function adagradStep(operands: StepOperands, a: AdagradAttributes, t: number): void {
  step(adagradOp, operands, () => a.lr, [a.lrDecay, a.eps, a.weightDecay, flag(a.maximize), t])
}
