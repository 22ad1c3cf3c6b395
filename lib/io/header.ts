// The header of a safetensors file: 8 bytes of length, JSON, then the data without gaps. A header comes from anywhere,
// so nothing in it is believed: every field is checked against the file before a byte of data is read.
// Source: https://github.com/huggingface/safetensors#format

import type { DType } from '../dtype'
import { FileError, type GradusError } from '../errors'

/** The format's largest header; a longer one is an attack or another kind of file. */
export const maxHeaderBytes = 100_000_000

// A header needs three levels; functions that recurse over a value must not meet 100 million.
const maxDepth = 32

/** Bytes of one element by the format's dtype names, ordered as the reference sorts tensors: later ones come first. */
const itemBytes = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  F8_E5M2: 1,
  F8_E4M3: 1,
  F8_E8M0: 1,
  I16: 2,
  U16: 2,
  F16: 2,
  BF16: 2,
  I32: 4,
  U32: 4,
  F32: 4,
  C64: 8,
  F64: 8,
  I64: 8,
  U64: 8,
} as const

/** A dtype as safetensors files spell it. */
export type FileDType = keyof typeof itemBytes

const fileDTypes = new Map<DType, FileDType>([
  ['float32', 'F32'],
  ['float64', 'F64'],
  ['float16', 'F16'],
  ['bfloat16', 'BF16'],
  ['int64', 'I64'],
  ['int32', 'I32'],
  ['uint8', 'U8'],
  ['bool', 'BOOL'],
])
const libraryDTypes = new Map([...fileDTypes].map(([dtype, file]) => [file, dtype]))

/** @internal The file's name of a dtype. */
export const toFileDType = (dtype: DType): FileDType => fileDTypes.get(dtype)!

/** @internal The library's name of a file's dtype, undefined when tensors cannot hold it. */
export const fromFileDType = (dtype: FileDType): DType | undefined => libraryDTypes.get(dtype)

/** One tensor of a file; `begin` and `end` count from the first byte of the data. */
export interface TensorEntry {
  dtype: FileDType
  shape: number[]
  begin: number
  end: number
}

/** What a file's header says, after all checks. */
export interface Header {
  /** In the order of the data. */
  entries: Map<string, TensorEntry>
  metadata: Record<string, string>
  /** Position of the first byte of data in the file. */
  dataOffset: number
}

type Refuse = (problem: string, got: string, expected: string) => GradusError

const show = (value: unknown): string => {
  const text = JSON.stringify(value) ?? String(value)
  return text.length > 80 ? `${text.slice(0, 80)}…` : text
}

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** @internal Reads the length of the header from a file's first 8 bytes and checks it against the file. */
export function headerLength(op: string, path: string, fileBytes: number, start: Uint8Array): number {
  const refuse = (problem: string, got: string, expected: string) =>
    new FileError(op, { problem: `${path}: ${problem}`, got, expected, action: 'is it a whole safetensors file?' })
  if (fileBytes < 10) throw refuse('too short for a safetensors file', `${fileBytes} bytes`, 'at least 10')
  const length = new DataView(start.buffer, start.byteOffset).getBigUint64(0, true)
  if (length > BigInt(maxHeaderBytes)) {
    throw refuse('header length at byte 0 is too large', `${length} bytes`, `at most ${maxHeaderBytes}`)
  }
  if (8n + length > BigInt(fileBytes)) {
    throw refuse('header reaches past the end of the file', `8 + ${length} bytes`, `at most ${fileBytes}`)
  }
  return Number(length)
}

/** @internal Checks and reads the JSON part of a header. `dataBytes` is what the file holds behind it. */
export function parseHeader(op: string, path: string, json: Uint8Array, dataBytes: number): Header {
  const refuse: Refuse = (problem, got, expected) =>
    new FileError(op, { problem: `${path}: ${problem}`, got, expected })
  if (json[0] !== 0x7b) throw refuse('header does not begin with { at byte 8', `byte ${json[0]}`, 'byte 123')
  const parsed = parseJson(json, refuse)

  const metadata: Record<string, string> = Object.create(null)
  const entries: [string, TensorEntry][] = []
  for (const [name, value] of Object.entries(parsed)) {
    if (name === '__metadata__') Object.assign(metadata, checkMetadata(value, refuse))
    else entries.push([name, checkEntry(name, value, refuse)])
  }
  entries.sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end)

  let position = 0
  for (const [name, { begin, end }] of entries) {
    if (begin !== position) {
      const what = begin < position ? 'overlaps the tensor before it' : 'leaves a hole before it'
      throw refuse(`tensor ${show(name)} ${what}`, `begin ${begin}`, `${position}`)
    }
    position = end
  }
  if (position !== dataBytes) {
    const what = position > dataBytes ? 'the data are truncated' : 'bytes that belong to no tensor follow the data'
    throw refuse(what, `${dataBytes} bytes of data`, `${position} from byte ${8 + json.byteLength}`)
  }
  return { entries: new Map(entries), metadata, dataOffset: 8 + json.byteLength }
}

function parseJson(json: Uint8Array, refuse: Refuse): Record<string, unknown> {
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(json)
  } catch {
    throw refuse('header is not text', 'invalid UTF-8', 'UTF-8')
  }
  let parsed: unknown
  try {
    parsed = JSON.parse(text)
  } catch (error) {
    throw refuse('header is not JSON', (error as Error).message, 'a JSON object')
  }
  const twice = duplicateKey(text, refuse)
  if (twice !== undefined) throw refuse('header names something twice', show(twice), 'unique names')
  return parsed as Record<string, unknown>
}

function checkMetadata(value: unknown, refuse: Refuse): Record<string, string> {
  if (isRecord(value) && Object.values(value).every((text) => typeof text === 'string')) {
    return value as Record<string, string>
  }
  throw refuse('__metadata__ is not a table of strings', show(value), 'an object of strings')
}

function checkEntry(name: string, value: unknown, refuse: Refuse): TensorEntry {
  const of = `of tensor ${show(name)}`
  if (!isRecord(value)) throw refuse(`entry ${of} is not an object`, show(value), '{ dtype, shape, data_offsets }')
  const { dtype, shape, data_offsets: offsets } = value
  if (typeof dtype !== 'string' || !Object.hasOwn(itemBytes, dtype)) {
    throw refuse(`dtype ${of} is unknown`, show(dtype), `one of ${Object.keys(itemBytes).join(', ')}`)
  }
  if (!Array.isArray(shape) || !shape.every(isCount)) {
    throw refuse(`shape ${of} is not a list of sizes`, show(shape), 'integers from 0 to 2^53 - 1')
  }
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount)) {
    throw refuse(`data_offsets ${of} are not two positions`, show(offsets), '[begin, end]')
  }
  const [begin, end] = offsets as [number, number]
  const bytes = shape.reduce<number>((product, size) => product * size, itemBytes[dtype as FileDType])
  if (!Number.isSafeInteger(bytes)) throw refuse(`shape ${of} overflows`, show(shape), 'at most 2^53 - 1 bytes')
  if (end - begin !== bytes) {
    throw refuse(`data_offsets ${of} do not fit ${dtype} ${show(shape)}`, `${begin} to ${end}`, `${bytes} bytes`)
  }
  return { dtype: dtype as FileDType, shape: shape as number[], begin, end }
}

/** JSON.parse keeps the last of two equal keys, and two readers of such a file would disagree about its content.
 *  @returns the first key that an object of the (valid) text names twice */
function duplicateKey(text: string, refuse: Refuse): string | undefined {
  const open: (Set<string> | undefined)[] = []
  let beforeKey = false
  for (let i = 0; i < text.length; i++) {
    if (open.length > maxDepth)
      throw refuse('header is nested too deep', `${open.length} levels`, `at most ${maxDepth}`)
    switch (text[i]) {
      case '{':
        open.push(new Set())
        beforeKey = true
        break
      case '[':
        open.push(undefined)
        beforeKey = false
        break
      case '}':
      case ']':
        open.pop()
        beforeKey = false
        break
      case ',':
        beforeKey = open.at(-1) !== undefined
        break
      case '"': {
        const start = i
        for (i++; text[i] !== '"'; i++) if (text[i] === '\\') i++
        if (!beforeKey) break
        const key = JSON.parse(text.slice(start, i + 1)) as string
        const keys = open.at(-1)!
        if (keys.has(key)) return key
        keys.add(key)
        beforeKey = false
      }
    }
  }
  return undefined
}

/** What the writer must know of a tensor before it writes the first byte. */
export interface TensorPlan {
  name: string
  dtype: DType
  shape: readonly number[]
}

/** @internal Lays tensors out as the reference does (widest dtype first, then by name, so that every tensor is aligned)
 *  and builds the file's first bytes: length and JSON, padded with spaces to a multiple of 8. */
export function buildHeader<T extends TensorPlan>(
  tensors: readonly T[],
  metadata: Record<string, string> | undefined,
): { bytes: Uint8Array; order: T[] } {
  const rank = Object.keys(itemBytes)
  const byName = new Map(tensors.map((tensor) => [tensor, Buffer.from(tensor.name)]))
  const order = [...tensors].sort(
    (a, b) =>
      rank.indexOf(toFileDType(b.dtype)) - rank.indexOf(toFileDType(a.dtype)) ||
      Buffer.compare(byName.get(a)!, byName.get(b)!),
  )
  const fields: string[] = []
  if (metadata !== undefined) {
    fields.push(`"__metadata__":${JSON.stringify(metadata)}`)
  }
  let position = 0
  for (const { name, dtype, shape } of order) {
    const fileDType = toFileDType(dtype)
    const end = position + shape.reduce((product, size) => product * size, itemBytes[fileDType])
    const entry = { dtype: fileDType, shape, data_offsets: [position, end] }
    fields.push(`${JSON.stringify(name)}:${JSON.stringify(entry)}`)
    position = end
  }
  const json = Buffer.from(`{${fields.join(',')}}`)
  const length = Math.ceil(json.byteLength / 8) * 8
  const bytes = Buffer.alloc(8 + length, ' ')
  bytes.writeBigUInt64LE(BigInt(length))
  json.copy(bytes, 8)
  return { bytes, order }
}
