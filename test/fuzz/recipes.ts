// For every operator of native/ops.def, operands that its rule accepts: what is hostile comes on top of that, because a
// call that is refused at once never reaches a kernel.
import type { Random } from './random'

/** Sizes and dtype code of an operand; null for an optional one that is absent. */
export type Spec = readonly [sizes: readonly number[], dtype: number] | null

export interface Recipe {
  inputs: Spec[]
  outputs: Spec[]
  attributes: number[]
}

export const f32 = 0
export const f64 = 1
const f16 = 2
export const i64 = 4
const i32 = 5
const u8 = 6
export const bool = 7
const floating = [0, 0, 0, 1, 2, 3]
const indexing = [4, 4, 5, 6]
const every = [0, 1, 2, 3, 4, 5, 6, 7]
const statistics = (dtype: number): number => (dtype === f64 ? f64 : f32)
const product = (sizes: readonly number[]): number => sizes.reduce((a, b) => a * b, 1)

const smallest = [0, 1, 1, 2, 3, 4, 5]
const small = [...smallest, 8, 15, 16, 17, 31, 33]
const wide = [1, 2, 7, 16, 63, 64, 65, 130]
const size = (r: Random): number => r.pick(r.chance(0.1) ? wide : small)
/** Of a sum: kernels take long ones in another way, and in several steps. */
const depth = (r: Random): number => (r.chance(0.15) ? r.pick([128, 131, 1030, 2050]) : size(r))

function shape(r: Random, least = 0): number[] {
  const rank = Math.max(least, r.chance(0.05) ? r.below(9) : r.below(5))
  const sizes: number[] = []
  for (let d = 0; d < rank; d++) sizes.push(product(sizes) > 200 ? r.below(3) : size(r))
  return sizes
}

/** A shape that broadcasts to the given one. */
const narrower = (r: Random, sizes: readonly number[]): number[] =>
  sizes.slice(r.chance(0.2) ? r.below(sizes.length + 1) : 0).map((n) => (r.chance(0.2) ? 1 : n))

const dimOf = (r: Random, sizes: readonly number[]): number => r.below(Math.max(1, sizes.length))
const resized = (sizes: readonly number[], dim: number, n: number): number[] => sizes.map((s, d) => (d === dim ? n : s))
const number = (r: Random): number => r.pick([0, 1, -1, 0.5, 2, 3, -2.5])
const flag = (r: Random): number => r.below(2)
const stream = (r: Random): number[] => [r.below(1000), r.below(1000)]

type Make = (r: Random) => Recipe

const pointwise =
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
const binary =
  (attributes: number, result: readonly number[]): Make =>
  (r) =>
    pointwise(1 + r.below(2), attributes, result)(r)

const reduction =
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

const extreme =
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

const ordered =
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

const softmax =
  (inputs: number): Make =>
  (r) => {
    const spec: Spec = [shape(r), r.pick(floating)]
    return { inputs: Array(inputs).fill(spec), outputs: [spec], attributes: [dimOf(r, spec[0])] }
  }

const norm =
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

const scaleShift: Make = (r) => {
  const x: Spec = [shape(r, 1), r.pick(floating)]
  const normDims = 1 + r.below(x[0].length)
  const parameter = (): Spec => (r.chance(0.3) ? null : [x[0].slice(x[0].length - normDims), r.pick(floating)])
  return { inputs: [x, parameter(), parameter()], outputs: [[x[0], mixedWith(x[1], r)]], attributes: [normDims] }
}

/** An index of x: as large in every dim but `dim`. */
function indexed(
  r: Random,
  dtypes: readonly number[] = every,
): { x: Spec & object; index: Spec & object; dim: number } {
  const sizes = shape(r)
  const dim = dimOf(r, sizes)
  const index = sizes.map((n, d) => (d === dim ? size(r) : r.chance(0.2) ? r.below(n + 1) : n))
  return { x: [sizes, r.pick(dtypes)], index: [index, r.pick(indexing)], dim }
}

const selected =
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

const drawn =
  (dtypes: readonly number[], inputs: number, more: (r: Random) => number[]): Make =>
  (r) => {
    const spec: Spec = [shape(r), r.pick(dtypes)]
    return { inputs: Array(inputs).fill(spec), outputs: [spec], attributes: [...stream(r), ...more(r)] }
  }

const matmul: Make = (r) => {
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
const mixed = (r: Random): (() => number) => (r.chance(0.2) ? () => f64 : () => r.pick([0, 0, 2, 3]))

/** x may have another dtype than the output, which is the residual's. */
const dropout =
  (residual: boolean): Make =>
  (r) => {
    const [sizes, dtype] = [shape(r), r.pick(floating)]
    const out: Spec = [sizes, mixedWith(dtype, r)]
    const inputs: Spec[] = [[sizes, dtype]]
    if (residual) inputs.push(out)
    return { inputs, outputs: [out], attributes: [...stream(r), r.pick([0, 0.3, 1])] }
  }

const linear: Make = (r) => {
  const lead = shape(r).slice(0, 2)
  const [k, n, type] = [depth(r), size(r), mixed(r)]
  const out: Spec = [[...lead, n], type()]
  const bias: Spec[] = r.chance(0.5) ? [] : [r.chance(0.2) ? null : [[n], type()]]
  return { inputs: [[[...lead, k], type()], [[n, k], type()], ...bias], outputs: [out], attributes: [] }
}

const linearBackwardWeight: Make = (r) => {
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

const mlp =
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

const attention =
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

const rope: Make = (r) => {
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

const crossEntropy =
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

const linearCrossEntropy: Make = (r) => {
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
    // 0: one chunk
    attributes: [
      r.pick([-100, 0, 1]),
      r.pick([0, 0, 0.1]),
      1 + r.below(2),
      gradients,
      flag(r),
      flag(r),
      r.pick([0, 1, 8 * classes, 1 << 12]),
    ],
  }
}

/** An optimizer with this many states a parameter. */
const scalar = (dtype = f32): Spec => [[], dtype]

type States = (attributes: number[], param: Spec & object) => Spec[]
const inFull =
  (count: (attributes: number[]) => number): States =>
  (attributes, [sizes, dtype]) =>
    Array.from({ length: count(attributes) }, (): Spec => [sizes, statistics(dtype)])
const in8Bits: States = (_, [sizes]) => {
  const blocks = [Math.ceil(product(sizes) / 256)]
  return [
    [sizes, u8],
    [sizes, u8],
    [blocks, f32],
    [blocks, f32],
  ]
}

const step =
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

const each =
  (extra: Spec[]): Make =>
  (r) => {
    const specs = Array.from({ length: 1 + r.below(4) }, (): Spec => [shape(r), r.pick(floating)])
    return { inputs: [...specs, ...extra], outputs: specs, attributes: [number(r)] }
  }

const recipes: Record<string, Make> = {
  copyTwice: (r) => {
    const { inputs, outputs, attributes } = pointwise(1, 0, every)(r)
    return { inputs, outputs: [outputs[0]!, [outputs[0]![0], r.pick(every)]], attributes }
  },
  fill: pointwise(0, 1, every),
  arange: (r) => ({ inputs: [], outputs: [[[size(r)], r.pick(every)]], attributes: [number(r), number(r)] }),
  where: pointwise(3, 0, every, [bool]),
  maskedFill: (r) => {
    const { inputs, ...rest } = pointwise(2, 1, every)(r)
    return { inputs: [inputs[0]!, [inputs[1]![0], bool]], ...rest }
  },
  addcmul: pointwise(3, 1, every),
  sum: reduction((r) => r.pick([...floating, i64])),
  prod: reduction((r) => r.pick(every)),
  amax: reduction((_, dtype) => dtype),
  amin: reduction((_, dtype) => dtype),
  any: reduction(() => bool),
  all: reduction(() => bool),
  mean: reduction((r) => r.pick(floating), floating),
  logsumexp: reduction((r) => r.pick(floating), floating),
  variance: reduction((r) => r.pick(floating), floating, 1),
  vectorNorm: reduction((r) => r.pick(floating), floating, 1),
  maxDim: extreme(2),
  minDim: extreme(2),
  argmax: extreme(1),
  argmin: extreme(1),
  cumsum: (r) => {
    const sizes = shape(r)
    return {
      inputs: [[sizes, r.pick(every)]],
      outputs: [[sizes, r.pick(every)]],
      attributes: [dimOf(r, sizes), flag(r)],
    }
  },
  sort: ordered(false),
  topk: ordered(true),
  softmax: softmax(1),
  logSoftmax: softmax(1),
  softmaxBackward: softmax(2),
  logSoftmaxBackward: softmax(2),
  layerNorm: norm(true, false),
  layerNormBackward: norm(true, true),
  rmsNorm: norm(false, false),
  rmsNormBackward: norm(false, true),
  scaleShift,
  gather: (r) => {
    const { x, index, dim } = indexed(r)
    return { inputs: [x, index], outputs: [[index[0], x[1]]], attributes: [dim] }
  },
  scatterAdd: (r) => {
    const { x, index, dim } = indexed(r, [0, 1, 2, 3, 4, 5, 6])
    return { inputs: [x, index, [index[0], x[1]]], outputs: [x], attributes: [dim] }
  },
  scatter: (r) => {
    const { x, index, dim } = indexed(r)
    const inputs = r.chance(0.5) ? [x, index] : [x, index, [index[0], x[1]] as Spec]
    return { inputs, outputs: [x], attributes: [dim, number(r)] }
  },
  indexSelect: selected(false),
  indexAdd: selected(true),
  embedding: (r) => {
    const [index, width, dtype] = [shape(r).slice(0, 3), size(r), r.pick(every)]
    return {
      inputs: [
        [index, r.pick(indexing)],
        [[size(r), width], dtype],
      ],
      outputs: [[[...index, width], dtype]],
      attributes: [],
    }
  },
  embeddingBackward: (r) => {
    const [index, width, type] = [shape(r).slice(0, 3), size(r), mixed(r)]
    return {
      inputs: [
        [[...index, width], type()],
        [index, r.pick(indexing)],
      ],
      outputs: [[[size(r), width], type()]],
      attributes: [r.pick([-1, 0, 1]), flag(r)],
    }
  },
  cat: (r) => {
    const sizes = shape(r, 1)
    const dim = dimOf(r, sizes)
    const lengths = Array.from({ length: 1 + r.below(4) }, () => r.pick(smallest))
    const total = lengths.reduce((a, b) => a + b, 0)
    return {
      inputs: lengths.map((n): Spec => [resized(sizes, dim, n), r.pick(every)]),
      outputs: [[resized(sizes, dim, total), r.pick(every)]],
      attributes: [dim],
    }
  },
  tril: (r) => triangle(r),
  triu: (r) => triangle(r),
  countNonzero: (r) => ({ inputs: [[shape(r), r.pick(every)]], outputs: [[[], i64]], attributes: [] }),
  nonzeroInto: (r) => {
    const sizes = shape(r)
    return { inputs: [[sizes, r.pick(every)]], outputs: [[[size(r), sizes.length], i64]], attributes: [] }
  },
  uniform: drawn(floating, 0, (r) => [number(r), number(r)]),
  normal: drawn(floating, 0, (r) => [number(r), number(r)]),
  randint: drawn([0, 1, 2, 3, 4, 5, 6], 0, (r) => [r.below(10), 10 + r.below(1000)]),
  bernoulli: drawn(floating, 1, () => []),
  dropout: dropout(false),
  dropoutAdd: dropout(true),
  randperm: (r) => ({ inputs: [], outputs: [[[size(r)], i64]], attributes: stream(r) }),
  multinomial: (r) => {
    const sizes = shape(r, 1)
    const replacement = flag(r)
    const n = sizes.at(-1)!
    const k = replacement ? size(r) : r.below(n + 1)
    return {
      inputs: [[sizes, r.pick(floating)]],
      outputs: [[[...sizes.slice(0, -1), n > 0 ? k : 0], i64]],
      attributes: [...stream(r), replacement],
    }
  },
  matmul,
  linear,
  linearBackwardWeight,
  mlp: mlp(false),
  mlpBackward: mlp(true),
  attention: attention('forward'),
  attentionBackward: attention('backward'),
  attentionStatistics: attention('statistics'),
  attentionWeights: attention('weights'),
  rope,
  crossEntropy: crossEntropy(false),
  crossEntropyBackward: crossEntropy(true),
  linearCrossEntropy,
  scaleByScalar: (r) => ({ inputs: [[[], r.below(2)]], outputs: each([])(r).outputs, attributes: [] }),
  adamw: step(
    inFull((attributes) => (attributes[9] ? 3 : 2)),
    (r) => adamSettings(r, flag(r)),
  ),
  adamw8bit: step(in8Bits, (r) => adamSettings(r, 0), [0, 0, 2, 3]),
  sgd: step(
    inFull((attributes) => (attributes[4] ? 1 : 0)),
    (r) => [0.1, r.pick([0, 0.9]), 0, 0.1, flag(r), flag(r), flag(r)],
  ),
  rmsprop: step(
    inFull((attributes) => 1 + attributes[8]! + (attributes[7]! > 0 ? 1 : 0)),
    (r) => [0.1, 0.9, 1e-8, 0.1, r.pick([0, 0.9]), flag(r), flag(r)],
  ),
  adagrad: step(
    inFull(() => 1),
    (r) => [0.1, 0, 0.1, 1e-8, flag(r), 1 + r.below(5)],
  ),
  quantizeBlocks: (r) => {
    const sizes = r.chance(0.3) ? [r.below(900)] : shape(r)
    const [codes, magnitudes] = in8Bits([], [sizes, f32]).slice(1)
    return { inputs: [[sizes, f32]], outputs: [codes!, magnitudes!], attributes: [flag(r)] }
  },
  dequantizeBlocks: (r) => {
    const sizes = r.chance(0.3) ? [r.below(900)] : shape(r)
    const [codes, magnitudes] = in8Bits([], [sizes, f32]).slice(1)
    return { inputs: [codes!, magnitudes!], outputs: [[sizes, f32]], attributes: [flag(r)] }
  },
  gate: (r) => ({
    inputs: Array.from({ length: 1 + r.below(3) }, (): Spec => [shape(r), r.pick(every)]),
    outputs: [[[], f32]],
    attributes: [],
  }),
  multiTensorNorm: (r) => ({
    ...each([])(r),
    outputs: [[[], f32]],
    attributes: [r.pick([1, 2, 3, Number.POSITIVE_INFINITY])],
  }),
  multiTensorClip: each([[[], f32]]),
  multiTensorClamp: each([]),
  multiTensorScale: each([]),
  multiTensorUnscale: (r) => {
    const write = flag(r)
    const { inputs, outputs } = each([r.chance(0.7) ? scalar() : null])(r)
    return { inputs, outputs: [...(write ? outputs : []), scalar(), scalar(), scalar(i32)], attributes: [write] }
  },
  scalerUpdate: (r) => ({
    inputs: Array.from({ length: 1 + r.below(3) }, () => [scalar(), scalar(i32)]).flat(),
    outputs: [scalar(), scalar(i32), [[3], f32]],
    attributes: [2, 0.5, 1 + r.below(3)],
  }),
}

const adamSettings = (r: Random, amsgrad: number): number[] => [
  ...[0.1, 0.9, 0.99, 1e-8, 0.1],
  ...[flag(r), amsgrad, flag(r), 1 + r.below(5)],
]

function triangle(r: Random): Recipe {
  const spec: Spec = [shape(r, 2), r.pick(every)]
  return { inputs: [spec], outputs: [spec], attributes: [r.below(9) - 4] }
}

/** A valid call of the operator, as native/ops.def describes it. */
export function recipeOf(
  op: { name: string; attributes: string; fewestInputs: number; mostInputs: number },
  r: Random,
): Recipe {
  const make = recipes[op.name]
  if (make !== undefined) return make(r)
  // Of what is left, the gradients and functions of one operand take as many, the others one operand or two.
  if (op.mostInputs > 2) throw new Error(`${op.name}: test/fuzz/recipes.ts has no recipe`)
  const attributes = op.attributes === '' ? 0 : op.attributes.split(',').length
  const truth = /^((eq|ne|lt|le|gt|ge)$|logical|is)/.test(op.name)
  const result = truth ? [bool] : r.chance(0.6) ? floating : every
  return (op.fewestInputs < op.mostInputs ? binary : pointwise.bind(null, op.fewestInputs))(attributes, result)(r)
}
