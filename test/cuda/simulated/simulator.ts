// The simulated driver, which all tests of this folder ask: its settings and counters while a test is under way.
import { createRequire } from 'node:module'
import { join } from 'node:path'

/** See tools/cudasim/node/control.cc. */
interface Simulator {
  /** Applies settings, `name=value` words; tools/cudasim/README.md lists them. */
  control(words: string): void
  report(): string
  failedCalls(): string
  counters(): string
}

let loaded: Simulator | undefined

// At the first call: what imports this may run on a card, where the simulator is not built.
function load(): Simulator {
  loaded ??= createRequire(__filename)(join(__dirname, '../../../build/cudasim/lib/cudasim.node')) as Simulator
  return loaded
}

export const simulator: Simulator = {
  control: (words) => load().control(words),
  report: () => load().report(),
  failedCalls: () => load().failedCalls(),
  counters: () => load().counters(),
}
