// Parsers of option values; commander puts the option's name and the value before these messages.

import { InvalidArgumentError } from 'commander'

/** A whole number of at least 1. */
export function wholeNumber(text: string): number {
  if (!/^[1-9]\d*$/.test(text)) throw new InvalidArgumentError('Expected a whole number of at least 1.')
  return Number(text)
}

/** A number above 0. */
export function positiveNumber(text: string): number {
  if (!(Number(text) > 0)) throw new InvalidArgumentError('Expected a number above 0.')
  return Number(text)
}

/** A number from 0 up to, but not, 1. */
export function probability(text: string): number {
  const p = text.trim() === '' ? Number.NaN : Number(text)
  if (!(p >= 0 && p < 1)) throw new InvalidArgumentError('Expected a number from 0 up to, but not, 1.')
  return p
}
