// Which parameters decay.

import { ArgumentError, describeValue } from '../errors'
import { Module } from '../nn/module'
import type { Tensor } from '../tensor/tensor'

/** Two groups for a module's parameters: matrices with `weightDecay`, and without decay biases, norms (all of rank below
 *  2) and embeddings. A weight that an embedding shares with an output layer counts as an embedding. Parameters that
 *  need no gradient are left out.
 *  @throws ArgumentError when model is not a module
 *  @see https://github.com/karpathy/minGPT, configure_optimizers
 *  @example new optim.AdamW(optim.paramGroupsWithDecay(model, 0.1), { lr: 3e-4 }) */
export function paramGroupsWithDecay(
  model: Module,
  weightDecay = 0.01,
): [{ params: Tensor[]; weightDecay: number }, { params: Tensor[]; weightDecay: number }] {
  if (!(model instanceof Module)) {
    throw new ArgumentError('paramGroupsWithDecay', {
      problem: 'not a module',
      got: describeValue(model),
      expected: 'an nn.Module',
    })
  }
  const embeddings = new Set<Tensor>()
  for (const [, module] of model.namedModules()) {
    // by name, so that embeddings of other libraries' modules count too
    if (!module.constructor.name.includes('Embedding')) continue
    for (const [name, param] of module.namedParameters()) if (!name.includes('.')) embeddings.add(param)
  }
  const decay: Tensor[] = []
  const rest: Tensor[] = []
  for (const param of new Set(model.parameters())) {
    if (!param.requiresGrad) continue
    if (param.ndim >= 2 && !embeddings.has(param)) decay.push(param)
    else rest.push(param)
  }
  return [
    { params: decay, weightDecay },
    { params: rest, weightDecay: 0 },
  ]
}
