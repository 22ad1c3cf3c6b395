// Softmax and its logarithm over one dim.

import { autocasting } from '../autograd/autocast'
import type { Tensor } from '../tensor/tensor'
import { normalizeDim } from './arguments'
import { autocast } from './autocast'
import { defineMethods, expectFloating, expectTensor, native, type OpRecord, record, run } from './registry'

const softmaxOp = native('softmax', 'dim')
const softmaxBackwardOp = native('softmaxBackward', 'dim')
const logSoftmaxOp = native('logSoftmax', 'dim')
const logSoftmaxBackwardOp = native('logSoftmaxBackward', 'dim')

const softmaxRecord: OpRecord = { name: 'softmax', autocast: 'float32', backward: () => null }
const logSoftmaxRecord: OpRecord = { name: 'logSoftmax', autocast: 'float32', backward: () => null }

/** exp(x) / sum(exp(x)) over a dim (by default the last), computed from the row's maximum so that it cannot overflow;
 *  a row of -inf gives NaN, as in PyTorch. x floating -> its shape and dtype, float32 inside for 16-bit types.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.softmax.html
 *  @example softmax(tensor([0, 0])) // [0.5, 0.5] */
export function softmax(x: Tensor, dim = -1): Tensor {
  expectTensor('softmax', 'x', x)
  expectFloating('softmax', 'x', x)
  if (autocasting) x = autocast('softmax', x)
  const at = normalizeDim('softmax', dim, x.ndim)
  const y = run(softmaxOp, [x], x.shape, x._dtype, [at])
  // dx = y (g - sum(g y))
  return record(softmaxRecord, y, [x], x._requiresGrad ? [y] : [], (context, g) =>
    run(softmaxBackwardOp, [g, context.saved(0)], x.shape, x._dtype, [at]),
  )
}

/** The logarithm of `softmax`, exact also where softmax underflows.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.log_softmax.html
 *  @example logSoftmax(tensor([0, 0])) // [-0.6931, -0.6931] */
export function logSoftmax(x: Tensor, dim = -1): Tensor {
  expectTensor('logSoftmax', 'x', x)
  expectFloating('logSoftmax', 'x', x)
  if (autocasting) x = autocast('logSoftmax', x)
  const at = normalizeDim('logSoftmax', dim, x.ndim)
  const y = run(logSoftmaxOp, [x], x.shape, x._dtype, [at])
  // dx = g - exp(y) sum(g)
  return record(logSoftmaxRecord, y, [x], x._requiresGrad ? [y] : [], (context, g) =>
    run(logSoftmaxBackwardOp, [g, context.saved(0)], x.shape, x._dtype, [at]),
  )
}

declare module '../tensor/tensor' {
  interface Tensor {
    softmax(dim?: number): Tensor
    logSoftmax(dim?: number): Tensor
  }
}

defineMethods({ softmax, logSoftmax })
