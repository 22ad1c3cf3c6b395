// How the benchmarks measure.

import { device } from 'gradus'

/** The middle value. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

const cpu = device('cpu')

/** Median milliseconds of fn, the device's work included: two warm-ups, then repeats within the budget (3 at least). */
export function timed(fn: () => void, seconds: number): number {
  const times: number[] = []
  const once = (): void => {
    fn()
    cpu.synchronizeSync()
  }
  once()
  once()
  const end = performance.now() + seconds * 1e3
  while (times.length < 3 || (performance.now() < end && times.length < 500)) {
    const from = performance.now()
    once()
    times.push(performance.now() - from)
  }
  return Number(median(times).toFixed(4))
}
