// Moves of a module's tensors in place. Whether another device has memory for one is known only later.

import { adopt } from '../tensor/memory'
import { unscoped } from '../tensor/scope'
import type { Tensor } from '../tensor/tensor'

/** What tensors were before the moves that are under way. */
const before = new WeakMap<Tensor, Tensor>()

/** @internal Puts what `moved` holds into `tensor`, of the same elements. Where it turns out that the other device has no
 *  room, the tensor is again what it was before this move, and those before it that were not known to succeed by then:
 *  the next wait tells the error, and the elements are not lost. */
export function moveInto(tensor: Tensor, moved: Tensor): void {
  const isElsewhere = moved.device !== tensor.device && moved.numel > 0
  if (!isElsewhere && !before.has(tensor)) {
    adopt(tensor, moved)
    return
  }
  const origin = before.get(tensor) ?? unscoped(() => tensor.detach())
  before.set(tensor, origin)
  adopt(tensor, moved)
  const handle = tensor._handle
  const settle = (failed: boolean): void => {
    if (tensor._handle !== handle) return // a later move, which has the same origin, decides
    before.delete(tensor)
    if (failed && !tensor.isReleased) adopt(tensor, origin)
    else origin.dispose()
  }
  const one = unscoped(() => tensor.detach().view(-1).narrow(0, 0, 1))
  one
    ._peek()
    .then(
      () => settle(false),
      () => settle(true),
    )
    .finally(() => one.dispose())
}
