// Initialization of parameters, in place and outside of the graph. Every function returns its tensor.

import { withoutGrad } from '../../autograd/mode'
import { ArgumentError, describeShape, describeValue, ShapeError } from '../../errors'
import { fill_ as fillOp, normal_ as normalOp, uniform_ as uniformOp } from '../../ops/index'
import { fromTypedArray } from '../../tensor/create'
import { tidy } from '../../tensor/scope'
import type { Tensor } from '../../tensor/tensor'
import { expectFinite } from '../arguments'

/** Nonlinearities that `calculateGain` knows. */
export type Nonlinearity = 'linear' | 'sigmoid' | 'tanh' | 'relu' | 'leakyRelu' | 'selu'

/** Which of the two sizes the variance of a kaiming initialization keeps. */
export type FanMode = 'fanIn' | 'fanOut'

/** Fills with U(low, high). @see https://docs.pytorch.org/docs/stable/nn.init.html
 *  @example nn.init.uniform_(zeros([2]), 5, 6).floor() // [5, 5] */
export function uniform_(tensor: Tensor, low = 0, high = 1): Tensor {
  return withoutGrad(() => uniformOp(tensor, low, high))
}

/** Fills with N(mean, std²).
 *  @example nn.init.normal_(zeros([2]), 5, 0) // [5, 5] */
export function normal_(tensor: Tensor, mean = 0, std = 1): Tensor {
  return withoutGrad(() => normalOp(tensor, mean, std))
}

/** Fills with one value.
 *  @example nn.init.constant_(zeros([2]), 7) // [7, 7] */
export function constant_(tensor: Tensor, value: number): Tensor {
  return withoutGrad(() => fillOp(tensor, value))
}

/** Fills with zeros.
 *  @example nn.init.zeros_(ones([2])) // [0, 0] */
export function zeros_(tensor: Tensor): Tensor {
  return constant_(tensor, 0)
}

/** Fills with ones.
 *  @example nn.init.ones_(zeros([2])) // [1, 1] */
export function ones_(tensor: Tensor): Tensor {
  return constant_(tensor, 1)
}

/** What keeps the variance of activations behind a nonlinearity; `param` is the negative slope of leakyRelu.
 *  @see https://docs.pytorch.org/docs/stable/nn.init.html#torch.nn.init.calculate_gain
 *  @example nn.init.calculateGain('tanh') // 5/3 */
export function calculateGain(nonlinearity: Nonlinearity, param = 0.01): number {
  switch (nonlinearity) {
    case 'linear':
    case 'sigmoid':
      return 1
    case 'tanh':
      return 5 / 3
    case 'relu':
      return Math.SQRT2
    case 'leakyRelu':
      return Math.sqrt(2 / (1 + expectFinite('calculateGain', 'the slope', param) ** 2))
    case 'selu':
      return 3 / 4
    default:
      throw new ArgumentError('calculateGain', {
        problem: 'no gain is known for this nonlinearity',
        got: describeValue(nonlinearity),
        expected: "'linear', 'sigmoid', 'tanh', 'relu', 'leakyRelu' or 'selu'",
      })
  }
}

/** Inputs and outputs that each element of a weight [out, in, ...] connects. */
function fans(op: string, tensor: Tensor): { fanIn: number; fanOut: number } {
  const [out, into, ...field] = tensor.shape
  if (out === undefined || into === undefined) {
    throw new ShapeError(op, {
      problem: 'a weight of fewer than two dims has no fan',
      got: describeShape(tensor.shape),
      expected: '[out, in, ...]',
    })
  }
  const area = field.reduce((n, size) => n * size, 1)
  return { fanIn: into * area, fanOut: out * area }
}

/** U(-a, a) with a = gain * sqrt(6 / (fanIn + fanOut)). @see Glorot & Bengio 2010
 *  @example nn.init.xavierUniform_(zeros([4, 8])).shape // [4, 8] */
export function xavierUniform_(tensor: Tensor, gain = 1): Tensor {
  const { fanIn, fanOut } = fans('xavierUniform_', tensor)
  const bound = gain * Math.sqrt(6 / (fanIn + fanOut))
  return uniform_(tensor, -bound, bound)
}

/** N(0, std²) with std = gain * sqrt(2 / (fanIn + fanOut)). @see Glorot & Bengio 2010
 *  @example nn.init.xavierNormal_(zeros([4, 8])).shape // [4, 8] */
export function xavierNormal_(tensor: Tensor, gain = 1): Tensor {
  const { fanIn, fanOut } = fans('xavierNormal_', tensor)
  return normal_(tensor, 0, gain * Math.sqrt(2 / (fanIn + fanOut)))
}

/** Options of the kaiming initializations. */
export interface KaimingOptions {
  /** Negative slope of the leakyRelu behind the layer; default 0. */
  a?: number
  /** Default 'fanIn': keeps the variance of the forward pass. */
  mode?: FanMode
  /** Default 'leakyRelu'. */
  nonlinearity?: Nonlinearity
}

function kaimingStd(op: string, tensor: Tensor, options: KaimingOptions): number {
  const { a = 0, mode = 'fanIn', nonlinearity = 'leakyRelu' } = options
  const fan = fans(op, tensor)[mode]
  if (fan === undefined) {
    throw new ArgumentError(op, { problem: 'no such mode', got: describeValue(mode), expected: "'fanIn' or 'fanOut'" })
  }
  return calculateGain(nonlinearity, a) / Math.sqrt(fan)
}

/** U(-a, a) with the variance of `kaimingNormal_`. @see He et al. 2015, arXiv:1502.01852
 *  @example nn.init.kaimingUniform_(zeros([4, 8]), { nonlinearity: 'relu' }).shape // [4, 8] */
export function kaimingUniform_(tensor: Tensor, options: KaimingOptions = {}): Tensor {
  const bound = Math.sqrt(3) * kaimingStd('kaimingUniform_', tensor, options)
  return uniform_(tensor, -bound, bound)
}

/** N(0, std²) with std = gain / sqrt(fan). @see He et al. 2015, arXiv:1502.01852
 *  @example nn.init.kaimingNormal_(zeros([4, 8])).shape // [4, 8] */
export function kaimingNormal_(tensor: Tensor, options: KaimingOptions = {}): Tensor {
  return normal_(tensor, 0, kaimingStd('kaimingNormal_', tensor, options))
}

function write(tensor: Tensor, values: Float64Array): Tensor {
  tidy(() => withoutGrad(() => void tensor.copy_(fromTypedArray(values, tensor.shape, { device: tensor.device }))))
  return tensor
}

/** N(mean, std²) cut off at [a, b], by the inverse distribution function of uniform numbers. Waits for them.
 *  @example nn.init.truncNormal_(zeros([4]), { mean: 5, std: 0.1, a: 4.6, b: 5.4 }).round() // [5, 5, 5, 5] */
export function truncNormal_(tensor: Tensor, { mean = 0, std = 1, a = -2, b = 2 } = {}): Tensor {
  if (!(a < b) || !(std > 0)) {
    throw new ArgumentError('truncNormal_', {
      problem: 'nothing lies inside the bounds',
      got: `std ${std}, a ${a}, b ${b}`,
      expected: 'std above 0 and a below b',
    })
  }
  const low = normalCdf((a - mean) / std)
  const high = normalCdf((b - mean) / std)
  uniform_(tensor)
  const values = Float64Array.from(tensor.dataSync() as Float32Array, (u) => {
    const z = inverseNormalCdf(low + (high - low) * u)
    return Math.min(b, Math.max(a, mean + std * z))
  })
  return write(tensor, values)
}

// The complementary error function by a Chebyshev fit (Press et al., Numerical Recipes, section 6.2); its relative error
// of 1.2e-7 is what float32 keeps.
function erfc(x: number): number {
  const z = Math.abs(x)
  const t = 2 / (2 + z)
  const c = [
    -1.26551223, 1.00002368, 0.37409196, 0.09678418, -0.18628806, 0.27886807, -1.13520398, 1.48851587, -0.82215223,
    0.17087277,
  ]
  const polynomial = c.reduceRight((sum, coefficient) => sum * t + coefficient, 0)
  const result = t * Math.exp(-z * z + polynomial)
  return x >= 0 ? result : 2 - result
}

const normalCdf = (x: number): number => erfc(-x / Math.SQRT2) / 2

// P. J. Acklam's rational approximation, relative error below 1.2e-9.
function inverseNormalCdf(p: number): number {
  if (p <= 0) return Number.NEGATIVE_INFINITY
  if (p >= 1) return Number.POSITIVE_INFINITY
  if (p > 0.5) return -inverseNormalCdf(1 - p)
  const horner = (x: number, coefficients: readonly number[]): number => coefficients.reduce((sum, c) => sum * x + c, 0)
  if (p < 0.02425) {
    const q = Math.sqrt(-2 * Math.log(p))
    return (
      horner(
        q,
        [
          -7.784894002430293e-3, -0.3223964580411365, -2.400758277161838, -2.549732539343734, 4.374664141464968,
          2.938163982698783,
        ],
      ) / horner(q, [7.784695709041462e-3, 0.3224671290700398, 2.445134137142996, 3.754408661907416, 1])
    )
  }
  const q = p - 0.5
  const r = q * q
  return (
    (q *
      horner(
        r,
        [
          -39.69683028665376, 220.9460984245205, -275.9285104469687, 138.357751867269, -30.66479806614716,
          2.506628277459239,
        ],
      )) /
    horner(r, [-54.47609879822406, 161.5858368580409, -155.6989798598866, 66.80131188771972, -13.28068155288572, 1])
  )
}

/** A (semi-)orthogonal matrix, uniformly distributed; dims after the first count as one. Waits for the random numbers,
 *  and takes cubic time on the calling thread. @see Saxe et al. 2013, arXiv:1312.6120
 *  @example nn.init.orthogonal_(zeros([4, 8])).shape // [4, 8] */
export function orthogonal_(tensor: Tensor, gain = 1): Tensor {
  if (tensor.ndim < 2) {
    throw new ShapeError('orthogonal_', {
      problem: 'not a matrix',
      got: describeShape(tensor.shape),
      expected: 'two or more dims',
    })
  }
  const rows = tensor.shape[0]!
  const columns = tensor.numel / Math.max(1, rows)
  normal_(tensor)
  const gaussian = Float64Array.from(tensor.dataSync() as Float32Array)
  // Gram-Schmidt over the shorter side; applied twice it is as stable as Householder (Giraud et al. 2005).
  const wide = rows <= columns
  const count = wide ? rows : columns
  const length = wide ? columns : rows
  const at = (vector: number, i: number): number => (wide ? vector * columns + i : i * columns + vector)
  for (let v = 0; v < count; v++) {
    for (let pass = 0; pass < 2; pass++) {
      for (let u = 0; u < v; u++) {
        let dot = 0
        for (let i = 0; i < length; i++) dot += gaussian[at(u, i)]! * gaussian[at(v, i)]!
        for (let i = 0; i < length; i++) gaussian[at(v, i)]! -= dot * gaussian[at(u, i)]!
      }
      let norm = 0
      for (let i = 0; i < length; i++) norm += gaussian[at(v, i)]! ** 2
      const scale = 1 / Math.sqrt(norm)
      for (let i = 0; i < length; i++) gaussian[at(v, i)]! *= scale
    }
  }
  return write(
    tensor,
    gaussian.map((value) => gain * value),
  )
}

// --- skipping ---------------------------------------------------------------------------------------------------------

let skipping = false

/** Constructs modules without drawing their parameters, which are then zero: for models that draw or load all of them
 *  afterwards. @example nn.init.skipped(() => new nn.Linear(4096, 4096)) */
export function skipped<R>(construct: () => R): R {
  const outer = skipping
  skipping = true
  try {
    return construct()
  } finally {
    skipping = outer
  }
}

/** @internal Whether layers shall draw their parameters now. */
export function isSkipped(): boolean {
  return skipping
}
