// Seeded choices, so that a failure can be repeated.

export interface Random {
  /** In [0, 1). */
  (): number
  /** A whole number from 0 to n - 1. */
  below(n: number): number
  pick<T>(items: readonly T[]): T
  /** True with this probability. */
  chance(p: number): boolean
}

export function generator(seed: number): Random {
  let state = seed
  const next = (): number => {
    state = (Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9) >>> 0
    return ((state ^ (state >>> 13)) >>> 0) / 2 ** 32
  }
  const below = (n: number): number => Math.floor(next() * n)
  return Object.assign(next, {
    below,
    pick: <T>(items: readonly T[]): T => items[below(items.length)]!,
    chance: (p: number): boolean => next() < p,
  })
}
