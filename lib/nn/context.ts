// Which module an operation belongs to, for error messages: every module that is called has a number, its context.

import { onAdviseMemory, onDescribeContext } from '../native'
import type { Module } from './module'

interface Place {
  module: WeakRef<Module>
  caller: number
}
const places: Place[] = [{ module: new WeakRef({} as Module), caller: 0 }]

/** @internal A context for a module that is called for the first time, by the module of `caller` (0: by none). */
export function newContext(module: Module, caller: number): number {
  return places.push({ module: new WeakRef(module), caller }) - 1
}

/** @internal Path of the module of a context, from the outermost module: `GPT.transformer.h.0`. */
export function pathOf(context: number): string {
  const place = places[context]
  const module = place?.module.deref()
  if (place === undefined || module === undefined) return ''
  const caller = places[place.caller]?.module.deref()
  if (place.caller === 0 || caller === undefined) return module.constructor.name
  for (const [name, each] of caller.namedModules()) if (each === module) return `${pathOf(place.caller)}.${name}`
  return `${pathOf(place.caller)}.${module.constructor.name}`
}
onDescribeContext(pathOf)

/** A model that knows what its training step needs. */
interface Adviser {
  /** What the last batch needs, and what smaller ones would, in words; null when it has seen none. */
  memoryAdvice(): string | null
}

// Of the outermost module: it is the one whose batch can be changed.
function adviceOf(context: number): string | null {
  let place = places[context]
  while (place !== undefined && place.caller !== 0) place = places[place.caller]
  const model = place?.module.deref() as Partial<Adviser> | undefined
  return typeof model?.memoryAdvice === 'function' ? model.memoryAdvice() : null
}
onAdviseMemory(adviceOf)
