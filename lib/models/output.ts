// What models give back.

import { isRecomputing } from '../autograd/checkpoint'
import { ArgumentError, describeShape, describeValue } from '../errors'
import { refuseSnakeCase } from '../options'
import { Tensor } from '../tensor/tensor'

/** What every model takes. */
export interface ModelBatch {
  /** Tokens, [B, T], of an integer dtype. */
  inputIds: Tensor
  /** [B, T]: 1 for tokens, 0 for padding; default all tokens. */
  attentionMask?: Tensor | null
  /** What to foretell; where it is -100 or the token is padding, nothing. */
  labels?: Tensor | null
  /** Position of each token, [B, T]; default 0, 1, 2, … */
  positionIds?: Tensor | null
  /** Returns the attention probabilities of each layer, [B, H, T, T]. Default false: the fused kernel never has them. */
  outputAttentions?: boolean
  /** Returns the embeddings and the output of each layer, [B, T, C]. Default false. */
  outputHiddenStates?: boolean
}

const fields = ['inputIds', 'attentionMask', 'labels', 'positionIds', 'outputAttentions', 'outputHiddenStates']

function describeBatch(batch: unknown): string {
  if (batch instanceof Tensor) return `a tensor ${describeShape(batch.shape)}`
  const keys = batch === null || typeof batch !== 'object' ? [] : Object.keys(batch).slice(0, 8)
  return `${describeValue(batch)}${keys.length > 0 ? ` with ${keys.join(', ')}` : ''}`
}

// What other libraries call a mask and labels.
const aliases: Readonly<Record<string, string>> = {
  mask: 'attentionMask',
  attnMask: 'attentionMask',
  paddingMask: 'attentionMask',
  keyPaddingMask: 'attentionMask',
  target: 'labels',
  targets: 'labels',
}

/** Whether one word is the other but for case, underscores, the order of its letters, or one letter too many or few. */
function isNear(a: string, b: string): boolean {
  const plain = (word: string): string => word.replaceAll('_', '').toLowerCase()
  const sorted = (word: string): string => [...word].sort().join('')
  const [short, long] = [plain(a), plain(b)].sort((x, y) => x.length - y.length) as [string, string]
  if (short.length === long.length) return sorted(short) === sorted(long)
  return [...long].some((_, i) => long.slice(0, i) + long.slice(i + 1) === short)
}

// A mask or labels under another name would count for nothing without a word. Where the name that is meant is there, too,
// the other one is the caller's.
function refuseNearMisses(op: string, batch: object, names: readonly string[]): void {
  for (const name in batch) {
    if (names.includes(name)) continue
    const meant = Object.hasOwn(aliases, name) ? aliases[name]! : names.find((each) => isNear(name, each))
    if (meant === undefined || (batch as Record<string, unknown>)[meant] !== undefined) continue
    throw new ArgumentError(op, {
      problem: 'the batch has an unknown key',
      got: name,
      expected: names.join(', '),
      action: `did you mean ${meant}? Otherwise give it another name, or leave it out`,
    })
  }
}

/** @internal The batch, which may hold more than the model reads, but nothing that is meant for it under another name. */
export function readBatch<Batch extends ModelBatch>(op: string, batch: Batch, more: readonly string[] = []): Batch {
  if (batch !== null && typeof batch === 'object') {
    refuseSnakeCase(op, batch, [...fields, ...more])
    refuseNearMisses(op, batch, [...fields, ...more])
  }
  if (batch === null || typeof batch !== 'object' || !(batch.inputIds instanceof Tensor)) {
    throw new ArgumentError(op, {
      problem: 'the batch has no inputIds',
      got: describeBatch(batch),
      expected: ['{ inputIds', 'attentionMask?', ...more.map((name) => `${name}?`), 'labels? }'].join(', '),
      action: 'arrays become tensors with tensor(rows, { dtype: "int64" })',
    })
  }
  return batch
}

/** Attention probabilities and hidden states, where they were asked for. */
export interface ModelInsight {
  attentions?: Tensor[]
  hiddenStates?: Tensor[]
}

/** The loss is there when there are labels. */
export type LossOf<Batch> = Batch extends { labels: Tensor } ? { loss: Tensor } : { loss?: Tensor }

/** @internal What the layers note down while they run. */
export class Insight {
  readonly attentions: Tensor[] | null
  readonly hiddenStates: Tensor[] | null

  constructor({ outputAttentions = false, outputHiddenStates = false }: ModelBatch) {
    this.attentions = outputAttentions ? [] : null
    this.hiddenStates = outputHiddenStates ? [] : null
  }

  /** Notes the probabilities of a layer. They outlive the layer's call, which would release what it does not return. */
  noteAttention(weights: Tensor): void {
    if (!isRecomputing()) this.attentions?.push(weights.keep())
  }

  /** Notes the input of a layer, or the output of the last one. */
  noteHidden(x: Tensor): void {
    this.hiddenStates?.push(x.keep())
  }

  /** For the model's output. */
  result(): ModelInsight {
    return {
      ...(this.attentions === null ? {} : { attentions: this.attentions }),
      ...(this.hiddenStates === null ? {} : { hiddenStates: this.hiddenStates }),
    }
  }
}
