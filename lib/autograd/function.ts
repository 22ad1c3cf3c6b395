// Operations with a gradient of the user's own.

import { isFloatingCode } from '../dtype'
import { ArgumentError, describeValue } from '../errors'
import { Tensor } from '../tensor/tensor'
import { isGradEnabled, withoutGrad } from './mode'
import { type InputGradient, Node } from './node'

/** What `forward` of a custom function may store, and `backward` reads. */
export interface FunctionContext {
  /** Keeps tensors (inputs or outputs) for backward. */
  saveForBackward(...tensors: Tensor[]): void
  /** What was saved, checked against in-place changes. */
  readonly savedTensors: Tensor[]
  /** Whether each input wants a gradient. */
  readonly needsInputGrad: readonly boolean[]
  /** Anything else that backward needs. */
  [key: string]: unknown
}

/** The two halves of a custom function. */
export interface FunctionDefinition<Inputs extends unknown[], Output extends Tensor | Tensor[]> {
  /** Shown in messages and as `gradFn`. */
  name?: string
  /** Computes the outputs; operations in it are not recorded. */
  forward(context: FunctionContext, ...inputs: Inputs): Output
  /** Gradients of the outputs -> one gradient an input, null for those without. */
  backward(context: FunctionContext, ...grads: Tensor[]): Tensor | null | (Tensor | null)[]
}

/** Makes an operation whose gradient is given by hand, like a subclass of torch.autograd.Function.
 *  @see https://docs.pytorch.org/docs/stable/autograd.html#torch.autograd.Function
 *  @example
 *  const double = customFunction({
 *    forward: (_, x: Tensor) => x.mul(2),
 *    backward: (_, g) => g.mul(2),
 *  })
 *  double(x) */
export function customFunction<Inputs extends unknown[], Output extends Tensor | Tensor[]>(
  definition: FunctionDefinition<Inputs, Output>,
): (...inputs: Inputs) => Output {
  const name = definition.name ?? 'customFunction'
  return (...inputs) => {
    const saved: Tensor[] = []
    const needs = inputs.map((input) => input instanceof Tensor && input.requiresGrad)
    const context: FunctionContext = {
      saveForBackward: (...tensors) => {
        saved.push(...tensors)
      },
      savedTensors: saved,
      needsInputGrad: needs,
    }
    const output = withoutGrad(() => definition.forward(context, ...inputs))
    const outputs = output instanceof Tensor ? [output] : output
    if (!Array.isArray(outputs) || outputs.some((each) => !(each instanceof Tensor))) {
      throw new ArgumentError(name, {
        problem: 'forward did not return tensors',
        got: describeValue(output),
        expected: 'a Tensor or an array of tensors',
      })
    }
    if (!isGradEnabled() || !needs.includes(true)) return output
    const operands = inputs.map((input) => (input instanceof Tensor ? input : null))
    const node = new Node(
      name,
      (tape, ...grads) => {
        const view = Object.create(context, {
          savedTensors: { get: () => saved.map((_, i) => tape.saved(i)) },
        }) as FunctionContext
        const result = definition.backward(view, ...grads)
        return (Array.isArray(result) ? result : [result]) as InputGradient[]
      },
      operands,
      saved,
    )
    outputs.forEach((each, i) => {
      node.outputs.push(each)
      if (!isFloatingCode(each._dtype)) return
      each._node = node
      each._output = i
      each._requiresGrad = true
    })
    return output
  }
}
