// Values of a module by name, and how they get into it.

import { withoutGrad } from '../autograd/mode'
import { ArgumentError, describeShape, describeValue, ShapeError, StateError } from '../errors'
import { tidy } from '../tensor/scope'
import { Tensor } from '../tensor/tensor'

/** Names and tensors: parameters and persistent buffers. */
export type StateDict = Record<string, Tensor>

/** Names that did not fit in `loadStateDict`. */
export interface IncompatibleKeys {
  missingKeys: string[]
  unexpectedKeys: string[]
}

/** @internal A parameter or buffer of a module. */
export interface StateEntry {
  path: string
  tensor: Tensor
  /** From the tensor as kernels use it to how the state dict shows it. */
  layout: (tensor: Tensor) => Tensor
}

/** @internal Throws unless there are names to look up. */
export function expectStateDict(state: unknown): void {
  if (state !== null && typeof state === 'object') return
  throw new ArgumentError('loadStateDict', {
    problem: 'not a state dict',
    got: describeValue(state),
    expected: 'an object of tensors by name',
  })
}

/** @internal Copies values into parameters and buffers. Everything is checked before anything is written.
 *  @param write false: only checks */
export function loadInto(
  targets: readonly StateEntry[],
  state: StateDict,
  strict: boolean,
  write = true,
): IncompatibleKeys {
  const names = new Set(targets.map(({ path }) => path))
  const missingKeys = [...names].filter((name) => !(name in state))
  const unexpectedKeys = Object.keys(state).filter((name) => !names.has(name))
  if (strict && missingKeys.length + unexpectedKeys.length > 0) {
    throw new StateError('loadStateDict', {
      problem: 'the names do not fit the module',
      got: `missing ${JSON.stringify(missingKeys)}, unexpected ${JSON.stringify(unexpectedKeys)}`,
      action: 'load the state of the same configuration, or pass { strict: false }',
    })
  }
  tidy(() => {
    const pairs = targets
      .filter(({ path }) => path in state)
      .map(({ path, tensor, layout }) => [path, layout(tensor.detach())] as const)
    for (const [path, target] of pairs) {
      const source = state[path]
      if (!(source instanceof Tensor) || describeShape(source.shape) !== describeShape(target.shape)) {
        throw new ShapeError('loadStateDict', {
          problem: `${path} has another shape`,
          got: source instanceof Tensor ? describeShape(source.shape) : describeValue(source),
          expected: describeShape(target.shape),
        })
      }
      source._alive('loadStateDict')
    }
    if (!write) return
    withoutGrad(() => {
      for (const [path, target] of pairs) target.copy_(state[path]!)
    })
  })
  return { missingKeys, unexpectedKeys }
}
