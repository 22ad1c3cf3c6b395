// Optimizers and schedules.

export { type Accumulated, type AccumulateOptions, type Accumulation, accumulate, type LossScaler } from './accumulate'
export { Adagrad, type AdagradOptions } from './adagrad'
export { Adam, type AdamOptions, AdamW, AdamW8bit } from './adam'
export { paramGroupsWithDecay } from './groups'
export {
  Optimizer,
  type OptimizerState,
  type ParamGroup,
  type ParamState,
  type Params,
  type StepOptions,
} from './optimizer'
export { RMSprop, type RmspropOptions } from './rmsprop'
export { ExponentialLR, LambdaLR, type LrLambda } from './schedule/lambda'
export { LRScheduler, type SchedulerState } from './schedule/scheduler'
export { cosineWarmup, type InverseSqrtOptions, inverseSqrt, linearWarmup, type WarmupOptions } from './schedule/warmup'
export { SGD, type SgdOptions } from './sgd'
