// Rotary embedding on cuda against the cpu, in each of its forms.
import { describe, it } from 'vitest'
import type { DType, Tensor } from '../../lib/index'
import { expectSame } from './alike'
import { code, floats, spread } from './support'

const shapes: [x: number[], table: number[]][] = [
  [
    [2, 3, 5, 64],
    [5, 64],
  ],
  [
    [2, 3, 5, 6],
    [5, 6],
  ],
  [
    [4, 32],
    [4, 32],
  ],
  [
    [2, 4, 16],
    [1, 16],
  ],
  [
    [3, 2, 4, 48],
    [3, 1, 4, 48],
  ],
  [[2], [2]],
  [
    [0, 8],
    [1, 8],
  ],
]

describe('rope', () => {
  it.each(floats)('of %s', (dtype) => {
    const tables: DType[] = dtype === 'float64' ? ['float64'] : ['float32', 'float16', 'bfloat16']
    for (const [shape, table] of shapes) {
      for (const of of tables) {
        for (const attrs of [
          [0, 0],
          [0, 1],
          [1, 0],
          [1, 1],
        ]) {
          const inputs = [spread(shape, dtype), spread(table, of, 2), spread(table, of, 3)]
          const outputs = [[shape, code(dtype)] as const]
          expectSame({ op: 'rope', attributes: 'interleaved,inverse', attrs, inputs, outputs }, { ulps: 4, scale: 16 })
        }
      }
    }
  })

  it('through strides, and in place', () => {
    const take = (x: Tensor): Tensor => (x.ndim === 4 ? x.transpose(1, 2) : x)
    const [cos, sin] = [spread([5, 32], 'float32', 2), spread([5, 32], 'float32', 3)]
    for (const attrs of [
      [0, 0],
      [1, 1],
    ]) {
      const call = { op: 'rope', attributes: 'interleaved,inverse', attrs }
      const strided = { ...call, inputs: [spread([2, 5, 3, 32]), cos, sin], take }
      expectSame({ ...strided, outputs: [[[2, 3, 5, 32], code('float32')]] }, { scale: 16 })
      const odd = (x: Tensor): Tensor => (x.ndim === 3 ? x.slice(2, 1, 33) : x)
      expectSame(
        { ...call, inputs: [spread([2, 5, 40]), cos, sin], take: odd, outputs: [[[2, 5, 32], code('float32')]] },
        { scale: 16 },
      )
    }
  })
})
