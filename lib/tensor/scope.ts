// Scopes: what is made while one is open (a module's forward, tidy) is released when it closes, unless it survives.

import { current, flushReleases, leaveToCollector, releaseTensor, Scope, setCurrent } from './memory'
import { Tensor } from './tensor'

/** @internal Visits the tensors of a value: itself, or those in arrays, maps, sets and plain objects. Other objects have
 *  behaviour and own what they hold. */
export function forEachTensor(value: unknown, visit: (tensor: Tensor) => void, seen: Set<object> | null = null): void {
  if (value === null || typeof value !== 'object') return
  if (value instanceof Tensor) {
    visit(value)
    return
  }
  let items: Iterable<unknown>
  if (Array.isArray(value) || value instanceof Set) {
    items = value
  } else if (value instanceof Map) {
    items = [...value.keys(), ...value.values()]
  } else {
    const prototype = Object.getPrototypeOf(value)
    if (prototype !== Object.prototype && prototype !== null) return
    items = Object.values(value)
  }
  const visited = seen ?? new Set()
  if (visited.has(value)) return
  visited.add(value)
  for (const item of items) forEachTensor(item, visit, visited)
}

let stamp = 0

const surviving =
  (mark: number) =>
  (tensor: Tensor): void => {
    tensor._survives = mark
    if (tensor.grad !== null) tensor.grad._survives = mark
  }

function close(scope: Scope, result: unknown, held: object | null): void {
  if (scope.tensors.length > 0) {
    const mark = ++stamp
    forEachTensor(result, surviving(mark))
    const kept = ++stamp
    if (held !== null) {
      const keep = surviving(kept)
      for (const value of Object.values(held)) forEachTensor(value, keep)
    }
    for (const tensor of scope.tensors) {
      if (tensor._released !== null) continue
      if (tensor._survives === kept) tensor._kept = true // a module's own field: backward leaves it, too
      if (tensor._kept) leaveToCollector(tensor)
      else if (tensor._survives !== mark) releaseTensor(tensor, scope.label)
      else if (scope.parent !== null) scope.parent.tensors.push(tensor)
      else leaveToCollector(tensor)
    }
  }
  flushReleases()
}

/** @internal Runs fn in a scope. What is reachable from its result survives into the surrounding scope, what is
 *  reachable from `held`'s own fields for good. When fn returns a promise the scope closes when that settles (what is
 *  made after its first await belongs to the garbage collector). */
export function scoped<R>(label: string, held: object | null, fn: () => R): R {
  const scope = new Scope(label, current)
  setCurrent(scope)
  let result: R
  try {
    result = fn()
  } catch (error) {
    setCurrent(scope.parent)
    close(scope, null, held)
    throw error
  }
  setCurrent(scope.parent)
  if (result instanceof Promise) {
    const detached = new Scope(label, null)
    detached.tensors.push(...scope.tensors)
    return result.then(
      (value) => {
        close(detached, value, held)
        return value
      },
      (error) => {
        close(detached, null, held)
        throw error
      },
    ) as R
  }
  close(scope, result, held)
  return result
}

/** @internal Runs fn in a scope and releases what it made, but for the tensors that it lists: those are added to `made`
 *  and are the caller's to release. */
export function capture<R extends readonly unknown[]>(label: string, made: Tensor[], fn: () => R): R {
  const scope = new Scope(label, current)
  setCurrent(scope)
  let result: R | null = null
  try {
    result = fn()
    return result
  } finally {
    setCurrent(scope.parent)
    const mark = ++stamp
    if (result !== null) for (const item of result) if (item instanceof Tensor) item._survives = mark
    for (const tensor of scope.tensors) {
      if (tensor._released !== null) continue
      if (tensor._survives === mark) made.push(tensor)
      else if (tensor._kept) leaveToCollector(tensor)
      else releaseTensor(tensor, label)
    }
  }
}

/** @internal Runs fn with no scope open: what it makes is the garbage collector's. */
export function unscoped<R>(fn: () => R): R {
  const outer = current
  setCurrent(null)
  try {
    return fn()
  } finally {
    setCurrent(outer)
  }
}

/** @internal Releases an intermediate result before its scope closes: of a loop over layers only the last one is wanted,
 *  and where the tape needs less than a layer's output, all of them would wait for the end. What a hook was handed stays. */
export function letGo(x: Tensor): void {
  if (!x._kept && x._released === null) releaseTensor(x, 'the loop over the layers')
}

/** Runs fn and releases every tensor made in it, but for those reachable from its result and those marked with
 *  `.keep()`. Modules do this by themselves; it is for code outside of them.
 *  @example tidy(() => a.add(b).mul(c)) */
export function tidy<R>(fn: () => R): R {
  return scoped('tidy()', null, fn)
}
