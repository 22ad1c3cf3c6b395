// Options and functions that are handed over. An option that is misspelt, or given in another place or under Python's name, would
// otherwise count for nothing without a word.

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

function refuseOptions(op: string, options: unknown, names: readonly string[]): never {
  throw new ArgumentError(op, {
    problem: 'the options are not an object',
    got: describeValue(options),
    expected: `{ ${names.join(', ')} }, each of them optional`,
  })
}

/** @internal The options themselves, none of which is unknown.
 *  @throws ArgumentError naming the one that does not exist, or what stands in the options' place
 *  @example readOptions('Linear', { bias: false }, ['bias']).bias // false */
export function readOptions<T extends object>(op: string, options: T, names: readonly (keyof T & string)[]): T {
  if (options === null || typeof options !== 'object' || Array.isArray(options)) refuseOptions(op, options, names)
  for (const name in options) {
    if (names.includes(name)) continue
    // a tensor, say, that another library takes in this place
    if ((options.constructor?.name ?? 'Object') !== 'Object') refuseOptions(op, options, names)
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
