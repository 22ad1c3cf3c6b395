// The tensor: a handle of the native side with its shape, dtype and place in the autograd graph.
//
// Methods live with their operators: every file of lib/ops adds the ones of its family (see lib/ops/methods.ts), so
// this class knows no operator.

import type { Node } from '../autograd/node'
import type { Device } from '../device'
import { BFLOAT16, type DType, dtypeNames, FLOAT16, FLOAT32, isFloatingCode, itemSizes } from '../dtype'
import {
  ArgumentError,
  DeviceError,
  DTypeError,
  describeShape,
  describeValue,
  IndexError,
  ShapeError,
  StateError,
} from '../errors'
import { binding, check, nativeError, scratch } from '../native'
import { expectFunction } from '../options'
import { hostTarget, type NestedArray, nest, scalar, type TensorData } from './elements'
import { contiguousStrides, isContiguous, sameShape } from './layout'
import { flushReleases, releaseTensor, track, yieldToCollector } from './memory'
import { observer } from './observer'
import { formatTensor } from './print'

export { contiguousStrides, sameShape } from './layout'

/** Sizes of a tensor, outermost first. */
export type Shape = readonly number[]

/** A gradient hook: may return a replacement of the same shape, dtype and device. */
export type GradientHook = (grad: Tensor) => Tensor | undefined | void

/** Takes a hook off when it is called, or its `remove`. */
export interface HookHandle {
  (): void
  remove(): void
}

/** @internal */
export function hookHandle(remove: () => unknown): HookHandle {
  const handle = (): void => void remove()
  return Object.assign(handle, { remove: handle })
}

/** @internal A cheap way to compute a tensor again from tensors that the tape holds anyway. */
export interface Recipe {
  readonly inputs: readonly Tensor[]
  /** The tensor, in a dtype that need not be its own. */
  readonly compute: (inputs: readonly Tensor[], dtype: number) => Tensor
  /** It gives the tensor but for rounding. Then formulas read what it gives even where the tensor is still there, so that
   *  their bits do not depend on who holds it. */
  readonly rounds?: boolean
}

/** An n-dimensional array on a device. Made by `tensor`, `zeros`, … and by operators; never by `new`. */
export class Tensor {
  readonly shape: Shape
  /** @internal code of the dtype */
  readonly _dtype: number
  /** @internal native handle */
  readonly _handle: number
  /** @internal */
  readonly _device: Device
  /** @internal `grad`, where it is known to fit */
  _grad: Tensor | null = null

  /** @internal strides in elements; null when contiguous */
  _strides: readonly number[] | null
  /** @internal in elements */
  readonly _offset: number
  /** @internal the tensor whose storage this one views, and which counts its in-place changes */
  readonly _base: Tensor | null
  /** @internal in-place changes of the storage; kept on the base. Of a view: those before it was taken */
  _version = 0
  /** @internal `_version` when the tape last took it as an output: views taken earlier are not its views any more */
  _recordedAt = 0
  /** @internal the operation that made it, when that is differentiable */
  _node: Node | null = null
  /** @internal which output of the node */
  _output = 0
  /** @internal */
  _requiresGrad = false
  /** @internal owners: the user's object 1, each saving by the tape 1, the engine 1 */
  _refs = 1
  /** @internal where the user's ownership ended */
  _released: string | null = null
  /** @internal */
  _kept = false
  /** @internal an output of an outermost module call: backward leaves it alone */
  _outermost = false
  /** @internal registered with the garbage collector's registry */
  _collectable = false
  /** @internal mark of the scope that is closing */
  _survives = 0
  /** @internal hooks on the gradient */
  _hooks: GradientHook[] | null = null
  /** @internal how to compute it again, when that is cheaper than keeping it for backward */
  _recipe: Recipe | null = null
  /** @internal a sum of gradients: it fails with what fails to be added to it, so that no optimizer takes it for whole */
  _accumulates = false
  /** @internal retainGrad was called */
  _retainGrad = false

  /** @internal */
  constructor(
    handle: number,
    shape: Shape,
    dtype: number,
    device: Device,
    base: Tensor | null = null,
    strides: readonly number[] | null = null,
    offset = 0,
  ) {
    this._handle = handle
    this.shape = shape
    this._dtype = dtype
    this._device = device
    this._base = base
    this._strides = strides
    this._offset = offset
  }

  /** @internal A tensor around a new handle, owned by the scope that is open. */
  static _new(handle: number, shape: Shape, dtype: number, device: Device): Tensor {
    const tensor = new Tensor(handle, shape, dtype, device)
    track(tensor)
    return tensor
  }

  /** @internal A view of `source`'s storage; the caller has checked that it stays inside. */
  static _view(source: Tensor, shape: Shape, strides: readonly number[], offset: number): Tensor {
    const rank = shape.length
    if (observer !== null) observer.uses(source)
    scratch[0] = source._handle
    scratch[1] = offset
    scratch[2] = rank
    for (let d = 0; d < rank; d++) {
      scratch[3 + d] = shape[d]!
      scratch[3 + rank + d] = strides[d]!
    }
    check(binding.view())
    const handle = scratch[0]!
    const contiguous = isContiguous(shape, strides)
    const kept = contiguous ? null : strides
    const view = new Tensor(handle, shape, source._dtype, source._device, source._base ?? source, kept, offset)
    view._version = view._base!._version
    track(view)
    return view
  }

  /** Element type. */
  get dtype(): DType {
    return dtypeNames[this._dtype]!
  }

  /** Device that holds the elements. */
  get device(): Device {
    return this._device
  }

  /** Whether a CUDA device holds the elements.
   *  @see https://docs.pytorch.org/docs/stable/generated/torch.Tensor.is_cuda.html */
  get isCuda(): boolean {
    return this._device.type === 'cuda'
  }

  /** Number of dims. */
  get ndim(): number {
    return this.shape.length
  }

  /** Number of elements. */
  get numel(): number {
    const shape = this.shape
    let n = 1
    for (let d = 0; d < shape.length; d++) n *= shape[d]!
    return n
  }

  /** Bytes of the elements. */
  get nbytes(): number {
    return this.numel * itemSizes[this._dtype]!
  }

  /** Steps between neighbours along each dim, in elements. */
  get strides(): readonly number[] {
    return this._strides ?? contiguousStrides(this.shape)
  }

  /** Whether the elements stand in row-major order without gaps. */
  get isContiguous(): boolean {
    return this._strides === null
  }

  /** The shape, or the size of one dim; negative dims count from the end. @throws IndexError when there is no such dim */
  size(): Shape
  size(dim: number): number
  size(dim?: number): Shape | number {
    if (dim === undefined) return this.shape
    const size = this.shape[dim < 0 ? dim + this.shape.length : dim]
    if (size === undefined) {
      throw new IndexError('size', {
        problem: 'no such dim',
        got: `${dim} for a tensor of shape ${describeShape(this.shape)}`,
        expected: `${-this.ndim} to ${this.ndim - 1}`,
      })
    }
    return size
  }

  /** Whether operations on it are recorded for `backward()`. */
  get requiresGrad(): boolean {
    return this._requiresGrad
  }

  set requiresGrad(value: boolean) {
    this.requiresGrad_(value)
  }

  /** Sets `requiresGrad` of a leaf; returns the tensor.
   *  @throws DTypeError for integer tensors; StateError for results of operations, use `detach()` */
  requiresGrad_(value = true): this {
    this._alive('requiresGrad_')
    if (value && !isFloatingCode(this._dtype)) {
      throw new DTypeError('requiresGrad_', {
        problem: 'only floating tensors have gradients',
        got: this.dtype,
        expected: 'float32, float64, float16 or bfloat16',
      })
    }
    if (!value && this._node !== null) {
      throw new StateError('requiresGrad_', {
        problem: 'the tensor is the result of an operation, so its gradient is part of the graph',
        action: 'use detach()',
      })
    }
    this._requiresGrad = value
    return this
  }

  /** Gradient that `backward()` accumulated, or null. One that is assigned is on the tensor's device and has its shape and
   *  dtype, or float32 for 16 bits.
   *  @throws ArgumentError for what is no tensor; ShapeError, DTypeError, DeviceError for one that does not fit
   *  @see https://docs.pytorch.org/docs/stable/generated/torch.Tensor.grad.html */
  get grad(): Tensor | null {
    return this._grad
  }

  set grad(value: Tensor | null) {
    if (value !== null) expectGradient(this, value)
    this._grad = value
  }

  /** Whether it was made by the user rather than by a recorded operation. */
  get isLeaf(): boolean {
    return this._node === null
  }

  /** Name of the recorded operation that made it, or null. */
  get gradFn(): string | null {
    return this._node === null ? null : this._node.name
  }

  /** Keeps the gradient of a non-leaf in `.grad` when backward passes. */
  retainGrad(): this {
    this._alive('retainGrad')
    this._retainGrad = true
    return this
  }

  /** Calls `hook` with the gradient when backward has it; a returned tensor of the same shape, dtype and device
   *  replaces it.
   *  Returns what takes the hook off. */
  registerHook(hook: GradientHook): HookHandle {
    this._alive('registerHook')
    expectFunction('registerHook', hook)
    if (!this._requiresGrad) {
      throw new StateError('registerHook', { problem: 'the tensor does not require a gradient' })
    }
    this._hooks ??= []
    const hooks = this._hooks
    hooks.push(hook)
    return hookHandle(() => {
      const at = hooks.indexOf(hook)
      if (at >= 0) hooks.splice(at, 1)
    })
  }

  /** @internal In-place changes of its storage so far. */
  get _storageVersion(): number {
    return this._base === null ? this._version : this._base._version
  }

  /** @internal */
  _bumpVersion(): void {
    ;(this._base ?? this)._version++
  }

  /** @internal Throws when the tensor was released. */
  _alive(op: string): void {
    if (this._released !== null) throw releasedError(op, this)
  }

  /** Whether its memory was given back. */
  get isReleased(): boolean {
    return this._released !== null
  }

  /** Keeps it alive beyond the scope (module call, tidy, backward) that would release it; returns the tensor. */
  keep(): this {
    this._alive('keep')
    this._kept = true
    return this
  }

  /** Gives its memory back now, unless the tape still needs it. Views of it stay valid. */
  dispose(): void {
    releaseTensor(this, 'dispose()')
    flushReleases()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }

  /** Elements in row-major order; waits without blocking the event loop. 16-bit floats arrive as float32. */
  async data(): Promise<TensorData> {
    this._alive('data')
    const [target, finish] = hostTarget(this)
    await this._read(target)
    return finish()
  }

  /** @internal The elements as they stand in memory, in row-major order. */
  async _bytes(op: string): Promise<Uint8Array> {
    this._alive(op)
    const bytes = new Uint8Array(this.nbytes)
    await this._read(bytes)
    return bytes
  }

  /** @internal Like `data()`, for those that nobody listens to: what failed elsewhere is left to the next wait. */
  async _peek(): Promise<TensorData> {
    this._alive('data')
    const [target, finish] = hostTarget(this)
    await this._read(target, true)
    return finish()
  }

  private async _read(target: Uint8Array, peeks = false): Promise<void> {
    scratch[0] = this._handle
    const pending = binding.read(target, peeks)
    if (Array.isArray(pending)) throw nativeError(pending)
    try {
      await pending
    } catch (failure) {
      throw nativeError(failure)
    }
    await yieldToCollector()
  }

  /** Like `data()`, but blocks. */
  dataSync(): TensorData {
    this._alive('dataSync')
    const [target, finish] = hostTarget(this)
    scratch[0] = this._handle
    check(binding.readSync(target))
    return finish()
  }

  /** Elements as nested arrays (a number for rank 0); waits without blocking the event loop. int64 elements become
   *  numbers where exact, else this throws: use `data()`, which gives BigInt. */
  async array(): Promise<NestedArray> {
    return nest(await this.data(), this.shape, this._dtype)
  }

  /** Like `array()`, but blocks. */
  arraySync(): NestedArray {
    return nest(this.dataSync(), this.shape, this._dtype)
  }

  /** The value of a one-element tensor; waits without blocking the event loop. */
  async item(): Promise<number> {
    this._single('item')
    return scalar('item', await this.data(), this._dtype)
  }

  /** Like `item()`, but blocks. */
  itemSync(): number {
    this._single('itemSync')
    return scalar('itemSync', this.dataSync(), this._dtype)
  }

  private _single(op: string): void {
    this._alive(op)
    if (this.numel !== 1) {
      throw new StateError(op, {
        problem: 'not a one-element tensor',
        got: `shape ${describeShape(this.shape)}`,
        action: 'use array()',
      })
    }
  }

  toString(): string {
    return formatTensor(this)
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return formatTensor(this)
  }

  /** JSON is written at once, and elements have to be waited for.
   *  @throws StateError always: read the tensor first, with `await t.array()` */
  toJSON(): never {
    throw new StateError('toJSON', {
      problem: 'a tensor is not written as JSON',
      got: `${this.dtype} ${describeShape(this.shape)}`,
      action: 'read it first: await t.array(), or save it with io.saveFile',
    })
  }
}

function expectGradient(of: Tensor, value: unknown): void {
  if (!(value instanceof Tensor)) {
    throw new ArgumentError('grad', {
      problem: 'the gradient is not a tensor',
      got: describeValue(value),
      expected: 'a Tensor, or null',
    })
  }
  value._alive('grad')
  if (!sameShape(value.shape, of.shape)) {
    throw new ShapeError('grad', {
      problem: 'the gradient has another shape than its tensor',
      got: describeShape(value.shape),
      expected: describeShape(of.shape),
    })
  }
  const isWider = value._dtype === FLOAT32 && (of._dtype === FLOAT16 || of._dtype === BFLOAT16)
  if (value._dtype !== of._dtype && !isWider) {
    throw new DTypeError('grad', {
      problem: 'the gradient has another dtype than its tensor',
      got: value.dtype,
      expected: of.dtype,
      action: `convert it with .to('${of.dtype}')`,
    })
  }
  expectDevice('grad', 'the gradient is on another device than its tensor', value, of)
}

/** @internal Throws unless a gradient is on the device of what it is the gradient of. */
export function expectDevice(op: string, problem: string, gradient: Tensor, of: Tensor): void {
  if (gradient._device === of._device) return
  throw new DeviceError(op, {
    problem,
    got: String(gradient._device),
    expected: String(of._device),
    action: `move it with .to('${of._device}')`,
  })
}

/** @internal */
export function releasedError(op: string, tensor: Tensor): StateError {
  return new StateError(op, {
    problem: `a tensor of shape ${describeShape(tensor.shape)} was released by ${tensor._released}`,
    action: 'call .keep() on it before, or return it',
  })
}
