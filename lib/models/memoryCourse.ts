// The course of a training step of a model: what is in use at each of its points. Every term is a tensor that lib/ops
// saves or makes, or scratch that native/cpu takes.

import type { DType } from '../dtype'
import { logitChunkBytes } from '../ops/crossEntropy'
import { getNumThreads } from '../tensor/dispatch'
import { type BERTConfig, bertParameterCount, completeBERTConfig } from './bertConfig'
import { completeGPTConfig, type GPTConfig, gptParameterCount } from './gptConfig'
import type { MemoryEstimate } from './memoryEstimate'

/** @internal The parts of a transformer, in bytes unless it says otherwise. */
export interface Course {
  /** Elements a parameter has: all, and of one layer. */
  parameters: number
  layerParameters: number
  /** Of parameters, their gradients and the residual stream. */
  itemSize: number
  dtype: DType
  /** Of what products make: autocast's, else the same. */
  product: DType
  productSize: number
  /** Tokens and sequences of the batch, width inside the feed-forward part, classes of the head (0: none to speak of). */
  tokens: number
  batch: number
  inner: number
  width: number
  classes: number
  layers: number
  /** [B, T, C] of the residual stream, and as a product makes it. */
  unit: number
  made: number
  /** What one layer saves, its input included. */
  layer: number
  /** Saved behind the layers. */
  head: number
  /** Held by whoever called forward, until the step is over. */
  outputs: number
  /** Alive while the layers run and released behind the last one. */
  embedding: number
  eachLayerOutput: number
  /** Not saved, but there while a layer's scope is open, in forward and as it runs again. */
  inFlight: number
  inFlightAgain: number
  /** Tensors of [B, T, C] that the head's gradient makes besides that of its input. */
  headRecomputed: number
  fusedLoss: boolean
  endsInFeedForward: boolean
  dropout: boolean
  isStored: (layer: number) => boolean
}

// The products pack at most 8 MiB of their second operand, and a few hundred KiB of the first.
const packing = (k: number, n: number, itemSize = 4): number => Math.min(8 << 20, k * n * itemSize) + (1 << 18)

// Products of plain float32 are oneDNN's, unless there is one thread. Others pack the weight, but for up to 512 gathered
// rows of float16, and keep blocks of what they round.
function lossPacking({ batch, classes, width, dtype, product, itemSize }: Course, rows: number): number {
  if (dtype === 'float32' && product !== 'bfloat16' && getNumThreads() > 1) return 0
  const packed = dtype === 'float16' && batch > 1 && rows <= 512 ? rows : classes
  const blocks = dtype === 'float64' ? 0 : 1 << 19
  return packing(packed, width, product === 'bfloat16' ? 2 : Math.max(4, itemSize)) + blocks
}

// What linearCrossEntropy takes while it runs, besides its results: rows in chunks, their logits (in 16 bit for bfloat16
// only), losses, and both operands' rows in the type it computes in; a row index and a target for all. The last token of
// a sequence foretells nothing, and its row is left out. Gradients of bfloat16 weights add up in float32.
function lossScratch(course: Course): number {
  const { tokens, batch, classes, width, dtype, product, itemSize } = course
  const computed = Math.max(4, itemSize)
  const ofLogit = product === 'bfloat16' ? 2 : computed
  const rows = tokens - batch
  const chunks = Math.max(1, Math.ceil(rows / Math.max(1, Math.floor(logitChunkBytes / (classes * ofLogit)))))
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
  const { itemSize, dtype, product, productSize, tokens, inner, width, classes, layers } = course
  const { unit, made, layer, head, outputs } = course
  const isMixed = product !== dtype
  const peak = new Peak(course.parameters * itemSize, course.parameters * optimizerBytes)
  const stored = Array.from({ length: layers }, (_, i) => (course.isStored(i) ? layer : unit))
  const upTo = (count: number): number => stored.slice(0, count).reduce((sum, bytes) => sum + bytes, 0)
  const indices = 4 * tokens * 8 // tokens, labels and targets
  const preActivation = tokens * inner * productSize
  // rows whose activated hidden values are there at once in forward: those of float16 are activated as they are packed
  const innerRow = inner * productSize
  const activated = product === 'float16' ? 0 : Math.min(tokens, 1024) * innerRow
  // several blocks of rows share packed weights, so those of both products are there at once
  const packedWeight = packing(width, inner)
  const packedForward = tokens > 1024 && product !== 'float16' ? 2 * packedWeight : packedWeight
  // and in backward, in float32 unless pairs of bfloat16 are multiplied; gradients of 16-bit weights are rounded once, so
  // there all rows are
  const computedSize = product === 'bfloat16' ? 2 : Math.max(4, itemSize)
  const chunkOfInner = (itemSize === 2 ? tokens : Math.min(tokens, 1024)) * inner * computedSize

  // in backward 16-bit products of both matrices pack for themselves
  const packedBackward =
    productSize === 2
      ? packing(Math.min(tokens, 1024), inner, computedSize) +
        (tokens > 1024 ? 2 : 1) * packing(width, inner, computedSize) +
        (1 << 18)
      : packing(Math.min(tokens, 1024), inner)

  // forward: the last layer is done, its scope still open
  const layersSaved = upTo(layers)
  const inFlight = layers > 0 ? course.inFlight : unit
  // an output that the next layer is checkpointed with is that layer's input
  const outputsOpen = Array.from({ length: layers }, (_, i) => i + 1 === layers || course.isStored(i + 1))
  const open = course.embedding + outputsOpen.filter(Boolean).length * course.eachLayerOutput
  const unsaved = isMixed ? unit + 2 * made : unit // its input; normalized values, which nobody keeps
  const lastAsItRuns = layers > 0 && !course.isStored(layers - 1) ? layer - unsaved : 0
  peak.at('forward', 0, indices + layersSaved + lastAsItRuns + open + inFlight, activated + packedForward)

  // the head and its loss
  const saved = indices + layersSaved + head
  const classWeight = classes * width * itemSize
  let headGradient = 0
  if (classes > 0 && course.fusedLoss) {
    const kept = dtype === 'float16' ? 2 : 1 // its gradients are in float32 until backward
    peak.at('forward', 0, saved + unit + kept * (unit + classWeight), lossScratch(course))
    headGradient = classWeight
  } else if (classes > 0) {
    const logits = tokens * classes * productSize
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
    const arriving = unit + (isMixed ? made : course.dropout ? unit : 0)
    if (!course.isStored(i)) {
      const again = course.endsInFeedForward ? 0 : activated // then its second product is left out
      peak.at('backward', gradients, below + arriving + course.inFlightAgain, again + packedForward)
    }
    // the feed-forward part: its input computed again, its gradient, those of two matrices
    const feedForward = 2 * inner * width * itemSize
    peak.at('backward', gradients + feedForward, below + arriving + 2 * unit, 2 * chunkOfInner + packedBackward)
    // attention: gradients of its output, of queries, keys and values, and of their input
    peak.at(
      'backward',
      gradients + feedForward + 4 * width * width * itemSize,
      below - preActivation + 3 * (unit + made),
      packing(width, 3 * width),
    )
  }
  const allGradients = course.parameters * itemSize
  peak.at('backward', allGradients, indices + outputs + 2 * unit)
  peak.at('step', allGradients, indices + outputs)
  return peak.best
}

/** @internal What the courses of both models begin with. */
export type Shared = Pick<
  Course,
  'itemSize' | 'dtype' | 'product' | 'productSize' | 'tokens' | 'batch' | 'isStored'
> & { length: number }

/** [B, T, C] of the residual stream and of a product; what a norm saves: its input and two numbers a row, or under
 *  autocast its normalized values in float16 and one number; and what is there of a layer until it is done: both norms'
 *  outputs, what joins the residual stream twice, and under autocast that stream before and behind attention, which no
 *  norm saves there. */
function sizesOf({ tokens, itemSize, dtype, product, productSize }: Shared, width: number) {
  const isMixed = product !== dtype
  const unit = tokens * width * itemSize
  const made = tokens * width * productSize
  const norm = isMixed ? tokens * width * 2 + tokens * 4 : unit + 2 * tokens * 4
  return { unit, made, norm, inFlight: (isMixed ? 4 : 2) * unit + 2 * made, isMixed }
}

/** @internal */
export function gptCourse(config: GPTConfig, shared: Shared, returnLogits: boolean): Course {
  const full = completeGPTConfig(config)
  const { nEmbd: C, nInner: inner, nLayer, nHead, vocabSize } = full
  const { tokens, productSize, batch, length } = shared
  const { unit, made, norm, inFlight } = sizesOf(shared, C)
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
    made,
    // both norms; queries, keys and values; attention's output; the pre-activation
    layer: 4 * made + 2 * norm + tokens * inner * productSize + batch * nHead * length * 4,
    head: norm,
    outputs: returnLogits ? tokens * vocabSize * productSize : 0,
    embedding: 0,
    eachLayerOutput: 0,
    inFlight,
    inFlightAgain: inFlight,
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
  const { tokens, productSize, batch, length } = shared
  const { unit, made, norm, inFlight, isMixed } = sizesOf(shared, C)
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
    made,
    // queries, keys and values; attention's output; both norms; the pre-activation. The layer's input is the output of a
    // norm, and computed again.
    layer: 4 * made + 2 * norm + tokens * inner * productSize + batch * numAttentionHeads * length * 4,
    head: made + (isMasked ? made + 2 * tokens * 4 : 0),
    outputs: unit + (isMasked ? tokens * vocabSize * productSize : 0),
    // under autocast norms save neither their inputs nor those of the layers
    embedding: isMixed ? unit + norm : 3 * unit,
    eachLayerOutput: isMixed ? 0 : unit,
    inFlight: isMixed ? 2 * unit : inFlight,
    inFlightAgain: inFlight,
    headRecomputed: 2,
    fusedLoss: false,
    endsInFeedForward: false,
    dropout: full.hiddenDropout > 0,
  }
}
