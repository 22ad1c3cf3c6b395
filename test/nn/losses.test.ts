import { describe, expect, it } from 'vitest'
import { ArgumentError, nn, type Tensor, tensor } from '../../lib/index'
import { expectClose } from '../support/golden'

const tight = { rtol: 1e-10, atol: 1e-12 }
const float64 = (values: number[] | number[][]): Tensor => tensor(values, { dtype: 'float64' })
const mean = (values: number[]): number => values.reduce((a, b) => a + b, 0) / values.length

const logits = [
  [0.2, -1, 3],
  [1, 0.5, -0.5],
  [-2, 0.1, 0.4],
]
const logSoftmax = (row: number[]): number[] => {
  const total = Math.log(row.reduce((sum, v) => sum + Math.exp(v), 0))
  return row.map((v) => v - total)
}

describe('losses', () => {
  it('CrossEntropyLoss ignores, smooths and weights as PyTorch', async () => {
    const target = tensor([2, -100, 1], { dtype: 'int64' })
    const weight = [1, 2, 0.5]
    const smoothing = 0.1
    const kept = [0, 2].map((i) => ({ logp: logSoftmax(logits[i]!), y: i === 0 ? 2 : 1 }))
    const total = kept.reduce((sum, { y }) => sum + weight[y]!, 0)
    const hard = kept.reduce((sum, { logp, y }) => sum - weight[y]! * logp[y]!, 0) / total
    const smooth = kept.reduce((sum, { logp }) => sum - logp.reduce((s, v, c) => s + weight[c]! * v, 0), 0) / total
    const loss = new nn.CrossEntropyLoss({ weight: float64(weight), labelSmoothing: smoothing })
    await expectClose(loss.forward(float64(logits), target), [(1 - smoothing) * hard + (smoothing / 3) * smooth], tight)
    const plain = kept.map(({ logp, y }) => -logp[y]!)
    const none = new nn.CrossEntropyLoss({ reduction: 'none' }).forward(float64(logits), target)
    await expectClose(none, [plain[0]!, 0, plain[1]!], tight)
    await expectClose(new nn.CrossEntropyLoss().forward(float64(logits), target), [mean(plain)], tight)
    const nll = new nn.NLLLoss().forward(float64(logits.map(logSoftmax)), target)
    await expectClose(nll, [mean(plain)], tight)
  })

  it('MSELoss, L1Loss and SmoothL1Loss follow their formulas', async () => {
    const [a, b] = [
      [1, 2, 3],
      [1.5, 0, 3],
    ]
    const d = [0.5, 2, 0]
    await expectClose(new nn.MSELoss().forward(float64(a), float64(b)), [mean(d.map((v) => v * v))], tight)
    await expectClose(new nn.L1Loss({ reduction: 'sum' }).forward(float64(a), float64(b)), [2.5], tight)
    const smooth = d.map((v) => (v < 1 ? 0.5 * v * v : v - 0.5))
    await expectClose(new nn.SmoothL1Loss({ reduction: 'none' }).forward(float64(a), float64(b)), smooth, tight)
  })

  it('BCEWithLogitsLoss does not overflow', async () => {
    const x = [-100, 0.3, 100]
    const y = [0, 1, 0]
    const posWeight = [2, 2, 2]
    const expected = x.map((v, i) => {
      const logSigmoid = v < 0 ? v - Math.log1p(Math.exp(v)) : -Math.log1p(Math.exp(-v))
      return -(posWeight[i]! * y[i]! * logSigmoid + (1 - y[i]!) * (logSigmoid - v))
    })
    const loss = new nn.BCEWithLogitsLoss({ posWeight: float64(posWeight), reduction: 'none' })
    await expectClose(loss.forward(float64(x), float64(y)), expected, tight)
  })

  it('KLDivLoss: a target of 0 adds nothing, batchmean divides by the rows', async () => {
    const input = [Math.log(0.3), Math.log(0.7)]
    const target = [0, 1]
    const loss = new nn.KLDivLoss({ reduction: 'batchmean' }).forward(float64([input]), float64([target]))
    await expectClose(loss, [-Math.log(0.7)], tight)
  })

  it('keeps class weights as state, and refuses unknown words', () => {
    expect(Object.keys(new nn.CrossEntropyLoss({ weight: float64([1, 2]) }).stateDict())).toEqual(['weight'])
    expect(() => new nn.MSELoss({ reduction: 'avg' as never })).toThrow(
      "MSELoss: reduction is not known: got \"avg\", expected one of 'mean', 'sum', 'none'.",
    )
    expect(() => new nn.CrossEntropyLoss({ labelSmoothing: 2 })).toThrow(ArgumentError)
  })
})
