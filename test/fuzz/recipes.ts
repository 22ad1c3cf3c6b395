// For every operator of native/ops.def, operands that its rule accepts: what is hostile comes on top of that, because a
// call that is refused at once never reaches a kernel.
import type { Random } from './random'
import {
  attention,
  binary,
  bool,
  crossEntropy,
  dimOf,
  drawn,
  dropout,
  each,
  every,
  extreme,
  f32,
  flag,
  floating,
  i32,
  i64,
  in8Bits,
  indexed,
  indexing,
  inFull,
  linear,
  linearBackwardWeight,
  linearCrossEntropy,
  type Make,
  matmul,
  mixed,
  mlp,
  norm,
  number,
  ordered,
  pointwise,
  type Recipe,
  reduction,
  resized,
  rope,
  type Spec,
  scalar,
  scaleShift,
  selected,
  shape,
  size,
  smallest,
  softmax,
  step,
  stream,
} from './recipeKinds'

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
