// Activations. Their outputs are cheap to compute again, so the tape may keep only their operand (see Recipe).

import { autocasting } from '../autograd/autocast'
import { ArgumentError, describeValue } from '../errors'
import { readOptions } from '../options'
import type { Tensor } from '../tensor/tensor'
import { autocast } from './autocast'
import { cast, expectNumber, fractional, promoted } from './operands'
import {
  type Backward,
  defineMethods,
  expectTensor,
  type NativeOp,
  native,
  needsGrad,
  record,
  runLike,
} from './registry'

const reluOp = native('relu')
const reluBackward = native('reluBackward')
const siluOp = native('silu')
const siluBackward = native('siluBackward')
const softplusOp = native('softplus', 'beta,threshold')
const softplusBackward = native('softplusBackward', 'beta,threshold')
const geluOp = native('gelu', 'tanh')
const geluBackward = native('geluBackward', 'tanh')

// x is needed for the gradient anyway; whoever saves the output can have it computed again from x.
function activate(op: NativeOp, gradient: NativeOp, x: Tensor, attrs = 0, attr0 = 0, attr1 = 0): Tensor {
  expectTensor(op.name, 'the operand', x)
  if (autocasting) x = autocast(op.name, x)
  const compute = (of: Tensor): Tensor => runLike(op, of, null, fractional(of._dtype), attrs, attr0, attr1)
  const out = compute(x)
  if (!needsGrad([x])) return out
  const backward: Backward = (context, g) => runLike(gradient, g, context.saved(0), g._dtype, attrs, attr0, attr1)
  record({ name: op.name, autocast: 'promote', backward }, out, [x], [x])
  out._recipe = { inputs: [x], compute: ([of], dtype) => cast(compute(of!), dtype) }
  return out
}

/** Elementwise max(x, 0); its gradient is 0 at 0.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.relu.html
 *  @example relu(tensor([-1, 2])) // [0, 2] */
export function relu(x: Tensor): Tensor {
  expectTensor('relu', 'the operand', x)
  const out = runLike(reluOp, x, null, promoted(x._dtype), 0)
  return needsGrad([x]) ? record(reluRecord, out, [x], [out]) : out
}
const reluRecord = {
  name: 'relu',
  autocast: 'keep',
  backward: ((context, g) => runLike(reluBackward, g, context.saved(0), g._dtype, 0)) as Backward,
} as const

/** Elementwise x * sigmoid(x), also called swish.
 *  @see Elfwing et al. 2018, arXiv:1702.03118
 *  @example silu(tensor([0])) // [0] */
export function silu(x: Tensor): Tensor {
  return activate(siluOp, siluBackward, x)
}

/** Elementwise log(1 + e^(beta x)) / beta; x itself where beta * x is above `threshold`. Defaults 1 and 20.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.softplus.html
 *  @example softplus(tensor([0])) // [0.6931] */
export function softplus(x: Tensor, options: { beta?: number; threshold?: number } = {}): Tensor {
  const { beta = 1, threshold = 20 } = readOptions('softplus', options, ['beta', 'threshold'])
  expectNumber('softplus', beta, 'beta')
  expectNumber('softplus', threshold, 'threshold')
  return activate(softplusOp, softplusBackward, x, 2, beta, threshold)
}

/** Options of `gelu`. */
export interface GeluOptions {
  /** 'tanh' is the approximation that GPT-2 was trained with. Default 'none': exact. */
  approximate?: 'none' | 'tanh'
}

/** Elementwise x * Phi(x), Phi the normal distribution function; or its tanh approximation
 *  0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))).
 *  @see Hendrycks & Gimpel 2016, arXiv:1606.08415
 *  @example gelu(tensor([0, 1])) // [0, 0.8413] */
export function gelu(x: Tensor, options: GeluOptions = {}): Tensor {
  const { approximate = 'none' } = readOptions('gelu', options, ['approximate'])
  if (approximate !== 'none' && approximate !== 'tanh') {
    throw new ArgumentError('gelu', {
      problem: 'no such approximation',
      got: describeValue(approximate),
      expected: "'none' or 'tanh'",
    })
  }
  return activate(geluOp, geluBackward, x, 1, approximate === 'tanh' ? 1 : 0)
}

declare module '../tensor/tensor' {
  interface Tensor {
    relu(): Tensor
    silu(): Tensor
    softplus(options?: { beta?: number; threshold?: number }): Tensor
    gelu(options?: GeluOptions): Tensor
  }
}

defineMethods({ relu, silu, softplus, gelu })
