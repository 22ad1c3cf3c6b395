// A training step as one launch.

import { cudaDevice, type Device, type DeviceName } from '../device'
import { ArgumentError, describeValue, StateError } from '../errors'
import { binding, check, nativeError } from '../native'
import { defaultGenerator } from '../random'
import { type Capture, capture, takingDown } from './capture'
import { forEachTensor, tidy } from './scope'

/** What a function launched, to be launched again as a whole: one call of the driver instead of hundreds.
 *
 *  `capture(fn)` runs `fn` once without computing anything and keeps its kernels with their operands. `replay()` computes
 *  all of it on the same tensors: copy new inputs into those that `fn` read, and read what it returned. Between replays
 *  random numbers move on as if `fn` had been called, optimizers take the learning rates that their groups have by then,
 *  and step counts and what a GradScaler decides are on the device anyway.
 *
 *  Run `fn` once or twice before, so that states of optimizers exist. JavaScript of `fn` runs in the capture only: what it
 *  decides there holds for every replay. It must not wait (`item()`, `data()`, `synchronize()`), make tensors of host
 *  numbers or from other devices, or step a schedule; schedules are stepped beside `replay()`.
 *  docs/cuda.md has an example.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.cuda.CUDAGraph.html */
export class CUDAGraph {
  readonly device: Device
  #graph: object | null = null
  #taken: Capture | null = null

  /** @throws DeviceError where there is no such CUDA device */
  constructor(device?: DeviceName | Device | number) {
    this.device = cudaDevice('CUDAGraph', device)
  }

  /** Whether there is something to replay. */
  get isCaptured(): boolean {
    return this.#taken !== null
  }

  /** Captures what `fn` launches and returns what it returns; tensors in it get their contents by `replay()`, and what else
   *  `fn` makes is released as in `tidy`. Waits for the device first.
   *  @throws StateError for what cannot be captured, naming it, and when there is a capture already; what `fn` throws;
   *  OutOfMemoryError when the graph's memory cannot be had. There is no graph then */
  capture<R>(fn: () => R): R {
    const op = 'CUDAGraph.capture'
    if (typeof fn !== 'function') {
      throw new ArgumentError(op, { problem: 'not a function', got: describeValue(fn) })
    }
    if (this.#graph !== null) {
      throw new StateError(op, { problem: 'the graph was captured before', action: 'reset() it, or make another one' })
    }
    if (capture !== null) {
      throw new StateError(op, {
        problem: `a graph is being captured on ${capture.device}`,
        got: 'another capture within the function',
        expected: 'one at a time',
      })
    }
    this.device.synchronizeSync()
    const graph = binding.graphBegin(this.device._code)
    if (Array.isArray(graph)) throw nativeError(graph)
    let run: ReturnType<typeof takingDown<R>>
    try {
      run = takingDown(this.device, () => tidy(fn))
      if (run.result instanceof Promise) {
        run.result.catch(() => {}) // it waits for what a capture refuses
        throw new StateError(op, {
          problem: 'an asynchronous function cannot be captured',
          got: 'a promise',
          expected: 'a function that queues its operations and returns',
          action: 'await what it returns after replay()',
        })
      }
    } catch (error) {
      binding.graphEnd(graph, false)
      throw error
    }
    const failure = binding.graphEnd(graph, true)
    if (failure !== undefined) {
      forEachTensor(run.result, (tensor) => tensor.dispose()) // the caller never gets it
      throw nativeError(failure)
    }
    this.#graph = graph
    this.#taken = run.taken
    return run.result
  }

  /** Queues one run of what was captured; nothing waits for it.
   *  @throws StateError when nothing was captured */
  replay(): void {
    if (this.#graph === null || this.#taken === null) {
      throw new StateError('CUDAGraph.replay', { problem: 'nothing was captured', action: 'call capture(fn) first' })
    }
    const { start, counters, rates } = this.#taken
    const { seed, offset } = defaultGenerator.getState()
    const now = Float64Array.from(rates, (rate) => rate())
    check(binding.graphReplay(this.#graph, seed, offset - start.offset, now))
    defaultGenerator.setState({ seed, offset: offset + counters })
  }

  /** Gives back what the graph holds, after the replays that are queued. Tensors that `capture` returned stay. */
  reset(): void {
    if (this.#graph !== null) check(binding.graphReset(this.#graph))
    this.#graph = null
    this.#taken = null
  }
}
