// Finding the operation that made the first NaN or infinity.

import { dirname, sep } from 'node:path'
import { BOOL, isFloatingCode } from '../dtype'
import { NativeError } from '../errors'
import { describeContext } from '../native'
import { expectFunction } from '../options'
import { currentContext, native, run } from '../tensor/dispatch'
import { scoped } from '../tensor/scope'
import { Tensor } from '../tensor/tensor'

let enabled = false

/** @internal */
export const isAnomalyEnabled = (): boolean => enabled

const isfinite = native('isfinite')
const isnan = native('isnan')
const all = native('all', 'dims')
const any = native('any', 'dims')

function allFinite(tensor: Tensor): boolean {
  if (!isFloatingCode(tensor._dtype) || tensor.numel === 0) return true
  return scoped('detectAnomaly()', null, () => {
    const finite = run(isfinite, [tensor], tensor.shape, BOOL)
    return run(all, [finite], [], BOOL, [2 ** tensor.ndim - 1]).itemSync() === 1
  })
}

const library = dirname(__dirname) + sep

/** The user's line: the first frame outside of the library, however many of its own stand before. */
function callerLine(): string {
  const limit = Error.stackTraceLimit
  Error.stackTraceLimit = 200
  const frames = (new Error().stack ?? '').split('\n').slice(1)
  Error.stackTraceLimit = limit
  return (frames.find((frame) => !frame.includes(library)) ?? '').trim()
}

/** @internal Module path and line of an operation that runs now. */
export function forwardTrace(): string {
  const path = describeContext(currentContext)
  return `${path === '' ? '' : `in ${path} `}${callerLine()}`.trim()
}

/** An operation made a NaN or an infinity while `detectAnomaly` was on. */
export class AnomalyError extends NativeError {}

function hasNaN(tensor: Tensor): boolean {
  return scoped('detectAnomaly()', null, () => {
    const nan = run(isnan, [tensor], tensor.shape, 7)
    return run(any, [nan], [], 7, [2 ** tensor.ndim - 1]).itemSync() === 1
  })
}

/** Whether the operation made it: one that only passes on what an input holds did not. */
function isMade(output: Tensor, inputs: readonly (Tensor | null | undefined)[]): boolean {
  if (allFinite(output)) return false
  const sources = inputs.filter(
    (each): each is Tensor => each instanceof Tensor && each !== output && each._released === null,
  )
  return hasNaN(output)
    ? !sources.some((each) => !allFinite(each) && hasNaN(each))
    : sources.every((each) => allFinite(each))
}

/** @internal */
export function checkAnomaly(
  op: string,
  outputs: Tensor | readonly Tensor[],
  inputs: readonly (Tensor | null | undefined)[],
  direction: 'forward' | 'backward' = 'forward',
  trace: string | null = null,
): void {
  for (const output of outputs instanceof Tensor ? [outputs] : outputs) {
    if (!isMade(output, inputs)) continue
    throw new AnomalyError(op, {
      problem: `the ${direction} pass made the first NaN or infinity`,
      got: `a tensor of shape [${output.shape.join(', ')}] that is not finite`,
      expected: 'finite values',
      action:
        trace !== null || direction === 'forward'
          ? `look ${trace ?? forwardTrace()}`
          : 'run the forward pass inside detectAnomaly as well to learn its line',
    })
  }
}

/** Runs fn with every operation, forward and backward, checked for NaN and infinity: the first one that makes any
 *  throws an AnomalyError which names the operation, its module path and the JavaScript line. Waits after every
 *  operation: for finding a fault, not for training.
 *  @see https://docs.pytorch.org/docs/stable/autograd.html#anomaly-detection */
export function detectAnomaly<R>(fn: () => R): R {
  expectFunction('detectAnomaly', fn)
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
