// What stands in padded places must not count: masks for attention, and targets for the loss.

import { DTypeError, describeShape, ShapeError } from '../errors'
import { expectTensor } from '../ops/registry'
import { full } from '../tensor/create'
import type { Tensor } from '../tensor/tensor'

/** Target that losses ignore. */
export const IGNORED = -100

/** Throws unless the tensor holds indices of the given shape. */
export function expectIndices(op: string, name: string, x: Tensor, shape: readonly number[] | null = null): void {
  expectTensor(op, name, x)
  if (x._dtype < 4 || x.dtype === 'bool') {
    throw new DTypeError(op, {
      problem: `${name} has the wrong dtype`,
      got: x.dtype,
      expected: 'int64, int32 or uint8',
    })
  }
  const fits = shape === null ? x.ndim === 2 : describeShape(x.shape) === describeShape(shape)
  if (!fits) {
    throw new ShapeError(op, {
      problem: `${name} has the wrong shape`,
      got: describeShape(x.shape),
      expected: shape === null ? '[B, T]' : describeShape(shape),
    })
  }
}

/** Throws unless the mask is [B, T]; gives it as bool, true where a token is real. */
export function readAttentionMask(op: string, mask: Tensor, shape: readonly number[]): Tensor {
  expectTensor(op, 'attentionMask', mask)
  if (mask.ndim !== 2 || mask.shape[0] !== shape[0] || mask.shape[1] !== shape[1]) {
    throw new ShapeError(op, {
      problem: 'attentionMask has the wrong shape',
      got: describeShape(mask.shape),
      expected: `${describeShape(shape)} like inputIds; 1 for tokens, 0 for padding`,
    })
  }
  return mask.dtype === 'bool' ? mask : mask.ne(0)
}

/** bool [B, S], true where a token is real -> [B, 1, 1, S], which hides padded keys from every query. */
export function keyMask(real: Tensor): Tensor {
  const [B, S] = real.shape as [number, number]
  return real.view(B, 1, 1, S)
}

/** Labels with -100 wherever the token is padding: a label left there would be trained on. */
export function ignorePadding(labels: Tensor, real: Tensor | null): Tensor {
  return real === null ? labels : labels.to('int64').maskedFill(real.logicalNot(), IGNORED)
}

/** Targets of a causal model: position t is to foretell labels[t + 1], the last position nothing. A prediction made at a
 *  padded position (left padding) counts as little as one of a padded token. Shifting the small targets instead of the
 *  logits saves a copy of all logits. */
export function shiftedTargets(labels: Tensor, real: Tensor | null): Tensor {
  const [B, T] = labels.shape as [number, number]
  const targets = full([B, T], IGNORED, { dtype: 'int64', device: labels.device })
  if (T > 1) targets.narrow(1, 0, T - 1).copy_(ignorePadding(labels, real).narrow(1, 1, T - 1))
  return ignorePadding(targets, real)
}
