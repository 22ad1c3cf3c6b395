// Several parts take their states all together or not at all.

import { FileError } from '../errors'
import * as random from '../random'
import { fromBytes } from '../tensor/create'
import { Tensor } from '../tensor/tensor'
import type { Stateful } from './checkpoint'
import { flattenState, unflattenState } from './stateTree'

/** A part that can say whether a state fits before it takes it, as modules can; false where it cannot after all. */
interface Checking extends Stateful {
  _checkStateDict(state: object): boolean
}

const isChecking = (part: Stateful): part is Checking =>
  typeof (part as Partial<Checking>)._checkStateDict === 'function'

/** The state of a part as it was. */
interface Before {
  state(): unknown
  release(): void
}

// A copy, since what stateDict gives may be the very tensors that the part then writes into.
async function remember(op: string, name: string, part: Stateful): Promise<Before | null> {
  let flat: ReturnType<typeof flattenState<Tensor>>
  try {
    flat = flattenState(op, name, part.stateDict(), (value) => value instanceof Tensor)
  } catch {
    return null // it has no state yet that could be put back
  }
  const tensors = new Map<string, Tensor>()
  for (const [path, tensor] of flat.tensors) {
    tensors.set(path, fromBytes(await tensor._bytes(op), tensor.shape, tensor.dtype))
  }
  const arrays = new Map([...flat.arrays].map(([path, bytes]) => [path, bytes.slice()]))
  return {
    state: () =>
      unflattenState(
        op,
        flat.json,
        (path) => tensors.get(path)!,
        (path) => arrays.get(path)!,
      ),
    release: () => {
      for (const tensor of tensors.values()) tensor.dispose()
    },
  }
}

function worded(op: string, name: string, error: unknown): unknown {
  // what the code of a part stumbles over when the state is not of the form that it wrote
  if (!(error instanceof TypeError || error instanceof RangeError || error instanceof SyntaxError)) return error
  return new FileError(op, {
    problem: `${name} cannot take the state in the checkpoint`,
    got: error.message,
    action: 'load an older checkpoint, or the state of the same kind of part',
    cause: error,
  })
}

/** @internal Hands each part its state and then calls `finish`. When one refuses, those before it get back what they
 *  had. Modules, the largest parts, are asked beforehand and come last, so nothing of theirs is copied; of the others a
 *  copy is kept meanwhile, which of an optimizer that has not stepped yet is next to nothing. */
export async function restoreParts(
  op: string,
  parts: Record<string, Stateful>,
  states: ReadonlyMap<string, object>,
  finish: () => void,
): Promise<void> {
  const generator = random.getState()
  const undo: { part: Stateful; before: Before }[] = []
  const last: [string, Stateful][] = []
  let current = ''
  try {
    const first: [string, Stateful][] = []
    for (const [name, part] of Object.entries(parts)) {
      current = name
      const isSure = isChecking(part) && part._checkStateDict(states.get(name)!)
      ;(isSure ? last : first).push([name, part])
    }
    for (const [name, part] of first) {
      current = name
      const before = await remember(op, name, part)
      if (before !== null) undo.push({ part, before })
      part.loadStateDict(states.get(name)!)
    }
    current = 'random'
    finish()
    const restored = random.getState()
    for (const [name, part] of last) {
      current = name
      part.loadStateDict(states.get(name)!)
    }
    random.setState(restored)
  } catch (error) {
    for (const { part, before } of undo.reverse()) {
      try {
        part.loadStateDict(before.state() as object)
      } catch {
        // the first error says what is the matter
      }
    }
    random.setState(generator)
    throw worded(op, current, error)
  }
  for (const { before } of undo) before.release()
}
