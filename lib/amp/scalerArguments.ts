// What a loss scaler is given: losses, scales, optimizers and their gradients.

import { ArgumentError, DTypeError, describeShape, describeValue } from '../errors'
import { gradientsOf, nameOf } from '../nn/parameter'
import { where } from '../ops/compare'
import type { Optimizer } from '../optim/optimizer'
import { tidy } from '../tensor/scope'
import { Tensor } from '../tensor/tensor'

/** A tensor, or nested arrays of tensors. */
export type Scalable = Tensor | readonly Scalable[]

/** @internal A tensor, or each of nested arrays, times the scale for it. */
export function multiplied(outputs: Scalable, scaleOf: (loss: Tensor) => Tensor): Scalable {
  if (outputs instanceof Tensor) {
    outputs._outermost = true // the loss that the caller prints is no step on the way to the scaled one
    const scale = scaleOf(outputs)
    if (scale.device === outputs.device) return outputs.mul(scale)
    // a scaler with a device of its own, and one of several losses
    const copy = scale.to(outputs.device)
    const scaled = outputs.mul(copy)
    copy.dispose()
    return scaled
  }
  if (Array.isArray(outputs)) return outputs.map((each) => multiplied(each, scaleOf))
  throw new ArgumentError('GradScaler.scale', {
    problem: 'nothing to scale',
    got: describeValue(outputs),
    expected: 'a tensor, or tensors in an array',
  })
}

/** @internal Whether a number can be a scale, which the device keeps in float32. */
export const isScale = (x: number): boolean => Math.fround(x) > 0 && Math.fround(x) < Number.POSITIVE_INFINITY

/** @internal Throws unless the value is a number that fits. */
export function expectNumber(
  op: string,
  name: string,
  value: unknown,
  fits: (x: number) => boolean,
  expected: string,
): void {
  if (typeof value === 'number' && fits(value)) return
  throw new ArgumentError(op, { problem: `${name} is out of range`, got: describeValue(value), expected })
}

function expectSingle(op: string, name: string, value: Tensor, expected: string): void {
  if (value.numel === 1 && !value.requiresGrad) return
  throw new ArgumentError(op, {
    problem: `${name} is not a number`,
    got: `a tensor of shape ${describeShape(value.shape)}${value.requiresGrad ? ' that requires a gradient' : ''}`,
    expected: `${expected}, or a tensor with one element and no gradient`,
  })
}

/** @internal Sets a scale to a number, or to that of a tensor, which nothing waits for: the device leaves the scale where
 *  that is none. */
export function setScale(op: string, name: string, scale: Tensor, value: unknown): void {
  const expected = 'a finite number above 0'
  if (!(value instanceof Tensor)) {
    expectNumber(op, name, value, isScale, expected)
    scale.fill_(value as number)
    return
  }
  expectSingle(op, name, value, expected)
  tidy(() => {
    const given = value.reshape([]).to(scale.device).to('float32')
    const fits = given.gt(0).logicalAnd(given.lt(Number.POSITIVE_INFINITY))
    scale.copy_(where(fits, given, scale))
  })
}

/** @internal Sets a tracker to a count, or to that of a tensor, which nothing waits for. */
export function setTracker(op: string, name: string, tracker: Tensor, value: unknown): void {
  const expected = 'a whole number of at least 0'
  if (!(value instanceof Tensor)) {
    expectNumber(op, name, value, (x) => Number.isInteger(x) && x >= 0, expected)
    tracker.fill_(value as number)
    return
  }
  expectSingle(op, name, value, expected)
  tidy(() => tracker.copy_(value.reshape([]).to(tracker.device)))
}

/** @internal Gradients of the optimizer's parameters, one that several share once.
 *  @throws DTypeError for float16: unscaling would round them to 0 */
export function scaledGradients(op: string, optimizer: Optimizer): Tensor[] {
  const params = optimizer.paramGroups.flatMap((group) => group.params)
  const half = params.find((param) => param.grad?.dtype === 'float16')
  if (half === undefined) return gradientsOf(params)
  throw new DTypeError(op, {
    problem: 'attempting to unscale float16 gradients',
    got: `a float16 gradient of ${nameOf(half) ?? `a parameter of shape ${describeShape(half.shape)}`}`,
    expected: 'gradients that unscaling does not round to 0',
    action: 'keep the parameters in float32 and let autocast compute in float16',
  })
}
