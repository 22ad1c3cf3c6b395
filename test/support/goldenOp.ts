// One golden case of an operator: forward, then backward of sum(out * gout).

import type { Tensor } from '../../lib/index'
import { expectClose, type GoldenCase, goldenTensors } from './golden'

/** How a family calls an operator of the manifest. */
// biome-ignore lint/suspicious/noExplicitAny: parameters of any operator
export type GoldenCall = (inputs: Record<string, Tensor>, params: Record<string, any>) => Tensor

/** Runs the case and compares outputs and gradients at its tolerance. */
export async function expectGolden(golden: GoldenCase, call: GoldenCall): Promise<void> {
  const stored = await goldenTensors(golden.file)
  const inputs: Record<string, Tensor> = {}
  for (const [name, key] of Object.entries(golden.inputs)) {
    const input = stored[key as string]!.clone()
    inputs[name] = golden.grads[name] === undefined ? input : input.requiresGrad_()
  }
  const output = call(inputs, golden.params)
  await expectClose(output, stored[(golden.outputs as string[])[0]!]!, golden.tolerance)
  const gout = golden.grad_outputs?.['0']
  if (gout === undefined || !output.requiresGrad) return
  output.backward({ gradient: stored[gout]! })
  for (const [name, key] of Object.entries(golden.grads)) {
    await expectClose(inputs[name]!.grad!, stored[key]!, golden.tolerance)
  }
}

/** Numbers in (-1, 1) that look random and are the same every time. */
export function spread(count: number, seed = 1): number[] {
  let state = seed
  return Array.from({ length: count }, () => {
    state = (state * 48271) % 2147483647
    return state / 1073741823.5 - 1
  })
}
