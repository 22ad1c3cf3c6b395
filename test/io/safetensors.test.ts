import { execFile } from 'node:child_process'
import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, describe, expect, it } from 'vitest'
import { DTypeError, FileError, fromTypedArray, IndexError, io, nn, type Tensor, tensor } from '../../lib/index'
import { fromBytes } from '../../lib/tensor/create'

// Written by the reference implementation (safetensors 0.8.0 for Python).
const reference = join(__dirname, '../fixtures/io/reference.safetensors')

const folder = mkdtempSync(join(tmpdir(), 'gradus-io-'))
afterAll(() => rmSync(folder, { recursive: true }))
let files = 0
const fresh = () => join(folder, `${files++}.safetensors`)

/** A file with this header (an object or text) and this many bytes of data. */
function write(header: unknown, dataBytes: number, length?: bigint): string {
  const path = fresh()
  const json = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header))
  const start = Buffer.alloc(8)
  start.writeBigUInt64LE(length ?? BigInt(json.byteLength))
  writeFileSync(path, Buffer.concat([start, json, Buffer.alloc(dataBytes)]))
  return path
}

const entry = (shape: unknown, begin: unknown, end: unknown, dtype: unknown = 'F32') => ({
  dtype,
  shape,
  data_offsets: [begin, end],
})

describe('safetensors: reading', () => {
  it('reads every dtype of a file that Python wrote', async () => {
    const tensors = await io.loadFile(reference)
    const shown: Record<string, unknown> = {}
    for (const [name, each] of Object.entries(tensors))
      shown[name] = [each.dtype, each.shape, Array.from((await each.data()) as Float32Array)]
    expect(shown).toEqual({
      f32: ['float32', [2, 3], [1.5, -2, 3, 4, 5, Infinity]],
      f64: ['float64', [2], [1 / 3, -0]],
      f16: ['float16', [3], [0.0999755859375, 65504, -2]],
      bf16: ['bfloat16', [3], [0.10009765625, 3.00405527047391e38, -2]],
      i64: ['int64', [2], [2n ** 62n, -1n]],
      i32: ['int32', [2, 1], [7, -8]],
      u8: ['uint8', [2], [0, 255]],
      flag: ['bool', [3], [1, 0, 1]],
      scalar: ['float32', [], [2.5]],
      empty: ['float32', [0, 3], []],
      'gewicht.ü "1"': ['float32', [1], [1]],
    })
  })

  it('reads single tensors and rows of an open file', async () => {
    const file = await io.safeOpen(reference)
    expect(file.metadata).toEqual({ format: 'pt' })
    expect(file.keys()).toContain('i32')
    expect([file.has('i32'), file.has('i33'), file.shape('f32'), file.dtype('bf16')]).toEqual([
      true,
      false,
      [2, 3],
      'bfloat16',
    ])
    expect(await (await file.rows('f32', 1, 2)).array()).toEqual([[4, 5, Infinity]])
    expect((await file.rows('empty', 0, 0)).shape).toEqual([0, 3])
    await expect(file.rows('f32', 1, 3)).rejects.toThrow(
      'rows of tensor f32 are out of range: got 1 to 3, expected 0 <= start <= stop <= 2',
    )
    await expect(file.rows('scalar', 0, 1)).rejects.toThrow('tensor scalar has no rows')
    await expect(file.get('i33')).rejects.toThrow(IndexError)
    await file.close()
    await file.close()
    await expect(file.get('i32')).rejects.toThrow('is closed; read before close()')
  })

  it('a name like __proto__ is a name', async () => {
    const path = write('{"__proto__":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', 1)
    expect(Object.keys(await io.loadFile(path))).toEqual(['__proto__'])
  })

  it('bool bytes become 0 and 1', async () => {
    const path = write({ flag: entry([2], 0, 2, 'BOOL') }, 0)
    writeFileSync(path, Buffer.concat([readFileSync(path), Buffer.from([0, 7])]))
    expect(await (await io.loadFile(path)).flag!.array()).toEqual([false, true])
  })

  it('dtypes that tensors cannot hold are listed, and refused when read', async () => {
    const path = write({ a: entry([2], 0, 2, 'F8_E4M3'), b: entry([1], 2, 6) }, 6)
    const file = await io.safeOpen(path)
    expect(file.keys()).toEqual(['a', 'b'])
    expect((await file.get('b')).shape).toEqual([1])
    await file.close()
    await expect(io.loadFile(path)).rejects.toThrow(DTypeError)
    await expect(io.loadFile(path)).rejects.toThrow(/tensors cannot hold the elements of a: got F8_E4M3/)
  })
})

describe('safetensors: hostile files', () => {
  const big = Number.MAX_SAFE_INTEGER
  it.each<[string, () => string, RegExp]>([
    [
      'empty',
      () => {
        writeFileSync(join(folder, 'empty'), '')
        return join(folder, 'empty')
      },
      /too short for a safetensors file: got 0 bytes, expected at least 10/,
    ],
    [
      'a header longer than the file',
      () => write({}, 0, 99n),
      /header reaches past the end of the file: got 8 \+ 99 bytes, expected at most 10/,
    ],
    [
      'a header of 2^63 bytes',
      () => write({}, 0, 2n ** 63n),
      /header length at byte 0 is too large: got 9223372036854775808 bytes, expected at most 100000000/,
    ],
    ['a header of no bytes', () => write('', 8, 0n), /header does not begin with \{ at byte 8: got byte undefined/],
    ['a list', () => write('[1,2,3]', 0), /header does not begin with \{ at byte 8: got byte 91, expected byte 123/],
    ['half a header', () => write('{"a":{"dtype"', 0), /header is not JSON: got/],
    [
      'not UTF-8',
      () => {
        const path = write('{"aa":1}', 0)
        const bytes = readFileSync(path)
        bytes[10] = 0xff
        writeFileSync(path, bytes)
        return path
      },
      /header is not text: got invalid UTF-8/,
    ],
    [
      'very deep JSON',
      () => write(`{"a":${'['.repeat(200_000)}${']'.repeat(200_000)}}`, 0),
      /header is nested too deep: got 33 levels, expected at most 32/,
    ],
    [
      'two tensors of one name',
      () =>
        write(
          '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}',
          2,
        ),
      /header names something twice: got "a", expected unique names/,
    ],
    [
      'a name that is the same after decoding',
      () =>
        write(
          '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\\u0061":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
          1,
        ),
      /header names something twice: got "a"/,
    ],
    [
      'two shapes',
      () => write('{"a":{"dtype":"U8","shape":[1],"shape":[2],"data_offsets":[0,1]}}', 1),
      /header names something twice: got "shape"/,
    ],
    [
      'an unknown dtype',
      () => write({ a: entry([1], 0, 4, 'F33') }, 4),
      /dtype of tensor "a" is unknown: got "F33", expected one of BOOL, U8/,
    ],
    [
      'a dtype from the prototype',
      () => write({ a: entry([1], 0, 4, 'constructor') }, 4),
      /dtype of tensor "a" is unknown: got "constructor"/,
    ],
    [
      'no dtype',
      () => write({ a: { shape: [1], data_offsets: [0, 4] } }, 4),
      /dtype of tensor "a" is unknown: got undefined/,
    ],
    [
      'a negative size',
      () => write({ a: entry([-1], 0, 4) }, 4),
      /shape of tensor "a" is not a list of sizes: got \[-1\]/,
    ],
    [
      'a broken size',
      () => write({ a: entry([1.5], 0, 6) }, 6),
      /shape of tensor "a" is not a list of sizes: got \[1.5\]/,
    ],
    ['a size of 2^60', () => write({ a: entry([2 ** 60], 0, 4) }, 4), /shape of tensor "a" is not a list of sizes/],
    ['a product that overflows', () => write({ a: entry([big, big], 0, 4) }, 4), /shape of tensor "a" overflows/],
    [
      'a product that overflows to zero',
      () => write({ a: entry([2 ** 40, 2 ** 40], 0, 0) }, 0),
      /shape of tensor "a" overflows/,
    ],
    [
      'no shape',
      () => write({ a: { dtype: 'F32', data_offsets: [0, 4] } }, 4),
      /shape of tensor "a" is not a list of sizes: got undefined/,
    ],
    [
      'one offset',
      () => write({ a: { dtype: 'F32', shape: [1], data_offsets: [0] } }, 4),
      /data_offsets of tensor "a" are not two positions: got \[0\]/,
    ],
    [
      'offsets that run backwards',
      () => write({ a: entry([1], 4, 0) }, 4),
      /data_offsets of tensor "a" do not fit F32 \[1\]: got 4 to 0, expected 4 bytes/,
    ],
    [
      'offsets that do not fit the shape',
      () => write({ a: entry([2], 0, 4) }, 4),
      /data_offsets of tensor "a" do not fit F32 \[2\]: got 0 to 4, expected 8 bytes/,
    ],
    [
      'an overlap',
      () => write({ a: entry([2], 0, 8), b: entry([2], 4, 12) }, 12),
      /tensor "b" overlaps the tensor before it: got begin 4, expected 8/,
    ],
    [
      'the same bytes twice',
      () => write({ a: entry([1], 0, 4), b: entry([1], 0, 4) }, 4),
      /tensor "b" overlaps the tensor before it: got begin 0, expected 4/,
    ],
    [
      'a hole',
      () => write({ a: entry([1], 0, 4), b: entry([1], 8, 12) }, 12),
      /tensor "b" leaves a hole before it: got begin 8, expected 4/,
    ],
    [
      'a hole at the start',
      () => write({ a: entry([1], 4, 8) }, 8),
      /tensor "a" leaves a hole before it: got begin 4, expected 0/,
    ],
    [
      'too little data',
      () => write({ a: entry([4], 0, 16) }, 15),
      /the data are truncated: got 15 bytes of data, expected 16 from byte \d+/,
    ],
    [
      'too much data',
      () => write({ a: entry([1], 0, 4) }, 5),
      /bytes that belong to no tensor follow the data: got 5 bytes of data, expected 4/,
    ],
    [
      'metadata that are not text',
      () => write({ __metadata__: { a: 1 } }, 0),
      /__metadata__ is not a table of strings: got \{"a":1\}/,
    ],
    ['a tensor that is a number', () => write({ a: 7 }, 0), /entry of tensor "a" is not an object: got 7/],
  ])('%s', async (_, make, message) => {
    const path = make()
    const error = await io.loadFile(path).catch((error: Error) => error)
    expect(error).toBeInstanceOf(FileError)
    expect((error as Error).message).toMatch(message)
    expect((error as Error).message).toMatch(/^io\.loadFile: /)
    expect((error as Error).message).toContain(path)
  })

  it('a missing file and a folder', async () => {
    await expect(io.loadFile(join(folder, 'none'))).rejects.toThrow(
      `io.loadFile: cannot read ${join(folder, 'none')}: got ENOENT; check the path.`,
    )
    await expect(io.loadFile(folder)).rejects.toThrow(FileError)
  })

  it('a file that is cut after it was opened', async () => {
    const path = fresh()
    await io.saveFile({ a: tensor([1, 2, 3, 4]) }, path)
    const file = await io.safeOpen(path)
    truncateSync(path, statSync(path).size - 4)
    await expect(file.get('a')).rejects.toThrow(
      /was truncated after it was opened: got no more data in tensor a, expected 16 bytes from byte \d+/,
    )
    await file.close()
  })
})

describe('safetensors: writing', () => {
  it('writes the bytes that Python wrote', async () => {
    const path = fresh()
    await io.saveFile(await io.loadFile(reference), path, { format: 'pt' })
    expect(readFileSync(path).equals(readFileSync(reference))).toBe(true)
  })

  it('writes views by their elements, and a file without tensors', async () => {
    const matrix = fromTypedArray(Float32Array.of(1, 2, 3, 4, 5, 6), [2, 3])
    const path = fresh()
    await io.saveFile(new Map([['t', matrix.transpose(0, 1)]]), path)
    expect(await (await io.loadFile(path)).t!.array()).toEqual([
      [1, 4],
      [2, 5],
      [3, 6],
    ])
    await io.saveFile({}, path)
    expect(await io.loadFile(path)).toEqual({})
    expect(readFileSync(path).toString('latin1', 8)).toBe('{}      ')
  })

  it('refuses to replace what is no regular file, also behind a link', async () => {
    const pipe = join(folder, 'pipe')
    await promisify(execFile)('mkfifo', [pipe])
    symlinkSync(pipe, join(folder, 'to-pipe'))
    for (const path of [pipe, join(folder, 'to-pipe')]) {
      const saved = io.saveFile({ a: tensor([1]) }, path)
      await expect(saved).rejects.toThrow(FileError)
      await expect(saved).rejects.toThrow(
        `cannot write ${path}: got a pipe, expected a regular file, or none yet; choose another path.`,
      )
      expect(statSync(path).isFIFO()).toBe(true)
    }
    await expect(io.saveFile({ a: tensor([1]) }, folder)).rejects.toThrow('name a file, not a folder')
  })

  it('replaces a file whole, keeps links, leaves nothing else in the folder', async () => {
    const inside = mkdtempSync(join(folder, 'whole-'))
    const path = join(inside, 'deeper', 'a.safetensors')
    await io.saveFile({ a: tensor([1]) }, path)
    symlinkSync(path, join(inside, 'link'))
    await io.saveFile({ a: tensor([2]) }, join(inside, 'link'))
    expect(await (await io.loadFile(path)).a!.array()).toEqual([2])
    expect(readdirSync(join(inside, 'deeper'))).toEqual(['a.safetensors'])
    expect(readdirSync(inside).sort()).toEqual(['deeper', 'link'])
  })

  it('a write that fails leaves the old file and no other', async () => {
    const inside = mkdtempSync(join(folder, 'fails-'))
    const path = join(inside, 'a.safetensors')
    await io.saveFile({ a: tensor([1]) }, path)
    const released = fromBytes(new Uint8Array(4), [1], 'float32')
    const saving = io.saveFile({ a: tensor([2]), b: released }, path)
    released.dispose()
    await expect(saving).rejects.toThrow(/io\.saveFile/)
    expect(await (await io.loadFile(path)).a!.array()).toEqual([1])
    expect(readdirSync(inside)).toEqual(['a.safetensors'])
  })

  it('a disk that is full leaves the old file and no other', async () => {
    const inside = mkdtempSync(join(folder, 'full-'))
    // A limit on file sizes fails a write half-way as a full disk does, with EFBIG for ENOSPC.
    const command = `ulimit -f 8; exec "${process.execPath}" "${join(__dirname, 'saveTooMuch.cjs')}" "${inside}"`
    const { stdout } = await promisify(execFile)('/bin/sh', ['-c', command])
    const { code, message, files, kept } = JSON.parse(stdout)
    expect([code, files, kept]).toEqual(['ERR_GRADUS_FILE', ['a.safetensors'], [1, 1]])
    expect(message).toMatch(/^io\.saveFile: cannot write .*a\.safetensors: got EFBIG; the size limit/)
  })

  it('refuses what is no tensor, reserved names, metadata that are not text, paths that cannot be', async () => {
    await expect(io.saveFile({ a: 1 as never as Tensor }, fresh())).rejects.toThrow(
      'io.saveFile: a is not a tensor: got 1.',
    )
    await expect(io.saveFile({ __metadata__: tensor([1]) }, fresh())).rejects.toThrow(
      'the name __metadata__ is reserved',
    )
    await expect(io.saveFile({}, fresh(), { epoch: 1 as never as string })).rejects.toThrow(
      'metadata "epoch" is not text: got 1, expected a string; use JSON.stringify',
    )
    await expect(io.saveFile({}, '/proc/none/a')).rejects.toThrow('io.saveFile: cannot write /proc/none/a: got ENOENT')
    await expect(io.saveFile({}, folder)).rejects.toThrow(FileError)
    await expect(io.saveFile(null as never, fresh())).rejects.toThrow('io.saveFile: not tensors by name: got null')
    await expect(io.saveFile(new nn.Linear(1, 1) as never, fresh())).rejects.toThrow(
      'got a Linear, expected an object or a map of tensors; of a module pass model.stateDict().',
    )
    await expect(io.loadFile(3 as never)).rejects.toThrow('give the path as a string')
  })
})
