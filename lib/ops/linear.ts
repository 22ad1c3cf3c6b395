// The products of a transformer's layers, each one kernel: bias, activation and their gradients ride along.

import { ArgumentError, describeShape, describeValue, ShapeError } from '../errors'
import type { Tensor } from '../tensor/tensor'
import { sumTo } from './broadcast'
import { expectSameDtype, gradientProduct, plain, transposeLast } from './matmul'
import {
  ACCUMULATED,
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
  expectSameDtype(op, x, weight)
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
  expectSameDtype(op, weight, bias)
}

function expectInput(op: string, x: Tensor): void {
  expectTensor(op, 'x', x)
  expectFloating(op, 'x', x)
  if (x.shape.length === 0) {
    throw new ShapeError(op, { problem: 'x has no dims', got: '[]', expected: 'at least [inputs]' })
  }
}

/** dweight [N, K] and dbias [N] of inputs `at` and `at + 1`, from g [..., N] and x [..., K]: one pass over g. */
function weightGradients(
  context: BackwardContext,
  at: number,
  g: Tensor,
  x: Tensor,
  hasBias: boolean,
): [Gradient, Gradient] {
  const n = g.shape[g.shape.length - 1]!
  const k = x.shape[x.shape.length - 1]!
  const wantsWeight = context.needs(at)
  const wantsBias = hasBias && context.needs(at + 1)
  if (!wantsWeight) return [null, wantsBias ? sumTo(g, [n]) : null]
  const weightTarget = context.target(at)
  const biasTarget = wantsBias ? context.target(at + 1) : null
  const accumulate = weightTarget !== null && (!wantsBias || biasTarget !== null)
  const outputs: Output[] = [
    accumulate ? weightTarget : [[n, k], x._dtype],
    accumulate && biasTarget !== null ? biasTarget : [[wantsBias ? n : 0], x._dtype],
  ]
  const [dweight, dbias] = runMany(weightGradientOp, [g, x], outputs, [accumulate ? 1 : 0, wantsBias ? 1 : 0])
  if (accumulate) return [ACCUMULATED, wantsBias ? ACCUMULATED : null]
  return [dweight!, wantsBias ? dbias! : null]
}

const linearRecord: OpRecord = {
  name: 'linear',
  autocast: 'lower',
  backward: (context, grad) => {
    const x = context.saved(0)
    const weight = context.saved(1)
    const g = rows(grad)
    // dx [..., K] = g [..., N] weight [N, K]
    const dx = !context.needs(0)
      ? null
      : x.shape.length > 1
        ? gradientProduct(context, 0, g, weight, x.shape)
        : times(g, weight)
    return [dx, ...weightGradients(context, 1, g, rows(x), context.needs(2))]
  },
}

/** x weight' + bias, the bias added while the product is in cache.
 *  x [..., K], weight [N, K], bias [N]? of one floating dtype -> [..., N]
 *  @throws ShapeError when the sizes do not fit; DTypeError when the dtypes differ
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.linear.html
 *  @example linear(ones([2, 3]), ones([4, 3])).shape // [2, 4] */
export function linear(x: Tensor, weight: Tensor, bias: Tensor | null = null): Tensor {
  expectInput('linear', x)
  expectWeight('linear', 'weight', x, weight, x.shape[x.shape.length - 1])
  if (bias !== null) expectBias('linear', 'bias', weight, bias)
  const shape = [...x.shape]
  shape[shape.length - 1] = weight.shape[0]!
  const out = run(linearOp, [rows(x), weight, bias === null ? null : plain(bias)], shape, x._dtype)
  return needsGrad([x, weight, bias]) ? record(linearRecord, out, [x, weight, bias], [x, weight]) : out
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
  const leading = x.shape.slice(0, -1)
  const inputs = [x, w1, b1, w2, b2]
  const [out, pre] = runMany(
    mlpOp,
    [rows(x), w1, plain(b1), w2, plain(b2)],
    [
      [[...leading, w2.shape[0]!], x._dtype],
      [[...leading, w1.shape[0]!], x._dtype],
    ],
    [tanh],
  ) as [Tensor, Tensor]
  if (needsGrad(inputs)) {
    const op: OpRecord = { name: 'mlp', autocast: 'lower', backward: (context, g) => mlpBackward(context, g, tanh) }
    record(op, out, inputs, [x, pre, w1, w2])
  }
  pre.dispose() // the tape's from here on
  return out
}

function mlpBackward(context: BackwardContext, grad: Tensor, tanh: 0 | 1): readonly Gradient[] {
  const [x, pre, w1, w2] = [0, 1, 2, 3].map((i) => context.saved(i)) as [Tensor, Tensor, Tensor, Tensor]
  const g = rows(grad)
  const wanted = [0, 1, 2, 3, 4].map((i) => context.needs(i))
  if (!wanted.slice(1).every(Boolean)) return frozenMlpBackward(context, g, tanh, x, pre, w1, w2)
  const targets = wanted.map((_, i) => (i === 0 ? null : context.target(i)))
  const accumulate = targets.slice(1).every((target) => target !== null)
  const weights = [w1.shape, [w1.shape[0]!], w2.shape, [w2.shape[0]!]]
  const outputs: Output[] = [
    [x.shape, x._dtype],
    ...weights.map((shape, i): Output => (accumulate ? targets[i + 1]! : [shape, x._dtype])),
  ]
  const made = runMany(mlpBackwardOp, [g, rows(x), pre, w1, w2], outputs, [tanh, accumulate ? 1 : 0])
  return made.map((gradient, i) => (i === 0 ? (wanted[0] ? gradient : null) : accumulate ? ACCUMULATED : gradient))
}

// Where some of the parameters are frozen, only the products that are asked for.
function frozenMlpBackward(
  context: BackwardContext,
  g: Tensor,
  tanh: 0 | 1,
  x: Tensor,
  pre: Tensor,
  w1: Tensor,
  w2: Tensor,
): readonly Gradient[] {
  const hidden = context.needs(3) ? run(geluOp, [pre], pre.shape, pre._dtype, [tanh]) : pre
  const [dw2, db2] = weightGradients(context, 3, g, hidden, true)
  if (![0, 1, 2].some((i) => context.needs(i))) return [null, null, null, dw2, db2]
  const dh = times(g, w2)
  const dpre = run(geluBackwardOp, [dh, pre], pre.shape, pre._dtype, [tanh])
  const [dw1, db1] = weightGradients(context, 1, dpre, rows(x), true)
  return [context.needs(0) ? times(dpre, w1) : null, dw1, db1, dw2, db2]
}

/** g [..., N] weight [N, K]: the forward kernel with the weight transposed, which also takes vectors. */
const times = (g: Tensor, weight: Tensor): Tensor =>
  run(linearOp, [g, transposeLast(weight)], [...g.shape.slice(0, -1), weight.shape[1]!], g._dtype)
