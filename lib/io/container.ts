// Reading and writing safetensors files as bytes, one tensor at a time: no more than one tensor of a file is in memory
// beyond what the caller holds.

import { type FileHandle, open } from 'node:fs/promises'
import { ArgumentError, describeShape, describeValue, FileError, IndexError, ShapeError, StateError } from '../errors'
import { fileError, readFully, writeAtomically, writeFully } from './atomic'
import { buildHeader, type Header, headerLength, parseHeader, type TensorEntry, type TensorPlan } from './header'

/** @internal A tensor to be written: its bytes are asked for when their turn comes. */
export interface TensorSource extends TensorPlan {
  bytes: () => Promise<Uint8Array>
}

/** @internal Writes a safetensors file atomically. */
export function writeContainer(
  op: string,
  path: string,
  tensors: readonly TensorSource[],
  metadata?: Record<string, string>,
): Promise<void> {
  checkMetadata(op, metadata)
  const names = new Set<string>()
  for (const { name } of tensors) {
    if (name === '__metadata__') {
      throw new ArgumentError(op, { problem: 'the name __metadata__ is reserved', action: 'rename the tensor' })
    }
    if (names.has(name)) throw new ArgumentError(op, { problem: 'two tensors have one name', got: describeValue(name) })
    names.add(name)
  }
  const { bytes: header, order } = buildHeader(tensors, metadata)
  return writeAtomically(op, path, async (file) => {
    await writeFully(file, header)
    for (const tensor of order) {
      await writeFully(file, await tensor.bytes())
    }
  })
}

function checkMetadata(op: string, metadata: Record<string, string> | undefined): void {
  for (const [key, value] of Object.entries(metadata ?? {})) {
    if (typeof value === 'string') continue
    throw new ArgumentError(op, {
      problem: `metadata ${describeValue(key)} is not text`,
      got: describeValue(value),
      expected: 'a string',
      action: 'use JSON.stringify',
    })
  }
}

/** @internal An open safetensors file whose header passed every check. */
export class Container {
  private constructor(
    private readonly op: string,
    readonly path: string,
    private file: FileHandle | undefined,
    readonly header: Header,
  ) {}

  static async open(op: string, path: string): Promise<Container> {
    let file: FileHandle | undefined
    try {
      file = await open(path, 'r')
      const header = await readHeader(op, path, file)
      return new Container(op, path, file, header)
    } catch (error) {
      await file?.close()
      throw fileError(op, `cannot read ${path}`, error)
    }
  }

  entry(name: string): TensorEntry {
    const entry = this.header.entries.get(name)
    if (entry !== undefined) return entry
    const names = [...this.header.entries.keys()]
    throw new IndexError(this.op, {
      problem: `${this.path} has no tensor of this name`,
      got: describeValue(name),
      expected: names.length > 8 ? `one of ${names.slice(0, 8).join(', ')}, … (${names.length})` : names.join(', '),
    })
  }

  /** Bytes of a tensor, or of its rows from `start` to `stop` along the first dim, in memory of their own. */
  async read(name: string, start?: number, stop?: number): Promise<Uint8Array> {
    const { begin, end, shape } = this.entry(name)
    let [from, to] = [begin, end]
    if (start !== undefined && stop !== undefined) {
      const rows = shape[0]
      if (rows === undefined) {
        throw new ShapeError(this.op, { problem: `tensor ${name} has no rows`, got: describeShape(shape) })
      }
      if (!Number.isInteger(start) || !Number.isInteger(stop) || start < 0 || stop < start || stop > rows) {
        throw new IndexError(this.op, {
          problem: `rows of tensor ${name} are out of range`,
          got: `${start} to ${stop}`,
          expected: `0 <= start <= stop <= ${rows}`,
        })
      }
      const rowBytes = rows === 0 ? 0 : (end - begin) / rows
      ;[from, to] = [begin + start * rowBytes, begin + stop * rowBytes]
    }
    return this.readRange(name, this.header.dataOffset + from, to - from)
  }

  private async readRange(name: string, position: number, length: number): Promise<Uint8Array> {
    if (this.file === undefined) {
      throw new StateError(this.op, { problem: `${this.path} is closed`, action: 'read before close()' })
    }
    let whole: boolean
    const bytes = allocate(this.op, this.path, name, length)
    try {
      whole = await readFully(this.file, bytes, position)
    } catch (error) {
      throw fileError(this.op, `cannot read tensor ${name} of ${this.path}`, error)
    }
    if (whole) return bytes
    throw new FileError(this.op, {
      problem: `${this.path} was truncated after it was opened`,
      got: `no more data in tensor ${name}`,
      expected: `${length} bytes from byte ${position}`,
    })
  }

  async close(): Promise<void> {
    const file = this.file
    this.file = undefined
    await file?.close()
  }
}

async function readHeader(op: string, path: string, file: FileHandle): Promise<Header> {
  const { size } = await file.stat()
  const start = new Uint8Array(8)
  // A file that shrinks between the two calls reads as zeros here and fails the checks that follow.
  await readFully(file, start, 0)
  const length = headerLength(op, path, size, start)
  const json = new Uint8Array(length)
  if (!(await readFully(file, json, 8))) {
    throw new FileError(op, { problem: `${path} was truncated while its header was read`, expected: `${length} bytes` })
  }
  return parseHeader(op, path, json, size - 8 - length)
}

function allocate(op: string, path: string, name: string, length: number): Uint8Array {
  try {
    return new Uint8Array(length)
  } catch (error) {
    throw new FileError(op, {
      problem: `${path}: tensor ${name} does not fit into memory`,
      got: `${length} bytes`,
      action: 'read it in rows (safeOpen)',
      cause: error,
    })
  }
}
