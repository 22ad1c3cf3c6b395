// What all optimizers share: parameter groups, states, and their form on disk.

import { ArgumentError, DTypeError, describeShape, describeValue, ShapeError, StateError } from '../errors'
import { clearGradients, isParameter } from '../nn/parameter'
import { sameShape } from '../ops/broadcast'
import type { StepOperands } from '../ops/optim'
import { readOptions, refuseSnakeCase } from '../options'
import { zeros } from '../tensor/create'
import { flushReleases, releaseTensor } from '../tensor/memory'
import { unscoped } from '../tensor/scope'
import { Tensor } from '../tensor/tensor'

/** Parameters with options of their own. Every number may be changed at any time; `lr` is the rate of the next step. */
export type ParamGroup<Options extends object> = Options & {
  params: Tensor[]
  /** The rate that schedules multiply; set by the first one. */
  initialLr?: number
}

/** What an optimizer keeps for one parameter: step counts and tensors, by name. */
export interface ParamState {
  /** Updates so far. */
  step?: number
  [name: string]: number | Tensor | undefined
}

/** State in PyTorch's form: parameters are numbered over all groups. */
export interface OptimizerState {
  state: Record<string, ParamState>
  paramGroups: (Record<string, unknown> & { params: number[] })[]
}

/** Parameters to optimize: tensors, or groups whose options replace the defaults. */
export type Params<Options extends object> =
  | Iterable<Tensor>
  | Iterable<Partial<Options> & { params: Iterable<Tensor> }>

/** One optimizer's algorithm over parameter groups. Subclasses say how a group's parameters are updated. */
export abstract class Optimizer<Options extends { lr: number } = { lr: number }> {
  readonly paramGroups: ParamGroup<Options>[] = []
  /** What each parameter that has had a gradient has. */
  readonly state = new Map<Tensor, ParamState>()
  /** Called after every step, with the optimizer. */
  readonly _afterStep: (() => void)[] = []

  /** @param defaults options of groups that do not say otherwise */
  constructor(
    params: Params<Options>,
    readonly defaults: Options,
  ) {
    const name = new.target.name
    if (params === null || typeof params !== 'object' || !(Symbol.iterator in params)) {
      throw new ArgumentError(name, {
        problem: 'no parameters',
        got: describeValue(params),
        expected: 'an array of tensors or of groups { params, lr, ... }',
        action: 'pass model.parameters()',
      })
    }
    const list = [...(params as Iterable<Tensor | (Partial<Options> & { params: Iterable<Tensor> })>)]
    if (list.length === 0) {
      throw new ArgumentError(name, {
        problem: 'no parameters',
        got: 'an empty list',
        action: 'pass model.parameters()',
      })
    }
    if (list.every((each) => each instanceof Tensor)) this.addParamGroup({ params: list } as never)
    else for (const group of list) this.addParamGroup(group as Partial<Options> & { params: Iterable<Tensor> })
  }

  /** Updates the parameters of one group that have gradients. @internal */
  protected abstract update(group: ParamGroup<Options>, params: Tensor[]): void

  /** Throws for options out of range. @internal */
  protected abstract check(options: Options): void

  /** One update of every parameter that has a gradient. Parameters keep count of their own steps.
   *  @see https://docs.pytorch.org/docs/stable/generated/torch.optim.Optimizer.step.html */
  step(): void {
    const name = this.constructor.name
    const due = this.paramGroups.map((group) => {
      this.check(group) // whatever was set by hand since
      return group.params.filter((param) => param.grad !== null && expectGradient(name, param, param.grad))
    })
    due.forEach((params, i) => {
      if (params.length > 0) this.update(this.paramGroups[i]!, params)
    })
    for (const each of this._afterStep) each()
  }

  /** Forgets the gradients, or with `setToNone: false` sets them to 0. */
  zeroGrad({ setToNone = true }: { setToNone?: boolean } = {}): void {
    for (const { params } of this.paramGroups) clearGradients(params, setToNone)
  }

  /** Adds parameters with options of their own, for instance layers that are unfrozen during training. */
  addParamGroup(group: Partial<Options> & { params: Iterable<Tensor> | Tensor }): void {
    const name = this.constructor.name
    const { params } = group ?? {}
    if (
      !(params instanceof Tensor) &&
      (params === null || typeof params !== 'object' || !(Symbol.iterator in params))
    ) {
      throw new ArgumentError(name, {
        problem: 'a group has no params',
        got: describeValue(group),
        expected: 'an object { params, ... }',
      })
    }
    const list = params instanceof Tensor ? [params] : [...params]
    const present = new Set(this.paramGroups.flatMap((each) => each.params))
    list.forEach((param, i) => {
      expectParameter(name, param, i)
      if (present.has(param)) {
        throw new ArgumentError(name, {
          problem: 'a parameter is given twice',
          got: `parameter ${i} of shape ${describeShape(param.shape)}`,
          action: 'give each parameter to one group; tied weights come once from model.parameters()',
        })
      }
      present.add(param)
    })
    refuseSnakeCase(name, group, Object.keys(this.defaults))
    const full = { ...this.defaults, ...group, params: list } as ParamGroup<Options>
    this.check(full)
    this.paramGroups.push(full)
  }

  /** State of a parameter, made by `create` at its first update. @internal */
  protected stateOf(param: Tensor, create: () => ParamState): ParamState {
    let state = this.state.get(param)
    if (state === undefined) {
      state = unscoped(create) // the step may run inside tidy
      this.state.set(param, state)
    }
    return state
  }

  /** Parameters by the number of the update that they are about to have: nearly always one entry, so one native call.
   *  @internal */
  protected groupBySteps(params: readonly Tensor[], create: (param: Tensor) => ParamState): Map<number, Tensor[]> {
    const bySteps = new Map<number, Tensor[]>()
    for (const param of params) {
      const step = this.stateOf(param, () => create(param)).step! + 1
      const together = bySteps.get(step)
      if (together === undefined) bySteps.set(step, [param])
      else together.push(param)
    }
    return bySteps
  }

  /** @internal */
  protected countStep(params: readonly Tensor[], step: number): void {
    for (const param of params) this.state.get(param)!.step = step
  }

  /** What the kernels take: parameters, gradients and the named states. @internal */
  protected operands(params: readonly Tensor[], names: readonly string[]): StepOperands {
    return {
      params,
      grads: params.map((param) => param.grad!),
      states: names.map((name) => params.map((param) => this.namedState(param, name))),
    }
  }

  private namedState(param: Tensor, name: string): Tensor {
    const state = this.state.get(param)!
    const value = state[name]
    if (value instanceof Tensor) return value
    // an option such as amsgrad was switched on later
    const fresh = unscoped(() => zerosFor(param))
    state[name] = fresh
    return fresh
  }

  /** Options, step counts and states. Its tensors are the optimizer's own: copy or save them before the next step. */
  stateDict(): OptimizerState {
    const all = this.paramGroups.flatMap((group) => group.params)
    const numbers = new Map(all.map((param, i) => [param, i]))
    const state: OptimizerState['state'] = {}
    all.forEach((param, i) => {
      const own = this.state.get(param)
      if (own !== undefined) state[i] = { ...own }
    })
    const paramGroups = this.paramGroups.map((group) => ({
      ...group,
      params: group.params.map((param) => numbers.get(param)!),
    }))
    return { state, paramGroups }
  }

  /** Takes over options and states of an optimizer with equal groups. Tensors are copied and converted;
   *  a step count that is a tensor, as in PyTorch's files, is waited for.
   *  @throws ShapeError when groups or states do not fit the parameters, StateError for another kind of optimizer's;
   *  nothing is changed then */
  loadStateDict(dict: OptimizerState): void {
    const op = `${this.constructor.name}.loadStateDict`
    const groups = dict?.paramGroups
    if (!Array.isArray(groups) || dict.state === null || typeof dict.state !== 'object') {
      throw new StateError(op, { problem: 'not a state', got: describeValue(dict), expected: '{ state, paramGroups }' })
    }
    const sizes = (list: readonly { params: readonly unknown[] }[]): number[] => list.map((each) => each.params?.length)
    if (describeShape(sizes(groups)) !== describeShape(sizes(this.paramGroups))) {
      throw new ShapeError(op, {
        problem: 'the parameter groups differ',
        got: `groups of ${describeShape(sizes(groups))} parameters`,
        expected: describeShape(sizes(this.paramGroups)),
      })
    }
    const options = Object.keys(this.defaults)
    groups.forEach((group, i) => {
      const given = Object.keys(group).filter((each) => each !== 'params' && each !== 'initialLr')
      if (!options.every((each) => given.includes(each))) {
        throw new StateError(op, {
          problem: 'the state is that of another optimizer',
          got: `options ${given.join(', ')}`,
          expected: options.join(', '),
        })
      }
      this.check({ ...this.paramGroups[i]!, ...group, params: this.paramGroups[i]!.params })
    })
    const params = this.paramGroups.flatMap((group) => group.params)
    const numbers = groups.flatMap((group) => group.params)
    const states = new Map<Tensor, ParamState>()
    numbers.forEach((number, i) => {
      const saved = dict.state[number]
      if (saved !== undefined) states.set(params[i]!, copyState(op, saved, params[i]!, i))
    })
    for (const old of this.state.values()) {
      for (const value of Object.values(old)) if (value instanceof Tensor) releaseTensor(value, op)
    }
    flushReleases()
    this.state.clear()
    for (const [param, state] of states) this.state.set(param, state)
    groups.forEach((group, i) => {
      const { params: _, ...options } = group
      Object.assign(this.paramGroups[i]!, structuredClone(options))
    })
  }
}

/** @internal An optimizer's options over its defaults.
 *  @throws ArgumentError for one that the optimizer does not have */
export function withDefaults<Options extends object>(
  op: string,
  defaults: Options,
  options: Partial<Options>,
): Options {
  return {
    ...defaults,
    ...readOptions<Partial<Options>>(op, options, Object.keys(defaults) as (keyof Options & string)[]),
  }
}

function expectParameter(op: string, param: unknown, i: number): asserts param is Tensor {
  if (!(param instanceof Tensor)) {
    throw new DTypeError(op, { problem: `parameter ${i} is not a tensor`, got: describeValue(param) })
  }
  param._alive(op)
  if (!param.isLeaf || !(param.requiresGrad || isParameter(param))) {
    throw new StateError(op, {
      problem: `parameter ${i} cannot be optimized`,
      got: param.isLeaf ? 'a tensor that does not require a gradient' : 'the result of an operation',
      expected: 'a leaf that requires a gradient',
    })
  }
}

function expectGradient(op: string, param: Tensor, grad: unknown): true {
  if (!(grad instanceof Tensor)) {
    throw new DTypeError(op, {
      problem: 'the gradient of a parameter is not a tensor',
      got: describeValue(grad),
      expected: 'a Tensor or null',
    })
  }
  if (!sameShape(grad.shape, param.shape)) {
    throw new ShapeError(op, {
      problem: 'a gradient has another shape than its parameter',
      got: describeShape(grad.shape),
      expected: describeShape(param.shape),
    })
  }
  return true
}

function copyState(op: string, saved: ParamState, param: Tensor, i: number): ParamState {
  const state: ParamState = {}
  for (const [key, value] of Object.entries(saved)) {
    if (typeof value === 'number' || value === undefined) {
      state[key] = value
    } else if (value instanceof Tensor && value.numel === 1 && key === 'step') {
      state[key] = value.itemSync() // PyTorch keeps step counts as tensors
    } else if (value instanceof Tensor && describeShape(value.shape) === describeShape(param.shape)) {
      const dtype = param.dtype === 'float64' ? 'float64' : 'float32'
      state[key] = unscoped(() => (value.dtype === dtype ? value.detach().clone() : value.detach().to(dtype)))
    } else {
      throw new ShapeError(op, {
        problem: `state ${key} of parameter ${i} does not fit`,
        got: value instanceof Tensor ? describeShape(value.shape) : describeValue(value),
        expected: describeShape(param.shape),
      })
    }
  }
  return state
}

/** @internal Zeros for a parameter's state: 16-bit parameters keep theirs in float32. */
export const zerosFor = (param: Tensor): Tensor =>
  zeros(param.shape, { dtype: param.dtype === 'float64' ? 'float64' : 'float32' })

/** @internal Throws unless a number lies in [low, high), or (low, high) when `open`. */
export function checkRange(
  op: string,
  name: string,
  value: unknown,
  low: number,
  high = Number.POSITIVE_INFINITY,
): void {
  if (typeof value !== 'number' || !(value >= low) || !(value < high || value === low)) {
    throw new ArgumentError(op, {
      problem: `${name} is out of range`,
      got: describeValue(value),
      expected:
        high === Number.POSITIVE_INFINITY ? `a number of at least ${low}` : `a number from ${low} to below ${high}`,
    })
  }
}
