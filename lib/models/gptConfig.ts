// Configuration of GPT-2-like models, ours and Hugging Face's.

import { ArgumentError } from '../errors'
import { expectFinite } from '../nn/arguments'
import { expectCount, expectProbability, readOptions } from '../options'
import type { ActivationName } from './activations'
import { type JsonConfig, readJson } from './pretrained'

/** Sizes and options of a GPT; the defaults are GPT-2's (124 million parameters). */
export interface GPTConfig {
  /** Number of different tokens; default 50257. */
  vocabSize?: number
  /** Most tokens that the model can look at; default 1024. */
  blockSize?: number
  /** Default 12. */
  nLayer?: number
  /** Default 12. */
  nHead?: number
  /** Width; default 768. */
  nEmbd?: number
  /** Width inside the feed-forward part; default 4 * nEmbd. */
  nInner?: number
  /** Sets the three below; default 0.1. */
  dropout?: number
  /** Dropout behind the embeddings. */
  embdDropout?: number
  /** Dropout of the attention probabilities. */
  attnDropout?: number
  /** Dropout in front of each residual addition. */
  residDropout?: number
  /** Default 'gelu_new', the tanh approximation. */
  activation?: ActivationName
  /** Default 1e-5. */
  layerNormEps?: number
  /** Standard deviation of the initial weights; default 0.02. */
  initializerRange?: number
  /** The head shares the token embedding's weight; default true. */
  tieWeights?: boolean
  /** Divides the attention scores by sqrt(headDim); default true. */
  scaleAttention?: boolean
  /** Divides them by the layer's number (from 1) as well; default false. */
  scaleAttentionByInverseLayer?: boolean
  /** Token that ends a text in `generate`; default null: none. */
  eosTokenId?: number | null
}

/** A configuration with every value. */
export type FullGPTConfig = Required<Omit<GPTConfig, 'dropout'>>

const configNames = [
  'vocabSize',
  'blockSize',
  'nLayer',
  'nHead',
  'nEmbd',
  'nInner',
  'dropout',
  'embdDropout',
  'attnDropout',
  'residDropout',
  'activation',
  'layerNormEps',
  'initializerRange',
  'tieWeights',
  'scaleAttention',
  'scaleAttentionByInverseLayer',
  'eosTokenId',
] as const satisfies readonly (keyof GPTConfig)[]

/** Fills in the defaults. @throws ArgumentError naming the value that makes no sense */
export function completeGPTConfig(config: GPTConfig): FullGPTConfig {
  const op = 'GPT'
  readOptions(op, config, configNames)
  const nEmbd = expectCount(op, 'nEmbd', config.nEmbd ?? 768)
  const nHead = expectCount(op, 'nHead', config.nHead ?? 12)
  if (nEmbd % nHead !== 0) {
    throw new ArgumentError(op, {
      problem: 'the heads do not divide the width',
      got: `nEmbd ${nEmbd} and nHead ${nHead}`,
      expected: 'nEmbd to be a multiple of nHead',
    })
  }
  const dropout = expectProbability(op, 'dropout', config.dropout ?? 0.1)
  return {
    vocabSize: expectCount(op, 'vocabSize', config.vocabSize ?? 50257),
    blockSize: expectCount(op, 'blockSize', config.blockSize ?? 1024),
    nLayer: expectCount(op, 'nLayer', config.nLayer ?? 12, 0),
    nHead,
    nEmbd,
    nInner: expectCount(op, 'nInner', config.nInner ?? 4 * nEmbd),
    embdDropout: expectProbability(op, 'embdDropout', config.embdDropout ?? dropout),
    attnDropout: expectProbability(op, 'attnDropout', config.attnDropout ?? dropout),
    residDropout: expectProbability(op, 'residDropout', config.residDropout ?? dropout),
    activation: config.activation ?? 'gelu_new',
    layerNormEps: expectFinite(op, 'layerNormEps', config.layerNormEps ?? 1e-5),
    initializerRange: expectFinite(op, 'initializerRange', config.initializerRange ?? 0.02),
    tieWeights: config.tieWeights ?? true,
    scaleAttention: config.scaleAttention ?? true,
    scaleAttentionByInverseLayer: config.scaleAttentionByInverseLayer ?? false,
    eosTokenId: config.eosTokenId ?? null,
  }
}

/** Number of parameters by formula: embeddings, per layer two norms, attention and feed-forward, the last norm, and the
 *  head unless it is tied.
 *  @example gptParameterCount({}) // 124439808 */
export function gptParameterCount(config: GPTConfig = {}): number {
  const { vocabSize: V, blockSize: T, nLayer: L, nEmbd: C, nInner: I, tieWeights } = completeGPTConfig(config)
  const attention = C * 3 * C + 3 * C + C * C + C
  const feedForward = C * I + I + I * C + C
  return V * C + T * C + L * (4 * C + attention + feedForward) + 2 * C + (tieWeights ? 0 : V * C)
}

/** @internal From the config.json of a GPT-2. */
export function gptConfigFromJson(json: JsonConfig): GPTConfig {
  const read = readJson('GPT.fromPretrained', json)
  return {
    vocabSize: read.number('vocab_size', 50257),
    blockSize: read.number('n_positions', 1024),
    nLayer: read.number('n_layer', 12),
    nHead: read.number('n_head', 12),
    nEmbd: read.number('n_embd', 768),
    nInner: read.number('n_inner', 4 * read.number('n_embd', 768)),
    embdDropout: read.number('embd_pdrop', 0.1),
    attnDropout: read.number('attn_pdrop', 0.1),
    residDropout: read.number('resid_pdrop', 0.1),
    activation: read.string('activation_function', 'gelu_new') as ActivationName,
    layerNormEps: read.number('layer_norm_epsilon', 1e-5),
    initializerRange: read.number('initializer_range', 0.02),
    tieWeights: read.boolean('tie_word_embeddings', true),
    scaleAttention: read.boolean('scale_attn_weights', true),
    scaleAttentionByInverseLayer: read.boolean('scale_attn_by_inverse_layer_idx', false),
    eosTokenId: typeof json.eos_token_id === 'number' ? json.eos_token_id : null,
  }
}

/** @internal For the config.json of a GPT-2. */
export function gptConfigToJson(config: FullGPTConfig): JsonConfig {
  return {
    architectures: ['GPT2LMHeadModel'],
    model_type: 'gpt2',
    vocab_size: config.vocabSize,
    n_positions: config.blockSize,
    n_layer: config.nLayer,
    n_head: config.nHead,
    n_embd: config.nEmbd,
    n_inner: config.nInner === 4 * config.nEmbd ? null : config.nInner,
    embd_pdrop: config.embdDropout,
    attn_pdrop: config.attnDropout,
    resid_pdrop: config.residDropout,
    activation_function: config.activation,
    layer_norm_epsilon: config.layerNormEps,
    initializer_range: config.initializerRange,
    tie_word_embeddings: config.tieWeights,
    scale_attn_weights: config.scaleAttention,
    scale_attn_by_inverse_layer_idx: config.scaleAttentionByInverseLayer,
    bos_token_id: config.eosTokenId,
    eos_token_id: config.eosTokenId,
  }
}
