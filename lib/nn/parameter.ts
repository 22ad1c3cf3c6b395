// Parameters: leaves that modules own and optimizers change.

import { ArgumentError, describeValue } from '../errors'
import { flushReleases, releaseTensor } from '../tensor/memory'
import { Tensor } from '../tensor/tensor'

const parameters = new WeakSet<Tensor>()

function makeParameter(data: Tensor, requiresGrad = true): Tensor {
  if (!(data instanceof Tensor)) {
    throw new ArgumentError('Parameter', { problem: 'not a tensor', got: describeValue(data), expected: 'a Tensor' })
  }
  const tensor = data.isLeaf ? data : data.detach()
  parameters.add(tensor)
  return tensor.keep().requiresGrad_(requiresGrad)
}

/** Makes a tensor a parameter: found by `parameters()` when it stands in a module's field, with `requiresGrad` true
 *  unless told otherwise. `new Parameter(x)` and `parameter(x)` are the same.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.nn.parameter.Parameter.html
 *  @example new nn.Parameter(zeros([2])).requiresGrad // true */
export const Parameter = makeParameter as unknown as new (data: Tensor, requiresGrad?: boolean) => Tensor

/** Makes a tensor a parameter, with `requiresGrad` true unless told otherwise.
 *  @throws ArgumentError when data is not a tensor
 *  @example nn.parameter(zeros([2])).requiresGrad // true */
export const parameter: (data: Tensor, requiresGrad?: boolean) => Tensor = makeParameter

/** @internal Forgets gradients, or sets them to 0. Their memory is given back at once and does not wait for the garbage
 *  collector; keep() exempts one. */
export function clearGradients(params: Iterable<Tensor>, setToNone: boolean): void {
  for (const param of params) {
    if (param.grad === null) continue
    if (setToNone) {
      if (!param.grad._kept) releaseTensor(param.grad, 'zeroGrad()')
      param.grad = null
    } else {
      param.grad.zero_()
    }
  }
  flushReleases()
}

/** @internal The gradients that are there, one that several parameters share once. */
export function gradientsOf(params: Iterable<Tensor>): Tensor[] {
  const grads = new Set<Tensor>()
  for (const { grad } of params) if (grad !== null) grads.add(grad)
  return [...grads]
}

/** Whether the value is a parameter.
 *  @example nn.isParameter(zeros([2])) // false */
export function isParameter(value: unknown): value is Tensor {
  return value instanceof Tensor && parameters.has(value)
}

const names = new WeakMap<Tensor, string>()

/** @internal Remembers under which path a model listed a parameter, for messages about it; the longest path is that of
 *  the outermost module. */
export function rememberName(param: Tensor, path: string): void {
  const known = names.get(param)
  if (known === undefined || known.length < path.length) names.set(param, path)
}

/** @internal Path of a parameter in the model that listed it, if one did. */
export const nameOf = (param: Tensor): string | undefined => names.get(param)
