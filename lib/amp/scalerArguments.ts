// What a loss scaler is given: losses, scales, optimizers and their gradients.

import { ArgumentError, DTypeError, describeShape, describeValue } from '../errors'
import { nameOf } from '../nn/parameter'
import type { Optimizer } from '../optim/optimizer'
import { Tensor } from '../tensor/tensor'

/** A tensor, or nested arrays of tensors. */
export type Scalable = Tensor | readonly Scalable[]

/** @internal A tensor, or each of nested arrays, times the scale. */
export function multiplied(outputs: Scalable, scale: Tensor): Scalable {
  if (outputs instanceof Tensor) {
    outputs._outermost = true // the loss that the caller prints is no step on the way to the scaled one
    return outputs.mul(scale)
  }
  if (Array.isArray(outputs)) return outputs.map((each) => multiplied(each, scale))
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

/** @internal Sets a tensor of rank 0 to a number, or to that of a tensor, which nothing waits for. */
export function setNumber(
  op: string,
  name: string,
  target: Tensor,
  value: unknown,
  fits: (x: number) => boolean,
  expected: string,
): void {
  if (!(value instanceof Tensor)) {
    expectNumber(op, name, value, fits, expected)
    target.fill_(value as number)
    return
  }
  if (value.numel !== 1 || value.requiresGrad) {
    throw new ArgumentError(op, {
      problem: `${name} is not a number`,
      got: `a tensor of shape ${describeShape(value.shape)}${value.requiresGrad ? ' that requires a gradient' : ''}`,
      expected: `${expected}, or a tensor with one element and no gradient`,
    })
  }
  target.copy_(value.reshape([]))
}

/** @internal Gradients of the optimizer's parameters, one that several share once.
 *  @throws DTypeError for float16: unscaling would round them to 0 */
export function gradientsOf(op: string, optimizer: Optimizer): Tensor[] {
  const grads = new Set<Tensor>()
  for (const { params } of optimizer.paramGroups) {
    for (const param of params) {
      if (param.grad === null) continue
      if (param.grad.dtype === 'float16') {
        throw new DTypeError(op, {
          problem: 'attempting to unscale float16 gradients',
          got: `a float16 gradient of ${nameOf(param) ?? `a parameter of shape ${describeShape(param.shape)}`}`,
          expected: 'gradients that unscaling does not round to 0',
          action: 'keep the parameters in float32 and let autocast compute in float16',
        })
      }
      grads.add(param.grad)
    }
  }
  return [...grads]
}
