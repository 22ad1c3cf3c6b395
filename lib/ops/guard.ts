// The public surface of the operators. Whatever is passed, only typed errors leave: functions check the arguments whose
// faults have a good explanation, and what JavaScript itself refuses (reading a property of undefined, destructuring
// null) is worded here.

import { ArgumentError, describeShape, describeValue, GradusError } from '../errors'
import { Tensor } from '../tensor/tensor'

const describeArgument = (value: unknown): string =>
  value instanceof Tensor ? `a ${value.dtype} tensor ${describeShape(value.shape)}` : describeValue(value)

/** @internal The typed error for what was thrown while `op` ran with these arguments. */
export function wordError(op: string, error: unknown, args: readonly unknown[]): unknown {
  if (error instanceof GradusError || !(error instanceof TypeError || error instanceof RangeError)) return error
  const given = [...args]
  while (given.length > 0 && given.at(-1) === undefined) given.pop()
  return new ArgumentError(op, {
    problem: 'an argument is of the wrong kind',
    got: `(${given.map(describeArgument).join(', ')})`,
    expected: 'the arguments that its documentation names',
    cause: error,
  })
}

/** @internal The functions of a module, each wording foreign errors. */
export function guarded<M extends object>(module: M): M {
  const wrapped: Record<string, unknown> = {}
  for (const [name, value] of Object.entries(module)) {
    if (typeof value !== 'function' || (value.prototype?.constructor === value && /^[A-Z]/.test(name))) {
      wrapped[name] = value
      continue
    }
    const call = (...args: unknown[]): unknown => {
      try {
        return value(...args)
      } catch (error) {
        throw wordError(name, error, args)
      }
    }
    Object.defineProperty(call, 'name', { value: name })
    wrapped[name] = call
  }
  return Object.freeze(wrapped) as M
}
