// Golden cases of test/fixtures: forward and backward of one operator against PyTorch's values.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'vitest'
import type { Tensor } from '../../lib/index'
import { loadFixture } from '../support/golden'

const folder = join(__dirname, '../fixtures')

/** One case of manifest.json. */
export interface GoldenCase {
  name: string
  op: string
  file: string
  stage: number
  inputs: Record<string, string>
  params: Params
  outputs: string[]
  grads: Record<string, string>
  grad_outputs?: Record<string, string>
  views?: Record<string, [string, ...(number | number[])[]][]>
  tolerance: { rtol: number; atol: number }
}

// biome-ignore lint/suspicious/noExplicitAny: parameters of any operator, as the manifest has them
type Params = Record<string, any>

/** Operators by the name that the manifest gives them. */
export type GoldenOps = Record<string, (inputs: Record<string, Tensor>, params: Params) => Tensor | Tensor[]>

/** All cases of these operators. */
export function goldenCases(table: GoldenOps): GoldenCase[] {
  const { cases } = JSON.parse(readFileSync(join(folder, 'manifest.json'), 'utf8')) as { cases: GoldenCase[] }
  return cases.filter((each) => each.op in table)
}

/** Expects |got - reference| <= atol + rtol |reference| everywhere, and the same infinities and NaN. */
export function expectClose(what: string, got: Tensor, reference: Tensor, rtol: number, atol: number): void {
  expect(got.shape, what).toEqual(reference.shape)
  const values = got.dataSync()
  const wanted = reference.dataSync()
  for (let i = 0; i < wanted.length; i++) {
    const value = Number(values[i])
    const target = Number(wanted[i])
    const close =
      Object.is(value, target) || value === target || Math.abs(value - target) <= atol + rtol * Math.abs(target)
    if (!close) expect.fail(`${what}: element ${i} is ${value}, expected ${target}`)
  }
}

/** Runs a case forward and backward. */
export async function runGolden(each: GoldenCase, table: GoldenOps): Promise<void> {
  const stored = await loadFixture(each.file)
  const inputs: Record<string, Tensor> = {}
  for (const [name, key] of Object.entries(each.inputs)) {
    let x = stored[key]!
    for (const [kind, ...args] of each.views?.[name] ?? []) {
      if (kind === 'transpose') x = x.transpose(args[0] as number, args[1] as number)
      else if (kind === 'slice') x = x.slice(...(args as [number, number, number, number]))
      else x = x.expand(args[0] as number[])
    }
    inputs[name] = x.detach().requiresGrad_(name in each.grads)
  }
  const result = table[each.op]!(inputs, each.params)
  const outputs = Array.isArray(result) ? result : [result]
  const { rtol, atol } = each.tolerance
  each.outputs.forEach((key, i) => {
    expectClose(`output ${i}`, outputs[i]!, stored[key]!, rtol, atol)
  })
  if (Object.keys(each.grads).length === 0) return
  const parts = Object.entries(each.grad_outputs ?? {}).map(([i, key]) => outputs[Number(i)]!.mul(stored[key]!).sum())
  parts.reduce((a, b) => a.add(b)).backward()
  for (const [name, key] of Object.entries(each.grads)) {
    expectClose(`gradient of ${name}`, inputs[name]!.grad!, stored[key]!, rtol, atol)
  }
}
