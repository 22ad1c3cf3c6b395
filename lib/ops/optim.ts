// Steps of the optimizers and what is done to all gradients at once: one native call over many tensors. They write in
// place, outside of the graph.

import { FLOAT32, isFloatingCode } from '../dtype'
import { ArgumentError, DTypeError, describeValue } from '../errors'
import type { Tensor } from '../tensor/tensor'
import { plain } from './matmul'
import { expectTensor, native, run, runMany } from './registry'

// Operands of one native call; the kernels take 4096, and a step has up to five tensors a parameter.
const MOST = 768

const adamwOp = native('adamw', 'count,lr,beta1,beta2,eps,weightDecay,decoupled,amsgrad,maximize,step')
const sgdOp = native('sgd', 'count,lr,momentum,dampening,weightDecay,nesterov,maximize,first')
const rmspropOp = native('rmsprop', 'count,lr,alpha,eps,weightDecay,momentum,centered,maximize')
const adagradOp = native('adagrad', 'count,lr,lrDecay,eps,weightDecay,maximize,step')
const normOp = native('multiTensorNorm', 'p')
const clipOp = native('multiTensorClip', 'maxNorm')
const clampOp = native('multiTensorClamp', 'limit')
const scaleOp = native('multiTensorScale', 'factor')
const copyOp = native('copy')
const fillOp = native('fill', 'value')

/** @internal Parameters of one update with their gradients and states; states[s][i] belongs to params[i]. */
export interface StepOperands {
  readonly params: readonly Tensor[]
  readonly grads: readonly Tensor[]
  readonly states: readonly (readonly Tensor[])[]
}

// A kernel reads gradients in the parameter's dtype, or in float32 for 16-bit parameters.
function gradientOf(param: Tensor, grad: Tensor): Tensor {
  const fits = grad._dtype === param._dtype || (param._dtype > 1 && grad._dtype === FLOAT32)
  return fits ? plain(grad) : run(copyOp, [grad], grad.shape, param._dtype)
}

function step(op: ReturnType<typeof native>, { params, grads, states }: StepOperands, attrs: readonly number[]): void {
  for (const param of params) {
    expectTensor(op.name, 'a parameter', param)
    if (param._strides !== null) {
      throw new ArgumentError(op.name, { problem: 'a parameter is not contiguous', action: 'use contiguous()' })
    }
  }
  for (let from = 0; from < params.length; from += MOST) {
    const part = <T>(list: readonly T[]): readonly T[] => list.slice(from, from + MOST)
    const targets = [...part(params), ...states.flatMap(part)]
    const gradients = part(grads).map((grad, i) => gradientOf(params[from + i]!, grad))
    const count = part(params).length
    runMany(op, [...targets.slice(0, count), ...gradients, ...targets.slice(count)], targets, [count, ...attrs])
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

/** @internal Adam, with decoupled weight decay (AdamW) or with L2 regularization; states expAvg, expAvgSq and, with
 *  amsgrad, maxExpAvgSq. `t` counts from 1. */
export function adamStep(operands: StepOperands, a: AdamAttributes, decoupled: boolean, t: number): void {
  step(adamwOp, operands, [
    a.lr,
    a.betas[0],
    a.betas[1],
    a.eps,
    a.weightDecay,
    flag(decoupled),
    flag(a.amsgrad),
    flag(a.maximize),
    t,
  ])
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
  step(sgdOp, operands, [a.lr, a.momentum, a.dampening, a.weightDecay, flag(a.nesterov), flag(a.maximize), flag(first)])
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
  step(rmspropOp, operands, [a.lr, a.alpha, a.eps, a.weightDecay, a.momentum, flag(a.centered), flag(a.maximize)])
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
  step(adagradOp, operands, [a.lr, a.lrDecay, a.eps, a.weightDecay, flag(a.maximize), t])
}

// --- all gradients --------------------------------------------------------------------------------------------------

function expectPlain(op: string, tensors: readonly Tensor[]): void {
  for (const each of tensors) {
    expectTensor(op, 'a gradient', each)
    if (!isFloatingCode(each._dtype) || each._strides !== null) {
      throw new DTypeError(op, {
        problem: 'a tensor cannot be changed in place here',
        got: `${each.dtype}${each._strides === null ? '' : ', not contiguous'}`,
        expected: 'contiguous tensors of a floating dtype',
      })
    }
  }
}

/** @internal The p-norm of all elements of all tensors, float32 of rank 0. */
export function totalNorm(tensors: readonly Tensor[], p = 2): Tensor {
  if (typeof p !== 'number' || Number.isNaN(p)) {
    throw new ArgumentError('totalNorm', { problem: 'not an order of a norm', got: describeValue(p) })
  }
  if (tensors.length > 4096) {
    // norms of parts have a norm: |(x, y)| = |(|x|, |y|)| for every p but 0, where counts are added
    const parts: Tensor[] = []
    for (let from = 0; from < tensors.length; from += 4096) parts.push(totalNorm(tensors.slice(from, from + 4096), p))
    return totalNorm(parts, p === 0 ? 1 : p)
  }
  if (tensors.length === 0) return run(fillOp, [], [], FLOAT32, [0])
  for (const each of tensors) expectTensor('totalNorm', 'a tensor', each)
  return run(normOp, tensors.map(plain), [], FLOAT32, [p])
}

function inParts(tensors: readonly Tensor[], change: (part: readonly Tensor[]) => void): void {
  for (let from = 0; from < tensors.length; from += 2048) change(tensors.slice(from, from + 2048))
}

/** @internal Scales by min(1, maxNorm / (norm + 1e-6)), on the device. */
export function clipTensors(tensors: readonly Tensor[], norm: Tensor, maxNorm: number): void {
  expectPlain('clip', tensors)
  inParts(tensors, (part) => runMany(clipOp, [...part, norm], part, [maxNorm]))
}

/** @internal Limits every element to [-limit, limit]. */
export function clampTensors(tensors: readonly Tensor[], limit: number): void {
  expectPlain('clamp', tensors)
  inParts(tensors, (part) => runMany(clampOp, part, part, [limit]))
}

/** @internal Multiplies every element. */
export function scaleTensors(tensors: readonly Tensor[], factor: number): void {
  expectPlain('scale', tensors)
  inParts(tensors, (part) => runMany(scaleOp, part, part, [factor]))
}
