// How console.log shows a tensor.

import { Device } from '../device'
import type { NestedArray } from './elements'
import type { Tensor } from './tensor'

const edge = 3 // rows and columns shown at each end
const limit = 1000 // above this many elements the middle is left out

function formatNumbers(values: readonly number[], integral: boolean): string[] {
  const finite = values.filter((value) => Number.isFinite(value) && value !== 0).map(Math.abs)
  const largest = Math.max(0, ...finite)
  const smallest = Math.min(Number.POSITIVE_INFINITY, ...finite)
  const scientific = !integral && finite.length > 0 && (largest >= 1e5 || smallest < 1e-4 || largest / smallest > 1e5)
  const whole = values.every((value) => !Number.isFinite(value) || Number.isInteger(value))
  const text = values.map((value) => {
    if (Number.isNaN(value)) return 'nan'
    if (!Number.isFinite(value)) return value > 0 ? 'inf' : '-inf'
    if (integral) return String(value)
    if (scientific) return value.toExponential(4)
    return whole ? `${value.toFixed(0)}.` : value.toFixed(4)
  })
  const width = Math.max(0, ...text.map((each) => each.length))
  return text.map((each) => each.padStart(width))
}

/** @internal `tensor([[1., 2.], [3., 4.]], shape [2, 2], float32)`, with the device when it is not the cpu, shortened in the
 *  middle when large. Waits for the elements. */
export function formatTensor(tensor: Tensor): string {
  const facts = [`shape [${tensor.shape.join(', ')}]`, tensor.dtype]
  if (tensor.device !== Device.cpu) facts.push(`device ${tensor.device}`)
  if (tensor.gradFn !== null) facts.push(`gradFn ${tensor.gradFn}`)
  else if (tensor.requiresGrad) facts.push('requiresGrad')
  if (tensor.isReleased) return `tensor(released, ${facts.join(', ')})`
  let values: NestedArray
  try {
    values = tensor.dtype === 'int64' ? exactArray(tensor) : tensor.arraySync()
  } catch (error) {
    return `tensor(failed: ${(error as Error).message}, ${facts.join(', ')})`
  }
  const shorten = tensor.numel > limit
  const shown: number[] = []
  const visible = (row: NestedArray[]): (NestedArray | null)[] =>
    shorten && row.length > 2 * edge ? [...row.slice(0, edge), null, ...row.slice(-edge)] : row
  const gather = (value: NestedArray): void => {
    if (!Array.isArray(value)) shown.push(Number(value))
    else for (const each of visible(value)) if (each !== null) gather(each)
  }
  gather(values)
  const text =
    tensor.dtype === 'bool'
      ? shown.map((value) => String(value !== 0))
      : formatNumbers(shown, !/float/.test(tensor.dtype))
  let at = 0
  const draw = (value: NestedArray, depth: number): string => {
    if (!Array.isArray(value)) return text[at++]!
    const rows = visible(value).map((each) => (each === null ? '...' : draw(each, depth + 1)))
    const nested = value.some(Array.isArray)
    return `[${rows.join(nested ? `,\n${' '.repeat(8 + depth)}` : ', ')}]`
  }
  return `tensor(${draw(values, 0)}, ${facts.join(', ')})`
}

function exactArray(tensor: Tensor): NestedArray {
  const data = tensor.dataSync()
  let at = 0
  const build = (dim: number): NestedArray =>
    dim === tensor.shape.length ? Number(data[at++]) : Array.from({ length: tensor.shape[dim]! }, () => build(dim + 1))
  return build(0)
}
