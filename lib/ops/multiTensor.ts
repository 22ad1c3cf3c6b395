// What is done to all gradients at once, in one native call over many tensors: norms, clipping, unscaling. They write in
// place, outside of the graph.

import { Device } from '../device'
import { FLOAT32, INT32, isFloatingCode } from '../dtype'
import { ArgumentError, DTypeError, describeValue } from '../errors'
import type { Tensor } from '../tensor/tensor'
import { plain } from './matmul'
import { expectTensor, make, native, run, runInto, runMany, transfer } from './registry'

const normOp = native('multiTensorNorm', 'p')
const clipOp = native('multiTensorClip', 'maxNorm')
const clampOp = native('multiTensorClamp', 'limit')
const scaleOp = native('multiTensorScale', 'factor')
const unscaleOp = native('multiTensorUnscale', 'write')
const scalerUpdateOp = native('scalerUpdate', 'growthFactor,backoffFactor,growthInterval')
const copyOp = native('copy')
const fillOp = native('fill', 'value')

function expectGradients(op: string, tensors: readonly Tensor[]): void {
  for (const each of tensors) {
    expectTensor(op, 'a gradient', each)
    if (!isFloatingCode(each._dtype)) {
      throw new DTypeError(op, { problem: 'not a gradient', got: each.dtype, expected: 'tensors of a floating dtype' })
    }
  }
}

/** @internal The p-norm of all elements of all tensors, float32 of rank 0. */
export function totalNorm(tensors: readonly Tensor[], p = 2): Tensor {
  if (typeof p !== 'number' || Number.isNaN(p)) {
    throw new ArgumentError('totalNorm', { problem: 'not an order of a norm', got: describeValue(p) })
  }
  for (const each of tensors) expectTensor('totalNorm', 'a tensor', each)
  const parts = callsOf(tensors, normOp.mostInputs)
  if (parts.length > 1) return normOfParts(parts, p)
  if (parts.length === 0) return make(fillOp, [], FLOAT32, Device._default, [0])
  return run(normOp, tensors.map(plain), [], FLOAT32, [p])
}

// Norms of parts have a norm: |(x, y)| = |(|x|, |y|)| for every p but 0, where counts are added.
function normOfParts(parts: readonly (readonly Tensor[])[], p: number): Tensor {
  const norms = parts.map((part) => totalNorm(part, p))
  return totalNorm(
    norms.map((norm) => on(norm, norms[0]!._device)),
    p === 0 ? 1 : p,
  )
}

/** @internal Tensors by device: nearly always one group. */
export function byDevice(tensors: readonly Tensor[]): (readonly Tensor[])[] {
  const first = tensors[0]?._device
  if (tensors.every((each) => each._device === first)) return tensors.length === 0 ? [] : [tensors]
  const groups = new Map<Device, Tensor[]>()
  for (const each of tensors) {
    const group = groups.get(each._device)
    if (group === undefined) groups.set(each._device, [each])
    else group.push(each)
  }
  return [...groups.values()]
}

/** @internal Tensors in calls of at most so many, each of one device. */
export const callsOf = (tensors: readonly Tensor[], most: number): (readonly Tensor[])[] =>
  byDevice(tensors).flatMap((group) =>
    Array.from({ length: Math.ceil(group.length / most) }, (_, i) => group.slice(i * most, (i + 1) * most)),
  )

/** @internal A tensor, or its copy on a device. */
export const on = (x: Tensor, device: Device): Tensor => (x._device === device ? x : transfer(x, device))

const mostChanged = scaleOp.mostInputs / 2 // a call may read as many as it writes, and a number

// Kernels want contiguous tensors: others are changed in copies. `shared` is a number that each call reads, where the
// call's tensors are.
function inParts(
  op: string,
  tensors: readonly Tensor[],
  writes: boolean,
  shared: Tensor | null,
  kernel: (flat: readonly Tensor[], operands: readonly Tensor[], part: readonly Tensor[]) => void,
): void {
  expectGradients(op, tensors)
  for (const part of callsOf(tensors, mostChanged)) {
    const flat = part.map(plain)
    if (writes) for (const each of part) each._accumulates = true // one that could not be changed is none
    const own = shared === null ? null : on(shared, part[0]!._device)
    kernel(flat, own === null ? flat : [...flat, own], part)
    if (own !== shared) own!.dispose()
    part.forEach((each, i) => {
      if (flat[i] === each) return
      if (writes) runInto(copyOp, [flat[i]!], each)
      flat[i]!.dispose()
    })
  }
}

/** @internal Scales by min(1, maxNorm / (norm + 1e-6)), on the device. */
export function clipTensors(tensors: readonly Tensor[], norm: Tensor, maxNorm: number): void {
  inParts('clip', tensors, true, norm, (flat, operands) => runMany(clipOp, operands, flat, [maxNorm]))
  if (maxNorm < Number.POSITIVE_INFINITY) markClipped(tensors) // else only the norm was asked for
}

/** @internal Limits every element to [-limit, limit]. */
export function clampTensors(tensors: readonly Tensor[], limit: number): void {
  inParts('clamp', tensors, true, null, (flat) => runMany(clampOp, flat, flat, [limit]))
  markClipped(tensors)
}

/** @internal Multiplies every element. */
export function scaleTensors(tensors: readonly Tensor[], factor: number): void {
  inParts('scale', tensors, true, null, (flat) => runMany(scaleOp, flat, flat, [factor]))
}

// --- loss scaling ---------------------------------------------------------------------------------------------------

/** @internal What one pass over gradients found, on the device. */
export interface Check {
  readonly tensors: readonly Tensor[]
  /** 1 where one of them was not finite, else 0; float32 of rank 0. */
  readonly foundInf: Tensor
  /** Their norm after unscaling; float32 of rank 0. */
  readonly norm: Tensor
  /** The first of them that was not finite, or -1; int32 of rank 0. */
  readonly first: Tensor
}

function check(tensors: readonly Tensor[], scale: Tensor, write: boolean): Check[] {
  const checks: Check[] = []
  inParts('unscale', tensors, write, scale, (flat, operands, part) => {
    const results = [
      [[], FLOAT32],
      [[], FLOAT32],
      [[], INT32],
    ] as const
    const outputs = runMany(unscaleOp, operands, [...(write ? flat : []), ...results], [write ? 1 : 0])
    const [foundInf, norm, first] = outputs.slice(-3) as [Tensor, Tensor, Tensor]
    checks.push({ tensors: part, foundInf, norm, first })
  })
  return checks
}

/** @internal Divides gradients by the scale, in place; tells whether all were finite, and their norm: one pass. */
export function unscaleTensors(tensors: readonly Tensor[], scale: Tensor): Check[] {
  const checks = check(tensors, scale, true)
  checks.forEach(rememberNorm)
  return checks
}

/** @internal The same without changing them: an optimizer's kernel divides as it reads. */
export function checkTensors(tensors: readonly Tensor[], scale: Tensor): Check[] {
  return check(tensors, scale, false)
}

/** @internal Whether one of several checks found something, and the norm over all. */
export function combineChecks(checks: readonly Check[]): { foundInf: Tensor; norm: Tensor } {
  if (checks.length === 1) return checks[0]!
  const place = checks[0]!.norm._device
  const foundInf = totalNorm(
    checks.map((each) => on(each.foundInf, place)),
    Number.POSITIVE_INFINITY,
  )
  return { foundInf, norm: totalNorm(checks.map((each) => on(each.norm, place))) }
}

/** @internal Growth and backoff of a loss scale by what checks found. `status` becomes the scale, the number of the
 *  first check that found something, and the first tensor in it (-1 when none did).
 *  @see PyTorch, torch._amp_update_scale_ */
export function updateScale(
  checks: readonly Check[],
  [scale, tracker, status]: readonly [Tensor, Tensor, Tensor],
  attributes: readonly [growthFactor: number, backoffFactor: number, growthInterval: number],
): void {
  const inputs = checks.flatMap(({ foundInf, first }) => [foundInf, first].map((each) => on(each, scale._device)))
  runMany(scalerUpdateOp, inputs, [scale, tracker, status], attributes)
}

// --- what is known about gradients ----------------------------------------------------------------------------------

// Both hold for the contents that a gradient had at its version: any later change, a further backward included, ends
// them.
interface Known {
  readonly version: number
  readonly check: Check
}
const norms = new WeakMap<Tensor, Known>()
const clipped = new WeakMap<Tensor, number>()

function rememberNorm(check: Check): void {
  for (const each of check.tensors) norms.set(each, { version: each._storageVersion, check })
}

/** @internal The norm of gradients that unscaling has found, in a tensor of the caller's; null when they are others, or
 *  have changed. */
export function knownNorm(tensors: readonly Tensor[]): Tensor | null {
  const checks = new Set<Check>()
  for (const each of tensors) {
    const known = norms.get(each)
    if (known === undefined || known.version !== each._storageVersion || known.check.norm.isReleased) return null
    checks.add(known.check)
  }
  const covered = [...checks].reduce((sum, each) => sum + each.tensors.length, 0)
  if (checks.size === 0 || covered !== tensors.length) return null
  return run(copyOp, [combineChecks([...checks]).norm], [], FLOAT32)
}

function markClipped(tensors: readonly Tensor[]): void {
  for (const each of tensors) clipped.set(each, each._storageVersion)
}

/** @internal Whether a gradient is as clipping left it. */
export const isClipped = (tensor: Tensor): boolean => clipped.get(tensor) === tensor._storageVersion
