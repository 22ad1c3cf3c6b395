// What is done to gradients between backward and the optimizer's step.

import { ArgumentError, describeValue, StateError } from '../errors'
import { clampTensors, clipTensors, knownNorm, totalNorm } from '../ops/multiTensor'
import { expectLimit, readOptions } from '../options'
import { Tensor } from '../tensor/tensor'
import { gradientsOf } from './parameter'

/** Options of `clipGradNorm_`. */
export interface ClipOptions {
  /** Order of the norm, also Infinity; default 2. */
  normType?: number
  /** Throws when the norm is NaN or infinite; waits for the device. Default false. */
  errorIfNonFinite?: boolean
}

function readGradients(op: string, params: Tensor | Iterable<Tensor>): Tensor[] {
  if (!(params instanceof Tensor) && typeof (params as Iterable<Tensor> | null)?.[Symbol.iterator] !== 'function') {
    throw new ArgumentError(op, {
      problem: 'no parameters',
      got: describeValue(params),
      expected: 'a tensor, or tensors in an array',
      action: 'pass model.parameters()',
    })
  }
  const list = params instanceof Tensor ? [params] : [...params]
  for (const param of list) {
    if (param instanceof Tensor) continue
    throw new ArgumentError(op, { problem: 'not a parameter', got: describeValue(param), expected: 'tensors' })
  }
  return gradientsOf(list)
}

/** Scales all gradients together so that their norm is at most `maxNorm`: by min(1, maxNorm / (norm + 1e-6)).
 *  Returns the norm before clipping, float32 of rank 0; nothing waits for it. With an infinite norm finite entries become
 *  0 and infinite ones NaN, as in PyTorch. After a GradScaler's `unscale_` the norm is known, and no pass over the
 *  gradients is made for it; `optimizer.step({ maxNorm })` saves the other one.
 *  @throws StateError with errorIfNonFinite, before anything is changed
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_norm_.html
 *  @example const norm = nn.utils.clipGradNorm_(model.parameters(), 1.0) */
export function clipGradNorm_(params: Tensor | Iterable<Tensor>, maxNorm: number, options: ClipOptions = {}): Tensor {
  const op = 'clipGradNorm_'
  const { normType = 2, errorIfNonFinite = false } = readOptions(op, options, ['normType', 'errorIfNonFinite'])
  expectLimit(op, 'maxNorm', maxNorm)
  if (typeof normType !== 'number' || Number.isNaN(normType)) {
    throw new ArgumentError(op, {
      problem: 'normType is not an order of a norm',
      got: describeValue(normType),
      expected: 'a number, Infinity included',
    })
  }
  const grads = readGradients(op, params)
  const norm = (normType === 2 ? knownNorm(grads) : null) ?? totalNorm(grads, normType)
  if (errorIfNonFinite && !Number.isFinite(norm.itemSync())) {
    throw new StateError(op, {
      problem: `the norm of order ${normType} of the gradients is not finite`,
      got: String(norm.itemSync()),
      action: 'skip this step, or pass errorIfNonFinite: false',
    })
  }
  if (grads.length > 0) clipTensors(grads, norm, maxNorm)
  return norm
}

/** Limits every element of every gradient to [-clipValue, clipValue].
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_value_.html
 *  @example nn.utils.clipGradValue_(model.parameters(), 0.5) */
export function clipGradValue_(params: Tensor | Iterable<Tensor>, clipValue: number): void {
  expectLimit('clipGradValue_', 'clipValue', clipValue)
  const grads = readGradients('clipGradValue_', params)
  if (grads.length > 0) clampTensors(grads, clipValue)
}
