// Kernels that are a step of an operator whose main one has a workload elsewhere, and element sizes and dtypes that no
// other workload reaches. What is ideal is what the step's results need; indices count once, however often a row asks.

import { type DType, full, ops, type Tensor, zeros } from '../../../lib/index'
import { native, type Output, run, runMany } from '../../../lib/tensor/dispatch'
import { code, data, narrow, sizeOf, type Workload } from './workload'

const [rows, width] = [256, 255] // rows that do not begin on 16 bytes
const sizes = [
  [1, 'uint8'],
  [2, 'float16'],
  [4, 'float32'],
  [8, 'float64'],
] as const
const sums: readonly (readonly [sum: DType, of: DType])[] = [
  ['float32', 'float32'],
  ['float32', 'float16'],
  ['float32', 'bfloat16'],
  ['float64', 'float64'],
  ['int64', 'int64'],
  ['int32', 'int32'],
  ['uint8', 'uint8'],
]

const byIndex: Workload[] = sizes.flatMap(([size, dtype]): Workload[] => {
  const bytes = rows * width * size
  return [
    {
      name: `indexSelect: ${rows} rows of [40, ${width}] ${dtype}`,
      kernels: { [`gradus_index_rows_${size}`]: { loaded: bytes + 8 * rows, stored: bytes } },
      run: () => {
        data([40, width], dtype).indexSelect(0, data([rows], 'int64'))
      },
    },
    {
      name: `scatter [${rows}, ${width}] ${dtype} into 40 rows`,
      // all places, which are sorted, and of each the last one's source
      kernels: {
        [`gradus_index_scatter_${size}`]: {
          loaded: 4 * rows * width + 40 * width * (4 + size),
          stored: 40 * width * size,
        },
      },
      run: () => {
        ops.scatter(data([40, width], dtype), 0, data([rows, width], 'int64'), data([rows, width], dtype, 2))
      },
    },
    {
      name: `cat of two [${rows}, ${width}] ${dtype}`,
      kernels: { [`gradus_join_cat_${size}`]: { loaded: 2 * bytes, stored: 2 * bytes } },
      run: () => {
        ops.cat([data([rows, width], dtype), data([rows, width], dtype, 2)], 1)
      },
    },
    {
      name: `tril of a transposed [${rows}, ${width}] ${dtype}`,
      kernels: { [`gradus_join_triangle_${size}_1`]: { loaded: bytes / 2, stored: bytes } },
      run: () => {
        data([width, rows], dtype).transpose(0, 1).tril()
      },
    },
  ]
})

const added: Workload[] = sums.flatMap(([sum, of]): Workload[] => {
  const into = 40 * width * sizeOf(sum)
  return [
    {
      name: `scatterAdd of [${rows}, ${width}] ${of} into 40 rows`,
      kernels: {
        [`gradus_index_scatter_add_${sum}_${of}`]: {
          loaded: rows * width * (8 + sizeOf(of)) + into,
          stored: into,
        },
      },
      run: () => {
        ops.scatterAdd(data([40, width], of), 0, data([rows, width], 'int64'), data([rows, width], of, 2))
      },
    },
    {
      name: `indexAdd of ${rows} rows of ${width} ${of} into 40`,
      kernels: {
        [`gradus_index_add_${sum}_${of}`]: { loaded: rows * width * sizeOf(of) + 8 * rows + into, stored: into },
      },
      run: () => {
        ops.indexAdd(data([40, width], of), 0, data([rows], 'int64'), data([rows, width], of, 2))
      },
    },
  ]
})

const tables: Workload[] = narrow.flatMap((table) =>
  narrow
    .filter((dtype) => dtype !== table)
    .map((dtype): Workload => {
      const wide = 256
      return {
        name: `gradient of a ${table} embedding: ${rows} rows of ${wide} ${dtype} into 40`,
        kernels: {
          [`gradus_embedding_sum_${table}_${dtype}`]: {
            loaded: rows * wide * sizeOf(dtype),
            stored: 40 * wide * sizeOf(table),
          },
        },
        run: () => {
          const operands = [data([rows, wide], dtype), data([rows], 'int64')]
          run(native('embeddingBackward', 'paddingIdx,accumulate'), operands, [40, wide], code(table), [-1, 0])
        },
      }
    }),
)

/** Sums over rows, which the gradient of a bias is, from 16-bit gradients and from float64. */
const columnSums = (dtype: DType, compute: DType): Workload => {
  const [n, columns] = [1024, 512]
  return {
    name: `sums of the columns of [${n}, ${columns}] ${dtype}`,
    kernels: {
      [`gradus_gemm_column_sums_${compute}`]: {
        loaded: n * columns * sizeOf(dtype),
        stored: columns * sizeOf(compute),
        bar: 'stream',
        narrowStores: true,
      },
    },
    run: () => {
      const outputs: Output[] = [
        [[columns, 8], code(compute)],
        [[columns], code(compute)],
      ]
      const operands = [data([n, columns], dtype), data([n, 8], dtype, 2)]
      runMany(native('linearBackwardWeight', 'accumulate,bias'), operands, outputs, [0, 1])
    },
  }
}

const normParts = (dtype: 'float32' | 'float64'): Workload => {
  const [n, wide] = [64, 1024]
  const size = sizeOf(dtype)
  return {
    name: `gradients of the parameters of layer norm of [${n}, ${wide}] ${dtype}, from parts of 8 rows`,
    kernels: {
      [`gradus_norm_backward_parts_${dtype === 'float64' ? 'f64' : 'f32'}`]: {
        loaded: 2 * (n / 8) * wide * size,
        stored: 2 * wide * size,
        bar: 'stream',
      },
    },
    run: () => {
      const [g, x, weight] = [data([n, wide], dtype), data([n, wide], dtype, 2), data([wide], dtype, 3)]
      const statistics = [4, 5].map((seed) => data([n], dtype, seed))
      const outputs: Output[] = [x.shape, [wide], [wide]].map((shape): Output => [shape, code(dtype)])
      const attributes = 'normDims,accumulate,normalized'
      runMany(native('layerNormBackward', attributes), [g, x, ...statistics, weight], outputs, [1, 0, 0])
    },
  }
}

const n = 1 << 15
const totals: Workload[] = [
  {
    name: `norm 2 of [${n}] float32, its second step`,
    kernels: { gradus_multi_tensor_norm_total: { loaded: (8 * n) / 16384, stored: 4 } },
    run: () => {
      run(native('multiTensorNorm', 'p'), [data([n], 'float32')], [], 0, [2])
    },
  },
  {
    name: `unscaling [${n}] float16, its second step`,
    kernels: { gradus_multi_tensor_unscale_total: { loaded: (12 * n) / 16384, stored: 12 } },
    run: () => {
      const x = data([n], 'float16')
      const results: Tensor[] = [zeros([], { device: 'cuda' }), zeros([], { device: 'cuda' })]
      results.push(zeros([], { dtype: 'int32', device: 'cuda' }))
      runMany(native('multiTensorUnscale', 'write'), [x, full([], 4, { device: 'cuda' })], [x, ...results], [1])
    },
  },
]

const of = 1 << 16
const fromPieces: Workload[] = (['float32', 'float64', 'int64'] as const).map((dtype): Workload => {
  const type = { float32: 'f32', float64: 'f64', int64: 'i64' }[dtype]
  return {
    name: `largest of [${of}] ${dtype}, from 4 pieces`,
    kernels: { [`gradus_scan_extreme_pieces_${type}`]: { loaded: 4 * 16, stored: 8 } },
    run: () => {
      data([of], dtype).argmax(0)
    },
  }
})
const fromChunks: Workload[] = (['float64', 'int64'] as const).map((dtype): Workload => {
  const type = dtype === 'float64' ? 'f64' : 'i64'
  return {
    name: `cumsum of [${of}] ${dtype} in 8 chunks`,
    kernels: {
      [`gradus_scan_chunks_${type}`]: { loaded: 8 * of, stored: 8 * 8 },
      [`gradus_scan_starts_${type}`]: { loaded: 8 * 8, stored: 8 * 8 },
    },
    run: () => {
      data([of], dtype).cumsum(0)
    },
  }
})
const fromParts: Workload[] = (['float64', 'int64'] as const).map((dtype): Workload => {
  const count = 1 << 18
  return {
    name: `sum of [${count}] ${dtype} over all`,
    kernels: { [`gradus_reduce_finish_${dtype === 'float64' ? 'f64' : 'i64'}`]: { loaded: 8 * 32, stored: 8 } },
    run: () => {
      data([count], dtype).sum()
    },
  }
})

/** One operator a group where operators share steps. */
const places: Workload = {
  name: `indexAdd of ${rows} rows of ${width} float32 into 40, what comes before`,
  kernels: {
    gradus_index_check: { loaded: 8 * rows, stored: 8 * rows },
    gradus_index_places: { loaded: 8 * rows, stored: 8 * rows },
  },
  run: () => {
    ops.indexAdd(data([40, width], 'float32'), 0, data([rows], 'int64'), data([rows, width], 'float32', 2))
  },
}
const keys: Workload = {
  name: `gradient of embedding: ${rows} rows of 64 float32 into 40, what comes before`,
  kernels: { gradus_embedding_keys: { loaded: 8 * rows, stored: 8 * rows } },
  run: () => {
    const operands = [data([rows, 64], 'float32'), data([rows], 'int64')]
    run(native('embeddingBackward', 'paddingIdx,accumulate'), operands, [40, 64], code('float32'), [-1, 0])
  },
}
const drawn: Workload[] = [
  {
    name: `randperm of ${rows}`,
    kernels: {
      gradus_sample_positions: { loaded: 0, stored: 4 * rows },
      gradus_sample_shuffle: { loaded: 4 * rows, stored: 8 * rows },
    },
    run: () => {
      ops.randperm(rows, { device: 'cuda' })
    },
  },
  {
    name: `16 draws from each row of [64, ${width}] float32 with replacement`,
    kernels: { gradus_sample_draw: { loaded: 64 * width * 4, stored: 64 * 16 * 8 } },
    run: () => {
      ops.multinomial(data([64, width], 'float32'), 16, { replacement: true })
    },
  },
  {
    name: `16 draws from each row of [64, ${width}] float32 without replacement`,
    kernels: { gradus_sample_keys: { loaded: 64 * width * 4, stored: 64 * width * 8 } },
    run: () => {
      ops.multinomial(data([64, width], 'float32'), 16)
    },
  },
]
const found: Workload = {
  name: `nonzero of [${of}] uint8 that are all 1`,
  kernels: {
    gradus_join_total: { loaded: 16 * 8, stored: 8 },
    gradus_join_positions: { loaded: of, stored: 8 * of },
  },
  run: () => {
    const ones = full([of], 1, { dtype: 'uint8', device: 'cuda' })
    run(native('countNonzero'), [ones], [], code('int64'))
    run(native('nonzeroInto'), [ones], [of, 1], code('int64'))
  },
}

/** What looks for failures before anything is written, and what runs once an operator: some numbers each. */
const once: Workload[] = [
  {
    name: `floorDivide of [${n}] int64, its look for zeros`,
    kernels: { gradus_pointwise_find_zero: { loaded: 8 * n, stored: 0, bar: 'stream' } },
    run: () => {
      ops.floorDivide(data([n], 'int64'), full([n], 3, { dtype: 'int64', device: 'cuda' }))
    },
  },
  {
    name: `cross entropy of [${of / 64}, 16] float32 and its gradient over the logits, beside the rows`,
    kernels: {
      gradus_loss_total: { loaded: (2 * 8 * of) / 64, stored: 2 * 4 },
      gradus_loss_check: { loaded: (8 * of) / 64, stored: 0 },
    },
    run: () => {
      const count = of / 64
      const [logits, target] = [data([count, 16], 'float32'), full([count], 5, { dtype: 'int64', device: 'cuda' })]
      const outputs: Output[] = [
        [[], 0],
        [[count], 0],
        [[], 0],
      ]
      const attributes = 'ignoreIndex,labelSmoothing,reduction'
      const [loss, logsumexp, divisor] = runMany(
        native('crossEntropy', attributes),
        [logits, target],
        outputs,
        [-100, 0, 1],
      )
      const operands = [loss!, logits, target, logsumexp!, divisor!]
      runMany(native('crossEntropyBackward', attributes), operands, [logits], [-100, 0, 1])
    },
  },
  {
    name: 'attention of 256 entries of [1, 4, 32] float32 and up to 40 keys, its look at the lengths',
    kernels: { gradus_attention_check: { loaded: 8 * 256, stored: 0 } },
    run: () => {
      const [q, k, v] = [4, 40, 40].map((T, i) => data([256, 1, T, 32], 'float32', i + 1))
      const outputs: Output[] = [
        [[256, 4, 1, 32], 0],
        [[256, 1, 4], 0],
      ]
      const attributes = 'scale,causal,seed,offset,p,left,right,blockQueries,blockKeys'
      const operands = [q!, k!, v!, null, null, data([256], 'int64')]
      runMany(native('attention', attributes), operands, outputs, [1, 0, 0, 0, 0, -1, -1, 0, 0])
    },
  },
  {
    name: 'sgd of 50 parameters whose steps the device counts',
    kernels: { gradus_optim_count: { loaded: 4 * 50 + 4, stored: 4 * 50 } }, // counts, and the word of failures
    run: () => {
      const numbers = (): Tensor[] => Array.from({ length: 50 }, () => zeros([8], { device: 'cuda' }))
      const counts = Array.from({ length: 50 }, () => zeros([], { device: 'cuda' }))
      const [params, grads] = [numbers(), numbers()]
      const attributes = 'count,counted,maxNorm,lr,momentum,dampening,weightDecay,nesterov,maximize,first'
      const operands = [...params, ...grads, ...counts, null, null, null]
      runMany(native('sgd', attributes), operands, [...params, ...counts], [50, 1, 0, 0.1, 0, 0, 0, 0, 0, 1])
    },
  },
  {
    name: 'the scale of a loss after 64 optimizers without overflow',
    // flags of all, the scale, its count and the word of failures; the status, too, is written
    kernels: { gradus_multi_tensor_scaler: { loaded: 4 * 64 + 3 * 4, stored: 5 * 4 } },
    run: () => {
      const zero = (dtype: DType): Tensor => zeros([], { dtype, device: 'cuda' })
      const pairs = Array.from({ length: 64 }, () => [zero('float32'), zero('int32')]).flat()
      const results = [full([], 2, { device: 'cuda' }), zero('int32'), zeros([3], { device: 'cuda' })]
      const attributes = 'growthFactor,backoffFactor,growthInterval'
      runMany(native('scalerUpdate', attributes), pairs, results, [2, 0.5, 2000])
    },
  },
]

export const inSteps: Workload[][] = [
  byIndex,
  [...added, ...tables],
  [columnSums('float16', 'float32'), columnSums('float64', 'float64'), ...totals],
  [normParts('float32'), normParts('float64'), ...fromPieces, ...fromChunks, ...fromParts, places, keys],
  [...drawn, found],
  once,
]
