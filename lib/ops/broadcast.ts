// Broadcasting: the shape of an operation between tensors, and the way back for gradients.

import { describeShape, ShapeError } from '../errors'
import { type Shape, sameShape, type Tensor } from '../tensor/tensor'
import { native, run } from './registry'

export { sameShape }

/** The common shape of two operands: trailing dims aligned, sizes equal or 1.
 *  @throws ShapeError naming both shapes and the dim
 *  @see https://docs.pytorch.org/docs/stable/notes/broadcasting.html
 *  @example broadcastShapes('add', [3, 1], [4]) // [3, 4] */
export function broadcastShapes(op: string, a: Shape, b: Shape): Shape {
  if (sameShape(a, b)) return a
  const rank = Math.max(a.length, b.length)
  const shape = new Array<number>(rank)
  for (let i = 1; i <= rank; i++) {
    const x = i <= a.length ? a[a.length - i]! : 1
    const y = i <= b.length ? b[b.length - i]! : 1
    if (x !== y && x !== 1 && y !== 1) {
      throw new ShapeError(op, {
        problem: `shapes do not broadcast at dim ${-i}`,
        got: `${describeShape(a)} and ${describeShape(b)}`,
        expected: 'sizes that are equal or 1, trailing dims aligned',
        action: 'reshape or unsqueeze one of them',
      })
    }
    shape[rank - i] = x === 1 ? y : x
  }
  return shape
}

const sum = native('sum', 'dims')

/** @internal Sums a gradient over the dims along which an operand of `shape` was repeated. */
export function sumTo(grad: Tensor, shape: Shape): Tensor {
  if (sameShape(grad.shape, shape)) return grad
  const extra = grad.shape.length - shape.length
  let dims = 0
  for (let d = 0; d < grad.shape.length; d++) {
    if (d < extra || (shape[d - extra] === 1 && grad.shape[d] !== 1)) dims += 2 ** d
  }
  return run(sum, [grad], shape, grad._dtype, [dims])
}
