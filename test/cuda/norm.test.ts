// Norms and their gradients on cuda against the cpu: rows in registers, longer rows, and widths that packs do not fit.
import { describe, it } from 'vitest'
import type { DType, Tensor } from '../../lib/index'
import { expectSame } from './alike'
import { code, floats, spread } from './support'

const shapes: [number, number][] = [
  [3, 8],
  [5, 7],
  [40, 64],
  [300, 33],
  [3, 768],
  [2, 3072],
  [2, 4100],
  [2, 9000],
  [1, 1],
]
const tolerance = { ulps: 128, scale: 1 }
const accumulated = { ulps: 256, scale: 16 }
const statistic = (dtype: DType): number => code(dtype === 'float64' ? 'float64' : 'float32')

describe.each([
  { op: 'layerNorm', centers: true },
  { op: 'rmsNorm', centers: false },
])('$op', ({ op, centers }) => {
  const backward = { op: `${op}Backward`, attributes: 'normDims,accumulate,normalized' }

  it.each(floats)('and its gradient in %s', (dtype) => {
    for (const [rows, width] of shapes) {
      const x = spread([rows, width], dtype)
      const g = spread([rows, width], dtype, 2)
      const weight = spread([width], dtype === 'float16' ? 'float32' : dtype, 3)
      const bias = spread([width], dtype, 4)
      const own = [[rows, width], code(dtype)] as const
      const row = [[rows], statistic(dtype)] as const
      const kept = [[rows, width], code(dtype === 'float32' ? 'bfloat16' : dtype)] as const
      for (const parameters of centers
        ? [
            [weight, bias],
            [weight, null],
            [null, null],
          ]
        : [[weight], [null]]) {
        const made = expectSame(
          {
            op,
            attributes: 'eps,normDims',
            attrs: [1e-5, 1],
            inputs: [x, ...parameters],
            outputs: centers ? [own, row, row, kept] : [own, row, kept],
          },
          tolerance,
        )
        const parameterGrad = [[width], code('float32')] as const
        const grads = centers ? [own, parameterGrad, parameterGrad] : [own, parameterGrad]
        const statistics = made.slice(1, -1)
        expectSame(
          { ...backward, attrs: [1, 0, 0], inputs: [g, x, ...statistics, parameters[0]!], outputs: grads },
          accumulated,
        )
        // from what forward left behind, added to a gradient that is there, without gradients of parameters
        const nothing = [[0], code('float32')] as const
        expectSame(
          {
            ...backward,
            attrs: [1, 1, 1],
            inputs: [g, made.at(-1)!, ...(centers ? [null] : []), made.at(-2)!, parameters[0]!],
            outputs: centers
              ? [spread([rows, width], dtype, 5), nothing, nothing]
              : [spread([rows, width], dtype, 5), nothing],
          },
          accumulated,
        )
      }
    }
  })

  it('over several dims, through strides, and of nothing', () => {
    const nothing = [[0], code('float32')] as const
    const call = { op, attributes: 'eps,normDims' }
    const outputs = (shape: number[], rows: number) => {
      const [own, row] = [[shape, code('float32')] as const, [[rows], code('float32')] as const]
      return centers ? [own, row, row, nothing] : [own, row, nothing]
    }
    expectSame({ ...call, attrs: [0.1, 2], inputs: [spread([3, 4, 6])], outputs: outputs([3, 4, 6], 3) }, tolerance)
    const take = (x: Tensor): Tensor => (x.ndim === 2 ? x.transpose(0, 1) : x)
    expectSame({ ...call, attrs: [0.1, 1], inputs: [spread([8, 5])], take, outputs: outputs([5, 8], 5) }, tolerance)
    expectSame({ ...call, attrs: [0.1, 1], inputs: [spread([3, 0])], outputs: outputs([3, 0], 3) })
    expectSame({ ...call, attrs: [0.1, 1], inputs: [spread([0, 3])], outputs: outputs([0, 3], 0) })
  })
})

describe('scaleShift', () => {
  it.each(floats)('of %s', (dtype) => {
    for (const [rows, width] of shapes) {
      for (const to of dtype === 'float64' ? ['float64' as const] : ['float32' as const, 'bfloat16' as const]) {
        expectSame(
          {
            op: 'scaleShift',
            attributes: 'normDims',
            attrs: [1],
            inputs: [spread([rows, width], dtype), spread([width], dtype, 2), spread([width], to, 3)],
            outputs: [[[rows, width], code(to)]],
          },
          tolerance,
        )
      }
    }
  })
})
