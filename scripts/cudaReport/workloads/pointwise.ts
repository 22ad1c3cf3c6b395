// Pointwise operators, copies, fills and random tensors: everything is read and written once.

import { device } from '../../../lib/device'
import { type DType, zeros } from '../../../lib/index'
import { make, native, run } from '../../../lib/tensor/dispatch'
import { code, data, floats, narrow, sizeOf, type Workload } from './workload'

const n = 1 << 15

interface Formula {
  kernel: string
  op: string
  attributes?: string
  attrs?: number[]
  inputs: number
  truth?: boolean
}

const each = (names: string, rest: Partial<Formula>): Formula[] =>
  names.split(' ').map((op) => ({ kernel: op, op, inputs: 1, ...rest }))
const pair = { attributes: 'scalar,reversed', attrs: [0, 0], inputs: 2 }
const bounds = { attributes: 'min,max', attrs: [0.5, 1.5] }
const gelu = (tanh: number): Partial<Formula> => ({ attributes: 'tanh', attrs: [tanh] })
const formulas: Formula[] = [
  ...each('neg abs exp log sqrt rsqrt tanh sigmoid square reciprocal relu silu', {}),
  ...each('gelu', { ...gelu(0), kernel: 'geluErf' }),
  ...each('gelu', { ...gelu(1), kernel: 'geluTanh' }),
  ...each('clamp', bounds),
  ...each('tanhBackward sigmoidBackward reluBackward siluBackward', { inputs: 2 }),
  ...each('geluBackward', { ...gelu(0), inputs: 2, kernel: 'geluErfBackward' }),
  ...each('geluBackward', { ...gelu(1), inputs: 2, kernel: 'geluTanhBackward' }),
  ...each('clampBackward', { ...bounds, inputs: 2 }),
  ...each('add', { attributes: 'scalar,reversed,alpha', attrs: [0, 0, 1], inputs: 2 }),
  ...each('mul div maximum minimum', pair),
  ...each('eq ne lt le gt ge', { ...pair, truth: true }),
  ...each('addcmul', { attributes: 'value', attrs: [2], inputs: 3 }),
]

const dense: Workload[] = formulas.flatMap(({ kernel, op, attributes, attrs, inputs, truth }) =>
  narrow.map((dtype) => ({
    name: `${op} of [${n}] ${dtype}`,
    kernels: {
      [`gradus_pointwise_${kernel}_${dtype}`]: {
        loaded: inputs * n * sizeOf(dtype),
        stored: n * (truth ? 1 : sizeOf(dtype)),
        bar: 'stream' as const,
        ...(truth && { narrowStores: true }),
      },
    },
    run: () => {
      const operands = Array.from({ length: inputs }, (_, i) => data([n], dtype, i + 1))
      run(native(op, attributes), operands, [n], truth ? code('bool') : code(dtype), attrs)
    },
  })),
)

const side = 128
const copy = (from: DType, to: DType, kernel: string): Workload => ({
  name: `copy of [${n}] ${from} to ${to}`,
  kernels: { [kernel]: { loaded: n * sizeOf(from), stored: n * sizeOf(to), bar: 'stream' } },
  run: () => {
    data([n], from).to(to)
  },
})
const copies: Workload[] = [
  copy('float32', 'bfloat16', 'gradus_pointwise_copy_f32'),
  copy('float64', 'float32', 'gradus_pointwise_copy_f64'),
  copy('int64', 'int32', 'gradus_pointwise_copy_i64'),
  {
    name: `zeros [${n}] float32`,
    kernels: { gradus_pointwise_fill: { loaded: 0, stored: 4 * n, bar: 'stream' } },
    run: () => {
      zeros([n], { device: 'cuda' })
    },
  },
]

const types = { f32: 'float32', f64: 'float64', i64: 'int64' } as const
/** Threads ask for every element, also for one that broadcasts. */
const strided: Workload[] = Object.entries(types).flatMap(([type, dtype]): Workload[] => {
  const bytes = side * side * sizeOf(dtype)
  return [
    {
      // of float32, neg has a kernel of its own
      name: `${dtype === 'float32' ? 'floor' : 'neg'} of [${side}, ${side}] ${dtype}`,
      kernels: { [`gradus_pointwise_unary_${type}`]: { loaded: bytes, stored: bytes, bar: 'stream' } },
      run: () => {
        run(native(dtype === 'float32' ? 'floor' : 'neg'), [data([side, side], dtype)], [side, side], code(dtype))
      },
    },
    {
      name: `[${side}, ${side}] + [${side}] of ${dtype}`,
      kernels: { [`gradus_pointwise_binary_${type}`]: { loaded: 2 * bytes, stored: bytes, bar: 'stream' } },
      run: () => {
        data([side, side], dtype).add(data([side], dtype, 2))
      },
    },
    {
      name: `where over [${side}, ${side}] ${dtype}`,
      kernels: {
        [`gradus_pointwise_ternary_${type}`]: {
          loaded: 2 * bytes + side * side,
          stored: bytes,
          bar: 'stream',
          narrowLoads: side * side, // the mask
        },
      },
      run: () => {
        const operands = [data([side, side], 'bool'), data([side, side], dtype), data([side, side], dtype, 2)]
        run(native('where'), operands, [side, side], code(dtype))
      },
    },
  ]
})
const ranges: Workload[] = (['float64', 'int64'] as const).map((dtype) => ({
  name: `arange [${n}] ${dtype}`,
  kernels: {
    [`gradus_pointwise_arange_${dtype === 'int64' ? 'i64' : 'f64'}`]: { loaded: 0, stored: 8 * n, bar: 'stream' },
  },
  run: () => {
    make(native('arange', 'start,step'), [n], code(dtype), device('cuda'), [0, 1])
  },
}))

const stream = [7, 11]
const random: Workload[] = floats.flatMap((dtype): Workload[] => {
  const bytes = n * sizeOf(dtype)
  const draw = (op: string, attributes: string, attrs: number[]): Workload => ({
    name: `${op} [${n}] ${dtype}`,
    kernels: { [`gradus_random_${op}_${dtype}`]: { loaded: 0, stored: bytes, bar: 'stream' } },
    run: () => {
      make(native(op, attributes), [n], code(dtype), device('cuda'), [...stream, ...attrs])
    },
  })
  return [
    draw('uniform', 'seed,offset,low,high', [0, 1]),
    draw('normal', 'seed,offset,mean,std', [0, 1]),
    {
      name: `bernoulli [${n}] ${dtype}`,
      kernels: { [`gradus_random_bernoulli_${dtype}`]: { loaded: bytes, stored: bytes, bar: 'stream' } },
      run: () => {
        run(native('bernoulli', 'seed,offset'), [data([n], dtype)], [n], code(dtype), stream)
      },
    },
    ...floats
      .filter((to) => (to === 'float64') === (dtype === 'float64'))
      .map(
        (to): Workload => ({
          name: `dropout + residual [${n}] ${dtype} to ${to}`,
          kernels: {
            [`gradus_random_dropout_${dtype}_${to}`]: {
              loaded: bytes + n * sizeOf(to),
              stored: n * sizeOf(to),
              bar: 'stream',
            },
          },
          run: () => {
            const operands = [data([n], dtype), data([n], to, 2)]
            run(native('dropoutAdd', 'seed,offset,p'), operands, [n], code(to), [...stream, 0.1])
          },
        }),
      ),
  ]
})
const integers: Workload[] = [
  ['narrow', 1000],
  ['wide', 2 ** 40],
].map(([what, high]) => ({
  name: `randint below ${high}, [${n}] int64`,
  kernels: { [`gradus_random_integers_${what}`]: { loaded: 0, stored: 8 * n, bar: 'stream' as const } },
  run: () => {
    make(native('randint', 'seed,offset,low,high'), [n], code('int64'), device('cuda'), [...stream, 0, Number(high)])
  },
}))

export const pointwise: Workload[][] = [
  [...dense, ...random, ...integers, ...ranges],
  [...copies, ...strided],
]
