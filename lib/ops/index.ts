// All operators. Importing a family also gives Tensor its methods.

export * from './activation'
export { scaledDotProductAttention } from './attention'
export type { AttentionOptions, AttentionVisibility } from './attentionCall'
export { scaledDotProductAttentionVarlen, type VarlenAttentionOptions } from './attentionVarlen'
export { type AttentionStatisticsOptions, attentionStatistics, attentionWithWeights } from './attentionWeights'
export { BlockMask, type BlockMaskOptions } from './blockMask'
export * from './compare'
export { bilinear, type ConvolutionOptions, cdist, conv1d, tensordot } from './contraction'
export { type CrossEntropyOptions, linearCrossEntropy, type Reduction } from './crossEntropy'
export { einsum } from './einsum'
export { embedding, oneHot } from './embedding'
export {
  countNonzero,
  gather,
  indexAdd,
  indexAdd_,
  indexSelect,
  maskedSelect,
  nonzero,
  scatter,
  scatter_,
  scatterAdd,
  scatterAdd_,
} from './indexing'
export { indexPut } from './indexPut'
export * from './inplace'
export * from './join'
export { linear, mlp } from './linear'
export * from './loss'
export { addmm, baddbmm, bmm, dot, matmul, mm, mv, outer } from './matmul'

import './names'

export * from './norm'
export * from './order'
export * from './pointwise'
export * from './random'
export * from './reduce'
export { rope } from './rope'
export * from './shape'
export * from './slice'
export * from './softmax'
export * from './split'
export * from './unary'
