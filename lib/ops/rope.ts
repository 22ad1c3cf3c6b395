// Rotary position embedding.

import type { Tensor } from '../tensor/tensor'
import { expectFloating, expectTensor, native, needsGrad, type OpRecord, record, run } from './registry'

const ropeOp = native('rope', 'interleaved,inverse')

const ropeRecord: OpRecord = { name: 'rope', autocast: 'keep', backward: () => null }

/** Rotary position embedding: turns pairs of features by position, x cos + rotate(x) sin.
 *  x [..., T, D] with even D; cos, sin broadcast to x. A pair is (i, i + D/2), as in Llama, or (2i, 2i + 1) when
 *  `interleaved`, as in GPT-J. cos and sin get no gradient.
 *  @throws ShapeError when D is odd or the tables do not broadcast
 *  @see Su et al. 2021, arXiv:2104.09864
 *  @example rope(q, cos, sin).shape // [2, 8, 64, 32] */
export function rope(
  x: Tensor,
  cos: Tensor,
  sin: Tensor,
  { interleaved = false }: { interleaved?: boolean } = {},
): Tensor {
  for (const [name, each] of [
    ['x', x],
    ['cos', cos],
    ['sin', sin],
  ] as const) {
    expectTensor('rope', name, each)
    expectFloating('rope', name, each)
  }
  const turn = (from: Tensor, tables: readonly [Tensor, Tensor], inverse: boolean): Tensor =>
    run(ropeOp, [from, ...tables], from.shape, from._dtype, [interleaved ? 1 : 0, inverse ? 1 : 0])
  const out = turn(x, [cos, sin], false)
  if (!needsGrad([x])) return out
  return record(ropeRecord, out, [x], [cos, sin], (context, g) => turn(g, [context.saved(0), context.saved(1)], true))
}
