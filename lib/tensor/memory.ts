// When a tensor's native memory is given back.
//
// Three owners keep it: the user's object, the tape (tensors saved for backward), and the backward engine. What is
// made while a scope is open (a module's forward, tidy) is released when the scope closes unless it survives;
// everything else is released by dispose(), by backward(), or at the latest by garbage collection.

import { Device } from '../device'
import { itemSizes } from '../dtype'
import { binding, check, scratch } from '../native'
import { observer } from './observer'
import type { Tensor } from './tensor'

/** @internal What is released when it closes; lib/tensor/scope.ts opens and closes them. */
export class Scope {
  readonly tensors: Tensor[] = []
  constructor(
    /** Named by errors about a tensor that was released here. */
    readonly label: string,
    readonly parent: Scope | null,
  ) {}
}

/** @internal The scope that new tensors belong to. */
export let current: Scope | null = null

/** @internal */
export function setCurrent(scope: Scope | null): void {
  current = scope
}

// --- giving back ------------------------------------------------------------------------------------------------

const queue: number[] = []
const chunk = 8192

function flush(): void {
  for (let from = 0; from < queue.length; from += chunk) {
    const n = Math.min(chunk, queue.length - from)
    scratch[0] = n
    for (let i = 0; i < n; i++) scratch[i + 1] = queue[from + i]!
    check(binding.release())
  }
  queue.length = 0
}

interface Collected {
  handle: number
  bytes: number
}

const registry = new FinalizationRegistry<Collected>(({ handle, bytes }) => {
  queue.push(handle) // stale when it was released by hand, which the native side ignores
  highest -= bytes // not by hand
  reportBytes(-bytes)
  if (queue.length === 1) setImmediate(flush)
})

let collectable = 0
let reported = 0
const reportStep = 1 << 20
const shortWindow = 16 << 20

// Windows are measured in bytes that came. In the present short one:
let grown = 0
let lowest = 0 // of `collectable`
// In the present long one, which is twice what is expected to be released by hand, and a short one at least:
let longGrown = 0
let longLowest = 0
let highest = 0 // of `collectable`, less what the collector has released
let fallen = 0 // the largest fall from there by hand
// What the long windows before have taught:
let steady = 0 // what stayed through the last one
let expected = 0 // what will be released by hand; halved with every window in which it is not

// V8 schedules collections by what it knows: tensors that only it can release are reported as external memory. It
// starts one as soon as that grows by 64 MB, so what is released by hand anyway must not be reported: a large tensor
// that the next line disposes, or the activations of a step, which its backward releases. What counts is what stayed
// while another 16 MB came, less what was seen to be released by hand; and what stayed while twice as much as that came.
function reportBytes(delta: number): void {
  collectable += delta
  if (delta < 0) {
    lowest = Math.min(lowest, collectable)
    longLowest = Math.min(longLowest, collectable)
    steady = Math.min(steady, collectable)
    fallen = Math.max(fallen, highest - collectable)
    expected = Math.max(expected, fallen)
    if (collectable < reported) report(collectable)
    return
  }
  highest = Math.max(highest, collectable)
  grown += delta
  longGrown += delta
  if (grown < shortWindow) return
  if (longGrown >= 2 * expected) {
    steady = longLowest
    expected = Math.max(fallen, expected / 2)
    fallen = longGrown = 0
    longLowest = highest = collectable
  }
  report(Math.max(steady, lowest - expected))
  grown = 0
  lowest = collectable
}

function report(bytes: number): void {
  if (Math.abs(bytes - reported) < reportStep) return
  check(binding.memoryControl(Device.cpu._code, 3, bytes - reported))
  reported = bytes
}

function bytesOf(tensor: Tensor): number {
  return tensor._base === null ? tensor.numel * itemSizes[tensor._dtype]! : 0
}

/** @internal Leaves the tensor to garbage collection: the user has it, and no scope. */
export function leaveToCollector(tensor: Tensor): void {
  if (tensor._collectable) return
  tensor._collectable = true
  const bytes = bytesOf(tensor)
  registry.register(tensor, { handle: tensor._handle, bytes }, tensor)
  reportBytes(bytes)
}

// What was released by other means is no longer the collector's: else V8 would believe that the bytes are still there,
// and collect every few steps for nothing.
function takeFromCollector(tensor: Tensor): void {
  if (!tensor._collectable) return
  tensor._collectable = false
  registry.unregister(tensor)
  reportBytes(-bytesOf(tensor))
}

/** @internal Gives a long-lived tensor the memory, dtype and device of another, which goes. */
export function adopt(tensor: Tensor, from: Tensor): void {
  queue.push(tensor._handle)
  takeFromCollector(tensor)
  takeFromCollector(from)
  const target = tensor as { -readonly [K in keyof Tensor]: Tensor[K] }
  target._handle = from._handle
  target._dtype = from._dtype
  target._device = from._device
  target._strides = from._strides
  target._version++
  from._released = 'to()'
  from._refs = Number.POSITIVE_INFINITY // its handle has a new owner
  leaveToCollector(tensor)
  flush()
}

/** @internal Every new tensor passes here. */
export function track(tensor: Tensor): void {
  if (observer !== null) observer.made(tensor)
  if (current !== null) current.tensors.push(tensor)
  else leaveToCollector(tensor)
}

/** @internal One owner less; the last one gives the memory back. */
export function unref(tensor: Tensor): void {
  if (--tensor._refs > 0) return
  queue.push(tensor._handle)
  takeFromCollector(tensor)
}

/** @internal Ends the user's ownership: further use is an error that names `where`. */
export function releaseTensor(tensor: Tensor, where: string): void {
  if (tensor._released !== null) return
  tensor._released = where
  unref(tensor)
  if (tensor._refs > 0) leaveToCollector(tensor) // the graph that saved it may be dropped without a backward
}

/** @internal */
export function flushReleases(): void {
  if (queue.length > 0) flush()
}

// --- waiting and accounts ---------------------------------------------------------------------------------------

let lastPeak = 0
const loopBound = 64 << 20

/** @internal Gives the garbage collector its turn when loop-level tensors pile up; finalizers never run inside a
 *  synchronous turn. */
export async function yieldToCollector(): Promise<void> {
  if (collectable > pressureFloor + Math.max(loopBound, 0.1 * lastPeak)) {
    await new Promise((resolve) => setImmediate(resolve))
    pressureFloor = Math.min(collectable, pressureFloor + reportStep)
  } else if (collectable < pressureFloor) {
    pressureFloor = collectable
  }
}
let pressureFloor = 0

/** @internal A device's account, and this thread's live tensors. */
export function memoryStats(device: Device = Device.cpu): {
  allocated: number
  reserved: number
  maxAllocated: number
  limit: number
  tensors: number
} {
  flushReleases()
  check(binding.memoryStats(device._code))
  lastPeak = scratch[2]!
  return {
    allocated: scratch[0]!,
    reserved: scratch[1]!,
    maxAllocated: scratch[2]!,
    limit: scratch[3]!,
    tensors: scratch[5]!,
  }
}
