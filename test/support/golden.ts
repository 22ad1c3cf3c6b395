// Golden cases of test/fixtures: recorded in PyTorch, compared at the manifest's tolerances.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'vitest'
import { getDefaultDevice, io, type Tensor } from '../../lib/index'

/** One case of the manifest; names are tensors of its file. */
export interface GoldenCase {
  name: string
  group: string
  stage: number
  file: string
  op: string
  // biome-ignore lint/suspicious/noExplicitAny: each group has its own layout
  inputs: Record<string, any>
  // biome-ignore lint/suspicious/noExplicitAny: parameters of any operator
  params: Record<string, any>
  outputs: string[] | Record<string, string>
  grads: Record<string, string>
  grad_outputs?: Record<string, string>
  views?: Record<string, [string, number, number][]>
  param_groups?: { params: string[]; [option: string]: unknown }[] | null
  tolerance: { rtol: number; atol: number }
}

const folder = join(__dirname, '..', 'fixtures')
const files = new Map<string, Promise<Record<string, Tensor>>>()

/** The cases of a group whose name matches. */
export function goldenCases(group: string, pattern: RegExp, stage = 1): GoldenCase[] {
  const { cases } = JSON.parse(readFileSync(join(folder, 'manifest.json'), 'utf8')) as { cases: GoldenCase[] }
  return cases.filter((each) => each.group === group && each.stage <= stage && pattern.test(each.name))
}

/** Tensors of a fixture file, where tests make theirs. */
export function goldenTensors(file: string): Promise<Record<string, Tensor>> {
  const loaded = files.get(file) ?? loadFixture(file)
  files.set(file, loaded)
  return loaded
}

/** The same, read anew. */
export async function loadFixture(file: string): Promise<Record<string, Tensor>> {
  const tensors = Object.entries(await io.loadFile(join(folder, file)))
  return Object.fromEntries(tensors.map(([name, each]) => [name, each.to(getDefaultDevice())]))
}

/** Compares with |x - ref| <= atol + rtol |ref|; NaN and infinities must stand where the reference has them. */
export async function expectClose(
  got: Tensor,
  reference: Tensor | ArrayLike<number>,
  { rtol, atol }: { rtol: number; atol: number },
): Promise<void> {
  const values = await got.data()
  const expected = 'data' in reference ? await (reference as Tensor).data() : (reference as ArrayLike<number>)
  if ('shape' in reference) expect(got.shape).toEqual((reference as Tensor).shape)
  expect(values.length).toBe(expected.length)
  for (let i = 0; i < values.length; i++) {
    const x = Number(values[i])
    const y = Number(expected[i])
    if (x === y || (Number.isNaN(x) && Number.isNaN(y))) continue
    if (!(Math.abs(x - y) <= atol + rtol * Math.abs(y))) expect.fail(`element ${i}: got ${x}, expected ${y}`)
  }
}
