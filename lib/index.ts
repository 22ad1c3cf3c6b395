// Public names.

import { guarded } from './ops/guard'
import * as operators from './ops/index'

export * as amp from './amp/index'
export * as autograd from './autograd/index'
export { enableGrad, noGrad } from './autograd/mode'
export * as data from './data/index'
export { Device, type DeviceName, type DeviceType, device, getDefaultDevice, setDefaultDevice } from './device'
export { type DType, isFloatingPoint, promoteTypes } from './dtype'
export * from './errors'
export * as io from './io/index'
export type { MemoryKind, MemoryPhase, MemoryReport } from './memoryReport'
export * as models from './models/index'
export * as monitor from './monitor/index'
export { getNumThreads, setNumThreads } from './native'
export * as nn from './nn/index'
export * as cuda from './ops/cuda'
export type {
  AttentionOptions,
  AttentionStatisticsOptions,
  AttentionVisibility,
  BlockMask,
  BlockMaskOptions,
  VarlenAttentionOptions,
} from './ops/index'
export {
  bernoulli,
  multinomial,
  type RandomOptions,
  rand,
  randint,
  randLike,
  randn,
  randnLike,
  randperm,
} from './ops/random'
export * as optim from './optim/index'
export * as random from './random'
export {
  arange,
  empty,
  emptyLike,
  eye,
  fromTypedArray,
  full,
  fullLike,
  linspace,
  ones,
  onesLike,
  type SourceArray,
  type TensorOptions,
  tensor,
  zeros,
  zerosLike,
} from './tensor/create'
export type { NestedArray, TensorData } from './tensor/elements'
export { memory } from './tensor/memoryAccount'
export type { MemoryProfile, MemoryProfileOptions } from './tensor/memoryProfile'
export { tidy } from './tensor/scope'
export { type Shape, Tensor } from './tensor/tensor'
export * as train from './train/index'

/** Operators as functions; most are methods of Tensor too. */
export const ops: typeof operators = guarded(operators)
