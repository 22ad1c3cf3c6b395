// Public names of modules.

import { guarded } from '../ops/guard'
import * as operators from '../ops/index'

export {
  GELU,
  type GeluApproximation,
  LogSoftmax,
  ReLU,
  Sigmoid,
  SiLU,
  Softmax,
  Softplus,
  Tanh,
} from './activation'
export { MultiheadAttention, type MultiheadAttentionCall, type MultiheadAttentionOptions } from './attention'
export type { GradientCheckpointingOptions } from './checkpointing'

import './checkpointing'

export { ModuleDict, ModuleList, Sequential } from './containers'
export { Dropout } from './dropout'
export { Embedding, type EmbeddingOptions } from './embedding'
export type { BackwardHook, ForwardHook, ForwardPreHook } from './hooks'
export * as init from './init/index'
export { Identity, Linear, type LinearOptions } from './linear'
export {
  BCEWithLogitsLoss,
  type ClassLossOptions,
  CrossEntropyLoss,
  KLDivLoss,
  L1Loss,
  MSELoss,
  NLLLoss,
  type Reduction,
  SmoothL1Loss,
} from './losses'
export { Module } from './module'
export { LayerNorm, type LayerNormOptions, RMSNorm, type RMSNormOptions } from './norm'
export { isParameter, Parameter, parameter } from './parameter'
export type { IncompatibleKeys, StateDict } from './stateDict'
export {
  type EncoderActivation,
  type EncoderCall,
  type EncoderStackCall,
  TransformerEncoder,
  TransformerEncoderLayer,
  type TransformerEncoderLayerOptions,
} from './transformer'
export * as utils from './utils'

/** Operators as functions, under PyTorch's name for them; the same as `ops`. */
export const functional: typeof operators = guarded(operators)
