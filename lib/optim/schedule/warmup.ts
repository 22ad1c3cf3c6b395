// Schedules that begin with a warmup, as transformers are trained.

import { ArgumentError, describeValue } from '../../errors'
import { readOptions } from '../../options'
import type { Optimizer } from '../optimizer'
import { LambdaLR } from './lambda'
import { expectOptimizer } from './scheduler'

/** Options of warmups with an end. */
export interface WarmupOptions {
  /** Steps in which the rate rises from 0; may be 0. */
  warmupSteps: number
  /** Step at which the rate has reached its end; it stays there. */
  totalSteps: number
}

function expectSteps(op: string, steps: Record<string, unknown>): void {
  for (const [name, value] of Object.entries(steps)) {
    if (typeof value !== 'number' || !(value >= 0)) {
      throw new ArgumentError(op, {
        problem: `${name} is not a number of steps`,
        got: describeValue(value),
        expected: 'a number of at least 0',
      })
    }
  }
}

const rise = (step: number, warmupSteps: number): number => step / Math.max(1, warmupSteps)

/** Share of the way from the end of the warmup to the end, at most 1. */
const progress = (step: number, { warmupSteps, totalSteps }: WarmupOptions): number =>
  Math.min(1, (step - warmupSteps) / Math.max(1, totalSteps - warmupSteps))

/** Up from 0 to the base rate in `warmupSteps`, then down to 0 at `totalSteps`, both in a straight line.
 *  @throws ArgumentError when a number of steps is missing or negative
 *  @see transformers, get_linear_schedule_with_warmup
 *  @example optim.linearWarmup(optimizer, { warmupSteps: 500, totalSteps: 10_000 }) */
export function linearWarmup(optimizer: Optimizer<{ lr: number }>, options: WarmupOptions): LambdaLR {
  const { warmupSteps, totalSteps } = readOptions('linearWarmup', options, ['warmupSteps', 'totalSteps'])
  expectSteps('linearWarmup', { warmupSteps, totalSteps })
  return new LambdaLR(optimizer, (step) => (step < warmupSteps ? rise(step, warmupSteps) : 1 - progress(step, options)))
}

/** Up from 0 to the base rate in `warmupSteps`, then down along a cosine; `numCycles` 0.5 (default) ends at 0.
 *  @throws ArgumentError when a number of steps is missing or negative
 *  @see Loshchilov & Hutter 2017, arXiv:1608.03983; transformers, get_cosine_schedule_with_warmup
 *  @example optim.cosineWarmup(optimizer, { warmupSteps: 500, totalSteps: 10_000 }) */
export function cosineWarmup(
  optimizer: Optimizer<{ lr: number }>,
  options: WarmupOptions & { numCycles?: number },
): LambdaLR {
  const names = ['warmupSteps', 'totalSteps', 'numCycles'] as const
  const { warmupSteps, totalSteps, numCycles = 0.5 } = readOptions('cosineWarmup', options, names)
  expectSteps('cosineWarmup', { warmupSteps, totalSteps, numCycles })
  return new LambdaLR(optimizer, (step) =>
    step < warmupSteps
      ? rise(step, warmupSteps)
      : Math.max(0, 0.5 * (1 + Math.cos(Math.PI * 2 * numCycles * progress(step, options)))),
  )
}

/** Options of `inverseSqrt`. */
export interface InverseSqrtOptions {
  /** Default 4000. */
  warmupSteps?: number
  /** Width of the model; default 1, so that the rate does not depend on it. Mode 'noam' only. */
  dModel?: number
  /** Factor of the rate; default 1. */
  scale?: number
  /** 'noam' (default): the rate itself, whatever the optimizer's; 'relative': a factor of the optimizer's rate. */
  mode?: 'noam' | 'relative'
  /** Mode 'relative': steps after which the factor is 1 / sqrt(2) of the peak's; default warmupSteps, or 10,000 without
   *  a warmup. */
  timescale?: number
}

/** Up in a straight line, then down with the inverse square root of the step.
 *  'noam': lr = scale dModel^-0.5 min(s^-0.5, s warmupSteps^-1.5), s = max(1, step); it peaks at warmupSteps,
 *  for 4000 and dModel 512 at 6.9877e-4;
 *  'relative': lr = base scale (step < warmupSteps ? step / warmupSteps : ((step + shift) / timescale)^-0.5),
 *  shift = timescale - warmupSteps.
 *  @throws ArgumentError for options out of range
 *  @see Vaswani et al. 2017, arXiv:1706.03762, eq. 3; transformers, get_inverse_sqrt_schedule
 *  @example optim.inverseSqrt(optimizer, { warmupSteps: 4000, dModel: 512 }) */
export function inverseSqrt(optimizer: Optimizer<{ lr: number }>, options: InverseSqrtOptions = {}): LambdaLR {
  const names = ['warmupSteps', 'dModel', 'scale', 'mode', 'timescale'] as const
  const { warmupSteps = 4000, dModel = 1, scale = 1, mode = 'noam' } = readOptions('inverseSqrt', options, names)
  const timescale = options.timescale ?? (warmupSteps || 10_000)
  expectOptimizer('inverseSqrt', optimizer)
  expectSteps('inverseSqrt', { warmupSteps, scale, timescale })
  if (!(dModel > 0)) {
    throw new ArgumentError('inverseSqrt', {
      problem: 'dModel is not a width',
      got: describeValue(dModel),
      expected: 'a number above 0',
    })
  }
  if (mode === 'noam') {
    // LambdaLR multiplies the base rate, which this one replaces
    for (const group of optimizer.paramGroups) group.initialLr = 1
    const peak = scale * dModel ** -0.5
    const slope = warmupSteps === 0 ? Number.POSITIVE_INFINITY : warmupSteps ** -1.5
    return new LambdaLR(optimizer, (step) => {
      const s = Math.max(1, step)
      return peak * Math.min(s ** -0.5, s * slope)
    })
  }
  if (mode !== 'relative') {
    throw new ArgumentError('inverseSqrt', {
      problem: 'unknown mode',
      got: describeValue(mode),
      expected: "'noam' or 'relative'",
    })
  }
  const shift = timescale - warmupSteps
  return new LambdaLR(
    optimizer,
    (step) => scale * (step < warmupSteps ? rise(step, warmupSteps) : Math.sqrt(timescale / (step + shift))),
  )
}
