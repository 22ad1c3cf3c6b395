// The simulated driver that the tests here run on: its settings and counters while a test is under way.
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

export const simulator = createRequire(__filename)(join(__dirname, '../../build/cudasim/lib/cudasim.node')) as Simulator
