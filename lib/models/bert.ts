// BERT.

import { isFloatingCode } from '../dtype'
import { ArgumentError, DTypeError, describeShape, ShapeError } from '../errors'
import { Dropout } from '../nn/dropout'
import { isSkipped, skipped } from '../nn/init/basic'
import { transformer } from '../nn/init/transformer'
import { Linear } from '../nn/linear'
import { Module } from '../nn/module'
import { LayerNorm } from '../nn/norm'
import { parameter } from '../nn/parameter'
import type { StateDict } from '../nn/stateDict'
import { binaryCrossEntropyWithLogits, crossEntropy, linear, mseLoss } from '../ops/index'
import { expectTensor } from '../ops/registry'
import { full, zeros } from '../tensor/create'
import { tidy } from '../tensor/scope'
import type { Tensor } from '../tensor/tensor'
import { type Activation, makeActivation } from './activations'
import {
  type BERTConfig,
  bertConfigFromJson,
  bertConfigToJson,
  bertParameterCount,
  completeBERTConfig,
  type FullBERTConfig,
} from './bertConfig'
import { BERTEmbeddings, BERTEncoder, BERTPooler } from './bertEncoder'
import { autocastHere, type MemoryEstimateOptions, memoryAdvice } from './memoryEstimate'
import { Insight, type LossOf, type ModelBatch, type ModelInsight, readBatch } from './output'
import { expectIndices, IGNORED, ignorePadding, keyMask, readAttentionMask } from './padding'
import { loadWeights, readConfig, savePretrained } from './pretrained'

/** What `BERT.forward` takes. */
export interface BERTBatch extends ModelBatch {
  /** Segment of each token, [B, T]; default 0. */
  tokenTypeIds?: Tensor | null
}

/** What `BERT.forward` gives. Logits are [B, T, vocabSize] or [B, numLabels]; without a head there are none, but the
 *  hidden states of the last layer [B, T, C] and the pooled first token [B, C]. */
export type BERTOutput<Batch extends BERTBatch = BERTBatch> = ModelInsight &
  LossOf<Batch> & { logits: Tensor; lastHiddenState: Tensor; poolerOutput?: Tensor }

/** Embeddings, layers and, where something needs it, the pooler. */
export class BERTModel extends Module {
  embeddings: BERTEmbeddings
  encoder: BERTEncoder
  pooler: BERTPooler | null

  constructor(config: FullBERTConfig) {
    super()
    this.embeddings = new BERTEmbeddings(config)
    this.encoder = new BERTEncoder(config)
    this.pooler = config.head === 'maskedLM' ? null : new BERTPooler(config)
  }

  forward(
    inputIds: Tensor,
    call: {
      mask?: Tensor | null
      tokenTypeIds?: Tensor | null
      positionIds?: Tensor | null
      insight?: Insight | null
    } = {},
  ): [hidden: Tensor, pooled: Tensor | null] {
    const hidden = this.encoder.forward(this.embeddings.forward(inputIds, call), call)
    return [hidden, this.pooler === null ? null : this.pooler.forward(hidden)]
  }
}

class MaskedLMTransform extends Module {
  dense: Linear
  act: Activation
  LayerNorm: LayerNorm

  constructor({ hiddenSize: C, activation, layerNormEps }: FullBERTConfig) {
    super()
    this.dense = new Linear(C, C)
    this.act = makeActivation('BERT', activation)
    this.LayerNorm = new LayerNorm(C, { eps: layerNormEps })
  }

  forward(x: Tensor): Tensor {
    return this.LayerNorm.forward(this.act.forward(this.dense.forward(x)))
  }
}

class MaskedLMPredictions extends Module {
  transform: MaskedLMTransform
  bias: Tensor

  constructor(config: FullBERTConfig) {
    super()
    this.transform = new MaskedLMTransform(config)
    this.bias = parameter(zeros([config.vocabSize]))
  }

  /** x [B, T, C] and the token embedding's weight [V, C], which the decoder shares -> logits [B, T, V]. */
  forward(x: Tensor, weight: Tensor): Tensor {
    return linear(this.transform.forward(x), weight, this.bias)
  }
}

class MaskedLMHead extends Module {
  predictions: MaskedLMPredictions

  constructor(config: FullBERTConfig) {
    super()
    this.predictions = new MaskedLMPredictions(config)
  }

  forward(x: Tensor, weight: Tensor): Tensor {
    return this.predictions.forward(x, weight)
  }
}

/** BERT with a masked-LM head, a classifier, or bare. Parameter names and state dict are those of Hugging Face's
 *  `BertForMaskedLM` and `BertForSequenceClassification`; the decoder shares the token embedding's weight.
 *
 *  Labels: of the masked-LM head [B, T], where -100 and padding count for nothing; of the classifier [B] of an integer
 *  dtype, or [B, numLabels] of a floating one (several may hold), or [B] floating when numLabels is 1 (regression).
 *  What stands in padded places (attentionMask 0) changes nothing.
 *
 *  @throws ShapeError, DTypeError or IndexError when inputs do not fit each other or the configuration
 *  @see Devlin et al. 2018, arXiv:1810.04805
 *  @example
 *  const model = new models.BERT({ head: 'classifier', numLabels: 3, hiddenSize: 256, numHiddenLayers: 4, numAttentionHeads: 4 })
 *  const { loss, logits } = model.forward({ inputIds, attentionMask, labels }) */
export class BERT extends Module {
  readonly config: FullBERTConfig
  bert: BERTModel
  cls: MaskedLMHead | null
  dropout: Dropout | null
  classifier: Linear | null
  #last: MemoryEstimateOptions | null = null

  constructor(config: BERTConfig = {}) {
    super()
    const full = completeBERTConfig(config)
    this.config = full
    this.bert = skipped(() => new BERTModel(full))
    this.cls = full.head === 'maskedLM' ? skipped(() => new MaskedLMHead(full)) : null
    this.dropout = full.head === 'classifier' ? new Dropout(full.classifierDropout) : null
    this.classifier = full.head === 'classifier' ? skipped(() => new Linear(full.hiddenSize, full.numLabels)) : null
    if (!isSkipped()) this.resetParameters()
  }

  /** Number of parameters by formula. @example models.BERT.parameterCount({}) // 109514298 */
  static parameterCount(config: BERTConfig = {}): number {
    return bertParameterCount(config)
  }

  /** Draws all parameters as BERT was published: N(0, initializerRange²), biases 0. */
  resetParameters(): void {
    transformer(this, this.config.initializerRange)
  }

  forward<Batch extends BERTBatch>(batch: Batch): BERTOutput<Batch> {
    const { inputIds, attentionMask, labels, positionIds, tokenTypeIds } = readBatch('BERT', batch, ['tokenTypeIds'])
    expectIndices('BERT', 'inputIds', inputIds)
    const { shape } = inputIds
    if (shape[1]! > this.config.maxPositionEmbeddings) {
      throw new ShapeError('BERT', {
        problem: 'the text is longer than the model has positions',
        got: `${shape[1]} tokens`,
        expected: `at most maxPositionEmbeddings ${this.config.maxPositionEmbeddings}`,
      })
    }
    if (positionIds) expectIndices('BERT', 'positionIds', positionIds, shape)
    if (tokenTypeIds) expectIndices('BERT', 'tokenTypeIds', tokenTypeIds, shape)
    const real = attentionMask ? readAttentionMask('BERT', attentionMask, shape) : null
    this.#last = { batchSize: shape[0]!, sequenceLength: shape[1]!, autocast: autocastHere() }
    const insight = new Insight(batch)
    const [lastHiddenState, pooled] = this.bert.forward(inputIds, {
      mask: real === null ? null : keyMask(real),
      tokenTypeIds: tokenTypeIds ?? null,
      positionIds: positionIds ?? null,
      insight,
    })
    let logits: Tensor | null = null
    let loss: Tensor | null = null
    if (this.cls !== null) {
      logits = this.cls.forward(lastHiddenState, this.bert.embeddings.word_embeddings.weight) // [B, T, V]
      if (labels) loss = this.maskedLoss(logits, labels, real)
    } else if (this.classifier !== null) {
      logits = this.classifier.forward(this.dropout!.forward(pooled!)) // [B, numLabels]
      if (labels) loss = this.classLoss(logits, labels)
    } else if (labels) {
      throw new ArgumentError('BERT', {
        problem: 'a model without a head has no loss',
        action: "make it with head 'maskedLM' or 'classifier'",
      })
    }
    return {
      ...(loss === null ? {} : { loss }),
      ...(logits === null ? {} : { logits }),
      lastHiddenState,
      ...(pooled === null ? {} : { poolerOutput: pooled }),
      ...insight.result(),
    } as BERTOutput<Batch>
  }

  /** @internal What the last batch needs, for the out-of-memory error. */
  memoryAdvice(): string | null {
    if (this.#last === null || !this.training) return null
    const dtype = this.bert.embeddings.word_embeddings.weight.dtype as MemoryEstimateOptions['dtype'] & string
    const checkpoint = this.isGradientCheckpointing
    return memoryAdvice('BERT', this.config, { ...this.#last, dtype, checkpoint })
  }

  /** What the loss of a batch is the mean over, of rank 0: masked tokens, or texts.
   *  @example new models.BERT({ vocabSize: 9, hiddenSize: 4, numHiddenLayers: 1, numAttentionHeads: 1 }).countTargets(batch) // 16 */
  countTargets(batch: BERTBatch): Tensor {
    const { inputIds, attentionMask, labels } = readBatch('BERT', batch, ['tokenTypeIds'])
    return tidy(() => {
      expectTensor('BERT', 'labels', labels)
      if (this.cls === null && isFloatingCode(labels._dtype))
        return full([], labels.size(0), { dtype: 'int64', device: labels.device })
      const real = attentionMask && this.cls !== null ? readAttentionMask('BERT', attentionMask, inputIds.shape) : null
      return ignorePadding(labels, real).ne(IGNORED).sum()
    })
  }

  private maskedLoss(logits: Tensor, labels: Tensor, real: Tensor | null): Tensor {
    const [B, T, V] = logits.shape as [number, number, number]
    expectIndices('BERT', 'labels', labels, [B, T])
    return crossEntropy(logits.view(B * T, V), ignorePadding(labels, real).reshape(B * T), { ignoreIndex: IGNORED })
  }

  private classLoss(logits: Tensor, labels: Tensor): Tensor {
    const [B, classes] = logits.shape as [number, number]
    if (!isFloatingCode(labels._dtype)) {
      if (classes === 1) {
        throw new DTypeError('BERT', {
          problem: 'a regression (numLabels 1) needs labels with fractions',
          got: labels.dtype,
          expected: logits.dtype,
        })
      }
      expectIndices('BERT', 'labels', labels, [B])
      return crossEntropy(logits, labels, { ignoreIndex: IGNORED })
    }
    if (classes === 1 && labels.numel === B) return mseLoss(logits.view(B), labels.reshape(B))
    if (describeShape(labels.shape) !== describeShape(logits.shape)) {
      throw new ShapeError('BERT', {
        problem: 'labels have the wrong shape',
        got: `${labels.dtype} ${describeShape(labels.shape)}`,
        expected: `int64 [${B}], or ${describeShape(logits.shape)} for classes that may hold together`,
      })
    }
    return binaryCrossEntropyWithLogits(logits, labels)
  }

  /** @internal The decoder's weight and bias in the state of a masked-LM model are the embedding's and
   *  `cls.predictions.bias`, which some writers store twice. */
  protected _ownState(state: StateDict): StateDict {
    return Object.fromEntries(Object.entries(state).filter(([name]) => !(this.cls !== null && isTied(name))))
  }

  /** Reads a folder with config.json and model.safetensors, as Hugging Face's libraries write it; in evaluation mode.
   *  With another head than the file has (`{ head: 'classifier', numLabels: 3 }`), the new head is drawn. */
  static async fromPretrained(folder: string, overrides: BERTConfig = {}): Promise<BERT> {
    const op = 'BERT.fromPretrained'
    const stored = bertConfigFromJson(await readConfig(op, folder))
    const config = completeBERTConfig({ ...stored, ...overrides })
    const sameHead = stored.head === config.head && stored.numLabels === config.numLabels
    const model = sameHead ? skipped(() => new BERT(config)) : new BERT(config)
    const wanted = new Set(Object.keys(model.stateDict()))
    await loadWeights(
      op,
      model,
      folder,
      (stale) => {
        // Files converted from TensorFlow say gamma and beta.
        const name = stale
          .replace(/LayerNorm\.gamma$/, 'LayerNorm.weight')
          .replace(/LayerNorm\.beta$/, 'LayerNorm.bias')
        const full = /^(bert|cls|classifier)\./.test(name) ? name : `bert.${name}`
        const droppable =
          isTied(full) || full === 'bert.embeddings.position_ids' || /^(cls|classifier|bert\.pooler)\./.test(full)
        return wanted.has(full) && !(full.startsWith('classifier.') && !sameHead) ? full : droppable ? null : full
      },
      (missing) => !sameHead && /^(cls|classifier|bert\.pooler)\./.test(missing),
    )
    return model.eval()
  }

  /** Writes a folder that `BERT.fromPretrained` and transformers' `from_pretrained` read. */
  savePretrained(folder: string): Promise<void> {
    return savePretrained(this, bertConfigToJson(this.config), folder)
  }
}

const isTied = (name: string): boolean => /^cls\.predictions\.decoder\.(weight|bias)$/.test(name)
