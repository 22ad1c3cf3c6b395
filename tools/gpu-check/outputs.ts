// Results of operators, their gradients and a short training on cuda, from inputs that are the same everywhere:
// tsx outputs.ts [file]. Without a file nothing is kept: for compute-sanitizer.

import {
  type DType,
  fromTypedArray,
  io,
  isFloatingPoint,
  nn,
  noGrad,
  ops,
  optim,
  setDefaultDevice,
  type Tensor,
} from 'gradus'

const results: Record<string, Tensor> = {}
const floats = ['float32', 'float16', 'bfloat16'] as const

/** Numbers in [-1, 1), or whole ones below the limit. */
function data(shape: readonly number[], dtype: DType, seed: number, limit = 2): Tensor {
  let state = seed * 7919
  const numbers = Float64Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return isFloatingPoint(dtype) ? state / 2 ** 31 - 1 : Math.floor(state / (2 ** 32 / limit))
  })
  return fromTypedArray(numbers)
    .to(dtype)
    .view(...shape)
    .to('cuda')
}

/** Keeps f of operands, and the gradient of the sum of its squares by each floating one. */
function keep(name: string, operands: readonly Tensor[], f: (...operands: Tensor[]) => Tensor): void {
  const leaves = operands.map((x) => (isFloatingPoint(x.dtype) ? x.requiresGrad_() : x))
  const y = f(...leaves)
  results[name] = y.detach()
  if (!y.requiresGrad) return
  y.square().sum().backward()
  leaves.forEach((x, i) => {
    if (x.grad !== null) results[`${name}, gradient ${i}`] = x.grad
  })
}

function operators(dtype: DType): void {
  const of = (name: string): string => `${name} ${dtype}`
  const x = (seed: number, ...shape: number[]): Tensor => data(shape, dtype, seed)
  keep(of('add'), [x(1, 37, 24), x(2, 24)], (a, b) => a.add(b))
  for (const name of ['exp', 'tanh', 'sigmoid', 'silu', 'gelu'] as const) {
    keep(of(name), [x(3, 1021)], (a) => ops[name](a))
  }
  keep(of('matmul'), [x(4, 129, 70), x(5, 70, 65)], (a, b) => a.matmul(b))
  keep(of('matmul in ranges'), [x(6, 32, 2048), x(7, 2048, 32)], (a, b) => a.matmul(b))
  keep(of('linear'), [x(8, 50, 64), x(9, 96, 64), x(10, 96)], (a, w, b) => ops.linear(a, w, b))
  for (const D of [32, 64, 80, 128, 200]) {
    const qkv = [11, 12, 13].map((seed) => x(seed, 1, 2, 70, D))
    keep(of(`attention of ${D} features`), qkv, (q, k, v) =>
      ops.scaledDotProductAttention(q!, k!, v!, { isCausal: true }),
    )
  }
  keep(of('softmax'), [x(14, 33, 1000)], (a) => ops.softmax(a))
  keep(of('logSoftmax over columns'), [x(15, 33, 40)], (a) => ops.logSoftmax(a, 0))
  keep(of('layerNorm'), [x(16, 40, 768), x(17, 768), x(18, 768)], (a, w, b) => ops.layerNorm(a, [768], w, b))
  keep(of('rmsNorm'), [x(19, 40, 768), x(20, 768)], (a, w) => ops.rmsNorm(a, [768], w))
  keep(of('sum'), [x(21, 64, 2048)], (a) => a.sum(1))
  keep(of('embedding'), [data([90], 'int64', 22, 50), x(23, 50, 64)], (index, w) => ops.embedding(index, w))
  keep(of('cross entropy'), [x(24, 64, 1000), data([64], 'int64', 25, 1000)], (a, t) => ops.crossEntropy(a, t))
}

/** Losses of a small classifier under AdamW. */
function training(): void {
  const model = new nn.Sequential(new nn.Linear(32, 64), new nn.GELU(), new nn.Linear(64, 10))
  let seed = 100
  noGrad(() => {
    for (const parameter of model.parameters())
      parameter.zero_().add_(data(parameter.shape, 'float32', seed++), { alpha: 0.2 })
  })
  const optimizer = new optim.AdamW(model.parameters(), { lr: 1e-2 })
  const [x, target] = [data([128, 32], 'float32', 30), data([128], 'int64', 31, 10)]
  const losses = Array.from({ length: 20 }, () => {
    optimizer.zeroGrad()
    const loss = ops.crossEntropy(model.forward(x), target)
    loss.backward()
    optimizer.step()
    return loss.detach()
  })
  results.training = ops.stack(losses)
}

async function main(): Promise<void> {
  setDefaultDevice('cuda')
  for (const dtype of floats) operators(dtype)
  training()
  const file = process.argv[2]
  const onHost = Object.entries(results).map(([name, x]): [string, Tensor] => [name, x.to('cpu')])
  if (file !== undefined) await io.saveFile(Object.fromEntries(onHost), file)
}

main().catch((error: unknown) => {
  console.error(error)
  process.exitCode = 1
})
