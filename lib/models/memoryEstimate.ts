// What a training step of a model will need, computed from its configuration: the course of a step is gone through, and
// the point where most is in use at once is the answer.

import { autocastState } from '../autograd/autocast'
import { type DType, dtypeCode, dtypeNames, isFloatingCode, itemSizes } from '../dtype'
import { ArgumentError, DTypeError, describeValue } from '../errors'
import { expectCount } from '../nn/arguments'
import { readOptions } from '../options'
import { type BERTConfig, completeBERTConfig } from './bertConfig'
import { completeGPTConfig, type GPTConfig } from './gptConfig'
import { bertCourse, followStep, gptCourse, type Shared } from './memoryCourse'

/** Which step is estimated. */
export interface MemoryEstimateOptions {
  /** Sequences in a (micro-)batch. */
  batchSize: number
  /** Tokens in each; default the longest that the model takes. */
  sequenceLength?: number
  /** Dtype of the parameters and of what is computed; default 'float32'. */
  dtype?: 'float32' | 'float64' | 'float16' | 'bfloat16'
  /** forward runs in a region of `amp.autocast` of this dtype. That makes a difference for float32 parameters only: they,
   *  their gradients and their states stay in float32, and most of what backward needs is in 16 bits. Default null. */
  autocast?: 'bfloat16' | 'float16' | null
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

const names = ['batchSize', 'sequenceLength', 'dtype', 'autocast', 'optimizer', 'checkpoint', 'returnLogits'] as const

// bytes a parameter; 16-bit parameters have states in float32
const stateBytes = { adamw: 8, adam: 8, adamw8bit: 2.03, sgd: 0, momentum: 4, rmsprop: 4, adagrad: 4 } as const

// Of float64 parameters they are in float64, also those that would else be in 8 bits.
function statesOf(optimizer: keyof typeof stateBytes, itemSize: number): number {
  if (itemSize < 8) return stateBytes[optimizer]
  return 2 * stateBytes[optimizer === 'adamw8bit' ? 'adamw' : optimizer]
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
 *  of the parameters (`model.to(dtype)`), `autocast` that of the products. It assumes a loop that holds on to nothing of the step before.
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
    autocast = null,
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
  if (autocast !== null && autocast !== 'bfloat16' && autocast !== 'float16') {
    throw new DTypeError(op, {
      problem: 'autocast computes no products in this dtype',
      got: describeValue(autocast),
      expected: 'bfloat16, float16 or null',
    })
  }
  const itemSize = itemSizes[code]!
  const isMixed = autocast !== null && dtype === 'float32'
  const shared: Shared = {
    itemSize,
    dtype,
    product: isMixed ? autocast : dtype,
    productSize: isMixed ? 2 : itemSize,
    tokens: batch * length,
    batch,
    length,
    isStored: (layer) => every === 0 || layer % every !== 0,
  }
  const course = isBert(own) ? bertCourse(own, shared) : gptCourse(own, shared, returnLogits)
  return followStep(course, optimizer === null ? 0 : statesOf(optimizer, itemSize))
}

/** @internal The option `autocast` for the code that runs. */
export function autocastHere(): MemoryEstimateOptions['autocast'] & (string | null) {
  const { enabled, dtype } = autocastState()
  return enabled ? (dtypeNames[dtype] as 'bfloat16' | 'float16') : null
}

const mib = (bytes: number): string => `${Math.ceil(bytes / 2 ** 20).toLocaleString('en')} MiB`

/** @internal For the out-of-memory error: what a step of this batch needs, and what would be less. */
export function memoryAdvice(name: string, config: GPTConfig | BERTConfig, options: MemoryEstimateOptions): string {
  const need = (changes: Partial<MemoryEstimateOptions>): string =>
    mib(estimateMemory(config, { ...options, ...changes }).total)
  const { batchSize, sequenceLength, checkpoint, autocast } = options
  const ways = [
    ...(checkpoint === true ? [] : [`${need({ checkpoint: true })} with gradientCheckpointing()`]),
    ...(batchSize === 1
      ? []
      : [`${need({ batchSize: Math.floor(batchSize / 2) })} with a batch of ${Math.floor(batchSize / 2)}`]),
  ]
  const less = ways.length === 0 ? '' : `, ${ways.join(', ')}`
  const under = autocast ? ` under autocast to ${autocast}` : ''
  return `a training step of this ${name} on ${batchSize} x ${sequenceLength} tokens with AdamW${under} needs about ${need({})}${less}`
}
