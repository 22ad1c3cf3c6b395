// Matrix products, linear + cross entropy and attention. What is ideal is that of a tiled product: every tile of the
// result reads its rows of A and columns of B once.

import type { DType, Tensor } from '../../../lib/index'
import { native, type Output, run, runMany } from '../../../lib/tensor/dispatch'
import { code, computeSize, data, floats, halves, type Ideal, sizeOf, type Workload } from './workload'

const layouts = ['nn', 'nt', 'tn', 'tt'] as const

type Tile = readonly [rows: number, cols: number]

function gemm(kernel: string, dtype: DType, layout: string, m: number, n: number, k: number, tile: Tile): Workload {
  const size = sizeOf(dtype)
  const tiles = (m / tile[0]) * (n / tile[1])
  const ideal: Ideal = {
    loaded: tiles * (tile[0] + tile[1]) * k * size,
    stored: m * n * size,
    flops: 2 * m * n * k,
    compulsory: (m * k + k * n + m * n) * size,
  }
  return {
    name: `[${m}, ${k}] by [${k}, ${n}] of ${dtype}, ${layout}`,
    kernels: {
      [`${kernel}_${layout}_${dtype}`]: { ...ideal, ...(kernel.includes('mma') && { bar: 'tensor' as const }) },
    },
    run: () => {
      const a = layout[0] === 'n' ? data([m, k], dtype) : data([k, m], dtype).transpose(0, 1)
      const b = layout[1] === 'n' ? data([k, n], dtype, 2) : data([n, k], dtype, 2).transpose(0, 1)
      a.matmul(b)
    },
  }
}

// Sizes for which the simulated device of 108 multiprocessors takes each tile.
const products: Workload[] = layouts.flatMap((layout) => [
  ...halves.flatMap((dtype) => [
    gemm('gradus_gemm_mma_large', dtype, layout, 1024, 1024, 256, [128, 128]),
    gemm('gradus_gemm_mma_medium', dtype, layout, 768, 768, 256, [64, 128]),
    gemm('gradus_gemm_mma_small', dtype, layout, 512, 512, 256, [64, 64]),
  ]),
  gemm('gradus_gemm_large', 'float32', layout, 1152, 1536, 16, [128, 128]),
  gemm('gradus_gemm_small', 'float32', layout, 512, 512, 128, [64, 64]),
  gemm('gradus_gemm_small', 'float64', layout, 512, 512, 64, [64, 64]),
])

const joined: Workload[] = (['float32', 'float64'] as const).map((dtype) => {
  const [m, n, k] = [64, 64, 1024]
  const size = sizeOf(dtype)
  return {
    name: `[${m}, ${k}] by [${k}, ${n}] of ${dtype}, in 4 ranges`,
    kernels: { [`gradus_gemm_join_${dtype}`]: { loaded: 4 * m * n * size, stored: m * n * size, bar: 'stream' } },
    run: () => {
      data([m, k], dtype).matmul(data([k, n], dtype, 2))
    },
  }
})
const integers: Workload[] = (['int64', 'int32', 'uint8'] as const).map((dtype) => ({
  name: `[64, 64] by [64, 64] of ${dtype}`,
  kernels: { [`gradus_gemm_whole_${dtype}`]: { loaded: 2 * 64 ** 3 * sizeOf(dtype), stored: 64 * 64 * sizeOf(dtype) } },
  run: () => {
    data([64, 64], dtype).matmul(data([64, 64], dtype, 2))
  },
}))

const [T, H] = [256, 2]
const attributes = 'scale,causal,seed,offset,p,left,right,blockQueries,blockKeys'
const plain = (D: number): number[] => [D ** -0.5, 0, 0, 0, 0, -1, -1, 0, 0]

/** Forward and backward of one batch entry; every tile of queries passes all keys, and the other way round. */
function attention(prefix: string, dtype: DType, D: number, tiles: [number, number], bar?: 'tensor'): Workload {
  const [size, compute] = [sizeOf(dtype), computeSize(dtype)]
  const ofHead = T * D * size
  const [queryTiles, tilesBack] = [T / tiles[0], T / tiles[1]]
  const chunks = bar === undefined ? Math.ceil(D / (dtype === 'float64' ? 64 : 128)) : 1
  const named = (pass: string): string => (bar ? `${prefix}_${pass}_${D}_${dtype}` : `${prefix}_${pass}_${dtype}`)
  const rest = bar && { bar }
  // of 256 features one block makes dV, from K, Q and G, and another one dK, from K, V, Q and G
  const split = bar !== undefined && D > 128
  return {
    name: `attention of [1, ${H}, ${T}, ${D}] ${dtype} and its gradients`,
    kernels: {
      [named('forward')]: {
        loaded: H * chunks * (ofHead + queryTiles * 2 * ofHead),
        stored: H * (ofHead + T * compute),
        flops: H * 4 * T * T * D,
        compulsory: H * (4 * ofHead + T * compute),
        ...rest,
      },
      [named('query_gradient')]: {
        loaded: H * chunks * (2 * ofHead + tilesBack * 2 * ofHead + 3 * T * compute),
        stored: H * ofHead,
        flops: H * 6 * T * T * D,
        compulsory: H * (5 * ofHead + 3 * T * compute),
        ...rest,
      },
      [named('key_gradient')]: {
        loaded:
          H *
          chunks *
          ((split ? 3 : 2) * ofHead + tilesBack * ((split ? 4 : 2) * ofHead + (split ? 2 : 1) * 3 * T * compute)),
        stored: H * 2 * ofHead,
        flops: H * (split ? 10 : 8) * T * T * D,
        compulsory: H * (6 * ofHead + 3 * T * compute),
        ...rest,
      },
      ...(D === 64 && {
        [`gradus_attention_row_terms_${dtype}`]: {
          loaded: H * (2 * ofHead + T * compute),
          stored: H * 3 * T * compute,
        },
      }),
    },
    run: () => {
      const [q, k, v, g] = [1, 2, 3, 4].map((seed) => data([1, H, T, D], dtype, seed)) as [
        Tensor,
        Tensor,
        Tensor,
        Tensor,
      ]
      const float = dtype === 'float64' ? code(dtype) : 0
      const outputs: Output[] = [
        [[1, T, H, D], code(dtype)],
        [[1, H, T], float],
      ]
      const [out, logsumexp] = runMany(native('attention', attributes), [q, k, v], outputs, plain(D))
      const gradients: Output[] = [1, 2, 3].map(() => [[1, T, H, D], code(dtype)])
      const operands = [g, q, k, v, out!.transpose(1, 2), logsumexp!]
      runMany(native('attentionBackward', `${attributes},layout`), operands, gradients, [...plain(D), 0])
    },
  }
}

const heads: Workload[][] = [32, 64, 128, 256].map((D) =>
  halves.map((dtype) => attention('gradus_attention_mma', dtype, D, [D <= 64 ? 128 : 64, 64], 'tensor')),
)
const wide: Workload[] = [
  attention('gradus_attention', 'float32', 64, [32, 32]),
  attention('gradus_attention', 'float64', 64, [32, 32]),
]
// more features than the kernels on tensor cores take
const wider: Workload[] = halves.map((dtype) => attention('gradus_attention', dtype, 288, [32, 32]))

const [rows, width, classes] = [128, 512, 1024]
const linearLoss = (dtype: DType): Workload => {
  const size = sizeOf(dtype)
  const bytes = rows * classes * size
  const copied = rows * width * size
  const compute = dtype === 'float64' ? dtype : 'float32'
  const isMoved = !halves.includes(dtype) // there is one kernel of each computed dtype
  return {
    name: `linear + cross entropy of [${rows}, ${width}] by [${width}, ${classes}] ${dtype}`,
    kernels: {
      [`gradus_linear_loss_rows_${dtype}`]: { loaded: 2 * bytes, stored: bytes + 8 * rows },
      ...(isMoved && {
        [`gradus_linear_loss_gather_${compute}`]: { loaded: copied, stored: copied, bar: 'stream' as const },
        [`gradus_linear_loss_scatter_${compute}`]: {
          loaded: rows * width * sizeOf(compute),
          stored: copied,
          bar: 'stream' as const,
        },
      }),
      ...(dtype === 'float16' && {
        gradus_linear_loss_prepare: { loaded: 8 * rows, stored: 4 * rows + 4 + 4 * 8 },
        gradus_linear_loss_finish: { loaded: 8 * rows, stored: 2 * 4 },
      }),
    },
    run: () => {
      const [x, weight, target] = [
        data([rows, width], dtype),
        data([classes, width], dtype, 2),
        data([rows], 'int64', 3),
      ]
      const float = dtype === 'float64' ? code(dtype) : 0
      const kept = dtype === 'float16' ? 0 : code(dtype)
      const outputs: Output[] = [
        [[], float],
        [[], float],
        [x.shape, kept],
        [weight.shape, kept],
      ]
      const names = 'ignoreIndex,labelSmoothing,reduction,gradients,skipIgnored,products,chunkBytes'
      runMany(native('linearCrossEntropy', names), [x, weight, target], outputs, [-100, 0, 1, 1, 1, 0, 1 << 24])
    },
  }
}

const statistics: Workload[] = floats.map((dtype) => {
  const [D, size, compute] = [64, sizeOf(dtype), computeSize(dtype)]
  const tiles = T / 32
  const ofHead = T * D * size
  return {
    name: `weights and statistics of attention, [1, ${H}, ${T}, ${D}] ${dtype}`,
    kernels: {
      [`gradus_attention_weights_${dtype}`]: {
        loaded: H * (tiles * tiles * 2 * 32 * D * size + tiles * T * compute),
        stored: H * T * T * size,
      },
      [`gradus_attention_entropy_${dtype}`]: {
        loaded: H * (ofHead + tiles * ofHead + T * compute),
        stored: H * T * compute,
      },
      [`gradus_attention_received_${dtype}`]: {
        loaded: H * (ofHead + tiles * (ofHead + T * compute)),
        stored: H * T * compute,
      },
    },
    run: () => {
      const [q, k] = [data([1, H, T, D], dtype), data([1, H, T, D], dtype, 2)]
      const float = dtype === 'float64' ? code(dtype) : 0
      const logsumexp = data([1, H, T], dtype === 'float64' ? dtype : 'float32', 3).add(8)
      run(native('attentionWeights', attributes), [q, k, logsumexp], [1, H, T, T], code(dtype), plain(D))
      const outputs: Output[] = [
        [[1, H, T], float],
        [[1, H, T], float],
      ]
      runMany(native('attentionStatistics', attributes), [q, k, logsumexp], outputs, plain(D))
    },
  }
})

export const overMatrices: Workload[][] = [
  products,
  [...joined, ...integers, ...statistics],
  ...heads,
  wide,
  wider,
  [linearLoss('float32'), linearLoss('float64')],
  [linearLoss('float16')],
  [linearLoss('bfloat16')],
]
