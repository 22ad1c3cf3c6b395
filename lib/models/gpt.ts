// GPT-2.

import { ArgumentError, ShapeError } from '../errors'
import { ModuleList } from '../nn/containers'
import { Dropout } from '../nn/dropout'
import { Embedding } from '../nn/embedding'
import { isSkipped, normal_, skipped } from '../nn/init/basic'
import { transformer } from '../nn/init/transformer'
import { Linear } from '../nn/linear'
import { Module } from '../nn/module'
import { LayerNorm } from '../nn/norm'
import type { StateDict } from '../nn/stateDict'
import { crossEntropy, linear, linearCrossEntropy } from '../ops/index'
import { letGo, tidy } from '../tensor/scope'
import type { Tensor } from '../tensor/tensor'
import { type CausalLM, type GenerateOptions, generate, type NextCall, stream } from './generate'
import { GPTBlock } from './gptBlock'
import {
  completeGPTConfig,
  type FullGPTConfig,
  type GPTConfig,
  gptConfigFromJson,
  gptConfigToJson,
  gptParameterCount,
} from './gptConfig'
import type { KeyValueCache } from './kvCache'
import { autocastHere, type MemoryEstimateOptions, memoryAdvice } from './memoryEstimate'
import { Insight, type LossOf, type ModelBatch, type ModelInsight, readBatch } from './output'
import { expectIndices, IGNORED, keyMask, readAttentionMask, shiftedTargets } from './padding'
import { loadWeights, readConfig, savePretrained } from './pretrained'

/** What `GPT.forward` takes. */
export interface GPTBatch extends ModelBatch {
  /** With false, the logits, often the largest tensor of a training step, are no result: the loss is computed from chunks
   *  of at most 256 MB of them, over which their gradients are written, and which are gone with it. Default true. */
  returnLogits?: boolean
}

/** What `GPT.forward` gives: logits [B, T, vocabSize], and the mean loss over what is to be foretold. */
export type GPTOutput<Batch extends GPTBatch = GPTBatch> = ModelInsight &
  LossOf<Batch> &
  (Batch extends { returnLogits: false } ? { logits?: undefined } : { logits: Tensor })

/** What the layers of `GPTTransformer` take beside the tokens. */
export interface GPTTransformerCall {
  /** bool [B, 1, 1, S]: true where a key may be seen. */
  mask?: Tensor | null
  positionIds?: Tensor | null
  cache?: KeyValueCache | null
  /** @internal */
  insight?: Insight | null
}

/** Embeddings, layers and the last norm: inputIds [B, T] -> [B, T, C]. */
export class GPTTransformer extends Module {
  readonly config: FullGPTConfig
  wte: Embedding
  wpe: Embedding
  drop: Dropout
  h: ModuleList<GPTBlock>
  ln_f: LayerNorm

  constructor(config: GPTConfig, { causal = true }: { causal?: boolean } = {}) {
    super()
    this.config = completeGPTConfig(config)
    const { vocabSize, blockSize, nEmbd, nLayer, embdDropout, layerNormEps } = this.config
    this.wte = new Embedding(vocabSize, nEmbd)
    this.wpe = new Embedding(blockSize, nEmbd)
    this.drop = new Dropout(embdDropout)
    this.h = new ModuleList(Array.from({ length: nLayer }, (_, i) => new GPTBlock(this.config, i, causal)))
    this.ln_f = new LayerNorm(nEmbd, { eps: layerNormEps })
  }

  forward(
    inputIds: Tensor,
    { mask = null, positionIds = null, cache = null, insight = null }: GPTTransformerCall = {},
  ): Tensor {
    const T = inputIds.size(1)
    const past = cache?.length ?? 0
    if (past + T > this.config.blockSize) {
      throw new ShapeError('GPT', {
        problem: 'the text is longer than the model can look at',
        got: `${past + T} tokens`,
        expected: `at most blockSize ${this.config.blockSize}`,
      })
    }
    if (past > 0 && T > 1) {
      throw new ArgumentError('GPT', { problem: 'only one token at a time can follow a cache', got: `${T} tokens` })
    }
    // A slice of the table costs nothing and its gradient needs no scatter; [T, C] broadcasts over the batch.
    const positions = positionIds === null ? this.wpe.weight.narrow(0, past, T) : this.wpe.forward(positionIds)
    let x = tidy(() => this.drop.forward(this.wte.forward(inputIds).add(positions))) // [B, T, C]
    for (const block of this.h) {
      insight?.noteHidden(x)
      const before = x
      x = block.forward(before, { mask, cache, insight })
      letGo(before) // unless it was noted
    }
    cache?.advance(T)
    x = this.ln_f.forward(x)
    insight?.noteHidden(x) // as in transformers, the last one stands behind the last norm
    return x
  }
}

/** A causal language model of GPT-2's architecture. Parameter names and state dict are those of Hugging Face's
 *  `GPT2LMHeadModel`; the head has no parameter of its own when it is tied.
 *
 *  `forward` foretells `labels[t + 1]` at position t (the labels are usually the inputs). Labels of -100 and all that
 *  belongs to padding (attentionMask 0) count for nothing, whatever stands there.
 *
 *  @throws ShapeError, DTypeError or IndexError when inputs do not fit each other or the configuration
 *  @see Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"
 *  @example
 *  const model = new models.GPT({ vocabSize: 256, nLayer: 6, nHead: 6, nEmbd: 384, blockSize: 256, dropout: 0.1 })
 *  const { loss, logits } = model.forward({ inputIds, labels: inputIds })
 *  loss.backward() */
export class GPT extends Module implements CausalLM {
  readonly config: FullGPTConfig
  transformer: GPTTransformer
  lm_head: Linear | null
  #last: MemoryEstimateOptions | null = null

  constructor(config: GPTConfig = {}) {
    super()
    this.config = completeGPTConfig(config)
    const { nEmbd, vocabSize, tieWeights } = this.config
    this.transformer = skipped(() => new GPTTransformer(this.config))
    this.lm_head = tieWeights ? null : skipped(() => new Linear(nEmbd, vocabSize, { bias: false }))
    if (!isSkipped()) this.resetParameters()
  }

  /** Number of parameters by formula. @example models.GPT.parameterCount({}) // 124439808 */
  static parameterCount(config: GPTConfig = {}): number {
    return gptParameterCount(config)
  }

  /** Draws all parameters as GPT-2 was published: N(0, initializerRange²), and the projections into the residual stream
   *  smaller by sqrt(2 nLayer), so that its variance does not grow with depth. */
  resetParameters(): void {
    const { initializerRange: std, nLayer } = this.config
    transformer(this, std)
    for (const block of this.transformer.h) {
      for (const projection of [block.attn.c_proj, block.mlp.c_proj]) {
        normal_(projection.weight, 0, std / Math.sqrt(2 * nLayer))
      }
    }
  }

  forward<Batch extends GPTBatch>(batch: Batch): GPTOutput<Batch> {
    const {
      inputIds,
      attentionMask,
      labels,
      positionIds,
      returnLogits = true,
    } = readBatch('GPT', batch, ['returnLogits'])
    expectIndices('GPT', 'inputIds', inputIds)
    const real = attentionMask ? readAttentionMask('GPT', attentionMask, inputIds.shape) : null
    if (labels) expectIndices('GPT', 'labels', labels, inputIds.shape)
    if (positionIds) expectIndices('GPT', 'positionIds', positionIds, inputIds.shape)
    if (!returnLogits && !labels) {
      throw new ArgumentError('GPT', { problem: 'without labels and logits there is nothing to return' })
    }
    this.#last = {
      batchSize: inputIds.size(0),
      sequenceLength: inputIds.size(1),
      returnLogits,
      autocast: autocastHere(),
    }
    const insight = new Insight(batch)
    const hidden = this.transformer.forward(inputIds, {
      mask: real === null ? null : keyMask(real),
      positionIds: positionIds ?? null,
      insight,
    })
    const [B, T, C] = hidden.shape as [number, number, number]
    const targets = labels ? shiftedTargets(labels, real).view(B * T) : null
    let output: { logits?: Tensor; loss?: Tensor }
    if (returnLogits) {
      const logits = this.logits(hidden) // [B, T, V]
      const loss = targets && crossEntropy(logits.view(B * T, this.config.vocabSize), targets, { ignoreIndex: IGNORED })
      output = loss ? { loss, logits } : { logits }
    } else {
      const rows = hidden.reshape(B * T, C)
      output = { loss: linearCrossEntropy(rows, this.headWeight, targets!, { ignoreIndex: IGNORED }) }
    }
    return { ...output, ...insight.result() } as GPTOutput<Batch>
  }

  /** How many tokens of a batch are foretold: what its loss is the mean over, int64 of rank 0.
   *  @example model.countTargets({ inputIds, labels: inputIds }) // 14 */
  countTargets(batch: GPTBatch): Tensor {
    const { inputIds, attentionMask, labels } = readBatch('GPT', batch, ['returnLogits'])
    return tidy(() => {
      const real = attentionMask ? readAttentionMask('GPT', attentionMask, inputIds.shape) : null
      expectIndices('GPT', 'labels', labels as Tensor, inputIds.shape)
      return shiftedTargets(labels as Tensor, real)
        .ne(IGNORED)
        .sum()
    })
  }

  /** @internal What the last batch needs, for the out-of-memory error. */
  memoryAdvice(): string | null {
    if (this.#last === null || !this.training) return null
    const dtype = this.headWeight.dtype as MemoryEstimateOptions['dtype'] & string
    const checkpoint = this.isGradientCheckpointing
    return memoryAdvice('GPT', this.config, { ...this.#last, dtype, checkpoint })
  }

  /** Weight of the head, [vocabSize, C]. */
  get headWeight(): Tensor {
    return this.lm_head === null ? this.transformer.wte.weight : this.lm_head.weight
  }

  private logits(hidden: Tensor): Tensor {
    return this.lm_head === null ? linear(hidden, this.headWeight) : this.lm_head.forward(hidden)
  }

  /** Most tokens that the model can look at. */
  get blockSize(): number {
    return this.config.blockSize
  }

  /** Token that ends a text, or null. */
  get eosTokenId(): number | null {
    return this.config.eosTokenId
  }

  /** Logits [B, V] of the token behind the last of inputIds [B, T]. */
  next(inputIds: Tensor, { positionIds, mask, cache }: NextCall): Tensor {
    const hidden = this.transformer.forward(inputIds, { positionIds, mask, cache })
    return this.logits(hidden.narrow(1, hidden.size(1) - 1, 1)).squeeze(1)
  }

  /** Continues texts. inputIds [B, T] (or arrays of tokens of one length) -> [B, T + n], the prompts included; waits
   *  without blocking the event loop.
   *  @example await model.generate(prompt, { maxNewTokens: 100, temperature: 0.8, topK: 40, seed: 1 }) */
  generate(inputIds: Tensor | number[] | number[][], options: GenerateOptions = {}): Promise<Tensor> {
    return generate(this, inputIds, options)
  }

  /** Like `generate`, but gives each new token as it is made: an array with one token a text.
   *  @example for await (const [token] of model.stream(prompt)) process.stdout.write(tokenizer.decode([token])) */
  stream(inputIds: Tensor | number[] | number[][], options: GenerateOptions = {}): AsyncGenerator<number[], void> {
    return stream(this, inputIds, options)
  }

  /** @internal The head's weight in the state of a tied model is the embedding's, which some writers store twice. */
  protected _ownState(state: StateDict): StateDict {
    if (this.lm_head !== null || !('lm_head.weight' in state)) return state
    const { 'lm_head.weight': _, ...rest } = state
    return rest
  }

  /** Reads a folder with config.json and model.safetensors, as Hugging Face's libraries write it; in evaluation mode. */
  static async fromPretrained(folder: string, overrides: GPTConfig = {}): Promise<GPT> {
    const op = 'GPT.fromPretrained'
    const config = { ...gptConfigFromJson(await readConfig(op, folder)), ...overrides }
    const model = skipped(() => new GPT(config))
    await loadWeights(op, model, folder, (name) => {
      // The first published files have the bare transformer's names, and the causal mask as a buffer.
      if (/\.attn\.(bias|masked_bias)$/.test(name)) return null
      if (name === 'lm_head.weight') return model.lm_head === null ? null : name
      return name.startsWith('transformer.') ? name : `transformer.${name}`
    })
    return model.eval()
  }

  /** Writes a folder that `GPT.fromPretrained` and transformers' `GPT2LMHeadModel.from_pretrained` read. */
  savePretrained(folder: string): Promise<void> {
    return savePretrained(this, gptConfigToJson(this.config), folder)
  }
}
