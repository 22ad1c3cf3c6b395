// The report as a page.

import { architectures, cards } from './architectures'
import type { Measured } from './measure'
import { exceptions, floors, type OnArchitecture, type Report, unmeasured } from './report'

const percent = (share: number): string => `${Number((100 * share).toFixed(1))}`
const ratio = (got: number, wanted: number): string =>
  wanted === 0 ? (got === 0 ? '1.00' : '-') : (got / wanted).toFixed(2)

/** A number for each architecture, or one where all have the same. */
function across(rows: readonly OnArchitecture[], text: (row: OnArchitecture) => string): string {
  const all = rows.map(text)
  return new Set(all).size === 1 ? all[0]! : all.join(' ')
}

/** The most that threads do an operation with: loads and stores of global memory by their bits, products on tensor cores. */
function mix({ instructions: of }: OnArchitecture): string {
  const parts = ['LDG.128', 'LDG.64', 'LDG.32', 'STG.128', 'STG.64', 'STG.32', 'LDGSTS', 'LDSM', 'HMMA', 'FFMA', 'DFMA']
  return parts
    .filter((name) => of[name])
    .map((name) => `${of[name]} ${name}`)
    .join(', ')
}

function resources({ kernels, disassembled }: Report): string {
  const hopper = architectures.findIndex(({ number }) => number === 90)
  const rows = Object.entries(kernels).map(([name, on]) => {
    const cells = [
      `\`${name}\``,
      across(on, ({ registers }) => `${registers}`),
      across(on, ({ stack }) => `${stack}`),
      across(on, ({ spills }) => `${spills}`),
      across(on, ({ sharedBytes }) => `${sharedBytes}`),
      across(on, ({ occupancy }) => percent(occupancy)),
      ...(disassembled ? [`${on[hopper]!.instructions.all ?? 0}`, mix(on[hopper]!)] : []),
    ]
    return `| ${cells.join(' | ')} |`
  })
  const heads = ['kernel', 'registers', 'stack', 'spills', 'shared bytes', 'occupancy %']
  if (disassembled) heads.push('instructions, sm_90', 'of which')
  return [`| ${heads.join(' | ')} |`, `|${'---|'.repeat(heads.length)}`, ...rows].join('\n')
}

const microseconds = (seconds: number): string => (1e6 * seconds).toPrecision(2)

/** The least time for what a kernel has to move and compute, by what bounds it. */
function bounds(kernel: string, { ideal, flops }: Measured): string[] {
  return cards.map(({ bandwidth, float32, float64, tensor }) => {
    const moving = (ideal.compulsory ?? ideal.loaded + ideal.stored) / bandwidth
    const peak = ideal.bar === 'tensor' ? tensor : /float64|f64/.test(kernel) ? float64 : float32
    const computing = (ideal.flops ?? flops) / peak
    return `${microseconds(Math.max(moving, computing))} ${computing > moving ? 'c' : 'm'}`
  })
}

function measurements({ measured }: Report): string {
  const rows = Object.entries(measured).map(([name, m]) => {
    const { ideal } = m
    const operations = m.tensorFlops || m.flops
    const cells = [
      `\`${name}\``,
      m.workload,
      `${ideal.loaded + ideal.stored}`,
      ratio(m.loaded, ideal.loaded),
      ratio(m.stored, ideal.stored),
      percent(m.wideLoads),
      percent(m.wideStores),
      ratio(32 * m.sectors, m.loaded + m.stored),
      m.idealWavefronts === 0 ? '' : ratio(m.wavefronts, m.idealWavefronts),
      `${operations}`,
      ideal.flops === undefined ? '' : ratio(operations, ideal.flops),
      ...bounds(name, m),
    ]
    return `| ${cells.join(' | ')} |`
  })
  const heads = [
    'kernel',
    'workload',
    'ideal bytes',
    'loaded / ideal',
    'stored / ideal',
    '128-bit loads %',
    '128-bit stores %',
    'sectors',
    'wavefronts',
    'operations',
    'operations / ideal',
    ...cards.map(({ name }) => `${name}, µs`),
  ]
  return [`| ${heads.join(' | ')} |`, `|${'---|'.repeat(heads.length)}`, ...rows].join('\n')
}

export function render(report: Report): string {
  const numbers = architectures.map(({ number }) => `sm_${number}`).join(', ')
  const unseen = unmeasured(report)
  return `# CUDA kernels, without a GPU

Made by \`npm run cuda:report\` from the PTX of the build; \`docs/cuda-report.json\` has the same numbers, and instructions for
every architecture. \`npm test\` fails where either differs from the build, or a bar is missed. No time on this page was
measured: it says what kernels ask of a card, not how fast one is.

nvcc and ptxas ${report.toolchain}; ${
    report.disassembled
      ? 'instructions as nvdisasm shows them'
      : 'nvdisasm was not found, so no instructions were counted'
  }.

## Bars

- No spills on any architecture, and no stack but of \`gradus_pointwise_unary_f64\`: the reduction of large arguments of
  sin and cos.
- Occupancy at least as below. These floors are ours: no measurement stands behind them yet, but the reason that each
  states.
- Kernels on tensor cores have HMMA, LDSM and LDGSTS; at most 1.1 wavefronts of shared memory for each that a request needs;
  at most 1.1 x the bytes of their algorithm.
- Pointwise operators, copies, random tensors, norms, softmax, cross entropy, reductions and optimizers: at least 90 % of
  the bytes move in accesses of 128 bits, at most 1.05 x the ideal. Bytes of masks and of bools, and single numbers of rows,
  are left out of it; operands that do not begin on 16 bytes, or whose neighbours lie apart, are read element by element.

| occupancy of | at least % | because |
|---|---|---|
${floors.map(({ what, least, why }) => `| ${what} | ${percent(least)} | ${why} |`).join('\n')}

| not held to 128 bits | because |
|---|---|
${exceptions.map(({ names, why }) => `| ${names} | ${why} |`).join('\n')}

## Resources

Numbers of ${numbers}, in this order, or one where all are the same. Shared memory is what a block has, static and dynamic;
occupancy is the share of a multiprocessor's warps that blocks of the kernel can have at a time. Instructions stand in
the code once, whatever loops do.

${resources(report)}

## Bytes, sectors, conflicts, operations

Counted by the simulator (\`tools/cudasim\`), which runs the same PTX, on the workloads that the table states. Bytes are
those that threads ask for; caches are not modelled. The ideal is that of the algorithm: each operand once, for products
and attention once a tile of the result, for parameters of a norm once a row. Sectors are bytes of the 32-byte sectors
that requests touch, for each byte asked for: below 1 where lanes share a word, above 1 where a request leaves part of
a sector to the next one. Wavefronts of shared memory are those for each that a request needs. Operations are products on
tensor cores, else floating operations of threads, two for a multiply-add.

The last columns are the least time on a card, for operands read from memory once (\`m\`: bound by memory, \`c\`: by
computing), which caches, latencies and launches can only add to:

${cards.map(({ name, source }) => `- ${name}: ${source}`).join('\n')}

${measurements(report)}

${
  unseen.length === 0
    ? 'Every kernel is in the table.'
    : `Not in the table: ${unseen.map((name) => `\`${name}\``).join(', ')}.`
}
`
}
