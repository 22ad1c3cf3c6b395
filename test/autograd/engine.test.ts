import { describe, expect, it } from 'vitest'
import { ACCUMULATED, Node } from '../../lib/autograd/node'
import {
  arange,
  autograd,
  type DType,
  full,
  memory,
  nn,
  noGrad,
  ones,
  ops,
  StateError,
  type Tensor,
  tensor,
  tidy,
  zeros,
} from '../../lib/index'

const values = (x: Tensor | null): unknown => x?.arraySync()

describe('backward', () => {
  it('sums the gradients of a tensor that is used several times', () => {
    const x = tensor([1, 2, 3], { requiresGrad: true })
    const y = x.mul(x).add(x.mul(3)) // y' = 2x + 3
    y.backward({ gradient: ones([3]) })
    expect(values(x.grad)).toEqual([5, 7, 9])
  })

  it('accumulates into .grad over several passes', () => {
    const x = tensor([2], { requiresGrad: true })
    for (let i = 0; i < 3; i++) x.mul(5).backward()
    expect(values(x.grad)).toEqual([15])
  })

  it('gives separate memory to leaves that receive the same gradient', () => {
    const a = tensor([1], { requiresGrad: true })
    const b = tensor([1], { requiresGrad: true })
    a.add(b).backward()
    noGrad(() => a.grad?.add_(1))
    expect(values(a.grad)).toEqual([2])
    expect(values(b.grad)).toEqual([1])
  })

  // 2,100,001 floats are more than the 8 MB from which both copies are written around the caches, and no whole lines.
  it.each([[7], [2_100_001]])('copies a gradient for two leaves at once, each in its own dtype: %i elements', (n) => {
    const leaf = (dtype: DType): Tensor => zeros([n], { dtype, requiresGrad: true })
    for (const [one, other] of [
      ['float32', 'float32'],
      ['float32', 'float64'],
    ] as const) {
      const [a, b] = [leaf(one), leaf(other)]
      const gradient = arange(0, n)
      a.add(b).backward({ gradient: gradient.to(a.add(b).dtype) })
      for (const x of [a, b]) {
        expect(x.grad?.dtype).toBe(x.dtype)
        expect(x.grad?.eq(gradient).all().itemSync()).toBe(1)
      }
      noGrad(() => a.grad?.mul_(2))
      expect(b.grad?.eq(gradient).all().itemSync()).toBe(1)
    }
  })

  it('copies the gradient of a leaf that is both operands and adds it', () => {
    const [x, gradient] = [zeros([3], { requiresGrad: true }), tensor([1, 2, 3])]
    x.add(x).backward({ gradient })
    expect(values(x.grad)).toEqual([2, 4, 6])
    expect(values(gradient)).toEqual([1, 2, 3])
  })

  it('leaves the gradient that the caller passed alone', () => {
    const x = tensor([1, 2], { requiresGrad: true })
    const gradient = tensor([3, 4])
    x.add(0).backward({ gradient })
    expect(values(gradient)).toEqual([3, 4])
    x.grad?.add_(1)
    expect(values(gradient)).toEqual([3, 4])
  })

  it('reduces gradients of broadcast operands', () => {
    const row = tensor([1, 2, 3], { requiresGrad: true })
    zeros([4, 3])
      .add(row)
      .backward({ gradient: ones([4, 3]) })
    expect(values(row.grad)).toEqual([4, 4, 4])
  })

  it('walks a graph of 20,000 operations without recursion', () => {
    const x = tensor([1], { requiresGrad: true })
    let y = x.add(0)
    for (let i = 0; i < 20_000; i++) y = y.add(0)
    y.backward()
    expect(values(x.grad)).toEqual([1])
  })

  it('refuses a second pass unless the graph is retained', () => {
    const x = tensor([3], { requiresGrad: true })
    const once = x.mul(x)
    once.backward()
    expect(() => once.backward()).toThrow(
      'backward of mul: the graph was freed by an earlier backward(); pass { retainGraph: true } to the first one',
    )
    const twice = x.mul(x)
    twice.backward({ retainGraph: true })
    twice.backward()
    expect(values(x.grad)).toEqual([18])
  })

  it('refuses tensors of several elements without a gradient, and tensors outside of any graph', () => {
    const x = tensor([1, 2], { requiresGrad: true })
    expect(() => x.mul(2).backward()).toThrow('only a one-element tensor has an implicit gradient: got shape [2]')
    expect(() => tensor([1]).backward()).toThrow(StateError)
  })

  it('names a saved tensor that was changed in place', () => {
    const x = tensor([1, 2], { requiresGrad: true })
    const y = x.add(1)
    const z = y.mul(y)
    y.add_(1)
    expect(() => z.backward({ gradient: ones([2]) })).toThrow('changed in place after it was used')
  })

  it('refuses in-place changes of leaves while recording, and allows them in noGrad', () => {
    const x = tensor([1], { requiresGrad: true })
    expect(() => x.add_(1)).toThrow('a leaf that requires a gradient cannot be changed in place')
    noGrad(() => x.add_(1))
    expect(values(x)).toEqual([2])
  })

  it('records in-place operations on intermediate tensors', () => {
    const x = tensor([2], { requiresGrad: true })
    const y = x.mul(3)
    y.add_(x)
    y.backward()
    expect(values(x.grad)).toEqual([4])
  })

  it('releases the intermediate tensors of the loop but not its root', () => {
    const x = tensor([1, 2], { requiresGrad: true })
    const middle = x.mul(2)
    const kept = x.mul(3).keep()
    const root = middle.add(kept)
    root.backward({ gradient: ones([2]) })
    expect(() => middle.arraySync()).toThrow('was released by backward(); call .keep() on it before')
    expect(values(kept)).toEqual([3, 6])
    expect(values(root)).toEqual([5, 10])
  })

  it('leaves no native tensor behind', () => {
    const x = tensor([1, 2], { requiresGrad: true })
    const gradient = ones([2])
    const step = (): void =>
      tidy(() => {
        x.mul(x).add(x).mul(2).backward({ gradient })
      })
    step()
    const before = memory.tensors()
    for (let i = 0; i < 10; i++) step()
    expect(memory.tensors()).toBe(before)
  })

  it('runs hooks on leaves and on intermediate tensors, and honours what they return', () => {
    const x = tensor([1], { requiresGrad: true })
    const y = x.mul(2)
    const seen: unknown[] = []
    const remove = y.registerHook((g) => g.mul(10))
    x.registerHook((g) => void seen.push(values(g)))
    y.mul(3).backward()
    expect(seen).toEqual([[60]])
    remove()
    expect(values(x.grad)).toEqual([60])
  })

  it('shows the hooks of a leaf the sum of what its uses give, once', () => {
    const x = tensor([1], { requiresGrad: true })
    const seen: unknown[] = []
    x.registerHook((g) => {
      seen.push(values(g))
      return g.mul(10)
    })
    x.mul(2).add(x.mul(3)).backward()
    expect(seen).toEqual([[5]])
    expect(values(x.grad)).toEqual([50])
    const [direct] = autograd.grad([x.mul(2), x], x, { gradOutputs: [ones([1]), ones([1])] })
    expect(seen).toEqual([[5], [3]])
    expect(values(direct!)).toEqual([30])
  })

  it('refuses gradients of another shape, from a formula or a hook', () => {
    const x = ones([2, 3], { requiresGrad: true })
    const total = autograd.customFunction({ name: 'total', forward: (_, a: Tensor) => a.sum(), backward: (_, g) => g })
    expect(() => total(x).backward()).toThrow(
      'backward of total: gradient 0 does not fit its input: got [], expected [2, 3].',
    )
    const y = x.mul(2)
    y.registerHook((g) => g.sum())
    expect(() => y.sum().backward()).toThrow(
      'registerHook: the hook changed what the gradient is: got float32 [], expected float32 [2, 3].',
    )
    expect(x.grad).toBeNull()
  })

  it('keeps the gradient of an intermediate tensor on request', () => {
    const x = tensor([1], { requiresGrad: true })
    const y = x.mul(2).retainGrad()
    y.mul(3).backward()
    expect(values(y.grad)).toEqual([3])
  })

  it('lets a formula add into an existing gradient by itself', () => {
    const x = tensor([1], { requiresGrad: true })
    const pass = (): void => {
      const out = tensor([0])
      const node = new Node(
        'test',
        (context, g) => {
          const target = context.target(0)
          if (target === null) return g
          target.add_(g)
          return ACCUMULATED
        },
        [x],
        [],
      )
      node.outputs = [out]
      out._node = node
      out._requiresGrad = true
      out.backward()
    }
    pass()
    const first = x.grad
    pass()
    expect(x.grad).toBe(first)
    expect(values(x.grad)).toEqual([2])
  })
})

describe('views', () => {
  it('taken before a recorded in-place change of their base are refused, not differentiated wrongly', () => {
    const x = tensor([1, 2], { requiresGrad: true })
    const y = x.mul(1)
    const before = y.narrow(0, 0, 1)
    y.mul_(2)
    expect(() => before.sum()).toThrow(
      'sum: a view was taken before its base was changed in place: got a view of shape [1], expected one of the base as it is now; take the view again.',
    )
    expect(() => before.backward()).toThrow(StateError)
    y.narrow(0, 0, 1).sum().backward()
    expect(values(x.grad)).toEqual([2, 0])
  })

  it('may be used after changes that are not recorded', () => {
    const x = tensor([1, 2], { requiresGrad: true })
    const y = x.mul(1)
    const view = y.narrow(0, 0, 1)
    noGrad(() => y.add_(1))
    view.sum().backward()
    expect(values(x.grad)).toEqual([1, 0])
  })
})

describe('arguments', () => {
  const x = tensor([1, 2], { requiresGrad: true })

  it('of backward: a gradient also by place, as in PyTorch, and several roots', () => {
    x.grad = null
    x.mul(2).backward(tensor([1, 10]))
    expect(values(x.grad)).toEqual([2, 20])
    autograd.backward([x.sum(), x.mul(2)], { gradient: [null, tensor([1, 1])] })
    expect(values(x.grad)).toEqual([5, 23])
  })

  it('of the wrong kind are typed errors', () => {
    expect(() => x.sum().backward({ gradient: 1 as never })).toThrow('backward: the gradient is not a tensor: got 1')
    expect(() => x.sum().backward({ retain_graph: true } as never)).toThrow('write retainGraph.')
    expect(() => autograd.backward(5 as never)).toThrow('backward: root 0 is not a tensor: got 5, expected a Tensor.')
    expect(() => autograd.grad(3 as never, [x])).toThrow('grad: output 0 is not a tensor: got 3, expected a Tensor.')
    expect(() => autograd.grad(x.sum(), null as never)).toThrow('grad: input 0 is not a tensor: got null')
    expect(() => noGrad(3 as never)).toThrow('noGrad: not a function: got 3')
    expect(() => autograd.detectAnomaly(3 as never)).toThrow('detectAnomaly: not a function: got 3')
  })

  it('of grad: an input twice gives its gradient twice; there is no graph of gradients', () => {
    expect(autograd.grad(x.mul(3).sum(), [x, x]).map(values)).toEqual([
      [3, 3],
      [3, 3],
    ])
    expect(() => autograd.grad(x.sum(), x, { createGraph: true } as never)).toThrow(
      'grad: gradients cannot be differentiated again: got createGraph true',
    )
  })

  it('of gradcheck: one tensor or several, of which one requires a gradient', () => {
    const input = tensor([1, 2], { dtype: 'float64', requiresGrad: true })
    expect(autograd.gradcheck((y) => y.mul(y), input)).toBe(true)
    expect(() => autograd.gradcheck((y) => y.mul(y), [input.detach()])).toThrow(
      'gradcheck: no input requires a gradient',
    )
    expect(() => autograd.gradcheck(3 as never, [input])).toThrow('gradcheck: not a function: got 3')
  })
})

describe('detectAnomaly', () => {
  const bad = () => tensor([-1], { requiresGrad: true })

  it("names the user's line, however deep in the library the operation stands", () => {
    // twelve modules deep: more frames than a stack has by default
    let deep: nn.Module = new nn.Softmax(0)
    for (let i = 0; i < 12; i++) deep = new nn.Sequential(deep)
    const call = () => (deep.forward as (x: Tensor) => Tensor)(bad().mul(Number.POSITIVE_INFINITY))
    expect(() => autograd.detectAnomaly(call)).toThrow(/engine\.test\.ts:\d+/)
    const inf = tensor([Number.POSITIVE_INFINITY], { requiresGrad: true })
    expect(() => autograd.detectAnomaly(() => (deep.forward as (x: Tensor) => Tensor)(inf))).toThrow(
      /Sequential\.0\.0.* at .*engine\.test\.ts:\d+/,
    )
  })

  it('watches operations without a gradient, too: they may feed one that has', () => {
    expect(() => autograd.detectAnomaly(() => tensor([-1]).log())).toThrow('log: the forward pass made the first NaN')
    expect(() => noGrad(() => autograd.detectAnomaly(() => bad().log()))).toThrow(/^log: /)
    const large = tensor([3e38])
    expect(() => autograd.detectAnomaly(() => large.add(large))).toThrow(/^add: /)
  })

  it('blames who made it: not a mask of -Infinity, nor what only passes it on', () => {
    autograd.detectAnomaly(() => {
      const scores = ones([2, 2]).requiresGrad_()
      const causal = full([2, 2], Number.NEGATIVE_INFINITY).triu(1)
      scores.add(causal).softmax(-1).sum().backward()
      const hidden = ones([2, 2], { dtype: 'bool' }).triu(1)
      scores.maskedFill(hidden, Number.NEGATIVE_INFINITY).softmax(-1).sum().backward()
      ops.where(hidden, Number.NEGATIVE_INFINITY, scores).softmax(-1).sum().backward()
    })
    const row = () => ones([1, 2]).maskedFill(ones([1, 2], { dtype: 'bool' }), Number.NEGATIVE_INFINITY)
    expect(() => autograd.detectAnomaly(() => row().softmax(-1))).toThrow(/^softmax: /) // no key is left
  })

  it('says how to learn the line when only backward was watched', () => {
    const loss = tensor([0], { requiresGrad: true }).sqrt().mul(0).sum()
    expect(() => autograd.detectAnomaly(() => loss.backward())).toThrow(
      'run the forward pass inside detectAnomaly as well to learn its line.',
    )
  })
})

describe('grad', () => {
  it('returns gradients without touching .grad', () => {
    const x = tensor([3], { requiresGrad: true })
    const y = tensor([4], { requiresGrad: true })
    const middle = x.mul(y)
    const [gx, gm] = autograd.grad(middle.mul(2), [x, middle])
    expect([values(gx!), values(gm!), x.grad]).toEqual([[8], [2], null])
  })

  it('names an input that was not used', () => {
    const x = tensor([3], { requiresGrad: true })
    const unused = tensor([3], { requiresGrad: true })
    expect(() => autograd.grad(x.mul(2), [x, unused])).toThrow('input 1 was not used by the outputs')
    expect(autograd.grad(x.mul(2), [unused], { allowUnused: true })).toEqual([null])
  })
})

describe('noGrad', () => {
  it('records nothing inside and goes on outside, also around await', async () => {
    const x = tensor([1], { requiresGrad: true })
    const flags: boolean[] = []
    const inside = noGrad(async () => {
      await null
      flags.push(x.mul(2).requiresGrad)
      return autograd.enableGrad(() => x.mul(2).requiresGrad)
    })
    flags.push(x.mul(2).requiresGrad) // while the async function waits
    flags.push(await inside)
    flags.push(x.mul(2).requiresGrad)
    expect(flags).toEqual([true, false, true, true])
  })
})

describe('customFunction', () => {
  it('uses the given gradient', () => {
    const cube = autograd.customFunction({
      name: 'cube',
      forward: (context, x: Tensor) => {
        context.saveForBackward(x)
        return x.mul(x).mul(x)
      },
      backward: (context, g) => {
        const [x] = context.savedTensors as [Tensor]
        return g.mul(x.mul(x).mul(3))
      },
    })
    const x = tensor([2], { requiresGrad: true })
    const y = cube(x)
    expect(y.gradFn).toBe('cube')
    y.backward()
    expect(values(x.grad)).toEqual([12])
    const d = tensor([0.5, -1.5], { dtype: 'float64', requiresGrad: true })
    expect(autograd.gradcheck(cube, [d])).toBe(true)
  })

  it('is caught by gradcheck when its gradient is wrong', () => {
    const wrong = autograd.customFunction({ forward: (_, x: Tensor) => x.mul(x), backward: (_, g) => g })
    const x = tensor([2, 3], { dtype: 'float64', requiresGrad: true })
    expect(() => autograd.gradcheck(wrong, [x])).toThrow('the gradient of element 0 of input 0 is wrong')
    expect(x.arraySync()).toEqual([2, 3])
  })
})
