// What every operator is made of: a call into the native side, and a record for the tape.
//
// A family file declares its native operators with `native(...)` (checked against native/ops.def when the addon
// loads), infers shapes and dtypes, calls `run`, and hands the result with its gradient formula to `record`.

import { checkAnomaly, forwardTrace, isAnomalyEnabled } from '../autograd/anomaly'
import { isGradEnabled } from '../autograd/mode'
import { type Backward, Node } from '../autograd/node'
import { dtypeNames, isFloatingCode } from '../dtype'
import { DTypeError, describeValue, StateError } from '../errors'
import { releasedError, type Shape, Tensor } from '../tensor/tensor'
import { wordError } from './guard'

export type { Backward, BackwardContext } from '../autograd/node'
export { ACCUMULATED } from '../autograd/node'
export {
  blankGradient,
  make,
  type NativeOp,
  native,
  type Output,
  run,
  runInto,
  runLike,
  runMany,
  transfer,
} from '../tensor/dispatch'

/** What autocast does with an operator's floating inputs: cast to the lower precision, to float32, to the widest
 *  among them, or nothing. */
export type AutocastPolicy = 'lower' | 'float32' | 'promote' | 'keep'

/** The differentiable side of an operator. */
export interface OpRecord {
  readonly name: string
  readonly autocast: AutocastPolicy
  readonly backward: Backward
  /** An infinity in its result is what the caller asked for: nothing that `detectAnomaly` should report. */
  readonly asksForInfinity?: boolean
}

// --- recording --------------------------------------------------------------------------------------------------

/** Whether `record` has to see an operation on these inputs. Ask before saving anything. */
export function needsGrad(inputs: readonly (Tensor | null | undefined)[]): boolean {
  return isRecorded(inputs) || isAnomalyEnabled()
}

function isRecorded(inputs: readonly (Tensor | null | undefined)[]): boolean {
  for (let i = 0; i < inputs.length; i++) {
    const input = inputs[i]
    if (input?._requiresGrad) return isGradEnabled()
  }
  return false
}

/** Puts an operation on the tape when one of its inputs requires a gradient.
 *  `saved` are the tensors that the formula reads. Returns the output(s) as given. */
export function record<O extends Tensor | Tensor[]>(
  op: OpRecord,
  output: O,
  inputs: readonly (Tensor | null | undefined)[],
  saved: Tensor[],
  backward: Backward = op.backward,
): O {
  if (isAnomalyEnabled() && !op.asksForInfinity) checkAnomaly(op.name, output, inputs)
  if (isRecorded(inputs)) {
    const node = new Node(op.name, backward, inputs, saved)
    node.outputs = output instanceof Tensor ? [output] : (output as Tensor[]).slice()
    for (let i = 0; i < node.outputs.length; i++) attach(node, node.outputs[i]!, i)
    if (isAnomalyEnabled()) node.trace = forwardTrace()
  }
  return output
}

function attach(node: Node, output: Tensor, index: number): void {
  if (!isFloatingCode(output._dtype)) return // indices and masks have no gradient
  output._node = node
  output._output = index
  output._requiresGrad = true
  if (output._base === null) output._recordedAt = output._version
}

/** Throws when an in-place operation would make gradients wrong.
 *  @throws StateError for a leaf that requires a gradient, and for views of a recorded tensor */
export function expectWritable(op: string, x: Tensor, inputs: readonly (Tensor | null)[] = []): void {
  if (x._released !== null) throw releasedError(op, x)
  if (!isRecorded([x, ...inputs])) return
  if (x._requiresGrad && x._node === null) {
    throw new StateError(op, {
      problem: 'a leaf that requires a gradient cannot be changed in place while operations are recorded',
      action: 'wrap it in noGrad(() => ...)',
    })
  }
  if (x._base !== null) {
    throw new StateError(op, {
      problem: 'a view cannot be changed in place while operations on it are recorded',
      action: 'use the out-of-place form, or detach() it',
    })
  }
}

/** Puts an in-place operation on the tape: `x` becomes its output. Call `expectWritable` before the operation and this
 *  after it. */
export function recordInPlace(
  op: OpRecord,
  x: Tensor,
  inputs: readonly (Tensor | null | undefined)[],
  saved: Tensor[],
  backward: Backward = op.backward,
): Tensor {
  return record(op, x, inputs, saved, backward)
}

/** A view of x's storage, on the tape when x is. The caller has checked that it stays inside. */
export function recordView(
  op: string,
  x: Tensor,
  shape: Shape,
  strides: readonly number[],
  offset: number,
  backward: Backward,
): Tensor {
  x._alive(op)
  const view = Tensor._view(x, shape, strides, offset)
  return x._requiresGrad ? record({ name: op, autocast: 'keep', backward }, view, [x], []) : view
}

// --- checking arguments -----------------------------------------------------------------------------------------

/** Throws unless the value is a live tensor. */
export function expectTensor(op: string, name: string, value: unknown): asserts value is Tensor {
  if (!(value instanceof Tensor)) {
    throw new DTypeError(op, { problem: `${name} is not a tensor`, got: describeValue(value), expected: 'a Tensor' })
  }
  if (value._released !== null) throw releasedError(op, value)
}

/** Throws unless the tensor has a floating dtype. */
export function expectFloating(op: string, name: string, x: Tensor): void {
  if (!isFloatingCode(x._dtype)) {
    throw new DTypeError(op, {
      problem: `${name} has no fractions`,
      got: dtypeNames[x._dtype]!,
      expected: 'float32, float64, float16 or bfloat16',
      action: "convert it with .to('float32')",
    })
  }
}

// --- methods ----------------------------------------------------------------------------------------------------

type Method = (self: Tensor, ...rest: never[]) => unknown
type Loose = (self: Tensor, a?: unknown, b?: unknown, c?: unknown, d?: unknown) => unknown

function define(name: string, value: unknown): void {
  Object.defineProperty(Tensor.prototype, name, { value, writable: true, configurable: true })
}

/** Adds functions whose first parameter is a tensor as methods of Tensor; their types are declared beside them. */
export function defineMethods(methods: Record<string, Method>): void {
  for (const [name, method] of Object.entries(methods)) {
    const fn = method as Loose
    // A fixed arity keeps the call monomorphic: rest parameters would cost an array for every operation.
    define(name, function (this: Tensor, a?: unknown, b?: unknown, c?: unknown, d?: unknown) {
      try {
        return fn(this, a, b, c, d)
      } catch (error) {
        throw wordError(name, error, [a, b, c, d])
      }
    })
  }
}

/** The same for functions that take a rest parameter. */
export function defineVariadicMethods(methods: Record<string, Method>): void {
  for (const [name, method] of Object.entries(methods)) {
    const fn = method as (self: Tensor, ...rest: unknown[]) => unknown
    define(name, function (this: Tensor, ...rest: unknown[]) {
      try {
        return fn(this, ...rest)
      } catch (error) {
        throw wordError(name, error, rest)
      }
    })
  }
}
