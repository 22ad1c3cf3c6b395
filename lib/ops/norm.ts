// Normalization over the last dims.

import { autocasting } from '../autograd/autocast'
import { setRecipe } from '../autograd/node'
import { FLOAT16, FLOAT32, FLOAT64, itemSizes, statisticsDType } from '../dtype'
import { ArgumentError, DTypeError, describeShape, describeValue, ShapeError } from '../errors'
import { tidy } from '../tensor/scope'
import type { Shape, Tensor } from '../tensor/tensor'
import { readShape } from './arguments'
import { autocast, autocastNarrows } from './autocast'
import { sameShape } from './broadcast'
import { cast } from './operands'
import { add, mul } from './pointwise'
import {
  ACCUMULATED,
  type Backward,
  type BackwardContext,
  expectFloating,
  expectTensor,
  type NativeOp,
  native,
  needsGrad,
  type Output,
  record,
  run,
  runMany,
} from './registry'
import { reshape, to } from './shape'

const layerNormOp = native('layerNorm', 'eps,normDims')
const layerNormBackwardOp = native('layerNormBackward', 'normDims,accumulate,normalized')
const rmsNormOp = native('rmsNorm', 'eps,normDims')
const rmsNormBackwardOp = native('rmsNormBackward', 'normDims,accumulate,normalized')
const scaleShiftOp = native('scaleShift', 'normDims')

/** Checks x and its parameters; the normalized sizes. */
function readNormalized(
  op: string,
  x: Tensor,
  normalizedShape: number | readonly number[],
  weight: Tensor | null,
  bias: Tensor | null,
): Shape {
  expectTensor(op, 'x', x)
  expectFloating(op, 'x', x)
  const sizes = readShape(op, normalizedShape)
  const last = x.shape.slice(x.ndim - sizes.length)
  if (sizes.length === 0 || sizes.length > x.ndim || !sameShape(last, sizes)) {
    throw new ShapeError(op, {
      problem: 'normalizedShape is not that of the last dims of x',
      got: `${describeShape(sizes)} for x ${describeShape(x.shape)}`,
      expected: describeShape(last),
    })
  }
  if (weight !== null) expectParameter(op, 'weight', weight, sizes)
  if (bias !== null) expectParameter(op, 'bias', bias, sizes)
  return sizes
}

function expectParameter(op: string, name: string, parameter: Tensor, sizes: Shape): void {
  expectTensor(op, name, parameter)
  expectFloating(op, name, parameter)
  if (!sameShape(parameter.shape, sizes)) {
    throw new ShapeError(op, {
      problem: `${name} does not fit`,
      got: describeShape(parameter.shape),
      expected: describeShape(sizes),
    })
  }
}

/** A parameter as the operator gets it. Those of 16-bit activations may be float32, as PyTorch has it; otherwise the
 *  dtypes are one. */
function readParameter(op: string, x: Tensor, parameter: Tensor | null): Tensor | null {
  if (autocasting) parameter = autocast(op, parameter)
  if (parameter === null || parameter._dtype === x._dtype) return parameter
  if (itemSizes[x._dtype] === 2 && parameter._dtype === FLOAT32) return parameter
  throw new DTypeError(op, {
    problem: 'the dtypes of x and its parameters do not fit',
    got: `x ${x.dtype} and a parameter ${parameter.dtype}`,
    expected: `${x.dtype}${itemSizes[x._dtype] === 2 ? ' or float32' : ''}`,
    action: 'convert one with to()',
  })
}

function expectEps(op: string, eps: unknown): number {
  if (typeof eps !== 'number' || !(eps >= 0)) {
    throw new ArgumentError(op, { problem: 'not an eps', got: describeValue(eps), expected: 'a number of at least 0' })
  }
  return eps
}

/** The two operators that normalize rows; `centers`: one takes the mean away and has a bias. */
interface Norm {
  readonly name: string
  readonly forward: NativeOp
  readonly backward: NativeOp
  readonly centers: boolean
}

const layer: Norm = { name: 'layerNorm', forward: layerNormOp, backward: layerNormBackwardOp, centers: true }
const rootMeanSquare: Norm = { name: 'rmsNorm', forward: rmsNormOp, backward: rmsNormBackwardOp, centers: false }

/** Puts values, in order, in the places of what is there, and null in those of what is not. */
function inPlaces<T>(present: readonly boolean[], value: (i: number) => T): (T | null)[] {
  let next = 0
  return present.map((there) => (there ? value(next++) : null))
}

const isThere = (each: Tensor | null): each is Tensor => each !== null

/** dx (added to what the input's other uses gave, when that is there already) and the gradients of the parameters. */
function gradients(
  context: BackwardContext,
  op: NativeOp,
  inputs: readonly (Tensor | null)[],
  parameters: readonly (Tensor | null)[],
  normDims: number,
  normalized: boolean,
): (Tensor | typeof ACCUMULATED | null)[] {
  const target = context.needs(0) ? context.target(0) : null
  const [g] = inputs as [Tensor]
  const outputs: Output[] = [target ?? [g.shape, g._dtype]]
  parameters.forEach((parameter, i) => {
    outputs.push(parameter !== null && context.needs(i + 1) ? [parameter.shape, parameter._dtype] : [[0], g._dtype])
  })
  const [dx, ...rest] = runMany(op, inputs, outputs, [normDims, target === null ? 0 : 1, normalized ? 1 : 0])
  return [
    target === null ? (context.needs(0) ? dx! : null) : ACCUMULATED,
    ...rest.map((each, i) => (context.needs(i + 1) ? each : null)),
  ]
}

/** Under autocast backward reads the normalized x in 16 bits, and x itself is free to go: as the residual stream of a
 *  transformer it would be the largest of all that is kept. The 16 bits are float16 whatever autocast computes in:
 *  normalized values need no range, and with bfloat16's 8 bits of precision a run left its curve 7 times as far. */
function normalize(
  norm: Norm,
  x: Tensor,
  sizes: Shape,
  parameters: readonly [weight: Tensor | null, ...bias: (Tensor | null)[]],
  eps: number,
): Tensor {
  const inputs = [x, ...parameters]
  const needsBackward = needsGrad(inputs)
  const narrow = autocasting && needsBackward && autocastNarrows(x)
  const normDims = sizes.length
  const rows = x.shape.slice(0, x.ndim - normDims).reduce((n, size) => n * size, 1)
  const statistic: Output = [[rows], statisticsDType(x._dtype)]
  const outputs: Output[] = [
    [x.shape, x._dtype],
    ...(norm.centers ? [statistic, statistic] : [statistic]),
    narrow ? [x.shape, FLOAT16] : [[0], x._dtype],
  ]
  const forward = (operands: readonly (Tensor | null)[]): Tensor[] =>
    runMany(norm.forward, operands, outputs, [eps, normDims])

  const [y, ...kept] = forward(inputs) as [Tensor, ...Tensor[]]
  if (needsBackward) {
    const [means, rstd, normalized] = norm.centers ? kept : [null, ...kept]
    const [weight] = parameters
    const source = narrow ? normalized! : x
    const operands = [source, ...(norm.centers ? [narrow ? null : means!] : []), rstd!, weight]
    const present = operands.map(isThere)
    const backward: Backward = (context, g) => {
      const saved = inPlaces(present, (i) => context.saved(i))
      return gradients(context, norm.backward, [g, ...saved], parameters, normDims, narrow)
    }
    record({ name: norm.name, autocast: 'float32', backward }, y, inputs, operands.filter(isThere))
    const given = [true, ...parameters.map(isThere)]
    setRecipe(y, {
      inputs: [source, ...parameters.filter(isThere)],
      rounds: narrow,
      compute: (again, dtype) => {
        const all = inPlaces(given, (i) => again[i]!)
        return narrow ? run(scaleShiftOp, all, x.shape, dtype, [normDims]) : cast(forward(all)[0]!, dtype)
      },
    })
  }
  for (const each of kept) each.dispose() // the tape's from here on
  return y
}

/** Layer normalization: (x - mean) / sqrt(variance + eps) * weight + bias over the dims of `normalizedShape`, the last
 *  ones of x. Statistics in float32 (float64 for float64), the variance from differences to the mean.
 *  x [..., *normalizedShape], weight and bias of normalizedShape (or null) -> x's shape and dtype. Default eps 1e-5.
 *  @throws ShapeError when normalizedShape, weight or bias do not fit x
 *  @see Ba, Kiros & Hinton 2016, arXiv:1607.06450, eq. 4
 *  @example layerNorm(tensor([[1, 3]]), 2) // [[-1, 1]] */
export function layerNorm(
  x: Tensor,
  normalizedShape: number | readonly number[],
  weight: Tensor | null = null,
  bias: Tensor | null = null,
  eps = 1e-5,
): Tensor {
  if (autocasting) x = autocast('layerNorm', x)
  const sizes = readNormalized('layerNorm', x, normalizedShape, weight, bias)
  const parameters = [readParameter('layerNorm', x, weight), readParameter('layerNorm', x, bias)] as const
  return normalize(layer, x, sizes, parameters, expectEps('layerNorm', eps))
}

/** Root-mean-square normalization over the dims of `normalizedShape`: x / sqrt(mean(x²) + eps) * weight, statistics in
 *  float32. Default eps: null, the smallest step at 1 of the dtype that is computed in: 2^-23, for float64 2^-52. (So
 *  does PyTorch, whose page says the dtype of x.)
 *  @throws ShapeError when normalizedShape or weight do not fit x
 *  @see Zhang & Sennrich 2019, arXiv:1910.07467, eq. 4
 *  @example rmsNorm(tensor([[3, 4]]), 2) // [[0.8485, 1.1314]] */
export function rmsNorm(
  x: Tensor,
  normalizedShape: number | readonly number[],
  weight: Tensor | null = null,
  eps: number | null = null,
): Tensor {
  if (autocasting) x = autocast('rmsNorm', x)
  const sizes = readNormalized('rmsNorm', x, normalizedShape, weight, null)
  return normalize(
    rootMeanSquare,
    x,
    sizes,
    [readParameter('rmsNorm', x, weight)],
    eps === null ? (x._dtype === FLOAT64 ? 2 ** -52 : 2 ** -23) : expectEps('rmsNorm', eps),
  )
}

/** Normalization of groups of channels: each of `groups` equal parts of x's channels, with all that lies behind them, is
 *  normalized as in `layerNorm`; weight and bias are those of the channels.
 *  x [N, C, ...], weight and bias [C] (or null) -> x's shape and dtype. Default eps 1e-5.
 *  @throws ShapeError when the groups do not divide the channels, or weight or bias do not fit
 *  @see Wu & He 2018, arXiv:1803.08494
 *  @example groupNorm(tensor([[1, 3, 10, 30]]), 2) // [[-1, 1, -1, 1]] */
export function groupNorm(
  x: Tensor,
  groups: number,
  weight: Tensor | null = null,
  bias: Tensor | null = null,
  eps = 1e-5,
): Tensor {
  const op = 'groupNorm'
  expectTensor(op, 'x', x)
  expectFloating(op, 'x', x)
  if (autocasting) x = autocast(op, x)
  const [N, C] = x.shape
  if (N === undefined || C === undefined || !Number.isInteger(groups) || groups < 1 || C % groups !== 0) {
    throw new ShapeError(op, {
      problem: 'the groups do not divide the channels',
      got: `${describeValue(groups)} groups for x ${describeShape(x.shape)}`,
      expected: 'x [N, C, ...] with C a multiple of the groups',
    })
  }
  if (weight !== null) expectParameter(op, 'weight', weight, [C])
  if (bias !== null) expectParameter(op, 'bias', bias, [C])
  return tidy(() => {
    const width = x.numel / Math.max(1, N * groups)
    let y = reshape(layerNorm(reshape(x, [N, groups, width]), width, null, null, eps), x.shape)
    const perChannel = [C, ...Array<number>(x.ndim - 2).fill(1)]
    if (weight !== null) y = mul(y, reshape(weight, perChannel))
    if (bias !== null) y = add(y, reshape(bias, perChannel))
    return to(y, x.dtype)
  })
}
