// Cross entropy on cuda against the cpu.
import { describe, expect, it } from 'vitest'
import { type DType, IndexError, type Tensor, tensor } from '../../lib/index'
import { native, type Output, runMany } from '../../lib/tensor/dispatch'
import { expectSame, type Tolerance } from './alike'
import { code, computedUnit, cuda, expectAlike, floats, leastNormal, spread, sumUnits, unitOf } from './support'

const attributes = 'ignoreIndex,labelSmoothing,reduction'
const statistic = (dtype: DType): number => code(dtype === 'float64' ? 'float64' : 'float32')

function targets(rows: number, classes: number, dtype: DType): Tensor {
  const numbers = Array.from({ length: rows }, (_, i) => (i % 5 === 3 ? 250 : (i * 37) % Math.min(classes, 200)))
  return tensor(numbers, { dtype })
}

/** How far the gradient p e^d - s w - h [c = y], d = x - logsumexp, may be off. */
function ofGradient(inputs: (Tensor | null)[], smoothing: number): Tolerance {
  const numbers = inputs.map((x) => Float64Array.from((x?.to('float64').dataSync() ?? []) as Float64Array))
  const [g, logits, target, logsumexp, [divisor], given] = numbers as [
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
    [number],
    Float64Array,
  ]
  const { dtype, shape } = inputs[1]!
  const [rows, classes] = shape as [number, number]
  const weights = given.length > 0 ? given : new Float64Array(classes).fill(1)
  const soft = smoothing / classes
  const ofAll = soft * weights.reduce((sum, w) => sum + w, 0)
  // e^d is off by 5 units and the roundings of the argument in the cpu's, 0.7 |d|; p, its product with e^d and their
  // difference with s w round once or twice each, and h once. float64 shows that p's sum of weights has an order, too.
  const ofWeights = dtype === 'float64' && given.length > 0 ? sumUnits(classes) : 0
  const beside = new Float64Array(rows * classes)
  for (let r = 0; r < rows; r++) {
    const incoming = g[g.length === 1 ? 0 : r]! / divisor
    const own = (1 - smoothing) * (weights[target[r]!] ?? 0)
    for (let c = 0; c < classes; c++) {
      const d = logits[r * classes + c]! - logsumexp[r]!
      const [share, shift] = [incoming * (own + ofAll) * Math.exp(d), incoming * soft * weights[c]!]
      const hard = c === target[r] ? incoming * own : 0
      const size = Math.abs(share - shift - hard)
      const errors = Math.abs(share) * (8 + 0.7 * Math.abs(d) + ofWeights) + 3 * Math.abs(shift) + Math.abs(hard)
      // and its own rounding to the dtype; the largest g, weights and shares do not meet, so never more than 8 units of 1
      const rounding = unitOf(dtype) * Math.max(size, leastNormal(dtype))
      beside[r * classes + c] = Math.min(rounding + computedUnit(dtype) * errors, 8 * unitOf(dtype) * Math.max(size, 1))
    }
  }
  return { ulps: 0, beside }
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
          const inputs = [g, logits, target, logsumexp!, divisor!, weight]
          const outputs: Output[] = [[[rows, classes], code(dtype)]]
          expectSame({ op: 'crossEntropyBackward', attributes, attrs, inputs, outputs }, ofGradient(inputs, smoothing))
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
