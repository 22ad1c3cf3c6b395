// The state of optimizers, schedules and samplers is a tree of plain values with tensors at some leaves. Here it is
// taken apart into JSON and named tensors, and put together again.

import { ArgumentError, describeValue, FileError } from '../errors'

/** A value that JSON can hold. */
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json }

const typedArrays = {
  Int8Array,
  Uint8Array,
  Uint8ClampedArray,
  Int16Array,
  Uint16Array,
  Int32Array,
  Uint32Array,
  Float32Array,
  Float64Array,
  BigInt64Array,
  BigUint64Array,
} as const

/** @internal A tree taken apart. What JSON lacks stands there as an object with one key that begins with `$`. */
export interface FlatState<T> {
  json: Json
  /** By the path of each leaf in the tree. */
  tensors: Map<string, T>
  /** Typed arrays, as bytes. */
  arrays: Map<string, Uint8Array>
}

/** @internal Takes a state tree apart. */
export function flattenState<T extends object>(
  op: string,
  name: string,
  state: unknown,
  isTensor: (value: object) => value is T,
): FlatState<T> {
  const tensors = new Map<string, T>()
  const arrays = new Map<string, Uint8Array>()
  const above = new Set<object>()

  // { 'a.b': t } and { a: { b: t } } have one path.
  const unique = (path: string): string => {
    let name = path
    for (let n = 2; tensors.has(name) || arrays.has(name); n++) name = `${path}#${n}`
    return name
  }

  const refuse = (path: string, value: unknown) =>
    new ArgumentError(op, {
      problem: `${path} cannot be saved`,
      got: describeValue(value),
      expected: 'tensors, typed arrays, numbers, text, booleans, null, arrays, maps and plain objects of these',
    })

  const flattenObject = (path: string, value: object): Json => {
    if (isTensor(value)) {
      const $tensor = unique(path)
      tensors.set($tensor, value)
      return { $tensor }
    }
    if (ArrayBuffer.isView(value)) {
      const type = value.constructor.name
      if (!Object.hasOwn(typedArrays, type)) throw refuse(path, value)
      const $array = unique(path)
      arrays.set($array, new Uint8Array(value.buffer, value.byteOffset, value.byteLength))
      return { $array, type }
    }
    if (above.has(value)) throw new ArgumentError(op, { problem: `${path} contains itself`, action: 'break the cycle' })
    above.add(value)
    try {
      if (Array.isArray(value)) return value.map((item, i) => flatten(`${path}.${i}`, item))
      if (value instanceof Map) {
        return {
          $map: [...value].map(([key, item], i) => [flatten(`${path}.${i}.key`, key), flatten(`${path}.${i}`, item)]),
        }
      }
      const prototype = Object.getPrototypeOf(value)
      // Objects of another realm (a worker's, a test runner's) have another Object.prototype, whose prototype is null.
      if (prototype !== null && Object.getPrototypeOf(prototype) !== null) throw refuse(path, value)
      const entries = Object.entries(value).filter(([, item]) => item !== undefined)
      const flat = entries.map(([key, item]): [string, Json] => [key, flatten(`${path}.${key}`, item)])
      return flat.some(([key]) => key.startsWith('$')) ? { $entries: flat } : Object.fromEntries(flat)
    } finally {
      above.delete(value)
    }
  }

  const flatten = (path: string, value: unknown): Json => {
    switch (typeof value) {
      case 'string':
      case 'boolean':
        return value
      case 'number':
        return Number.isFinite(value) && !Object.is(value, -0)
          ? value
          : { $number: Object.is(value, -0) ? '-0' : `${value}` }
      case 'bigint':
        return { $bigint: `${value}` }
      case 'object':
        return value === null ? null : flattenObject(path, value)
      default:
        throw refuse(path, value)
    }
  }
  return { json: flatten(name, state), tensors, arrays }
}

/** @internal Puts a state tree together; the two functions deliver the leaves that are not in the JSON. */
export function unflattenState<T>(
  op: string,
  json: Json,
  tensor: (path: string) => T,
  bytes: (path: string) => Uint8Array,
): unknown {
  const restore = (value: Json): unknown => {
    if (value === null || typeof value !== 'object') return value
    if (Array.isArray(value)) return value.map(restore)
    const [key] = Object.keys(value)
    if (key?.startsWith('$')) return restoreSpecial(op, value, restore, tensor, bytes)
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, restore(item)]))
  }
  return restore(json)
}

const isPairs = (value: Json | undefined): value is [Json, Json][] =>
  Array.isArray(value) && value.every((each) => Array.isArray(each) && each.length === 2)

const damaged = (op: string, got: string): FileError =>
  new FileError(op, { problem: 'the checkpoint is damaged', got, action: 'load an older checkpoint' })

function restoreSpecial<T>(
  op: string,
  value: { [key: string]: Json },
  restore: (value: Json) => unknown,
  tensor: (path: string) => T,
  bytes: (path: string) => Uint8Array,
): unknown {
  const { $tensor, $array, $number, $bigint, $map, $entries, type } = value
  if (typeof $tensor === 'string') return tensor($tensor)
  if (typeof $array === 'string' && typeof type === 'string' && Object.hasOwn(typedArrays, type)) {
    const raw = bytes($array)
    const TypedArray = typedArrays[type as keyof typeof typedArrays]
    if (raw.byteLength % TypedArray.BYTES_PER_ELEMENT !== 0) throw damaged(op, `${raw.byteLength} bytes of ${type}`)
    return new (TypedArray as new (buffer: ArrayBuffer) => NodeJS.TypedArray)(raw.slice().buffer)
  }
  if (typeof $number === 'string') {
    if (!['NaN', 'Infinity', '-Infinity', '-0'].includes($number)) throw damaged(op, `$number ${$number}`)
    return Number($number)
  }
  if (typeof $bigint === 'string') {
    if (!/^-?\d+$/.test($bigint)) throw damaged(op, `$bigint ${$bigint}`)
    return BigInt($bigint)
  }
  if (isPairs($map)) return new Map($map.map(([key, item]) => [restore(key), restore(item)]))
  if (isPairs($entries)) return Object.fromEntries($entries.map(([name, item]) => [name as string, restore(item)]))
  throw new FileError(op, {
    problem: 'the checkpoint holds a value of an unknown kind',
    got: Object.keys(value).join(', '),
    action: 'was it written by a newer version?',
  })
}
