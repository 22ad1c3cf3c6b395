// Public names of models.

export type { ActivationName } from './activations'
export { BERT, type BERTBatch, type BERTOutput } from './bert'
export type { BERTConfig, BERTHead } from './bertConfig'
export { Conv1D } from './conv1d'
export type { GenerateOptions } from './generate'
export { GPT, type GPTBatch, type GPTOutput, GPTTransformer, type GPTTransformerCall } from './gpt'
export { GPTAttention, GPTBlock, type GPTBlockCall, GPTMlp } from './gptBlock'
export type { GPTConfig } from './gptConfig'
export { KeyValueCache } from './kvCache'
export { estimateMemory, type MemoryEstimate, type MemoryEstimateOptions } from './memoryEstimate'
export type { ModelBatch, ModelInsight } from './output'
export type { SamplingOptions } from './sampling'
