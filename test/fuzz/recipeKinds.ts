// Kinds of recipes: the operands that whole families of operators accept.
import { logitChunkBytes } from '../../lib/ops/crossEntropy'
import type { Random } from './random'

/** Sizes and dtype code of an operand; null for an optional one that is absent. */
export type Spec = readonly [sizes: readonly number[], dtype: number] | null

export interface Recipe {
  inputs: Spec[]
  outputs: Spec[]
  attributes: number[]
}

export const f32 = 0
const f64 = 1
const f16 = 2
const bf16 = 3
export const i64 = 4
export const i32 = 5
const u8 = 6
export const bool = 7
export const floating = [0, 0, 0, 1, 2, 3]
export const indexing = [4, 4, 5, 6]
export const every = [0, 1, 2, 3, 4, 5, 6, 7]
export const statistics = (dtype: number): number => (dtype === f64 ? f64 : f32)
const product = (sizes: readonly number[]): number => sizes.reduce((a, b) => a * b, 1)

export const smallest = [0, 1, 1, 2, 3, 4, 5]
const small = [...smallest, 8, 15, 16, 17, 31, 33]
const wide = [1, 2, 7, 16, 63, 64, 65, 130]
export const size = (r: Random): number => r.pick(r.chance(0.1) ? wide : small)
/** Of a sum: kernels take long ones in another way, and in several steps. */
const depth = (r: Random): number => (r.chance(0.15) ? r.pick([128, 131, 1030, 2050]) : size(r))

export function shape(r: Random, least = 0): number[] {
  const rank = Math.max(least, r.chance(0.05) ? r.below(9) : r.below(5))
  const sizes: number[] = []
  for (let d = 0; d < rank; d++) sizes.push(product(sizes) > 200 ? r.below(3) : size(r))
  return sizes
}

/** A shape that broadcasts to the given one. */
const narrower = (r: Random, sizes: readonly number[]): number[] =>
  sizes.slice(r.chance(0.2) ? r.below(sizes.length + 1) : 0).map((n) => (r.chance(0.2) ? 1 : n))

export const dimOf = (r: Random, sizes: readonly number[]): number => r.below(Math.max(1, sizes.length))
export const resized = (sizes: readonly number[], dim: number, n: number): number[] =>
  sizes.map((s, d) => (d === dim ? n : s))
export const number = (r: Random): number => r.pick([0, 1, -1, 0.5, 2, 3, -2.5])
export const flag = (r: Random): number => r.below(2)
export const stream = (r: Random): number[] => [r.below(1000), r.below(1000)]

export type Make = (r: Random) => Recipe

export const pointwise =
  (inputs: number, attributes: number, result: readonly number[], first: readonly number[] = every): Make =>
  (r) => {
    const out = shape(r)
    const operands = Array.from({ length: inputs }, (_, i): Spec => [narrower(r, out), r.pick(i === 0 ? first : every)])
    return {
      inputs: operands,
      outputs: [[out, r.pick(result)]],
      attributes: Array.from({ length: attributes }, () => number(r)),
    }
  }

/** One operand or two. */
export const binary =
  (attributes: number, result: readonly number[]): Make =>
  (r) =>
    pointwise(1 + r.below(2), attributes, result)(r)

export const reduction =
  (result: (r: Random, dtype: number) => number, source: readonly number[] = every, more = 0): Make =>
  (r) => {
    const sizes = shape(r)
    const dims = r.below(1 << sizes.length)
    const dtype = r.pick(source)
    const kept = sizes.flatMap((n, d) => ((dims >> d) & 1 ? [] : [n]))
    return {
      inputs: [[sizes, dtype]],
      outputs: [[kept, result(r, dtype)]],
      attributes: more ? [dims, number(r)] : [dims],
    }
  }

export const extreme =
  (outputs: number): Make =>
  (r) => {
    const sizes = shape(r)
    const dim = dimOf(r, sizes)
    const dtype = r.pick(every)
    const flat = outputs === 1 && r.chance(0.2)
    const kept = flat ? [] : sizes.filter((_, d) => d !== dim)
    const both: Spec[] = [
      [kept, dtype],
      [kept, i64],
    ]
    return { inputs: [[sizes, dtype]], outputs: both.slice(2 - outputs), attributes: [flat ? -1 : dim] }
  }

export const ordered =
  (partial: boolean): Make =>
  (r) => {
    const sizes = shape(r)
    const dim = dimOf(r, sizes)
    const dtype = r.pick(every)
    const kept = partial ? resized(sizes, dim, r.below((sizes[dim] ?? 1) + 1)) : sizes
    return {
      inputs: [[sizes, dtype]],
      outputs: [
        [kept, dtype],
        [kept, i64],
      ],
      attributes: [dim, flag(r)],
    }
  }

export const softmax =
  (inputs: number): Make =>
  (r) => {
    const spec: Spec = [shape(r), r.pick(floating)]
    return { inputs: Array(inputs).fill(spec), outputs: [spec], attributes: [dimOf(r, spec[0])] }
  }

export const norm =
  (centered: boolean, backward: boolean): Make =>
  (r) => {
    const x: Spec = [shape(r, 1), r.pick(floating)]
    const normDims = 1 + r.below(x[0].length)
    const split = x[0].length - normDims
    const rows: Spec = [x[0].slice(0, split), statistics(x[1])]
    const parameter = (): Spec => (r.chance(0.3) ? null : [x[0].slice(split), r.pick(floating)])
    const means: Spec[] = centered ? [rows, rows] : [rows]
    const normalized: Spec = [x[0], mixedWith(x[1], r)]
    if (!backward) {
      const inputs = centered ? [x, parameter(), parameter()] : [x, parameter()]
      const last: Spec = r.chance(0.5) ? normalized : [[0], x[1]]
      return { inputs, outputs: [x, ...means, last], attributes: [1e-5, normDims] }
    }
    const isNormalized = flag(r)
    if (isNormalized && centered) means[0] = null
    const gradient = (): Spec => [r.chance(0.3) ? [0] : x[0].slice(split), r.pick(floating)]
    return {
      inputs: [x, isNormalized ? normalized : x, ...means, parameter()],
      outputs: centered ? [x, gradient(), gradient()] : [x, gradient()],
      attributes: [normDims, flag(r), isNormalized],
    }
  }

export const scaleShift: Make = (r) => {
  const x: Spec = [shape(r, 1), r.pick(floating)]
  const normDims = 1 + r.below(x[0].length)
  const parameter = (): Spec => (r.chance(0.3) ? null : [x[0].slice(x[0].length - normDims), r.pick(floating)])
  return { inputs: [x, parameter(), parameter()], outputs: [[x[0], mixedWith(x[1], r)]], attributes: [normDims] }
}

/** An index of x: as large in every dim but `dim`. */
export function indexed(
  r: Random,
  dtypes: readonly number[] = every,
): { x: Spec & object; index: Spec & object; dim: number } {
  const sizes = shape(r)
  const dim = dimOf(r, sizes)
  const index = sizes.map((n, d) => (d === dim ? size(r) : r.chance(0.2) ? r.below(n + 1) : n))
  return { x: [sizes, r.pick(dtypes)], index: [index, r.pick(indexing)], dim }
}

export const selected =
  (adds: boolean): Make =>
  (r) => {
    const { x, dim } = indexed(r)
    const n = x[0].length > 0 ? size(r) : 1
    const part: Spec = [resized(x[0], dim, n), x[1]]
    const index: Spec = [[n], r.pick(indexing)]
    return adds
      ? { inputs: [x, index, part], outputs: [x], attributes: [dim, number(r)] }
      : { inputs: [x, index], outputs: [part], attributes: [dim] }
  }

export const drawn =
  (dtypes: readonly number[], inputs: number, more: (r: Random) => number[]): Make =>
  (r) => {
    const spec: Spec = [shape(r), r.pick(dtypes)]
    return { inputs: Array(inputs).fill(spec), outputs: [spec], attributes: [...stream(r), ...more(r)] }
  }

export const matmul: Make = (r) => {
  const [m, k, n] = [size(r), depth(r), size(r)]
  const batch = Array.from({ length: r.below(3) }, () => r.pick(smallest))
  const dtype = r.pick([...floating, 4, 5, 6])
  const integral = dtype >= i64
  return {
    inputs: [
      [[...narrower(r, batch), m, k], dtype],
      [[...narrower(r, batch), k, n], integral ? dtype : mixedWith(dtype, r)],
    ],
    outputs: [[[...batch, m, n], integral || dtype === f64 ? dtype : r.pick([0, 2, 3])]],
    attributes: integral ? [1, 0] : [number(r), number(r)],
  }
}

/** Floating dtypes that mix in one product. */
const mixedWith = (dtype: number, r: Random): number => (dtype === f64 ? f64 : r.pick([dtype, 0, 2, 3]))
export const mixed = (r: Random): (() => number) => (r.chance(0.2) ? () => f64 : () => r.pick([0, 0, 2, 3]))

/** x may have another dtype than the output, which is the residual's. */
export const dropout =
  (residual: boolean): Make =>
  (r) => {
    const [sizes, dtype] = [shape(r), r.pick(floating)]
    const out: Spec = [sizes, mixedWith(dtype, r)]
    const inputs: Spec[] = [[sizes, dtype]]
    if (residual) inputs.push(out)
    return { inputs, outputs: [out], attributes: [...stream(r), r.pick([0, 0.3, 1])] }
  }

export const linear: Make = (r) => {
  const lead = shape(r).slice(0, 2)
  const [k, n, type] = [depth(r), size(r), mixed(r)]
  const out: Spec = [[...lead, n], type()]
  const bias: Spec[] = r.chance(0.5) ? [] : [r.chance(0.2) ? null : [[n], type()]]
  return { inputs: [[[...lead, k], type()], [[n, k], type()], ...bias], outputs: [out], attributes: [] }
}

export const linearBackwardWeight: Make = (r) => {
  const lead = r.chance(0.3) ? [depth(r)] : shape(r).slice(0, 2)
  const [k, n, type, bias] = [size(r), size(r), mixed(r), flag(r)]
  return {
    inputs: [
      [[...lead, n], type()],
      [[...lead, k], type()],
    ],
    outputs: [
      [[n, k], type()],
      [[bias ? n : 0], type()],
    ],
    attributes: [flag(r), bias],
  }
}

export const mlp =
  (backward: boolean): Make =>
  (r) => {
    const lead = shape(r).slice(0, 2)
    const [k, h, n, type] = [size(r), size(r), size(r), mixed(r)]
    const [x, pre, y] = [
      [...lead, k],
      [...lead, h],
      [...lead, n],
    ].map((sizes): Spec & object => [sizes, type()])
    const [w1, w2]: Spec[] = [
      [[h, k], type()],
      [[n, h], type()],
    ]
    const [b1, b2]: Spec[] = [
      [[h], type()],
      [[n], type()],
    ]
    return backward
      ? { inputs: [y!, x!, pre!, w1!, w2!], outputs: [x!, w1!, b1!, w2!, b2!], attributes: [flag(r), flag(r)] }
      : { inputs: [x!, w1!, b1!, w2!, b2!], outputs: [y!, pre!], attributes: [flag(r)] }
  }

export const attention =
  (kind: 'forward' | 'backward' | 'statistics' | 'weights'): Make =>
  (r) => {
    const packed = r.chance(0.2)
    const fused = kind === 'backward' && r.chance(0.3)
    const dtype = r.pick(floating)
    const [kvHeads, d, length] = [r.pick(smallest), size(r), packed ? r.below(2) : r.pick(r.chance(0.3) ? wide : small)]
    const b = packed ? 1 : r.pick(smallest)
    const heads = fused ? kvHeads : kvHeads * (1 + r.below(3))
    const keys = fused ? length : packed ? r.below(2) : r.pick(r.chance(0.3) ? wide : small)
    const valueDim = fused ? d : size(r)
    const q: Spec = [[b, heads, length, d], dtype]
    const k: Spec = [[b, kvHeads, keys, d], dtype]
    const v: Spec = [[b, kvHeads, keys, valueDim], dtype]
    const out: Spec = [[b, length, heads, valueDim], dtype]
    const logsumexp: Spec = [[b, heads, length], statistics(dtype)]
    const block = [r.pick([1, 3, 16, 64, 100]), r.pick([1, 3, 16, 64, 100])] as const
    const blocks = [b, heads, Math.ceil(length / block[0]), Math.ceil(keys / block[1])]
    const lengths = r.pick([i64, 5])
    const masks: Spec[] = packed
      ? [null, [[2], lengths], [[2], lengths], null]
      : [
          r.chance(0.6) ? null : [narrower(r, [b, heads, length, keys]), r.pick([0, 1, 2, 3, 7])],
          null,
          r.chance(0.7) ? null : [[b], lengths],
          r.chance(0.7) ? null : [blocks.slice(r.below(3)), bool],
        ]
    const window = (): number => r.pick([-1, -1, 0, 1, 5, 70])
    const attributes = [0.3, flag(r), ...stream(r), r.pick([0, 0, 0.2, 1]), window(), window(), ...block]
    if (kind === 'forward') return { inputs: [q, k, v, ...masks], outputs: [out, logsumexp], attributes }
    if (kind === 'statistics') {
      const received: Spec = [[b, heads, keys], statistics(dtype)]
      return { inputs: [q, k, logsumexp, ...masks], outputs: [logsumexp, received], attributes }
    }
    if (kind === 'weights') {
      return { inputs: [q, k, logsumexp, ...masks], outputs: [[[b, heads, length, keys], dtype]], attributes }
    }
    const g: Spec = [[b, heads, length, valueDim], dtype]
    const merged = ([[batch, h, t, width]]: Spec & object): Spec => [[batch!, t!, h!, width!], dtype]
    const empty: Spec = [[0], dtype]
    const byHeads = r.chance(0.5)
    return {
      inputs: [g, q, k, v, g, logsumexp, ...masks],
      outputs: fused ? [[[b, length, 3, heads, d], dtype], empty, empty] : byHeads ? [q, k, v] : [q, k, v].map(merged),
      attributes: [...attributes, fused ? 1 : byHeads ? 2 : 0],
    }
  }

export const rope: Make = (r) => {
  const sizes = [...shape(r).slice(0, 3), 2 * r.pick(small)]
  const dtype = r.pick(floating)
  const table = dtype === f64 ? f64 : r.pick([0, 2, 3])
  return {
    inputs: [
      [sizes, dtype],
      [narrower(r, sizes), table],
      [narrower(r, sizes), table],
    ],
    outputs: [[sizes, dtype]],
    attributes: [flag(r), flag(r)],
  }
}

export const crossEntropy =
  (backward: boolean): Make =>
  (r) => {
    const [n, classes, dtype, reduction] = [size(r), 1 + size(r), r.pick(floating), r.below(3)]
    const logits: Spec = [[n, classes], dtype]
    const target: Spec = [[n], r.pick(indexing)]
    const weight: Spec = r.chance(0.6) ? null : [[classes], r.pick(floating)]
    const loss: Spec = [reduction === 0 ? [n] : [], r.pick([dtype, statistics(dtype)])]
    const rows: Spec = [[n], statistics(dtype)]
    const divisor: Spec = [[], statistics(dtype)]
    const attributes = [r.pick([-100, 0, 1]), r.pick([0, 0, 0.1, 1]), reduction]
    return backward
      ? { inputs: [loss, logits, target, rows, divisor, weight], outputs: [logits], attributes }
      : { inputs: [logits, target, weight], outputs: [loss, rows, divisor], attributes }
  }

export const linearCrossEntropy: Make = (r) => {
  const classes = r.chance(0.1) ? 1024 + r.below(3) : 1 + size(r)
  const [n, k, dtype, gradients] = [size(r), depth(r), r.pick(floating), flag(r)]
  const x: Spec = [[n, k], dtype]
  const weight: Spec = [[classes, k], mixedWith(dtype, r)]
  const scalar: Spec = [[], statistics(dtype)]
  const empty: Spec = [[0], dtype]
  const kept = ([sizes, own]: Spec & object): Spec => [sizes, own === f16 ? f32 : own]
  return {
    inputs: [x, weight, [[n], r.pick(indexing)], r.chance(0.6) ? null : [[classes], r.pick(floating)]],
    outputs: [scalar, scalar, gradients ? kept(x) : empty, gradients ? kept(weight) : empty],
    attributes: [
      r.pick([-100, 0, 1]),
      r.pick([0, 0, 0.1]),
      1 + r.below(2),
      gradients,
      flag(r),
      r.pick([f32, f16, bf16]),
      r.pick([1, 8 * classes, 1 << 12, logitChunkBytes]),
    ],
  }
}

/** An optimizer with this many states a parameter. */
export const scalar = (dtype = f32): Spec => [[], dtype]

type States = (attributes: number[], param: Spec & object) => Spec[]
export const inFull =
  (count: (attributes: number[]) => number): States =>
  (attributes, [sizes, dtype]) =>
    Array.from({ length: count(attributes) }, (): Spec => [sizes, statistics(dtype)])
export const in8Bits: States = (_, [sizes]) => {
  const blocks = [Math.ceil(product(sizes) / 256)]
  return [
    [sizes, u8],
    [sizes, u8],
    [blocks, f32],
    [blocks, f32],
  ]
}

export const step =
  (states: States, settings: (r: Random) => number[], dtypes: readonly number[] = floating): Make =>
  (r) => {
    const count = 1 + r.below(3)
    const counted = flag(r)
    const attributes = [count, counted, number(r), ...settings(r)]
    const params = Array.from({ length: count }, (): Spec & object => [shape(r), r.pick(dtypes)])
    const grads = params.map(([sizes, dtype]): Spec => [sizes, dtype >= 2 && r.chance(0.3) ? f32 : dtype])
    const each = params.map((param) => states(attributes, param))
    const state = each[0]!.flatMap((_, s) => each.map((own) => own[s]!))
    const steps = counted ? params.map(() => scalar()) : []
    const conditions = [0, 1, 2].map(() => (r.chance(0.5) ? scalar() : null))
    const changed = [...state, ...steps]
    return { inputs: [...params, ...grads, ...changed, ...conditions], outputs: [...params, ...changed], attributes }
  }

export const each =
  (extra: Spec[]): Make =>
  (r) => {
    const specs = Array.from({ length: 1 + r.below(4) }, (): Spec => [shape(r), r.pick(floating)])
    return { inputs: [...specs, ...extra], outputs: specs, attributes: [number(r)] }
  }
