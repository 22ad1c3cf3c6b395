// Which operators autocast changes, by device. The lists are PyTorch's: on cpu by measurement, on cuda those that it
// documents and its headers hold. Names are PyTorch's in camelCase, also of operators that this library does not have,
// and our own fused ones beside the operators that they are made of.

import type { AutocastPolicy } from './registry'

type Lists = Readonly<Record<Exclude<AutocastPolicy, 'keep'>, readonly string[]>>

const fusedProducts = ['mlp', 'linearCrossEntropy']
const losses = [
  'crossEntropy',
  'nllLoss',
  'mseLoss',
  'l1Loss',
  'smoothL1Loss',
  'huberLoss',
  'klDiv',
  'binaryCrossEntropyWithLogits',
  'cosineEmbeddingLoss',
  'poissonNllLoss',
  'marginRankingLoss',
  'hingeEmbeddingLoss',
  'softMarginLoss',
  'multiMarginLoss',
  'multilabelMarginLoss',
  'tripletMarginLoss',
]

const cpu: Lists = {
  lower: [
    ...['matmul', 'mm', 'bmm', 'addmm', 'baddbmm', 'addbmm', 'linalgVecdot', 'linear', 'scaledDotProductAttention'],
    ...['conv1d', 'conv2d', 'conv3d', 'convTranspose1d', 'convTranspose2d', 'convTranspose3d', 'convTbc'],
    ...fusedProducts,
  ],
  float32: [...losses, 'prod', 'cdist', 'quantile', 'trace', 'gridSampler', 'binaryCrossEntropy'],
  promote: ['cat', 'stack', 'indexCopy'],
}

const cuda: Lists = {
  lower: [
    ...['conv1d', 'conv2d', 'conv3d', 'convTbc', 'convTranspose1d', 'convTranspose2d', 'convTranspose3d'],
    ...['convolution', 'prelu', 'addmm', 'addmv', 'addr', 'matmul', 'einsum', 'mm', 'mv', 'linalgVecdot', 'linear'],
    ...['addbmm', 'baddbmm', 'bmm', 'chainMatmul', 'linalgMultiDot', 'lstmCell', 'gruCell', 'rnnTanhCell'],
    ...['rnnReluCell', 'scaledDotProductAttention'],
    ...fusedProducts,
  ],
  float32: [
    ...['acos', 'asin', 'cosh', 'erfinv', 'exp', 'expm1', 'log', 'log10', 'log2', 'log1p', 'reciprocal', 'rsqrt'],
    ...['sinh', 'tan', 'pow', 'softplus', 'layerNorm', 'rmsNorm', 'groupNorm', 'frobeniusNorm', 'nuclearNorm'],
    ...['cosineSimilarity', 'dist', 'pdist', 'cdist', 'renorm', 'logsumexp', 'upsample'],
    ...['prod', 'softmax', 'logSoftmax', 'cumprod', 'cumsum', 'linalgVectorNorm', 'linalgMatrixNorm', 'sum', 'norm'],
    ...losses,
  ],
  promote: [
    ...['addcdiv', 'addcmul', 'atan2', 'bilinear', 'cross', 'dot', 'vdot', 'gridSampler', 'indexPut', 'tensordot'],
    ...['scatterAdd', 'cat', 'stack'],
  ],
}

function byName(lists: Lists): ReadonlyMap<string, AutocastPolicy> {
  const entries = Object.entries(lists) as [AutocastPolicy, readonly string[]][]
  return new Map(entries.flatMap(([policy, names]) => names.map((name) => [name, policy] as const)))
}

/** @internal What autocast does with an operator's operands, by type of device and name; what is not listed it leaves
 *  alone.
 *  @see https://docs.pytorch.org/docs/stable/amp.html */
export const autocastPolicies = { cpu: byName(cpu), cuda: byName(cuda) } as const
