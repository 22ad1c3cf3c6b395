// Public names of initialization.

export {
  calculateGain,
  constant_,
  type FanMode,
  type KaimingOptions,
  kaimingNormal_,
  kaimingUniform_,
  type Nonlinearity,
  normal_,
  ones_,
  orthogonal_,
  skipped,
  truncNormal_,
  uniform_,
  xavierNormal_,
  xavierUniform_,
  zeros_,
} from './basic'
export { transformer } from './transformer'
