// A deep transformer whose blocks are computed again in backward instead of being stored: the same gradients, to the bit,
// in less memory.
//
//   npx tsx examples/checkpointing.ts

import { autograd, memory, nn, ops, optim, randint, random, type Tensor } from 'gradus'

/** Attention and feed-forward, each behind a norm and in front of a residual addition: x [B, T, C] -> [B, T, C]. */
class Block extends nn.Module {
  ln1: nn.LayerNorm
  qkv: nn.Linear
  proj: nn.Linear
  ln2: nn.LayerNorm
  up: nn.Linear
  down: nn.Linear

  constructor(
    C: number,
    readonly nHead: number,
  ) {
    super()
    this.ln1 = new nn.LayerNorm(C)
    this.qkv = new nn.Linear(C, 3 * C)
    this.proj = new nn.Linear(C, C)
    this.ln2 = new nn.LayerNorm(C)
    this.up = new nn.Linear(C, 4 * C)
    this.down = new nn.Linear(4 * C, C)
  }

  override forward(x: Tensor): Tensor {
    const [B, T, C] = x.shape as [number, number, number]
    const qkv = this.qkv.forward(this.ln1.forward(x)).view(B, T, 3, this.nHead, C / this.nHead)
    const [q, k, v] = qkv.unbind(2).map((part) => part.transpose(1, 2)) as [Tensor, Tensor, Tensor] // [B, nHead, T, D]
    const heads = ops.scaledDotProductAttention(q, k, v, { isCausal: true, dropoutP: this.training ? 0.1 : 0 })
    const h = ops.dropoutAdd(this.proj.forward(heads.transpose(1, 2).reshape(B, T, C)), x, 0.1, this.training)
    return ops.dropoutAdd(this.down.forward(ops.gelu(this.up.forward(this.ln2.forward(h)))), h, 0.1, this.training)
  }
}

type How = 'store' | 'checkpoint' | 'selective'

class Model extends nn.Module {
  tokens: nn.Embedding
  blocks: nn.ModuleList<Block>
  head: nn.Linear
  how: How = 'store'

  constructor(vocabSize: number, C: number, nLayer: number) {
    super()
    this.tokens = new nn.Embedding(vocabSize, C)
    this.blocks = new nn.ModuleList(Array.from({ length: nLayer }, () => new Block(C, 4)))
    this.head = new nn.Linear(C, vocabSize)
  }

  override forward(ids: Tensor, labels: Tensor): Tensor {
    let x = this.tokens.forward(ids)
    for (const block of this.blocks) {
      if (this.how === 'store') x = block.forward(x)
      else if (this.how === 'checkpoint') x = autograd.checkpoint((h) => block.forward(h), x)
      else x = autograd.selectiveCheckpoint(['attention'], (h) => block.forward(h), x) // attention runs once
    }
    return ops.crossEntropy(this.head.forward(x).view(-1, this.head.outFeatures), labels.view(-1))
  }
}

/** Peak of the activations in bytes, and the gradient of the embedding, of one step from the same seed. */
export async function step(model: Model, how: How): Promise<{ activations: number; gradient: number[] }> {
  random.seed(1)
  model.how = how
  const optimizer = new optim.AdamW(model.parameters(), { lr: 3e-4 })
  const ids = randint(256, [8, 64])
  let gradient: number[] = []
  const profile = await memory.profile(
    async () => {
      optimizer.zeroGrad()
      model.forward(ids, ids).backward()
      gradient = [...((await model.tokens.weight.grad!.data()) as Float32Array)]
    },
    { model, optimizer },
  )
  return { activations: Math.max(...profile.phases.map(({ kinds }) => kinds.activations)), gradient }
}

export function makeModel(): Model {
  random.seed(1)
  return new Model(256, 128, 8)
}

async function main(): Promise<void> {
  const model = makeModel()
  const stored = await step(model, 'store')
  for (const how of ['store', 'checkpoint', 'selective'] as const) {
    const { activations, gradient } = await step(model, how)
    const equal = gradient.every((value, i) => value === stored.gradient[i])
    console.log(
      `${how.padEnd(10)}  activations ${(activations / 2 ** 20).toFixed(1).padStart(6)} MiB, ` +
        `${(activations / stored.activations).toFixed(2)} of stored; gradients equal to the bit: ${equal}`,
    )
  }
}

if (require.main === module) void main()
