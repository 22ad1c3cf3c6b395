// Operations with a gradient of the user's own.

import { isFloatingCode } from '../dtype'
import { ArgumentError, describeShape, describeValue, ShapeError } from '../errors'
import { native, run } from '../tensor/dispatch'
import { Tensor } from '../tensor/tensor'
import { isGradEnabled, withoutGrad } from './mode'
import { type InputGradient, Node } from './node'

const copyOp = native('copy')

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

/** Inputs (and what the graph has already) come back as views: their own place in the graph is not this function's. */
function ofItsOwn(output: Tensor, shared: boolean): Tensor {
  if (!shared && output._node === null && !output._requiresGrad) return output
  return Tensor._view(output, output.shape, output.strides, output._offset)
}

function checkGradients(name: string, inputs: readonly (Tensor | null)[], grads: readonly unknown[]): InputGradient[] {
  const op = `backward of ${name}`
  const extra = grads.slice(inputs.length).some((each) => each !== null && each !== undefined)
  if (grads.length < inputs.length || extra) {
    throw new ArgumentError(op, {
      problem: 'not one gradient an input',
      got: String(grads.length),
      expected: String(inputs.length),
      action: 'return null for inputs without one',
    })
  }
  return inputs.map((input, i) => {
    const grad = grads[i]
    if (grad === null || grad === undefined || input === null) return null
    if (!(grad instanceof Tensor)) {
      throw new ArgumentError(op, {
        problem: `gradient ${i} is not a tensor`,
        got: describeValue(grad),
        expected: 'a Tensor or null',
      })
    }
    if (describeShape(grad.shape) !== describeShape(input.shape)) {
      throw new ShapeError(op, {
        problem: `gradient ${i} does not fit its input`,
        got: describeShape(grad.shape),
        expected: describeShape(input.shape),
      })
    }
    return grad._dtype === input._dtype ? grad : run(copyOp, [grad], grad.shape, input._dtype)
  })
}

/** Makes an operation whose gradient is given by hand, like a subclass of torch.autograd.Function.
 *  @throws ArgumentError or ShapeError, in backward, for gradients that do not fit the inputs
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
  if (typeof definition?.forward !== 'function' || typeof definition.backward !== 'function') {
    throw new ArgumentError('customFunction', {
      problem: 'not a definition',
      got: describeValue(definition),
      expected: 'an object { forward(context, ...inputs), backward(context, ...grads) }',
    })
  }
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
    const given: readonly Tensor[] = output instanceof Tensor ? [output] : output
    if (!Array.isArray(given) || given.some((each) => !(each instanceof Tensor))) {
      throw new ArgumentError(name, {
        problem: 'forward did not return tensors',
        got: describeValue(output),
        expected: 'a Tensor or an array of tensors',
      })
    }
    if (!isGradEnabled() || !needs.includes(true)) return output
    const operands = inputs.map((input) => (input instanceof Tensor ? input : null))
    const outputs = given.map((each, i) => ofItsOwn(each, given.indexOf(each) < i || inputs.includes(each)))
    const node = new Node(
      name,
      (tape, ...grads) => {
        const view = Object.create(context, {
          savedTensors: { get: () => saved.map((_, i) => tape.saved(i)) },
        }) as FunctionContext
        const result = definition.backward(view, ...grads)
        return checkGradients(name, operands, Array.isArray(result) ? result : [result])
      },
      operands,
      saved,
    )
    node.outputs = outputs
    outputs.forEach((each, i) => {
      if (!isFloatingCode(each._dtype)) return
      each._node = node
      each._output = i
      each._requiresGrad = true
    })
    return (output instanceof Tensor ? outputs[0] : outputs) as Output
  }
}
