// Rows of a table by index, and indices as rows of zeros with a one.

import { INT64 } from '../dtype'
import { ArgumentError, describeShape, describeValue, IndexError, ShapeError } from '../errors'
import { readOptions } from '../options'
import type { Tensor } from '../tensor/tensor'
import { expectIndex } from './indexing'
import {
  ACCUMULATED,
  expectFloating,
  expectTensor,
  make,
  native,
  type OpRecord,
  record,
  run,
  runInto,
} from './registry'
import { unsqueeze } from './shape'

const embeddingOp = native('embedding')
const embeddingBackwardOp = native('embeddingBackward', 'paddingIdx,accumulate')
const scatterOp = native('scatter', 'dim,value')
const fillOp = native('fill', 'value')

const embeddingRecord: OpRecord = { name: 'embedding', autocast: 'keep', backward: () => null }

/** Rows of weight: out[...] = weight[index[...]].
 *  index [...] of int64, int32 or uint8, weight [V, C] -> [..., C]. The row of `paddingIdx` gets no gradient (default:
 *  none such). An index outside of [0, V) is an IndexError at the next wait.
 *  @throws ShapeError when weight is not a matrix; DTypeError for an index that is not whole
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.embedding.html
 *  @example embedding(tensor([1, 0], { dtype: 'int64' }), tensor([[1, 2], [3, 4]])) // [[3, 4], [1, 2]] */
export function embedding(index: Tensor, weight: Tensor, options: { paddingIdx?: number | null } = {}): Tensor {
  const { paddingIdx = null } = readOptions('embedding', options, ['paddingIdx'])
  expectIndex('embedding', index)
  expectTensor('embedding', 'weight', weight)
  expectFloating('embedding', 'weight', weight)
  const [rows, width] = weight.shape
  if (weight.ndim !== 2 || rows === undefined || width === undefined) {
    throw new ShapeError('embedding', {
      problem: 'weight is not a table',
      got: describeShape(weight.shape),
      expected: '[V, C]',
    })
  }
  if (index.ndim > 7) {
    throw new ShapeError('embedding', {
      problem: 'the index has too many dims',
      got: String(index.ndim),
      expected: 'at most 7',
    })
  }
  if (paddingIdx !== null && !(Number.isInteger(paddingIdx) && paddingIdx >= -rows && paddingIdx < rows)) {
    throw new IndexError('embedding', {
      problem: 'paddingIdx is out of range',
      got: describeValue(paddingIdx),
      expected: `${-rows} to ${rows - 1}`,
    })
  }
  const padding = paddingIdx === null ? -1 : paddingIdx < 0 ? paddingIdx + rows : paddingIdx
  const out = run(embeddingOp, [index, weight], [...index.shape, width], weight._dtype)
  return record(embeddingRecord, out, [weight], weight._requiresGrad ? [index] : [], (context, g) => {
    const target = context.target(0)
    const inputs = [g, context.saved(0)]
    if (target === null) return run(embeddingBackwardOp, inputs, weight.shape, weight._dtype, [padding, 0])
    runInto(embeddingBackwardOp, inputs, target, [padding, 1])
    return ACCUMULATED
  })
}

/** Rows of zeros with a one at the index: [...] -> [..., classes], int64.
 *  @throws ArgumentError unless classes is a whole number of at least 1; an index outside of [0, classes) is an
 *  IndexError at the next wait
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.one_hot.html
 *  @example oneHot(tensor([1, 0], { dtype: 'int64' }), 2) // [[0, 1], [1, 0]] */
export function oneHot(index: Tensor, classes: number): Tensor {
  expectIndex('oneHot', index)
  if (!Number.isInteger(classes) || classes < 1) {
    throw new ArgumentError('oneHot', {
      problem: 'not a number of classes',
      got: describeValue(classes),
      expected: 'a whole number of at least 1',
    })
  }
  // Not in place: a class out of range must spoil the result, where an in-place operation would leave it as it was.
  const shape = [...index.shape, classes]
  const zeros = make(fillOp, shape, INT64, index._device, [0])
  return run(scatterOp, [zeros, unsqueeze(index, -1)], shape, INT64, [index.ndim, 1])
}
