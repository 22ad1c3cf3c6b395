// Random and hostile calls of every operator and method. Nothing may crash the process, hang, or throw anything but a
// typed error; afterwards the library must still compute.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import * as gradus from '../../lib/index'
import { generator } from './random'

const { GradusError, ops, Tensor, tensor, tidy } = gradus

const dtypes = ['float32', 'float64', 'float16', 'bfloat16', 'int64', 'int32', 'uint8', 'bool'] as const
const shapes = [
  [],
  [0],
  [1],
  [3],
  [2, 3],
  [3, 2],
  [1, 3],
  [2, 0, 3],
  [2, 3, 4],
  [2, 1, 4, 4],
  [5, 1],
  [1, 1, 1, 1, 1, 1, 1, 1],
]

function hostile(random: () => number): unknown {
  const pick = <T>(items: readonly T[]): T => items[Math.floor(random() * items.length)]!
  const kind = random()
  if (kind < 0.55) {
    const x = gradus.zeros(pick(shapes), { dtype: pick(dtypes) })
    if (x.ndim > 1 && random() < 0.3) return x.transpose(0, -1)
    if (x.ndim > 0 && x.shape[0]! > 1 && random() < 0.2) return x.slice(0, 1)
    if (random() < 0.15) return x.unsqueeze(0).expand(2, ...x.shape.map(() => -1))
    if (random() < 0.2 && x.dtype.startsWith('float')) x.requiresGrad_()
    if (random() < 0.03) x.dispose()
    return x
  }
  if (kind < 0.75)
    return pick([0, 1, -1, 2, 7, 0.5, -0.5, 1e9, -1e9, 2 ** 31, 2 ** 53, Number.NaN, Number.POSITIVE_INFINITY, 1e308])
  if (kind < 0.85) return pick(shapes as unknown[])
  const cycle: unknown[] = []
  cycle.push(cycle)
  return pick([
    undefined,
    null,
    true,
    'x',
    '',
    ':',
    10n,
    Symbol('x'),
    {},
    cycle,
    [undefined],
    [-1],
    [1.5],
    new Map(),
    () => 1,
    new Float32Array(3),
    { dim: 0 },
    { p: 2 },
    { approximate: 'tanh' },
    { alpha: Number.NaN },
    { dtype: 'float64' },
    Object.create(null),
  ])
}

function attempt(name: string, seed: number, fn: (random: () => number) => unknown): void {
  const random = generator(seed)
  try {
    tidy(() => {
      const result = fn(random)
      if (result instanceof Promise) result.catch(() => {})
    })
  } catch (error) {
    if (!(error instanceof GradusError)) throw new Error(`${name}, seed ${seed}: ${(error as Error)?.stack}`)
  }
}

/** What failed late is typed, and over once it was thrown. */
async function expectUsable(): Promise<void> {
  await gradus
    .device('cpu')
    .synchronize()
    .catch((error) => expect(error).toBeInstanceOf(GradusError))
  expect(await tensor([1, 2]).add(1).array()).toEqual([2, 3])
}

const rounds = Number(process.env.GRADUS_FUZZ_ROUNDS ?? 60)

// A thousand million repeats of an element are a fair wish, and no fast one: here they do not fit.
beforeAll(() => gradus.memory.setLimit(2 ** 28))
afterAll(() => gradus.memory.setLimit(0))

describe('hostile arguments', () => {
  type Loose = (...args: unknown[]) => unknown
  const statics = (name: string, owner: object): [string, Loose][] =>
    Object.getOwnPropertyNames(owner)
      .map((key): [string, unknown] => [`${name}.${key}`, Reflect.get(owner, key)])
      .filter((entry): entry is [string, Loose] => typeof entry[1] === 'function')
      .map(([key, fn]) => [key, fn.bind(owner)])
  const functions = (Object.entries(ops) as unknown as [string, Loose][])
    .filter(([, fn]) => typeof fn === 'function')
    .flatMap(([name, fn]) => (/^[A-Z]/.test(name) ? statics(name, fn) : [[name, fn] satisfies [string, Loose]]))
  it.each(functions)('ops.%s throws only typed errors', async (name, fn) => {
    for (let seed = 1; seed <= rounds; seed++) {
      attempt(name, seed, (random) => fn(...Array.from({ length: Math.floor(random() * 5) }, () => hostile(random))))
    }
    await expectUsable()
  })

  const methods = Object.getOwnPropertyNames(Tensor.prototype).filter(
    (name) =>
      name !== 'constructor' &&
      typeof Object.getOwnPropertyDescriptor(Tensor.prototype, name)?.value === 'function' &&
      !name.startsWith('_'),
  )
  it.each(methods)('tensor.%s throws only typed errors', async (name) => {
    for (let seed = 1; seed <= rounds; seed++) {
      attempt(name, seed, (random) => {
        const self = gradus.ones(shapes[Math.floor(random() * shapes.length)]!, {
          dtype: dtypes[Math.floor(random() * 8)]!,
        })
        const method = (self as unknown as Record<string, (...args: unknown[]) => unknown>)[name]!
        return method.call(self, ...Array.from({ length: Math.floor(random() * 4) }, () => hostile(random)))
      })
    }
    await expectUsable()
  })
})
