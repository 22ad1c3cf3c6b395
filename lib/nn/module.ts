// Modules: named trees of parameters with a forward.
//
// Parameters, buffers and submodules are found in a module's own fields when they are asked for, so class fields just
// work and nothing is registered twice. `forward` is wrapped once, at construction: the wrapper opens the memory scope
// that releases what a call leaves behind, names the module in error messages, and runs the hooks.

import { runCheckpointed, type SaveOps } from '../autograd/checkpoint'
import { withoutGrad } from '../autograd/mode'
import { keeper } from '../autograd/node'
import { cudaDevice, type Device, type DeviceName } from '../device'
import { type DType, dtypeNames, isFloatingCode } from '../dtype'
import { ArgumentError, DTypeError, describeValue, GradusError, StateError } from '../errors'
import { toRead } from '../ops/shape'
import { readTarget, type ToOptions, type ToTarget } from '../ops/target'
import { expectFunction, readOptions } from '../options'
import { currentContext, setContext } from '../tensor/dispatch'
import { forEachTensor, scoped } from '../tensor/scope'
import { type HookHandle, Tensor } from '../tensor/tensor'
import { newContext, pathOf } from './context'
import { addHook, type BackwardHook, type ForwardHook, type ForwardPreHook, ModuleHooks } from './hooks'
import { moveInto } from './moving'
import { clearGradients, gradientsOf, isParameter, parameter, rememberName } from './parameter'
import { expectStateDict, type IncompatibleKeys, loadInto, type StateDict, type StateEntry } from './stateDict'

/** @internal */
export interface CheckpointPolicy {
  readonly save: SaveOps | null
}

// --- the module -------------------------------------------------------------------------------------------------------

let callDepth = 0

// Tensors that the functions of the `apply` under way have dealt with; null outside of one.
let applied: Set<Tensor> | null = null

/** @internal For functions that are to treat a module alone inside of `apply`, and all below it when called directly:
 *  null outside of `apply`, else the set in which they note tied tensors. */
export function appliedTensors(): Set<Tensor> | null {
  return applied
}

/** Base of all modules. Subclasses have a `forward` method (a method: a class field would escape the wrapper and is
 *  refused) and keep parameters, buffers and submodules in their fields; arrays and maps of modules go in `ModuleList`
 *  and `ModuleDict`. Private `#fields` are not found.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html
 *  @example
 *  class Mlp extends nn.Module {
 *    up = new nn.Linear(4, 8)
 *    down = new nn.Linear(8, 4)
 *    forward(x: Tensor) {
 *      return this.down.forward(ops.gelu(this.up.forward(x)))
 *    }
 *  } */
export class Module {
  /** Whether the module trains (dropout drops) or evaluates. */
  training = true
  readonly #wrapper: (...inputs: unknown[]) => unknown
  readonly #buffers = new Map<string, boolean>() // name -> persistent
  readonly #hooks = new ModuleHooks()
  readonly #label: string
  #context = 0
  /** @internal How its calls are checkpointed while it trains, or null; see gradientCheckpointing */
  _checkpointing: CheckpointPolicy | null = null

  constructor() {
    const { forward } = this
    this.#label = `${new.target.name}.forward`
    this.#wrapper = (...inputs) => this.#call(forward as (...inputs: unknown[]) => unknown, inputs)
    Object.defineProperty(this, 'forward', {
      value: this.#wrapper,
      writable: true,
      configurable: true,
      enumerable: false,
    })
  }

  /** Computes the module's output. Subclasses give it their own parameters. */
  forward(..._inputs: never[]): unknown {
    throw new StateError(this.constructor.name, {
      problem: 'the module has no forward',
      action: 'write a forward method',
    })
  }

  #call(forward: (...inputs: unknown[]) => unknown, given: unknown[]): unknown {
    if (this.#context === 0) {
      this.namedModules() // refuses what the memory scope or parameters() would not see
      this.#context = newContext(this, currentContext)
    }
    const outer = setContext(this.#context)
    callDepth++
    let output: unknown
    try {
      output = scoped(this.#label, this, () => {
        const inputs = this.#hooks.before(this, given)
        const policy = this._checkpointing
        const result =
          policy === null || !this.training
            ? this.#run(forward, inputs)
            : runCheckpointed('checkpoint', (...again) => this.#run(forward, again), inputs, policy.save, this)
        return result instanceof Promise
          ? result.then((value) => this.#hooks.after(this, inputs, value))
          : this.#hooks.after(this, inputs, result)
      })
    } catch (error) {
      if (error instanceof GradusError) error.modulePath ??= pathOf(this.#context)
      throw error
    } finally {
      callDepth--
      setContext(outer)
    }
    if (callDepth === 0) {
      if (output instanceof Promise) return output.then(markOutermost)
      markOutermost(output)
    }
    return output
  }

  #run(forward: (...inputs: unknown[]) => unknown, inputs: unknown[]): unknown {
    keeper?.passes(this.training ? 'a module in training' : 'a module in evaluation')
    return forward.apply(this, inputs)
  }

  /** Calls `hook` before every forward; returns what takes it off. */
  registerForwardPreHook(hook: ForwardPreHook): HookHandle {
    return addHook('registerForwardPreHook', this.#hooks.pre, hook)
  }

  /** Calls `hook` after every forward; what it is handed stays alive beyond the call. Returns what takes it off. */
  registerForwardHook(hook: ForwardHook): HookHandle {
    return addHook('registerForwardHook', this.#hooks.forward, hook)
  }

  /** Calls `hook` with the gradient of the module's first output tensor when backward reaches it. */
  registerBackwardHook(hook: BackwardHook): HookHandle {
    return addHook('registerBackwardHook', this.#hooks.backward, hook)
  }

  /** Whether someone watches or changes its calls: then it must not be fused with others. */
  get hasHooks(): boolean {
    return this.#hooks.size > 0
  }

  /** Makes a tensor a buffer: part of the state, not trained. Not saved when `persistent` is false. */
  registerBuffer(name: string, buffer: Tensor, options: { persistent?: boolean } = {}): void {
    const { persistent = true } = readOptions('registerBuffer', options, ['persistent'])
    if (!(buffer instanceof Tensor)) {
      throw new ArgumentError('registerBuffer', { problem: 'not a tensor', got: describeValue(buffer) })
    }
    this.#buffers.set(name, persistent)
    ;(this as Record<string, unknown>)[name] = buffer.keep()
  }

  /** Makes a tensor a parameter in a field of that name. */
  registerParameter(name: string, data: Tensor): void {
    ;(this as Record<string, unknown>)[name] = parameter(data)
  }

  /** The modules from the outermost to this one. */
  #below(above: readonly Module[]): readonly Module[] {
    if (!above.includes(this)) return [...above, this]
    throw new StateError(this.constructor.name, {
      problem: 'the module stands below itself',
      action: 'keep the way up in a #private field',
    })
  }

  /** Direct submodules by field.
   *  @throws StateError for modules or parameters in arrays, maps and objects, and for a forward in a class field */
  namedChildren(): [string, Module][] {
    if ((this as { forward: unknown }).forward !== this.#wrapper) {
      throw new StateError(this.constructor.name, {
        problem: 'forward is a class field, which the memory scope cannot see',
        got: 'forward = (...) => ...',
        expected: 'forward(...) { ... }',
        action: 'write it as a method',
      })
    }
    const entries = Object.entries(this)
    for (const [name, value] of entries) this.#expectNothingHidden(name, value)
    return entries.filter((entry): entry is [string, Module] => entry[1] instanceof Module)
  }

  #expectNothingHidden(name: string, value: unknown): void {
    const hidden = hiddenIn(value)
    if (hidden === null) return
    const list = hidden === 'modules' ? 'nn.ModuleList or nn.ModuleDict' : 'a field for each'
    throw new StateError(this.constructor.name, {
      problem: `the field "${name}" hides ${hidden}`,
      got: Array.isArray(value) ? 'an array' : describeValue(value),
      expected: hidden === 'modules' ? 'a module' : 'a parameter',
      action: `use ${list}, or a #private field for what is not the module's own`,
    })
  }

  /** Direct submodules. */
  children(): Module[] {
    return this.namedChildren().map(([, child]) => child)
  }

  /** This module and all below it, each once, with their paths. */
  namedModules(prefix = '', seen = new Set<Module>()): [string, Module][] {
    if (seen.has(this)) return []
    seen.add(this)
    const below = this.namedChildren().flatMap(([name, child]) => child.namedModules(join(prefix, name), seen))
    return [[prefix, this], ...below]
  }

  /** This module and all below it, each once. */
  modules(): Module[] {
    return this.namedModules().map(([, module]) => module)
  }

  #own(kind: 'parameters' | 'buffers' | 'state'): [string, Tensor][] {
    return Object.entries(this).filter((entry): entry is [string, Tensor] => {
      const [name, value] = entry
      if (!(value instanceof Tensor)) return false
      const persistent = this.#buffers.get(name)
      if (kind === 'buffers') return persistent !== undefined
      return persistent === undefined ? isParameter(value) : kind === 'state' && persistent
    })
  }

  /** Parameters with their paths; a tied one once, under its first path. */
  namedParameters(): [string, Tensor][] {
    const seen = new Set<Tensor>()
    const named = this.namedModules()
      .flatMap(([path, module]) =>
        module.#own('parameters').map(([name, p]) => [join(path, name), p] as [string, Tensor]),
      )
      .filter(([, p]) => !seen.has(p) && seen.add(p))
    for (const [name, p] of named) rememberName(p, name)
    return named
  }

  /** Parameters, a tied one once. */
  parameters(): Tensor[] {
    return this.namedParameters().map(([, p]) => p)
  }

  /** Buffers with their paths. */
  namedBuffers(): [string, Tensor][] {
    return this.namedModules().flatMap(([path, module]) =>
      module.#own('buffers').map(([name, b]) => [join(path, name), b] as [string, Tensor]),
    )
  }

  /** Number of elements of all parameters, tied ones counted once. */
  numParameters(options: { trainable?: boolean } = {}): number {
    const { trainable = false } = readOptions('numParameters', options, ['trainable'])
    return this.parameters()
      .filter((p) => !trainable || p.requiresGrad)
      .reduce((n, p) => n + p.numel, 0)
  }

  /** Parameters and persistent buffers by path, detached, sharing memory with the module. Tied ones stand under each
   *  of their paths. */
  stateDict(): StateDict {
    const state: StateDict = {}
    for (const { path, tensor, layout } of this.#state()) state[path] = layout(tensor.detach())
    return state
  }

  /** Gradients under the names and in the layout of `stateDict`; parameters without one are left out. */
  gradDict(): StateDict {
    const grads: StateDict = {}
    for (const { path, tensor, layout } of this.#state()) {
      if (tensor.grad !== null) grads[path] = layout(tensor.grad.detach())
    }
    return grads
  }

  /** How the tensor in a field of this module stands in a state dict: itself, or a view of it where files have another
   *  layout than the kernels want (a transpose). */
  stateLayout(_name: string, tensor: Tensor): Tensor {
    return tensor
  }

  #state(prefix = '', above: readonly Module[] = []): StateEntry[] {
    const path = this.#below(above)
    const own = this.#own('state').map(([name, tensor]) => ({
      path: join(prefix, name),
      tensor,
      layout: (each: Tensor) => this.stateLayout(name, each),
    }))
    return [...own, ...this.namedChildren().flatMap(([name, child]) => child.#state(join(prefix, name), path))]
  }

  /** Copies values into parameters and buffers. Everything is checked before anything is written.
   *  @throws StateError when `strict` (the default) and names are missing or unknown; ShapeError when a shape differs */
  loadStateDict(state: StateDict, options: { strict?: boolean } = {}): IncompatibleKeys {
    const { strict = true } = readOptions('loadStateDict', options, ['strict'])
    expectStateDict(state)
    return loadInto(this.#state(), this._ownState(state), strict)
  }

  /** @internal Throws what `loadStateDict` would, and changes nothing. False where a subclass has a `loadStateDict` of its
   *  own, of which nothing is known. */
  _checkStateDict(state: StateDict): boolean {
    if (this.loadStateDict !== Module.prototype.loadStateDict) return false
    expectStateDict(state)
    loadInto(this.#state(), this._ownState(state), true, false)
    return true
  }

  /** @internal A state dict without what writers store beside a module's own names. */
  protected _ownState(state: StateDict): StateDict {
    return state
  }

  /** Sets training mode for this module and all below it. */
  train(mode = true): this {
    for (const module of this.modules()) module.training = mode
    return this
  }

  /** Sets evaluation mode: `train(false)`. */
  eval(): this {
    return this.train(false)
  }

  /** Calls fn on every module below this one and then on this one. */
  apply(fn: (module: Module) => void): this {
    expectFunction('apply', fn)
    return this.#apply(fn, [])
  }

  #apply(fn: (module: Module) => void, above: readonly Module[]): this {
    const path = this.#below(above)
    const outer = applied
    applied ??= new Set()
    try {
      for (const child of this.children()) child.#apply(fn, path)
      fn(this)
    } finally {
      applied = outer
    }
    return this
  }

  /** Moves parameters, their gradients, and buffers in place, so that optimizers keep them: `to(dtype)`, `to(device)`,
   *  `to(device, dtype)`, `to({ dtype, device })`. Only floating ones change their dtype.
   *  @throws DTypeError, DeviceError for what is neither; ArgumentError for options that do not exist
   *  @see https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html#torch.nn.Module.to
   *  @example new nn.Linear(2, 2).to('cpu', 'float64').weight.dtype // 'float64' */
  to(device: DeviceName | Device, dtype: DType, options?: ToOptions): this
  to(target: ToTarget, options?: ToOptions): this
  to(target: ToTarget, second?: DType | ToOptions, third?: ToOptions): this {
    const whole = readTarget(target, second, third)
    if (whole.dtype !== null && !isFloatingCode(whole.dtype)) {
      throw new DTypeError('to', {
        problem: 'parameters have no gradients in this dtype',
        got: dtypeNames[whole.dtype]!,
        expected: 'float32, float64, float16 or bfloat16',
      })
    }
    const move = (tensor: Tensor): void => {
      const moved = toRead(tensor, isFloatingCode(tensor._dtype) ? whole : { ...whole, dtype: null })
      if (moved !== tensor) moveInto(tensor, moved)
    }
    withoutGrad(() => {
      const tensors = new Set([...this.parameters(), ...this.namedBuffers().map(([, b]) => b)])
      for (const tensor of tensors) move(tensor)
      for (const grad of gradientsOf(tensors)) if (!grad.isReleased) move(grad)
    })
    return this
  }

  /** `to('cpu')`
   *  @see https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html#torch.nn.Module.cpu */
  cpu(): this {
    return this.to('cpu')
  }

  /** `to('cuda')`, or to the CUDA device of an index or a name.
   *  @throws DeviceError where there is no such CUDA device
   *  @see https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html#torch.nn.Module.cuda */
  cuda(device?: number | DeviceName | Device): this {
    return this.to(cudaDevice('cuda', device))
  }

  /** `to('float32')` */
  float(): this {
    return this.to('float32')
  }

  /** `to('float64')` */
  double(): this {
    return this.to('float64')
  }

  /** `to('float16')` */
  half(): this {
    return this.to('float16')
  }

  /** `to('bfloat16')` */
  bfloat16(): this {
    return this.to('bfloat16')
  }

  /** Sets `requiresGrad` of every parameter. */
  requiresGrad_(value = true): this {
    for (const p of this.parameters()) p.requiresGrad_(value)
    return this
  }

  /** Forgets the gradients, or with `setToNone: false` sets them to 0. */
  zeroGrad(options: { setToNone?: boolean } = {}): void {
    const { setToNone = true } = readOptions('zeroGrad', options, ['setToNone'])
    clearGradients(this.parameters(), setToNone)
  }

  /** What stands between the parentheses of the printed tree. */
  extraRepr(): string {
    return ''
  }

  toString(): string {
    return this.#draw([])
  }

  #draw(above: readonly Module[]): string {
    const path = this.#below(above)
    const children = this.namedChildren()
    const count = this.numParameters()
    const head = `${this.constructor.name}(${this.extraRepr()})${count > 0 ? `  # ${count.toLocaleString('en')} parameters` : ''}`
    const lines = children.map(([name, child]) => `  (${name}): ${child.#draw(path).replaceAll('\n', '\n  ')}`)
    return [head, ...lines].join('\n')
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return this.toString()
  }
}

/** What a field holds that parameters() would not find. Lists are of one kind, so that the first elements tell. */
function hiddenIn(value: unknown, depth = 0): 'modules' | 'parameters' | null {
  if (value === null || typeof value !== 'object' || depth > 2) return null
  if (depth > 0 && value instanceof Module) return 'modules'
  if (value instanceof Tensor) return depth > 0 && isParameter(value) ? 'parameters' : null
  if (value instanceof Map || value instanceof Set || Array.isArray(value)) {
    if (!Array.isArray(value) && value.size > 64) return null
    const first: unknown[] = Array.isArray(value) ? value.slice(0, 8) : [...value.values()].slice(0, 8)
    return first.reduce<ReturnType<typeof hiddenIn>>((found, each) => found ?? hiddenIn(each, depth + 1), null)
  }
  const prototype = Object.getPrototypeOf(value)
  if (prototype !== Object.prototype && prototype !== null) return null
  return hiddenIn(Object.values(value), depth)
}

const join = (prefix: string, name: string): string => (prefix === '' ? name : `${prefix}.${name}`)

function markTensorOutermost(tensor: Tensor): void {
  tensor._outermost = true
}

function markOutermost<T>(output: T): T {
  forEachTensor(output, markTensorOutermost)
  return output
}
