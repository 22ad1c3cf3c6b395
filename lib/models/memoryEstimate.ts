// What a training step of a model will need, computed from its configuration: the course of a step is gone through, and
// the point where most is in use at once is the answer. Every term is a tensor that lib/ops saves or makes.

import { type DType, dtypeCode, isFloatingCode, itemSizes } from '../dtype'
import { ArgumentError, DTypeError, describeValue } from '../errors'
import { expectCount } from '../nn/arguments'
import { readOptions } from '../options'
import { type BERTConfig, bertParameterCount, completeBERTConfig } from './bertConfig'
import { completeGPTConfig, type GPTConfig, gptParameterCount } from './gptConfig'

/** Which step is estimated. */
export interface MemoryEstimateOptions {
  /** Sequences in a (micro-)batch. */
  batchSize: number
  /** Tokens in each; default the longest that the model takes. */
  sequenceLength?: number
  /** Dtype of the parameters and of what is computed; default 'float32'. */
  dtype?: 'float32' | 'float64' | 'float16' | 'bfloat16'
  /** What keeps states; default 'adamw'. 'sgd' is without momentum, null: there is no optimizer. */
  optimizer?: 'adamw' | 'adam' | 'adamw8bit' | 'sgd' | 'momentum' | 'rmsprop' | 'adagrad' | null
  /** Layers are recomputed, as after `model.gradientCheckpointing()`. Default false. */
  checkpoint?: boolean | { every: number }
  /** GPT: whether the loop takes the logits, or calls forward with `returnLogits: false`. Default true. */
  returnLogits?: boolean
}

/** The peak of a step in bytes, and what it consists of. */
export interface MemoryEstimate {
  /** The sum of the others. */
  total: number
  weights: number
  gradients: number
  optimizer: number
  activations: number
  workspace: number
  /** Where in the step the peak lies. */
  phase: 'forward' | 'backward' | 'step'
}

const names = ['batchSize', 'sequenceLength', 'dtype', 'optimizer', 'checkpoint', 'returnLogits'] as const

// bytes a parameter; 16-bit parameters have states in float32
const stateBytes = { adamw: 8, adam: 8, adamw8bit: 2.03, sgd: 0, momentum: 4, rmsprop: 4, adagrad: 4 } as const

/** The parts of a transformer, in bytes unless it says otherwise. */
interface Course {
  /** Elements a parameter has: all, and of one layer. */
  parameters: number
  layerParameters: number
  itemSize: number
  dtype: DType
  /** Tokens of the batch, width inside the feed-forward part, classes of the head (0: none to speak of). */
  tokens: number
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
const packing = (k: number, n: number): number => Math.min(8 << 20, k * n * 4) + (1 << 18)

const mostLogits = 256 << 20

// What linearCrossEntropy takes while it runs, besides its results: rows in chunks, their logits (in 16 bit for bfloat16
// only), losses, and both operands' rows in the type it computes in; a row index and a target for all. Gradients of
// bfloat16 weights add up in float32.
function lossScratch(course: Course): number {
  const { tokens, classes, width, dtype, itemSize } = course
  const computed = Math.max(4, itemSize)
  const ofLogit = dtype === 'bfloat16' ? 2 : computed
  const chunks = Math.ceil(tokens / Math.max(1, Math.floor(mostLogits / (classes * ofLogit))))
  const chunk = Math.ceil(tokens / chunks)
  const sum = chunks > 1 && dtype === 'bfloat16' ? classes * width * computed : 0
  return 16 * tokens + chunk * (classes * ofLogit + 8 + 2 * width * computed) + sum
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

function followStep(course: Course, optimizerBytes: number): MemoryEstimate {
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
    peak.at('forward', 0, saved + unit + kept * (unit + classWeight), lossScratch(course) + packing(width, classes))
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

type Shared = Pick<Course, 'itemSize' | 'dtype' | 'tokens' | 'isStored'> & { batch: number; length: number }

function gptCourse(config: GPTConfig, shared: Shared, returnLogits: boolean): Course {
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

function bertCourse(config: BERTConfig, shared: Shared): Course {
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

function readEvery(op: string, checkpoint: unknown): number {
  if (typeof checkpoint === 'boolean') return checkpoint ? 1 : 0
  if (checkpoint !== null && typeof checkpoint === 'object') {
    return expectCount(op, 'every', readOptions(op, checkpoint as { every: number }, ['every']).every)
  }
  throw new ArgumentError(op, {
    problem: 'checkpoint is no choice of layers',
    got: describeValue(checkpoint),
    expected: 'true, false or { every }',
  })
}

const isBert = (config: object): config is BERTConfig =>
  ['hiddenSize', 'numHiddenLayers', 'numAttentionHeads', 'intermediateSize', 'head'].some((name) => name in config)

/** Estimates the peak of a training step (forward, backward, step) of a GPT or BERT before anything of it is made, within
 *  10 % of what `memory.maxAllocated()` then shows. `config` is a model's configuration, or a model. `dtype` is that
 *  of the parameters (`model.to(dtype)`), not of autocast. It assumes a loop that holds on to nothing of the step before.
 *  Logits that forward returned are held until they are disposed or collected, even if the loop only reads `.loss`: the
 *  garbage collector leaves those of up to three more steps alive, each batchSize x sequenceLength x vocabSize elements.
 *  `output.logits.dispose()` after backward, or `returnLogits: false`, spares them.
 *  @throws ArgumentError for a configuration or options that make no sense
 *  @see Korthikanti et al. 2022, "Reducing Activation Recomputation in Large Transformer Models", arXiv:2205.05198
 *  @example
 *  const stored = models.estimateMemory({ nLayer: 12 }, { batchSize: 8 })
 *  const spared = models.estimateMemory({ nLayer: 12 }, { batchSize: 8, checkpoint: true })
 *  spared.total < stored.total // true */
export function estimateMemory(
  config: GPTConfig | BERTConfig | { readonly config: GPTConfig | BERTConfig },
  options: MemoryEstimateOptions,
): MemoryEstimate {
  const op = 'estimateMemory'
  if (config === null || typeof config !== 'object') {
    throw new ArgumentError(op, {
      problem: 'no configuration',
      got: describeValue(config),
      expected: 'that of a GPT or BERT, or a model',
    })
  }
  const own = 'config' in config ? config.config : config
  const {
    batchSize,
    dtype = 'float32',
    optimizer = 'adamw',
    checkpoint = false,
    returnLogits = true,
  } = readOptions(op, options, names)
  const batch = expectCount(op, 'batchSize', batchSize)
  const longest = isBert(own) ? completeBERTConfig(own).maxPositionEmbeddings : completeGPTConfig(own).blockSize
  const length = expectCount(op, 'sequenceLength', options.sequenceLength ?? longest)
  if (length > longest) {
    throw new ArgumentError(op, {
      problem: 'sequenceLength is longer than the model takes',
      got: String(length),
      expected: `at most ${longest}`,
    })
  }
  if (optimizer !== null && !Object.hasOwn(stateBytes, optimizer)) {
    throw new ArgumentError(op, {
      problem: 'unknown optimizer',
      got: describeValue(optimizer),
      expected: `${Object.keys(stateBytes).join(', ')}, or null`,
    })
  }
  const every = readEvery(op, checkpoint)
  const code = dtypeCode(dtype as DType, op)
  if (!isFloatingCode(code)) {
    throw new DTypeError(op, {
      problem: 'parameters have no gradients in this dtype',
      got: describeValue(dtype),
      expected: 'float32, float64, float16 or bfloat16',
    })
  }
  const itemSize = itemSizes[code]!
  const shared: Shared = {
    itemSize,
    dtype,
    tokens: batch * length,
    batch,
    length,
    isStored: (layer) => every === 0 || layer % every !== 0,
  }
  const course = isBert(own) ? bertCourse(own, shared) : gptCourse(own, shared, returnLogits)
  const scale = itemSize === 8 ? 2 : 1 // float64 parameters have states in float64
  return followStep(course, optimizer === null ? 0 : stateBytes[optimizer] * scale)
}

const mib = (bytes: number): string => `${Math.ceil(bytes / 2 ** 20).toLocaleString('en')} MiB`

/** @internal For the out-of-memory error: what a step of this batch needs, and what would be less. */
export function memoryAdvice(name: string, config: GPTConfig | BERTConfig, options: MemoryEstimateOptions): string {
  const need = (changes: Partial<MemoryEstimateOptions>): string =>
    mib(estimateMemory(config, { ...options, ...changes }).total)
  const { batchSize, sequenceLength, checkpoint } = options
  const ways = [
    ...(checkpoint === true ? [] : [`${need({ checkpoint: true })} with gradientCheckpointing()`]),
    ...(batchSize === 1
      ? []
      : [`${need({ batchSize: Math.floor(batchSize / 2) })} with a batch of ${Math.floor(batchSize / 2)}`]),
  ]
  const less = ways.length === 0 ? '' : `, ${ways.join(', ')}`
  return `a training step of this ${name} on ${batchSize} x ${sequenceLength} tokens with AdamW needs about ${need({})}${less}`
}
