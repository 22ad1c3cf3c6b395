// One recorded operation: what it needs for its backward, and where its gradients go.

import { describeShape, StateError } from '../errors'
import { currentContext } from '../tensor/dispatch'
import { unref } from '../tensor/memory'
import { type Recipe, Tensor } from '../tensor/tensor'

/** What a gradient formula gets. */
export interface BackwardContext {
  /** The i-th saved tensor, checked against in-place changes since it was saved. */
  saved(i: number): Tensor
  /** Whether the gradient of the i-th input is wanted. */
  needs(i: number): boolean
  /** The gradient that others have already made for the i-th input, contiguous and free to be added into by the kernel
   *  itself (then return ACCUMULATED in its place), or null. */
  target(i: number): Tensor | null
}

/** Returned by a formula in place of a gradient that it has added to `target(i)` itself. */
export const ACCUMULATED = Symbol('accumulated')

/** @internal */
export type InputGradient = Tensor | null | undefined | typeof ACCUMULATED

/** Gradient formula: gradients of the outputs (null where none arrived) -> gradients of the inputs. */
export type Backward = (context: BackwardContext, ...grads: Tensor[]) => InputGradient | readonly InputGradient[]

let sequence = 0

/** @internal Finds the gradient under way that a formula may add into by itself. */
export type TargetFinder = (next: Node | Tensor, output: number) => Tensor | null

let findTarget: TargetFinder = () => null

/** @internal Set by the engine for the time of a pass. */
export function setTargetFinder(finder: TargetFinder): TargetFinder {
  const outer = findTarget
  findTarget = finder
  return outer
}

/** @internal What the tape has of a tensor that a formula reads. */
export interface Saved {
  read(op: string): Tensor
  /** The last reading is done. */
  free(): void
  /** A reading is done and others may follow: what can be made again need not stay. */
  forget(): void
}

/** @internal What saves tensors in place of the tape, while a checkpointed function runs. */
export interface Keeper {
  keep(tensor: Tensor): Saved
  /** The function passes something that it must pass again. */
  passes(what: string): void
  /** All of a node of that name is kept. */
  nodeDone(name: string): void
  /** A tensor has a recipe that rounds. */
  recipe(tensor: Tensor): void
  /** Whether a node that saves so many tensors is the last one that is wanted: its own results are not. */
  isLast(saved: number): boolean
}

/** @internal Null: the tape keeps what formulas read. */
export let keeper: Keeper | null = null

/** @internal */
export function setKeeper(next: Keeper | null): Keeper | null {
  const outer = keeper
  keeper = next
  return outer
}

/** @internal Gives a tensor its recipe. */
export function setRecipe(tensor: Tensor, recipe: Recipe): void {
  tensor._recipe = recipe
  if (recipe.rounds) keeper?.recipe(tensor)
}

/** @internal Whether the pass under way leaves the graph for another one. */
export let retaining = false

/** @internal */
export function setRetaining(value: boolean): boolean {
  const outer = retaining
  retaining = value
  return outer
}

/** Whether what a tensor is computed from is still there: its user may have released it. */
function isComputable({ _recipe: recipe }: Tensor): boolean {
  return recipe?.inputs.every((input) => input._refs > 0 || (input._version === 0 && isComputable(input))) ?? false
}

// A tensor that the tape keeps: the tensor itself, or, where it has a recipe, what the recipe needs. The outputs of
// norms, activations and dropout are read once more in backward, by the product that follows them; computing them again
// there costs one pass over memory and saves half of a transformer's activations.
/** @internal */
export class SavedTensor implements Saved {
  private readonly version: number
  private readonly recipe: Recipe | null
  private readonly inputs: readonly SavedTensor[] = []

  constructor(private readonly tensor: Tensor) {
    this.version = tensor._storageVersion
    this.recipe = this.version === 0 && isComputable(tensor) ? tensor._recipe : null
    if (this.recipe === null) tensor._refs++
    else this.inputs = this.recipe.inputs.map((input) => new SavedTensor(input))
  }

  read(op: string): Tensor {
    const { tensor } = this
    if (tensor._storageVersion !== this.version) {
      throw new StateError(`backward of ${op}`, {
        problem: `a tensor of shape ${describeShape(tensor.shape)} that the gradient needs was changed in place after it was used`,
        got: `version ${tensor._storageVersion}`,
        expected: `version ${this.version}`,
        action: 'use the out-of-place form, or clone() before changing it',
      })
    }
    if (tensor._released === null && this.recipe?.rounds !== true) return tensor
    if (this.recipe === null) return lend(tensor)
    return this.recipe.compute(
      this.inputs.map((input) => input.read(op)),
      tensor._dtype,
    )
  }

  free(): void {
    if (this.recipe === null) unref(this.tensor)
    else for (const input of this.inputs) input.free()
  }

  forget(): void {}
}

/** A tensor that its user released but the tape still owns, usable while a formula runs. */
function lend(tensor: Tensor): Tensor {
  const alias = new Tensor(
    tensor._handle,
    tensor.shape,
    tensor._dtype,
    tensor._device,
    tensor._base ?? tensor,
    tensor._strides,
    tensor._offset,
  )
  alias._refs = Number.POSITIVE_INFINITY // the owner releases the handle
  return alias
}

/** @internal Whether a recorded view was taken before its base was changed by a recorded in-place operation: then its
 *  place in the graph is that of the old base. */
export function isStale(input: Tensor): boolean {
  const base = input._base
  return base !== null && input._node !== null && input._version < base._recordedAt
}

/** @internal */
export function staleView(op: string, view: Tensor): StateError {
  return new StateError(op, {
    problem: 'a view was taken before its base was changed in place',
    got: `a view of shape ${describeShape(view.shape)}`,
    expected: 'one of the base as it is now',
    action: 'take the view again',
  })
}

// A node lives from forward to backward, so the garbage collector moves it twice: what most have none of is shared.
const nothing: readonly never[] = []
const firstOutputs = Array.from({ length: 5 }, (_, n): readonly number[] => new Array<number>(n).fill(0))

/** Which output of its node each input is. */
function outputsOf(inputs: readonly (Tensor | null | undefined)[]): readonly number[] {
  const first = firstOutputs[inputs.length]
  return first !== undefined && inputs.every((input) => input == null || input._output === 0)
    ? first
    : inputs.map((input) => input?._output ?? 0)
}

/** A recorded operation. */
export class Node implements BackwardContext {
  readonly sequence = sequence++
  /** @internal the module call that recorded it */
  readonly context = currentContext
  /** Where the gradient of each input goes: a node, a leaf, or null when it is not wanted. */
  readonly next: (Node | Tensor | null)[]
  readonly nextOutput: readonly number[]
  outputs: readonly Tensor[] = nothing
  /** @internal gradients that arrived, by output; null: none */
  grads: (Tensor | null)[] | null = null
  /** @internal module path, and under anomaly detection the stack, of the forward call */
  trace: string | null = null
  freed = false
  private savedTensors: readonly Saved[] = nothing

  constructor(
    readonly name: string,
    readonly backward: Backward,
    inputs: readonly (Tensor | null | undefined)[],
    saved: readonly Tensor[],
  ) {
    const n = inputs.length
    this.next = new Array(n)
    for (let i = 0; i < n; i++) {
      const input = inputs[i]
      if (input === null || input === undefined || !input._requiresGrad) {
        this.next[i] = null
      } else {
        if (isStale(input)) throw staleView(name, input)
        this.next[i] = input._node ?? input
      }
    }
    this.nextOutput = outputsOf(inputs)
    if (saved.length > 0) {
      this.savedTensors = saved.map((tensor) => (keeper === null ? new SavedTensor(tensor) : keeper.keep(tensor)))
    }
    if (keeper !== null) keeper.nodeDone(name)
  }

  saved(i: number): Tensor {
    return this.savedTensors[i]!.read(this.name)
  }

  needs(i: number): boolean {
    return this.next[i] !== null
  }

  target(i: number): Tensor | null {
    const next = this.next[i]
    return next === null || next === undefined ? null : findTarget(next, this.nextOutput[i]!)
  }

  /** Lets go of what can be computed again for the next pass. */
  forget(): void {
    for (const saved of this.savedTensors) saved.forget()
  }

  /** Lets go of what it saved. */
  free(): void {
    if (this.freed) return
    this.freed = true
    for (const saved of this.savedTensors) saved.free()
    this.savedTensors = nothing
    this.outputs = nothing
  }
}
