// The model of bench/pytorch/train_step.py in gradus: the same parameters, names and work.

import { fromTypedArray, nn, ops, random, type Tensor, tensor, tidy } from 'gradus'

/** Layers, heads, width, context, batch, vocabulary, causal. */
export const configs = {
  baby: { L: 6, H: 6, D: 384, T: 256, B: 16, V: 256, causal: true },
  gpt2s: { L: 12, H: 12, D: 768, T: 256, B: 4, V: 50257, causal: true },
  tiny: { L: 2, H: 2, D: 64, T: 32, B: 4, V: 128, causal: true },
  bert: { L: 4, H: 4, D: 256, T: 128, B: 32, V: 30522, causal: false },
} as const

export type ConfigName = keyof typeof configs
export type Config = { readonly [key in keyof (typeof configs)['baby']]: key extends 'causal' ? boolean : number }

/** What one step reads. */
export interface Batch {
  idx: Tensor // [B, T]
  target: Tensor // [B, T], -100 where the loss does not look
  mask: Tensor | null // [B, 1, 1, T], true for tokens, false for padding
  picked: Tensor | null // [n] positions of the flattened batch that the head is applied to
}

class Block extends nn.Module {
  ln1: nn.LayerNorm
  ln2: nn.LayerNorm
  qkv: nn.Linear
  proj: nn.Linear
  up: nn.Linear
  down: nn.Linear

  constructor(
    readonly config: Config,
    readonly p: number,
  ) {
    super()
    const { D } = config
    this.ln1 = new nn.LayerNorm(D)
    this.ln2 = new nn.LayerNorm(D)
    this.qkv = new nn.Linear(D, 3 * D)
    this.proj = new nn.Linear(D, D)
    this.up = new nn.Linear(D, 4 * D)
    this.down = new nn.Linear(4 * D, D)
  }

  override forward(x: Tensor, mask: Tensor | null): Tensor {
    const { H, D, causal } = this.config
    const [B, T] = x.shape as [number, number]
    const qkv = this.qkv.forward(this.ln1.forward(x)).view(B, T, 3, H, D / H)
    const [q, k, v] = qkv.unbind(2).map((part) => part.transpose(1, 2)) as [Tensor, Tensor, Tensor] // (B, H, T, D/H)
    const a = ops.scaledDotProductAttention(q, k, v, {
      attnMask: mask ?? undefined,
      dropoutP: this.training ? this.p : 0,
      isCausal: causal,
    })
    const attended = this.proj.forward(a.transpose(1, 2).reshape(B, T, D))
    const h = ops.dropoutAdd(attended, x, this.p, this.training)
    const y = ops.mlp(this.ln2.forward(h), this.up.weight, this.up.bias!, this.down.weight, this.down.bias!, {
      approximate: 'tanh',
    })
    return ops.dropoutAdd(y, h, this.p, this.training)
  }
}

/** The transformer of the benchmark; its head is tied to the token embedding. */
export class Model extends nn.Module {
  tok: nn.Embedding
  pos: nn.Embedding
  blocks: nn.ModuleList
  lnf: nn.LayerNorm
  drop: nn.Dropout

  constructor(
    readonly config: Config,
    dropout: number,
    // the peer computes every row, so unless asked this side does too
    readonly skipIgnored = false,
  ) {
    super()
    const { L, D, T, V } = config
    this.tok = new nn.Embedding(V, D)
    this.pos = new nn.Embedding(T, D)
    this.blocks = new nn.ModuleList(Array.from({ length: L }, () => new Block(config, dropout)))
    this.lnf = new nn.LayerNorm(D)
    this.drop = new nn.Dropout(dropout)
    for (const p of this.parameters()) if (p.ndim > 1) nn.init.normal_(p, 0, 0.02)
  }

  override forward({ idx, target, mask, picked }: Batch): Tensor {
    const { D, T } = this.config
    let x = tidy(() => this.drop.forward(this.tok.forward(idx).add(this.pos.weight.slice(0, 0, T))))
    for (const block of this.blocks) {
      const before = x
      x = (block as Block).forward(before, mask)
      before.dispose() // as the peer's, whose variable is overwritten
    }
    x = this.lnf.forward(x).reshape(-1, D)
    let labels = target.reshape(-1)
    if (picked !== null) {
      x = x.indexSelect(0, picked)
      labels = labels.indexSelect(0, picked)
    }
    return ops.linearCrossEntropy(x, this.tok.weight, labels, { ignoreIndex: -100, skipIgnored: this.skipIgnored })
  }
}

/** Multiplications and additions of the matrix products of one step, as the peer counts them. */
export function matmulFlops({ L, D, T, B, V }: Config, rowsOfHead: number | null): number {
  const n = B * T
  const scored = rowsOfHead ?? n
  return 3 * (L * (2 * n * 12 * D * D + 4 * n * T * D) + 2 * scored * D * V)
}

/** A random batch, made as the peer makes its own. */
export function randomBatch({ T, B, V, causal }: Config, gatherLogits: boolean): Batch {
  random.seed(1)
  const uniform = (): number => random.uniform()
  const ids = BigInt64Array.from({ length: B * T }, () => BigInt(Math.floor(uniform() * V)))
  const idx = fromTypedArray(ids, [B, T])
  if (causal) {
    const next = ids.map((_, i) => ids[(i + 1) % T === 0 ? i + 1 - T : i + 1]!)
    return { idx, target: fromTypedArray(next, [B, T]), mask: null, picked: null }
  }
  const lengths = Array.from({ length: B }, () => Math.floor(T / 2 + uniform() * (T / 2 + 1)))
  const keep = Uint8Array.from(ids, (_, i) => Number(i % T < lengths[Math.floor(i / T)]!))
  const chosen = keep.map((kept) => Number(kept === 1 && uniform() < 0.15))
  const target = ids.map((id, i) => (chosen[i] === 1 ? id : -100n))
  const positions = [...chosen.keys()].filter((i) => chosen[i] === 1)
  return {
    idx,
    target: fromTypedArray(target, [B, T]),
    mask: fromTypedArray(keep, [B, 1, 1, T], { dtype: 'bool' }),
    picked: gatherLogits ? tensor(positions, { dtype: 'int64' }) : null,
  }
}
