// Gradient formulas against numerical derivatives.

import { FLOAT64 } from '../dtype'
import { ArgumentError, GradusError } from '../errors'
import { expectFunction, readOptions } from '../options'
import { fromTypedArray } from '../tensor/create'
import { native, run, runInto, runLike } from '../tensor/dispatch'
import { tidy } from '../tensor/scope'
import { Tensor } from '../tensor/tensor'
import { grad, tensorList } from './engine'
import { withoutGrad } from './mode'

/** Options of `gradcheck`. */
export interface GradcheckOptions {
  /** Step of the central difference; default 1e-6, for float64. */
  eps?: number
  /** Absolute tolerance; default 1e-5. */
  atol?: number
  /** Relative tolerance; default 1e-3. */
  rtol?: number
}

/** A formula disagrees with the numerical derivative. */
export class GradcheckError extends GradusError {
  readonly code = 'ERR_GRADUS_STATE'
}

const copy = native('copy')
const mul = native('mul', 'scalar,reversed')
const sum = native('sum', 'dims')

/** Compares the gradients of fn with central differences, for every element of every float64 input that requires a
 *  gradient. fn must be a deterministic function of its inputs. Outputs that are no floating tensors are ignored.
 *  @throws GradcheckError naming the input, the element, and both values; ArgumentError for inputs that are not float64
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.autograd.gradcheck.gradcheck.html
 *  @example gradcheck((x) => x.mul(x), [tensor([1, 2], { dtype: 'float64', requiresGrad: true })]) // true */
export function gradcheck(
  fn: (...inputs: Tensor[]) => Tensor | readonly Tensor[],
  inputs: Tensor | readonly Tensor[],
  options: GradcheckOptions = {},
): true {
  expectFunction('gradcheck', fn)
  const { eps = 1e-6, atol = 1e-5, rtol = 1e-3 } = readOptions('gradcheck', options, ['eps', 'atol', 'rtol'])
  return check(fn, tensorList('gradcheck', 'input', inputs), { eps, atol, rtol })
}

function check(
  fn: (...inputs: Tensor[]) => Tensor | readonly Tensor[],
  inputs: readonly Tensor[],
  { eps, atol, rtol }: Required<GradcheckOptions>,
): true {
  const checked = inputs.filter((input) => input.requiresGrad)
  if (checked.length === 0) {
    throw new ArgumentError('gradcheck', {
      problem: 'no input requires a gradient',
      got: `${inputs.length} inputs`,
      action: 'make them with { requiresGrad: true }',
    })
  }
  for (const input of checked) {
    if (input.dtype !== 'float64') {
      throw new ArgumentError('gradcheck', {
        problem: 'numerical derivatives need float64',
        got: input.dtype,
        expected: 'float64 inputs',
      })
    }
  }
  const floating = (result: Tensor | readonly Tensor[]): Tensor[] =>
    (result instanceof Tensor ? [result] : [...result]).filter((each) => each._dtype === FLOAT64)
  // Weights that differ by element, so that a gradient sent to the wrong element shows.
  const weight = (like: Tensor, k: number): Tensor =>
    fromTypedArray(
      Float64Array.from({ length: like.numel }, (_, i) => Math.cos(i * 1.7 + k) + 1.3),
      like.shape,
      { device: like.device },
    )
  const value = (): number =>
    tidy(() =>
      withoutGrad(() =>
        floating(fn(...inputs)).reduce((total, out, k) => {
          const weighted = runLike(mul, out, weight(out, k), FLOAT64, 2)
          return total + run(sum, [weighted], [], FLOAT64, [2 ** out.ndim - 1]).itemSync()
        }, 0),
      ),
    )
  tidy(() => {
    const outputs = floating(fn(...inputs)).filter((output) => output.requiresGrad)
    const analytic =
      outputs.length === 0
        ? checked.map(() => null)
        : grad(outputs, checked, { gradOutputs: outputs.map(weight), allowUnused: true })
    checked.forEach((input, n) => {
      const original = Float64Array.from(input.dataSync() as Float64Array)
      const exact = analytic[n]?.dataSync() ?? new Float64Array(original.length)
      const at = (i: number, delta: number): number => {
        const moved = Float64Array.from(original)
        moved[i]! += delta
        tidy(() => void runInto(copy, [fromTypedArray(moved, input.shape, { device: input.device })], input))
        return value()
      }
      for (let i = 0; i < original.length; i++) {
        const numeric = (at(i, eps) - at(i, -eps)) / (2 * eps)
        const got = Number(exact[i])
        if (!(Math.abs(got - numeric) <= atol + rtol * Math.abs(numeric))) {
          at(i, 0)
          throw new GradcheckError('gradcheck', {
            problem: `the gradient of element ${i} of input ${inputs.indexOf(input)} is wrong`,
            got: String(got),
            expected: `${numeric} by central differences`,
          })
        }
      }
      at(0, 0)
    })
  })
  return true
}
