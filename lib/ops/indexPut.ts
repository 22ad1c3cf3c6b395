// Writing at positions that are named dim by dim.

import { autocasting } from '../autograd/autocast'
import { ArgumentError, describeValue } from '../errors'
import { readOptions } from '../options'
import { tidy } from '../tensor/scope'
import type { Shape, Tensor } from '../tensor/tensor'
import { autocastWidest } from './autocast'
import { broadcastShapes } from './broadcast'
import { where } from './compare'
import { expectIndex, expectSourceDtype, indexAdd, scatter } from './indexing'
import { expectTensor } from './registry'
import { expand, reshape, to, unsqueeze } from './shape'

const count = (shape: Shape): number => shape.reduce((n, size) => n * size, 1)

/** x with `values` written at the positions that the indices name together, one index for each of the first dims of x.
 *  With `accumulate` they are added; else one of those for the same position stays, the last in row-major order.
 *  indices broadcast to each other, [...]; negative ones count from the end; values broadcast to [..., *other dims of x]
 *  and have x's dtype -> x's shape. Default accumulate false.
 *  @throws ShapeError when the values do not fit; DTypeError when dtypes differ; an index outside of its dim is an
 *  IndexError at the next wait
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.Tensor.index_put_.html
 *  @example indexPut(zeros([3]), [tensor([2, 0], { dtype: 'int64' })], tensor([5, 6])) // [6, 0, 5] */
export function indexPut(
  x: Tensor,
  indices: readonly Tensor[],
  values: Tensor,
  options: { accumulate?: boolean } = {},
): Tensor {
  const op = 'indexPut'
  const { accumulate = false } = readOptions(op, options, ['accumulate'])
  expectTensor(op, 'x', x)
  expectTensor(op, 'values', values)
  if (!Array.isArray(indices) || indices.length === 0 || indices.length > x.ndim) {
    throw new ArgumentError(op, {
      problem: 'the indices do not fit the dims',
      got: describeValue(indices),
      expected: `an array of 1 to ${x.ndim} tensors`,
    })
  }
  for (const index of indices) expectIndex(op, index)
  if (autocasting) [x, values] = autocastWidest(op, [x, values]) as [Tensor, Tensor]
  expectSourceDtype(op, x, values)
  const sizes = x.shape.slice(0, indices.length)
  const rest = x.shape.slice(indices.length)
  const places = (indices as Tensor[]).reduce<Shape>((shape, index) => broadcastShapes(op, shape, index.shape), [])
  return tidy(() => {
    let rows: Tensor | null = null
    indices.forEach((index, d) => {
      const wide = to(index, 'int64')
      const size = sizes[d]!
      // out of range in one dim must not become a place of another
      const inside = where(wide.lt(0), wide.add(size), wide)
      const checked = where(inside.lt(0).logicalOr(inside.ge(size)), x.numel + 1, inside)
      rows = rows === null ? checked : rows.mul(size).add(checked)
    })
    const flat = reshape(expand(rows!, places), [count(places)])
    const source = reshape(expand(values, [...places, ...rest]), [count(places), count(rest)])
    const target = reshape(x, [count(sizes), count(rest)])
    const written = accumulate
      ? indexAdd(target, 0, flat, source)
      : scatter(target, 0, expand(unsqueeze(flat, 1), source.shape), source)
    return reshape(written, x.shape)
  })
}
