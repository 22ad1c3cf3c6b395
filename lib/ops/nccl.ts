// Collectives of NCCL between the CUDA devices of this process: one tensor a device, which is a rank, in the order of the
// list. They are queued in the order of each device's work and nothing waits for them; streams of the devices wait for
// each other. Where what one rank gives has failed, the outputs of all ranks fail with it. docs/cuda.md has an example.

import { isGradEnabled } from '../autograd/mode'
import {
  ArgumentError,
  DeviceError,
  DTypeError,
  describeShape,
  describeValue,
  GradusError,
  IndexError,
  ShapeError,
  StateError,
} from '../errors'
import { readOptions } from '../options'
import { type CollectiveKind, collective, ncclVersion, type Rank, type ReduceOp, reduceOps } from '../tensor/collective'
import { sameShape, Tensor } from '../tensor/tensor'
import { expectTensor, expectWritable } from './registry'

export type { ReduceOp } from '../tensor/collective'

// --- checking arguments -----------------------------------------------------------------------------------------

/** Tensors, and what to call them. */
type Named = readonly [name: string, tensor: Tensor]

function namedList(op: string, name: string, value: unknown): Named[] {
  if (!Array.isArray(value) || value.length === 0) {
    throw new ArgumentError(op, {
      problem: `${name} are not a list of tensors`,
      got: describeValue(value),
      expected: 'an array with a tensor for each device',
    })
  }
  return Array.from(value, (tensor: unknown, i): Named => {
    expectTensor(op, `${name}[${i}]`, tensor)
    return [`${name}[${i}]`, tensor]
  })
}

function expectDevices(op: string, inputs: readonly Named[]): void {
  const names = new Map<unknown, string>()
  for (const [i, [name, { device }]] of inputs.entries()) {
    if (device.type !== 'cuda') {
      throw new DeviceError(op, {
        problem: 'not on a CUDA device',
        got: `${name} on ${device}`,
        expected: 'a CUDA device of its own for each tensor',
        action: `move it with to('cuda:${i}')`,
      })
    }
    const other = names.get(device)
    if (other !== undefined) {
      throw new DeviceError(op, {
        problem: 'two tensors are on one device',
        got: `${other} and ${name} on ${device}`,
        expected: 'a device of its own for each tensor',
        action: `move one with to('cuda:${i}')`,
      })
    }
    names.set(device, name)
  }
}

/** Throws unless all have the dtype of the first and no gaps. */
function expectUniform(op: string, operands: readonly Named[]): void {
  const [firstName, first] = operands[0]!
  for (const [name, tensor] of operands) {
    if (tensor._dtype !== first._dtype) {
      throw new DTypeError(op, {
        problem: 'the tensors are of different dtypes',
        got: `${first.dtype} for ${firstName} and ${tensor.dtype} for ${name}`,
        expected: 'one dtype',
        action: `convert one with .to('${first.dtype}')`,
      })
    }
    if (!tensor.isContiguous) {
      throw new ShapeError(op, {
        problem: `${name} is not contiguous`,
        got: `strides ${describeShape(tensor.strides)} for shape ${describeShape(tensor.shape)}`,
        expected: 'elements in row-major order without gaps',
        action: 'call contiguous() first, and copy_ the result back where it is written to',
      })
    }
  }
}

function expectSameShape(op: string, [firstName, first]: Named, others: readonly Named[]): void {
  for (const [name, { shape }] of others) {
    if (sameShape(shape, first.shape)) continue
    throw new ShapeError(op, {
      problem: 'the tensors are of different shapes',
      got: `${describeShape(first.shape)} for ${firstName} and ${describeShape(shape)} for ${name}`,
      expected: 'one shape',
    })
  }
}

/** Throws unless there is an output for each input, beside it. */
function expectBeside(op: string, inputs: readonly Named[], outputs: readonly Named[]): void {
  if (outputs.length !== inputs.length) {
    throw new ArgumentError(op, {
      problem: 'there is not an output for each input',
      got: `${outputs.length} outputs for ${inputs.length} inputs`,
      expected: `${inputs.length}`,
    })
  }
  for (const [i, [name, output]] of outputs.entries()) {
    const [inputName, input] = inputs[i]!
    if (output.device === input.device) continue
    throw new DeviceError(op, {
      problem: 'an output is not on the device of its input',
      got: `${name} on ${output.device}, ${inputName} on ${input.device}`,
      expected: `both on ${input.device}`,
    })
  }
}

function expectNumel(op: string, operands: readonly Named[], wanted: number, why: string): void {
  for (const [name, { numel, shape }] of operands) {
    if (numel === wanted) continue
    throw new ShapeError(op, {
      problem: 'the sizes do not fit',
      got: `${numel} elements in ${name} ${describeShape(shape)}`,
      expected: `${wanted}, ${why}`,
    })
  }
}

/** Throws where input and output share memory, but for an input that begins `ahead` elements behind the output. */
function expectPlaces(op: string, [inputName, input]: Named, [outputName, output]: Named, ahead: number): void {
  if ((input._base ?? input) !== (output._base ?? output)) return
  const distance = input._offset - output._offset
  const isApart = distance >= output.numel || -distance >= input.numel
  if (isApart || distance === ahead) return
  throw new ShapeError(op, {
    problem: `${inputName} and ${outputName} overlap`,
    got: `an input that begins ${distance} elements behind the output`,
    expected: ahead === 0 ? 'the same elements, or others' : `${ahead}, or memory of its own`,
    action: 'clone() the input',
  })
}

/** A collective has no gradient: nothing may be written or read that the tape would have to know of. */
function expectUnrecorded(op: string, inputs: readonly Named[], outputs: readonly Named[]): void {
  for (const [, output] of outputs) expectWritable(op, output)
  if (!isGradEnabled()) return
  for (const [name, tensor] of [...inputs, ...outputs]) {
    if (!tensor.requiresGrad) continue
    throw new StateError(op, {
      problem: 'a collective has no gradient',
      got: `${name}, which requires one`,
      action: 'wrap the call in noGrad(() => ...), or detach() the tensor',
    })
  }
}

function expectOp(op: string, value: unknown, { dtype }: Tensor): ReduceOp {
  if (!reduceOps.includes(value as ReduceOp)) {
    throw new ArgumentError(op, {
      problem: 'unknown operation',
      got: describeValue(value),
      expected: `one of ${reduceOps.join(', ')}`,
    })
  }
  if (value === 'avg' && dtype === 'bool') {
    throw new DTypeError(op, {
      problem: 'truth values have no average',
      got: 'bool',
      expected: 'numbers',
      action: "convert them with .to('float32')",
    })
  }
  return value as ReduceOp
}

function expectRoot(op: string, value: unknown, ranks: number): number {
  if (Number.isInteger(value) && (value as number) >= 0 && (value as number) < ranks) return value as number
  throw new IndexError(op, {
    problem: 'the root is no place in the list',
    got: describeValue(value),
    expected: `0 to ${ranks - 1}`,
  })
}

/** Inputs and outputs of a collective where every rank has both. */
function readBoth(
  kind: CollectiveKind,
  inputs: unknown,
  outputs: unknown,
): { op: string; ins: Named[]; outs: Named[]; input: Tensor } {
  const op = `nccl.${kind}`
  const ins = namedList(op, 'inputs', inputs)
  const outs = namedList(op, 'outputs', outputs)
  expectDevices(op, ins)
  expectBeside(op, ins, outs)
  expectUniform(op, [...ins, ...outs])
  expectSameShape(op, ins[0]!, ins)
  expectUnrecorded(op, ins, outs)
  return { op, ins, outs, input: ins[0]![1] }
}

const pairs = (ins: readonly Named[], outs: readonly Named[]): Rank[] => ins.map(([, input], i) => [input, outs[i]![1]])

// --- the collectives --------------------------------------------------------------------------------------------

/** Version of the library.
 *  @throws DeviceError where there is none, or none that can be used, with what to do about it
 *  @see https://github.com/pytorch/pytorch/blob/main/torch/cuda/nccl.py */
export function version(): [major: number, minor: number, patch: number] {
  const code = ncclVersion()
  return [Math.floor(code / 10000), Math.floor(code / 100) % 100, code % 100]
}

/** Whether collectives take these tensors: there is a library, and they are contiguous, on CUDA devices, each on one of
 *  its own. Never throws.
 *  @see https://github.com/pytorch/pytorch/blob/main/torch/cuda/nccl.py
 *  @example cuda.nccl.isAvailable([zeros([2])]) // false */
export function isAvailable(tensors: readonly Tensor[]): boolean {
  if (!Array.isArray(tensors)) return false
  const areFit = tensors.every(
    (x: unknown) => x instanceof Tensor && !x.isReleased && x.isContiguous && x.device.type === 'cuda',
  )
  if (!areFit || new Set(tensors.map(({ device }) => device)).size < tensors.length) return false
  try {
    return ncclVersion() > 0
  } catch (error) {
    if (error instanceof GradusError) return false
    throw error
  }
}

/** Reduces the inputs, and writes the result to every output.
 *
 *  inputs and outputs: one tensor a device, all of one shape and dtype (any), contiguous. Default outputs: the inputs.
 *  float16 and bfloat16 are summed as such, so a result may be off by a rounding for each device; the sum of truth values is
 *  whether any is true.
 *  @throws ArgumentError for lists that are none or of different lengths, and for an unknown op; DeviceError for tensors that
 *  are not on CUDA devices of their own, and without NCCL; DTypeError, ShapeError when they differ or are not contiguous;
 *  StateError for what requires a gradient (outside of noGrad), and while a graph is captured
 *  @see https://github.com/pytorch/pytorch/blob/main/torch/cuda/nccl.py
 *  @see https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/api/colls.html#ncclallreduce */
export function allReduce(
  inputs: readonly Tensor[],
  outputs: readonly Tensor[] = inputs,
  options: { op?: ReduceOp } = {},
): void {
  const { op: reduction = 'sum' } = readOptions('nccl.allReduce', options, ['op'])
  const { op, ins, outs, input } = readBoth('allReduce', inputs, outputs)
  expectSameShape(op, ins[0]!, outs)
  for (const [i, each] of ins.entries()) expectPlaces(op, each, outs[i]!, 0)
  collective('allReduce', pairs(ins, outs), expectOp(op, reduction, input))
}

/** Reduces the inputs, and writes the result to the output, which is on the device of the root.
 *
 *  inputs: one tensor a device, all of one shape and dtype (any), contiguous. Default output: `inputs[root]`; default root: 0.
 *  @throws IndexError for a root that is no place in the list; else as `allReduce`
 *  @see https://github.com/pytorch/pytorch/blob/main/torch/cuda/nccl.py
 *  @see https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/api/colls.html#ncclreduce */
export function reduce(
  inputs: readonly Tensor[],
  options: { output?: Tensor; root?: number; op?: ReduceOp } = {},
): void {
  const op = 'nccl.reduce'
  const { root: place = 0, op: reduction = 'sum', ...rest } = readOptions(op, options, ['output', 'root', 'op'])
  const ins = namedList(op, 'inputs', inputs)
  expectDevices(op, ins)
  const root = expectRoot(op, place, ins.length)
  const { output = ins[root]![1] } = rest
  expectTensor(op, 'output', output)
  const out: Named = ['output', output]
  expectBeside(op, [ins[root]!], [out])
  expectUniform(op, [...ins, out])
  expectSameShape(op, ins[0]!, [...ins, out])
  expectUnrecorded(op, ins, [out])
  expectPlaces(op, ins[root]!, out, 0)
  const ranks = ins.map(([, input], i): Rank => [input, i === root ? output : null])
  collective('reduce', ranks, expectOp(op, reduction, output), root)
}

/** Copies the root's tensor into all others.
 *
 *  inputs: one tensor a device, all of one shape and dtype (any), contiguous; all but `inputs[root]` are overwritten.
 *  @throws IndexError for a root that is no place in the list; else as `allReduce`
 *  @see https://github.com/pytorch/pytorch/blob/main/torch/cuda/nccl.py
 *  @see https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/api/colls.html#ncclbroadcast */
export function broadcast(inputs: readonly Tensor[], root = 0): void {
  const op = 'nccl.broadcast'
  const all = namedList(op, 'inputs', inputs)
  expectDevices(op, all)
  const from = expectRoot(op, root, all.length)
  expectUniform(op, all)
  expectSameShape(op, all[0]!, all)
  const others = all.filter((_, i) => i !== from)
  expectUnrecorded(op, [all[from]!], others)
  const ranks = all.map(([, tensor], i): Rank => (i === from ? [tensor, null] : [null, tensor]))
  collective('broadcast', ranks, 'sum', from)
}

/** Writes all inputs, one behind the other, to every output.
 *
 *  inputs: one tensor a device, all of one shape and dtype (any), contiguous; outputs: the same, with as many elements as all
 *  inputs have. An input may be its own part of its output.
 *  @throws as `allReduce`
 *  @see https://github.com/pytorch/pytorch/blob/main/torch/cuda/nccl.py
 *  @see https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/api/colls.html#ncclallgather */
export function allGather(inputs: readonly Tensor[], outputs: readonly Tensor[]): void {
  const { op, ins, outs, input } = readBoth('allGather', inputs, outputs)
  const why = `as ${ins.length} inputs of ${input.numel} have together`
  expectNumel(op, outs, ins.length * input.numel, why)
  for (const [i, each] of ins.entries()) expectPlaces(op, each, outs[i]!, i * input.numel)
  collective('allGather', pairs(ins, outs))
}

/** Reduces the inputs, and writes to each output its part of the result: the first to the first, and so on.
 *
 *  inputs: one tensor a device, all of one shape and dtype (any), contiguous; outputs: the same, each with its share of an
 *  input's elements. An output may be that part of its input.
 *  @throws as `allReduce`
 *  @see https://github.com/pytorch/pytorch/blob/main/torch/cuda/nccl.py
 *  @see https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/api/colls.html#ncclreducescatter */
export function reduceScatter(
  inputs: readonly Tensor[],
  outputs: readonly Tensor[],
  options: { op?: ReduceOp } = {},
): void {
  const { op: reduction = 'sum' } = readOptions('nccl.reduceScatter', options, ['op'])
  const { op, ins, outs } = readBoth('reduceScatter', inputs, outputs)
  const share = outs[0]![1].numel
  expectNumel(op, outs, share, `as ${outs[0]![0]} has`)
  expectNumel(op, ins, ins.length * share, `as ${ins.length} outputs of ${share} have together`)
  for (const [i, each] of ins.entries()) expectPlaces(op, each, outs[i]!, -i * share)
  collective('reduceScatter', pairs(ins, outs), expectOp(op, reduction, outs[0]![1]))
}
