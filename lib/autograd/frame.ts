// What a checkpointed call leaves behind in place of its activations: what it takes to run it again, and an empty slot
// for each tensor that a formula will read.
//
// The graph is the ordinary one. The first formula that reads a slot runs the function again, with the random state,
// inputs and module of the first time; what is recorded then only fills the slots, in the order of the first run, and
// stops as soon as the last one is full. So gradients take the way that they always take, and are equal to the bit.

import { describeShape, StateError } from '../errors'
import { defaultGenerator, type Generator } from '../random'
import { currentContext, setContext } from '../tensor/dispatch'
import { unref } from '../tensor/memory'
import { type Observer, observer, setObserver } from '../tensor/observer'
import { scoped } from '../tensor/scope'
import { contiguousStrides, type Shape, sameShape, Tensor } from '../tensor/tensor'
import { autocastState, runWithAutocast } from './autocast'
import { withGrad } from './mode'
import { type Keeper, keeper, retaining, type Saved, SavedTensor, setKeeper } from './node'

/** @internal Whether the results of an operation are stored rather than computed again. */
export type SavePolicy = (op: string) => boolean

/** @internal Ends a function that runs again, when nothing that comes after would be read. No error: nobody sees it. */
export const enough: unique symbol = Symbol('enough')

const cast = 'to' // the name of its node

const nothing: Saved = {
  read: () => {
    throw new StateError('backward', { problem: 'the graph of a recomputation has no gradients of its own' })
  },
  free: () => {},
  forget: () => {},
}

interface Held {
  readonly tensor: Tensor
  readonly version: number
}

const leafOf = (tensor: Tensor): Tensor | null => (tensor._requiresGrad && tensor._node === null ? tensor : null)

/** @internal A tensor that a formula will read. */
class Slot implements Saved {
  freed = false
  value: Saved | null = null
  private readonly shape: Shape
  private readonly dtype: number
  /** The tensor itself where it is a parameter or another leaf. */
  private readonly leaf: Tensor | null

  constructor(
    private readonly frame: Frame,
    tensor: Tensor,
  ) {
    this.shape = tensor.shape
    this.dtype = tensor._dtype
    this.leaf = leafOf(tensor)
  }

  /** Whether the second run saves in this place what the first one did, as far as that can be told without reading. */
  fits(tensor: Tensor): boolean {
    return this.dtype === tensor._dtype && sameShape(this.shape, tensor.shape) && this.leaf === leafOf(tensor)
  }

  describe(): string {
    return `${this.leaf === null ? 'one' : 'the parameter'} of shape ${describeShape(this.shape)}`
  }

  read(op: string): Tensor {
    if (this.value === null) this.frame.recompute()
    return this.value!.read(op)
  }

  free(): void {
    this.freed = true
    this.value?.free()
    this.value = null
    this.frame.slotFreed()
  }

  forget(): void {
    if (this.frame.isSpent) return
    this.value?.free()
    this.value = null
  }
}

/** @internal */
export class Frame {
  readonly slots: Slot[] = []
  /** What it passed, in order: modules by their mode, and operations that have gradients; but no casts: autocast makes
   *  one of a weight or has it. */
  readonly passed: string[] = []
  /** What the function read and did not make: its arguments, parameters, and what it closes over. */
  readonly held = new Map<Tensor, Held>()
  /** Results that the policy stores, by operation in order. */
  readonly stored = new Map<string, Held[][]>()
  private open = 0
  private released = false
  /** Generators that the function draws from, as they were before. */
  private readonly random = new Map([[defaultGenerator, defaultGenerator.getState()]])
  private readonly context = currentContext
  private readonly autocast = autocastState()

  constructor(
    readonly op: string,
    private readonly run: () => unknown,
    private readonly owner: object | null,
    readonly policy: SavePolicy | null,
  ) {}

  /** Whether it has run again for good: a pass that frees the graph has passed. */
  get isSpent(): boolean {
    return this.released
  }

  /** Keeps what the function reads from outside, for the second time. */
  hold(tensor: Tensor): void {
    if (this.held.has(tensor)) return
    tensor._refs++
    this.held.set(tensor, { tensor, version: tensor._storageVersion })
  }

  /** Is about to be drawn from. */
  draws(generator: Generator): void {
    if (!this.random.has(generator)) this.random.set(generator, generator.getState())
  }

  /** Keeps the results of an operation. */
  store(op: string, outputs: readonly Tensor[]): void {
    const results = outputs.map((tensor): Held => {
      tensor._refs++
      return { tensor, version: tensor._storageVersion }
    })
    const list = this.stored.get(op)
    if (list === undefined) this.stored.set(op, [results])
    else list.push(results)
  }

  slotFor(tensor: Tensor): Slot {
    this.open++
    const slot = new Slot(this, tensor)
    this.slots.push(slot)
    return slot
  }

  slotFreed(): void {
    if (--this.open === 0) this.release()
  }

  /** The first run is over. @throws StateError when it changed what it will be given again */
  finish(): void {
    for (const { tensor, version } of this.held.values()) {
      if (tensor._storageVersion === version) continue
      this.release()
      throw new StateError(this.op, {
        problem: `the function changes in place a tensor of shape ${describeShape(tensor.shape)} that it did not make`,
        expected: 'a function that can run again in backward and find its inputs as they were',
        action: 'use the out-of-place form, or clone() before changing it',
      })
    }
    if (this.open === 0) this.release()
  }

  release(): void {
    if (this.released) return
    this.released = true
    for (const { tensor } of this.held.values()) unref(tensor)
    for (const list of this.stored.values()) for (const { tensor } of list.flat()) unref(tensor)
    this.held.clear()
    this.stored.clear()
  }

  /** Fills the slots. */
  recompute(): void {
    for (const { tensor, version } of this.held.values()) {
      if (tensor._storageVersion === version) continue
      throw new StateError(this.op, {
        problem: `a tensor of shape ${describeShape(tensor.shape)} that the function reads was changed in place before backward`,
        got: `version ${tensor._storageVersion}`,
        expected: `version ${version}`,
        action: 'use the out-of-place form, or clone() before changing it',
      })
    }
    const filling = new Filling(this)
    const random = [...this.random.keys()].map((generator) => [generator, generator.getState()] as const)
    const [outerKeeper, outerObserver] = [setKeeper(filling), setObserver(this.policy === null ? null : filling)]
    const outerContext = setContext(this.context)
    const revived = revive(this.held.keys())
    try {
      for (const [generator, state] of this.random) generator.setState(state)
      const again = (): void => withGrad(() => scoped(`${this.op}()`, this.owner, () => void this.run()))
      runWithAutocast(this.autocast, again)
    } catch (signal) {
      if (signal !== enough) throw signal
    } finally {
      for (const restore of revived) restore()
      setContext(outerContext)
      setObserver(outerObserver)
      setKeeper(outerKeeper)
      for (const [generator, state] of random) generator.setState(state)
    }
    filling.expectFull()
    if (!retaining) this.release()
  }
}

/** Released tensors are usable again while the function runs; a frame owns their memory. */
function revive(tensors: Iterable<Tensor>): (() => void)[] {
  const restore: (() => void)[] = []
  for (const tensor of tensors) {
    const where = tensor._released
    if (where === null) continue
    tensor._released = null
    tensor._refs++
    restore.push(() => {
      if (tensor._released !== null) return // the function disposed of it once more
      tensor._released = where
      tensor._refs--
    })
  }
  return restore
}

/** @internal The first run of a function: nothing is saved but a slot for each tensor. */
export class Recording implements Keeper, Observer {
  private readonly fresh = new Set<Tensor>()
  private recipes: Tensor[] = []
  private readonly beyond: Observer | null = observer

  /** `outer` is the second run of a function that this one is a part of. */
  constructor(
    private readonly frame: Frame,
    readonly outer: Filling | null,
  ) {}

  /** Whether it stores results, or gives stored ones. */
  get stores(): boolean {
    return this.frame.policy !== null || this.beyond !== null
  }

  keep(tensor: Tensor): Saved {
    const slot = this.frame.slotFor(tensor)
    return this.outer === null ? slot : this.outer.fill(tensor, slot)
  }

  passes(what: string): void {
    this.frame.passed.push(what)
    this.outer?.passes(what)
  }

  nodeDone(name: string): void {
    if (name !== cast) this.frame.passed.push(name)
    this.outer?.nodeDone(name)
  }

  /** What the recipe of an output needs: whoever reads the output reads the recipe. */
  recipe(tensor: Tensor): void {
    for (const input of tensor._recipe!.inputs) input._refs++
    this.recipes.push(tensor)
  }

  /** The function has returned: recipes of what it returned stay with the frame. */
  settle(outputs: ReadonlySet<Tensor>): void {
    for (const tensor of this.recipes) {
      for (const input of tensor._recipe!.inputs) {
        if (outputs.has(tensor)) this.frame.hold(input)
        unref(input)
      }
    }
    this.recipes = []
  }

  isLast(saved: number): boolean {
    return this.outer?.isLast(saved) ?? false
  }

  made(tensor: Tensor): void {
    this.fresh.add(tensor)
  }

  uses(tensor: Tensor): void {
    if (!this.fresh.has(tensor)) this.frame.hold(tensor)
  }

  recall(op: string): Tensor[] | null {
    const outputs = this.beyond === null ? null : this.beyond.recall(op)
    if (outputs !== null) this.ran(op, outputs)
    return outputs
  }

  ran(op: string, outputs: readonly Tensor[]): void {
    if (this.frame.policy?.(op)) this.frame.store(op, outputs)
  }
}

/** @internal The run in backward: fills the slots of the first one. */
export class Filling implements Keeper, Observer {
  private filled = 0
  private passed = 0
  private readonly recalled = new Map<string, number>()

  constructor(private readonly frame: Frame) {}

  keep(tensor: Tensor): Saved {
    return this.fill(tensor, null)
  }

  /** `inner` is the slot of a function that is checkpointed inside of this one. */
  fill(tensor: Tensor, inner: Saved | null): Saved {
    const slot = this.frame.slots[this.filled]
    if (!slot?.fits(tensor)) {
      const what = slot !== undefined && leafOf(tensor) !== null ? 'another parameter' : 'a tensor'
      throw this.differsIn(`${what} of shape ${describeShape(tensor.shape)}`, slot)
    }
    this.filled++
    slot.value?.free()
    if (slot.freed) inner?.free()
    slot.value = slot.freed ? null : (inner ?? new SavedTensor(tensor))
    return nothing
  }

  passes(what: string): void {
    const first = this.frame.passed[this.passed++]
    if (first !== what) throw this.differs(what, first ?? 'none')
  }

  nodeDone(name: string): void {
    if (name !== cast) this.passes(name)
    if (this.filled === this.frame.slots.length) throw enough
  }

  recipe(): void {} // the slots hold what it needs

  isLast(saved: number): boolean {
    return this.filled + saved === this.frame.slots.length
  }

  expectFull(): void {
    if (this.filled < this.frame.slots.length) throw this.differsIn('nothing more', this.frame.slots[this.filled])
  }

  private differsIn(got: string, slot: Slot | undefined): StateError {
    return this.differs(`${got} as tensor ${this.filled} that gradients need`, slot?.describe() ?? 'none')
  }

  private differs(got: string, first: string): StateError {
    return new StateError(this.frame.op, {
      problem: 'the function does not do the same when it runs again in backward',
      got,
      expected: `${first}, as in the first run`,
      action: 'let it depend on its arguments, parameters and the default generator only, and change no mode before',
    })
  }

  made(): void {}

  uses(): void {}

  ran(): void {}

  recall(op: string): Tensor[] | null {
    const calls = this.frame.stored.get(op)
    if (calls === undefined) return null
    const at = this.recalled.get(op) ?? 0
    this.recalled.set(op, at + 1)
    return calls[at]?.map((held) => this.alias(op, held)) ?? null
  }

  /** A tensor of its own, with a place of its own in the graph, around a stored result. */
  private alias(op: string, { tensor, version }: Held): Tensor {
    if (tensor._storageVersion !== version) {
      throw new StateError(this.frame.op, {
        problem: `a stored result of ${op} was changed in place`,
        got: `version ${tensor._storageVersion}`,
        expected: `version ${version}`,
        action: 'use the out-of-place form, or leave the operation out of what is saved',
      })
    }
    const again = Tensor._view(tensor, tensor.shape, contiguousStrides(tensor.shape), 0)
    ;(again as { _base: Tensor | null })._base = null
    again._version = 0
    return again
  }
}

/** @internal Whether the code that runs is a checkpointed function in its second run. */
export function isFilling(): boolean {
  return keeper instanceof Filling || (keeper instanceof Recording && keeper.outer !== null)
}

/** @internal Whether the code that runs is a checkpointed function in either run. */
export function isCheckpointed(): boolean {
  return keeper !== null
}

/** @internal Whether an operation that saves so many tensors need not compute its results: it runs a second time, and
 *  the function ends when they are saved. Never where results are stored, which must come in the order of the first run. */
export function endsRecomputation(saved: number): boolean {
  const stores = observer !== null && !(observer instanceof Recording && !observer.stores)
  return keeper !== null && !stores && keeper.isLast(saved)
}
