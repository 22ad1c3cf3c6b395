// Where random numbers come from: philox4x32-10 streams named by a seed and a position. The same seed gives the same
// numbers on every machine and backend; the state is two numbers, which checkpoints keep.

import { ArgumentError, describeValue } from './errors'

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
  take(elements: number, countersPerElement = 0.25): RandomState {
    const { seed, offset } = this.state
    this.state.offset = offset + Math.ceil(elements * countersPerElement)
    return { seed, offset }
  }

  /** One uniform number in [0, 1) with 53 random bits, computed without a tensor. */
  uniform(): number {
    const { seed, offset } = this.take(1, 1)
    const [high, low] = philox(seed, offset)
    return ((high >>> 5) * 2 ** 26 + (low >>> 6)) / 2 ** 53
  }
}

// philox4x32-10 with the counter in the low 64 bits and the seed as key; see native/cpu/philox.h.
function philox(seed: number, counter: number): [number, number] {
  const high = (a: number, b: number): number => Number((BigInt(a) * BigInt(b)) >> 32n)
  let [c0, c1, c2, c3] = [counter >>> 0, Math.floor(counter / 2 ** 32) >>> 0, 0, 0]
  let [k0, k1] = [seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0]
  for (let round = 0; round < 10; round++) {
    const [h0, l0] = [high(0xd2511f53, c0), Math.imul(0xd2511f53, c0) >>> 0]
    const [h1, l1] = [high(0xcd9e8d57, c2), Math.imul(0xcd9e8d57, c2) >>> 0]
    ;[c0, c1, c2, c3] = [(h1 ^ c1 ^ k0) >>> 0, l1, (h0 ^ c3 ^ k1) >>> 0, l0]
    k0 = (k0 + 0x9e3779b9) >>> 0
    k1 = (k1 + 0xbb67ae85) >>> 0
  }
  return [c0, c1]
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
