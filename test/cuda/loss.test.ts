// Cross entropy on cuda against the cpu.
import { describe, expect, it } from 'vitest'
import { type DType, IndexError, type Tensor, tensor } from '../../lib/index'
import { native, type Output, runMany } from '../../lib/tensor/dispatch'
import { expectSame } from './alike'
import { code, cuda, expectAlike, floats, spread } from './support'

const attributes = 'ignoreIndex,labelSmoothing,reduction'
const statistic = (dtype: DType): number => code(dtype === 'float64' ? 'float64' : 'float32')

function targets(rows: number, classes: number, dtype: DType): Tensor {
  const numbers = Array.from({ length: rows }, (_, i) => (i % 5 === 3 ? 250 : (i * 37) % Math.min(classes, 200)))
  return tensor(numbers, { dtype })
}

describe('crossEntropy', () => {
  for (const [name, reduction] of [
    ['none', 0],
    ['mean', 1],
    ['sum', 2],
  ] as const) {
    it.each(floats)(`with reduction ${name} and its gradient in %s`, (dtype) => {
      for (const [rows, classes] of [
        [4, 8],
        [9, 5],
        [300, 3],
        [6, 1000],
        [3, 5003],
        [1, 1],
        [0, 4],
      ] as const) {
        for (const [smoothing, weighted, index] of [
          [0, false, 'int64'],
          [0, true, 'int32'],
          [0.1, false, 'int32'],
          [0.2, true, 'uint8'],
        ] as const) {
          const logits = spread([rows, classes], dtype)
          const target = targets(rows, classes, index)
          const weight = weighted ? spread([classes], 'float32', 3).abs() : null
          const attrs = [250, smoothing, reduction]
          const scalar = [[], statistic(dtype)] as const
          const loss: Output = reduction === 0 ? [[rows], code(dtype)] : [[], code(dtype)]
          const [, logsumexp, divisor] = expectSame(
            {
              op: 'crossEntropy',
              attributes,
              attrs,
              inputs: [logits, target, weight],
              outputs: [loss, [[rows], statistic(dtype)], scalar],
            },
            { ulps: 64, scale: 1 },
          )
          const g = reduction === 0 ? spread([rows], dtype, 5) : tensor(0.5).to(dtype)
          expectSame(
            {
              op: 'crossEntropyBackward',
              attributes,
              attrs,
              inputs: [g, logits, target, logsumexp!, divisor!, weight],
              outputs: [[[rows, classes], code(dtype)]],
            },
            // a share less 1, times g: what rounds is of the size of g
            { ulps: 8, scale: 1 },
          )
        }
      }
    })
  }

  it('through strides', () => {
    const take = (x: Tensor): Tensor => (x.ndim === 2 ? x.transpose(0, 1) : x)
    const outputs: Output[] = [
      [[], code('float32')],
      [[5], code('float32')],
      [[], code('float32')],
    ]
    const inputs = [spread([7, 5]), tensor([0, 6, 2, 3, 1], { dtype: 'int64' })]
    expectSame({ op: 'crossEntropy', attributes, attrs: [-100, 0.1, 1], inputs, outputs, take }, { ulps: 16 })
  })

  it('writes its gradient over the logits', () => {
    const row = native('crossEntropyBackward', attributes)
    const inputs = [
      tensor(1),
      spread([6, 40]),
      tensor([0, 1, 2, 3, 4, 39], { dtype: 'int64' }),
      spread([6]).add(4),
      tensor(6),
    ]
    const there = inputs.map((x) => x.to('cuda'))
    const here = inputs.map((x) => x.clone())
    runMany(row, there, [there[1]!], [-100, 0, 1])
    runMany(row, here, [here[1]!], [-100, 0, 1])
    expectAlike(there[1]!, here[1]!, 'the gradient', 16)
  })

  it('reports a target that is out of range, and leaves logits alone', async () => {
    const logits = spread([3, 4]).to('cuda')
    const target = tensor([0, 4, 1], { dtype: 'int64', device: cuda })
    const outputs: Output[] = [
      [[], code('float32')],
      [[3], code('float32')],
      [[], code('float32')],
    ]
    const [loss] = runMany(native('crossEntropy', attributes), [logits, target], outputs, [-100, 0, 1])
    await expect(loss!.array()).rejects.toThrow(IndexError)
    const before = logits.dataSync()
    const operands = [tensor(1), logits, target, tensor([2, 2, 2]), tensor(3)].map((x) => x.to('cuda'))
    runMany(
      native('crossEntropyBackward', attributes),
      [operands[0]!, logits, target, operands[3]!, operands[4]!],
      [logits],
      [-100, 0, 1],
    )
    await expect(logits.array()).rejects.toThrow(
      'crossEntropyBackward: target out of range: got 4 in row 1, expected 0 to 3',
    )
    expect(logits.dataSync()).toEqual(before)
  })
})
