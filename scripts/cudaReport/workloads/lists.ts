// Optimizer steps and what else is done to all tensors at once.

import { type DType, full, type Tensor, zeros } from '../../../lib/index'
import { native, run, runMany } from '../../../lib/tensor/dispatch'
import { code, data, type Workload } from './workload'

const n = 1 << 15
const frame = 'count,counted,maxNorm'

interface Rule {
  kernel: string
  op: string
  attributes: string
  attrs: number[]
  states: number
}

const adam = { op: 'adamw', attributes: 'lr,beta1,beta2,eps,weightDecay,decoupled,amsgrad,maximize,step' }
const rmsprop = { op: 'rmsprop', attributes: 'lr,alpha,eps,weightDecay,momentum,centered,maximize' }
const sgd = { op: 'sgd', attributes: 'lr,momentum,dampening,weightDecay,nesterov,maximize,first' }
const rules: Rule[] = [
  { kernel: 'adam', ...adam, attrs: [0.01, 0.9, 0.99, 1e-8, 0.1, 1, 0, 0, 1], states: 2 },
  { kernel: 'amsgrad', ...adam, attrs: [0.01, 0.9, 0.99, 1e-8, 0.1, 1, 1, 0, 1], states: 3 },
  { kernel: 'sgd', ...sgd, attrs: [0.1, 0, 0, 0, 0, 0, 0], states: 0 },
  { kernel: 'sgd_momentum', ...sgd, attrs: [0.1, 0.9, 0, 0, 0, 0, 0], states: 1 },
  { kernel: 'rmsprop', ...rmsprop, attrs: [0.01, 0.9, 1e-3, 0, 0, 0, 0], states: 1 },
  { kernel: 'rmsprop_centered', ...rmsprop, attrs: [0.01, 0.9, 1e-3, 0, 0, 1, 0], states: 2 },
  { kernel: 'rmsprop_momentum', ...rmsprop, attrs: [0.01, 0.9, 1e-3, 0, 0.9, 0, 0], states: 2 },
  { kernel: 'rmsprop_both', ...rmsprop, attrs: [0.01, 0.9, 1e-3, 0, 0.9, 1, 0], states: 3 },
  {
    kernel: 'adagrad',
    op: 'adagrad',
    attributes: 'lr,lrDecay,eps,weightDecay,maximize,step',
    attrs: [0.1, 0.01, 1e-10, 0.1, 0, 1],
    states: 1,
  },
]

const steps: Workload[] = rules.map(({ kernel, op, attributes, attrs, states }) => ({
  name: `${kernel}: a step of [${n}] float32`,
  kernels: {
    [`gradus_optim_${kernel}`]: { loaded: (2 + states) * 4 * n, stored: (1 + states) * 4 * n, bar: 'stream' as const },
  },
  run: () => {
    const param = data([n], 'float32')
    const held = Array.from({ length: states }, (_, i) => data([n], 'float32', 3 + i))
    const operands = [param, data([n], 'float32', 2), ...held, null, null, null]
    runMany(native(op, `${frame},${attributes}`), operands, [param, ...held], [1, 0, 0, ...attrs])
  },
}))

const blocks = n / 256
const inEightBits: Workload = {
  name: `adamw with states in 8 bits: a step of [${n}] float32`,
  kernels: {
    gradus_optim8_adamw: {
      loaded: 2 * 4 * n + 2 * n + 2 * 4 * blocks,
      stored: 4 * n + 2 * n + 2 * 4 * blocks,
      bar: 'stream',
    },
  },
  run: () => {
    const param = data([n], 'float32')
    const states = [
      full([n], 127, { dtype: 'uint8', device: 'cuda' }),
      zeros([n], { dtype: 'uint8', device: 'cuda' }),
      zeros([blocks], { device: 'cuda' }),
      zeros([blocks], { device: 'cuda' }),
    ]
    const operands = [param, data([n], 'float32', 2), ...states, null, null, null]
    const attrs = [1, 0, 0, 0.01, 0.9, 0.99, 1e-8, 0.1, 1, 0, 0, 1]
    runMany(native('adamw8bit', `${frame},${adam.attributes}`), operands, [param, ...states], attrs)
  },
}
const conversions: Workload = {
  name: `to 8 bits and back: [${n}] float32`,
  kernels: {
    gradus_optim8_quantize: { loaded: 4 * n, stored: n + 4 * blocks, bar: 'stream' },
    gradus_optim8_dequantize: { loaded: n + 4 * blocks, stored: 4 * n, bar: 'stream' },
  },
  run: () => {
    const kinds = [
      [[n], code('uint8')],
      [[blocks], 0],
    ] as const
    const [codes, magnitudes] = runMany(native('quantizeBlocks', 'signed'), [data([n], 'float32')], kinds, [1])
    run(native('dequantizeBlocks', 'signed'), [codes!, magnitudes!], [n], 0, [1])
  },
}

const norms = { sum: 1, squares: 2, most: Infinity, least: -Infinity, nonzero: 0, power: 3 }
const lists: Workload[] = [
  ...Object.entries(norms).map(
    ([kernel, p]): Workload => ({
      name: `norm ${p} of [${n}] float32`,
      kernels: {
        [`gradus_multi_tensor_norm_${kernel}`]: {
          loaded: 4 * n,
          stored: (8 * n) / 16384,
          bar: 'stream',
          narrowStores: true,
        },
      },
      run: () => {
        run(native('multiTensorNorm', 'p'), [data([n], 'float32')], [], 0, [p])
      },
    }),
  ),
  {
    name: `[${n}] float16 times a number`,
    kernels: { gradus_multi_tensor_map: { loaded: 2 * n, stored: 2 * n, bar: 'stream' } },
    run: () => {
      const x = data([n], 'float16')
      runMany(native('multiTensorScale', 'factor'), [x], [x], [0.5])
    },
  },
  {
    name: `unscaling [${n}] float16`,
    kernels: { gradus_multi_tensor_unscale: { loaded: 2 * n, stored: 2 * n + (12 * n) / 16384, bar: 'stream' } },
    run: () => {
      const x = data([n], 'float16')
      const results: Tensor[] = [zeros([], { device: 'cuda' }), zeros([], { device: 'cuda' })]
      results.push(zeros([], { dtype: 'int32' as DType, device: 'cuda' }))
      runMany(native('multiTensorUnscale', 'write'), [x, full([], 4, { device: 'cuda' })], [x, ...results], [1])
    },
  },
]

export const overLists: Workload[][] = [[...steps, inEightBits, conversions, ...lists]]
