// What the log of a memory profile is told: which tensors are weights, gradients and states of an optimizer, and where
// a phase begins. Notes travel in the stream, so that they stand between the right allocations.

import { Device } from '../device'
import { binding, check, scratch } from '../native'
import type { Tensor } from './tensor'

/** @internal Codes of notes: kinds of tensors, and from 16 on phases. */
export const notes = { weights: 1, gradients: 2, optimizer: 3, forward: 16, backward: 17, step: 18 } as const

let listening = false
let listenedTo: Device = Device.cpu
let phase: number = notes.forward

/** @internal Whether somebody profiles. */
export const isListening = (): boolean => listening

/** @internal */
export function setListening(value: boolean, device: Device = listenedTo): void {
  listening = value
  listenedTo = device
  phase = notes.forward
}

/** @internal Says what a tensor is. */
export function noteTensor(tensor: Tensor, kind: 'weights' | 'gradients' | 'optimizer'): void {
  if (!listening || tensor._released !== null) return
  scratch[0] = tensor._handle
  check(binding.memoryNote(listenedTo._code, notes[kind]))
}

function begin(code: number): void {
  phase = code
  scratch[0] = 0
  check(binding.memoryNote(listenedTo._code, code))
}

/** @internal Runs fn as a phase of its own. */
export function inPhase<R>(name: 'backward' | 'step', fn: () => R): R {
  if (!listening) return fn()
  const outer = phase
  begin(notes[name])
  try {
    return fn()
  } finally {
    begin(outer)
  }
}
