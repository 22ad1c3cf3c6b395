import { describe, expect, it } from 'vitest'
import { amp, type DType, ops, type Tensor, tensor, zeros } from '../../lib/index'
import { logitChunkBytes } from '../../lib/ops/crossEntropy'
import { native, type Output, runMany } from '../../lib/ops/registry'
import { expectClose } from '../support/golden'

const lossOp = native(
  'linearCrossEntropy',
  'ignoreIndex,labelSmoothing,reduction,gradients,skipIgnored,products,chunkBytes',
)

// A linear congruence: the same values everywhere, without the library's own generator.
function filled([rows, columns]: readonly [number, number], seed: number, scale = 1): Tensor {
  let state = seed * 7919 + 1
  const values = Array.from({ length: rows * columns }, () => {
    state = (state * 48271) % 2147483647
    return (state / 1073741823.5 - 1) * scale
  })
  return tensor(values, { dtype: 'float64' }).view(rows, columns)
}

const leaf = (x: Tensor, dtype: DType): Tensor => x.to(dtype).detach().requiresGrad_()

/** Targets of which every `ignored`th is to be ignored; 0: none. */
const classes = (rows: number, of: number, ignored: number): Tensor =>
  tensor(
    Array.from({ length: rows }, (_, i) => (ignored > 0 && i % ignored === 1 ? -100 : (i * 7 + 3) % of)),
    { dtype: 'int64' },
  )

/** || a - b || / || b || */
async function distance(a: Tensor, b: Tensor): Promise<number> {
  const exact = b.to('float64')
  return a.to('float64').sub(exact).pow(2).sum().sqrt().div(exact.pow(2).sum().sqrt()).item()
}

describe('linearCrossEntropy in chunks', () => {
  const [N, K, C] = [67, 24, 301]
  const bytes = { float64: 8, float32: 4, bfloat16: 2, float16: 4 } as const
  // Of losses and gradients against float64 on the same operands: what rounding the logits and each result once gives.
  const allowed = { float64: 1e-14, float32: 1e-6, bfloat16: 6e-3, float16: 1e-3 } as const

  it.each(Object.keys(bytes) as (keyof typeof bytes)[])('%s: is what it is whole, and right', async (dtype) => {
    for (const ignored of [0, 3]) {
      for (const reduction of ['mean', 'sum'] as const) {
        const target = classes(N, C, ignored)
        const run = async (chunkBytes?: number) => {
          const [x, weight] = [leaf(filled([N, K], 1), dtype), leaf(filled([C, K], 2), dtype)]
          const options = { reduction, labelSmoothing: 0.1, ...(chunkBytes && { chunkBytes }) }
          const loss = ops.linearCrossEntropy(x, weight, target, options)
          loss.backward()
          expect([x.grad!.dtype, weight.grad!.dtype]).toEqual([dtype, dtype])
          return { loss: await loss.item(), x, weight }
        }
        const whole = await run()
        const [x, weight] = [whole.x, whole.weight].map((each) => leaf(each, 'float64')) as [Tensor, Tensor]
        const exact = ops.crossEntropy(ops.linear(x, weight), target, { reduction, labelSmoothing: 0.1 })
        exact.backward()
        const one = C * bytes[dtype]
        // two chunks, five, a row each, and less than a row, which is a row
        for (const chunkBytes of [one * 40, one * 14, one, 1]) {
          const pieces = await run(chunkBytes)
          expect(Math.abs(pieces.loss / (await exact.item()) - 1)).toBeLessThan(allowed[dtype])
          for (const name of ['x', 'weight'] as const) {
            const of = { x, weight }[name].grad!
            expect(await distance(pieces[name].grad!, of)).toBeLessThan(allowed[dtype])
            // sums of rows in another order, rounded once to 16 bits
            expect(await distance(pieces[name].grad!, whole[name].grad!)).toBeLessThan(allowed[dtype])
          }
        }
      }
    }
  })

  it('bfloat16: sums up over blocks of classes', async () => {
    const [rows, of] = [45, 2 * 896 + 209] // three blocks, an odd number of classes
    const labels = Array.from({ length: rows }, (_, i) => (i % 4 === 1 ? -100 : (i * 517 + of - 1) % of))
    const target = tensor(labels, { dtype: 'int64' })
    // weights of another scale in every block, so that one block's cannot stand for another's
    const classWeight = tensor(
      Array.from({ length: of }, (_, i) => (1 + (i % 7) / 7) * 4 ** Math.floor(i / 672)),
      { dtype: 'float64' },
    )
    const leaves = [filled([rows, K], 1), filled([of, K], 2)].map((each) => leaf(each.to('bfloat16'), 'float64'))
    const [a, b] = leaves as [Tensor, Tensor]
    const options = { labelSmoothing: 0.5 }
    const exact = ops.crossEntropy(ops.linear(a, b), target, { ...options, weight: classWeight })
    exact.backward()
    for (const skipIgnored of [true, false]) {
      for (const chunkBytes of [undefined, of * 2 * 20]) {
        for (const inputs of ['bfloat16', 'float32'] as const) {
          const [x, weight] = [leaf(a.detach(), inputs), leaf(b.detach(), inputs)]
          const loss = amp.autocast({ dtype: 'bfloat16' }, () =>
            ops.linearCrossEntropy(x, weight, target, {
              ...options,
              skipIgnored,
              classWeight: classWeight.to(inputs),
              ...(chunkBytes && { chunkBytes }),
            }),
          )
          loss.backward()
          expect(Math.abs((await loss.item()) / (await exact.item()) - 1)).toBeLessThan(allowed.bfloat16)
          expect(await distance(x.grad!, a.grad!)).toBeLessThan(allowed.bfloat16)
          expect(await distance(weight.grad!, b.grad!)).toBeLessThan(allowed.bfloat16)
        }
      }
    }
  })

  it('reads rows of x as they lie, gathered or not', async () => {
    const target = classes(N, C, 5)
    const weight = filled([C, K], 2)
    const grads: Tensor[] = []
    for (const x of [filled([N, K], 1), filled([N, K], 1).t().contiguous().t()]) {
      const own = x.requiresGrad_()
      ops.linearCrossEntropy(own, weight, target, { chunkBytes: C * 8 * 10 }).backward()
      grads.push(own.grad!)
    }
    await expectClose(grads[0]!, grads[1]!, { rtol: 1e-12, atol: 1e-16 })
    const rows = (await grads[0]!.array()) as number[][]
    expect(rows.map((row) => row.every((value) => value === 0))).toEqual(rows.map((_, i) => i % 5 === 1))
  })

  it('adds up in mixed dtypes', async () => {
    const target = classes(N, C, 4)
    const [x, weight] = [leaf(filled([N, K], 1), 'float32'), leaf(filled([C, K], 2), 'bfloat16')]
    const run = (chunkBytes: number): Tensor =>
      amp.autocast(() => ops.linearCrossEntropy(x, weight, target, { chunkBytes }))
    run(C * 2 * 20).backward()
    const [a, b] = [leaf(x.detach().to('bfloat16'), 'float64'), leaf(weight, 'float64')]
    ops.crossEntropy(ops.linear(a, b), target).backward()
    expect(weight.grad!.dtype).toBe('bfloat16')
    expect(await distance(x.grad!, a.grad!)).toBeLessThan(allowed.bfloat16)
    expect(await distance(weight.grad!, b.grad!)).toBeLessThan(allowed.bfloat16)
  })

  it('refuses targets of another shape than the rows, whatever their number', () => {
    const x = zeros([3, 2, 4])
    const target = zeros([2, 3], { dtype: 'int64' })
    expect(() => ops.linearCrossEntropy(x, zeros([5, 4]), target)).toThrow(
      'x and target do not fit: got x [3, 2, 4] and target [2, 3]',
    )
    expect(ops.linearCrossEntropy(x, zeros([5, 4]), zeros([6], { dtype: 'int64' })).itemSync()).toBeCloseTo(
      Math.log(5),
      6,
    )
    expect(() => ops.linearCrossEntropy(zeros([3, 0]), zeros([5, 0]), zeros([7], { dtype: 'int64' }))).toThrow(
      'do not fit',
    )
  })

  it('lets backward pass once, and says so', async () => {
    const [x, weight] = [leaf(filled([2, 3], 1), 'float32'), leaf(filled([4, 3], 2), 'float32')]
    const loss = ops.linearCrossEntropy(x, weight, classes(2, 4, 0))
    loss.backward({ retainGraph: true })
    const first = await x.grad!.array()
    expect(() => loss.backward({ retainGraph: true })).toThrow(
      'backward of linearCrossEntropy: backward can pass once through it: its gradients were made along with the loss, and the first pass took them; use linear and crossEntropy to pass again.',
    )
    expect(await x.grad!.array()).toEqual(first)
  })

  it('refuses what is no size', () => {
    for (const chunkBytes of [0, -1, 1.5, Number.NaN]) {
      expect(() =>
        ops.linearCrossEntropy(filled([2, 3], 1), filled([4, 3], 2), classes(2, 4, 0), { chunkBytes }),
      ).toThrow(`linearCrossEntropy: chunkBytes is not a size: got ${chunkBytes}`)
    }
  })

  it('leaves the default to JavaScript: the kernel takes no 0 for one', () => {
    const operands = [filled([2, 3], 1), filled([4, 3], 2), classes(2, 4, 0)]
    const scalar: Output = [[], operands[0]!._dtype]
    const empty: Output = [[0], operands[0]!._dtype]
    const run = (chunkBytes: number): Tensor[] =>
      runMany(lossOp, operands, [scalar, scalar, empty, empty], [-100, 0, 1, 0, 1, 0, chunkBytes])
    expect(() => run(0)).toThrow('linearCrossEntropy: chunkBytes must be at least 1')
    const [loss] = run(logitChunkBytes)
    expect(loss!.itemSync()).toBe(ops.linearCrossEntropy(...(operands as [Tensor, Tensor, Tensor])).itemSync())
  })
})

describe('linearCrossEntropy under a loss scale', () => {
  // By themselves the gradients of a mean over many rows are subnormal in float16, or 0.
  const [N, K, C] = [4096, 32, 256]
  const scale = 65_536

  it.each([
    ['float16', 'float16', 6e-4],
    ['float16', 'float32', 6e-4],
    ['bfloat16', 'bfloat16', 6e-3],
    ['bfloat16', 'float32', 6e-3],
  ] as const)('%s, weights in %s: gradients are rounded after it', async (dtype, weights, allowed) => {
    const target = classes(N, C, 9)
    const [x, weight] = [leaf(filled([N, K], 1), dtype), leaf(filled([C, K], 2, 0.04), weights)]
    const loss = amp.autocast({ dtype }, () => ops.linearCrossEntropy(x, weight, target))
    loss.mul(scale).backward()
    const [a, b] = [leaf(x, 'float64'), leaf(weight.detach().to(dtype), 'float64')]
    ops.crossEntropy(ops.linear(a, b), target).mul(scale).backward()
    expect(await distance(x.grad!, a.grad!)).toBeLessThan(allowed)
    expect(await distance(weight.grad!, b.grad!)).toBeLessThan(allowed)
    const zeros = async (grad: Tensor): Promise<number> => grad.eq(0).sum().item() as Promise<number>
    expect((await zeros(x.grad!)) / (N * K)).toBeLessThan(1 / 9 + 1e-3) // those of ignored rows
  })
})
