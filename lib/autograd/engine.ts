// `backward` and `grad`: what they are given, and the state that a pass runs in.

import { ArgumentError, DTypeError, describeShape, describeValue, ShapeError, StateError } from '../errors'
import { readOptions } from '../options'
import { native, run } from '../tensor/dispatch'
import { flushReleases, releaseTensor } from '../tensor/memory'
import { inPhase } from '../tensor/memoryNotes'
import { unscoped } from '../tensor/scope'
import { expectDevice, sameShape, Tensor } from '../tensor/tensor'
import { withoutAutocast } from './autocast'
import { withoutGrad } from './mode'
import { isStale, setRetaining, setTargetFinder, staleView } from './node'
import { Pass, type Sink } from './pass'

/** Options of `backward`. */
export interface BackwardOptions {
  /** Gradient of the tensor itself, or one for each of several; needed unless it has one element. */
  gradient?: Tensor | readonly (Tensor | null)[] | null
  /** Keeps what the graph saved, so that backward can pass again. Default false. */
  retainGraph?: boolean
}

const fill = native('fill', 'value')

/** @internal One tensor or several as a list of live ones. @throws DTypeError for what is no tensor */
export function tensorList(op: string, name: string, value: unknown): Tensor[] {
  const list: unknown[] = Array.isArray(value) ? value : [value]
  list.forEach((each, i) => {
    if (!(each instanceof Tensor)) {
      throw new DTypeError(op, {
        problem: `${name} ${i} is not a tensor`,
        got: describeValue(each),
        expected: 'a Tensor',
      })
    }
    each._alive(op)
  })
  return list as Tensor[]
}

function checkGradient(root: Tensor, gradient: Tensor | null | undefined): Tensor {
  if (isStale(root)) throw staleView('backward', root)
  if (!root.requiresGrad) {
    throw new StateError('backward', {
      problem: 'the tensor does not require a gradient',
      action: 'compute it from parameters or tensors with requiresGrad, outside of noGrad',
    })
  }
  if (gradient === undefined || gradient === null) {
    if (root.numel !== 1) {
      throw new ShapeError('backward', {
        problem: 'only a one-element tensor has an implicit gradient',
        got: `shape ${describeShape(root.shape)}`,
        action: 'pass { gradient }, or reduce with sum() or mean()',
      })
    }
    return run(fill, [root], root.shape, root._dtype, [1]) // none where the loss itself has failed
  }
  if (!(gradient instanceof Tensor)) {
    throw new DTypeError('backward', {
      problem: 'the gradient is not a tensor',
      got: describeValue(gradient),
      expected: `a ${root.dtype} tensor ${describeShape(root.shape)}`,
    })
  }
  gradient._alive('backward')
  if (!sameShape(gradient.shape, root.shape) || gradient._dtype !== root._dtype) {
    throw new ShapeError('backward', {
      problem: 'the gradient does not fit the tensor',
      got: `${gradient.dtype} ${describeShape(gradient.shape)}`,
      expected: `${root.dtype} ${describeShape(root.shape)}`,
    })
  }
  expectDevice('backward', 'the gradient is on another device than the tensor', gradient, root)
  return gradient
}

function expectOneEach(op: string, name: string, given: readonly unknown[], roots: readonly Tensor[]): void {
  if (given.length === roots.length) return
  throw new ArgumentError(op, {
    problem: `the number of ${name} does not fit`,
    got: `${given.length}`,
    expected: `${roots.length}, one for each output (null for the implicit 1)`,
  })
}

function runPass(
  roots: readonly Tensor[],
  given: readonly (Tensor | null | undefined)[],
  retainGraph: boolean,
  sink: Sink,
): void {
  // Gradients are computed in the dtypes that the forward pass left, wherever backward is called.
  const apart = (fn: () => void): void =>
    inPhase('backward', () => withoutAutocast(() => withoutGrad(() => unscoped(fn))))
  apart(() => {
    const gradients = roots.map((root, i) => checkGradient(root, given[i]))
    const pass = new Pass(retainGraph, sink, new Set(roots))
    const outerFinder = setTargetFinder((next, output) => pass.target(next, output))
    const outer = setRetaining(retainGraph)
    try {
      pass.run(roots, gradients)
    } finally {
      setTargetFinder(outerFinder)
      setRetaining(outer)
      gradients.forEach((gradient, i) => {
        if (given[i] === undefined || given[i] === null) releaseTensor(gradient, 'backward()')
      })
      flushReleases()
    }
  })
}

/** Computes the gradient of `root` with respect to every leaf that requires one and adds it to the leaf's `.grad`.
 *  Afterwards the graph is freed, and with it the intermediate tensors made outside of modules. Several roots pass
 *  together; a tensor in place of the options is the gradient.
 *  @throws ShapeError when root has several elements and no gradient was given, or one that does not fit; DeviceError
 *  for one on another device; StateError when the graph was freed,
 *  or when a tensor that a formula needs was changed in place
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.Tensor.backward.html */
export function backward(root: Tensor | readonly Tensor[], options: BackwardOptions | Tensor = {}): void {
  const roots = tensorList('backward', 'root', root)
  const { gradient, retainGraph = false } =
    options instanceof Tensor ? { gradient: options } : readOptions('backward', options, ['gradient', 'retainGraph'])
  const given = Array.isArray(gradient) ? (gradient as (Tensor | null)[]) : [gradient as Tensor | null | undefined]
  if (gradient !== undefined && gradient !== null) expectOneEach('backward', 'gradients', given, roots)
  runPass(roots, given, retainGraph, { wanted: null, collected: [] })
}

/** Gradients of `outputs` (summed) with respect to `inputs`, without touching any `.grad`. An input that the outputs do
 *  not depend on gives null when `allowUnused`, else an error.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.autograd.grad.html */
export function grad(
  outputs: Tensor | readonly Tensor[],
  inputs: Tensor | readonly Tensor[],
  options: { gradOutputs?: Tensor | readonly Tensor[]; retainGraph?: boolean; allowUnused?: boolean } = {},
): (Tensor | null)[] {
  if ((options as { createGraph?: unknown } | null)?.createGraph === true) {
    throw new StateError('grad', {
      problem: 'gradients cannot be differentiated again',
      got: 'createGraph true',
      expected: 'first derivatives only',
      action: 'write the derivative as a function of its own',
    })
  }
  readOptions<object>('grad', options, ['gradOutputs', 'retainGraph', 'allowUnused', 'createGraph'] as never[])
  const roots = tensorList('grad', 'output', outputs)
  const all = tensorList('grad', 'input', inputs)
  const wanted = [...new Set(all)]
  const { gradOutputs } = options
  const given = gradOutputs === undefined ? [] : gradOutputs instanceof Tensor ? [gradOutputs] : [...gradOutputs]
  if (gradOutputs !== undefined) expectOneEach('grad', 'gradOutputs', given, roots)
  const collected = new Array<Tensor | null>(wanted.length).fill(null)
  const places = new Map(wanted.map((input, i) => [input, i]))
  runPass(
    roots,
    roots.map((_, i) => given[i]),
    options.retainGraph ?? false,
    { wanted: places, collected },
  )
  if (!options.allowUnused && collected.includes(null)) {
    throw new StateError('grad', {
      problem: `input ${all.indexOf(wanted[collected.indexOf(null)]!)} was not used by the outputs`,
      action: 'pass { allowUnused: true } to get null for it',
    })
  }
  return all.map((input) => collected[places.get(input)!] ?? null)
}

declare module '../tensor/tensor' {
  interface Tensor {
    /** Computes gradients of every leaf; see `autograd.backward`. */
    backward(options?: BackwardOptions | Tensor): void
  }
}

Tensor.prototype.backward = function (options) {
  backward(this, options)
}
