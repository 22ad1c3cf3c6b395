// Options, functions, flags and numbers that are handed over. An option that is misspelt, or given in another place or
// under Python's name, would otherwise count for nothing without a word.

import { ArgumentError, describeValue } from './errors'

const camelCase = (name: string): string => name.replace(/_+([a-z0-9])/g, (_, letter: string) => letter.toUpperCase())

/** @internal The error for an option that does not exist. */
function unknownOption(op: string, name: string, names: readonly string[]): ArgumentError {
  const meant = camelCase(name)
  return new ArgumentError(op, {
    problem: 'unknown option',
    got: name,
    expected: names.join(', '),
    ...(names.includes(meant) && { action: `write ${meant}` }),
  })
}

function refuseOptions(op: string, options: unknown, names: readonly string[], action?: string): never {
  throw new ArgumentError(op, {
    problem: 'the options are not an object',
    got: describeValue(options),
    expected: `{ ${names.join(', ')} }, each of them optional`,
    ...(action !== undefined && { action }),
  })
}

/** @internal The options themselves, none of which is unknown.
 *  @param action what to do where something else stands in the options' place
 *  @throws ArgumentError naming the one that does not exist, or what stands in the options' place
 *  @example readOptions('Linear', { bias: false }, ['bias']).bias // false */
export function readOptions<T extends object>(
  op: string,
  options: T,
  names: readonly (keyof T & string)[],
  action?: string,
): T {
  if (options === null || typeof options !== 'object' || Array.isArray(options)) {
    refuseOptions(op, options, names, action)
  }
  for (const name in options) {
    if (names.includes(name)) continue
    // a tensor, say, that another library takes in this place
    if ((options.constructor?.name ?? 'Object') !== 'Object') refuseOptions(op, options, names, action)
    throw unknownOption(op, name, names)
  }
  return options
}

/** @internal For objects that may hold more than the library reads: only Python's spelling of a known name is refused.
 *  @example refuseSnakeCase('AdamW', { name: 'all', weightDecay: 0 }, ['weightDecay']) */
export function refuseSnakeCase(op: string, object: object, names: readonly string[]): void {
  for (const name in object) {
    if (name.includes('_') && !names.includes(name) && names.includes(camelCase(name))) {
      throw unknownOption(op, name, names)
    }
  }
}

/** @internal Throws unless the value is a function. */
export function expectFunction(op: string, value: unknown): void {
  if (typeof value === 'function') return
  throw new ArgumentError(op, { problem: 'not a function', got: describeValue(value), expected: 'a function' })
}

/** @internal Throws unless the value is true or false. */
export function expectFlag(op: string, name: string, value: unknown): boolean {
  if (typeof value === 'boolean') return value
  throw new ArgumentError(op, {
    problem: `${name} is neither true nor false`,
    got: describeValue(value),
    expected: 'a boolean',
  })
}

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

/** @internal Throws unless the value is a number of at least 0, Infinity included. */
export function expectLimit(op: string, name: string, value: unknown): asserts value is number {
  if (typeof value !== 'number' || !(value >= 0)) {
    throw new ArgumentError(op, {
      problem: `${name} is out of range`,
      got: describeValue(value),
      expected: 'a number of at least 0',
    })
  }
}
