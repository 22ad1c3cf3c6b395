// Whether operations are recorded.

import { AsyncLocalStorage } from 'node:async_hooks'
import { expectFunction } from '../options'

let enabled = true

// An async function in noGrad must not turn recording off for whoever runs while it awaits. Asking the async context
// at every operation would cost more than the operation, so it is asked only while such a function is under way.
const context = new AsyncLocalStorage<boolean>()
let asyncRegions = 0

/** Whether operations are recorded now. */
export function isGradEnabled(): boolean {
  return asyncRegions === 0 ? enabled : (context.getStore() ?? enabled)
}

/** Runs fn with recording on or off; fn may be async. */
export function setGradEnabled<R>(value: boolean, fn: () => R): R {
  expectFunction('setGradEnabled', fn)
  const outer = enabled
  enabled = value
  let result: R
  asyncRegions++ // so that nested async contexts are honoured while fn runs
  try {
    result = context.run(value, fn)
  } finally {
    enabled = outer
    asyncRegions--
  }
  if (result instanceof Promise) {
    asyncRegions++
    const done = (): void => {
      asyncRegions--
    }
    result.then(done, done)
  }
  return result
}

/** Runs fn, which may be async, without recording operations: nothing is saved for backward.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.no_grad.html
 *  @example noGrad(() => model.forward(batch)) */
export function noGrad<R>(fn: () => R): R {
  expectFunction('noGrad', fn)
  return setGradEnabled(false, fn)
}

/** Runs fn, which may be async, recording operations, also inside `noGrad`. */
export function enableGrad<R>(fn: () => R): R {
  expectFunction('enableGrad', fn)
  return setGradEnabled(true, fn)
}

/** @internal Fast form for synchronous code. */
export function withoutGrad<R>(fn: () => R): R {
  return synchronously(false, fn)
}

/** @internal The same for recording. */
export function withGrad<R>(fn: () => R): R {
  return synchronously(true, fn)
}

function synchronously<R>(value: boolean, fn: () => R): R {
  if (asyncRegions > 0) return setGradEnabled(value, fn)
  const outer = enabled
  enabled = value
  try {
    return fn()
  } finally {
    enabled = outer
  }
}
