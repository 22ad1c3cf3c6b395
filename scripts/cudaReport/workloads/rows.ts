// Kernels over rows: softmax, norms, cross entropy, reductions, scans. A row is read once where registers hold it;
// parameters of a norm are asked for by each row, and come from caches.

import type { DType, Tensor } from '../../../lib/index'
import { native, type Output, run, runMany } from '../../../lib/tensor/dispatch'
import { code, computeSize, data, floats, sizeOf, type Workload } from './workload'

const rows = 64
const width = 1024

const softmaxes: Workload[] = ['softmax', 'logSoftmax'].flatMap((op) =>
  floats.flatMap((dtype): Workload[] => {
    const bytes = rows * width * sizeOf(dtype)
    const call = (name: string, shape: number[], dim: number): void => {
      const operands = name.endsWith('Backward') ? [data(shape, dtype), data(shape, dtype, 2)] : [data(shape, dtype)]
      run(native(name, 'dim'), operands, shape, code(dtype), [dim])
    }
    return [op, `${op}Backward`].flatMap((name): Workload[] => {
      const loaded = name === op ? bytes : 2 * bytes
      return [
        {
          name: `${name} over the rows of [${rows}, ${width}] ${dtype}`,
          kernels: { [`gradus_softmax_${name}_${dtype}`]: { loaded, stored: bytes, bar: 'stream' } },
          run: () => call(name, [rows, width], 1),
        },
        {
          name: `${name} over the columns of [${rows}, ${width}] ${dtype}`,
          kernels: { [`gradus_softmax_columns_${name}_${dtype}`]: { loaded, stored: bytes } },
          run: () => call(name, [rows, width], 0),
        },
      ]
    })
  }),
)

/** Forward, and backward at widths whose packs one thread holds one of, four of, or too many of to hold. */
function norm(form: 'layer' | 'rms', dtype: DType): Workload[] {
  const [size, compute] = [sizeOf(dtype), computeSize(dtype)]
  const statistic = [[rows], dtype === 'float64' ? code('float64') : 0] as const
  const centered = form === 'layer'
  const forward: Workload = {
    name: `${form} norm of [${rows}, ${width}] ${dtype}, parameters alike`,
    kernels: {
      [`gradus_norm_${form}_${dtype}`]: {
        loaded: rows * width * size * (centered ? 3 : 2),
        stored: rows * width * size + rows * compute * (centered ? 2 : 1),
        compulsory: 2 * rows * width * size + (rows * compute + width * size) * (centered ? 2 : 1),
        bar: 'stream',
      },
    },
    run: () => {
      const x = data([rows, width], dtype)
      const parameters = [data([width], dtype, 2), data([width], dtype, 3)].slice(0, centered ? 2 : 1)
      const outputs: Output[] = [[x.shape, code(dtype)], ...(centered ? [statistic, statistic] : [statistic]), [[0], 0]]
      runMany(native(`${form}Norm`, 'eps,normDims'), [x, ...parameters], outputs, [1e-5, 1])
    },
  }
  const packs = { 1: 256, 4: 1024, any: 1152 }
  const backward = Object.entries(packs).map(([held, count]): Workload => {
    const wide = (count * 16) / size
    const parts = rows / 8
    const bytes = rows * wide * size
    // rows that no registers hold are read again for what their sums are needed for
    const readings = held === 'any' ? 2 : 1
    return {
      name: `gradient of ${form} norm of [${rows}, ${wide}] ${dtype}${held === 'any' ? ', too long for registers' : ''}`,
      kernels: {
        [`gradus_norm_backward_${form}_${dtype}_${held}`]: {
          loaded: readings * 3 * bytes + rows * compute * (centered ? 2 : 1),
          stored: bytes + parts * wide * compute * (centered ? 2 : 1),
          ...(held !== 'any' && { bar: 'stream' as const }),
        },
      },
      run: () => {
        const [g, x, weight] = [data([rows, wide], dtype), data([rows, wide], dtype, 2), data([wide], dtype, 3)]
        const statistics = [4, 5]
          .slice(0, centered ? 2 : 1)
          .map((seed) => data([rows], dtype === 'float64' ? dtype : 'float32', seed))
        const outputs: Output[] = [
          [x.shape, code(dtype)],
          ...[0, 1].slice(0, centered ? 2 : 1).map((): Output => [[wide], code(dtype)]),
        ]
        const attributes = 'normDims,accumulate,normalized'
        runMany(native(`${form}NormBackward`, attributes), [g, x, ...statistics, weight], outputs, [1, 0, 0])
      },
    }
  })
  return [forward, ...backward]
}

const classes = 4096
function crossEntropy(dtype: DType): Workload {
  const compute = computeSize(dtype)
  const bytes = rows * classes * sizeOf(dtype)
  const result = dtype === 'float64' ? code('float64') : 0
  const attributes = 'ignoreIndex,labelSmoothing,reduction'
  return {
    name: `cross entropy of [${rows}, ${classes}] ${dtype} and its gradient`,
    kernels: {
      [`gradus_loss_crossEntropy_${dtype}`]: {
        loaded: bytes,
        stored: rows * (compute + 8),
        bar: 'stream',
        narrowStores: true,
      },
      [`gradus_loss_crossEntropyBackward_${dtype}`]: { loaded: bytes, stored: bytes, bar: 'stream' },
    },
    run: () => {
      const logits = data([rows, classes], dtype)
      const target = data([rows], 'int64')
      const outputs: Output[] = [
        [[], result],
        [[rows], result],
        [[], result],
      ]
      const [loss, logsumexp, divisor] = runMany(
        native('crossEntropy', attributes),
        [logits, target],
        outputs,
        [-100, 0, 1],
      )
      const operands = [loss!, logits, target, logsumexp!, divisor!]
      run(native('crossEntropyBackward', attributes), operands, [rows, classes], code(dtype), [-100, 0, 1])
    },
  }
}

const types = { f32: 'float32', f64: 'float64', i64: 'int64' } as const
const reductions: Workload[] = Object.entries(types).flatMap(([type, dtype]): Workload[] => {
  const size = sizeOf(dtype)
  const sum = (shape: number[], dim: number, kernel: string, outputs: number): Workload => ({
    name: `sum of [${shape.join(', ')}] ${dtype} over dim ${dim}`,
    kernels: {
      [`gradus_reduce_${kernel}_${type}`]: {
        loaded: shape[0]! * shape[1]! * size,
        stored: outputs * size,
        bar: 'stream',
        narrowStores: kernel !== 'columns', // a number a row
      },
    },
    run: () => {
      data(shape, dtype).sum(dim)
    },
  })
  return [
    sum([512, 2048], 1, 'rows', 512),
    sum([2048, 512], 1, 'warps', 2048),
    sum([8, 65536], 0, 'columns', 65536),
    {
      name: `largest of [8192, 64] ${dtype} over dim 1`,
      kernels: { [`gradus_scan_extreme_${type}`]: { loaded: 8192 * 64 * size, stored: 8192 * 8 } },
      run: () => {
        data([8192, 64], dtype).argmax(1)
      },
    },
  ]
})

const sums: Workload[] = (['float32', 'int64'] as const).flatMap((dtype): Workload[] => {
  const type = dtype === 'int64' ? 'i64' : 'f64'
  const size = sizeOf(dtype)
  const cumsum = (shape: number[], dim: number, kernel: string): Workload => ({
    name: `cumsum of [${shape.join(', ')}] ${dtype} over dim ${dim}`,
    kernels: {
      [`gradus_scan_${kernel}_${type}`]: { loaded: shape[0]! * shape[1]! * size, stored: shape[0]! * shape[1]! * size },
    },
    run: () => {
      data(shape, dtype).cumsum(dim)
    },
  })
  return [cumsum([512, 512], 1, 'sum'), cumsum([512, 512], 0, 'sum_columns')]
})

const scaleShift: Workload[] = (['float32', 'float64'] as const).map((dtype) => ({
  name: `scale and shift of [${rows}, ${width}] ${dtype}`,
  kernels: {
    [`gradus_norm_scaleShift_${dtype === 'float64' ? 'f64' : 'f32'}`]: {
      loaded: 3 * rows * width * sizeOf(dtype),
      stored: rows * width * sizeOf(dtype),
      bar: 'stream' as const,
    },
  },
  run: () => {
    const operands: Tensor[] = [data([rows, width], dtype), data([width], dtype, 2), data([width], dtype, 3)]
    run(native('scaleShift', 'normDims'), operands, [rows, width], code(dtype), [1])
  },
}))

export const overRows: Workload[][] = [
  [...softmaxes, ...floats.map(crossEntropy), ...reductions, ...sums],
  [...floats.flatMap((dtype) => [...norm('layer', dtype), ...norm('rms', dtype)]), ...scaleShift],
]
