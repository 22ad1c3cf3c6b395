// Sparse attention: which blocks of queries see which blocks of keys.

import type { Device } from '../device'
import { BOOL } from '../dtype'
import { ArgumentError, DTypeError, describeShape, describeValue, ShapeError } from '../errors'
import { expectCount, readOptions } from '../options'
import { fromTypedArray } from '../tensor/create'
import { tidy } from '../tensor/scope'
import { Tensor } from '../tensor/tensor'
import { expectTensor, transfer } from './registry'
import { reshape } from './shape'

/** Lengths and block size of a `BlockMask`. */
export interface BlockMaskOptions {
  /** Number of keys; default that of the queries. */
  keyLength?: number
  /** Queries and keys of a block; a number stands for both. Default 64, the tile of the kernel: multiples of it skip
   *  whole tiles, with other sizes a tile is skipped when all blocks in it are hidden. */
  blockSize?: number | readonly [queries: number, keys: number]
}

const names = ['keyLength', 'blockSize'] as const
const isCount = (n: unknown): n is number => Number.isSafeInteger(n) && (n as number) >= 1

function readGrid(op: string, length: number, given: BlockMaskOptions): Grid {
  const { keyLength = length, blockSize = 64 } = readOptions(op, given, names)
  const size = typeof blockSize === 'number' ? [blockSize, blockSize] : blockSize
  if (!Array.isArray(size) || size.length !== 2 || !size.every(isCount)) {
    throw new ArgumentError(op, {
      problem: 'not a block size',
      got: Array.isArray(size) ? `[${size.map(describeValue).join(', ')}]` : describeValue(blockSize),
      expected: 'a whole number of at least 1, or two of them',
    })
  }
  expectCount(op, 'length', length, 0)
  expectCount(op, 'keyLength', keyLength, 0)
  const [ofQueries, ofKeys] = size as [number, number]
  return {
    queryLength: length,
    keyLength,
    blockSize: [ofQueries, ofKeys],
    rows: Math.ceil(length / ofQueries),
    columns: Math.ceil(keyLength / ofKeys),
  }
}

const mostBlocks = 2 ** 31 - 1 // a typed array of Node 20

interface Grid {
  readonly queryLength: number
  readonly keyLength: number
  readonly blockSize: readonly [number, number]
  readonly rows: number
  readonly columns: number
}

function bitsOf(op: string, { rows, columns }: Grid, sees: (query: number, key: number) => boolean): Tensor {
  if (rows * columns > mostBlocks) {
    throw new ArgumentError(op, {
      problem: 'too many blocks',
      got: `${rows} by ${columns}`,
      expected: `at most ${mostBlocks} in all`,
      action: 'take larger blocks with { blockSize }',
    })
  }
  const bits = new Uint8Array(rows * columns)
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      const seen: unknown = sees(i, j)
      if (typeof seen !== 'boolean') {
        throw new ArgumentError(op, {
          problem: 'the function does not say whether a block is seen',
          got: `${describeValue(seen)} for block ${i}, ${j}`,
          expected: 'true or false',
        })
      }
      if (seen) bits[i * columns + j] = 1
    }
  }
  return fromTypedArray(bits, [rows, columns], { dtype: 'bool' })
}

/** Blocks of queries and keys that see each other, for `scaledDotProductAttention({ blockMask })`, which computes only
 *  those: its result is that of the same mask written out (`dense()`), its time the share of the blocks that are
 *  visible. Patterns are combined with `or` and `and`; causality and windows by the token are options of attention, and
 *  hold beside it.
 *  @see PyTorch's flex_attention, https://docs.pytorch.org/docs/stable/nn.attention.flex_attention.html
 *  @example BlockMask.local(256, 1).or(BlockMask.global(256, 1)).blocks.shape // [4, 4] */
export class BlockMask {
  /** bool [ceil(L / blockSize), ceil(S / blockSize)], with or without [B, H] or [H] in front. */
  readonly blocks: Tensor
  readonly queryLength: number
  readonly keyLength: number
  /** Queries and keys of a block. */
  readonly blockSize: readonly [queries: number, keys: number]

  private constructor(blocks: Tensor, grid: Grid) {
    if (!(blocks instanceof Tensor) || grid === undefined) {
      throw new ArgumentError('BlockMask', {
        problem: 'not made by new',
        got: describeValue(blocks),
        action: 'use BlockMask.from, .local, .strided, .global or .causal',
      })
    }
    const { queryLength, keyLength, blockSize } = grid
    this.blocks = blocks.keep() // it may be made inside of a module and live on in a field of it
    this.queryLength = queryLength
    this.keyLength = keyLength
    this.blockSize = blockSize
  }

  readonly #elsewhere = new Map<Device, Tensor>()

  /** @internal The blocks on the device of an attention; a copy is kept. */
  _blocksOn(device: Device): Tensor {
    if (this.blocks.device === device) return this.blocks
    let copy = this.#elsewhere.get(device)
    if (copy === undefined) {
      copy = transfer(this.blocks, device).keep()
      this.#elsewhere.set(device, copy)
    }
    return copy
  }

  /** Blocks as a bool tensor [..., blocks of L, blocks of S] with up to two dims [B, H] in front, or a function of the
   *  numbers of a block of queries and one of keys.
   *  @throws ShapeError, DTypeError when the tensor does not fit; ArgumentError for lengths or sizes that are no counts
   *  @example BlockMask.from((query, key) => (query + key) % 2 === 0, 256).density // 0.5 */
  static from(
    blocks: Tensor | ((query: number, key: number) => boolean),
    length: number,
    options: BlockMaskOptions = {},
  ): BlockMask {
    const op = 'BlockMask.from'
    const grid = readGrid(op, length, options)
    if (typeof blocks === 'function') return new BlockMask(bitsOf(op, grid, blocks), grid)
    expectTensor(op, 'blocks', blocks)
    if (blocks._dtype !== BOOL) {
      throw new DTypeError(op, {
        problem: 'blocks are not bool',
        got: blocks.dtype,
        action: "convert with .to('bool')",
      })
    }
    const fits = blocks.shape.at(-2) === grid.rows && blocks.shape.at(-1) === grid.columns
    if (blocks.ndim < 2 || blocks.ndim > 4 || !fits) {
      throw new ShapeError(op, {
        problem: 'the blocks do not cover the scores',
        got: describeShape(blocks.shape),
        expected: `[..., ${grid.rows}, ${grid.columns}] for ${grid.queryLength} queries and ${grid.keyLength} keys in blocks of ${grid.blockSize.join(' by ')}`,
      })
    }
    return new BlockMask(blocks, grid)
  }

  static #where(
    op: string,
    length: number,
    options: BlockMaskOptions,
    visible: (query: number, key: number) => boolean,
  ): BlockMask {
    const grid = readGrid(op, length, options)
    return new BlockMask(bitsOf(op, grid, visible), grid)
  }

  /** Local window: a block sees itself and `neighbours` blocks to either side.
   *  @see Beltagy et al. 2020 (Longformer), arXiv:2004.05150
   *  @example BlockMask.local(512, 1).density // 0.34375 */
  static local(length: number, neighbours: number, options: BlockMaskOptions = {}): BlockMask {
    const op = 'BlockMask.local'
    expectCount(op, 'neighbours', neighbours, 0)
    return BlockMask.#where(op, length, options, (i, j) => Math.abs(i - j) <= neighbours)
  }

  /** Strided: a block sees itself and every `stride`-th block before and after it.
   *  @see Child et al. 2019 (Sparse Transformer), arXiv:1904.10509
   *  @example BlockMask.strided(512, 4).density // 0.25 */
  static strided(length: number, stride: number, options: BlockMaskOptions = {}): BlockMask {
    const op = 'BlockMask.strided'
    expectCount(op, 'stride', stride)
    return BlockMask.#where(op, length, options, (i, j) => (i - j) % stride === 0)
  }

  /** Global tokens: the first `count` blocks see everything and are seen by everything.
   *  @see Zaheer et al. 2020 (BigBird), arXiv:2007.14062
   *  @example BlockMask.global(512, 1).density // 0.234375 */
  static global(length: number, count: number, options: BlockMaskOptions = {}): BlockMask {
    const op = 'BlockMask.global'
    expectCount(op, 'count', count)
    return BlockMask.#where(op, length, options, (i, j) => i < count || j < count)
  }

  /** Blocks up to the diagonal: what causality needs of them. Inside of the diagonal's blocks `isCausal` is still
   *  wanted.
   *  @example BlockMask.causal(256).density // 0.625 */
  static causal(length: number, options: BlockMaskOptions = {}): BlockMask {
    const op = 'BlockMask.causal'
    const grid = readGrid(op, length, options)
    const [ofQueries, ofKeys] = grid.blockSize
    const sees = (i: number, j: number): boolean => j * ofKeys < (i + 1) * ofQueries
    return new BlockMask(bitsOf(op, grid, sees), grid)
  }

  /** Blocks that are visible in one of two masks of the same lengths. */
  or(other: BlockMask): BlockMask {
    return this.combine('or', other, (a, b) => a.logicalOr(b))
  }

  /** Blocks that are visible in both of two masks of the same lengths. */
  and(other: BlockMask): BlockMask {
    return this.combine('and', other, (a, b) => a.logicalAnd(b))
  }

  /** Share of the blocks that are visible. Waits for the blocks. */
  get density(): number {
    const bits = this.blocks.dataSync() as Uint8Array
    return bits.reduce((sum, bit) => sum + bit, 0) / Math.max(1, bits.length)
  }

  /** The mask written out: bool [..., L, S], in O(L S) memory. */
  dense(): Tensor {
    const { blocks, queryLength, keyLength, blockSize } = this
    const [ofQueries, ofKeys] = blockSize
    const front = blocks.shape.slice(0, -2)
    const [rows, columns] = blocks.shape.slice(-2) as [number, number]
    return tidy(() =>
      reshape(reshape(blocks, [...front, rows, 1, columns, 1]).expand([...front, rows, ofQueries, columns, ofKeys]), [
        ...front,
        rows * ofQueries,
        columns * ofKeys,
      ])
        .narrow(-2, 0, queryLength)
        .narrow(-1, 0, keyLength)
        .contiguous(),
    )
  }

  /** Gives the memory of the blocks back. */
  dispose(): void {
    this.blocks.dispose()
  }

  private combine(name: string, other: BlockMask, merge: (a: Tensor, b: Tensor) => Tensor): BlockMask {
    const op = `BlockMask.${name}`
    if (!(other instanceof BlockMask)) {
      throw new ArgumentError(op, { problem: 'not a BlockMask', got: describeValue(other) })
    }
    const { queryLength, keyLength, blockSize } = this
    const describe = (x: BlockMask): string =>
      `${x.queryLength} by ${x.keyLength} in blocks of ${x.blockSize.join(' by ')}`
    if (describe(this) !== describe(other)) {
      throw new ShapeError(op, { problem: 'the masks differ', got: describe(other), expected: describe(this) })
    }
    const [rows, columns] = this.blocks.shape.slice(-2) as [number, number]
    return new BlockMask(merge(this.blocks, other.blocks), { queryLength, keyLength, blockSize, rows, columns })
  }
}
