// A folder of golden cases: manifest.json and safetensors files, in the format that bench/pytorch's makers use.

import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { getDefaultDevice, io, noGrad, type Tensor } from 'gradus'

/** A number of the manifest; JSON lacks three of them. */
export type ManifestNumber = number | 'inf' | '-inf' | 'nan'

/** One case of manifest.json. Names in inputs, outputs, grads and state are tensors of `file`. */
export interface Case {
  name: string
  group: string
  stage: number
  file: string
  op: string
  // biome-ignore lint/suspicious/noExplicitAny: each group has its own layout, checked where it is read
  inputs: Record<string, any>
  // biome-ignore lint/suspicious/noExplicitAny: parameters of any operator
  params: Record<string, any>
  outputs: string[] | Record<string, string>
  grads: Record<string, string>
  grad_outputs?: Record<string, string>
  state?: Record<string, string>
  views?: Record<string, [string, ...(number | number[])[]][]>
  param_groups?: { params: string[]; [option: string]: unknown }[] | null
  tolerance: Record<string, number>
  model_dir?: string
}

/** Why a case did not pass. */
export class Mismatch extends Error {}

/** A folder of cases with its tensors. */
export class Fixtures {
  readonly cases: Case[]
  private readonly files = new Map<string, Promise<Record<string, Tensor>>>()

  constructor(readonly folder: string) {
    const manifest = join(folder, 'manifest.json')
    if (!existsSync(manifest))
      throw new Error(`parity: no fixtures: got ${folder}, expected a folder with manifest.json`)
    this.cases = JSON.parse(readFileSync(manifest, 'utf8')).cases
  }

  /** Every tensor of a file of the folder, on the current device. */
  tensors(file: string): Promise<Record<string, Tensor>> {
    let loaded = this.files.get(file)
    if (loaded === undefined) {
      loaded = io
        .loadFile(join(this.folder, file))
        .then((tensors) =>
          Object.fromEntries(Object.entries(tensors).map(([name, each]) => [name, each.to(getDefaultDevice())])),
        )
      this.files.set(file, loaded)
    }
    return loaded
  }
}

/** A number as the manifest writes it. */
export function number(value: ManifestNumber): number {
  return typeof value === 'number' ? value : Number(value.replace('inf', 'Infinity').replace('nan', 'NaN'))
}

/** The steps that turn a stored contiguous tensor into the input of an operator, as a leaf. */
export function viewed(stored: Tensor, steps: [string, ...(number | number[])[]][] = []): Tensor {
  return noGrad(() => {
    let x = stored
    for (const [kind, ...args] of steps) {
      if (kind === 'transpose') x = x.transpose(...(args as [number, number]))
      else if (kind === 'slice') x = x.slice(...(args as [number, number, number, number]))
      else if (kind === 'expand') x = x.expand(args[0] as number[])
      else throw new Mismatch(`unknown view ${kind}`)
    }
    return x.detach()
  })
}

function position(flat: number, shape: readonly number[]): string {
  const place: number[] = []
  for (let d = shape.length - 1; d >= 0; d--) {
    place.unshift(flat % shape[d]!)
    flat = Math.floor(flat / shape[d]!)
  }
  return `[${place.join(', ')}]`
}

/** Throws where `got` is farther from `reference` than the tolerance: |got - ref| <= atol + rtol |ref|, and NaN and
 *  infinities only where the reference has them. Returns the largest error. */
export async function compare(
  what: string,
  got: Tensor,
  reference: Tensor,
  { rtol = 0, atol = 0 }: { rtol?: number; atol?: number },
): Promise<number> {
  if (got.shape.join() !== reference.shape.join()) {
    throw new Mismatch(`${what}: shape [${got.shape}], expected [${reference.shape}]`)
  }
  if (got.dtype !== reference.dtype) throw new Mismatch(`${what}: ${got.dtype}, expected ${reference.dtype}`)
  const [values, expected] = [await got.data(), await reference.data()]
  let largest = 0
  let worst = 0
  let at = -1
  for (let i = 0; i < expected.length; i++) {
    const [a, b] = [Number(values[i]), Number(expected[i])]
    if (a === b || (Number.isNaN(a) && Number.isNaN(b))) continue
    const error = Math.abs(a - b)
    largest = Math.max(largest, error)
    // how far beyond the tolerance; one that is not finite where the other is lies beyond any
    const excess = error / (atol + rtol * Math.abs(b))
    if (!(excess <= 1) && (at < 0 || !(excess <= worst))) {
      worst = excess
      at = i
    }
  }
  if (at >= 0) {
    throw new Mismatch(
      `${what}: largest error ${largest.toExponential(2)}, worst at ${position(at, reference.shape)}: got ${values[at]}, expected ${expected[at]} (rtol ${rtol}, atol ${atol.toExponential(1)})`,
    )
  }
  return largest
}
