import { describe, expect, it } from 'vitest'
import { ArgumentError, IndexError, nn, ones, type Tensor } from '../../lib/index'

describe('Sequential', () => {
  it('runs its modules in order and names them by position', () => {
    const model = new nn.Sequential(new nn.Linear(4, 8), new nn.ReLU(), new nn.Linear(8, 2))
    expect(model.forward<Tensor>(ones([3, 4])).shape).toEqual([3, 2])
    expect(model.namedParameters().map(([name]) => name)).toEqual(['0.weight', '0.bias', '2.weight', '2.bias'])
    expect(model.length).toBe(3)
    expect(model.at(-1)).toBe(model.at(2))
  })
})

describe('ModuleList', () => {
  it('holds modules that are found by name, in order', () => {
    const list = new nn.ModuleList([new nn.Linear(1, 2)])
    list.append(new nn.Linear(2, 3))
    expect([...list].map((layer) => layer.outFeatures)).toEqual([2, 3])
    expect(Object.keys(list.stateDict())).toEqual(['0.weight', '0.bias', '1.weight', '1.bias'])
    const replacement = new nn.Linear(5, 5)
    list.set(-1, replacement)
    expect(list.at(1)).toBe(replacement)
    expect(() => list.at(2)).toThrow('ModuleList: no module at this position: got 2, expected -2 to 1.')
    expect(() => list.append(3 as never)).toThrow(ArgumentError)
  })

  it('keeps the order beyond ten', () => {
    const list = new nn.ModuleList(Array.from({ length: 12 }, (_, i) => new nn.Linear(1, i + 1)))
    expect([...list].map((layer) => layer.outFeatures)).toEqual(Array.from({ length: 12 }, (_, i) => i + 1))
  })
})

describe('ModuleDict', () => {
  it('holds modules by name', () => {
    const dict = new nn.ModuleDict({ up: new nn.Linear(2, 4), down: new nn.Linear(4, 2) })
    expect(dict.keys()).toEqual(['up', 'down'])
    expect(dict.get('up').outFeatures).toBe(4)
    expect(dict.namedParameters().map(([name]) => name)[0]).toBe('up.weight')
    expect(dict.delete('up')).toBe(true)
    expect(dict.has('up')).toBe(false)
    expect(dict.parameters().length).toBe(2)
    expect(() => dict.get('up')).toThrow(IndexError)
    expect(() => dict.set('forward', new nn.Identity() as never)).toThrow("a word without '.'")
  })
})

describe('containers read like lists', () => {
  it('by index, entries, extend and insert', () => {
    const [a, b, c] = [new nn.ReLU(), new nn.GELU(), new nn.Tanh()]
    const list = new nn.ModuleList<nn.Module>([a])
    list.extend([c]).insert(1, b)
    expect([...list]).toEqual([a, b, c])
    expect(list[1]).toBe(b)
    expect([...list.entries()].map(([i, module]) => [i, module])).toEqual([
      [0, a],
      [1, b],
      [2, c],
    ])
    expect(() => list.insert(7, a)).toThrow(IndexError)
    expect(() => list.extend(3 as never)).toThrow(ArgumentError)
  })

  it('Sequential gives a Tensor unless told otherwise, and names the way to spread an array', () => {
    const model = new nn.Sequential(new nn.Linear(2, 3))
    expect(model.forward(ones([1, 2])).shape).toEqual([1, 3])
    expect(() => new nn.Sequential([new nn.ReLU()] as never)).toThrow(
      'Sequential: not a module: got an array of length 1, expected an nn.Module; spread arrays: new Sequential(...modules).',
    )
  })
})
