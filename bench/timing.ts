// How the benchmarks measure.

import { device } from 'gradus'

/** The middle value. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

const cpu = device('cpu')

// A wait costs two changes of thread, which a training loop pays once for hundreds of operators: so what is short is
// queued in blocks of this many milliseconds, as torch.utils.benchmark does on devices that run behind the caller.
const blockMs = 10

/**
 * Median milliseconds of fn, the device's work included: two warm-ups, then blocks of calls within the budget (3 blocks
 * at least, each ended by a wait).
 */
export function timed(fn: () => void, seconds: number): number {
  const block = (calls: number): number => {
    const from = performance.now()
    for (let i = 0; i < calls; i++) fn()
    cpu.synchronizeSync()
    return (performance.now() - from) / calls
  }
  block(1)
  const calls = Math.min(64, Math.max(1, Math.round(blockMs / block(1))))
  const times: number[] = []
  const end = performance.now() + seconds * 1e3
  while (times.length < 3 || (performance.now() < end && times.length < 500)) times.push(block(calls))
  return Number(median(times).toFixed(4))
}
