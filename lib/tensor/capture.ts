// What a captured graph has to be told before each replay: the numbers that calls of the captured function took from
// JavaScript.

import type { Device } from '../device'
import { StateError } from '../errors'
import { defaultGenerator, type Generator, type RandomState, watchGenerators } from '../random'

/** @internal A capture that is under way. */
export class Capture {
  /** Learning rates in the order of the native calls that use them. */
  readonly rates: (() => number)[] = []
  readonly start: RandomState = defaultGenerator.getState()
  /** Random counters that the function uses up. */
  counters = 0

  constructor(readonly device: Device) {}

  /** A native call on `device` takes the rate. */
  uses(rate: () => number, device: Device): void {
    if (device === this.device) this.rates.push(rate)
  }
}

/** @internal Null but while a captured function runs. */
export let capture: Capture | null = null

/** @internal Runs a function and takes down what a replay needs to know; the default generator stays where it is. */
export function takingDown<R>(device: Device, fn: () => R): { taken: Capture; result: R } {
  const taken = new Capture(device)
  const outerWatcher = watchGenerators((generator, isForHost) => {
    expectDefault(generator)
    if (isForHost)
      refuseInCapture(
        'random.uniform',
        'a number drawn for JavaScript would be the same in every replay',
        'draw it with rand(), or before the replay and copy it in',
      )
    outerWatcher?.(generator, isForHost)
  })
  capture = taken
  try {
    const result = fn()
    const { seed, offset } = defaultGenerator.getState()
    if (seed !== taken.start.seed || offset < taken.start.offset) {
      refuseInCapture('random.seed', 'every replay goes on behind the one before', 'seed before replay()')
    }
    taken.counters = offset - taken.start.offset
    return { taken, result }
  } finally {
    capture = null
    watchGenerators(outerWatcher)
    defaultGenerator.setState(taken.start)
  }
}

function expectDefault(generator: Generator): void {
  if (generator === defaultGenerator) return
  throw new StateError('CUDAGraph.capture', {
    problem: 'a generator of its own would give every replay the same numbers',
    got: 'an operation with { generator }',
    expected: 'the default generator, which moves on with every replay',
    action: 'leave out the generator, or draw the numbers before the replay and copy them in',
  })
}

/** @internal Throws where a call decides by what only a run of the function would tell. */
export function refuseInCapture(op: string, problem: string, action: string): void {
  if (capture !== null) throw new StateError(op, { problem: `in a captured function, ${problem}`, action })
}
