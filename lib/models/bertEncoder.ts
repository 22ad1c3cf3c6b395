// The encoder of BERT. Modules and fields have the names of Hugging Face's state dict.

import { ModuleList } from '../nn/containers'
import { Dropout } from '../nn/dropout'
import { Embedding } from '../nn/embedding'
import { isFusable, Linear } from '../nn/linear'
import { Module } from '../nn/module'
import { LayerNorm } from '../nn/norm'
import { attentionWithWeights, dropoutAdd, mlp, scaledDotProductAttention, tanh } from '../ops/index'
import { letGo } from '../tensor/scope'
import type { Tensor } from '../tensor/tensor'
import { type Activation, fusableGelu, makeActivation } from './activations'
import type { FullBERTConfig } from './bertConfig'
import type { Insight } from './output'

/** What a layer takes beside its input. */
export interface BERTLayerCall {
  /** bool [B, 1, 1, T]: true where a key may be seen. */
  mask?: Tensor | null
  /** @internal */
  insight?: Insight | null
}

/** Sum of token, segment and position embeddings, normalized: inputIds [B, T] -> [B, T, C]. */
export class BERTEmbeddings extends Module {
  word_embeddings: Embedding
  position_embeddings: Embedding
  token_type_embeddings: Embedding
  LayerNorm: LayerNorm
  dropout: Dropout

  constructor(config: FullBERTConfig) {
    super()
    const { vocabSize, hiddenSize: C, maxPositionEmbeddings, typeVocabSize, padTokenId } = config
    this.word_embeddings = new Embedding(vocabSize, C, { paddingIdx: padTokenId })
    this.position_embeddings = new Embedding(maxPositionEmbeddings, C)
    this.token_type_embeddings = new Embedding(typeVocabSize, C)
    this.LayerNorm = new LayerNorm(C, { eps: config.layerNormEps })
    this.dropout = new Dropout(config.hiddenDropout)
  }

  forward(
    inputIds: Tensor,
    { tokenTypeIds = null, positionIds = null }: { tokenTypeIds?: Tensor | null; positionIds?: Tensor | null } = {},
  ): Tensor {
    const words = this.word_embeddings.forward(inputIds)
    // Without ids, a slice of the table broadcasts over the batch: no look-up, and no scatter in backward.
    const types =
      tokenTypeIds === null
        ? this.token_type_embeddings.weight.narrow(0, 0, 1) // [1, C]
        : this.token_type_embeddings.forward(tokenTypeIds)
    const positions =
      positionIds === null
        ? this.position_embeddings.weight.narrow(0, 0, inputIds.size(1)) // [T, C]
        : this.position_embeddings.forward(positionIds)
    return this.dropout.forward(this.LayerNorm.forward(words.add(types).add(positions)))
  }
}

/** Projections of queries, keys and values, and attention between them: x [B, T, C] -> [B, T, C]. */
export class BERTSelfAttention extends Module {
  query: Linear
  key: Linear
  value: Linear
  readonly numHeads: number
  readonly attentionDropout: number

  constructor(config: FullBERTConfig) {
    super()
    const C = config.hiddenSize
    this.numHeads = config.numAttentionHeads
    this.attentionDropout = config.attentionDropout
    this.query = new Linear(C, C)
    this.key = new Linear(C, C)
    this.value = new Linear(C, C)
  }

  forward(x: Tensor, { mask = null, insight = null }: BERTLayerCall = {}): Tensor {
    const [B, T, C] = x.shape as [number, number, number]
    const heads = (y: Tensor): Tensor => y.view(B, T, this.numHeads, C / this.numHeads).transpose(1, 2) // [B, H, T, D]
    const q = heads(this.query.forward(x))
    const k = heads(this.key.forward(x))
    const v = heads(this.value.forward(x))
    const dropoutP = this.training ? this.attentionDropout : 0
    let out: Tensor
    if (insight?.attentions) {
      const [attended, weights] = attentionWithWeights(q, k, v, { attnMask: mask, dropoutP })
      insight.noteAttention(weights)
      out = attended
    } else {
      out = scaledDotProductAttention(q, k, v, { attnMask: mask, dropoutP })
    }
    return out.transpose(1, 2).reshape(B, T, C)
  }
}

/** A linear map, dropout, the residual addition and a norm. */
export class BERTResidual extends Module {
  dense: Linear
  LayerNorm: LayerNorm
  readonly hiddenDropout: number

  constructor(inFeatures: number, config: FullBERTConfig) {
    super()
    this.dense = new Linear(inFeatures, config.hiddenSize)
    this.LayerNorm = new LayerNorm(config.hiddenSize, { eps: config.layerNormEps })
    this.hiddenDropout = config.hiddenDropout
  }

  forward(x: Tensor, residual: Tensor): Tensor {
    return this.join(this.dense.forward(x), residual)
  }

  /** The same behind a `dense` that was computed elsewhere. */
  join(x: Tensor, residual: Tensor): Tensor {
    return this.LayerNorm.forward(dropoutAdd(x, residual, this.hiddenDropout, this.training))
  }
}

/** Self-attention with its residual. */
export class BERTAttention extends Module {
  self: BERTSelfAttention
  output: BERTResidual

  constructor(config: FullBERTConfig) {
    super()
    this.self = new BERTSelfAttention(config)
    this.output = new BERTResidual(config.hiddenSize, config)
  }

  forward(x: Tensor, call: BERTLayerCall = {}): Tensor {
    return this.output.forward(this.self.forward(x, call), x)
  }
}

/** The upper half of the feed-forward part. */
export class BERTIntermediate extends Module {
  dense: Linear
  act: Activation

  constructor(config: FullBERTConfig) {
    super()
    this.dense = new Linear(config.hiddenSize, config.intermediateSize)
    this.act = makeActivation('BERT', config.activation)
  }

  forward(x: Tensor): Tensor {
    return this.act.forward(this.dense.forward(x))
  }
}

/** One layer, x [B, T, C] -> [B, T, C]. */
export class BERTLayer extends Module {
  attention: BERTAttention
  intermediate: BERTIntermediate
  output: BERTResidual

  constructor(config: FullBERTConfig) {
    super()
    this.attention = new BERTAttention(config)
    this.intermediate = new BERTIntermediate(config)
    this.output = new BERTResidual(config.intermediateSize, config)
  }

  forward(x: Tensor, call: BERTLayerCall = {}): Tensor {
    const attended = this.attention.forward(x, call)
    const { dense: up, act } = this.intermediate
    const { dense: down } = this.output
    const approximate = fusableGelu(act)
    const watched = this.intermediate.hasHooks || this.output.hasHooks
    if (approximate === null || watched || !isFusable(up, down)) {
      return this.output.forward(this.intermediate.forward(attended), attended)
    }
    const fed = mlp(attended, up.weight, up.bias!, down.weight, down.bias!, { approximate })
    return this.output.join(fed, attended)
  }
}

/** The stack of layers. */
export class BERTEncoder extends Module {
  layer: ModuleList<BERTLayer>

  constructor(config: FullBERTConfig) {
    super()
    this.layer = new ModuleList(Array.from({ length: config.numHiddenLayers }, () => new BERTLayer(config)))
  }

  forward(input: Tensor, { mask = null, insight = null }: BERTLayerCall = {}): Tensor {
    let x = input
    for (const layer of this.layer) {
      insight?.noteHidden(x)
      const before = x
      x = layer.forward(before, { mask, insight })
      if (before !== input) letGo(before) // unless it was noted
    }
    insight?.noteHidden(x)
    return x
  }
}

/** tanh of a linear map of the first token, [B, T, C] -> [B, C]. */
export class BERTPooler extends Module {
  dense: Linear

  constructor(config: FullBERTConfig) {
    super()
    this.dense = new Linear(config.hiddenSize, config.hiddenSize)
  }

  forward(hidden: Tensor): Tensor {
    return tanh(this.dense.forward(hidden.select(1, 0)))
  }
}
