// Finding the operation that made the first NaN or infinity.

import { BOOL, isFloatingCode } from '../dtype'
import { NativeError } from '../errors'
import { describeContext } from '../native'
import { currentContext, native, run } from '../tensor/dispatch'
import { scoped } from '../tensor/scope'
import { Tensor } from '../tensor/tensor'

let enabled = false

/** @internal */
export const isAnomalyEnabled = (): boolean => enabled

const isfinite = native('isfinite')
const all = native('all', 'dims')

function allFinite(tensor: Tensor): boolean {
  if (!isFloatingCode(tensor._dtype) || tensor.numel === 0) return true
  return scoped('detectAnomaly()', null, () => {
    const finite = run(isfinite, [tensor], tensor.shape, BOOL)
    return run(all, [finite], [], BOOL, [2 ** tensor.ndim - 1]).itemSync() === 1
  })
}

/** The user's line: the first frame outside of the library. */
function callerLine(stack: string | undefined): string {
  const frames = (stack ?? '').split('\n').slice(1)
  const outside = frames.find((frame) => !/[\\/](gradus|lib|dist)[\\/](autograd|ops|nn|tensor|models)[\\/]/.test(frame))
  return (outside ?? frames[0] ?? '').trim()
}

/** @internal Module path and line of an operation that runs now. */
export function forwardTrace(): string {
  const path = describeContext(currentContext)
  return `${path === '' ? '' : `in ${path} `}${callerLine(new Error().stack)}`.trim()
}

/** An operation made a NaN or an infinity while `detectAnomaly` was on. */
export class AnomalyError extends NativeError {}

/** @internal */
export function checkAnomaly(
  op: string,
  outputs: Tensor | readonly Tensor[],
  direction = 'forward',
  trace?: string,
): void {
  for (const output of outputs instanceof Tensor ? [outputs] : outputs) {
    if (allFinite(output)) continue
    throw new AnomalyError(op, {
      problem: `the ${direction} pass made the first NaN or infinity`,
      got: `a tensor of shape [${output.shape.join(', ')}] that is not finite`,
      expected: 'finite values',
      action: `look ${trace ?? forwardTrace()}`,
    })
  }
}

/** Runs fn with every operation, forward and backward, checked for NaN and infinity: the first one that makes any
 *  throws an AnomalyError which names the operation, its module path and the JavaScript line. Waits after every
 *  operation: for finding a fault, not for training.
 *  @see https://docs.pytorch.org/docs/stable/autograd.html#anomaly-detection */
export function detectAnomaly<R>(fn: () => R): R {
  const outer = enabled
  enabled = true
  const restore = (): void => {
    enabled = outer
  }
  let result: R
  try {
    result = fn()
  } catch (error) {
    restore()
    throw error
  }
  if (result instanceof Promise) return result.finally(restore) as R
  restore()
  return result
}
