// The same call of an operator on cpu and on cuda, held to a tolerance of its own.
import { Tensor } from '../../lib/index'
import { native, type Output, runMany } from '../../lib/tensor/dispatch'
import { expectAlike } from './support'

/** How far a result may be off: `ulps` units of its dtype's precision, of its own size or of `scale`; and each element
 *  by what `beside` has for it. */
export interface Tolerance {
  ulps?: number
  scale?: number
  beside?: ArrayLike<number>
}

export interface Call {
  op: string
  attributes: string
  attrs: number[]
  inputs: (Tensor | null)[]
  /** What the call makes, or a tensor that it writes to: each device gets a copy. */
  outputs: Output[]
  /** Makes the operands of either device from copies with no strides. */
  take?: (x: Tensor) => Tensor
}

/** Results of the call on cpu, after those on cuda were found to be alike. */
export function expectSame(call: Call, { ulps = 4, scale, beside }: Tolerance = {}): Tensor[] {
  const { op, attributes, attrs, inputs, outputs, take = (x: Tensor) => x } = call
  const on = (name: string): Tensor[] => {
    const operands = inputs.map((x) => (x === null ? null : take(x.to(name as 'cpu'))))
    const targets = outputs.map((each) => (each instanceof Tensor ? each.clone().to(name as 'cpu') : each))
    return runMany(native(op, attributes), operands, targets, attrs)
  }
  const [there, here] = [on('cuda'), on('cpu')]
  const shapes = inputs.map((x) => (x === null ? '-' : `${x.dtype} [${x.shape}]`)).join(', ')
  for (const [i, wanted] of here.entries()) {
    expectAlike(there[i]!, wanted, `${op}(${shapes}) ${attrs.join()} output ${i}`, ulps, scale, beside)
  }
  return here
}
