// Moves of a module's tensors in place. Whether another device has memory for one is known only later.

import { adopt } from '../tensor/memory'
import { unscoped } from '../tensor/scope'
import type { Tensor } from '../tensor/tensor'

/** @internal Puts what `moved` holds into `tensor`, of the same elements. Where it turns out that the other device has no
 *  room, the tensor is again what it was, unless it was moved on by then: the error is told by the next wait, and the
 *  elements are not lost. */
export function moveInto(tensor: Tensor, moved: Tensor): void {
  const isElsewhere = moved.device !== tensor.device && moved.numel > 0
  const before = isElsewhere ? unscoped(() => tensor.detach()) : null
  adopt(tensor, moved)
  if (before === null) return
  const handle = tensor._handle
  const one = unscoped(() => tensor.detach().view(-1).narrow(0, 0, 1))
  const undo = (): void => {
    if (!tensor.isReleased && tensor._handle === handle) adopt(tensor, before)
    else before.dispose()
  }
  one
    ._peek()
    .then(() => before.dispose(), undo)
    .finally(() => one.dispose())
}
