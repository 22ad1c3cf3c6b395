import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { io, nn, ops, optim, randn, random, type Tensor, tensor, zeros } from '../../lib/index'
import { dequantizeBlocks, quantizeBlocks } from '../../lib/ops/optim'

const block = 256

const numbers = async (x: Tensor): Promise<number[]> => Array.from((await x.data()) as Float32Array)

/** The 256 values of bitsandbytes' create_dynamic_map, in float64. */
function dynamicMap(signed: boolean): number[] {
  const values = [0, 1]
  for (let i = 0; i < 7; i++) {
    const items = signed ? 2 ** i : 2 ** (i + 1)
    for (let j = 0; j < items; j++) {
      const value = 10 ** (i - 6) * (0.1 + (0.9 * (j + 0.5)) / items)
      values.push(value)
      if (signed) values.push(-value)
    }
  }
  return values.sort((a, b) => a - b)
}

function nearest(map: readonly number[], share: number): number {
  let best = 0
  map.forEach((value, code) => {
    if (Math.abs(value - share) < Math.abs(map[best]! - share)) best = code
  })
  return best
}

/** Values of every order of magnitude, with zeros, ties of blocks and a last block that is not full. */
function awkward(n: number, signed: boolean): Float32Array {
  random.seed(3)
  return Float32Array.from({ length: n }, (_, i) => {
    if (i % 11 === 0 || (i >= 512 && i < 768)) return 0
    const magnitude = 10 ** (random.uniform() * 9 - 8) * (i >= 256 && i < 512 ? 1e-30 : 1)
    return signed && random.uniform() < 0.5 ? -magnitude : magnitude
  })
}

describe('8-bit quantization', () => {
  it.each([true, false])('rounds to the nearest of the dynamic map (signed: %s)', async (signed) => {
    const map = dynamicMap(signed)
    expect(map).toHaveLength(256)
    const values = awkward(3000 + 77, signed)
    const [codes, magnitudes] = quantizeBlocks(tensor(values), signed)
    const [got, scales] = [await codes.data(), await magnitudes.data()]
    const back = await numbers(dequantizeBlocks(codes, magnitudes, signed))
    expect(scales).toHaveLength(Math.ceil(values.length / block))
    for (let b = 0; b < scales.length; b++) {
      const own = values.slice(b * block, (b + 1) * block)
      const magnitude = Math.max(...own.map(Math.abs))
      expect(scales[b]).toBe(magnitude)
      own.forEach((value, i) => {
        const at = b * block + i
        const share = magnitude === 0 ? 0 : value / magnitude
        const code = nearest(map, share)
        const wanted = !signed && value > 0 && code === 0 ? 1 : code // a square that is not 0 stays so
        if (got[at] !== wanted) {
          // a tie but for the rounding of the share
          const [a, c] = [Math.abs(map[Number(got[at])]! - share), Math.abs(map[wanted]! - share)]
          expect(a - c).toBeLessThan(1e-7)
        }
        expect(Math.abs(back[at]! - value)).toBeLessThanOrEqual((signed ? 0.00704 : 0.00352) * magnitude)
      })
    }
  })

  it('keeps a block of zeros, and subnormals count as such', async () => {
    const x = tensor(new Float32Array(300).fill(1e-42))
    const [codes, magnitudes] = quantizeBlocks(x.mul(0), true)
    expect(new Set(await numbers(dequantizeBlocks(codes, magnitudes, true)))).toEqual(new Set([0]))
    const [c, m] = quantizeBlocks(x, true)
    for (const value of await numbers(dequantizeBlocks(c, m, true))) expect(Math.abs(value)).toBeLessThan(1e-41)
  })
})

/** What AdamW with 8-bit states does, one element at a time in float64. */
function reference(params: number[], gradients: number[][], options: { lr: number; weightDecay: number }): number[] {
  const [p, n] = [[...params], params.length]
  let [m, v] = [Array<number>(n).fill(0), Array<number>(n).fill(0)]
  const narrow = (values: number[], signed: boolean): number[] => {
    const map = dynamicMap(signed)
    return values.flatMap((_, i) => {
      if (i % block !== 0) return []
      const own = values.slice(i, i + block)
      const magnitude = Math.max(...own.map(Math.abs))
      return own.map((x) => {
        const code = nearest(map, magnitude === 0 ? 0 : x / magnitude)
        return map[!signed && x > 0 ? Math.max(1, code) : code]! * magnitude
      })
    })
  }
  gradients.forEach((g, step) => {
    const [c1, c2] = [1 - 0.9 ** (step + 1), 1 - 0.999 ** (step + 1)]
    for (let i = 0; i < n; i++) {
      m[i] = 0.9 * m[i]! + 0.1 * g[i]!
      v[i] = 0.999 * v[i]! + 0.001 * g[i]! ** 2
      p[i] = p[i]! * (1 - options.lr * options.weightDecay)
      p[i] = p[i]! - (options.lr * (m[i]! / c1)) / (Math.sqrt(v[i]! / c2) + 1e-8)
    }
    m = narrow(m, true)
    v = narrow(v, false)
  })
  return p
}

const large = (): Tensor => nn.parameter(randn([50, 90]))

async function steps(optimizer: optim.Optimizer, param: Tensor, from: number, to: number): Promise<void> {
  for (let step = from; step < to; step++) {
    random.seed(100 + step)
    param.grad = randn(param.shape).mul(0.1)
    optimizer.step()
  }
}

describe('AdamW with 8-bit states', () => {
  it('updates from what a float64 run with the same quantization has', async () => {
    random.seed(1)
    const [rows, cols, options] = [17, 256, { lr: 0.01, weightDecay: 0.1 }] as const // the last block is full
    const param = nn.parameter(randn([rows * cols - 100]))
    const start = await numbers(param)
    const optimizer = new optim.AdamW([param], { ...options, stateBits: 8 })
    const gradients: number[][] = []
    for (let step = 0; step < 4; step++) {
      const grad = randn(param.shape)
      gradients.push(await numbers(grad))
      param.grad = grad
      optimizer.step()
    }
    const expected = reference(start, gradients, options)
    const got = await numbers(param)
    const errors = got.map((x, i) => Math.abs(x - expected[i]!))
    // A value between two codes may round either way in float32; its neighbours must not notice.
    expect(errors.filter((each) => each > 1e-6).length).toBeLessThan(5)
    expect(Math.max(...errors)).toBeLessThan(1e-3)
  })

  it('keeps 2.03 bytes a parameter, and small, float64 and exempt tensors as they are', () => {
    const [a, b, c, d] = [
      large(),
      nn.parameter(zeros([4095])),
      nn.parameter(zeros([5000], { dtype: 'float64' })),
      large(),
    ]
    const optimizer = new optim.AdamW8bit([{ params: [a, b, c] }, { params: [d], stateBits: 32 }])
    for (const param of [a, b, c, d]) param.grad = zeros(param.shape, { dtype: param.dtype })
    optimizer.step()
    const dtypeOf = (param: Tensor): string => (optimizer.state.get(param)!.expAvgSq as Tensor).dtype
    expect([a, b, c, d].map(dtypeOf)).toEqual(['uint8', 'float32', 'float64', 'float32'])
    const bytes = Object.values(optimizer.state.get(a)!).map((each) => (each as Tensor).nbytes ?? 0)
    expect(bytes.reduce((x, y) => x + y) / a.numel).toBeCloseTo(2 + 8 / 256, 2)
  })

  it('steps 16-bit parameters with gradients of either width', async () => {
    for (const dtype of ['bfloat16', 'float16'] as const) {
      for (const gradDtype of [dtype, 'float32'] as const) {
        const param = nn.parameter(zeros([4099], { dtype }).add(1))
        param.grad = zeros([4099], { dtype: gradDtype }).add(0.5)
        new optim.AdamW8bit([param], { lr: 0.125, weightDecay: 0 }).step()
        expect(new Set(await numbers(param))).toEqual(new Set([0.875]))
      }
    }
  })

  it('continues to the bit from its state, and takes states of the other width', async () => {
    random.seed(2)
    const start = large()
    const run = async (restart: boolean): Promise<unknown> => {
      let param = nn.parameter(start.detach().clone())
      let optimizer: optim.Optimizer = new optim.AdamW8bit([param], { lr: 0.01 })
      await steps(optimizer, param, 0, 3)
      if (restart) {
        const state = optimizer.stateDict()
        param = nn.parameter(param.detach().clone())
        optimizer = new optim.AdamW8bit([param])
        optimizer.loadStateDict(state)
      }
      await steps(optimizer, param, 3, 6)
      return param.array()
    }
    expect(await run(true)).toEqual(await run(false))

    const wide = nn.parameter(start.detach().clone())
    const first = new optim.AdamW([wide], { lr: 0.01 })
    await steps(first, wide, 0, 3)
    const exact = (first.state.get(wide)!.expAvg as Tensor).clone()
    const dict = first.stateDict()
    for (const group of dict.paramGroups) delete group.stateBits // as PyTorch writes it
    const narrow = new optim.AdamW8bit([wide])
    narrow.loadStateDict(dict)
    await steps(narrow, wide, 3, 4)
    expect((narrow.state.get(wide)!.expAvg as Tensor).dtype).toBe('uint8')
    narrow.paramGroups[0]!.stateBits = 32
    wide.grad = zeros(wide.shape)
    narrow.step()
    const widened = narrow.state.get(wide)!.expAvg as Tensor
    expect(widened.dtype).toBe('float32')
    expect(widened.shape).toEqual(exact.shape)
    expect(Object.keys(narrow.state.get(wide)!)).toEqual(['step', 'expAvg', 'expAvgSq'])
  })

  it('refuses amsgrad, other widths and states that do not fit', () => {
    const param = large()
    expect(() => new optim.AdamW([param], { stateBits: 4 as never })).toThrow(
      'AdamW: no such state: got stateBits 4, expected 32, or 8 without amsgrad.',
    )
    expect(() => new optim.Adam([param], { stateBits: 8, amsgrad: true })).toThrow('got stateBits 8 with amsgrad')
    const optimizer = new optim.AdamW8bit([param])
    param.grad = zeros(param.shape)
    optimizer.step()
    const dict = optimizer.stateDict()
    const { expAvgScale: _, ...lacking } = dict.state[0]!
    expect(() => optimizer.loadStateDict({ ...dict, state: { 0: lacking } })).toThrow(
      'AdamW8bit.loadStateDict: the state of parameter 0 is not complete: got step, expAvg, expAvgSq, expAvgSqScale, expected also expAvgScale.',
    )
    const other = { ...dict.state[0]!, expAvgScale: zeros([3]) }
    expect(() => optimizer.loadStateDict({ ...dict, state: { 0: other } })).toThrow('state expAvgScale of parameter 0')
  })
})

describe('AdamW with 8-bit states in training', () => {
  let folder: string
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'gradus-8bit-'))
  })
  afterAll(() => rm(folder, { recursive: true }))

  class Mlp extends nn.Module {
    up = new nn.Linear(64, 128)
    down = new nn.Linear(128, 64)
    forward(x: Tensor): Tensor {
      return this.down.forward(ops.gelu(this.up.forward(x)))
    }
  }

  async function train(model: Mlp, optimizer: optim.Optimizer, from: number, to: number): Promise<number> {
    let loss = Number.NaN
    for (let step = from; step < to; step++) {
      random.seed(1000 + step)
      const x = randn([64, 64])
      optimizer.zeroGrad()
      const error = ops.mseLoss(model.forward(x), x.cumsum(1).mul(0.2))
      error.backward()
      optimizer.step({ maxNorm: 1 })
      loss = await error.item()
    }
    return loss
  }

  it('reaches the loss of 32-bit AdamW within 2 %', async () => {
    const losses: number[] = []
    for (const stateBits of [32, 8] as const) {
      random.seed(1)
      const model = new Mlp()
      losses.push(await train(model, new optim.AdamW(model.parameters(), { lr: 3e-3, stateBits }), 0, 200))
    }
    const [wide, narrow] = losses as [number, number]
    expect(wide).toBeLessThan(0.1)
    expect(narrow / wide).toBeLessThan(1.02)
  })

  it('resumes from a checkpoint with the same bits', async () => {
    random.seed(1)
    const model = new Mlp()
    const optimizer = new optim.AdamW8bit(model.parameters(), { lr: 3e-3 })
    await train(model, optimizer, 0, 5)
    await io.saveCheckpoint(folder, { model, optimizer }, { step: 5 })
    await train(model, optimizer, 5, 8)
    const resumed = new Mlp()
    const other = new optim.AdamW8bit(resumed.parameters())
    await io.loadCheckpoint(folder, { model: resumed, optimizer: other })
    await train(resumed, other, 5, 8)
    for (const [i, param] of resumed.parameters().entries()) {
      expect(await param.array()).toEqual(await model.parameters()[i]!.array())
    }
  })
})
