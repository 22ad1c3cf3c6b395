// The products of a transformer's layers, each one kernel: bias, activation and their gradients ride along.

import { isAnomalyEnabled } from '../autograd/anomaly'
import { autocasting } from '../autograd/autocast'
import { endsRecomputation } from '../autograd/frame'
import { ArgumentError, describeShape, describeValue, ShapeError } from '../errors'
import type { Tensor } from '../tensor/tensor'
import { autocastProduct, multiplied } from './autocast'
import { sumTo } from './broadcast'
import { disposeCopies, expectSameDtype, gradientProduct, plain, transposeLast } from './matmul'
import { cast } from './operands'
import {
  ACCUMULATED,
  type Backward,
  type BackwardContext,
  expectFloating,
  expectTensor,
  native,
  needsGrad,
  type OpRecord,
  type Output,
  record,
  run,
  runMany,
} from './registry'

type Gradient = Tensor | typeof ACCUMULATED | null

const linearOp = native('linear')
const weightGradientOp = native('linearBackwardWeight', 'accumulate,bias')
const mlpOp = native('mlp', 'tanh')
const mlpBackwardOp = native('mlpBackward', 'tanh,accumulate')
const geluOp = native('gelu', 'tanh')
const geluBackwardOp = native('geluBackward', 'tanh')

/** x in a form that the kernels take: a matrix in any strides, or contiguous. */
const rows = (x: Tensor): Tensor => (x.shape.length === 2 ? x : plain(x))

function expectWeight(op: string, what: string, x: Tensor, weight: Tensor, inputs: number | undefined): void {
  expectTensor(op, what, weight)
  if (weight.shape.length !== 2 || weight.shape[1] !== inputs) {
    throw new ShapeError(op, {
      problem: `${what} does not fit`,
      got: `${what} ${describeShape(weight.shape)} for x ${describeShape(x.shape)}`,
      expected: `[outputs, ${inputs}]`,
      action: 'check the sizes of the layers',
    })
  }
}

function expectBias(op: string, what: string, weight: Tensor, bias: Tensor): void {
  expectTensor(op, what, bias)
  if (bias.shape.length !== 1 || bias.shape[0] !== weight.shape[0]) {
    throw new ShapeError(op, {
      problem: `${what} does not fit`,
      got: describeShape(bias.shape),
      expected: describeShape([weight.shape[0]!]),
    })
  }
}

/** dtype of the product: the operands', which must be one, or under autocast its own. */
function productDType(op: string, x: Tensor, parameters: readonly (Tensor | null)[]): number {
  const low = autocasting ? autocastProduct(op, [x, ...parameters]) : -1
  if (low >= 0) return low
  for (const parameter of parameters) if (parameter !== null) expectSameDtype(op, x, parameter)
  return x._dtype
}

function expectInput(op: string, x: Tensor): void {
  expectTensor(op, 'x', x)
  expectFloating(op, 'x', x)
  if (x.shape.length === 0) {
    throw new ShapeError(op, { problem: 'x has no dims', got: '[]', expected: 'at least [inputs]' })
  }
}

/** dtype codes of a weight and its bias, whose gradients have the same. */
type ParameterDTypes = readonly [weight: number, bias: number]

/** dweight [N, K] and dbias [N] of inputs `at` and `at + 1`, from g [..., N] and x [..., K]: one pass over g. */
function weightGradients(
  context: BackwardContext,
  at: number,
  g: Tensor,
  x: Tensor,
  [weightDType, biasDType]: ParameterDTypes,
): [Gradient, Gradient] {
  const n = g.shape[g.shape.length - 1]!
  const k = x.shape[x.shape.length - 1]!
  const wantsWeight = context.needs(at)
  const wantsBias = context.needs(at + 1)
  if (!wantsWeight) return [null, wantsBias ? cast(sumTo(g, [n]), biasDType) : null]
  const weightTarget = context.target(at)
  const biasTarget = wantsBias ? context.target(at + 1) : null
  const accumulate = weightTarget !== null && (!wantsBias || biasTarget !== null)
  const outputs: Output[] = [
    accumulate ? weightTarget : [[n, k], weightDType],
    accumulate && biasTarget !== null ? biasTarget : [[wantsBias ? n : 0], biasDType],
  ]
  const [dweight, dbias] = runMany(weightGradientOp, [g, x], outputs, [accumulate ? 1 : 0, wantsBias ? 1 : 0])
  if (accumulate) return [ACCUMULATED, wantsBias ? ACCUMULATED : null]
  return [dweight!, wantsBias ? dbias! : null]
}

/** `dtypes`: of x, weight and bias, where what was saved has others. */
function linearBackward(
  context: BackwardContext,
  grad: Tensor,
  dtypes: readonly [number, ...ParameterDTypes] | null,
): readonly Gradient[] {
  const x = context.saved(0) // once: it may be computed again for each read
  const weight = context.saved(1)
  const [xDType, weightDType, biasDType] = dtypes ?? [x._dtype, weight._dtype, weight._dtype]
  const g = rows(grad)
  // dx [..., K] = g [..., N] weight [N, K]
  const dx = !context.needs(0)
    ? null
    : x.shape.length > 1
      ? gradientProduct(context, 0, g, weight, x.shape, xDType)
      : times(g, weight, xDType)
  return [dx, ...weightGradients(context, 1, g, rows(x), [weightDType, biasDType])]
}

const linearRecord: OpRecord = {
  name: 'linear',
  autocast: 'lower',
  backward: (context, g) => linearBackward(context, g, null),
}

/** x weight' + bias, the bias added while the product is in cache.
 *  x [..., K], weight [N, K], bias [N]? of one floating dtype -> [..., N]. Under autocast dtypes may differ: the result
 *  has autocast's, and gradients have the dtypes of their operands.
 *  @throws ShapeError when the sizes do not fit; DTypeError when the dtypes differ
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.linear.html
 *  @example linear(ones([2, 3]), ones([4, 3])).shape // [2, 4] */
export function linear(x: Tensor, weight: Tensor, bias: Tensor | null = null): Tensor {
  expectInput('linear', x)
  expectWeight('linear', 'weight', x, weight, x.shape[x.shape.length - 1])
  if (bias !== null) expectBias('linear', 'bias', weight, bias)
  const dtype = productDType('linear', x, [weight, bias])
  const shape = [...x.shape]
  shape[shape.length - 1] = weight.shape[0]!
  const a = autocasting ? multiplied(x, dtype) : x
  const b = autocasting ? multiplied(weight, dtype) : weight
  const out = run(linearOp, [rows(a), b, bias === null ? null : plain(bias)], shape, dtype)
  const inputs = [x, weight, bias]
  if (needsGrad(inputs)) {
    const biasDType = bias === null ? weight._dtype : bias._dtype
    const dtypes = [x._dtype, weight._dtype, biasDType] as const
    const isSaved = a === x && b === weight && biasDType === weight._dtype // what the formula needs to know
    const formula: Backward = isSaved ? linearRecord.backward : (context, g) => linearBackward(context, g, dtypes)
    record(linearRecord, out, inputs, [a, b], formula)
  }
  if (autocasting) disposeCopies([a, b], [x, weight])
  return out
}

/** The form of gelu: 'none' by the error function, 'tanh' its approximation. */
export type GeluForm = 'none' | 'tanh'

const readForm = (form: GeluForm): 0 | 1 => {
  if (form === 'tanh') return 1
  if (form === 'none') return 0
  throw new ArgumentError('mlp', {
    problem: 'unknown form of gelu',
    got: describeValue(form),
    expected: "'none' or 'tanh'",
  })
}

/** gelu(x w1' + b1) w2' + b2: a transformer's feed-forward network. Only the pre-activation is stored; gelu is computed
 *  while the second product packs it, and again in the backward pass.
 *  x [..., K], w1 [H, K], b1 [H], w2 [N, H], b2 [N] of one floating dtype -> [..., N]. Default approximate 'none'.
 *  Under autocast as in `linear`; the pre-activation has autocast's dtype.
 *  @throws ShapeError when the sizes do not fit; DTypeError when the dtypes differ
 *  @see Hendrycks & Gimpel 2016, arXiv:1606.08415
 *  @example mlp(ones([2, 3]), ones([8, 3]), ones([8]), ones([3, 8]), ones([3])).shape // [2, 3] */
export function mlp(
  x: Tensor,
  w1: Tensor,
  b1: Tensor,
  w2: Tensor,
  b2: Tensor,
  { approximate = 'none' }: { approximate?: GeluForm } = {},
): Tensor {
  expectInput('mlp', x)
  expectWeight('mlp', 'w1', x, w1, x.shape[x.shape.length - 1])
  expectBias('mlp', 'b1', w1, b1)
  expectWeight('mlp', 'w2', x, w2, w1.shape[0])
  expectBias('mlp', 'b2', w2, b2)
  const tanh = readForm(approximate)
  const parameters = [w1, b1, w2, b2]
  const dtype = productDType('mlp', x, parameters)
  const leading = x.shape.slice(0, -1)
  const inputs = [x, ...parameters]
  const inner: [number[], number] = [[...leading, w1.shape[0]!], dtype]
  const multiply = [x, w1, w2]
  const factors = autocasting ? multiply.map((each) => multiplied(each, dtype)) : multiply
  const [a, up, down] = factors as [Tensor, Tensor, Tensor]
  let [out, pre]: Tensor[] = []
  if (!isAnomalyEnabled() && endsRecomputation(4)) {
    pre = run(linearOp, [rows(a), up, plain(b1)], ...inner)
    out = pre // nobody reads it: recording ends the function
  } else {
    const outputs: Output[] = [[[...leading, w2.shape[0]!], dtype], inner]
    ;[out, pre] = runMany(mlpOp, [rows(a), up, plain(b1), down, plain(b2)], outputs, [tanh])
  }
  if (needsGrad(inputs)) {
    const dtypes = inputs.map((each) => each._dtype)
    const backward: Backward = (context, g) => mlpBackward(context, g, tanh, dtypes)
    const op: OpRecord = { name: 'mlp', autocast: 'lower', backward }
    record(op, out!, inputs, [a, pre!, up, down])
  }
  pre!.dispose() // the tape's from here on
  if (autocasting) disposeCopies(factors, multiply)
  return out!
}

function mlpBackward(
  context: BackwardContext,
  grad: Tensor,
  tanh: 0 | 1,
  dtypes: readonly number[],
): readonly Gradient[] {
  const [x, pre, w1, w2] = [0, 1, 2, 3].map((i) => context.saved(i)) as [Tensor, Tensor, Tensor, Tensor]
  const g = rows(grad)
  const wanted = [0, 1, 2, 3, 4].map((i) => context.needs(i))
  if (!wanted.slice(1).every(Boolean)) return frozenMlpBackward(context, g, tanh, dtypes, x, pre, w1, w2)
  const targets = wanted.map((_, i) => (i === 0 ? null : context.target(i)))
  const accumulate = targets.slice(1).every((target) => target !== null)
  const weights = [w1.shape, [w1.shape[0]!], w2.shape, [w2.shape[0]!]]
  const outputs: Output[] = [
    [x.shape, dtypes[0]!],
    ...weights.map((shape, i): Output => (accumulate ? targets[i + 1]! : [shape, dtypes[i + 1]!])),
  ]
  const made = runMany(mlpBackwardOp, [g, rows(x), pre, w1, w2], outputs, [tanh, accumulate ? 1 : 0])
  return made.map((gradient, i) => (i === 0 ? (wanted[0] ? gradient : null) : accumulate ? ACCUMULATED : gradient))
}

// Where some of the parameters are frozen, only the products that are asked for.
function frozenMlpBackward(
  context: BackwardContext,
  g: Tensor,
  tanh: 0 | 1,
  dtypes: readonly number[],
  x: Tensor,
  pre: Tensor,
  w1: Tensor,
  w2: Tensor,
): readonly Gradient[] {
  const hidden = context.needs(3) ? run(geluOp, [pre], pre.shape, pre._dtype, [tanh]) : pre
  const [dw2, db2] = weightGradients(context, 3, g, hidden, [dtypes[3]!, dtypes[4]!])
  if (![0, 1, 2].some((i) => context.needs(i))) return [null, null, null, dw2, db2]
  const dh = times(g, w2, pre._dtype)
  const dpre = run(geluBackwardOp, [dh, pre], pre.shape, pre._dtype, [tanh])
  const [dw1, db1] = weightGradients(context, 1, dpre, rows(x), [dtypes[1]!, dtypes[2]!])
  return [context.needs(0) ? times(dpre, w1, dtypes[0]!) : null, dw1, db1, dw2, db2]
}

/** g [..., N] weight [N, K]: the forward kernel with the weight transposed, which also takes vectors. */
const times = (g: Tensor, weight: Tensor, dtype: number): Tensor =>
  run(linearOp, [g, transposeLast(weight)], [...g.shape.slice(0, -1), weight.shape[1]!], dtype)
