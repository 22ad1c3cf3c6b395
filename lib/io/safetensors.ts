// Weights on disk: safetensors, which Python, Rust and the Hugging Face hub read and write too.

import { type Device, type DeviceName, device } from '../device'
import { ArgumentError, DTypeError, describeValue, FileError } from '../errors'
import { readOptions } from '../options'
import { fromBytes } from '../tensor/create'
import { Tensor } from '../tensor/tensor'
import { Container, type TensorSource, writeContainer } from './container'
import { fromFileDType, type TensorEntry } from './header'

/** Tensors by name, as a module's `stateDict()` gives them. */
export type NamedTensors = Record<string, Tensor>

/** @internal What the writer needs of each tensor. */
export function sources(op: string, tensors: NamedTensors | ReadonlyMap<string, Tensor>): TensorSource[] {
  if (
    tensors === null ||
    typeof tensors !== 'object' ||
    typeof (tensors as { stateDict?: unknown }).stateDict === 'function'
  ) {
    throw new ArgumentError(op, {
      problem: 'not tensors by name',
      got: describeValue(tensors),
      expected: 'an object or a map of tensors',
      action: 'of a module pass model.stateDict()',
    })
  }
  const entries = tensors instanceof Map ? [...tensors] : Object.entries(tensors)
  return entries.map(([name, tensor]) => {
    if (!(tensor instanceof Tensor)) {
      throw new ArgumentError(op, { problem: `${name} is not a tensor`, got: describeValue(tensor) })
    }
    tensor._alive(op)
    return { name, dtype: tensor.dtype, shape: tensor.shape, bytes: () => tensor._bytes(op) }
  })
}

/** Writes tensors to a safetensors file, one after the other: no more than one is copied at a time. The file appears
 *  whole or not at all, also when the process is killed; missing folders are made. Tensors that share memory are each
 *  written. Await it before the tensors change again.
 *  @throws FileError when the disk is full or the path cannot be written; the old file is then untouched
 *  @see https://github.com/huggingface/safetensors
 *  @example await io.saveFile(model.stateDict(), 'model.safetensors', { format: 'pt' }) */
export async function saveFile(
  tensors: NamedTensors | ReadonlyMap<string, Tensor>,
  path: string,
  metadata?: Record<string, string>,
): Promise<void> {
  await writeContainer('io.saveFile', path, sources('io.saveFile', tensors), metadata)
}

/** Options of `loadFile` and `safeOpen`. */
export interface LoadFileOptions {
  /** Where the tensors are made. Default cpu. */
  device?: DeviceName | Device
}

const placeOf = (op: string, options: LoadFileOptions): Device =>
  device(readOptions(op, options, ['device']).device ?? 'cpu')

/** Reads all tensors of a safetensors file.
 *  @throws FileError naming what is wrong with a damaged or hostile file; DTypeError for an element type that tensors
 *  cannot hold; ArgumentError for options that do not exist; DeviceError where there is no such device
 *  @example model.loadStateDict(await io.loadFile('model.safetensors')) */
export async function loadFile(path: string, options: LoadFileOptions = {}): Promise<NamedTensors> {
  const file = await openFile('io.loadFile', path, options)
  const tensors: [string, Tensor][] = []
  try {
    // Every dtype is checked before the first, possibly large, tensor is read.
    for (const name of file.keys()) file.dtype(name)
    for (const name of file.keys()) tensors.push([name, await file.get(name)])
  } catch (error) {
    for (const [, tensor] of tensors) tensor.dispose()
    throw error
  } finally {
    await file.close()
  }
  return Object.fromEntries(tensors)
}

/** Opens a safetensors file to read single tensors, or rows of them, when they are needed.
 *  @example
 *  const file = await io.safeOpen('model.safetensors')
 *  const firstRows = await file.rows('transformer.wte.weight', 0, 100)
 *  await file.close() */
export async function safeOpen(path: string, options: LoadFileOptions = {}): Promise<SafetensorsFile> {
  return await openFile('io.safeOpen', path, options)
}

async function openFile(op: string, path: string, options: LoadFileOptions): Promise<SafetensorsFile> {
  const place = placeOf(op, options)
  return new SafetensorsFile(op, await Container.open(op, path), place)
}

/** An open safetensors file. Made by `safeOpen`. */
export class SafetensorsFile {
  /** @internal */
  constructor(
    private readonly op: string,
    private readonly container: Container,
    private readonly place: Device,
  ) {}

  /** Text that the writer put beside the tensors. */
  get metadata(): Readonly<Record<string, string>> {
    return this.container.header.metadata
  }

  /** Names of the tensors, in the order of the file. */
  keys(): string[] {
    return [...this.container.header.entries.keys()]
  }

  has(name: string): boolean {
    return this.container.header.entries.has(name)
  }

  shape(name: string): readonly number[] {
    return this.container.entry(name).shape
  }

  /** @throws DTypeError when tensors cannot hold the file's element type */
  dtype(name: string): Tensor['dtype'] {
    return this.typed(name, this.container.entry(name))
  }

  /** Reads a tensor. */
  async get(name: string): Promise<Tensor> {
    const entry = this.container.entry(name)
    const dtype = this.typed(name, entry)
    return fromBytes(normalized(dtype, await this.container.read(name)), entry.shape, dtype, this.place)
  }

  /** Reads the rows `start` to `stop - 1` of the first dim. */
  async rows(name: string, start: number, stop: number): Promise<Tensor> {
    const entry = this.container.entry(name)
    const dtype = this.typed(name, entry)
    const bytes = normalized(dtype, await this.container.read(name, start, stop))
    return fromBytes(bytes, [stop - start, ...entry.shape.slice(1)], dtype, this.place)
  }

  close(): Promise<void> {
    return this.container.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  private typed(name: string, { dtype, shape }: TensorEntry): Tensor['dtype'] {
    const known = fromFileDType(dtype)
    if (shape.length > 8) {
      throw new FileError(this.op, {
        problem: `${this.container.path}: ${name} has too many dims`,
        got: String(shape.length),
        expected: 'at most 8',
      })
    }
    if (known !== undefined) return known
    throw new DTypeError(this.op, {
      problem: `${this.container.path}: tensors cannot hold the elements of ${name}`,
      got: dtype,
      expected: 'F32, F64, F16, BF16, I64, I32, U8 or BOOL',
      action: 'convert the file first',
    })
  }
}

/** Kernels rely on bool being 0 or 1; a file may hold any byte. */
function normalized(dtype: Tensor['dtype'], bytes: Uint8Array): Uint8Array {
  if (dtype === 'bool') for (let i = 0; i < bytes.length; i++) bytes[i] = bytes[i] === 0 ? 0 : 1
  return bytes
}
