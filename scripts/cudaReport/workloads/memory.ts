// Operators that move elements: by index, side by side, in order.

import { type DType, ops, zeros } from '../../../lib/index'
import { native, run } from '../../../lib/tensor/dispatch'
import { code, data, floats, sizeOf, type Workload } from './workload'

const [rows, width] = [256, 256]
const bytes = rows * width * 4

const moving: Workload[] = [
  {
    name: `indexSelect: ${rows} rows of [40, ${width}] float32`,
    kernels: { gradus_index_rows_16: { loaded: bytes + 8 * rows * (width / 4 / 2), stored: bytes } },
    run: () => {
      data([40, width], 'float32').indexSelect(0, data([rows], 'int64'))
    },
  },
  ...([1, 2, 4, 8] as const).map((size, i): Workload => {
    const dtype = (['uint8', 'float16', 'float32', 'float64'] as const)[i]!
    return {
      name: `gather [${rows}, ${width}] of ${dtype}`,
      kernels: { [`gradus_index_gather_${size}`]: { loaded: rows * width * (size + 8), stored: rows * width * size } },
      run: () => {
        data([40, width], dtype).gather(0, data([rows, width], 'int64'))
      },
    }
  }),
  {
    name: `cat of two [${rows}, ${width}] float32`,
    kernels: { gradus_join_cat_16: { loaded: 2 * bytes, stored: 2 * bytes, bar: 'stream' } },
    run: () => {
      ops.cat([data([rows, width], 'float32'), data([rows, width], 'float32', 2)], 1)
    },
  },
  ...([1, 2, 4, 8] as const).map((size, i): Workload => {
    const dtype = (['uint8', 'float16', 'float32', 'float64'] as const)[i]!
    return {
      name: `tril of [${rows}, ${width}] ${dtype}`,
      kernels: {
        [`gradus_join_triangle_${size}_many`]: { loaded: (rows * width * size) / 2, stored: rows * width * size },
      },
      run: () => {
        data([rows, width], dtype).tril()
      },
    }
  }),
]

const rope = (dtype: DType): Workload => {
  const [T, D] = [128, 64]
  const size = sizeOf(dtype)
  return {
    name: `rope of [4, ${T}, ${D}] ${dtype}`,
    kernels: {
      [`gradus_rope_rotate_${dtype}`]: { loaded: 3 * 4 * T * D * size, stored: 4 * T * D * size, bar: 'stream' },
    },
    run: () => {
      const operands = [data([4, T, D], dtype), data([T, D], dtype, 2), data([T, D], dtype, 3)]
      run(native('rope', 'interleaved,inverse'), operands, [4, T, D], code(dtype), [0, 0])
    },
  }
}

const embedding = (dtype: DType): Workload => ({
  name: `gradient of embedding: ${rows} rows of ${width} ${dtype} into 40`,
  kernels: {
    [`gradus_embedding_sum_${dtype}_${dtype}`]: {
      loaded: rows * width * sizeOf(dtype),
      stored: 40 * width * sizeOf(dtype),
    },
  },
  run: () => {
    const operands = [data([rows, width], dtype), data([rows], 'int64')]
    run(native('embeddingBackward', 'paddingIdx,accumulate'), operands, [40, width], code(dtype), [-1, 0])
  },
})

const sorting: Workload = {
  name: 'sort of [16384] uint8',
  kernels: {
    gradus_sort_count: { loaded: 4 * 16384, stored: 4 * 256 * 8 },
    gradus_sort_scatter: { loaded: 8 * 16384 + 4 * 256 * 8, stored: 8 * 16384 },
    gradus_sort_scan: { loaded: 4 * 256 * 8, stored: 4 * 256 * 8 },
    gradus_order_keys: { loaded: 16384, stored: 8 * 16384 },
    gradus_order_pick: { loaded: 5 * 16384, stored: 9 * 16384 },
  },
  run: () => {
    data([16384], 'uint8').sort(0)
  },
}

const nonzero: Workload = {
  name: 'nonzero of [16384] uint8',
  kernels: { gradus_join_count: { loaded: 16384, stored: 4 * 8 } },
  run: () => {
    run(native('countNonzero'), [data([16384], 'uint8')], [], code('int64'))
    zeros([1], { device: 'cuda' })
  },
}

export const overMemory: Workload[][] = [
  [...moving, ...floats.map(rope)],
  [...floats.map(embedding)],
  [sorting, nonzero],
]
