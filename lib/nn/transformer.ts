// The encoder of "Attention is all you need".

import { ArgumentError, describeValue } from '../errors'
import { add, dropoutAdd, gelu, mlp, relu } from '../ops/index'
import { expectCount, expectProbability, readOptions } from '../options'
import type { TensorOptions } from '../tensor/create'
import type { Tensor } from '../tensor/tensor'
import { placement } from './arguments'
import { MultiheadAttention } from './attention'
import { ModuleList } from './containers'
import { Dropout } from './dropout'
import { skipped } from './init/basic'
import { isFusable, Linear } from './linear'
import { Module } from './module'
import { LayerNorm } from './norm'

/** Nonlinearity of the feed-forward part; 'gelu' is the exact one. */
export type EncoderActivation = 'relu' | 'gelu' | ((x: Tensor) => Tensor)

/** Options of `TransformerEncoderLayer`; defaults as in PyTorch. */
export interface TransformerEncoderLayerOptions extends Pick<TensorOptions, 'dtype' | 'device'> {
  /** Width inside the feed-forward part; default 2048. */
  dimFeedforward?: number
  /** Default 0.1. */
  dropout?: number
  /** Default 'relu'. */
  activation?: EncoderActivation
  /** Default 1e-5. */
  layerNormEps?: number
  /** Inputs are [B, T, C] rather than [T, B, C]; default false. */
  batchFirst?: boolean
  /** Normalizes before attention and feed-forward (pre-norm) instead of after; default false. */
  normFirst?: boolean
  /** Linear maps and norms have biases; default true. */
  bias?: boolean
}

const layerOptions = [
  'dimFeedforward',
  'dropout',
  'activation',
  'layerNormEps',
  'batchFirst',
  'normFirst',
  'bias',
  ...placement,
] as const

/** What a call of an encoder layer takes beside its input; true hides. */
export interface EncoderCall {
  /** [T, T] or [B * nHead, T, T]. */
  srcMask?: Tensor | null
  /** [B, T]. */
  srcKeyPaddingMask?: Tensor | null
  /** Hides from each position those behind it; default false. */
  isCausal?: boolean
}

/** What a call of a stack of encoder layers takes beside its input. */
export interface EncoderStackCall extends Omit<EncoderCall, 'srcMask'> {
  /** [T, T] or [B * nHead, T, T]. */
  mask?: Tensor | null
}

/** Self-attention and a feed-forward part, each with dropout, residual and norm.
 *  src [T, B, C] (with `batchFirst` [B, T, C]) -> the same shape. Parameters have PyTorch's names.
 *  @see Vaswani et al. 2017, arXiv:1706.03762 (post-norm); Xiong et al. 2020, arXiv:2002.04745 (pre-norm)
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.nn.TransformerEncoderLayer.html
 *  @example new nn.TransformerEncoderLayer(64, 4, { batchFirst: true, normFirst: true }).forward(x) */
export class TransformerEncoderLayer extends Module {
  readonly normFirst: boolean
  self_attn: MultiheadAttention
  linear1: Linear
  dropout: Dropout
  linear2: Linear
  norm1: LayerNorm
  norm2: LayerNorm
  dropout1: Dropout
  dropout2: Dropout
  readonly #activation: (x: Tensor) => Tensor
  readonly #gelu: boolean
  readonly #copy: () => TransformerEncoderLayer

  constructor(dModel: number, nHead: number, options: TransformerEncoderLayerOptions = {}) {
    super()
    const {
      dimFeedforward = 2048,
      dropout = 0.1,
      activation = 'relu',
      layerNormEps = 1e-5,
      batchFirst = false,
      normFirst = false,
      bias = true,
      ...where
    } = readOptions('TransformerEncoderLayer', options, layerOptions)
    expectCount('TransformerEncoderLayer', 'dModel', dModel)
    expectProbability('TransformerEncoderLayer', 'dropout', dropout)
    this.normFirst = normFirst
    this.self_attn = new MultiheadAttention(dModel, nHead, { dropout, bias, batchFirst, ...where })
    this.linear1 = new Linear(dModel, dimFeedforward, { bias, ...where })
    this.dropout = new Dropout(dropout)
    this.linear2 = new Linear(dimFeedforward, dModel, { bias, ...where })
    this.norm1 = new LayerNorm(dModel, { eps: layerNormEps, bias, ...where })
    this.norm2 = new LayerNorm(dModel, { eps: layerNormEps, bias, ...where })
    this.dropout1 = new Dropout(dropout)
    this.dropout2 = new Dropout(dropout)
    this.#gelu = activation === 'gelu'
    this.#activation = readActivation(activation)
    this.#copy = () => skipped(() => new TransformerEncoderLayer(dModel, nHead, options))
  }

  /** Another layer of the same options and values. */
  copy(): TransformerEncoderLayer {
    const layer = this.#copy().train(this.training)
    layer.loadStateDict(this.stateDict())
    return layer
  }

  forward(src: Tensor, call: EncoderCall = {}): Tensor {
    const names = ['srcMask', 'srcKeyPaddingMask', 'isCausal'] as const
    const {
      srcMask = null,
      srcKeyPaddingMask = null,
      isCausal = false,
    } = readOptions(this.constructor.name, call, names)
    const attend = (x: Tensor): Tensor =>
      this.self_attn.forward(x, x, x, {
        attnMask: srcMask,
        keyPaddingMask: srcKeyPaddingMask,
        needWeights: false,
        isCausal,
      })[0]
    const { dropout1, dropout2 } = this
    if (this.normFirst) {
      const x = addDropped(src, attend(this.norm1.forward(src)), dropout1)
      return addDropped(x, this.feedForward(this.norm2.forward(x)), dropout2)
    }
    const x = this.norm1.forward(addDropped(src, attend(src), dropout1))
    return this.norm2.forward(addDropped(x, this.feedForward(x), dropout2))
  }

  private feedForward(x: Tensor): Tensor {
    const { linear1, linear2, dropout } = this
    const idle = isPlain(dropout) && !(dropout.training && dropout.p > 0)
    if (this.#gelu && idle && linear1.bias !== null && linear2.bias !== null && isFusable(linear1, linear2)) {
      return mlp(x, linear1.weight, linear1.bias, linear2.weight, linear2.bias, { approximate: 'none' })
    }
    return linear2.forward(dropout.forward(this.#activation(linear1.forward(x))))
  }
}

/** Whether a dropout may become part of a fused operator: nobody replaced or watches it. */
const isPlain = (module: Dropout): boolean => module.constructor === Dropout && !module.hasHooks

/** residual + dropout(x), in one pass over memory where nobody looks between. */
function addDropped(residual: Tensor, x: Tensor, dropout: Dropout): Tensor {
  if (isPlain(dropout)) return dropoutAdd(x, residual, dropout.p, dropout.training)
  return add(residual, dropout.forward(x))
}

function readActivation(activation: EncoderActivation): (x: Tensor) => Tensor {
  if (typeof activation === 'function') return activation
  if (activation === 'relu') return relu
  if (activation === 'gelu') return gelu
  throw new ArgumentError('TransformerEncoderLayer', {
    problem: 'activation is not known',
    got: describeValue(activation),
    expected: "'relu', 'gelu' or a function",
  })
}

/** A stack of encoder layers: copies of the given one, as in PyTorch, or what a function makes for each position (which
 *  lets every layer start with values of its own).
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.nn.TransformerEncoder.html
 *  @example new nn.TransformerEncoder(() => new nn.TransformerEncoderLayer(64, 4, { batchFirst: true }), 6) */
export class TransformerEncoder extends Module {
  layers: ModuleList<TransformerEncoderLayer>
  norm: Module | null

  constructor(
    layer: TransformerEncoderLayer | ((index: number) => TransformerEncoderLayer),
    numLayers: number,
    options: { norm?: Module | null } = {},
  ) {
    super()
    const { norm = null } = readOptions('TransformerEncoder', options, ['norm'])
    expectCount('TransformerEncoder', 'numLayers', numLayers)
    if (typeof layer !== 'function' && !(layer instanceof TransformerEncoderLayer)) {
      throw new ArgumentError('TransformerEncoder', {
        problem: 'not a layer',
        got: describeValue(layer),
        expected: 'a TransformerEncoderLayer or a function that makes one',
      })
    }
    const make = typeof layer === 'function' ? layer : () => layer.copy()
    this.layers = new ModuleList(Array.from({ length: numLayers }, (_, i) => make(i)))
    this.norm = norm
  }

  /** src [T, B, C] (or [B, T, C]) -> the same shape; `mask` and `srcKeyPaddingMask` as for the layers: true hides. */
  forward(src: Tensor, call: EncoderStackCall = {}): Tensor {
    const names = ['mask', 'srcKeyPaddingMask', 'isCausal'] as const
    const { mask = null, srcKeyPaddingMask = null, isCausal = false } = readOptions(this.constructor.name, call, names)
    let x = src
    for (const layer of this.layers) x = layer.forward(x, { srcMask: mask, srcKeyPaddingMask, isCausal })
    return this.norm === null ? x : (this.norm as unknown as { forward(x: Tensor): Tensor }).forward(x)
  }
}
