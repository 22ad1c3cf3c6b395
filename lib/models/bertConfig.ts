// Configuration of BERT, ours and Hugging Face's.

import { ArgumentError } from '../errors'
import { expectFinite, expectOneOf } from '../nn/arguments'
import { expectCount, expectProbability, readOptions } from '../options'
import type { ActivationName } from './activations'
import { type JsonConfig, readJson } from './pretrained'

/** What stands on top of the encoder: foretelling masked tokens, sorting texts into classes, or nothing. */
export type BERTHead = 'maskedLM' | 'classifier' | 'none'

/** Sizes and options of a BERT; the defaults are bert-base-uncased's (110 million parameters). */
export interface BERTConfig {
  /** Default 'maskedLM'. */
  head?: BERTHead
  /** Number of different tokens; default 30522. */
  vocabSize?: number
  /** Width; default 768. */
  hiddenSize?: number
  /** Default 12. */
  numHiddenLayers?: number
  /** Default 12. */
  numAttentionHeads?: number
  /** Width inside the feed-forward part; default 4 * hiddenSize. */
  intermediateSize?: number
  /** Longest text; default 512. */
  maxPositionEmbeddings?: number
  /** Number of token types (segments); default 2. */
  typeVocabSize?: number
  /** Sets the three below; default 0.1. */
  dropout?: number
  /** Dropout behind the embeddings and in front of each residual addition. */
  hiddenDropout?: number
  /** Dropout of the attention probabilities. */
  attentionDropout?: number
  /** Dropout in front of the classifier. */
  classifierDropout?: number
  /** Default 'gelu', the exact one. */
  activation?: ActivationName
  /** Default 1e-12. */
  layerNormEps?: number
  /** Standard deviation of the initial weights; default 0.02. */
  initializerRange?: number
  /** Token whose embedding starts as zeros and gets no gradient from its look-up; default 0; null: none. */
  padTokenId?: number | null
  /** Classes of the classifier; 1 makes it a regression. Default 2. */
  numLabels?: number
}

/** A configuration with every value. */
export type FullBERTConfig = Required<Omit<BERTConfig, 'dropout'>>

const configNames = [
  'head',
  'vocabSize',
  'hiddenSize',
  'numHiddenLayers',
  'numAttentionHeads',
  'intermediateSize',
  'maxPositionEmbeddings',
  'typeVocabSize',
  'dropout',
  'hiddenDropout',
  'attentionDropout',
  'classifierDropout',
  'activation',
  'layerNormEps',
  'initializerRange',
  'padTokenId',
  'numLabels',
] as const satisfies readonly (keyof BERTConfig)[]

/** Fills in the defaults. @throws ArgumentError naming the value that makes no sense */
export function completeBERTConfig(config: BERTConfig): FullBERTConfig {
  const op = 'BERT'
  readOptions(op, config, configNames)
  const hiddenSize = expectCount(op, 'hiddenSize', config.hiddenSize ?? 768)
  const numAttentionHeads = expectCount(op, 'numAttentionHeads', config.numAttentionHeads ?? 12)
  if (hiddenSize % numAttentionHeads !== 0) {
    throw new ArgumentError(op, {
      problem: 'the heads do not divide the width',
      got: `hiddenSize ${hiddenSize} and numAttentionHeads ${numAttentionHeads}`,
      expected: 'hiddenSize to be a multiple of numAttentionHeads',
    })
  }
  const dropout = expectProbability(op, 'dropout', config.dropout ?? 0.1)
  const hiddenDropout = expectProbability(op, 'hiddenDropout', config.hiddenDropout ?? dropout)
  return {
    head: expectOneOf(op, 'head', config.head ?? 'maskedLM', ['maskedLM', 'classifier', 'none']),
    vocabSize: expectCount(op, 'vocabSize', config.vocabSize ?? 30522),
    hiddenSize,
    numHiddenLayers: expectCount(op, 'numHiddenLayers', config.numHiddenLayers ?? 12, 0),
    numAttentionHeads,
    intermediateSize: expectCount(op, 'intermediateSize', config.intermediateSize ?? 4 * hiddenSize),
    maxPositionEmbeddings: expectCount(op, 'maxPositionEmbeddings', config.maxPositionEmbeddings ?? 512),
    typeVocabSize: expectCount(op, 'typeVocabSize', config.typeVocabSize ?? 2),
    hiddenDropout,
    attentionDropout: expectProbability(op, 'attentionDropout', config.attentionDropout ?? dropout),
    classifierDropout: expectProbability(op, 'classifierDropout', config.classifierDropout ?? hiddenDropout),
    activation: config.activation ?? 'gelu',
    layerNormEps: expectFinite(op, 'layerNormEps', config.layerNormEps ?? 1e-12),
    initializerRange: expectFinite(op, 'initializerRange', config.initializerRange ?? 0.02),
    padTokenId: config.padTokenId === undefined ? 0 : config.padTokenId,
    numLabels: expectCount(op, 'numLabels', config.numLabels ?? 2),
  }
}

/** Number of parameters by formula: embeddings with their norm, per layer attention, feed-forward and two norms, and the
 *  head (a pooler stands below the classifier and below no head).
 *  @example bertParameterCount({}) // 109514298 */
export function bertParameterCount(config: BERTConfig = {}): number {
  const full = completeBERTConfig(config)
  const { vocabSize: V, hiddenSize: C, intermediateSize: I, maxPositionEmbeddings: P, typeVocabSize: S } = full
  const embeddings = (V + P + S) * C + 2 * C
  const layer = 4 * (C * C + C) + 2 * C + (C * I + I) + (I * C + C) + 2 * C
  const dense = C * C + C
  const heads = {
    maskedLM: dense + 2 * C + V,
    classifier: dense + full.numLabels * C + full.numLabels,
    none: dense,
  }
  return embeddings + full.numHiddenLayers * layer + heads[full.head]
}

const headOf: Record<string, BERTHead> = {
  BertForMaskedLM: 'maskedLM',
  BertForPreTraining: 'maskedLM',
  BertForSequenceClassification: 'classifier',
  BertModel: 'none',
}
const architectureOf = {
  maskedLM: 'BertForMaskedLM',
  classifier: 'BertForSequenceClassification',
  none: 'BertModel',
} as const satisfies Record<BERTHead, string>

/** @internal From the config.json of a BERT. */
export function bertConfigFromJson(json: JsonConfig): BERTConfig {
  const read = readJson('BERT.fromPretrained', json)
  const [architecture] = Array.isArray(json.architectures) ? (json.architectures as unknown[]) : []
  const labels = json.id2label
  const hiddenDropout = read.number('hidden_dropout_prob', 0.1)
  return {
    head: headOf[String(architecture)] ?? 'none',
    vocabSize: read.number('vocab_size', 30522),
    hiddenSize: read.number('hidden_size', 768),
    numHiddenLayers: read.number('num_hidden_layers', 12),
    numAttentionHeads: read.number('num_attention_heads', 12),
    intermediateSize: read.number('intermediate_size', 3072),
    maxPositionEmbeddings: read.number('max_position_embeddings', 512),
    typeVocabSize: read.number('type_vocab_size', 2),
    hiddenDropout,
    attentionDropout: read.number('attention_probs_dropout_prob', 0.1),
    classifierDropout: read.number('classifier_dropout', hiddenDropout),
    activation: read.string('hidden_act', 'gelu') as ActivationName,
    layerNormEps: read.number('layer_norm_eps', 1e-12),
    initializerRange: read.number('initializer_range', 0.02),
    padTokenId: typeof json.pad_token_id === 'number' ? json.pad_token_id : null,
    numLabels:
      typeof labels === 'object' && labels !== null ? Object.keys(labels).length : read.number('num_labels', 2),
  }
}

/** @internal For the config.json of a BERT. */
export function bertConfigToJson(config: FullBERTConfig): JsonConfig {
  const labels = Array.from({ length: config.numLabels }, (_, i) => [String(i), `LABEL_${i}`] as const)
  const classes =
    config.head === 'classifier'
      ? {
          id2label: Object.fromEntries(labels),
          label2id: Object.fromEntries(labels.map(([i, name]) => [name, Number(i)])),
        }
      : {}
  return {
    architectures: [architectureOf[config.head]],
    model_type: 'bert',
    vocab_size: config.vocabSize,
    hidden_size: config.hiddenSize,
    num_hidden_layers: config.numHiddenLayers,
    num_attention_heads: config.numAttentionHeads,
    intermediate_size: config.intermediateSize,
    max_position_embeddings: config.maxPositionEmbeddings,
    type_vocab_size: config.typeVocabSize,
    hidden_dropout_prob: config.hiddenDropout,
    attention_probs_dropout_prob: config.attentionDropout,
    classifier_dropout: config.classifierDropout,
    hidden_act: config.activation,
    layer_norm_eps: config.layerNormEps,
    initializer_range: config.initializerRange,
    pad_token_id: config.padTokenId,
    tie_word_embeddings: true,
    ...classes,
  }
}
