// The error classes of the library. Every message follows one template, in this order: operation, problem, what was
// got, what was expected, and what to do about it.

/** What an error says. `got` and `expected` may be left out where there is nothing to compare. */
export interface ErrorParts {
  problem: string
  got?: string
  expected?: string
  action?: string
  /** The error that led to this one. */
  cause?: unknown
}

/** Stable identifiers of the error classes, for programs that switch on them. */
export type ErrorCode =
  | 'ERR_GRADUS_SHAPE'
  | 'ERR_GRADUS_DTYPE'
  | 'ERR_GRADUS_DEVICE'
  | 'ERR_GRADUS_INDEX'
  | 'ERR_GRADUS_STATE'
  | 'ERR_GRADUS_OUT_OF_MEMORY'
  | 'ERR_GRADUS_FILE'
  | 'ERR_GRADUS_NATIVE'
  | 'ERR_GRADUS_ARGUMENT'

function buildMessage(op: string, { problem, got, expected, action }: ErrorParts): string {
  const facts = [got && `got ${got}`, expected && `expected ${expected}`].filter(Boolean).join(', ')
  return `${op}: ${problem}${facts ? `: ${facts}` : ''}${action ? `; ${action}` : ''}.`
}

const enoughFrames = 50

/** Base of every error that the library throws on purpose.
 *  @example
 *  new ShapeError('bmm', { problem: 'not batches', got: '[2]' }).message // 'bmm: not batches: got [2].' */
export abstract class GradusError extends Error {
  abstract readonly code: ErrorCode
  /** The operation that refused. */
  readonly op: string
  /** Path of the module whose forward was running. */
  modulePath?: string

  /** `parts` is a string where the native side has already worded it. */
  constructor(op: string, parts: ErrorParts | string) {
    super(
      typeof parts === 'string' ? `${op}: ${parts}` : buildMessage(op, parts),
      typeof parts === 'string' || parts.cause === undefined ? undefined : { cause: parts.cause },
    )
    this.op = op
    this.name = new.target.name
    // V8 keeps ten frames; between the engine and the line of the caller there may be more of the library's own
    const limit = Error.stackTraceLimit
    if (!(limit > 0 && limit < enoughFrames)) return
    Error.stackTraceLimit = enoughFrames
    Error.captureStackTrace(this, new.target)
    Error.stackTraceLimit = limit
  }
}

/** Sizes or ranks that do not fit together. */
export class ShapeError extends GradusError {
  readonly code = 'ERR_GRADUS_SHAPE'
}

/** An element type that the operation does not take. */
export class DTypeError extends GradusError {
  readonly code = 'ERR_GRADUS_DTYPE'
}

/** Operands on different devices, or a device that is not there. */
export class DeviceError extends GradusError {
  readonly code = 'ERR_GRADUS_DEVICE'
}

/** An index, a key or a position outside its range. */
export class IndexError extends GradusError {
  readonly code = 'ERR_GRADUS_INDEX'
}

/** A call at the wrong time: a released tensor, a second backward, a state that does not fit. */
export class StateError extends GradusError {
  readonly code = 'ERR_GRADUS_STATE'
}

/** A device has no room for what was asked. */
export class OutOfMemoryError extends GradusError {
  readonly code = 'ERR_GRADUS_OUT_OF_MEMORY'
}

/** A file that is missing, truncated, hostile or cannot be written. */
export class FileError extends GradusError {
  readonly code = 'ERR_GRADUS_FILE'
}

/** A failure inside the addon or a system library. */
export class NativeError extends GradusError {
  readonly code = 'ERR_GRADUS_NATIVE'
}

/** An argument of the wrong kind or outside its valid values. */
export class ArgumentError extends GradusError {
  readonly code = 'ERR_GRADUS_ARGUMENT'
}

/** Shows a value of unknown type in a message, briefly and without running its code. */
export function describeValue(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value)
  if (typeof value === 'bigint') return `${value}n`
  if (value === null || typeof value !== 'object') {
    return typeof value === 'function' ? 'a function' : typeof value === 'symbol' ? 'a symbol' : String(value)
  }
  if (Array.isArray(value)) return `an array of length ${value.length}`
  if (ArrayBuffer.isView(value)) return `a ${value.constructor.name} of length ${(value as Uint8Array).length}`
  const name = Object.getPrototypeOf(value)?.constructor?.name
  return typeof name === 'string' && name !== 'Object' ? `a ${name}` : 'an object'
}

/** `[2, 3]`, as shapes are written in messages. */
export function describeShape(shape: readonly number[]): string {
  return `[${shape.join(', ')}]`
}
