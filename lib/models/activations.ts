// Hugging Face's names of activations.

import { ArgumentError, describeValue } from '../errors'
import { GELU, ReLU, SiLU, Tanh } from '../nn/activation'
import type { Module } from '../nn/module'

/** An activation by the name that Hugging Face's configurations have for it. */
export type ActivationName =
  | 'gelu'
  | 'gelu_new'
  | 'gelu_pytorch_tanh'
  | 'gelu_fast'
  | 'relu'
  | 'silu'
  | 'swish'
  | 'tanh'

/** An activation as a module. */
export type Activation = GELU | ReLU | SiLU | Tanh

const makers: Record<ActivationName, () => Activation> = {
  gelu: () => new GELU(),
  gelu_new: () => new GELU({ approximate: 'tanh' }),
  gelu_pytorch_tanh: () => new GELU({ approximate: 'tanh' }),
  gelu_fast: () => new GELU({ approximate: 'tanh' }),
  relu: () => new ReLU(),
  silu: () => new SiLU(),
  swish: () => new SiLU(),
  tanh: () => new Tanh(),
}

/** @internal */
export function makeActivation(op: string, name: ActivationName): Activation {
  const make = Object.hasOwn(makers, name) ? makers[name] : undefined
  if (make === undefined) {
    throw new ArgumentError(op, {
      problem: 'the activation is not known',
      got: describeValue(name),
      expected: `one of ${Object.keys(makers).join(', ')}`,
    })
  }
  return make()
}

/** @internal The form of GELU that a fused feed-forward computes, or null when it must not be fused. */
export function fusableGelu(activation: Module): 'none' | 'tanh' | null {
  return activation instanceof GELU && !activation.hasHooks ? activation.approximate : null
}
