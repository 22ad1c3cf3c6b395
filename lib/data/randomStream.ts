// The generator behind every order and every augmentation. Counter-based, so any (seed, epoch, sample) has a stream of
// its own that needs no state to be kept: which worker makes a sample, and when, cannot change it.

import { ArgumentError, describeValue } from '../errors'
import { philox } from '../philox'
import { uniform } from '../random'

/** @internal A seed from the default generator, for what is given none. */
export const drawSeed = (): number => uniform() * 2 ** 53

// The default generator counts in the lower half of the counter; this bit keeps streams of the same seed apart from it.
const streamBit = 2 ** 31

/** A stream of random numbers named by its seed and up to two further numbers.
 *  @example new data.RandomStream(1337).permutation(4).sort() // [0, 1, 2, 3] */
export class RandomStream {
  private readonly key0: number
  private readonly key1: number
  private counter = 0
  private readonly block = new Uint32Array(4)
  private used = 4

  /** @param seed integer, 0 to 2^53 - 1
   *  @param stream which of the seed's streams, for example the epoch
   *  @param substream which part of it, for example the sample; below 2^53 */
  constructor(
    readonly seed: number,
    private readonly stream = 0,
    private readonly substream = 0,
  ) {
    for (const value of [seed, stream, substream]) {
      if (Number.isSafeInteger(value) && value >= 0) continue
      throw new ArgumentError('RandomStream', {
        problem: 'a seed must be an integer',
        got: describeValue(value),
        expected: '0 to 2^53 - 1',
      })
    }
    this.key0 = seed >>> 0
    this.key1 = Math.floor(seed / 2 ** 32)
  }

  private refill(): void {
    // 32 bits of position (16 G numbers a stream), 32 of stream, 53 of substream.
    const { stream, substream } = this
    const high = streamBit + Math.floor(substream / 2 ** 32)
    philox(this.block, this.counter++ >>> 0, stream >>> 0, substream >>> 0, high, this.key0, this.key1)
    this.used = 0
  }

  /** An integer from 0 to 2^32 - 1. */
  uint32(): number {
    if (this.used === 4) this.refill()
    return this.block[this.used++]!
  }

  /** A number in [0, 1) with 24 bits, as the library's tensors are drawn. */
  uniform(): number {
    return (this.uint32() >>> 8) * 2 ** -24
  }

  /** A number from the standard normal distribution (Box-Muller). */
  normal(): number {
    const radius = Math.sqrt(-2 * Math.log(1 - this.uniform()))
    return radius * Math.cos(2 * Math.PI * this.uniform())
  }

  /** An integer from 0 to `bound - 1`, every one equally likely. */
  integer(bound: number): number {
    if (!Number.isSafeInteger(bound) || bound < 1) {
      throw new ArgumentError('RandomStream.integer', {
        problem: 'nothing to choose from',
        got: describeValue(bound),
        expected: 'a bound from 1 to 2^53 - 1',
      })
    }
    // Values above the last whole multiple of the bound would favour small results: draw again.
    const range = bound <= 2 ** 32 ? 2 ** 32 : 2 ** 53
    const limit = range - (range % bound)
    for (;;) {
      const value = range === 2 ** 32 ? this.uint32() : (this.uint32() >>> 11) * 2 ** 32 + this.uint32()
      if (value < limit) return value % bound
    }
  }

  /** The numbers 0 to `n - 1` in random order (Fisher-Yates). */
  permutation(n: number): Uint32Array {
    const order = new Uint32Array(n)
    for (let i = 0; i < n; i++) order[i] = i
    for (let i = n - 1; i > 0; i--) {
      const j = this.integer(i + 1)
      const swapped = order[i]!
      order[i] = order[j]!
      order[j] = swapped
    }
    return order
  }
}
