// Tiles of our products, which the device chooses: of 128 x 128, 64 x 128 (on tensor cores) or 64 x 64. Not asked of
// cuBLASLt, which need not give a product of a batch the bits that it has alone.
import { describe, expect, it } from 'vitest'
import type { Tensor } from '../../lib/index'
import { checkLaunches, countOf, restartCounts } from './launches'
import { exact, expectWithin, numbers, product, rounded } from './products'

// So many that each multiprocessor is left one tile of those that fit the shape.
const batch = 100
// Whole steps of the sum and a rest, from rows that begin on 16 bytes and others.
const shapes = [
  { m: 120, n: 120, tile: 'large' },
  { m: 56, n: 120, tile: 'medium' },
  { m: 56, n: 56, tile: 'small' },
  { m: 125, n: 121, tile: 'large' },
] as const

describe('products in tiles of every size', () => {
  it.each(['float32', 'float16', 'bfloat16'] as const)(
    'are right, and have the bits of one by itself, which has the smallest: %s',
    async (dtype) => {
      const stacked = (rows: number, cols: number, seed: number): Tensor =>
        numbers([rows, cols], dtype, seed).mul(numbers([batch, 1, 1], dtype, seed + 4))
      // on the device with rows or, transposed, columns contiguous
      const both = (rows: number, cols: number, seed: number): Tensor[] => [
        stacked(rows, cols, seed).to('cuda'),
        stacked(cols, rows, seed + 1)
          .to('cuda')
          .transpose(1, 2),
      ]
      for (const { m, n, tile } of shapes) {
        const name = dtype !== 'float32' ? `mma_${tile}` : tile === 'medium' ? 'small' : tile // float32 has two
        const k = dtype === 'float32' ? 20 : m % 8 === 0 ? 104 : 43 // steps are of 8 or 16, on tensor cores of 32
        for (const a of both(m, k, 1)) {
          for (const b of both(k, n, 3)) {
            await restartCounts()
            const all = a.matmul(b)
            await checkLaunches((launches) =>
              expect(countOf(launches, new RegExp(`^gradus_gemm_${name}_.._${dtype}$`)), `${m} x ${n}`).toBe(1),
            )
            for (const entry of [0, 57, 99]) {
              const [x, y, got] = [a, b, all].map((each) => each.select(0, entry)) as [Tensor, Tensor, Tensor]
              const wanted = rounded(product(exact(x), exact(y), dtype), dtype)
              await expectWithin(got, wanted, `${m} x ${n} x ${k}`)
              expect(await x.matmul(y).data()).toEqual(await got.data())
            }
          }
        }
      }
    },
    180_000,
  )
})
