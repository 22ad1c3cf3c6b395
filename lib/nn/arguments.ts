// Checking what layers are constructed with.

import { ArgumentError, describeValue } from '../errors'

/** @internal Names of the options that say how parameters are made. */
export const placement = ['dtype', 'device'] as const

/** @internal Throws unless the value is a whole number of at least `least`. */
export function expectCount(op: string, name: string, value: unknown, least = 1): number {
  if (!Number.isSafeInteger(value) || (value as number) < least) {
    throw new ArgumentError(op, {
      problem: `${name} is not a size`,
      got: describeValue(value),
      expected: `a whole number of at least ${least}`,
    })
  }
  return value as number
}

/** @internal Throws unless the value is a probability; 1 drops everything. */
export function expectProbability(op: string, name: string, value: unknown): number {
  if (typeof value !== 'number' || !(value >= 0 && value <= 1)) {
    throw new ArgumentError(op, {
      problem: `${name} is not a probability`,
      got: describeValue(value),
      expected: 'a number from 0 to 1',
    })
  }
  return value
}

/** @internal Throws unless the value is a finite number. */
export function expectFinite(op: string, name: string, value: unknown): number {
  if (typeof value !== 'number' || !Number.isFinite(value)) {
    throw new ArgumentError(op, { problem: `${name} is not a finite number`, got: describeValue(value) })
  }
  return value
}

/** @internal Throws unless the value is one of a few words. */
export function expectOneOf<T extends string>(op: string, name: string, value: unknown, words: readonly T[]): T {
  if (!words.includes(value as T)) {
    throw new ArgumentError(op, {
      problem: `${name} is not known`,
      got: describeValue(value),
      expected: `one of ${words.map((word) => `'${word}'`).join(', ')}`,
    })
  }
  return value as T
}
