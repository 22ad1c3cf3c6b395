// Data: datasets, samplers, the DataLoader and tokenizers.

export { type Batched, defaultCollate, TensorDataset, type Tensors } from './batch'
export { BpeTokenizer, type DecodeOptions, type EncodeOptions } from './bpe'
export type { BpeTrainOptions } from './bpeTrainer'
export { type Collate, type PadOptions, padCollate, type TokenSample } from './collate'
export {
  ArrayDataset,
  ConcatDataset,
  Dataset,
  IterableDataset,
  type IterateContext,
  randomSplit,
  type SampleContext,
  Subset,
  type WorkerSpec,
} from './dataset'
export { type HostArray, type HostData, hostArray } from './hostArray'
export { DataLoader, type DataLoaderOptions, type DataLoaderState, groups } from './loader'
export { loadTokenizer } from './loadTokenizer'
export { RandomStream } from './randomStream'
export {
  BatchSampler,
  DistributedSampler,
  RandomSampler,
  type Sampler,
  type SamplerState,
  SequentialSampler,
  type Sized,
  SubsetRandomSampler,
  WeightedRandomSampler,
} from './sampler'
export {
  readText,
  TextDataset,
  type TextDatasetOptions,
  type TextSample,
  type TokenArray,
  type TokenType,
  tokenizeFile,
} from './text'
export { ByteTokenizer, CharTokenizer, StreamDecoder, type Tokenizer } from './tokenizer'
