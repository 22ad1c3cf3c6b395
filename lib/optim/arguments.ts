// What optimizers are given: options, parameters, gradients.

import { ArgumentError, DTypeError, describeShape, describeValue, ShapeError, StateError } from '../errors'
import { isParameter } from '../nn/parameter'
import { sameShape } from '../ops/broadcast'
import { readOptions } from '../options'
import { full } from '../tensor/create'
import { releaseTensor } from '../tensor/memory'
import { unscoped } from '../tensor/scope'
import { Tensor } from '../tensor/tensor'
import type { ParamState } from './optimizer'

/** @internal An optimizer's options over its defaults.
 *  @throws ArgumentError for one that the optimizer does not have */
export function withDefaults<Options extends object>(
  op: string,
  defaults: Options,
  options: Partial<Options>,
): Options {
  return {
    ...defaults,
    ...readOptions<Partial<Options>>(op, options, Object.keys(defaults) as (keyof Options & string)[]),
  }
}

/** @internal */
export function expectParameter(op: string, param: unknown, i: number): asserts param is Tensor {
  if (!(param instanceof Tensor)) {
    throw new DTypeError(op, { problem: `parameter ${i} is not a tensor`, got: describeValue(param) })
  }
  param._alive(op)
  if (!param.isLeaf || !(param.requiresGrad || isParameter(param))) {
    throw new StateError(op, {
      problem: `parameter ${i} cannot be optimized`,
      got: param.isLeaf ? 'a tensor that does not require a gradient' : 'the result of an operation',
      expected: 'a leaf that requires a gradient',
    })
  }
}

/** @internal */
export function expectGradient(op: string, param: Tensor, grad: unknown): true {
  if (!(grad instanceof Tensor)) {
    throw new DTypeError(op, {
      problem: 'the gradient of a parameter is not a tensor',
      got: describeValue(grad),
      expected: 'a Tensor or null',
    })
  }
  if (!sameShape(grad.shape, param.shape)) {
    throw new ShapeError(op, {
      problem: 'a gradient has another shape than its parameter',
      got: describeShape(grad.shape),
      expected: describeShape(param.shape),
    })
  }
  return true
}

/** @internal Puts what was loaded into a tensor that an optimizer has, where it fits, and the tensor in its place: whether
 *  it did. */
export function writeInto(own: Tensor, state: ParamState, key: string, op: string): boolean {
  const loaded = state[key]
  if (own.isReleased || loaded === undefined) return false
  if (typeof loaded === 'number') own.fill_(loaded)
  else {
    if (loaded.dtype !== own.dtype || loaded.device !== own.device || !sameShape(loaded.shape, own.shape)) return false
    own.copy_(loaded)
    releaseTensor(loaded, op)
  }
  state[key] = own
  return true
}

/** @internal A parameter's state of one number: 16-bit parameters keep theirs in float32. */
export const filledFor = (param: Tensor, value: number): Tensor =>
  full(param.shape, value, { dtype: param.dtype === 'float64' ? 'float64' : 'float32', device: param.device })

/** @internal */
export const zerosFor = (param: Tensor): Tensor => filledFor(param, 0)

/** @internal States go where their parameter has gone since: a module may be moved after its optimizer was made. */
export function followParameter(state: Record<string, unknown>, { device }: Tensor): void {
  for (const [key, value] of Object.entries(state)) {
    if (!(value instanceof Tensor) || value.device === device) continue
    state[key] = unscoped(() => value.to(device))
    value.dispose()
  }
}

/** @internal Throws unless a number lies in [low, high), or (low, high) when `open`. */
export function checkRange(
  op: string,
  name: string,
  value: unknown,
  low: number,
  high = Number.POSITIVE_INFINITY,
): void {
  if (typeof value !== 'number' || !(value >= low) || !(value < high || value === low)) {
    throw new ArgumentError(op, {
      problem: `${name} is out of range`,
      got: describeValue(value),
      expected:
        high === Number.POSITIVE_INFINITY ? `a number of at least ${low}` : `a number from ${low} to below ${high}`,
    })
  }
}
