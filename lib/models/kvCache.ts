// Keys and values of the tokens that a causal model has read, so that one more token costs one more row.

import { isCheckpointed } from '../autograd/frame'
import { withoutGrad } from '../autograd/mode'
import { StateError } from '../errors'
import { zeros } from '../tensor/create'
import type { Tensor } from '../tensor/tensor'

/** Keys and values of every layer, with room for `capacity` tokens. Made for one generation; `dispose()` it. */
export class KeyValueCache {
  /** Tokens read so far. */
  length = 0
  readonly #keys: Tensor[] = []
  readonly #values: Tensor[] = []

  constructor(readonly capacity: number) {}

  /** Notes the keys and values [B, H, T, D] of a layer's new tokens; gives those of all tokens, [B, H, length + T, D],
   *  as views. Call `advance` when every layer has. */
  append(layer: number, k: Tensor, v: Tensor): [k: Tensor, v: Tensor] {
    const [B, H, T, D] = k.shape as [number, number, number, number]
    if (isCheckpointed()) {
      throw new StateError('KeyValueCache', {
        problem: 'a checkpointed layer cannot write to a cache: it would write again in backward',
        action: 'call eval(), or gradientCheckpointing(false)',
      })
    }
    if (this.length + T > this.capacity) {
      throw new StateError('KeyValueCache', {
        problem: 'the cache is full',
        got: `${this.length} + ${T} tokens`,
        expected: `at most ${this.capacity}`,
      })
    }
    this.#keys[layer] ??= zeros([B, this.capacity, H, D], { dtype: k.dtype, device: k.device }).keep()
    this.#values[layer] ??= zeros([B, this.capacity, H, D], { dtype: v.dtype, device: v.device }).keep()
    const write = (store: Tensor, rows: Tensor): Tensor => {
      // [B, H, T, D] -> rows of [B, capacity, H, D], so that a token's heads lie together as the projection made them
      withoutGrad(() => void store.narrow(1, this.length, T).copy_(rows.transpose(1, 2)))
      return store.narrow(1, 0, this.length + T).transpose(1, 2)
    }
    return [write(this.#keys[layer], k), write(this.#values[layer], v)]
  }

  /** Counts tokens that every layer has noted. */
  advance(tokens: number): void {
    this.length += tokens
  }

  /** Gives the memory back. */
  dispose(): void {
    for (const tensor of [...this.#keys, ...this.#values]) tensor.dispose()
    this.#keys.length = 0
    this.#values.length = 0
    this.length = 0
  }
}
