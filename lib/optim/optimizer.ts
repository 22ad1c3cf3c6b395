// What all optimizers share: parameter groups, states, and their form on disk.

import type { Device } from '../device'
import type { DType } from '../dtype'
import { ArgumentError, describeShape, describeValue, ShapeError, StateError } from '../errors'
import { clearGradients } from '../nn/parameter'
import { sameShape } from '../ops/broadcast'
import { byDevice, clipTensors, totalNorm } from '../ops/multiTensor'
import { combineFlags, conditionsOn, disposeCopies, gateOf, type StepConditions, type StepOperands } from '../ops/optim'
import { expectLimit, readOptions, refuseSnakeCase } from '../options'
import { full } from '../tensor/create'
import { flushReleases, releaseTensor } from '../tensor/memory'
import { inPhase, isListening, noteTensor } from '../tensor/memoryNotes'
import { tidy, unscoped } from '../tensor/scope'
import { Tensor } from '../tensor/tensor'
import { expectGradient, expectParameter, followParameter, writeInto, zerosFor } from './arguments'

/** Parameters with options of their own. Every number may be changed at any time; `lr` is the rate of the next step. */
export type ParamGroup<Options extends object> = Options & {
  params: Tensor[]
  /** The rate that schedules multiply; set by the first one. */
  initialLr?: number
}

/** What an optimizer keeps for one parameter: step counts and tensors, by name. */
export interface ParamState {
  /** Updates so far: a tensor (float32 of rank 0, as in PyTorch) where a GradScaler let the device decide on them. */
  step?: number | Tensor
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

/** Options of `step`. */
export interface StepOptions {
  /** Clips the gradients of all groups to this norm as the update reads them: min(1, maxNorm / (norm + 1e-6)). */
  maxNorm?: number
}

/** Parameters of one native call: they are about to have the same number of updates, or the device counts. @internal */
export interface Cohort {
  readonly params: readonly Tensor[]
  /** Number of the update, from 1; without meaning where the device counts. */
  readonly step: number
  /** The counts, where the device counts. */
  readonly steps: readonly Tensor[] | null
}

// Options that states written by earlier versions, and by PyTorch, lack.
const laterOptions = new Set(['stateBits'])
const unconditional: StepConditions = {}

/** One optimizer's algorithm over parameter groups. Subclasses say how a group's parameters are updated. */
export abstract class Optimizer<Options extends { lr: number } = { lr: number }> {
  readonly paramGroups: ParamGroup<Options>[] = []
  /** What each parameter that has had a gradient has. */
  readonly state = new Map<Tensor, ParamState>()
  /** Called after every step, with the optimizer. */
  readonly _afterStep: (() => void)[] = []
  /** Whether `update` leaves it to the kernels to unscale, clip or skip, as a GradScaler asks; else the scaler waits and
   *  decides. @internal */
  readonly _decidesOnDevice: boolean = false
  #conditions = unconditional
  #gate: Tensor | null = null
  readonly #fresh = new Set<Tensor>()
  /** Copies of the conditions for the step under way, where not all parameters are on one device. */
  readonly #placed = new Map<Device, StepConditions>()
  #undecided: (() => void)[] = []

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
   *
   *  With `maxNorm` gradients are clipped on the way, as `clipGradNorm_` would, but nothing is written to them: they are
   *  read twice, for the norm and for the update, and not four times (an optimizer with an `update` of its own finds them
   *  clipped). Returns the norm before clipping then, float32 of
   *  rank 0; nothing waits for it.
   *  @throws ArgumentError for options out of range; ShapeError for a gradient unlike its parameter; nothing is changed
   *  @see https://docs.pytorch.org/docs/stable/generated/torch.optim.Optimizer.step.html
   *  @example const norm = optimizer.step({ maxNorm: 1 }) */
  step(): void
  step(options: StepOptions & { maxNorm: number }): Tensor
  step(options?: StepOptions): Tensor | undefined
  step(options: StepOptions = {}): Tensor | undefined {
    return inPhase('step', () => this.#step(options))
  }

  #step(options: StepOptions): Tensor | undefined {
    const name = this.constructor.name
    const { maxNorm } = readOptions(`${name}.step`, options, ['maxNorm'])
    if (maxNorm !== undefined) expectLimit(`${name}.step`, 'maxNorm', maxNorm)
    this._settle()
    const due = this.paramGroups.map((group) => {
      this.check(group) // whatever was set by hand since
      return group.params.filter((param) => param.grad !== null && expectGradient(name, param, param.grad))
    })
    const outer = this.#conditions
    let norm: Tensor | undefined
    if (maxNorm !== undefined) {
      norm = outer.norm ?? totalNorm([...new Set(due.flat().map((param) => param.grad!))])
      this.#conditions = { ...outer, norm, maxNorm }
    }
    if (norm !== undefined && !this._decidesOnDevice) {
      // an update of one's own reads gradients as they are
      clipTensors([...new Set(due.flat().map((param) => param.grad!))], norm, maxNorm!)
    }
    let gate: Tensor | null = null
    try {
      gate = this.#gate = tidy(() => this.#gateOf(due))
      due.forEach((params, i) => {
        for (const part of byDevice(params)) this.update(this.paramGroups[i]!, part as Tensor[])
      })
    } finally {
      const own = this.#ownConditions
      for (const placed of this.#placed.values()) disposeCopies(placed, own)
      this.#placed.clear()
      this.#conditions = outer
      this.#gate = null
      this.#fresh.clear()
      gate?.dispose()
    }
    for (const each of this._afterStep) each()
    return norm
  }

  // What the step may not be taken without: gradients, and the states of parameters that have their first one. A late error
  // in one of them then changes no parameter at all, of whatever group.
  #gateOf(due: readonly Tensor[][]): Tensor | null {
    const { foundInf, norm: ofAll, needed: others = [] } = this.#conditions
    const needed = [...others]
    // each of the two depends on all gradients
    if (!foundInf && !ofAll) needed.push(...due.flat().map((param) => param.grad!))
    if (this._decidesOnDevice) needed.push(...due.flatMap((params, i) => this.#prepare(this.paramGroups[i]!, params)))
    const gate = gateOf(needed)
    return gate && foundInf ? combineFlags([foundInf, gate]) : gate
  }

  #prepare(group: ParamGroup<Options>, params: readonly Tensor[]): Tensor[] {
    return params.flatMap((param) => {
      const isKnown = this.state.has(param)
      const state = this.#stateOf(group, param)
      if (state === null) return []
      if (!isKnown) this.#fresh.add(param)
      // a GradScaler's step may be skipped, on a CUDA device any step where an error comes late, and a captured graph
      // counts for itself
      if (this.#conditions.foundInf || param.device.type === 'cuda') {
        const { step = isKnown ? 1 : 0 } = state
        if (typeof step === 'number') state.step = unscoped(() => full([], step, { device: param.device }))
      }
      return Object.values(state).filter((value) => value instanceof Tensor)
    })
  }

  /** Takes a step whose gradients are scaled, or which may be skipped, on the device. @internal */
  _conditionally<R>(conditions: StepConditions, fn: () => R): R {
    this.#conditions = conditions
    try {
      return fn()
    } finally {
      this.#conditions = unconditional
    }
  }

  /** Leaves something to be done before the rates are looked at again, as soon as a step is known to be taken or
   *  skipped. @internal */
  _decideLater(decide: () => void): void {
    this.#undecided.push(decide)
  }

  /** @internal */
  _settle(): void {
    for (let decide = this.#undecided.shift(); decide !== undefined; decide = this.#undecided.shift()) decide()
  }

  /** Forgets the gradients, or with `setToNone: false` sets them to 0. */
  zeroGrad(options: { setToNone?: boolean } = {}): void {
    const { setToNone = true } = readOptions('zeroGrad', options, ['setToNone'])
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

  /** What a parameter has before its first update; null: nothing. Of optimizers that decide on the device. @internal */
  protected create(_group: ParamGroup<Options>, _param: Tensor): ParamState | null {
    return null
  }

  /** Whether the step under way is the parameter's first. @internal */
  protected isFresh(param: Tensor): boolean {
    return this.#fresh.has(param)
  }

  // State of a parameter, made at its first update.
  #stateOf(group: ParamGroup<Options>, param: Tensor): ParamState | null {
    let state = this.state.get(param) ?? null
    if (state !== null) followParameter(state, param)
    else {
      state = unscoped(() => this.create(group, param)) // the step may run inside tidy
      if (state === null) return null
      this.state.set(param, state)
      if (isListening()) {
        for (const value of Object.values(state)) if (value instanceof Tensor) noteTensor(value, 'optimizer')
      }
    }
    return state
  }

  /** Parameters by the number of the update that they are about to have: nearly always one entry, so one native call.
   *  What only the device knows the count of is one entry too, with the counts themselves. @internal */
  protected cohorts(params: readonly Tensor[]): Cohort[] {
    const bySteps = new Map<number, Tensor[]>()
    const counted: Tensor[] = []
    for (const param of params) {
      const state = this.state.get(param)!
      if (state.step instanceof Tensor) {
        counted.push(param)
        continue
      }
      const step = (state.step ?? 0) + 1
      const together = bySteps.get(step)
      if (together === undefined) bySteps.set(step, [param])
      else together.push(param)
    }
    const cohorts: Cohort[] = [...bySteps].map(([step, together]) => ({ params: together, step, steps: null }))
    if (counted.length > 0) cohorts.push(this.counted(counted))
    return cohorts
  }

  /** Parameters whose updates the device counts. @internal */
  protected counted(params: readonly Tensor[]): Cohort {
    return { params, step: 0, steps: params.map((param) => this.state.get(param)!.step as Tensor) }
  }

  /** @internal */
  protected countStep({ params, step, steps }: Cohort): void {
    if (steps === null) for (const param of params) this.state.get(param)!.step = step
  }

  /** What the kernels take: parameters, gradients and the named states. @internal */
  protected operands({ params, steps }: Pick<Cohort, 'params' | 'steps'>, names: readonly string[]): StepOperands {
    return {
      params,
      grads: params.map((param) => param.grad!),
      states: names.map((name) => params.map((param) => this.namedState(param, name))),
      steps,
      conditions: this.#conditionsOn(params[0]!.device),
    }
  }

  get #ownConditions(): StepConditions {
    return this.#gate === null ? this.#conditions : { ...this.#conditions, foundInf: this.#gate }
  }

  #conditionsOn(device: Device): StepConditions {
    let placed = this.#placed.get(device)
    if (placed === undefined) {
      placed = conditionsOn(device, this.#ownConditions)
      this.#placed.set(device, placed)
    }
    return placed
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
    this._settle()
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

  /** Takes over options and states of an optimizer with equal groups. Tensors are copied and converted,
   *  into those that are there where they fit, so that a captured graph goes on with them; a step count that is a tensor,
   *  as in PyTorch's files, is waited for.
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
    this._settle()
    const options = Object.keys(this.defaults).filter((each) => !laterOptions.has(each))
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
      if (saved !== undefined) states.set(params[i]!, this.copyState(op, saved, params[i]!, i))
    })
    this.paramGroups.forEach((group, i) => {
      for (const param of group.params) {
        if (states.has(param) || !(this.state.get(param)?.step instanceof Tensor)) continue
        // none yet: a graph, which counts on the device, begins anew with what it has
        const { params: _, ...options } = groups[i]!
        states.set(param, { ...unscoped(() => this.create({ ...group, ...options }, param)), step: 0 })
      }
    })
    for (const [param, old] of this.state) {
      const state = states.get(param)
      for (const [key, value] of Object.entries(old)) {
        if (value instanceof Tensor && !(state && writeInto(value, state, key, op))) releaseTensor(value, op)
      }
    }
    flushReleases()
    this.state.clear()
    for (const [param, state] of states) this.state.set(param, state)
    groups.forEach((group, i) => {
      const { params: _, ...options } = group
      Object.assign(this.paramGroups[i]!, structuredClone(options))
    })
  }

  private copyState(op: string, saved: ParamState, param: Tensor, i: number): ParamState {
    const state: ParamState = {}
    for (const [key, value] of Object.entries(saved)) {
      if (typeof value === 'number' || value === undefined) {
        state[key] = value
      } else if (value instanceof Tensor && value.numel === 1 && key === 'step') {
        state[key] = value.itemSync() // PyTorch keeps step counts as tensors
      } else {
        const dtype = value instanceof Tensor ? this.stateDType(key, saved, param) : null
        if (!(value instanceof Tensor) || dtype === null) {
          throw new ShapeError(op, {
            problem: `state ${key} of parameter ${i} does not fit`,
            got: value instanceof Tensor ? `${value.dtype} ${describeShape(value.shape)}` : describeValue(value),
            expected: describeShape(param.shape),
          })
        }
        state[key] = unscoped(() => {
          const own = value.detach().to({ dtype, device: param.device })
          return own === value || own._base !== null ? own.clone() : own
        })
      }
    }
    return state
  }

  /** The dtype that a saved state is kept in, or null when it does not fit the parameter. @internal */
  protected stateDType(key: string, saved: ParamState, param: Tensor): DType | null {
    if (!sameShape((saved[key] as Tensor).shape, param.shape)) return null
    return param.dtype === 'float64' ? 'float64' : 'float32'
  }
}
