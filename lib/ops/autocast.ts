// What autocast makes of the operands of an operator.
//
// Products are not among those whose operands are cast for the graph: all that changes for their callers is the dtype of
// the result, and gradients get the dtype of what they are the gradient of. What the kernels multiply is up to the device:
// on cpu they convert what they read while they pack it; on cuda operands are copied to 16 bits, which tensor cores take,
// and the same copies serve backward.

import { autocasting, autocastRegion, withoutAutocast } from '../autograd/autocast'
import { isCheckpointed } from '../autograd/frame'
import { withoutGrad } from '../autograd/mode'
import { setRecipe } from '../autograd/node'
import { dtypeNames, FLOAT32, FLOAT64, isFloatingCode, promote } from '../dtype'
import { contiguousStrides, Tensor } from '../tensor/tensor'
import { autocastPolicies } from './autocastPolicy'
import { type AutocastPolicy, type Backward, native, record, run } from './registry'
import { to } from './shape'

// float64 is there for checks, and asked for on purpose: PyTorch leaves it alone, too.
const isEligible = (x: Tensor): boolean => isFloatingCode(x._dtype) && x._dtype !== FLOAT64

const policyOf = (op: string, x: Tensor): AutocastPolicy => autocastPolicies[x.device.type].get(op) ?? 'keep'

/** @internal The dtype code of a product of these operands under autocast; -1 where they stay as they are, because it
 *  is off or one of them is float64 or has no fractions. Ask `autocasting` first. */
export function autocastProduct(op: string, operands: readonly (Tensor | null)[]): number {
  const region = autocastRegion()
  if (region === null || !region.enabled) return -1
  for (const x of operands) if (x !== null && (!isEligible(x) || policyOf(op, x) !== 'lower')) return -1
  return region.dtype
}

/** @internal Whether the operator computes in float32 under autocast what it would else compute in the dtype of x. Ask
 *  `autocasting` first. */
export function autocastsToFloat32(op: string, x: Tensor): boolean {
  return autocastRegion()?.enabled === true && isEligible(x) && policyOf(op, x) === 'float32'
}

/** @internal Whether what backward needs of a float32 activation is kept in 16 bits under autocast. Ask `autocasting`
 *  first. */
export function autocastNarrows(x: Tensor): boolean {
  return autocastRegion()?.enabled === true && x._dtype === FLOAT32
}

/** @internal An operand as the operator gets it under autocast: cast, or itself. Ask `autocasting` first. */
export function autocast<X extends Tensor | null>(op: string, x: X): X {
  const region = autocastRegion()
  if (x === null || region === null || !region.enabled || !isEligible(x)) return x
  const policy = policyOf(op, x)
  if (policy === 'float32') return castTo(x, FLOAT32) as X
  return policy === 'lower' ? (castTo(x, region.dtype) as X) : x
}

/** @internal Operands that must have one dtype: under autocast the widest among them, where the operator is one that
 *  promotes. Ask `autocasting` first. */
export function autocastWidest(op: string, operands: readonly Tensor[]): Tensor[] {
  const eligible = operands.filter(isEligible)
  const [first] = eligible
  if (first === undefined || autocastRegion()?.enabled !== true || policyOf(op, first) !== 'promote')
    return [...operands]
  const widest = eligible.reduce((code, x) => promote(code, x._dtype), first._dtype)
  return operands.map((x) => (isEligible(x) ? castTo(x, widest) : x))
}

/** @internal Runs the parts of an operator on operands that have been cast. One that promotes computes in that dtype, whatever
 *  autocast does to the operators that it is made of. */
export function afterAutocast<R>(op: string, x: Tensor, parts: () => R): R {
  return autocasting && policyOf(op, x) === 'promote' ? withoutAutocast(parts) : parts()
}

const copyOp = native('copy')

function castTo(x: Tensor, code: number): Tensor {
  if (x._dtype === code) return x
  const cast = listedCast(x, code)
  if (cast === null) return to(x, dtypeNames[code]!)
  const backward: Backward = (_, g) => run(copyOp, [g], g.shape, x._dtype)
  return record({ name: 'to', autocast: 'keep', backward }, cast, [x], [])
}

/** @internal What a product multiplies on behalf of x: x, or its elements in this dtype, outside of the graph. Such a
 *  copy is the caller's to dispose of, when the tape has it. Ask `autocasting` first. */
export function multiplied(x: Tensor, code: number): Tensor {
  if (x._dtype === code || x.device.type === 'cpu') return x
  const listed = listedCast(x, code)
  if (listed !== null) return listed
  const copy = run(copyOp, [x], x.shape, code)
  const recipe = x._recipe // whoever can make x again from what is kept can make this
  if (recipe !== null) setRecipe(copy, { ...recipe, compute: (inputs) => recipe.compute(inputs, code) })
  return copy
}

/** The cast of a parameter from the region's list, which it enters where need be; null for what belongs in no list. An
 *  alias with a handle and a place in the graph of its own: backward of one use frees no other. */
function listedCast(x: Tensor, code: number): Tensor | null {
  const region = autocastRegion()!
  const isWeight = x._dtype === FLOAT32 && x._requiresGrad && x._node === null && x._base === null
  // A checkpointed function runs twice, and what the list holds by then must not change what it does.
  if (!isWeight || !region.cacheEnabled || isCheckpointed()) return null
  let known = region.casts.get(x)
  if (known === undefined || known.version !== x._version || known.cast._dtype !== code) {
    known?.cast.dispose()
    // recorded, it would be cut off for whoever takes it from the list after the first backward
    known = { cast: withoutGrad(() => to(x, dtypeNames[code]!)).keep(), version: x._version }
    region.casts.set(x, known)
  }
  return Tensor._view(known.cast, known.cast.shape, contiguousStrides(known.cast.shape), 0)
}
