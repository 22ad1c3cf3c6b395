// Modules that hold modules.

import { ArgumentError, describeValue, IndexError } from '../errors'
import type { Tensor } from '../tensor/tensor'
import { Module } from './module'

function expectModule(op: string, value: unknown): asserts value is Module {
  if (!(value instanceof Module)) {
    throw new ArgumentError(op, {
      problem: 'not a module',
      got: describeValue(value),
      expected: 'an nn.Module',
      ...(Array.isArray(value) && { action: `spread arrays: new ${op}(...modules)` }),
    })
  }
  value.namedChildren() // refuses a forward that the memory scope cannot see
}

/** A list of modules, found by `parameters()`; it has no forward of its own.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.nn.ModuleList.html
 *  @example for (const block of this.blocks) x = block.forward(x) */
export class ModuleList<M extends Module = Module> extends Module {
  /** The module at a position, as in `blocks[0]`; `at` also counts from the end and checks. */
  readonly [index: number]: M

  constructor(modules: Iterable<M> = []) {
    super()
    this.extend(modules)
  }

  /** Number of modules. */
  get length(): number {
    return this.children().length
  }

  /** Adds a module at the end; returns the list. */
  append(module: M): this {
    expectModule(this.constructor.name, module)
    // Fields named by position, so that state dicts say `blocks.0.weight`.
    ;(this as unknown as Record<string, M>)[String(this.length)] = module
    return this
  }

  /** Adds modules at the end; returns the list. */
  extend(modules: Iterable<M>): this {
    if (typeof (modules as Iterable<M> | null)?.[Symbol.iterator] !== 'function') {
      throw new ArgumentError(this.constructor.name, {
        problem: 'no list of modules',
        got: describeValue(modules),
        expected: 'an array of modules',
      })
    }
    for (const module of modules) this.append(module)
    return this
  }

  /** Puts a module before the one at a position (at most `length`); returns the list.
   *  @throws IndexError outside the list */
  insert(index: number, module: M): this {
    expectModule(this.constructor.name, module)
    const modules = this.children() as M[]
    if (!Number.isInteger(index) || index < 0 || index > modules.length) {
      throw new IndexError(this.constructor.name, {
        problem: 'no such position',
        got: describeValue(index),
        expected: `0 to ${modules.length}`,
      })
    }
    modules.splice(index, 0, module)
    modules.forEach((each, i) => {
      ;(this as unknown as Record<string, M>)[String(i)] = each
    })
    return this
  }

  /** Positions and modules, as Python's enumerate gives them. */
  entries(): IterableIterator<[number, M]> {
    return (this.children() as M[]).entries()
  }

  /** The module at a position; negative ones count from the end.
   *  @throws IndexError outside the list */
  at(index: number): M {
    const modules = this.children() as M[]
    const module = Number.isInteger(index) ? modules.at(index) : undefined
    if (module === undefined) {
      throw new IndexError(this.constructor.name, {
        problem: 'no module at this position',
        got: describeValue(index),
        expected: `${-modules.length} to ${modules.length - 1}`,
      })
    }
    return module
  }

  /** Puts another module at a position. */
  set(index: number, module: M): void {
    expectModule(this.constructor.name, module)
    this.at(index)
    const position = index < 0 ? index + this.length : index
    ;(this as unknown as Record<string, M>)[String(position)] = module
  }

  [Symbol.iterator](): IterableIterator<M> {
    return (this.children() as M[])[Symbol.iterator]()
  }
}

/** Modules one after the other: each gets the output of the one before.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.nn.Sequential.html
 *  @example new nn.Sequential(new nn.Linear(4, 8), new nn.GELU(), new nn.Linear(8, 4)).forward(ones([2, 4])) */
export class Sequential extends ModuleList {
  constructor(...modules: Module[]) {
    super(modules)
  }

  // The types of what passes through are the modules' own affair.
  forward<T = Tensor>(input: unknown): T {
    let value = input
    for (const module of this) value = (module as { forward(x: unknown): unknown }).forward(value)
    return value as T
  }
}

/** Modules by name, in the order in which they were added.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.nn.ModuleDict.html
 *  @example new nn.ModuleDict({ up: new nn.Linear(4, 8) }).get('up') */
export class ModuleDict<M extends Module = Module> extends Module {
  readonly #names = new Set<string>()

  constructor(modules: Record<string, M> = {}) {
    super()
    for (const [name, module] of Object.entries(modules)) this.set(name, module)
  }

  /** Names in order. */
  keys(): string[] {
    return [...this.#names]
  }

  has(name: string): boolean {
    return this.#names.has(name)
  }

  /** The module of that name. @throws IndexError when there is none */
  get(name: string): M {
    if (!this.#names.has(name)) {
      throw new IndexError('ModuleDict', {
        problem: 'no module of this name',
        got: describeValue(name),
        expected: this.keys().join(', ') || 'none, the dict is empty',
      })
    }
    return (this as unknown as Record<string, M>)[name]!
  }

  /** Adds or replaces a module; returns the dict. */
  set(name: string, module: M): this {
    expectModule('ModuleDict', module)
    if (typeof name !== 'string' || name === '' || name.includes('.') || (name in this && !this.#names.has(name))) {
      throw new ArgumentError('ModuleDict', {
        problem: 'not a name for a module',
        got: describeValue(name),
        expected: "a word without '.' that is no method or field of modules",
      })
    }
    this.#names.add(name)
    ;(this as unknown as Record<string, M>)[name] = module
    return this
  }

  /** Takes a module out. */
  delete(name: string): boolean {
    if (!this.#names.delete(name)) return false
    return delete (this as unknown as Record<string, M>)[name]
  }

  /** Names and modules in order. */
  entries(): [string, M][] {
    return this.keys().map((name) => [name, this.get(name)])
  }

  [Symbol.iterator](): IterableIterator<[string, M]> {
    return this.entries()[Symbol.iterator]()
  }
}
