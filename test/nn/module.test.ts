import { describe, expect, it } from 'vitest'
import { memory, nn, noGrad, ones, type Tensor, tensor, zeros } from '../../lib/index'

class Scale extends nn.Module {
  weight: Tensor
  constructor(size: number) {
    super()
    this.weight = nn.parameter(ones([size]))
  }
  forward(x: Tensor): Tensor {
    const unused = x.mul(3) // released when the call returns
    unused.add(1)
    return x.mul(this.weight).add(0)
  }
}

class Pair extends nn.Module {
  first = new Scale(2)
  second = new Scale(2)
  cache: Tensor | null = null
  forward(x: Tensor): { out: Tensor; list: Tensor[] } {
    const middle = this.first.forward(x)
    this.cache = middle.mul(2)
    return { out: this.second.forward(middle), list: [middle] }
  }
}

describe('Module', () => {
  it('finds parameters and submodules in class fields, with their paths', () => {
    const pair = new Pair()
    expect(pair.namedParameters().map(([name]) => name)).toEqual(['first.weight', 'second.weight'])
    expect(pair.namedModules().map(([name]) => name)).toEqual(['', 'first', 'second'])
    expect(pair.numParameters()).toBe(4)
  })

  it('counts and lists a tied parameter once but saves it under both names', () => {
    const pair = new Pair()
    pair.second.weight = pair.first.weight
    expect(pair.parameters()).toHaveLength(1)
    expect(Object.keys(pair.stateDict())).toEqual(['first.weight', 'second.weight'])
  })

  it('releases what a call makes, but not its result nor what it stores in its fields', () => {
    const pair = new Pair()
    const x = tensor([1, 2])
    noGrad(() => pair.forward(x))
    const before = memory.tensors()
    const { out, list } = noGrad(() => pair.forward(x))
    expect(memory.tensors()).toBe(before + 3) // out, list[0] and a new cache; the old cache waits for the collector
    expect(out.arraySync()).toEqual([1, 2])
    expect(list[0]?.arraySync()).toEqual([1, 2])
    expect(pair.cache?.arraySync()).toEqual([2, 4])
  })

  it('keeps what it stores in its fields through backward, too', () => {
    const pair = new Pair()
    const { out } = pair.forward(tensor([1, 2]))
    pair.cache?.sum().backward({ retainGraph: true })
    out.sum().backward()
    expect(pair.cache?.arraySync()).toEqual([2, 4])
  })

  it('keeps what backward needs and frees it as backward passes', () => {
    const pair = new Pair()
    const x = tensor([1, 2])
    const step = (): void => {
      const { out, list } = pair.forward(x)
      out.backward({ gradient: ones([2]) })
      out.dispose()
      list[0]?.dispose()
      pair.cache?.dispose()
      pair.zeroGrad()
    }
    step()
    const before = memory.tensors()
    for (let i = 0; i < 5; i++) step()
    expect(memory.tensors()).toBeLessThanOrEqual(before + 5) // the gradients `ones`
  })

  it('leaves outputs of the outermost call readable after backward', () => {
    const scale = new Scale(2)
    const logits = scale.forward(tensor([1, 2]))
    const loss = logits.mul(logits)
    loss.backward({ gradient: ones([2]) })
    expect(logits.arraySync()).toEqual([1, 2])
    expect(scale.weight.grad?.arraySync()).toEqual([2, 8])
  })

  it('says where a tensor was released', () => {
    let leaked: Tensor | undefined
    class Leaky extends nn.Module {
      forward(x: Tensor): Tensor {
        leaked = x.mul(2)
        return x.add(1)
      }
    }
    new Leaky().forward(ones([2]))
    expect(() => leaked?.add(1)).toThrow('was released by Leaky.forward; call .keep() on it before, or return it')
  })

  it('keeps the scope of an async forward open until it settles', async () => {
    class Slow extends nn.Module {
      async forward(x: Tensor): Promise<Tensor> {
        const y = x.mul(2)
        await null
        return y.add(1)
      }
    }
    expect(await (await new Slow().forward(ones([1]))).array()).toEqual([3])
  })

  it('refuses a forward that is a class field', () => {
    class Escaped extends nn.Module {
      override forward = (x: Tensor): Tensor => x
    }
    expect(() => new Escaped().parameters()).toThrow('forward is a class field')
  })

  it('names the module in errors', () => {
    const pair = new Pair()
    try {
      pair.forward(ones([3]))
      expect.unreachable()
    } catch (error) {
      expect((error as { modulePath?: string }).modulePath).toBe('Pair.first')
    }
  })

  it('runs hooks, and what they are handed outlives the call', () => {
    const scale = new Scale(1)
    const seen: Tensor[] = []
    const remove = scale.registerForwardHook((_, inputs, output) => {
      seen.push(inputs[0] as Tensor, output as Tensor)
      return (output as Tensor).mul(10)
    })
    scale.registerForwardPreHook((_, [x]) => [(x as Tensor).add(1)])
    const grads: unknown[] = []
    scale.registerBackwardHook((_, g) => void grads.push(g.arraySync()))
    const y = scale.forward(tensor([1]))
    expect(y.arraySync()).toEqual([20])
    expect(seen.map((each) => each.arraySync())).toEqual([[2], [2]])
    y.backward()
    expect(grads).toEqual([[1]])
    remove()
    expect(scale.forward(tensor([1])).arraySync()).toEqual([2])
  })

  it('loads a state only when all of it fits', () => {
    const pair = new Pair()
    const bad = { 'first.weight': zeros([2]), 'second.weight': zeros([3]) }
    expect(() => pair.loadStateDict(bad)).toThrow('second.weight has another shape: got [3], expected [2]')
    expect(pair.first.weight.arraySync()).toEqual([1, 1])
    expect(() => pair.loadStateDict({ 'first.weight': zeros([2]), other: zeros([1]) })).toThrow(
      'missing ["second.weight"], unexpected ["other"]',
    )
    expect(pair.loadStateDict({ 'first.weight': tensor([5, 6]) }, { strict: false }).missingKeys).toEqual([
      'second.weight',
    ])
    expect(pair.first.weight.arraySync()).toEqual([5, 6])
  })

  it('changes dtype in place, so that holders of the parameters follow', () => {
    const scale = new Scale(2)
    const held = scale.weight
    scale.to('float64')
    expect(held).toBe(scale.weight)
    expect(held.dtype).toBe('float64')
    expect(held.arraySync()).toEqual([1, 1])
  })

  it('prints its tree with parameter counts', () => {
    expect(String(new Pair())).toBe(
      'Pair()  # 4 parameters\n  (first): Scale()  # 2 parameters\n  (second): Scale()  # 2 parameters',
    )
  })
})

describe('Module refuses what it would not find', () => {
  const inField = (field: unknown) =>
    class Holder extends nn.Module {
      layers = field
      forward(x: Tensor): Tensor {
        return x
      }
    }

  it('modules and parameters in arrays, maps and objects', () => {
    for (const [field, kind] of [
      [[new Scale(2)], 'an array'],
      [new Map([['a', new Scale(2)]]), 'a Map'],
      [{ a: new Scale(2) }, 'an object'],
      [[[new Scale(2)]], 'an array'],
    ]) {
      const holder = new (inField(field))()
      const text = `Holder: the field "layers" hides modules: got ${kind}, expected a module; use nn.ModuleList or nn.ModuleDict, or a #private field for what is not the module's own.`
      expect(() => holder.parameters()).toThrow(text)
      expect(() => holder.forward(ones([1]))).toThrow(text)
    }
    expect(() => new (inField([nn.parameter(ones([2]))]))().stateDict()).toThrow('hides parameters: got an array')
    expect(new (inField([ones([2]), 3, null]))().parameters()).toEqual([])
  })

  it('a forward in a class field, at the first call of the module above it', () => {
    class Arrow extends nn.Module {
      forward = (x: Tensor): Tensor => x.mul(2)
    }
    expect(() => new nn.Sequential(new Arrow())).toThrow('Arrow: forward is a class field')
    class Outer extends nn.Module {
      arrow = new Arrow()
      forward(x: Tensor): Tensor {
        return this.arrow.forward(x)
      }
    }
    expect(() => new Outer().forward(ones([1]))).toThrow('expected forward(...) { ... }; write it as a method.')
  })

  it('modules that hold themselves', () => {
    const outer = new (inField(null))()
    const inner = new (inField(outer))()
    outer.layers = inner
    for (const call of [() => outer.stateDict(), () => outer.apply(() => undefined), () => String(outer)]) {
      expect(call).toThrow('Holder: the module stands below itself; keep the way up in a #private field.')
    }
    expect(outer.modules()).toHaveLength(2)
  })

  it('arguments of the wrong kind', () => {
    expect(() => new Pair().apply(3 as never)).toThrow('apply: not a function: got 3')
    expect(() => new Scale(2).to('int64')).toThrow(
      'to: parameters have no gradients in this dtype: got int64, expected float32, float64, float16 or bfloat16.',
    )
    expect(() => new Scale(2).loadStateDict(null as never)).toThrow('loadStateDict: not a state dict: got null')
  })
})

describe('forward pre-hooks', () => {
  it('may return one input instead of a list, as in PyTorch', () => {
    const scale = new Scale(2)
    scale.registerForwardPreHook((_, [x]) => (x as Tensor).mul(10))
    expect(scale.forward(ones([2])).arraySync()).toEqual([10, 10])
  })
})
