// Calls into the native side: one generic way for every operator of native/ops.def.

import type { Device } from '../device'
import { NativeError } from '../errors'
import { binding, check, nativeError, type OpRow, scratch } from '../native'
import { observer } from './observer'
import { releasedError, type Shape, Tensor } from './tensor'

/** @internal For what reckons with the scratch of kernels, which depends on their threads. */
export { getNumThreads } from '../native'

/** A row of native/ops.def. */
export interface NativeOp {
  readonly id: number
  readonly name: string
  readonly outputs: number
  /** Operands of one call. */
  readonly mostInputs: number
}

const rows = new Map<string, { id: number; row: OpRow }>(binding.opTable().map((row, id) => [row.name, { id, row }]))

/** @internal Whether native/ops.def has an operator of this name. */
export const isNativeOp = (name: unknown): boolean => rows.has(name as string)

/** Looks up an operator of native/ops.def.
 *  @throws NativeError when the addon has no such operator or other attributes: it was built from other sources */
export function native(name: string, attributes = ''): NativeOp {
  const found = rows.get(name)
  if (found === undefined || found.row.attributes !== attributes) {
    throw new NativeError('gradus', {
      problem: `the addon and the library disagree about operator "${name}"`,
      got: found === undefined ? 'no such operator' : `attributes "${found.row.attributes}"`,
      expected: `attributes "${attributes}"`,
      action: 'run "npm run build"',
    })
  }
  const { outputs, mostInputs } = found.row
  return { id: found.id, name, outputs, mostInputs }
}

/** @internal Id of the module call that operations belong to, for error messages. */
export let currentContext = 0

/** @internal */
export function setContext(context: number): number {
  const outer = currentContext
  currentContext = context
  return outer
}

const fillOp = native('fill', 'value')

let at = 0
// of the operands of the call that is being written
let place: Device | null = null

function begin(op: NativeOp, inputs: readonly (Tensor | null | undefined)[], outputs: number, attrs: number): void {
  scratch[0] = op.id
  scratch[1] = currentContext
  scratch[2] = inputs.length
  scratch[3] = outputs
  scratch[4] = attrs
  scratch[5] = -1
  at = 6
  place = null
  for (let i = 0; i < inputs.length; i++) {
    const input = inputs[i]
    if (input === null || input === undefined) {
      scratch[at++] = 0
    } else {
      if (input._released !== null) throw releasedError(op.name, input)
      if (observer !== null) observer.uses(input)
      scratch[at++] = input._handle
      place ??= input._device
    }
  }
}

function putShape(shape: Shape, dtype: number): void {
  scratch[at++] = 0
  scratch[at++] = dtype
  scratch[at++] = shape.length
  for (let d = 0; d < shape.length; d++) scratch[at++] = shape[d]!
}

function finish(attrs: readonly number[]): void {
  for (let i = 0; i < attrs.length; i++) scratch[at++] = attrs[i]!
  const failure = binding.dispatch()
  if (failure !== undefined) throw nativeError(failure)
}

const none: readonly number[] = []

/** An output that is there already, as native/binding/dispatch.cc reads it. */
const target = ({ _accumulates, _base, _handle }: Tensor): number =>
  _accumulates || _base?._accumulates === true ? -_handle : _handle

/** @internal Zeros that a gradient is written into: what fails on the way leaves no gradient rather than a wrong one. */
export function blankGradient(shape: Shape, like: Tensor): Tensor {
  const grad = make(fillOp, shape, like._dtype, like._device, [0])
  grad._accumulates = true
  return grad
}

/** Runs an operator without inputs, which makes a tensor. */
export function make(
  op: NativeOp,
  shape: Shape,
  dtype: number,
  device: Device,
  attrs: readonly number[] = none,
): Tensor {
  const recalled = observer === null ? null : observer.recall(op.name)
  if (recalled !== null) return recalled[0]!
  begin(op, [], 1, attrs.length)
  scratch[5] = device._code
  putShape(shape, dtype)
  finish(attrs)
  const output = Tensor._new(scratch[0]!, shape, dtype, device)
  if (observer !== null) observer.ran(op.name, [output])
  return output
}

/** A copy on another device, contiguous. It stands in the order of both devices' streams; `aside` lets a CUDA device copy
 *  beside its stream, and only what uses the copy waits for it. */
export function transfer(x: Tensor, device: Device, aside = false): Tensor {
  if (x._released !== null) throw releasedError('to', x)
  const recalled = observer === null ? null : observer.recall('to')
  if (recalled !== null) return recalled[0]!
  if (observer !== null) observer.uses(x)
  scratch[0] = x._handle
  scratch[1] = device._code
  check(binding.transfer(aside))
  const output = Tensor._new(scratch[0]!, x.shape, x._dtype, device)
  if (observer !== null) observer.ran('to', [output])
  return output
}

/** Runs an operator with one new output of the given shape and dtype code, on the device of its inputs. */
export function run(
  op: NativeOp,
  inputs: readonly (Tensor | null | undefined)[],
  shape: Shape,
  dtype: number,
  attrs: readonly number[] = none,
): Tensor {
  const recalled = observer === null ? null : observer.recall(op.name)
  if (recalled !== null) return recalled[0]!
  begin(op, inputs, 1, attrs.length)
  putShape(shape, dtype)
  finish(attrs)
  const output = Tensor._new(scratch[0]!, shape, dtype, place!)
  if (observer !== null) observer.ran(op.name, [output])
  return output
}

/** Shape and dtype code of a new output, or an existing tensor to overwrite. */
export type Output = readonly [shape: Shape, dtype: number] | Tensor

/** Runs an operator with several outputs. */
export function runMany(
  op: NativeOp,
  inputs: readonly (Tensor | null | undefined)[],
  outputs: readonly Output[],
  attrs: readonly number[] = none,
): Tensor[] {
  const overwrites = observer !== null && outputs.some((output) => output instanceof Tensor)
  const recalled = observer === null || overwrites ? null : observer.recall(op.name)
  if (recalled !== null) return recalled
  begin(op, inputs, outputs.length, attrs.length)
  for (const output of outputs) {
    if (output instanceof Tensor) {
      if (output._released !== null) throw releasedError(op.name, output)
      if (observer !== null) observer.uses(output)
      scratch[at++] = target(output)
      place ??= output._device
    } else {
      putShape(output[0], output[1])
    }
  }
  finish(attrs)
  let fresh = 0
  const device = place!
  const handles = outputs.map((output) => (output instanceof Tensor ? 0 : scratch[fresh++]!))
  const results = outputs.map((output, i) => {
    if (!(output instanceof Tensor)) return Tensor._new(handles[i]!, output[0], output[1], device)
    output._bumpVersion()
    return output
  })
  if (observer !== null && !overwrites) observer.ran(op.name, results)
  return results
}

/** Runs an operator that overwrites `out`. */
export function runInto(
  op: NativeOp,
  inputs: readonly (Tensor | null | undefined)[],
  out: Tensor,
  attrs: readonly number[] = none,
): Tensor {
  if (out._released !== null) throw releasedError(op.name, out)
  if (observer !== null) observer.uses(out)
  begin(op, inputs, 1, attrs.length)
  scratch[at++] = target(out)
  finish(attrs)
  out._bumpVersion()
  return out
}

/** @internal The shortest way: one or two inputs, one output shaped like the first, up to three attributes. */
export function runLike(
  op: NativeOp,
  a: Tensor,
  b: Tensor | null,
  dtype: number,
  attrs: number,
  attr0 = 0,
  attr1 = 0,
  attr2 = 0,
): Tensor {
  if (a._released !== null) throw releasedError(op.name, a)
  if (observer !== null) return runWatched(op, a, b, dtype, [attr0, attr1, attr2].slice(0, attrs))
  scratch[0] = op.id
  scratch[1] = currentContext
  scratch[3] = 1
  scratch[4] = attrs
  scratch[5] = -1
  scratch[6] = a._handle
  let i = 7
  if (b === null) {
    scratch[2] = 1
  } else {
    if (b._released !== null) throw releasedError(op.name, b)
    scratch[2] = 2
    scratch[i++] = b._handle
  }
  scratch[i++] = -1
  scratch[i++] = dtype
  scratch[i++] = attr0
  scratch[i++] = attr1
  scratch[i] = attr2
  const failure = binding.dispatch()
  if (failure !== undefined) throw nativeError(failure)
  return Tensor._new(scratch[0]!, a.shape, dtype, a._device)
}

function runWatched(op: NativeOp, a: Tensor, b: Tensor | null, dtype: number, attrs: readonly number[]): Tensor {
  return run(op, b === null ? [a] : [a, b], a.shape, dtype, attrs)
}
