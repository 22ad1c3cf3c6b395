// A layer of GPT-2: attention and feed-forward, each behind a norm and in front of a residual addition.

import { splitHeads } from '../nn/attention'
import { isFusable } from '../nn/linear'
import { Module } from '../nn/module'
import { LayerNorm } from '../nn/norm'
import { attentionWithWeights, dropoutAdd, mlp, scaledDotProductAttention } from '../ops/index'
import type { Tensor } from '../tensor/tensor'
import { type Activation, fusableGelu, makeActivation } from './activations'
import { Conv1D } from './conv1d'
import type { FullGPTConfig } from './gptConfig'
import type { KeyValueCache } from './kvCache'
import type { Insight } from './output'

/** What a layer takes beside its input. */
export interface GPTBlockCall {
  /** bool, broadcasts to [B, H, T, S]: true where a key may be seen; on top of the causal mask. */
  mask?: Tensor | null
  /** Keys and values of earlier tokens. */
  cache?: KeyValueCache | null
  /** @internal */
  insight?: Insight | null
}

/** Causal self-attention, x [B, T, C] -> [B, T, C].
 *  @see Radford et al. 2019 */
export class GPTAttention extends Module {
  readonly nHead: number
  readonly scale: number
  readonly attnDropout: number
  c_attn: Conv1D
  c_proj: Conv1D

  constructor(
    config: FullGPTConfig,
    readonly layer: number,
    readonly causal = true,
  ) {
    super()
    const { nEmbd: C, nHead } = config
    this.nHead = nHead
    this.scale =
      (config.scaleAttention ? 1 / Math.sqrt(C / nHead) : 1) / (config.scaleAttentionByInverseLayer ? layer + 1 : 1)
    this.attnDropout = config.attnDropout
    this.c_attn = new Conv1D(C, 3 * C)
    this.c_proj = new Conv1D(C, C)
  }

  forward(x: Tensor, { mask = null, cache = null, insight = null }: GPTBlockCall = {}): Tensor {
    const [B, T, C] = x.shape as [number, number, number]
    let [q, k, v] = splitHeads(this.c_attn.forward(x), 3, this.nHead) as [Tensor, Tensor, Tensor] // [B, H, T, D]
    // One new token sees all keys; the causal mask starts at the first key, so it fits only when the cache was empty.
    const isCausal = this.causal && T > 1
    if (cache !== null) [k, v] = cache.append(this.layer, k, v)
    const dropoutP = this.training ? this.attnDropout : 0
    const { scale } = this
    let heads: Tensor
    if (insight?.attentions) {
      const [out, weights] = attentionWithWeights(q, k, v, { attnMask: mask, isCausal, scale, dropoutP })
      insight.noteAttention(weights)
      heads = out
    } else {
      heads = scaledDotProductAttention(q, k, v, { attnMask: mask, isCausal, scale, dropoutP })
    }
    return this.c_proj.forward(heads.transpose(1, 2).reshape(B, T, C)) // [B, H, T, D] -> [B, T, C]
  }
}

/** Feed-forward part, x [B, T, C] -> [B, T, C]. */
export class GPTMlp extends Module {
  c_fc: Conv1D
  act: Activation
  c_proj: Conv1D

  constructor(config: FullGPTConfig) {
    super()
    this.c_fc = new Conv1D(config.nEmbd, config.nInner)
    this.act = makeActivation('GPT', config.activation)
    this.c_proj = new Conv1D(config.nInner, config.nEmbd)
  }

  forward(x: Tensor): Tensor {
    const { c_fc: up, c_proj: down, act } = this
    const approximate = fusableGelu(act)
    if (approximate !== null && isFusable(up, down)) {
      return mlp(x, up.weight, up.bias!, down.weight, down.bias!, { approximate })
    }
    return down.forward(act.forward(up.forward(x)))
  }
}

/** One layer, x [B, T, C] -> [B, T, C]. */
export class GPTBlock extends Module {
  readonly residDropout: number
  ln_1: LayerNorm
  attn: GPTAttention
  ln_2: LayerNorm
  mlp: GPTMlp

  constructor(config: FullGPTConfig, layer: number, causal = true) {
    super()
    this.residDropout = config.residDropout
    this.ln_1 = new LayerNorm(config.nEmbd, { eps: config.layerNormEps })
    this.attn = new GPTAttention(config, layer, causal)
    this.ln_2 = new LayerNorm(config.nEmbd, { eps: config.layerNormEps })
    this.mlp = new GPTMlp(config)
  }

  forward(x: Tensor, call: GPTBlockCall = {}): Tensor {
    const { residDropout: p, training } = this
    const attended = dropoutAdd(this.attn.forward(this.ln_1.forward(x), call), x, p, training)
    return dropoutAdd(this.mlp.forward(this.ln_2.forward(attended)), attended, p, training)
  }
}
