// Public names of automatic differentiation.

export { AnomalyError, detectAnomaly } from './anomaly'
export {
  type CheckpointOutput,
  checkpoint,
  checkpointSequential,
  expensiveOps,
  isRecomputing,
  type SaveOps,
  type SequentialStep,
  selectiveCheckpoint,
} from './checkpoint'
export { type BackwardOptions, backward, grad } from './engine'
export { customFunction, type FunctionContext, type FunctionDefinition } from './function'
export { GradcheckError, type GradcheckOptions, gradcheck } from './gradcheck'
export { enableGrad, isGradEnabled, noGrad, setGradEnabled } from './mode'
