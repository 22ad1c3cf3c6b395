// Products over more than two dims, and distances between rows: compositions of matrix products, shapes and reductions.

import { autocasting } from '../autograd/autocast'
import { ArgumentError, describeShape, describeValue, ShapeError } from '../errors'
import { readOptions } from '../options'
import { zeros } from '../tensor/create'
import { tidy } from '../tensor/scope'
import type { Tensor } from '../tensor/tensor'
import { normalizeDim } from './arguments'
import { afterAutocast, autocast, autocastWidest } from './autocast'
import { sameShape } from './broadcast'
import { cat } from './join'
import { expectSameDtype, matmul, matmulRecord, mm, productAs } from './matmul'
import { add, mul, sub } from './pointwise'
import { norm, sum } from './reduce'
import { expectFloating, expectTensor, type OpRecord } from './registry'
import { permute, reshape, transpose, unsqueeze } from './shape'
import { narrow, slice } from './slice'

const count = (sizes: readonly number[]): number => sizes.reduce((n, size) => n * size, 1)

// --- tensordot ------------------------------------------------------------------------------------------------------

function readDims(
  a: Tensor,
  b: Tensor,
  dims: number | readonly [readonly number[], readonly number[]],
): [number[], number[]] {
  const op = 'tensordot'
  if (typeof dims === 'number') {
    if (!Number.isInteger(dims) || dims < 0 || dims > Math.min(a.ndim, b.ndim)) {
      throw new ArgumentError(op, {
        problem: 'not a number of dims',
        got: describeValue(dims),
        expected: `0 to ${Math.min(a.ndim, b.ndim)}`,
      })
    }
    const last = Array.from({ length: dims }, (_, i) => a.ndim - dims + i)
    return [last, Array.from({ length: dims }, (_, i) => i)]
  }
  const [left, right] = dims
  if (!Array.isArray(left) || !Array.isArray(right) || left.length !== right.length) {
    throw new ArgumentError(op, {
      problem: 'the dims do not pair up',
      got: describeValue(dims),
      expected: 'two arrays of equally many dims',
    })
  }
  return [left.map((dim) => normalizeDim(op, dim, a.ndim)), right.map((dim) => normalizeDim(op, dim, b.ndim))]
}

/** Sum of products over pairs of dims: the last `dims` of a with the first of b, or the two lists. Default 2.
 *  a and b of one dtype -> the other dims of a, then those of b.
 *  @throws ShapeError when the sizes of a pair differ; DTypeError when dtypes differ
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.tensordot.html
 *  @example tensordot(ones([2, 3, 4]), ones([3, 4, 5])).shape // [2, 5] */
export function tensordot(
  a: Tensor,
  b: Tensor,
  dims: number | readonly [readonly number[], readonly number[]] = 2,
): Tensor {
  const op = 'tensordot'
  expectTensor(op, 'a', a)
  expectTensor(op, 'b', b)
  if (autocasting) [a, b] = autocastWidest(op, [a, b]) as [Tensor, Tensor]
  expectSameDtype(op, a, b)
  const [left, right] = readDims(a, b, dims)
  left.forEach((dim, i) => {
    if (a.shape[dim] === b.shape[right[i]!]) return
    throw new ShapeError(op, {
      problem: 'the sizes of a pair of dims differ',
      got: `dim ${dim} of a ${describeShape(a.shape)} and dim ${right[i]} of b ${describeShape(b.shape)}`,
    })
  })
  const rest = (x: Tensor, used: readonly number[]): number[] => [...x.shape.keys()].filter((d) => !used.includes(d))
  const [rows, columns] = [rest(a, left), rest(b, right)]
  const inner = count(left.map((dim) => a.shape[dim]!))
  const shape = [...rows.map((d) => a.shape[d]!), ...columns.map((d) => b.shape[d]!)]
  return tidy(() => {
    const x = reshape(permute(a, [...rows, ...left]), [count(rows.map((d) => a.shape[d]!)), inner])
    const y = reshape(permute(b, [...right, ...columns]), [inner, count(columns.map((d) => b.shape[d]!))])
    return reshape(
      afterAutocast(op, a, () => mm(x, y)),
      shape,
    )
  })
}

// --- bilinear -------------------------------------------------------------------------------------------------------

const bilinearRecord: OpRecord = { ...matmulRecord, name: 'bilinear', autocast: 'promote' }

/** y[..., o] = x1[..., :] weight[o] x2[..., :]' + bias[o].
 *  x1 [..., I], x2 [..., J], weight [O, I, J], bias [O]? of one floating dtype -> [..., O]
 *  @throws ShapeError when the sizes do not fit; DTypeError when dtypes differ
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.bilinear.html
 *  @example bilinear(ones([2, 3]), ones([2, 4]), ones([5, 3, 4])).shape // [2, 5] */
export function bilinear(x1: Tensor, x2: Tensor, weight: Tensor, bias: Tensor | null = null): Tensor {
  const op = 'bilinear'
  const given = { x1, x2, weight, ...(bias && { bias }) }
  for (const [name, each] of Object.entries(given)) {
    expectTensor(op, name, each)
    expectFloating(op, name, each)
  }
  const [a, b, w, offset = null] = autocasting ? autocastWidest(op, Object.values(given)) : Object.values(given)
  for (const each of [b, w, offset]) if (each) expectSameDtype(op, a!, each)
  const [O, I, J] = weight.shape
  const lead = x1.shape.slice(0, -1)
  if (weight.ndim !== 3 || x1.shape.at(-1) !== I || x2.shape.at(-1) !== J || !sameShape(lead, x2.shape.slice(0, -1))) {
    throw new ShapeError(op, {
      problem: 'the operands do not fit together',
      got: `x1 ${describeShape(x1.shape)}, x2 ${describeShape(x2.shape)}, weight ${describeShape(weight.shape)}`,
      expected: 'x1 [..., I], x2 [..., J], weight [O, I, J]',
    })
  }
  if (bias !== null && !sameShape(bias.shape, [O!])) {
    throw new ShapeError(op, { problem: 'bias does not fit', got: describeShape(bias.shape), expected: `[${O}]` })
  }
  return tidy(() => {
    const N = count(lead)
    const columns = reshape(permute(w!, [1, 0, 2]), [I!, O! * J!])
    return afterAutocast(op, a!, () => {
      const left = reshape(productAs(bilinearRecord, reshape(a!, [N, I!]), columns), [N, O!, J!])
      const y = reshape(sum(mul(left, reshape(b!, [N, 1, J!])), -1), [...lead, O!])
      return offset === null ? y : add(y, offset)
    })
  })
}

// --- distances ------------------------------------------------------------------------------------------------------

/** Distances between the rows of a and those of b: the p-norm of each difference. Default p 2. The gradient of a
 *  distance of 0 is 0. All differences are held at once.
 *  a [..., P, M], b [..., R, M], leading dims broadcast -> [..., P, R]
 *  @throws ShapeError when the sizes do not fit
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.cdist.html
 *  @example cdist(tensor([[0, 0]]), tensor([[3, 4], [6, 8]])) // [[5, 10]] */
export function cdist(a: Tensor, b: Tensor, p = 2): Tensor {
  const op = 'cdist'
  for (const [name, each] of [
    ['a', a],
    ['b', b],
  ] as const) {
    expectTensor(op, name, each)
    expectFloating(op, name, each)
    if (each.ndim < 2) {
      throw new ShapeError(op, {
        problem: `${name} has no rows`,
        got: describeShape(each.shape),
        expected: '[..., P, M]',
      })
    }
  }
  if (a.shape.at(-1) !== b.shape.at(-1)) {
    throw new ShapeError(op, {
      problem: 'the rows have different sizes',
      got: `a ${describeShape(a.shape)} and b ${describeShape(b.shape)}`,
      expected: 'a[-1] == b[-1]',
    })
  }
  if (autocasting) {
    a = autocast(op, a)
    b = autocast(op, b)
  }
  return tidy(() => norm(sub(unsqueeze(a, -2), unsqueeze(b, -3)), p, -1))
}

// --- convolution ----------------------------------------------------------------------------------------------------

/** Options of `conv1d`. */
export interface ConvolutionOptions {
  /** Added to each output channel, [Cout]. */
  bias?: Tensor | null
  /** Steps between windows; default 1. */
  stride?: number
  /** Zeros at both ends; default 0. */
  padding?: number
  /** Steps between the elements of a window; default 1. */
  dilation?: number
  /** Parts of the channels that see only each other; default 1. */
  groups?: number
}

const convolutionOptions = ['bias', 'stride', 'padding', 'dilation', 'groups'] as const

function wholeAtLeast(name: string, value: number, least: number): number {
  if (Number.isInteger(value) && value >= least) return value
  throw new ArgumentError('conv1d', {
    problem: `${name} does not fit`,
    got: describeValue(value),
    expected: `a whole number of at least ${least}`,
  })
}

/** Convolution (cross-correlation) over one dim: y[n, o, i] = sum of weight[o, c, k] x[n, c, i stride + k dilation].
 *  x [N, Cin, L] or [Cin, L], weight [Cout, Cin / groups, K] of one floating dtype -> [N, Cout, Lout]. The windows are
 *  laid side by side, K times x, for one matrix product.
 *  @throws ShapeError when the sizes do not fit; DTypeError when dtypes differ
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.conv1d.html
 *  @example conv1d(tensor([[1, 2, 3]]), tensor([[[1, -1]]])) // [[-1, -1]] */
export function conv1d(x: Tensor, weight: Tensor, options: ConvolutionOptions = {}): Tensor {
  const op = 'conv1d'
  const {
    bias = null,
    stride = 1,
    padding = 0,
    dilation = 1,
    groups = 1,
  } = readOptions(op, options, convolutionOptions)
  for (const [name, each] of Object.entries({ x, weight, ...(bias && { bias }) })) {
    expectTensor(op, name, each)
    expectFloating(op, name, each)
  }
  wholeAtLeast('stride', stride, 1)
  wholeAtLeast('padding', padding, 0)
  wholeAtLeast('dilation', dilation, 1)
  wholeAtLeast('groups', groups, 1)
  const [Cout, perGroup, K] = weight.shape as [number, number, number]
  const [channels, length] = x.shape.slice(-2) as [number, number]
  const out = Math.floor((length + 2 * padding - dilation * (K - 1) - 1) / stride) + 1
  if (
    (x.ndim !== 2 && x.ndim !== 3) ||
    weight.ndim !== 3 ||
    channels !== perGroup * groups ||
    Cout % groups !== 0 ||
    K === 0 ||
    out < 1
  ) {
    throw new ShapeError(op, {
      problem: 'x and weight do not fit',
      got: `x ${describeShape(x.shape)} and weight ${describeShape(weight.shape)}, ${groups} groups`,
      expected: 'x [N, Cin, L] not shorter than a window, weight [Cout, Cin / groups, K]',
    })
  }
  if (bias !== null && !sameShape(bias.shape, [Cout])) {
    throw new ShapeError(op, { problem: 'bias does not fit', got: describeShape(bias.shape), expected: `[${Cout}]` })
  }
  return tidy(() => {
    const batched = x.ndim === 3 ? x : unsqueeze(x, 0)
    const N = batched.shape[0]!
    const ends = padding === 0 ? [] : [zeros([N, channels, padding], { dtype: x.dtype, device: x.device })]
    const padded = cat([...ends, batched, ...ends], 2)
    // element k of every window: [N, Cin, Lout]
    const windows = Array.from({ length: K }, (_, k) =>
      slice(padded, 2, k * dilation, k * dilation + (out - 1) * stride + 1, stride),
    )
    const products = Array.from({ length: groups }, (_, group) => {
      const columns = cat(
        windows.map((each) => narrow(each, 1, group * perGroup, perGroup)),
        1,
      )
      const filters = narrow(weight, 0, (group * Cout) / groups, Cout / groups) // [Cout / groups, Cin / groups, K]
      const rows = reshape(transpose(filters, 1, 2), [Cout / groups, K * perGroup])
      return matmul(rows, columns)
    })
    const joined = groups === 1 ? products[0]! : cat(products, 1)
    // in the dtype of the product, whatever the bias has
    const y = bias === null ? joined : add(joined, reshape(bias, [Cout, 1]).to(joined.dtype))
    return x.ndim === 3 ? y : reshape(y, [Cout, out])
  })
}
