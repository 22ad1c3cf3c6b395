// Kernels by name, as the simulated driver counts them. A card counts nothing: there, nothing is said of them.
import { cuda } from '../../lib/index'
import { simulator } from './simulated/simulator'

/** How often each kernel was launched. */
export type Launches = ReadonlyMap<string, number>

const areCounted = (): boolean => cuda.getDeviceName().startsWith('cudasim')

/** Counts from 0 again. */
export async function restartCounts(): Promise<void> {
  await cuda.synchronize()
  if (areCounted()) simulator.control('reset')
}

/** Has the launches since `restartCounts` checked, where they are counted. */
export async function checkLaunches(check: (launches: Launches) => void): Promise<void> {
  await cuda.synchronize()
  if (!areCounted()) return
  const { kernels } = JSON.parse(simulator.counters()) as { kernels: Record<string, { launches: number }> }
  check(new Map(Object.entries(kernels).map(([name, { launches }]) => [name, launches])))
}

/** Launches of the kernels that are called so. */
export function countOf(launches: Launches, name: RegExp): number {
  return [...launches].reduce((sum, [each, n]) => (name.test(each) ? sum + n : sum), 0)
}
