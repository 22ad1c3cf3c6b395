// One pass over the tape, backwards. Nodes are numbered as they are recorded, so descending numbers are a topological
// order: no recursion, and the same order every time.

import { ArgumentError, describeShape, describeValue, ShapeError, StateError } from '../errors'
import { native, type Output, run, runInto, runLike, runMany, setContext, transfer } from '../tensor/dispatch'
import { flushReleases, leaveToCollector, releaseTensor } from '../tensor/memory'
import { noteTensor } from '../tensor/memoryNotes'
import { capture } from '../tensor/scope'
import { expectDevice, sameShape, Tensor } from '../tensor/tensor'
import { checkAnomaly, isAnomalyEnabled } from './anomaly'
import type { InputGradient, Node } from './node'

const add = native('add', 'scalar,reversed,alpha')
const copy = native('copy')
const copyTwice = native('copyTwice')

/** Gradients under way: how many places hold each tensor that the engine owns. */
class Ledger {
  private readonly holders = new Map<Tensor, number>()
  private readonly foreign = new Set<Tensor>()

  /** Holds a tensor that somebody else owns once more, so that it is never taken or released here. */
  holdForeign(grad: Tensor): void {
    this.foreign.add(grad)
    this.hold(grad)
    this.hold(grad)
  }

  hold(grad: Tensor): void {
    this.holders.set(grad, (this.holders.get(grad) ?? 0) + 1)
  }

  /** Remaining holders. */
  drop(grad: Tensor): number {
    const left = (this.holders.get(grad) ?? 1) - 1
    if (left > 0) this.holders.set(grad, left)
    else this.holders.delete(grad)
    return left
  }

  count(grad: Tensor): number {
    return this.holders.get(grad) ?? 0
  }

  release(grad: Tensor): void {
    if (this.drop(grad) === 0) releaseTensor(grad, 'backward()')
  }

  /** After an error: nothing that the engine made stays. */
  releaseAll(): void {
    for (const grad of this.holders.keys()) if (!this.foreign.has(grad)) releaseTensor(grad, 'backward()')
    this.holders.clear()
  }
}

function reachable(roots: readonly Node[]): Node[] {
  const seen = new Set<Node>(roots)
  const nodes = [...seen]
  for (let i = 0; i < nodes.length; i++) {
    for (const next of nodes[i]!.next) {
      if (next !== null && !(next instanceof Tensor) && !seen.has(next)) {
        seen.add(next)
        nodes.push(next)
      }
    }
  }
  return nodes.sort((a, b) => b.sequence - a.sequence)
}

/** @internal What a pass does with gradients of leaves: accumulates them in `.grad`, or collects them for `autograd.grad`. */
export interface Sink {
  /** Where the pass should also stop and collect, for non-leaf inputs. */
  readonly wanted: ReadonlyMap<Tensor, number> | null
  readonly collected: (Tensor | null)[]
}

/** A gradient, or its copy for an operand of rank 0 on the cpu that was combined with tensors on CUDA.
 *  Throws unless it is shaped like what it is the gradient of, and where that is. */
function fitted(source: string, gradient: Tensor, of: Tensor): Tensor {
  if (!sameShape(gradient.shape, of.shape)) {
    throw new ShapeError('backward', {
      problem: `${source} gave a gradient of another shape`,
      got: describeShape(gradient.shape),
      expected: describeShape(of.shape),
    })
  }
  if (gradient._device !== of._device) {
    if (of.shape.length === 0 && of._device.type === 'cpu') return transfer(gradient, of._device)
    expectDevice('backward', `${source} gave a gradient on another device`, gradient, of)
  }
  return gradient
}

/** A leaf whose hooks are to see the sum of what arrives. */
interface Hooked {
  awaited: number
  grad: Tensor | null
}

/** @internal */
export class Pass {
  private readonly ledger = new Ledger()
  private readonly hooked = new Map<Tensor, Hooked>()
  private waiting: { leaf: Tensor; grad: Tensor } | null = null // a copy to make

  constructor(
    private readonly retainGraph: boolean,
    private readonly sink: Sink,
    private readonly roots: ReadonlySet<Tensor>,
  ) {}

  run(roots: readonly Tensor[], gradients: readonly Tensor[]): void {
    const nodes = reachable(roots.flatMap((root) => root._node ?? []))
    for (const node of nodes) for (const next of node.next) this.await(next)
    for (const root of roots) if (root._node === null) this.await(root)
    try {
      roots.forEach((root, i) => {
        const gradient = gradients[i]!
        this.ledger.holdForeign(gradient) // the caller's
        if (root._node !== null) this.arriveAtNode(root._node, root._output, gradient)
        else {
          this.arriveAtLeaf(root, gradient)
          this.settle(root)
        }
      })
      this.copyWaiting()
      for (const node of nodes) {
        this.visit(node)
        if (this.hooked.size > 0) for (const next of node.next) this.settle(next)
        this.copyWaiting()
      }
    } catch (error) {
      for (const node of nodes) node.grads = null
      this.ledger.releaseAll()
      throw error
    }
  }

  private arriveAtNode(node: Node, output: number, gradient: Tensor): void {
    node.grads ??= []
    node.grads[output] = this.plus(node.grads[output] ?? null, gradient)
  }

  private plus(present: Tensor | null, gradient: Tensor): Tensor {
    if (present === null) return gradient
    // A sum that only this place holds is added into; anything else may still be read elsewhere.
    if (this.isOurs(present)) {
      present._accumulates = true
      runInto(add, [present, gradient], present, [0, 0, 1])
      this.ledger.release(gradient)
      return present
    }
    const sum = runLike(add, present, gradient, present._dtype, 3, 0, 0, 1)
    this.ledger.hold(sum)
    this.ledger.release(present)
    this.ledger.release(gradient)
    return sum
  }

  private await(next: Node | Tensor | null): void {
    if (!(next instanceof Tensor) || next._hooks === null) return
    const hooked = this.hooked.get(next)
    if (hooked === undefined) this.hooked.set(next, { awaited: 1, grad: null })
    else hooked.awaited++
  }

  /** One use of a leaf is dealt with: after the last one its hooks get the sum. */
  private settle(next: Node | Tensor | null): void {
    if (!(next instanceof Tensor)) return
    const hooked = this.hooked.get(next)
    if (hooked === undefined || --hooked.awaited > 0) return
    this.hooked.delete(next)
    let { grad } = hooked
    if (grad === null) return
    this.copyWaiting() // a hook may write into what it is handed
    for (const hook of next._hooks?.slice() ?? []) grad = this.replaced(grad, hook(grad))
    this.deliver(next, grad)
  }

  private arriveAtLeaf(leaf: Tensor, gradient: Tensor): void {
    const hooked = this.hooked.get(leaf)
    if (hooked === undefined) this.deliver(leaf, gradient)
    else hooked.grad = this.plus(hooked.grad, gradient)
  }

  private deliver(leaf: Tensor, grad: Tensor): void {
    const at = this.sink.wanted?.get(leaf)
    if (this.sink.wanted !== null) {
      if (at === undefined || this.collect(at, grad, this.isOurs(grad))) this.ledger.release(grad)
      return
    }
    if (this.waiting?.leaf === leaf) this.copyWaiting()
    const present = leaf.grad
    if (present !== null && present._released === null) {
      present._accumulates = true
      runInto(add, [present, grad], present, [0, 0, 1])
      this.ledger.release(grad)
      noteTensor(present, 'gradients')
    } else if (this.isOurs(grad) && grad._dtype === leaf._dtype) {
      this.ledger.drop(grad)
      leaveToCollector(grad)
      grad._accumulates = true
      leaf._grad = grad
      noteTensor(grad, 'gradients')
    } else {
      this.copyTo(leaf, grad)
    }
  }

  /** A gradient that stays somebody else's: its copy waits for a second leaf of the node, as in a + b. */
  private copyTo(leaf: Tensor, grad: Tensor): void {
    const first = this.waiting
    if (first?.grad !== grad || first.leaf._dtype !== leaf._dtype) {
      this.copyWaiting()
      this.waiting = { leaf, grad }
      return
    }
    this.waiting = null
    const output: Output = [leaf.shape, leaf._dtype]
    const copies = runMany(copyTwice, [grad], [output, output])
    this.take(first.leaf, copies[0]!, grad)
    this.take(leaf, copies[1]!, grad)
  }

  private copyWaiting(): void {
    if (this.waiting === null) return
    const { leaf, grad } = this.waiting
    this.waiting = null
    this.take(leaf, run(copy, [grad], leaf.shape, leaf._dtype), grad)
  }

  private take(leaf: Tensor, copied: Tensor, from: Tensor): void {
    copied._accumulates = true
    leaf._grad = copied
    this.ledger.release(from)
    noteTensor(copied, 'gradients')
  }

  /** A gradient under way that nobody else reads: a leaf's `.grad`, or the sum so far for a node's output. */
  target(next: Node | Tensor, output: number): Tensor | null {
    if (!(next instanceof Tensor)) {
      const present = next.grads?.[output] ?? null
      if (present === null || !this.isOurs(present)) return null
      present._accumulates = true
      return present
    }
    const { grad } = next
    if (this.sink.wanted !== null || next._hooks !== null || grad === null || grad._released !== null) return null
    if (grad._strides !== null || grad._requiresGrad || grad._dtype !== next._dtype) return null
    grad._accumulates = true
    return grad
  }

  private isOurs(grad: Tensor): boolean {
    return this.ledger.count(grad) === 1 && grad._strides === null && grad._base === null
  }

  /** Adds to what `autograd.grad` returns; false when it took `grad` itself. */
  private collect(at: number, grad: Tensor, mayTake: boolean): boolean {
    const present = this.sink.collected[at] ?? null
    if (present !== null) {
      runInto(add, [present, grad], present, [0, 0, 1])
      return true
    }
    if (!mayTake) {
      this.sink.collected[at] = this.ownCopy(grad)
      return true
    }
    this.ledger.drop(grad)
    leaveToCollector(grad)
    grad._accumulates = true
    this.sink.collected[at] = grad
    return false
  }

  private ownCopy(grad: Tensor): Tensor {
    const copied = run(copy, [grad], grad.shape, grad._dtype)
    copied._accumulates = true
    return copied
  }

  /** Gradients of intermediate tensors accumulate as those of leaves do. */
  private retain(output: Tensor, grad: Tensor): void {
    const present = output.grad
    if (present !== null && present._released === null) runInto(add, [present, grad], present, [0, 0, 1])
    else output._grad = this.ownCopy(grad)
  }

  private replaced(grad: Tensor, replacement: unknown): Tensor {
    if (replacement === undefined || replacement === null || replacement === grad) return grad
    if (!(replacement instanceof Tensor)) {
      throw new ArgumentError('registerHook', {
        problem: 'the hook returned no tensor',
        got: describeValue(replacement),
        expected: 'a Tensor, or nothing to leave the gradient as it is',
      })
    }
    if (describeShape(replacement.shape) !== describeShape(grad.shape) || replacement._dtype !== grad._dtype) {
      throw new ShapeError('registerHook', {
        problem: 'the hook changed what the gradient is',
        got: `${replacement.dtype} ${describeShape(replacement.shape)}`,
        expected: `${grad.dtype} ${describeShape(grad.shape)}`,
      })
    }
    expectDevice('registerHook', 'the hook moved the gradient to another device', replacement, grad)
    this.ledger.holdForeign(replacement) // the hook's author may keep it
    this.ledger.release(grad)
    return replacement
  }

  private visit(node: Node): void {
    if (node.freed) {
      throw new StateError(`backward of ${node.name}`, {
        problem: 'the graph was freed by an earlier backward()',
        action: 'pass { retainGraph: true } to the first one, or compute the loss again',
      })
    }
    const { outputs } = node
    const grads = node.grads ?? []
    node.grads = null
    let arrived = false
    for (let i = 0; i < outputs.length; i++) {
      const output = outputs[i]!
      let grad = grads[i] ?? null
      if (grad !== null) {
        arrived = true
        if (output._hooks !== null) for (const hook of [...output._hooks]) grad = this.replaced(grad, hook(grad))
        if (output._retainGrad) this.retain(output, grad)
        const at = this.sink.wanted?.get(output)
        if (at !== undefined) this.collect(at, grad, false)
      }
      grads[i] = grad
    }
    if (arrived) this.propagate(node, grads)
    for (const grad of grads) if (grad !== null) this.ledger.release(grad)
    if (!this.retainGraph) {
      for (const output of outputs) {
        if (!output._outermost && !output._kept && !output._retainGrad && !this.roots.has(output)) {
          releaseTensor(output, 'backward()')
        }
      }
      node.free()
    } else {
      node.forget()
    }
    flushReleases()
  }

  private propagate(node: Node, grads: (Tensor | null)[]): void {
    const fresh: Tensor[] = []
    const outer = setContext(node.context) // errors and profiles name the module whose forward recorded the node
    let results: readonly InputGradient[]
    try {
      results = capture('backward()', fresh, () => {
        const result = node.backward(node, ...(grads as Tensor[]))
        return (Array.isArray(result) ? result : [result]) as readonly InputGradient[]
      })
    } finally {
      setContext(outer)
    }
    if (isAnomalyEnabled()) {
      const made = results.filter((result): result is Tensor => result instanceof Tensor)
      checkAnomaly(node.name, made, grads, 'backward', node.trace)
    }
    // all are held before any arrives: one tensor may be the gradient of several inputs
    for (const result of results) {
      if (!(result instanceof Tensor)) continue
      const foreign = this.ledger.count(result) === 0 && !fresh.includes(result)
      if (foreign) this.ledger.holdForeign(result)
      else this.ledger.hold(result)
    }
    for (let i = 0; i < results.length; i++) {
      const result = results[i]
      if (!(result instanceof Tensor)) continue
      const next = node.next[i]
      if (next === null || next === undefined) this.ledger.release(result)
      else if (next instanceof Tensor) {
        this.arriveAtLeaf(next, this.fit(node, result, next))
      } else {
        const output = node.nextOutput[i]!
        // a freed one refuses when it is visited
        this.arriveAtNode(next, output, next.freed ? result : this.fit(node, result, next.outputs[output]!))
      }
    }
  }

  private fit(node: Node, gradient: Tensor, of: Tensor): Tensor {
    const result = fitted(node.name, gradient, of)
    if (result === gradient) return gradient
    this.ledger.hold(result)
    this.ledger.release(gradient)
    return result
  }
}
