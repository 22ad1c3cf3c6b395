// Checking what layers are constructed with.

import { ArgumentError, describeValue } from '../errors'

export { expectCount } from '../options'

/** @internal Names of the options that say how parameters are made. */
export const placement = ['dtype', 'device'] as const

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
