// Line charts as SVG text: no browser, no canvas, nothing fetched when the file is opened.

/** A line of a chart. Points whose value is not finite break the line. */
export interface Series {
  name: string
  points: readonly (readonly [x: number, y: number])[]
  /** Which of the palette's colours, 0 to 3. Default: its place in the list. */
  color?: number
  /** Drawn thin and pale, for a noisy line under its average. */
  faint?: boolean
  /** Drawn as a dashed line, for references. */
  dashed?: boolean
}

/** Texts and size of a chart. */
export interface ChartOptions {
  title: string
  xLabel?: string
  /** In SVG units. Default 640. */
  width?: number
  /** In SVG units. Default 300. */
  height?: number
}

interface Palette {
  paper: string
  ink: string
  muted: string
  grid: string
  lines: readonly string[]
}

const light: Palette = {
  paper: '#ffffff',
  ink: '#1f2430',
  muted: '#667085',
  grid: '#e6e8ee',
  lines: ['#2563eb', '#d9480f', '#0f8a6c', '#7c4dcc'],
}

const dark: Palette = {
  paper: '#14171d',
  ink: '#e7eaf0',
  muted: '#97a1b3',
  grid: '#2b303b',
  lines: ['#7aa7ff', '#ff9d6b', '#4fd1ac', '#b79bff'],
}

// plain rules without custom properties, which renderers outside of browsers do not know
const colors = ({ paper, ink, muted, grid, lines }: Palette): string =>
  [
    `.chart .paper { fill: ${paper}; }`,
    `.chart text { fill: ${muted}; }`,
    `.chart .title { fill: ${ink}; }`,
    `.chart .grid { stroke: ${grid}; }`,
    ...lines.map((color, i) => `.chart .s${i} { stroke: ${color}; } .chart text.l${i} { fill: ${color}; }`),
  ].join('\n')

/** Colours and fonts of charts, light and dark; goes once into a page, or into each stand-alone SVG. */
export const chartStyle = `
.chart { font-family: system-ui, -apple-system, "Segoe UI", sans-serif; }
.chart text { font-size: 12px; }
.chart .title { font-size: 14px; font-weight: 600; }
.chart .grid { stroke-width: 1; }
.chart .line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.chart .faint { stroke-width: 1; opacity: 0.35; }
.chart .dashed { stroke-width: 1.5; stroke-dasharray: 5 4; }
${colors(light)}
@media (prefers-color-scheme: dark) {
${colors(dark)}
}
`

const margin = { top: 52, right: 20, bottom: 40, left: 58 }

/** @internal */
export function escapeHtml(text: string): string {
  return text.replace(/[&<>"]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c]!)
}

function shortNumber(value: number): string {
  if (value === 0) return '0'
  const size = Math.abs(value)
  if (size >= 1e6) return `${+(value / 1e6).toPrecision(3)}M`
  if (size >= 1e4) return `${+(value / 1e3).toPrecision(3)}k`
  return size < 1e-3 ? value.toExponential(1).replace('.0e', 'e') : String(+value.toPrecision(3))
}

function extent(values: readonly number[]): [number, number] {
  let low = Number.POSITIVE_INFINITY
  let high = Number.NEGATIVE_INFINITY
  for (const value of values) {
    if (!Number.isFinite(value)) continue
    low = Math.min(low, value)
    high = Math.max(high, value)
  }
  if (low > high) return [0, 1]
  return low === high ? [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2] : [low, high]
}

/** A line chart as an `<svg>` element.
 *  @example await lineChart([{ name: 'loss', points: [[0, 5], [1, 4]] }], { title: 'Loss' }) // '<svg …' */
export async function lineChart(series: readonly Series[], options: ChartOptions): Promise<string> {
  // published as ES modules only, which require() of Node 20 cannot load
  const [{ scaleLinear }, { line }] = await Promise.all([import('d3-scale'), import('d3-shape')])
  const { title, xLabel = 'step', width = 640, height = 300 } = options
  const x = scaleLinear()
    .domain(extent(series.flatMap(({ points }) => points.map(([at]) => at))))
    .range([margin.left, width - margin.right])
  const y = scaleLinear()
    .domain(extent(series.flatMap(({ points }) => points.map(([, value]) => value))))
    .nice(5)
    .range([height - margin.bottom, margin.top])
  const path = line<readonly [number, number]>()
    .defined(([, value]) => Number.isFinite(value))
    .x(([at]) => +x(at).toFixed(1))
    .y(([, value]) => +y(value).toFixed(1))

  const parts = [`<text class="title" x="${margin.left}" y="20">${escapeHtml(title)}</text>`]
  for (const tick of y.ticks(5)) {
    const at = y(tick).toFixed(1)
    parts.push(
      `<line class="grid" x1="${margin.left}" x2="${width - margin.right}" y1="${at}" y2="${at}"/>`,
      `<text x="${margin.left - 8}" y="${at}" dy="0.35em" text-anchor="end">${shortNumber(tick)}</text>`,
    )
  }
  for (const tick of x.ticks(6)) {
    const at = x(tick).toFixed(1)
    parts.push(`<text x="${at}" y="${height - margin.bottom + 18}" text-anchor="middle">${shortNumber(tick)}</text>`)
  }
  parts.push(`<text x="${width - margin.right}" y="${height - 6}" text-anchor="end">${escapeHtml(xLabel)}</text>`)

  let legendAt = margin.left
  series.forEach(({ name, points, color, faint, dashed }, i) => {
    const index = (color ?? i) % 4
    const style = `${faint ? ' faint' : ''}${dashed ? ' dashed' : ''}`
    parts.push(
      `<path class="line s${index}${style}" d="${path(points) ?? ''}"><title>${escapeHtml(name)}</title></path>`,
    )
    if (faint) return
    parts.push(
      `<line class="line s${index}${style}" x1="${legendAt}" x2="${legendAt + 18}" y1="36" y2="36"/>`,
      `<text class="l${index}" x="${legendAt + 24}" y="40">${escapeHtml(name)}</text>`,
    )
    legendAt += 44 + name.length * 7
  })
  const label = escapeHtml(`${title}: ${series.map(({ name }) => name).join(', ')}`)
  return `<svg class="chart" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img" aria-label="${label}">${parts.join('')}</svg>`
}

/** A chart as a file of its own: with its style and background. */
export async function chartFile(series: readonly Series[], options: ChartOptions): Promise<string> {
  const svg = await lineChart(series, options)
  return svg.replace('>', `><style>${chartStyle}</style><rect class="paper" width="100%" height="100%" rx="8"/>`)
}

/** Exponential moving average, with the bias of the first values removed.
 *  @see Kingma & Ba 2014, arXiv:1412.6980, section 3 */
export function smooth(points: readonly (readonly [number, number])[], decay: number): (readonly [number, number])[] {
  let average = 0
  let weight = 0
  return points.map(([at, value]) => {
    if (Number.isFinite(value)) {
      average = decay * average + (1 - decay) * value
      weight = decay * weight + (1 - decay)
    }
    return [at, average / weight] as const
  })
}
