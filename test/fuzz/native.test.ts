// Random and hostile calls of the addon itself, for every operator of native/ops.def, as no code of lib/ makes them:
// strided, expanded and flipped operands, outputs that are views or overlap inputs, wrong dtypes, ranks, attributes and
// counts, stale handles. A call either runs or is refused with a typed error, whatever it was, and memory stays intact
// (npm run test:sanitize watches that).
//
// A crash leaves no message: so the call that runs is written to build/fuzz.last. To repeat it:
//   GRADUS_FUZZ_OP=<name> GRADUS_FUZZ_SEED=<seed> npx vitest run test/fuzz/native.test.ts
import { closeSync, mkdirSync, openSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { tensor } from '../../lib/index'
import { binding, scratch } from '../../lib/native'
import { keep, type Operand, operand, overlapping, releaseAll } from './operands'
import { generator, type Random } from './random'
import type { Spec } from './recipeKinds'
import { recipeOf } from './recipes'

const table = binding.opTable()
const { GRADUS_FUZZ_ROUNDS, GRADUS_FUZZ_OP: onlyOp, GRADUS_FUZZ_SEED: onlySeed } = process.env
const rounds = Number(GRADUS_FUZZ_ROUNDS ?? 60)

const lastCall = join(__dirname, '../../build/fuzz.last')
mkdirSync(join(__dirname, '../../build'), { recursive: true })
const log = openSync(lastCall, 'w')
afterAll(() => {
  closeSync(log)
  rmSync(lastCall)
})

const huge = [1e9, 2 ** 31, -(2 ** 31), 2 ** 32, 2 ** 53, -(2 ** 53), 2 ** 63, 1e300, -1e300]
const odd = [-1, 0.5, -0.5, 1.5, 9, 64, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]
const hostile = (r: Random): number => r.pick(r.chance(0.5) ? huge : odd)

/** One thing wrong with the operands of a valid call. */
function distort(r: Random, specs: Spec[]): void {
  if (specs.length === 0) return
  const at = r.below(specs.length)
  const spec = specs[at]!
  const kind = r.below(6)
  if (spec === null || kind === 0) {
    specs[at] = r.chance(0.5) ? null : [[r.below(4), r.below(4)], r.below(8)]
  } else if (kind === 1) {
    specs[at] = [spec[0], r.below(8)]
  } else if (kind === 2 && spec[0].length > 0) {
    const dim = r.below(spec[0].length)
    specs[at] = [spec[0].map((n, d) => (d === dim ? r.pick([0, 1, n + 1, Math.max(0, n - 1)]) : n)), spec[1]]
  } else if (kind === 3) {
    specs[at] = [spec[0].length < 8 && r.chance(0.5) ? [1, ...spec[0]] : spec[0].slice(1), spec[1]]
  } else if (kind === 4) {
    const other = r.below(specs.length)
    ;[specs[at], specs[other]] = [specs[other]!, spec]
  } else {
    specs.splice(at, 1)
  }
}

function findLike(operands: (Operand | null)[], sizes: readonly number[]): number {
  return operands.findIndex((each) => each !== null && each.sizes.join() === sizes.join())
}

/** Puts one output of the call into the buffer: a new one, or a tensor that is there. */
function output(r: Random, [sizes, dtype]: Spec & object, inputs: (Operand | null)[]): number[] {
  const kind = r()
  const same = inputs.filter((each): each is Operand => each !== null && each.dtype === dtype)
  if (kind < 0.15 && same.length > 0) {
    const twin = same.find((each) => each.sizes.join() === sizes.join())
    if (twin && r.chance(0.5)) return [twin.handle]
    const view = overlapping(r, r.pick(same), sizes)
    if (view !== null) return [view.handle]
  }
  if (kind < 0.5) return [operand(r, sizes, dtype).handle]
  const like = findLike(inputs, sizes)
  if (like >= 0 && r.chance(0.5)) return [-1 - like, dtype]
  return [0, dtype, sizes.length, ...sizes]
}

/** Prepares a call in the scratch buffer. */
function prepare(r: Random, id: number): void {
  const op = table[id]!
  const { inputs: specs, outputs: results, attributes } = recipeOf(op, r)
  if (r.chance(0.15)) distort(r, specs)
  if (r.chance(0.15)) distort(r, results)
  if (r.chance(0.2) && attributes.length > 0) attributes[r.below(attributes.length)] = hostile(r)
  if (r.chance(0.02)) attributes.push(0)
  const inputs: (Operand | null)[] = []
  for (const spec of specs) {
    const twin = spec && r.chance(0.15) ? inputs.find((each) => each?.dtype === spec[1]) : undefined
    const view = spec && twin ? overlapping(r, twin, spec[0]) : null
    inputs.push(view ?? (spec && operand(r, spec[0], spec[1])))
  }
  const outputs = results.map((spec) => output(r, spec ?? [[1], 0], inputs))
  const handles = inputs.map((each) => each?.handle ?? 0)
  const head = [id, 0, handles.length, outputs.length, attributes.length, 0]
  const words = [...head, ...handles, ...outputs.flat(), ...attributes]
  if (r.chance(0.03)) words[r.below(words.length)] = hostile(r)
  if (r.chance(0.02)) words[6 + r.below(Math.max(1, handles.length))] = stale
  scratch.fill(0, 0, 512)
  scratch.set(words)
}

const stale = (() => {
  const { handle } = operand(generator(1), [2], 0)
  releaseAll()
  return handle
})()

function attempt(id: number, seed: number): boolean {
  const call = `${table[id]!.name}, seed ${seed}`
  writeSync(log, `${call}\n`.padEnd(40), 0)
  prepare(generator(seed), id)
  const newOutputs = countNew()
  const failure = binding.dispatch()
  if (failure === undefined) {
    for (let i = 0; i < newOutputs; i++) keep(scratch[i]!)
  } else {
    expect(failure[0], `${call}: ${failure[1]}`).toBeOneOf([0, 1, 2, 3, 4, 5, 6])
  }
  const late = binding.synchronizeSync(0)
  if (late !== undefined) expect(late[0], `${call}: ${late[1]}`).toBeOneOf([0, 1, 3, 4, 5])
  releaseAll()
  return failure === undefined && late === undefined
}

/** How many handles the prepared call will leave in the buffer. */
function countNew(): number {
  let at = 6 + scratch[2]!
  let count = 0
  for (let i = 0; i < scratch[3]! && at < 512; i++) {
    const kind = scratch[at++]!
    if (kind > 0) continue
    count++
    at += kind < 0 ? 1 : 2 + scratch[at + 1]!
  }
  return count
}

describe('hostile calls of the addon', () => {
  const ops = table.flatMap(({ name }, id) => (onlyOp === undefined || name === onlyOp ? [[name, id] as const] : []))
  it.each(ops)('%s runs or is refused', async (_, id) => {
    let ran = 0
    const first = onlySeed === undefined ? 1 : Number(onlySeed)
    const last = onlySeed === undefined ? rounds : first
    for (let seed = first; seed <= last; seed++) ran += attempt(id, seed) ? 1 : 0
    expect(await tensor([1, 2]).add(1).array()).toEqual([2, 3])
    if (onlySeed === undefined && rounds >= 40) expect(ran).toBeGreaterThan(rounds / 20) // else the recipe tests nothing
  })
})
