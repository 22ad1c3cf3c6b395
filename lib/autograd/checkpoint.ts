// Activation checkpointing: recompute in backward instead of storing.

import { ArgumentError, describeValue } from '../errors'
import { expectFunction } from '../options'
import { watchGenerators } from '../random'
import { isNativeOp } from '../tensor/dispatch'
import { setObserver } from '../tensor/observer'
import { forEachTensor, scoped } from '../tensor/scope'
import { Tensor } from '../tensor/tensor'
import { enough, Filling, Frame, isFilling, Recording, type SavePolicy } from './frame'
import { isGradEnabled } from './mode'
import { keeper, setKeeper } from './node'

/** What a checkpointed function may return: a tensor, or tensors in an array or a plain object. */
export type CheckpointOutput = Tensor | readonly Tensor[] | { readonly [name: string]: Tensor }

/** Operations whose results `selectiveCheckpoint` stores: names, or a function of a name (those of native/ops.def, such
 *  as 'linear', 'matmul', 'mlp' or 'attention'). */
export type SaveOps = readonly string[] | ((op: string) => boolean)

/** The operations that take much time for the memory of their results: products of matrices, and attention. */
export const expensiveOps: readonly string[] = ['linear', 'matmul', 'mlp', 'attention']

function expectTensors(op: string, output: unknown): void {
  const values =
    output instanceof Tensor
      ? [output]
      : Array.isArray(output)
        ? output
        : output !== null && typeof output === 'object' && Object.getPrototypeOf(output) === Object.prototype
          ? Object.values(output)
          : [output]
  for (const value of values) {
    if (value instanceof Tensor) continue
    if (value instanceof Promise) value.catch(() => {}) // what is thrown here says what to do first
    throw new ArgumentError(op, {
      problem: 'the function did not return tensors',
      got: describeValue(value),
      expected: 'a Tensor, or tensors in an array or a plain object',
      action:
        value instanceof Promise
          ? 'let it be synchronous: it has to run again while backward passes'
          : 'return what is no tensor by other means',
    })
  }
}

/** @internal Throws unless it chooses operations that exist. */
export function expectSaveOps(op: string, save: unknown): asserts save is SaveOps {
  if (!Array.isArray(save)) {
    if (typeof save === 'function') return
    throw new ArgumentError(op, {
      problem: 'no choice of operations to save',
      got: describeValue(save),
      expected: 'names of operations in an array, or a function of a name',
    })
  }
  const wrong = save.find((name) => !isNativeOp(name))
  if (wrong === undefined && !save.includes(undefined)) return
  throw new ArgumentError(op, {
    problem: 'no such operation to save',
    got: describeValue(wrong),
    expected: `names of native/ops.def such as ${expensiveOps.join(', ')}`,
  })
}

function readPolicy(save: SaveOps): SavePolicy {
  const wanted = Array.isArray(save) ? (name: string) => save.includes(name) : (save as SavePolicy)
  const decided = new Map<string, boolean>() // once an operation, so that both runs agree
  return (name) => {
    let stored = decided.get(name)
    if (stored === undefined) {
      stored = wanted(name)
      decided.set(name, stored)
    }
    return stored
  }
}

/** @internal `owner` is a module whose own fields survive the call, `save` a choice that was checked. */
export function runCheckpointed<Args extends readonly unknown[], Output>(
  op: string,
  fn: (...args: Args) => Output,
  args: Args,
  save: SaveOps | null = null,
  owner: object | null = null,
): Output {
  const run = (): Output => {
    const output = fn(...args)
    expectTensors(op, output)
    return output
  }
  // Inside the first run of another function there is nothing to store for this one alone: when that one runs again,
  // this one is recorded.
  const recorded = isGradEnabled() && (keeper === null || keeper instanceof Filling)
  if (!recorded) return scoped(`${op}()`, owner, run)
  const frame = new Frame(op, run, owner, save === null ? null : readPolicy(save))
  const recording = new Recording(frame, keeper as Filling | null)
  const [outerKeeper, outerObserver] = [setKeeper(recording), setObserver(recording)]
  const outerWatcher = watchGenerators((generator, isForHost) => {
    frame.draws(generator)
    outerWatcher?.(generator, isForHost)
  })
  const outputs = new Set<Tensor>()
  let output: Output
  try {
    forEachTensor(args, (tensor) => recording.uses(tensor))
    output = scoped(`${op}()`, owner, run)
    forEachTensor([output], (tensor) => void outputs.add(tensor))
  } catch (error) {
    if (error !== enough) frame.release()
    else frame.finish() // the function around this one has what it wanted
    throw error
  } finally {
    recording.settle(outputs)
    watchGenerators(outerWatcher)
    setObserver(outerObserver)
    setKeeper(outerKeeper)
  }
  frame.finish()
  return output
}

/** Runs fn on the arguments without storing what its gradients need; backward runs it once more to have it. The peak of
 *  a chain of checkpointed blocks is the input of each and the activations of one; the price is a second forward pass.
 *  Gradients are equal to the bit to those without.
 *
 *  Arguments that are no tensors pass through. Parameters that fn closes over have their gradients whether or not an
 *  argument requires one. The second run finds the state of the random generators, the modes and the module of the
 *  first one, and leaves no trace in them. Checkpointed functions may be nested. Where gradients are disabled, fn just
 *  runs. Forward hooks of modules in fn see both runs; `isRecomputing()` tells them apart.
 *  @throws ArgumentError when fn returns anything but tensors (also a promise); StateError when it changes in place what
 *  it did not make, or, in backward, when it does not do the same again
 *  @see Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost", arXiv:1604.06174
 *  @see https://docs.pytorch.org/docs/stable/checkpoint.html
 *  @example autograd.checkpoint((x) => x.mul(2).exp(), tensor([0])) // [1] */
export function checkpoint<Args extends readonly unknown[], Output extends CheckpointOutput>(
  fn: (...args: Args) => Output,
  ...args: Args
): Output {
  expectFunction('checkpoint', fn)
  return runCheckpointed('checkpoint', fn, args)
}

/** Like `checkpoint`, but stores the results of some operations, which then do not run again: a middle way between
 *  memory and time. `save` lists them by name; `expensiveOps` leaves only cheap ones to run twice.
 *  @throws as `checkpoint`; ArgumentError for an operation that does not exist, or what is no choice of them; StateError
 *  in backward when a stored result was changed in place
 *  @see https://docs.pytorch.org/docs/stable/checkpoint.html#torch.utils.checkpoint.create_selective_checkpoint_contexts
 *  @example autograd.selectiveCheckpoint(autograd.expensiveOps, (x) => x.mul(2).exp(), tensor([0])) // [1] */
export function selectiveCheckpoint<Args extends readonly unknown[], Output extends CheckpointOutput>(
  save: SaveOps,
  fn: (...args: Args) => Output,
  ...args: Args
): Output {
  expectSaveOps('selectiveCheckpoint', save)
  expectFunction('selectiveCheckpoint', fn)
  return runCheckpointed('selectiveCheckpoint', fn, args, save)
}

/** Whether the code that asks runs a second time, in backward. For hooks and counters that should see a call once. */
export function isRecomputing(): boolean {
  return isFilling()
}

/** A link of a chain: a function of one tensor, or a module whose forward takes one. */
export type SequentialStep = ((x: Tensor) => Tensor) | { forward(x: Tensor): unknown }

function runAll(steps: readonly SequentialStep[], input: Tensor): Tensor {
  return steps.reduce((x, step, i) => {
    const output = typeof step === 'function' ? step(x) : step.forward(x)
    if (output instanceof Tensor || i === steps.length - 1) return output as Tensor
    throw new ArgumentError('checkpointSequential', {
      problem: `link ${i} of the chain did not return a tensor`,
      got: describeValue(output),
      expected: 'a Tensor, which the next link takes',
    })
  }, input)
}

/** Runs a chain of modules or functions (an nn.Sequential, too) in so many segments, of which all but the last are
 *  checkpointed: as in PyTorch, the last one is needed at once when backward begins. With n modules, sqrt(n) segments
 *  store least.
 *  @throws ArgumentError when `segments` is not from 1 to the number of modules, a link is no module or function, the input
 *  is no tensor, or a segment does not return tensors
 *  @see https://docs.pytorch.org/docs/stable/checkpoint.html#torch.utils.checkpoint.checkpoint_sequential
 *  @example autograd.checkpointSequential([(x) => x.mul(2), (x) => x.exp()], 2, tensor([0])) // [1] */
export function checkpointSequential(modules: Iterable<SequentialStep>, segments: number, input: Tensor): Tensor {
  const op = 'checkpointSequential'
  if (typeof (modules as Iterable<unknown> | null)?.[Symbol.iterator] !== 'function') {
    throw new ArgumentError(op, {
      problem: 'no chain of modules',
      got: describeValue(modules),
      expected: 'an nn.Sequential, or modules and functions in an array',
    })
  }
  const steps = [...modules]
  for (const step of steps) {
    if (typeof step === 'function' || typeof (step as { forward?: unknown } | null)?.forward === 'function') continue
    throw new ArgumentError(op, {
      problem: 'a link of the chain cannot be called',
      got: describeValue(step),
      expected: 'a module or a function',
    })
  }
  if (!Number.isInteger(segments) || segments < 1 || segments > steps.length) {
    throw new ArgumentError(op, {
      problem: 'not a number of segments',
      got: describeValue(segments),
      expected: `a whole number from 1 to ${steps.length}, the number of modules`,
    })
  }
  if (!(input instanceof Tensor)) {
    throw new ArgumentError(op, {
      problem: 'the input is no tensor',
      got: describeValue(input),
      expected: 'a Tensor',
    })
  }
  const size = Math.floor(steps.length / segments)
  let x = input
  let from = 0
  for (; from < size * (segments - 1); from += size) {
    const part = steps.slice(from, from + size)
    x = runCheckpointed(op, (each: Tensor) => runAll(part, each), [x])
  }
  const output = runAll(steps.slice(from), x)
  expectTensors(op, output)
  return output
}
