// npm run bench:ops: the operators a transformer trains with, in the JSON lines of bench/pytorch/ops.py.

import { Command } from 'commander'
import {
  amp,
  type DType,
  isFloatingPoint,
  nn,
  noGrad,
  ones,
  onesLike,
  ops,
  optim,
  randint,
  randn,
  random,
  setNumThreads,
  type Tensor,
  tidy,
  zeros,
} from 'gradus'
import { positiveNumber, wholeNumber } from './options'
import { timed } from './timing'

interface Options {
  only: string
  dtype: string
  seconds: number
  threads: number
}

const dtypes = { fp32: 'float32', bf16: 'bfloat16', fp16: 'float16' } as const satisfies Record<string, DType>
type Precision = keyof typeof dtypes

let options: Options

const wanted = (op: string): boolean => op.includes(options.only)

function emit(op: string, shape: string, dtype: Precision, forward: number, both: number | null, flop?: number): void {
  const row = { op, shape, dtype, fwd_ms: forward, fwdbwd_ms: both }
  console.log(JSON.stringify(flop === undefined ? row : { ...row, gflops: Number((flop / forward / 1e6).toFixed(1)) }))
}

/** Times fn without gradients, then with a backward through every floating input. */
function both(
  op: string,
  shape: string,
  dtype: Precision,
  fn: (...inputs: Tensor[]) => Tensor,
  makeInputs: () => Tensor[],
  flop?: number,
): void {
  if (!wanted(op) || !dtype.includes(options.dtype)) return
  const inputs = makeInputs()
  const forward = timed(() => noGrad(() => fn(...inputs).dispose()), options.seconds)
  const leaves = inputs.map((x) => (isFloatingPoint(x.dtype) ? x.detach().requiresGrad_() : x))
  const gradient = tidy(() => onesLike(noGrad(() => fn(...leaves))))
  const train = (): void => {
    const y = fn(...leaves)
    y.backward({ gradient })
    y.dispose()
    for (const leaf of leaves) {
      leaf.grad?.dispose()
      leaf.grad = null
    }
  }
  emit(op, shape, dtype, forward, timed(train, options.seconds), flop)
  for (const each of [...inputs, ...leaves, gradient]) each.dispose()
}

function matrixProducts(): void {
  const sizes: [number, number, number][] = [
    [512, 512, 512],
    [1024, 1024, 1024],
    [2048, 2048, 2048],
    [1024, 3072, 768],
  ]
  for (const [name, dtype] of Object.entries(dtypes) as [Precision, DType][]) {
    for (const [m, n, k] of sizes) {
      if (name === 'fp16' && m === 2048) continue
      const inputs = (): Tensor[] => [randn([m, k], { dtype }), randn([k, n], { dtype })]
      both('matmul', `${m}x${n}x${k}`, name, (a, b) => a.matmul(b), inputs, 2 * m * n * k)
    }
  }
}

function attention(name: Precision, B: number, T: number): void {
  const inputs = (): Tensor[] => [0, 1, 2].map(() => randn([B, 12, T, 64], { dtype: dtypes[name] }))
  const causal = (q: Tensor, k: Tensor, v: Tensor): Tensor => ops.scaledDotProductAttention(q, k, v, { isCausal: true })
  both(
    'attention_causal',
    `B${B} H12 T${T} D64`,
    name,
    causal as (...qkv: Tensor[]) => Tensor,
    inputs,
    4 * B * 12 * T * T * 64,
  )
}

// Its time beside that of 'all' should be the share of the blocks, as the operations per second say.
function sparseAttention(name: Precision, T: number): void {
  const { BlockMask } = ops
  const patterns = {
    all: BlockMask.from(() => true, T),
    local: BlockMask.local(T, 4),
    strided: BlockMask.strided(T, 8),
    'local and global': BlockMask.local(T, 4).or(BlockMask.global(T, 1)),
  }
  for (const [pattern, blockMask] of Object.entries(patterns)) {
    both(
      `attention_blocks ${pattern}`,
      `B1 H12 T${T} D64`,
      name,
      (q, k, v) => ops.scaledDotProductAttention(q!, k!, v!, { blockMask }),
      () => [0, 1, 2].map(() => randn([1, 12, T, 64], { dtype: dtypes[name] })),
      4 * 12 * T * T * 64 * blockMask.density,
    )
  }
}

function layers(): void {
  for (const name of ['fp32', 'bf16'] as const) {
    const dtype = dtypes[name]
    const normal =
      (...shapes: number[][]) =>
      (): Tensor[] =>
        shapes.map((shape) => randn(shape, { dtype }))
    both('softmax', '4096x1024', name, (x) => x.softmax(-1), normal([4096, 1024]))
    both(
      'layer_norm',
      '4096x768',
      name,
      (x, w, b) => ops.layerNorm(x!, [768], w, b),
      () => [randn([4096, 768], { dtype }), ones([768], { dtype }), zeros([768], { dtype })],
    )
    both('gelu_tanh', '4096x3072', name, (x) => ops.gelu(x!, { approximate: 'tanh' }), normal([4096, 3072]))
    both('dropout', '4096x3072', name, (x) => ops.dropout(x!, 0.1, true), normal([4096, 3072]))
    both('add', '4096x768', name, (a, b) => a!.add(b!), normal([4096, 768], [4096, 768]))
    attention(name, 4, 256)
    attention(name, 4, 1024)
    const target = randint(0, 50257, [1024])
    both(
      'linear_cross_entropy',
      '1024x768->50257',
      name,
      (x, w) => ops.linearCrossEntropy(x!, w!, target),
      () => [randn([1024, 768], { dtype }), randn([50257, 768], { dtype }).mul(0.02)],
    )
  }
  // one sequence is enough to see that time grows with T squared and memory with T
  for (const name of ['fp32', 'bf16'] as const) {
    attention(name, 1, 4096)
    attention(name, 1, 16384)
    sparseAttention(name, 4096)
  }
  const index = randint(0, 50257, [4, 256])
  both(
    'embedding',
    '50257x768, 1024 rows',
    'fp32',
    (w) => ops.embedding(index, w!),
    () => [randn([50257, 768])],
  )
}

/** The parameters of GPT-2 small. */
function gpt2Parameters(): Tensor[] {
  const D = 768
  const shapes: number[][] = [
    [50257, D],
    [1024, D],
  ]
  for (let layer = 0; layer < 12; layer++) {
    shapes.push([D], [D], [3 * D, D], [3 * D], [D, D], [D], [D], [D], [4 * D, D], [4 * D], [D, 4 * D], [D])
  }
  shapes.push([D], [D])
  return shapes.map((shape) => {
    const p = nn.parameter(randn(shape))
    p.grad = randn(shape).mul(1e-3)
    return p
  })
}

const updates = ['adamw_fused', 'adamw_clip', 'adamw_scaled', 'adamw_8bit', 'clip_grad_norm']

function optimizers(): void {
  if (!updates.some(wanted)) return
  const parameters = gpt2Parameters()
  const count = parameters.reduce((sum, p) => sum + p.numel, 0)
  const size = `${Math.round(count / 1e6)}M in ${parameters.length} tensors`
  const update = (op: string, optimizer: optim.Optimizer, step = (): unknown => optimizer.step()): void => {
    emit(op, size, 'fp32', timed(step as () => void, options.seconds), null)
    for (const state of optimizer.state.values()) {
      for (const each of Object.values(state)) if (typeof each === 'object') each.dispose()
    }
  }
  const settings = { lr: 1e-4, weightDecay: 0.1 }
  if (wanted('adamw_fused')) update('adamw_fused', new optim.AdamW(parameters, settings))
  if (wanted('adamw_8bit')) update('adamw_8bit', new optim.AdamW8bit(parameters, settings))
  if (wanted('adamw_clip')) {
    const optimizer = new optim.AdamW(parameters, settings)
    update('adamw_clip', optimizer, () => optimizer.step({ maxNorm: 1 }).dispose())
  }
  if (wanted('adamw_scaled')) {
    const optimizer = new optim.AdamW(parameters, settings)
    const scaler = new amp.GradScaler({ initScale: 1 })
    scaler.scale(ones([]))
    update('adamw_scaled', optimizer, () => {
      scaler.step(optimizer, { maxNorm: 1 })
      scaler.update()
    })
  }
  if (wanted('clip_grad_norm')) {
    const clip = (): void => nn.utils.clipGradNorm_(parameters, 1).dispose()
    emit('clip_grad_norm', size, 'fp32', timed(clip, options.seconds), null)
  }
}

/** What an operation costs when there is nothing to compute: microseconds of one add, its wait included. */
function overhead(): void {
  if (!wanted('overhead')) return
  const count = 10_000
  const [a, b] = [randn([8]), randn([8])]
  const [ag, bg] = [randn([8]).requiresGrad_(), randn([8]).requiresGrad_()]
  const adds = (x: Tensor, y: Tensor): void => {
    for (let i = 0; i < count; i++) ops.add(x, y)
  }
  const chain = (): void =>
    tidy(() => {
      let x: Tensor = ag
      for (let i = 0; i < count; i++) x = ops.add(x, bg)
      x.sum().backward()
      for (const leaf of [ag, bg]) leaf.grad = null
    })
  const each = (fn: () => void): number => Number(((timed(fn, options.seconds) * 1e3) / count).toFixed(4))
  const enqueued: number[] = []
  const quiet = each(() =>
    noGrad(() =>
      tidy(() => {
        const from = performance.now()
        adds(a, b)
        enqueued.push(((performance.now() - from) * 1e3) / count)
      }),
    ),
  )
  const row = {
    op: 'overhead_add_8',
    shape: '8',
    dtype: 'fp32',
    no_grad_us: quiet,
    grad_us: each(() => tidy(() => adds(ag, bg))),
    grad_with_backward_us: each(chain),
    enqueue_us: Number(enqueued.sort((x, y) => x - y)[enqueued.length >> 1]!.toFixed(4)),
  }
  console.log(JSON.stringify(row))
}

new Command('bench:ops')
  .description('Times single operators; one JSON line each, with the keys of bench/pytorch/ops.py.')
  .option('--only <text>', 'rows whose op contains the text', '')
  .option('--dtype <text>', 'rows whose dtype contains the text', '')
  .option('--seconds <s>', 'time for each measurement', positiveNumber, 0.6)
  .option('--threads <n>', 'kernel threads', wholeNumber, 2)
  .option('--json', 'accepted for symmetry; the output is always JSON lines')
  .action((given: Options) => {
    options = given
    setNumThreads(options.threads)
    random.seed(1)
    for (const part of [matrixProducts, layers, optimizers, overhead]) part()
  })
  .parse()
