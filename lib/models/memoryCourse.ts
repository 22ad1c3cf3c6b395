// The course of a training step of a model: what is in use at each of its points. Every term is a tensor that lib/ops
// saves or makes, or scratch that native/cpu takes.

import type { DType } from '../dtype'
import { getNumThreads } from '../tensor/dispatch'
import { type BERTConfig, bertParameterCount, completeBERTConfig } from './bertConfig'
import { completeGPTConfig, type GPTConfig, gptParameterCount } from './gptConfig'
import type { MemoryEstimate } from './memoryEstimate'

/** @internal The parts of a transformer, in bytes unless it says otherwise. */
export interface Course {
  /** Elements a parameter has: all, and of one layer. */
  parameters: number
  layerParameters: number
  itemSize: number
  dtype: DType
  /** Tokens and sequences of the batch, width inside the feed-forward part, classes of the head (0: none to speak of). */
  tokens: number
  batch: number
  inner: number
  width: number
  classes: number
  layers: number
  /** [B, T, C] */
  unit: number
  /** What one layer saves, its input included. */
  layer: number
  /** Saved behind the layers. */
  head: number
  /** Held by whoever called forward, until the step is over. */
  outputs: number
  /** Alive while the layers run and released behind the last one. */
  embedding: number
  eachLayerOutput: number
  /** Tensors of [B, T, C] that the head's gradient makes besides that of its input. */
  headRecomputed: number
  fusedLoss: boolean
  endsInFeedForward: boolean
  dropout: boolean
  isStored: (layer: number) => boolean
}

// The products pack at most 8 MiB of their second operand, and a few hundred KiB of the first.
const packing = (k: number, n: number, itemSize = 4): number => Math.min(8 << 20, k * n * itemSize) + (1 << 18)

const mostLogits = 256 << 20

// Products of plain float32 are oneDNN's, unless there is one thread. Others pack the weight, but for up to 512 gathered
// rows of float16, and keep blocks of what they round.
function lossPacking({ batch, classes, width, dtype, itemSize }: Course, rows: number): number {
  if (dtype === 'float32' && getNumThreads() > 1) return 0
  const packed = dtype === 'float16' && batch > 1 && rows <= 512 ? rows : classes
  const blocks = dtype === 'float64' ? 0 : 1 << 19
  return packing(packed, width, dtype === 'bfloat16' ? 2 : Math.max(4, itemSize)) + blocks
}

// What linearCrossEntropy takes while it runs, besides its results: rows in chunks, their logits (in 16 bit for bfloat16
// only), losses, and both operands' rows in the type it computes in; a row index and a target for all. The last token of
// a sequence foretells nothing, and its row is left out. Gradients of bfloat16 weights add up in float32.
function lossScratch(course: Course): number {
  const { tokens, batch, classes, width, dtype, itemSize } = course
  const computed = Math.max(4, itemSize)
  const ofLogit = dtype === 'bfloat16' ? 2 : computed
  const rows = tokens - batch
  const chunks = Math.max(1, Math.ceil(rows / Math.max(1, Math.floor(mostLogits / (classes * ofLogit)))))
  const chunk = Math.ceil(rows / chunks)
  const sum = chunks > 1 && dtype === 'bfloat16' ? classes * width * computed : 0
  const ofRow = classes * ofLogit + 8 + 2 * width * computed
  return 16 * tokens + chunk * ofRow + sum + lossPacking(course, chunk)
}

class Peak {
  best: MemoryEstimate

  constructor(
    private readonly weights: number,
    private readonly optimizer: number,
  ) {
    const total = weights + optimizer
    this.best = { total, weights, gradients: 0, optimizer, activations: 0, workspace: 0, phase: 'forward' }
  }

  at(phase: MemoryEstimate['phase'], gradients: number, activations: number, workspace = 0): void {
    const { weights, optimizer } = this
    const total = weights + gradients + optimizer + activations + workspace
    if (total > this.best.total) {
      this.best = { total, weights, gradients, optimizer, activations, workspace, phase }
    }
  }
}

/** @internal The peak of a step, with so many bytes of an optimizer's states a parameter. */
export function followStep(course: Course, optimizerBytes: number): MemoryEstimate {
  const { itemSize, tokens, inner, width, classes, layers, unit, layer, head, outputs } = course
  const peak = new Peak(course.parameters * itemSize, course.parameters * optimizerBytes)
  const stored = Array.from({ length: layers }, (_, i) => (course.isStored(i) ? layer : unit))
  const upTo = (count: number): number => stored.slice(0, count).reduce((sum, bytes) => sum + bytes, 0)
  const indices = 4 * tokens * 8 // tokens, labels and targets
  const preActivation = tokens * inner * itemSize
  // rows whose activated hidden values are there at once, in forward and in backward
  const innerRow = inner * itemSize
  const activated = Math.min(tokens, Math.max(1024, Math.floor((64 << 20) / innerRow))) * innerRow
  // gradients of 16-bit weights are rounded once, so there all rows are
  const chunkOfInner = itemSize === 2 ? tokens * innerRow : Math.min(tokens, 1024) * innerRow

  // forward: the last layer is done, its scope still open
  const layersSaved = upTo(layers)
  const inFlight = layers > 0 ? 4 * unit : unit
  // an output that the next layer is checkpointed with is that layer's input
  const outputsOpen = Array.from({ length: layers }, (_, i) => i + 1 === layers || course.isStored(i + 1))
  const open = course.embedding + outputsOpen.filter(Boolean).length * course.eachLayerOutput
  const lastAsItRuns = layers > 0 && !course.isStored(layers - 1) ? layer - unit : 0
  peak.at('forward', 0, indices + layersSaved + lastAsItRuns + open + inFlight, activated + packing(width, inner))

  // the head and its loss
  const saved = indices + layersSaved + head
  const classWeight = classes * width * itemSize
  let headGradient = 0
  if (classes > 0 && course.fusedLoss) {
    const kept = course.dtype === 'float16' ? 2 : 1 // its gradients are in float32 until backward
    peak.at('forward', 0, saved + unit + kept * (unit + classWeight), lossScratch(course))
    headGradient = classWeight
  } else if (classes > 0) {
    const logits = tokens * classes * itemSize
    const atLoss = saved + outputs
    peak.at('forward', 0, atLoss + unit, packing(width, classes))
    headGradient = classWeight
    peak.at(
      'backward',
      headGradient,
      atLoss + logits + (1 + course.headRecomputed) * unit,
      packing(Math.min(tokens, 8192), width),
    )
  }

  // layers from the last to the first; those that are computed again, whole at first
  for (let i = layers - 1; i >= 0; i--) {
    const gradients = headGradient + (layers - 1 - i) * course.layerParameters * itemSize
    const below = indices + outputs + upTo(i) + layer
    const arriving = (course.dropout ? 2 : 1) * unit
    if (!course.isStored(i)) {
      const again = course.endsInFeedForward ? 0 : activated // then its second product is left out
      peak.at('backward', gradients, below + arriving + 4 * unit, again + packing(width, inner))
    }
    // the feed-forward part: its input computed again, its gradient, those of two matrices
    const feedForward = 2 * inner * width * itemSize
    peak.at(
      'backward',
      gradients + feedForward,
      below + arriving + 2 * unit,
      2 * chunkOfInner + packing(Math.min(tokens, 1024), inner),
    )
    // attention: gradients of its output, of queries, keys and values, and of their input
    peak.at(
      'backward',
      gradients + feedForward + 4 * width * width * itemSize,
      below - preActivation + 6 * unit,
      packing(width, 3 * width),
    )
  }
  const allGradients = course.parameters * itemSize
  peak.at('backward', allGradients, indices + outputs + 2 * unit)
  peak.at('step', allGradients, indices + outputs)
  return peak.best
}

/** @internal What the courses of both models begin with. */
export type Shared = Pick<Course, 'itemSize' | 'dtype' | 'tokens' | 'batch' | 'isStored'> & { length: number }

/** @internal */
export function gptCourse(config: GPTConfig, shared: Shared, returnLogits: boolean): Course {
  const full = completeGPTConfig(config)
  const { nEmbd: C, nInner: inner, nLayer, nHead, vocabSize } = full
  const { tokens, itemSize, batch, length } = shared
  const unit = tokens * C * itemSize
  const statistics = 2 * tokens * 4
  const layerParameters = 4 * C + C * 3 * C + 3 * C + C * C + C + 2 * C * inner + inner + C
  return {
    ...shared,
    parameters: gptParameterCount(config),
    layerParameters,
    inner,
    width: C,
    classes: vocabSize,
    layers: nLayer,
    unit,
    // the input; queries, keys and values; attention's output; the second norm's input; the pre-activation
    layer: 6 * unit + tokens * inner * itemSize + 2 * statistics + batch * nHead * length * 4,
    head: unit + statistics,
    outputs: returnLogits ? tokens * vocabSize * itemSize : 0,
    embedding: 0,
    eachLayerOutput: 0,
    headRecomputed: 1,
    fusedLoss: !returnLogits,
    endsInFeedForward: true,
    dropout: full.residDropout > 0,
  }
}

/** @internal */
export function bertCourse(config: BERTConfig, shared: Shared): Course {
  const full = completeBERTConfig(config)
  const { hiddenSize: C, intermediateSize: inner, numHiddenLayers, numAttentionHeads, vocabSize } = full
  const { tokens, itemSize, batch, length } = shared
  const unit = tokens * C * itemSize
  const statistics = 2 * tokens * 4
  const isMasked = full.head === 'maskedLM'
  return {
    ...shared,
    parameters: bertParameterCount(config),
    layerParameters: 4 * (C * C + C) + 4 * C + 2 * C * inner + inner + C,
    inner,
    width: C,
    classes: isMasked ? vocabSize : 0,
    layers: numHiddenLayers,
    unit,
    // queries, keys and values; attention's output; the inputs of both norms; the pre-activation. The layer's input is
    // the output of a norm, and computed again.
    layer: 6 * unit + tokens * inner * itemSize + 2 * statistics + batch * numAttentionHeads * length * 4,
    head: unit + (isMasked ? unit + statistics : 0),
    outputs: unit + (isMasked ? tokens * vocabSize * itemSize : 0),
    embedding: 3 * unit,
    eachLayerOutput: unit,
    headRecomputed: 2,
    fusedLoss: false,
    endsInFeedForward: false,
    dropout: full.hiddenDropout > 0,
  }
}
