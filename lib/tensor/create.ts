// New tensors from numbers.

import { Device, type DeviceName, device } from '../device'
import { BOOL, type DType, dtypeCode, FLOAT32, FLOAT64, INT32, INT64, isFloatingCode, UINT8 } from '../dtype'
import { ArgumentError, DTypeError, describeShape, describeValue, ShapeError } from '../errors'
import { binding, check, scratch } from '../native'
import { readOptions } from '../options'
import { make, native, run, transfer } from './dispatch'
import type { NestedArray } from './elements'
import { type Shape, Tensor } from './tensor'

/** Options of functions that make tensors. */
export interface TensorOptions {
  /** Element type; by default float32, or what the data are made of. */
  dtype?: DType
  /** Where it is made; default cpu. */
  device?: DeviceName | Device
  /** Records operations on it for backward; default false. */
  requiresGrad?: boolean
}

const fillOp = native('fill', 'value')
const arangeOp = native('arange', 'start,step')

function checkShape(op: string, shape: readonly number[] | number): number[] {
  const sizes = typeof shape === 'number' ? [shape] : shape
  if (!Array.isArray(sizes) || sizes.length > 8 || sizes.some((size) => !Number.isSafeInteger(size) || size < 0)) {
    throw new ShapeError(op, {
      problem: 'not a shape',
      got: Array.isArray(sizes) ? describeShape(sizes) : describeValue(sizes),
      expected: 'up to 8 whole numbers of at least 0',
    })
  }
  return [...sizes]
}

/** @internal Names of `TensorOptions`. */
export const tensorOptions = ['dtype', 'device', 'requiresGrad'] as const satisfies readonly (keyof TensorOptions)[]

/** @internal What a function that makes tensors is called with: a shape, or its sizes one by one, and options. */
export type NewArguments<Options = TensorOptions> = readonly (readonly number[] | number | Options | undefined)[]

/** @internal `f([2, 3], options)` and `f(2, 3, options)` are the same. */
export function readNew<Options extends TensorOptions = TensorOptions>(
  op: string,
  args: NewArguments<Options>,
  names: readonly (keyof Options & string)[] = tensorOptions,
): [shape: number[], options: Options] {
  let count = 0
  while (count < args.length && typeof args[count] === 'number') count++
  const [shape, given, ...rest] = count > 1 ? [args.slice(0, count), ...args.slice(count)] : args
  const options = readOptions<Options>(op, (given ?? {}) as Options, names)
  if (given === null || rest.length > 0) {
    throw new ArgumentError(op, {
      problem: 'not a shape and options',
      got: `(${args.map(describeValue).join(', ')})`,
      expected: '([2, 3], { dtype }) or (2, 3, { dtype })',
    })
  }
  return [checkShape(op, shape as number[]), options]
}

function fill(op: string, [shape, options]: [number[], TensorOptions], value: number): Tensor {
  const code = options.dtype === undefined ? FLOAT32 : dtypeCode(options.dtype, op)
  return finish(make(fillOp, shape, code, placeOf(options), [value]), options)
}

/** @internal The device that options ask for. */
export const placeOf = ({ device: where }: { device?: DeviceName | Device }): Device =>
  where === undefined ? Device._default : device(where)

const finish = (tensor: Tensor, { requiresGrad }: TensorOptions): Tensor =>
  requiresGrad ? tensor.requiresGrad_() : tensor

/** A tensor of one value. @see https://docs.pytorch.org/docs/stable/generated/torch.full.html
 *  @example full([2, 2], 7) */
export function full(shape: readonly number[] | number, value: number, options: TensorOptions = {}): Tensor {
  return fill('full', readNew('full', [shape, options]), expectValue('full', value))
}

function expectValue(op: string, value: unknown): number {
  if (typeof value !== 'number' && typeof value !== 'boolean') {
    throw new ArgumentError(op, { problem: 'not a value', got: describeValue(value), expected: 'a number' })
  }
  return Number(value)
}

/** A tensor of zeros: `zeros([2, 3])` or `zeros(2, 3)`.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.zeros.html
 *  @example zeros([2, 3]).shape // [2, 3] */
export function zeros(shape: readonly number[] | number, options?: TensorOptions): Tensor
export function zeros(...sizes: number[]): Tensor
export function zeros(...sizes: [...sizes: number[], options: TensorOptions]): Tensor
export function zeros(...args: NewArguments): Tensor {
  return fill('zeros', readNew('zeros', args), 0)
}

/** A tensor of ones: `ones([2, 3])` or `ones(2, 3)`.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.ones.html
 *  @example ones([2, 3]).shape // [2, 3] */
export function ones(shape: readonly number[] | number, options?: TensorOptions): Tensor
export function ones(...sizes: number[]): Tensor
export function ones(...sizes: [...sizes: number[], options: TensorOptions]): Tensor
export function ones(...args: NewArguments): Tensor {
  return fill('ones', readNew('ones', args), 1)
}

/** A tensor for contents that are written later; gradus fills it with zeros, so nothing is ever uninitialized.
 *  @example empty([2, 3]).shape // [2, 3] */
export function empty(shape: readonly number[] | number, options?: TensorOptions): Tensor
export function empty(...sizes: number[]): Tensor
export function empty(...sizes: [...sizes: number[], options: TensorOptions]): Tensor
export function empty(...args: NewArguments): Tensor {
  return fill('empty', readNew('empty', args), 0)
}

function fillLike(op: string, tensor: Tensor, options: TensorOptions, value: number): Tensor {
  if (!(tensor instanceof Tensor)) {
    throw new DTypeError(op, { problem: 'not a tensor', got: describeValue(tensor), expected: 'a Tensor' })
  }
  return fill(op, readNew(op, [tensor.shape, likeOptions(op, tensor, options, tensorOptions)]), value)
}

/** @internal Options with a tensor's dtype and device where they name none. */
export function likeOptions<Options extends TensorOptions>(
  op: string,
  { dtype, device }: Tensor,
  options: Options,
  names: readonly (keyof Options & string)[],
): Options {
  const { dtype: otherDType = dtype, device: otherDevice = device, ...rest } = readOptions(op, options, names)
  return { ...rest, dtype: otherDType, device: otherDevice } as Options
}

/** Zeros of another tensor's shape, dtype and device.
 *  @example zerosLike(ones([2])) // [0, 0] */
export function zerosLike(tensor: Tensor, options: TensorOptions = {}): Tensor {
  return fillLike('zerosLike', tensor, options, 0)
}

/** Ones of another tensor's shape, dtype and device. @example onesLike(zeros([2, 3])).shape // [2, 3] */
export function onesLike(tensor: Tensor, options: TensorOptions = {}): Tensor {
  return fillLike('onesLike', tensor, options, 1)
}

/** `empty` in another tensor's shape, dtype and device. @example emptyLike(ones([2, 3])).shape // [2, 3] */
export function emptyLike(tensor: Tensor, options: TensorOptions = {}): Tensor {
  return fillLike('emptyLike', tensor, options, 0)
}

/** One value in another tensor's shape, dtype and device. @example fullLike(ones([2]), 7) // [7, 7] */
export function fullLike(tensor: Tensor, value: number, options: TensorOptions = {}): Tensor {
  return fillLike('fullLike', tensor, options, expectValue('fullLike', value))
}

/** start, start + step, … up to but without end: `arange(end)` or `arange(start, end, step)`; int64 when all are whole
 *  numbers, else float32. @see https://docs.pytorch.org/docs/stable/generated/torch.arange.html
 *  @example arange(5) // [0, 1, 2, 3, 4] */
export function arange(end: number, options?: TensorOptions): Tensor
export function arange(start: number, end: number, options?: TensorOptions): Tensor
export function arange(start: number, end: number, step: number, options?: TensorOptions): Tensor
export function arange(first: number, ...rest: (number | TensorOptions | undefined)[]): Tensor {
  const numbers = [first, ...rest.filter((each): each is number => typeof each === 'number')]
  const given = rest.find((each): each is TensorOptions => typeof each === 'object' && each !== null) ?? {}
  const options = readOptions('arange', given, tensorOptions)
  const [start, end, step] = (numbers.length === 1 ? [0, first, 1] : [...numbers, 1]) as [number, number, number]
  const count = Math.ceil((end - start) / step)
  if (![start, end, step].every(Number.isFinite) || step === 0 || count < 0) {
    throw new ArgumentError('arange', {
      problem: 'the range does not end',
      got: `start ${start}, end ${end}, step ${step}`,
      expected: 'finite numbers and a step that leads from start to end',
    })
  }
  const whole = numbers.every(Number.isInteger)
  const code = options.dtype === undefined ? (whole ? INT64 : FLOAT32) : dtypeCode(options.dtype, 'arange')
  return finish(make(arangeOp, [count], code, placeOf(options), [start, step]), options)
}

/** `steps` numbers from start to end, both included. @example linspace(0, 1, 3) // [0, 0.5, 1] */
export function linspace(start: number, end: number, steps: number, options: TensorOptions = {}): Tensor {
  readOptions('linspace', options, tensorOptions)
  const [count] = checkShape('linspace', steps) as [number]
  const code = options.dtype === undefined ? FLOAT32 : dtypeCode(options.dtype, 'linspace')
  const values = Float64Array.from({ length: count }, (_, i) =>
    // from both ends, so that the last one is exactly `end`
    i < count / 2
      ? start + (i * (end - start)) / Math.max(1, count - 1)
      : end - ((count - 1 - i) * (end - start)) / Math.max(1, count - 1),
  )
  if (count === 1) values[0] = start
  return finish(convert(fromTypedArray(values, [count], onHost), code, options), options)
}

/** Ones on the diagonal of an [n, m] matrix of zeros; m is n when it is not given.
 *  @example eye(2) // [[1, 0], [0, 1]] */
export function eye(n: number, options?: TensorOptions): Tensor
export function eye(n: number, m: number, options?: TensorOptions): Tensor
export function eye(n: number, m: number | TensorOptions = n, last?: TensorOptions): Tensor {
  const square = typeof m === 'object' && m !== null
  const options = readOptions('eye', (square ? m : last) ?? {}, tensorOptions)
  const [rows, columns] = checkShape('eye', [n, square ? n : m]) as [number, number]
  const code = options.dtype === undefined ? FLOAT32 : dtypeCode(options.dtype, 'eye')
  const values = new Float32Array(rows * columns)
  for (let i = 0; i < Math.min(rows, columns); i++) values[i * columns + i] = 1
  return finish(convert(fromTypedArray(values, [rows, columns], onHost), code, options), options)
}

const copyOp = native('copy')

const onHost = { device: Device.cpu }

// Elements become what they shall be on the host, and travel then.
function convert(tensor: Tensor, code: number, options: TensorOptions): Tensor {
  const place = placeOf(options)
  let result = tensor
  if (result._dtype !== code) result = replaced(result, run(copyOp, [result], result.shape, code))
  return result._device === place ? result : replaced(result, transfer(result, place))
}

function replaced(old: Tensor, by: Tensor): Tensor {
  old.dispose()
  return by
}

/** Typed arrays that hold elements. */
export type SourceArray =
  | Float32Array
  | Float64Array
  | BigInt64Array
  | Int32Array
  | Uint8Array
  | Int8Array
  | Int16Array
  | Uint16Array
  | Uint32Array

const direct = new Map<unknown, number>([
  [Float32Array, FLOAT32],
  [Float64Array, FLOAT64],
  [BigInt64Array, INT64],
  [Int32Array, INT32],
  [Uint8Array, UINT8],
])

/** @internal Elements as they stand in memory, for dtypes that JavaScript has no array for. */
export function fromBytes(bytes: Uint8Array, shape: Shape, dtype: DType, place: Device = Device.cpu): Tensor {
  return upload(bytes, checkShape('fromBytes', shape as number[]), dtypeCode(dtype, 'fromBytes'), place)
}

function upload(bytes: Uint8Array, shape: Shape, code: number, place: Device, aside = false): Tensor {
  scratch[0] = place._code
  scratch[1] = code
  scratch[2] = shape.length
  for (let d = 0; d < shape.length; d++) scratch[3 + d] = shape[d]!
  check(binding.upload(bytes, aside))
  return Tensor._new(scratch[0]!, shape, code, place)
}

/** A tensor of the elements of a typed array, which are copied. By default of one dim and of the array's own type
 *  (Uint16, Uint32, Int8 and Int16 arrays become int32 or int64).
 *  @throws ShapeError when the shape has another number of elements
 *  @example fromTypedArray(new Float32Array([1, 2, 3, 4]), [2, 2]) */
export function fromTypedArray(
  array: SourceArray,
  shape: readonly number[] = [array.length],
  options: TensorOptions = {},
): Tensor {
  readOptions('fromTypedArray', options, tensorOptions)
  if (!ArrayBuffer.isView(array) || array instanceof DataView) {
    throw new ArgumentError('fromTypedArray', {
      problem: 'not a typed array',
      got: describeValue(array),
      expected: 'a Float32Array, BigInt64Array, Int32Array, …',
    })
  }
  if (isDetached(array)) {
    throw new ArgumentError('fromTypedArray', {
      problem: 'the array has no memory any more',
      got: `${describeValue(array)} on a detached buffer`,
      action: 'read it before its buffer is transferred, or copy it',
    })
  }
  const sizes = checkShape('fromTypedArray', shape)
  const count = sizes.reduce((a, b) => a * b, 1)
  if (count !== array.length) {
    throw new ShapeError('fromTypedArray', {
      problem: 'the shape does not fit the array',
      got: `${array.length} elements for shape ${describeShape(sizes)}`,
      expected: `${count} elements`,
    })
  }
  let source: SourceArray = array instanceof Uint8Array ? asBytes(array) : array
  if (array instanceof Uint32Array) source = BigInt64Array.from(array, BigInt)
  else if (!direct.has(source.constructor)) source = Int32Array.from(array as Int16Array)
  let natural = direct.get(source.constructor)
  if (natural === undefined) {
    throw new DTypeError('fromTypedArray', { problem: 'no dtype for this array', got: describeValue(array) })
  }
  const wanted = options.dtype === undefined ? natural : dtypeCode(options.dtype, 'fromTypedArray')
  if (wanted === BOOL && natural === UINT8) {
    source = Uint8Array.from(source as Uint8Array, (value) => (value === 0 ? 0 : 1))
    natural = BOOL
  }
  const bytes = new Uint8Array(source.buffer, source.byteOffset, source.byteLength)
  // what needs no cast goes where it belongs at once
  const first = wanted === natural ? placeOf(options) : Device.cpu
  return finish(convert(upload(bytes, sizes, natural, first), wanted, options), options)
}

// A detached buffer refuses every view, also an empty one. (`ArrayBuffer.prototype.detached` is newer than Node 20.)
function isDetached(array: SourceArray): boolean {
  if (array.length > 0) return false
  try {
    new Uint8Array(array.buffer, 0, 0)
    return false
  } catch {
    return true
  }
}

// Node's Buffer is a Uint8Array of another class.
const asBytes = (array: Uint8Array): Uint8Array =>
  array.constructor === Uint8Array ? array : new Uint8Array(array.buffer, array.byteOffset, array.byteLength)

function shapeOf(data: unknown): number[] {
  const shape: number[] = []
  for (let level = data; Array.isArray(level); level = level[0]) {
    shape.push(level.length)
    if (shape.length > 8) {
      throw new ShapeError('tensor', { problem: 'nested too deep', expected: 'at most 8 dims, without cycles' })
    }
  }
  return shape
}

// As PyTorch: a value that does not fit is an error. Negative ones may wrap around to uint8, and fractions are cut off.
const wholeRanges = new Map<number, readonly [low: number, high: number]>([
  [INT32, [-(2 ** 31), 2 ** 31 - 1]],
  [UINT8, [-255, 255]],
])

function expectWithin(dtype: DType, value: number, [low, high]: readonly [number, number]): void {
  const whole = Math.trunc(value)
  if (whole >= low && whole <= high) return
  throw new DTypeError('tensor', {
    problem: `an element does not fit ${dtype}`,
    got: String(value),
    expected: `${low} to ${high}`,
  })
}

/** A tensor of a number, (nested) arrays of numbers or booleans, or a typed array. Numbers give float32 (int64 with
 *  `dtype`), booleans bool, BigInt int64.
 *  @throws ShapeError when rows differ in length; ArgumentError when an element is not a number
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.tensor.html
 *  @example tensor([[1, 2], [3, 4]]).shape // [2, 2] */
export function tensor(
  data: NestedArray | bigint | readonly (NestedArray | bigint)[] | SourceArray,
  options: TensorOptions = {},
): Tensor {
  readOptions('tensor', options, tensorOptions)
  if (ArrayBuffer.isView(data)) return fromTypedArray(data as SourceArray, undefined, options)
  const shape = shapeOf(data)
  const flat: (number | boolean | bigint)[] = []
  const visit = (value: unknown, dim: number): void => {
    if (dim < shape.length) {
      if (!Array.isArray(value) || value.length !== shape[dim]) {
        throw new ShapeError('tensor', {
          problem: 'rows differ in length',
          got: Array.isArray(value) ? `${value.length} elements at depth ${dim}` : describeValue(value),
          expected: `${shape[dim]} elements`,
        })
      }
      for (const each of value) visit(each, dim + 1)
    } else if (typeof value === 'number' || typeof value === 'boolean' || typeof value === 'bigint') {
      flat.push(value)
    } else {
      throw new ArgumentError('tensor', {
        problem: 'an element is not a number',
        got: describeValue(value),
        expected: 'numbers, booleans or BigInt',
      })
    }
  }
  visit(data, 0)
  const booleans = flat.length > 0 && flat.every((value) => typeof value === 'boolean')
  const bigints = flat.some((value) => typeof value === 'bigint')
  const natural: DType = booleans ? 'bool' : bigints ? 'int64' : 'float32'
  const code = dtypeCode(options.dtype ?? natural, 'tensor')
  if (code === INT64) {
    const values = BigInt64Array.from(flat, (value) => {
      if (typeof value === 'bigint' ? BigInt.asIntN(64, value) !== value : !Number.isSafeInteger(Number(value))) {
        const fraction = typeof value === 'number' && !Number.isInteger(value)
        throw new DTypeError('tensor', {
          problem: fraction ? 'an element is not a whole number' : 'an element does not fit int64',
          got: String(value),
          expected: 'whole numbers for int64; beyond 2^53 as BigInt',
        })
      }
      return BigInt(value)
    })
    return fromTypedArray(values, shape, options)
  }
  const range = wholeRanges.get(code)
  if (range !== undefined) {
    for (const value of flat) expectWithin(options.dtype!, Number(value), range)
  }
  const values =
    isFloatingCode(code) && code !== FLOAT64 ? Float32Array.from(flat, Number) : Float64Array.from(flat, Number)
  return finish(convert(fromTypedArray(values, shape, onHost), code, options), options)
}
