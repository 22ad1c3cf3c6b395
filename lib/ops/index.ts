// All operators. Importing a family also gives Tensor its methods.

export { type AttentionOptions, rope, scaledDotProductAttention } from './attention'
export { type CrossEntropyOptions, crossEntropy, linearCrossEntropy, type Reduction } from './crossEntropy'
export { einsum } from './einsum'
export { embedding, oneHot } from './embedding'
export {
  countNonzero,
  gather,
  indexAdd,
  indexAdd_,
  indexSelect,
  nonzero,
  scatter,
  scatter_,
  scatterAdd,
  scatterAdd_,
} from './indexing'
export * from './join'
export { linear, mlp } from './linear'
export { addmm, baddbmm, bmm, dot, matmul, mm, mv, outer } from './matmul'
export * from './norm'
export * from './pointwise'
export * from './random'
export * from './shape'
export * from './softmax'
export * from './split'
