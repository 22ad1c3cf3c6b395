// What a late error, found when the device gets there, and an error in user code leave behind.
import { describe, expect, it } from 'vitest'
import { type Backward, Node } from '../../lib/autograd/node'
import {
  autograd,
  enableGrad,
  full,
  memory,
  noGrad,
  ones,
  ops,
  optim,
  type Tensor,
  tensor,
  tidy,
  zeros,
} from '../../lib/index'

const values = (x: Tensor | null | undefined): unknown => x?.arraySync()
const table = (): Tensor => ones([3, 2]).requiresGrad_()
const outOfRange = (w: Tensor): Tensor => ops.embedding(tensor([7], { dtype: 'int64' }), w).sum()

describe('a late error', () => {
  it('in one micro-batch stops the step: its gradient lacks a part', async () => {
    const w = table()
    const optimizer = new optim.SGD([w], { lr: 1 })
    ops
      .embedding(tensor([0, 1], { dtype: 'int64' }), w)
      .sum()
      .backward()
    outOfRange(w).backward()
    optimizer.step()
    await expect(w.grad!.array()).rejects.toThrow('index')
    expect(values(w)).toEqual([
      [1, 1],
      [1, 1],
      [1, 1],
    ])
    optimizer.zeroGrad()
    w.sum().backward()
    optimizer.step()
    expect(values(w.select(0, 0))).toEqual([0, 0])
  })

  it('that nothing reads is thrown by the next wait, once, whatever that reads', async () => {
    const w = table()
    const healthy = ones([2])
    outOfRange(w).backward()
    new optim.SGD([w], { lr: 1 }).step()
    await expect(healthy.array()).rejects.toThrow('index')
    expect(values(healthy)).toEqual([1, 1])
    expect(values(w)).toEqual(values(ones([3, 2])))
  })

  it('in a gradient is over once it is filled with zeros', async () => {
    const w = table()
    outOfRange(w).backward()
    await expect(w.grad!.array()).rejects.toThrow('index')
    new optim.SGD([w], { lr: 1 }).zeroGrad({ setToNone: false })
    w.sum().backward()
    expect(values(w.grad)).toEqual(values(ones([3, 2])))
  })

  it.each(['groups', 'more parameters than one call takes'])(
    'in one gradient stops the whole step: %s',
    async (kind) => {
      const others = Array.from({ length: kind === 'groups' ? 1 : 600 }, () => ones([2], { requiresGrad: true }))
      const w = table()
      const optimizer =
        kind === 'groups'
          ? new optim.AdamW([{ params: others }, { params: [w], weightDecay: 0 }], { lr: 1 })
          : new optim.AdamW([...others, w], { lr: 1 })
      for (const other of others) other.sum().backward()
      outOfRange(w).backward()
      optimizer.step()
      await expect(w.grad!.array()).rejects.toThrow('index')
      for (const other of others) expect(values(other)).toEqual([1, 1])
      expect(values(w)).toEqual(values(ones([3, 2])))
      w.grad = null
      w.sum().backward()
      optimizer.step()
      for (const changed of [...others, w]) expect(values(changed)).not.toEqual(values(ones(changed.shape)))
    },
  )
})

describe('a late error in one of several calls of an update stops them all', () => {
  // wide and narrow states, and parameters whose counts of steps differ, are calls of their own
  it.each(['states of 8 and 32 bits', 'a first gradient later'])('%s', async (kind) => {
    const [table8, other] = [ones([2048, 2]).requiresGrad_(), ones([2]).requiresGrad_()]
    const optimizer = new optim.AdamW([table8, other], { lr: 1, stateBits: kind.startsWith('states') ? 8 : 32 })
    if (kind === 'a first gradient later') {
      table8.sum().backward()
      optimizer.step()
    }
    const before = [values(table8), values(other)]
    outOfRange(table8).backward()
    if (kind.startsWith('states')) table8.grad = null
    const failing = kind.startsWith('states') ? table8 : other
    failing.grad = null
    ops
      .embedding(tensor([1 << 20], { dtype: 'int64' }), kind.startsWith('states') ? table8 : other.reshape([1, 2]))
      .sum()
      .backward()
    const whole = kind.startsWith('states') ? other : table8
    whole.grad = null
    whole.sum().backward()
    optimizer.step()
    await expect(failing.grad!.array()).rejects.toThrow('index')
    expect([values(table8), values(other)]).toEqual(before)
  })
})

describe('hooks of the gradient', () => {
  it('may write into what they are handed: other leaves keep theirs', () => {
    const [a, b] = [zeros([2], { requiresGrad: true }), zeros([2], { requiresGrad: true })]
    b.registerHook((g) => g.mul_(0))
    a.add(b).backward({ gradient: full([2], 3) })
    expect(values(a.grad)).toEqual([3, 3])
    expect(values(b.grad)).toEqual([0, 0])
  })

  it('may remove themselves: the next one still runs', () => {
    for (const of of [(x: Tensor) => x, (x: Tensor) => x.mul(1)]) {
      const x = tensor([1], { requiresGrad: true })
      const y = of(x)
      const handle = y.registerHook(() => handle.remove())
      y.registerHook((g) => g.mul(3))
      y.mul(1).sum().backward()
      expect(values(x.grad)).toEqual([3])
    }
  })

  it('that throw leave the tensors of others alone', () => {
    const x = tensor([1], { requiresGrad: true })
    const mine = tensor([5])
    const y = x.mul(1)
    y.registerHook(() => mine)
    x.registerHook(() => {
      throw new Error('mine')
    })
    expect(() => y.sum().backward()).toThrow('mine')
    expect(values(mine)).toEqual([5])
  })
})

describe('several passes', () => {
  it('add up where retainGrad asks for the gradient', () => {
    const x = tensor([1], { requiresGrad: true })
    const y = x.mul(1)
    y.retainGrad()
    y.mul(1).sum().backward({ retainGraph: true })
    y.mul(3).sum().backward({ retainGraph: true })
    expect(values(y.grad)).toEqual([4])
  })

  it('one inside another leave the outer one its sums', () => {
    const w = tensor([2], { requiresGrad: true })
    const x = tensor([1], { requiresGrad: true })
    x.grad = tensor([10])
    const y = x.mul(1)
    y.registerHook(() => enableGrad(() => w.mul(2).backward()))
    let target: Tensor | null = null
    const seen: Backward = (context, g) => {
      target = context.target(0)
      return g
    }
    const node = new Node('test', seen, [x], [])
    node.outputs = [y]
    y._node = node
    y.backward()
    expect(target).toBe(x.grad)
    expect(values(x.grad)).toEqual([11])
    expect(values(w.grad)).toEqual([2])
  })

  it('ask for one gradient an output', () => {
    const x = tensor([1, 2], { requiresGrad: true })
    const [a, b] = [x.mul(2), x.mul(3)]
    expect(() => autograd.backward([a, b], { gradient: [ones([2])] as never })).toThrow('number of gradients')
    expect(() => autograd.grad([a, b], x, { gradOutputs: ones([2]) })).toThrow('number of gradOutputs')
  })
})

describe('autograd.grad', () => {
  it('holds one sum for an input that is used often', async () => {
    const x = ones([1 << 18], { requiresGrad: true })
    const y = tidy(() => {
      let sum = x.mul(1)
      for (let i = 0; i < 16; i++) sum = sum.add(x)
      return sum
    })
    const gradient = ones([1 << 18])
    await x.array()
    const before = memory.allocated()
    const [g] = autograd.grad(y, x, { gradOutputs: gradient })
    expect(values(g!.slice(0, 0, 2))).toEqual([17, 17])
    expect(memory.allocated() - before).toBeLessThan(2.5 * 4 * (1 << 18))
    expect(noGrad(() => gradient.sum().itemSync())).toBe(1 << 18)
  })
})
