// The report of a training run: one HTML file with curves and samples that opens anywhere, also without a network.

import { type MemoryReport, memoryTables } from '../../memoryReport'
import { chartFile, chartStyle, escapeHtml, lineChart, type Series, smooth } from './chart'

/** One optimizer step. */
export interface StepRecord {
  step: number
  /** Training loss in nats a token. */
  loss: number
  learningRate: number
  /** Norm of all gradients before clipping. */
  gradNorm: number
  tokensPerSecond: number
}

/** What happened in a run; the report is drawn from it. */
export interface TrainingHistory {
  title: string
  /** Lines of the table at the top. */
  facts: Record<string, string>
  steps: StepRecord[]
  /** Loss on held-out text, in nats a token. */
  validation: { step: number; loss: number }[]
  /** Text that the model wrote after so many steps. */
  samples: { step: number; text: string }[]
  /** Where the memory of a step went, from `memory.profile`. */
  memory?: MemoryReport
  /** Loss of a model that knows only how frequent each token is. */
  unigramEntropy?: number
}

function column(steps: readonly StepRecord[], key: Exclude<keyof StepRecord, 'step'>): (readonly [number, number])[] {
  return steps.map((record) => [record.step, record[key]] as const)
}

function lossSeries({ steps, validation, unigramEntropy }: TrainingHistory): Series[] {
  const loss = column(steps, 'loss')
  const series: Series[] = [
    { name: 'train, each step', points: loss, color: 0, faint: true },
    { name: 'train', points: smooth(loss, 0.95), color: 0 },
    { name: 'validation', points: validation.map(({ step, loss }) => [step, loss] as const), color: 1 },
  ]
  if (unigramEntropy !== undefined && steps.length > 0) {
    const ends = [steps[0]!.step, steps[steps.length - 1]!.step]
    const points = ends.map((step) => [step, unigramEntropy] as const)
    series.push({ name: 'unigram entropy', points, color: 2, dashed: true })
  }
  return series
}

/** The loss curves as an SVG file, for a page or a README. */
export function lossChart(history: TrainingHistory): Promise<string> {
  return chartFile(lossSeries(history), { title: history.title, width: 820, height: 380 })
}

const pageStyle = `
  :root { color-scheme: light dark; --page: #f5f6f9; --card: #ffffff; --text: #1f2430; --soft: #667085; --edge: #e3e6ee; }
  @media (prefers-color-scheme: dark) {
    :root { --page: #0d0f13; --card: #14171d; --text: #e7eaf0; --soft: #97a1b3; --edge: #262b35; }
  }
  body { margin: 0; padding: 2rem 1rem; background: var(--page); color: var(--text);
    font: 15px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
  main { max-width: 980px; margin: 0 auto; display: grid; gap: 1rem; }
  h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.05rem; margin: 0.5rem 0 0; }
  section { background: var(--card); border: 1px solid var(--edge); border-radius: 10px; padding: 1rem; }
  .pair { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(380px, 1fr)); }
  dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 0.6rem 1.2rem; margin: 0; }
  dt { color: var(--soft); font-size: 0.8rem; } dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; font: 13.5px/1.5 ui-monospace, Menlo, Consolas, monospace; }
  .wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: 0.85rem; }
  th, td { text-align: right; padding: 0.25rem 0.5rem; border-bottom: 1px solid var(--edge); }
  th:first-child, td:first-child { text-align: left; overflow-wrap: anywhere; } th { color: var(--soft); font-weight: 500; }
  figure { margin: 0; } figcaption { color: var(--soft); font-size: 0.8rem; margin-bottom: 0.3rem; }
  svg { width: 100%; height: auto; display: block; }`

function table(rows: readonly (readonly string[])[]): string {
  const [head, ...body] = rows.map((row, i) => {
    const tag = i === 0 ? 'th' : 'td'
    return `<tr>${row.map((cell) => `<${tag}>${escapeHtml(cell)}</${tag}>`).join('')}</tr>`
  })
  return `<div class="wide"><table><thead>${head}</thead><tbody>${body.join('')}</tbody></table></div>`
}

async function memorySection(report: MemoryReport): Promise<string> {
  const points = report.timeline.map((bytes, i) => [i / report.timeline.length, bytes / 2 ** 20] as const)
  const chart = await lineChart([{ name: 'MiB in use', points, color: 1 }], {
    title: 'Memory over one step',
    xLabel: 'allocations',
    width: 480,
    height: 260,
  })
  const [phases, modules] = memoryTables(report).map(table)
  return `<h2>Memory of a step</h2>
<div class="pair"><section>${chart}</section><section>${phases}</section></div>
<section>${modules}</section>`
}

/** The report as the text of an HTML file: self-contained, light or dark as the reader's system.
 *  @example await writeFile('report.html', await htmlReport(history)) */
export async function htmlReport(history: TrainingHistory): Promise<string> {
  const { title, facts, steps, samples } = history
  const small = { width: 480, height: 260 }
  const [loss, rate, norm, speed] = await Promise.all([
    lineChart(lossSeries(history), { title: 'Loss (nats a token)', width: 940, height: 380 }),
    lineChart([{ name: 'learning rate', points: column(steps, 'learningRate'), color: 3 }], {
      title: 'Learning rate',
      ...small,
    }),
    lineChart(
      [
        { name: 'each step', points: column(steps, 'gradNorm'), color: 2, faint: true },
        { name: 'gradient norm before clipping', points: smooth(column(steps, 'gradNorm'), 0.95), color: 2 },
      ],
      { title: 'Gradient norm', ...small },
    ),
    lineChart([{ name: 'tokens/s', points: smooth(column(steps, 'tokensPerSecond'), 0.9), color: 1 }], {
      title: 'Speed',
      ...small,
    }),
  ])
  const rows = Object.entries(facts).map(([name, value]) => `<dt>${escapeHtml(name)}</dt><dd>${escapeHtml(value)}</dd>`)
  const texts = samples.map(
    ({ step, text }) =>
      `<section><figure><figcaption>after ${step} steps</figcaption><pre>${escapeHtml(text)}</pre></figure></section>`,
  )
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(title)}</title>
<style>${pageStyle}${chartStyle}</style>
</head>
<body>
<main>
<h1>${escapeHtml(title)}</h1>
<section><dl>${rows.map((row) => `<div>${row}</div>`).join('')}</dl></section>
<section>${loss}</section>
<div class="pair"><section>${norm}</section><section>${speed}</section><section>${rate}</section></div>
${history.memory === undefined ? '' : await memorySection(history.memory)}
<h2>What it wrote</h2>
${texts.join('\n')}
</main>
</body>
</html>
`
}
