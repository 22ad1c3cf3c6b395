// Parsers of option values. commander puts the option's name and the value before these messages.

import { InvalidArgumentError } from 'commander'

function parse(text: string, valid: (value: number) => boolean, expected: string): number {
  const value = text.trim() === '' ? Number.NaN : Number(text)
  if (!valid(value)) throw new InvalidArgumentError(`Expected ${expected}.`)
  return value
}

/** A whole number from `low` to `high`. */
export function wholeNumber(low: number, high = 2 ** 31 - 1): (text: string) => number {
  const range = high === 2 ** 31 - 1 ? `a whole number of at least ${low}` : `a whole number from ${low} to ${high}`
  return (text) => parse(text, (value) => Number.isInteger(value) && value >= low && value <= high, range)
}

/** A number above 0. */
export function positiveNumber(text: string): number {
  return parse(text, (value) => Number.isFinite(value) && value > 0, 'a number above 0')
}

/** A number of at least 0. */
export function numberFromZero(text: string): number {
  return parse(text, (value) => Number.isFinite(value) && value >= 0, 'a number of at least 0')
}

/** A number from `low` up to but without `high`. */
export function fraction(low: number, high: number): (text: string) => number {
  const range = `a number from ${low} up to, but not, ${high}`
  return (text) => parse(text, (value) => value >= low && value < high, range)
}
