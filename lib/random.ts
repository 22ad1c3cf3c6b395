// Where random numbers come from: philox4x32-10 streams named by a seed and a position. The same seed gives the same
// numbers on every machine and backend; the state is two numbers, which checkpoints keep.

import { ArgumentError, describeValue } from './errors'
import { philox } from './philox'

const block = new Uint32Array(4)

let watcher: ((generator: Generator, isForHost: boolean) => void) | null = null

/** @internal Is told of each generator before it is drawn from, and whether the host draws itself; returns who was told
 *  before. */
export function watchGenerators(next: typeof watcher): typeof watcher {
  const before = watcher
  watcher = next
  return before
}

/** State of a generator. */
export interface RandomState {
  seed: number
  /** Counters used so far; one makes four 32-bit words. */
  offset: number
}

function expectWhole(op: string, what: string, value: unknown): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) {
    throw new ArgumentError(op, {
      problem: `not a ${what}`,
      got: describeValue(value),
      expected: 'a whole number from 0 to 2^53 - 1',
    })
  }
  return value
}

/** A stream of random numbers of its own, for functions that take `{ generator }`.
 *  @see Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3"
 *  @example rand([3], { generator: new random.Generator(1337) }) */
export class Generator {
  private state: RandomState

  constructor(seed = 0) {
    this.state = { seed: expectWhole('Generator', 'seed', seed), offset: 0 }
  }

  /** Starts the stream of a seed. */
  seed(value: number): this {
    this.state = { seed: expectWhole('seed', 'seed', value), offset: 0 }
    return this
  }

  getState(): RandomState {
    return { ...this.state }
  }

  setState({ seed, offset }: RandomState): this {
    this.state = { seed: expectWhole('setState', 'seed', seed), offset: expectWhole('setState', 'offset', offset) }
    return this
  }

  /** @internal Seed and offset for an operation that draws for `elements` elements of up to 16 bytes each; the next one
   *  continues behind it. */
  take(elements: number, countersPerElement = 0.25, isForHost = false): RandomState {
    watcher?.(this, isForHost)
    const { seed, offset } = this.state
    this.state.offset = offset + Math.ceil(elements * countersPerElement)
    return { seed, offset }
  }

  /** One uniform number in [0, 1) with 53 random bits, computed without a tensor. */
  uniform(): number {
    const { seed, offset } = this.take(1, 1, true)
    // the counter in the low 64 bits and the seed as key, as the kernels do
    philox(block, offset >>> 0, Math.floor(offset / 2 ** 32), 0, 0, seed >>> 0, Math.floor(seed / 2 ** 32))
    return ((block[0]! >>> 5) * 2 ** 26 + (block[1]! >>> 6)) / 2 ** 53
  }
}

/** The generator of everything that is given none. */
export const defaultGenerator = new Generator(0)

/** Seeds the default generator.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.manual_seed.html
 *  @example random.seed(1337) */
export function seed(value: number): void {
  defaultGenerator.seed(value)
}

/** State of the default generator. */
export function getState(): RandomState {
  return defaultGenerator.getState()
}

/** Continues the default generator from a state. */
export function setState(state: RandomState): void {
  defaultGenerator.setState(state)
}

/** One uniform number in [0, 1) from the default generator. */
export function uniform(): number {
  return defaultGenerator.uniform()
}
