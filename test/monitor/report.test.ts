import { expect, test } from 'vitest'
import { htmlReport, lineChart, lossChart, smooth, type TrainingHistory } from '../../lib/monitor/report'

const history: TrainingHistory = {
  title: 'A <small> run',
  facts: { parameters: '1 M' },
  steps: Array.from({ length: 30 }, (_, i) => ({
    step: i + 1,
    loss: 4 / (i + 1),
    learningRate: 1e-3,
    gradNorm: 1 + (i % 3),
    tokensPerSecond: 1000,
  })),
  validation: [
    { step: 10, loss: 0.5 },
    { step: 30, loss: 0.2 },
  ],
  samples: [{ step: 30, text: 'the whale & "Ahab" <3' }],
  unigramEntropy: 3.1,
}

test('htmlReport: is one file that fetches nothing, with texts escaped', async () => {
  const html = await htmlReport(history)
  expect(html).not.toMatch(/(src|href)=/)
  expect(html.replaceAll('http://www.w3.org/2000/svg', '')).not.toContain('http')
  expect(html).toContain('A &lt;small&gt; run')
  expect(html).toContain('the whale &amp; &quot;Ahab&quot; &lt;3')
  expect(html.match(/<svg /g)).toHaveLength(4)
  expect(html).toContain('unigram entropy')
})

test('lossChart: is an SVG file with its own style', async () => {
  const svg = await lossChart(history)
  expect(svg).toMatch(/^<svg [^>]*><style>/)
  expect(svg).toContain('prefers-color-scheme: dark')
})

test('lineChart: puts points where the scale says', async () => {
  const points = [
    [0, 0],
    [10, 10],
  ] as const
  const svg = await lineChart([{ name: 'a', points }], { title: 't', width: 278, height: 192 })
  // the plot is 200 wide from 58 and 100 high from 52
  expect(svg).toContain('d="M58,152L258,52"')
})

test('lineChart: a value that is not finite breaks the line', async () => {
  const points = [
    [0, 0],
    [1, 1],
    [2, Number.NaN],
    [3, 1],
    [4, 0],
  ] as const
  const path = /d="([^"]*)"/.exec(await lineChart([{ name: 'a', points }], { title: 't' }))![1]!
  expect(path.match(/M/g)).toHaveLength(2)
  expect(path).not.toContain('NaN')
})

test('smooth: keeps a constant as it is, from the first value on', () => {
  const constant = [1, 2, 3].map((at) => [at, 5] as const)
  for (const [, value] of smooth(constant, 0.9)) expect(value).toBeCloseTo(5, 12)
})

test('htmlReport: draws the memory of a step when there is one', async () => {
  const kinds = { weights: 2 ** 20, gradients: 0, optimizer: 0, activations: 3 * 2 ** 20, workspace: 0, other: 0 }
  const memory = {
    peak: 4 * 2 ** 20,
    phases: [{ name: 'forward' as const, peak: 4 * 2 ** 20, kinds }],
    modules: [{ path: 'GPT.h<0>', bytes: 3 * 2 ** 20 }],
    timeline: [2 ** 20, 4 * 2 ** 20],
  }
  expect(await htmlReport(history)).not.toContain('Memory of a step')
  const html = await htmlReport({ ...history, memory })
  expect(html.match(/<svg /g)).toHaveLength(5)
  expect(html).toContain('<tr><td>forward</td><td>1.0</td><td>3.0</td><td>4.0</td></tr>')
  expect(html).toContain('<tr><td>GPT.h&lt;0&gt;</td><td>3.0</td></tr>')
})
