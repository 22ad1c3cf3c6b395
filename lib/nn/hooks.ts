// What is called around a module's forward and backward.

import { expectFunction } from '../options'
import { forEachTensor } from '../tensor/scope'
import { type HookHandle, hookHandle, type Tensor } from '../tensor/tensor'
import type { Module } from './module'

/** Called before forward with its arguments; may return other ones in an array, or another first one. */
export type ForwardPreHook = (module: Module, inputs: unknown[]) => unknown
/** Called after forward; may return another output. */
export type ForwardHook = (module: Module, inputs: unknown[], output: unknown) => unknown
/** Called in backward with the gradient of the module's (first) output; may return another one. */
export type BackwardHook = (module: Module, gradOutput: Tensor) => Tensor | undefined

function firstTensor(value: unknown): Tensor | undefined {
  let first: Tensor | undefined
  forEachTensor(value, (tensor) => {
    first ??= tensor
  })
  return first
}

/** @internal The hooks of a module. */
export class ModuleHooks {
  readonly pre = new Set<ForwardPreHook>()
  readonly forward = new Set<ForwardHook>()
  readonly backward = new Set<BackwardHook>()

  get size(): number {
    return this.pre.size + this.forward.size + this.backward.size
  }

  /** The arguments that forward gets. */
  before(module: Module, given: unknown[]): unknown[] {
    let inputs = given
    for (const hook of this.pre) {
      const others = hook(module, inputs) ?? inputs
      inputs = Array.isArray(others) ? others : [others]
    }
    return inputs
  }

  /** The output that the caller gets. */
  after(module: Module, inputs: unknown[], result: unknown): unknown {
    let output = result
    for (const hook of this.forward) {
      forEachTensor([inputs, output], (tensor) => tensor.keep())
      output = hook(module, inputs, output) ?? output
    }
    if (this.backward.size > 0) {
      const first = firstTensor(output)
      if (first?.requiresGrad) {
        first.registerHook((grad) => {
          let current = grad
          for (const hook of this.backward) current = hook(module, current) ?? current
          return current
        })
      }
    }
    return output
  }
}

/** @internal Adds a hook; returns what takes it off. */
export function addHook<Hook>(op: string, hooks: Set<Hook>, hook: Hook): HookHandle {
  expectFunction(op, hook)
  hooks.add(hook)
  return hookHandle(() => hooks.delete(hook))
}
