// Gradient accumulation that is exact: a group of micro-batches gives the loss, the gradients and the step of one batch
// that holds them all.

import { ArgumentError, describeShape, describeValue, ShapeError } from '../errors'
import { where } from '../ops/compare'
import { expectFunction, expectLimit, readOptions } from '../options'
import { zeros } from '../tensor/create'
import { tidy } from '../tensor/scope'
import { Tensor } from '../tensor/tensor'
import { Optimizer } from './optimizer'
import { expectSchedule, moveOn } from './schedule/scheduler'

/** What `accumulate` needs of a model. */
export interface Accumulated<Batch> {
  /** Gives `{ loss }`, the mean over the batch's targets. */
  forward(batch: Batch): unknown
  /** How many targets a batch's mean loss is a mean over. */
  countTargets?(batch: Batch): Tensor | number
  /** Runs fn without exchanging gradients between ranks; all but the last micro-batch run in it. */
  noSync?(fn: () => void): void
}

/** What `accumulate` needs of a scaler: a GradScaler has it. */
export interface LossScaler<Step> {
  scale(loss: Tensor): Tensor
  step(optimizer: Optimizer<never>, options: { maxNorm?: number; scheduler?: { step(): void } }): Step
  update(): void
}

/** Options of `accumulate`. */
export interface AccumulateOptions<Batch, Step> {
  /** Takes the step. Its gradients are cleared before, and left as they are behind it. */
  optimizer: Pick<Optimizer, 'step' | 'zeroGrad'>
  /** Scales the losses, and decides on the step, as `amp.GradScaler` does. */
  scaler?: LossScaler<Step>
  /** Clips the gradients of the whole group to this norm. Default: no clipping. */
  maxNorm?: number
  /** Moves on with each step that is taken. */
  scheduler?: { step(): void }
  /** The mean loss of a micro-batch. Default: `model.forward(batch).loss`. */
  loss?: (batch: Batch) => Tensor
  /** The number of targets of a micro-batch, a number or a tensor of one; a tensor that holds no finite number above 0
   *  counts as 0. Default: `model.countTargets(batch)`. */
  targets?: (batch: Batch) => Tensor | number
}

/** What a group gave. Nothing waits for the tensors. */
export interface Accumulation<Step> {
  /** Mean loss over the targets of the group, of rank 0. */
  loss: Tensor
  /** Targets of the group, of rank 0. */
  targets: Tensor
  /** Norm of the gradients before clipping, or null without `maxNorm`. */
  norm: Tensor | null
  /** What the scaler's step returned: awaiting it tells whether the step was taken. Null without a scaler. */
  step: Step | null
}

const op = 'accumulate'
const names = ['optimizer', 'scaler', 'maxNorm', 'scheduler', 'loss', 'targets'] as const

function expectScalar(what: string, value: unknown): Tensor {
  if (!(value instanceof Tensor)) {
    if (value instanceof Promise) value.catch(() => {}) // what is thrown here says what to do first
    throw new ArgumentError(op, {
      problem: `no ${what}`,
      got: value instanceof Promise ? 'a promise' : describeValue(value),
      expected: 'a Tensor of one element',
      ...(what === 'loss' && { action: 'let forward return { loss }, or pass { loss: (batch) => ... }' }),
    })
  }
  if (value.numel !== 1) {
    throw new ShapeError(op, {
      problem: `the ${what} is not one number`,
      got: describeShape(value.shape),
      expected: '[]',
    })
  }
  return value.ndim === 0 ? value : value.reshape([])
}

function countOf<Batch>(
  model: Accumulated<Batch>,
  batch: Batch,
  targets: AccumulateOptions<Batch, unknown>['targets'],
): Tensor {
  if (targets === undefined && typeof model.countTargets !== 'function') {
    throw new ArgumentError(op, {
      problem: `${model.constructor.name} does not say how many targets a batch has`,
      expected: 'a method countTargets(batch)',
      action: 'pass { targets: (batch) => batch.labels.ne(-100).sum() }, or whatever its mean loss divides by',
    })
  }
  const count = targets === undefined ? model.countTargets!(batch) : targets(batch)
  if (typeof count !== 'number') return expectScalar('number of targets', count)
  if (count >= 0 && Number.isFinite(count)) return zeros([]).add(count)
  throw new ArgumentError(op, {
    problem: 'no number of targets',
    got: String(count),
    expected: 'a finite number of at least 0',
  })
}

function check<Batch>(model: unknown, group: readonly Batch[], options: AccumulateOptions<Batch, never>): void {
  readOptions(op, options, names)
  if (typeof (model as { forward?: unknown } | null)?.forward !== 'function') {
    throw new ArgumentError(op, { problem: 'no model', got: describeValue(model), expected: 'an object with forward' })
  }
  if (!Array.isArray(group) || group.length === 0 || Object.keys(group).length < group.length) {
    throw new ArgumentError(op, {
      problem: 'no group of micro-batches',
      got: describeValue(group),
      expected: 'an array of at least one batch',
      action: 'take groups from data.groups(loader, n)',
    })
  }
  if (!(options.optimizer instanceof Optimizer)) {
    throw new ArgumentError(op, {
      problem: 'no optimizer',
      got: describeValue(options.optimizer),
      expected: 'an optimizer in { optimizer }',
    })
  }
  const { scaler, scheduler, loss, targets } = options as Partial<AccumulateOptions<Batch, unknown>>
  for (const fn of [loss, targets]) if (fn !== undefined) expectFunction(op, fn)
  const methods = ['scale', 'step', 'update'] as const
  if (scaler !== undefined && !methods.every((each) => typeof scaler?.[each] === 'function')) {
    throw new ArgumentError(op, {
      problem: 'scaler is no scaler',
      got: describeValue(scaler),
      expected: 'an amp.GradScaler',
    })
  }
  expectSchedule(op, scheduler)
  if (options.maxNorm !== undefined) expectLimit(op, 'maxNorm', options.maxNorm)
}

/** One optimizer step over a group of micro-batches, equal to that over one batch of all their samples: each mean loss
 *  counts by its share of the group's targets, so that micro-batches of different length, padding or size, and a last
 *  group that is shorter, change nothing. (One without targets counts for nothing; the gradients of a loss of your own
 *  must then be 0 and not NaN, as those of gradus's losses are.) Clears the gradients first; then forward and backward
 *  of each micro-batch, and one step, with the gradients clipped to `maxNorm` and through the `scaler` where these are
 *  given.
 *
 *  Waits until all but the last micro-batch have run, without blocking the event loop; what it returns is not waited for.
 *  @throws ArgumentError for an empty group, a model that has neither `countTargets` nor the option `targets`, or a
 *  forward without a loss
 *  @see https://huggingface.co/blog/gradient_accumulation
 *  @example
 *  for await (const group of data.groups(loader, 4)) {
 *    const { loss, norm } = await optim.accumulate(model, group, { optimizer, maxNorm: 1 })
 *  } */
export async function accumulate<Batch, Step = never>(
  model: Accumulated<Batch>,
  group: readonly Batch[],
  options: AccumulateOptions<Batch, Step>,
): Promise<Accumulation<Step>> {
  check(model, group, options as AccumulateOptions<Batch, never>)
  const { optimizer, scaler, maxNorm, scheduler, targets } = options
  const lossOf =
    options.loss ?? ((batch: Batch) => (model.forward(batch) as { loss?: unknown } | undefined)?.loss as Tensor)
  optimizer.zeroGrad()

  const [counts, total] = tidy(() => {
    // what is no number of targets counts for none, as no device says so before the step
    const each = group.map((batch) => {
      const count = countOf(model, batch, targets).to('float64')
      return where(count.gt(0).logicalAnd(count.lt(Number.POSITIVE_INFINITY)), count, 0)
    })
    return [each, each.reduce((a, b) => a.add(b))] as const
  })
  const shares = tidy(() => {
    const divisor = where(total.gt(0), total, 1)
    return counts.map((count) => count.div(divisor))
  })
  let loss: Tensor | null = null
  const micro = (batch: Batch, share: Tensor): void => {
    const before = loss
    loss = tidy(() => {
      const mean = expectScalar('loss', lossOf(batch))
      const weight = share.to({ dtype: mean.dtype === 'float64' ? 'float64' : 'float32', device: mean.device })
      // the mean over no targets is NaN, and counts for nothing
      const part = where(weight.gt(0), mean.mul(weight), 0)
      const sum = (before ?? zeros([], { device: part.device })).add(part.detach()) // backward releases part, unless it is the root
      ;(scaler === undefined ? part : scaler.scale(part)).backward()
      return sum
    })
    before?.dispose()
  }
  let passed: Promise<void> | null = null
  for (const [i, batch] of group.entries()) {
    const run = (): void => micro(batch, shares[i]!)
    if (i < group.length - 1 && typeof model.noSync === 'function') model.noSync(run)
    else run()
    // one micro-batch ahead of the device: it never idles, and neither the queue nor the heap grows
    await passed
    passed = i < group.length - 1 ? loss!.device.passed() : null
  }
  for (const each of [...counts, ...shares]) if (each !== total) each.dispose()

  const clip = maxNorm === undefined ? {} : { maxNorm }
  if (scaler === undefined) {
    const norm = optimizer.step(clip) ?? null
    if (scheduler !== undefined) moveOn(op, scheduler)
    return { loss: loss!, targets: total, norm, step: null }
  }
  const step = scaler.step(optimizer as Optimizer<never>, scheduler === undefined ? clip : { ...clip, scheduler })
  scaler.update()
  return { loss: loss!, targets: total, norm: (step as { norm?: Tensor | null }).norm ?? null, step }
}
