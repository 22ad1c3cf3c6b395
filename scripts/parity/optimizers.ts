// Optimizers on recorded gradients: the parameters after every fifth step, and the state at the end.

import { nn, optim, type Tensor, tensor } from 'gradus'
import { type Case, compare, type Fixtures, Mismatch } from './fixtures'

// biome-ignore lint/suspicious/noExplicitAny: options of any optimizer, from the manifest
type Make = (groups: any, options: any) => optim.Optimizer

const optimizers: Record<string, Make> = {
  'torch.optim.adamw.AdamW': (groups, options) => new optim.AdamW(groups, options),
  'torch.optim.adam.Adam': (groups, options) => new optim.Adam(groups, options),
  'torch.optim.sgd.SGD': (groups, options) => new optim.SGD(groups, options),
  'torch.optim.rmsprop.RMSprop': (groups, options) => new optim.RMSprop(groups, options),
  'torch.optim.adagrad.Adagrad': (groups, options) => new optim.Adagrad(groups, options),
}

/** Whether the table has the case's optimizer. */
export function knowsOptimizer(op: string): boolean {
  return op in optimizers
}

const camelCase = (name: string): string => name.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase())

function camelCaseKeys(options: Record<string, unknown>): Record<string, unknown> {
  const entries = Object.entries(options).filter(([name]) => !name.startsWith('_'))
  return Object.fromEntries(entries.map(([name, value]) => [camelCase(name), value]))
}

const steps = 20

async function compareState(
  each: Case,
  names: string[],
  state: optim.Optimizer['state'],
  parameters: Tensor[],
  stored: Record<string, Tensor>,
): Promise<number> {
  let largest = 0
  for (const [place, key] of Object.entries(each.state ?? {})) {
    const [name, field] = place.split('/') as [string, string]
    const value = state.get(parameters[names.indexOf(name)]!)?.[camelCase(field)]
    if (value === undefined) throw new Mismatch(`no state ${camelCase(field)} of ${name}`)
    const got = typeof value === 'number' ? tensor(value) : (value as Tensor)
    const reference = typeof key === 'string' ? stored[key]! : tensor(key as number)
    largest = Math.max(largest, await compare(`state ${place}`, got, reference, each.tolerance))
  }
  return largest
}

/** Runs an optimizer on the recorded gradients; returns the largest error. */
export async function runOptimizer(each: Case, fixtures: Fixtures): Promise<number> {
  const stored = await fixtures.tensors(each.file)
  const { init, grads } = each.inputs as Record<'init' | 'grads', Record<string, string>>
  const names = Object.keys(init)
  const parameters = names.map((name) => nn.parameter(stored[init[name]!]!.clone()))
  const groups =
    each.param_groups?.map(({ params, ...options }) => ({
      ...camelCaseKeys(options),
      params: params.map((name) => parameters[names.indexOf(name)]!),
    })) ?? parameters
  const optimizer = optimizers[each.op]!(groups, camelCaseKeys(each.params))
  const missing: Record<string, number[]> = each.params._missing ?? {}
  let largest = 0
  for (let step = 0; step < steps; step++) {
    if (step === 10 && each.params._lr_at_step_10 !== undefined) {
      optimizer.paramGroups[0]!.lr = each.params._lr_at_step_10
    }
    names.forEach((name, i) => {
      const absent = missing[name]?.includes(step) ?? false
      parameters[i]!.grad = absent ? null : stored[grads[name]!]!.select(0, step).clone()
    })
    optimizer.step()
    for (const [i, name] of names.entries()) {
      const key = (each.outputs as Record<string, string>)[`step${step + 1}/${name}`]
      if (key === undefined) continue
      const what = `${name} after step ${step + 1}`
      largest = Math.max(largest, await compare(what, parameters[i]!, stored[key]!, each.tolerance))
    }
  }
  return Math.max(largest, await compareState(each, names, optimizer.state, parameters, stored))
}
