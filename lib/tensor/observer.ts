// Who watches the operations of a stretch of code: activation checkpointing, which has to know what a function reads
// from outside of it, and puts results that it kept in the place of operations that run again.

import type { Tensor } from './tensor'

/** @internal */
export interface Observer {
  /** A tensor came into being. */
  made(tensor: Tensor): void
  /** An operation is about to read or overwrite a tensor. */
  uses(tensor: Tensor): void
  /** Results to give in place of running the operation, or null to run it. */
  recall(op: string): Tensor[] | null
  /** An operation made these results. */
  ran(op: string, outputs: readonly Tensor[]): void
}

/** @internal Null but while a checkpointed function runs, so that others pay one comparison an operation. */
export let observer: Observer | null = null

/** @internal */
export function setObserver(next: Observer | null): Observer | null {
  const outer = observer
  observer = next
  return outer
}
