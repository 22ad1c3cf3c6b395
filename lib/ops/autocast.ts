// What autocast makes of the operands of an operator.
//
// Products are not among those whose operands are cast: their kernels convert what they read while they pack it, so all
// that changes is the dtype of the result. Gradients get the dtype of what they are the gradient of.

import { autocasting, autocastRegion, withoutAutocast } from '../autograd/autocast'
import { isCheckpointed } from '../autograd/frame'
import { withoutGrad } from '../autograd/mode'
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

function castTo(x: Tensor, code: number): Tensor {
  if (x._dtype === code) return x
  const region = autocastRegion()!
  const isWeight = x._dtype === FLOAT32 && x._requiresGrad && x._node === null && x._base === null
  // A cast that was not recorded would cut off whoever takes it from the list while recording.
  // A checkpointed function runs twice, and what the list holds by then must not change what it does.
  if (!isWeight || !region.cacheEnabled || isCheckpointed()) return to(x, dtypeNames[code]!)
  const known = region.casts.get(x)
  if (known !== undefined && known.version === x._version && known.cast._dtype === code) return castOf(x, known.cast)
  known?.cast.dispose()
  const cast = withoutGrad(() => to(x, dtypeNames[code]!)).keep()
  region.casts.set(x, { cast, version: x._version })
  return castOf(x, cast)
}

const copyOp = native('copy')

/** The elements of a cast that the list owns, with a place of their own in the graph: backward of one use frees no other. */
function castOf(x: Tensor, cast: Tensor): Tensor {
  const alias = Tensor._view(cast, cast.shape, contiguousStrides(cast.shape), 0)
  const backward: Backward = (_, g) => run(copyOp, [g], g.shape, x._dtype)
  return record({ name: 'to', autocast: 'keep', backward }, alias, [x], [])
}
