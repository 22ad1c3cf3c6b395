// Optimizer steps on cuda against the cpu, several in a row, with every condition that the device decides.
import { describe, it } from 'vitest'
import { type DType, full, type Tensor, zeros } from '../../lib/index'
import { native, runMany } from '../../lib/tensor/dispatch'
import { expectAlike, floats, spread } from './support'

const adam = 'count,counted,maxNorm,lr,beta1,beta2,eps,weightDecay,decoupled,amsgrad,maximize,step'
const sgd = 'count,counted,maxNorm,lr,momentum,dampening,weightDecay,nesterov,maximize,first'
const rmsprop = 'count,counted,maxNorm,lr,alpha,eps,weightDecay,momentum,centered,maximize'
const adagrad = 'count,counted,maxNorm,lr,lrDecay,eps,weightDecay,maximize,step'

/** Attributes after the frame's; `host` is where the number of the update goes when the host counts, or -1. */
const rules: [name: string, op: string, attributes: string, states: number, attrs: number[], host: number][] = [
  ['AdamW', 'adamw', adam, 2, [0.01, 0.9, 0.99, 1e-8, 0.1, 1, 0, 0, 1], 8],
  ['Adam, amsgrad', 'adamw', adam, 3, [0.01, 0.9, 0.99, 1e-8, 0.1, 0, 1, 1, 1], 8],
  ['SGD', 'sgd', sgd, 0, [0.1, 0, 0, 0.01, 0, 0, 0], -1],
  ['SGD, momentum', 'sgd', sgd, 1, [0.1, 0.9, 0.1, 0.01, 0, 1, 1], 6],
  ['SGD, nesterov', 'sgd', sgd, 1, [0.1, 0.9, 0, 0, 1, 0, 1], 6],
  ['RMSprop', 'rmsprop', rmsprop, 1, [0.01, 0.9, 1e-3, 0.1, 0, 0, 0], -1],
  ['RMSprop, centered', 'rmsprop', rmsprop, 2, [0.01, 0.9, 1e-3, 0, 0, 1, 0], -1],
  ['RMSprop, momentum', 'rmsprop', rmsprop, 2, [0.01, 0.9, 1e-3, 0, 0.9, 0, 1], -1],
  ['RMSprop, both', 'rmsprop', rmsprop, 3, [0.01, 0.9, 1e-3, 0, 0.9, 1, 0], -1],
  ['Adagrad', 'adagrad', adagrad, 1, [0.1, 0.01, 1e-10, 0.1, 0, 1], 5],
]

const sizes = [1, 7, 64, 1000, 0]
const types: [DType, DType][] = [
  ...floats.map((t): [DType, DType] => [t, t]),
  ['float16', 'float32'],
  ['bfloat16', 'float32'],
]

interface Setting {
  counted: boolean
  scale?: number
  foundInf?: number
  norm?: number
}

/** Everything that three steps leave. */
function steps(place: 'cpu' | 'cuda', rule: (typeof rules)[number], setting: Setting, count: number): Tensor[] {
  const [, name, attributes, states, own, host] = rule
  const kinds = Array.from({ length: count }, (_, i) => ({ n: sizes[i % 5]!, type: types[i % types.length]! }))
  const params = kinds.map(({ n, type }, i) => spread([n], type[0], i + 1).to(place))
  const held = Array.from({ length: states }, () =>
    kinds.map(({ n, type }) => zeros([n], { dtype: type[0] === 'float64' ? 'float64' : 'float32', device: place })),
  ).flat()
  const counts = setting.counted ? kinds.map(() => zeros([], { device: place })) : []
  const number = (x: number | undefined): Tensor | null => (x === undefined ? null : full([], x, { device: place }))
  const results = [...params, ...held, ...counts]
  for (let step = 1; step <= 3; step++) {
    const grads = kinds.map(({ n, type }, i) => spread([n], type[1], 100 * step + i).to(place))
    const attrs = own.slice()
    if (host >= 0) attrs[host] = name === 'sgd' ? Number(step === 1) : step
    runMany(
      native(name, attributes),
      [...params, ...grads, ...held, ...counts, number(setting.scale), number(setting.foundInf), number(setting.norm)],
      results,
      [count, Number(setting.counted), 1.5, ...attrs],
    )
  }
  return results
}

describe('optimizer steps', () => {
  for (const rule of rules) {
    it(rule[0], () => {
      const settings: Setting[] = [
        { counted: false },
        { counted: true, scale: 4, foundInf: 0, norm: 6 },
        { counted: true, foundInf: 1 },
        { counted: false, norm: 0.5 },
      ]
      for (const setting of settings) {
        // more than one launch takes
        for (const count of [6, 60]) {
          const here = steps('cpu', rule, setting, count)
          steps('cuda', rule, setting, count).forEach((x, i) => {
            expectAlike(x, here[i]!, `${JSON.stringify(setting)}, ${count} tensors, result ${i}`, 16, 1)
          })
        }
      }
    })
  }
})
