// Public names of mixed precision.

export * from './autocast'
export { GradScaler, type GradScalerOptions, type GradScalerState, type ScalerStepOptions } from './gradScaler'
export { ScaledStep } from './scaledStep'
