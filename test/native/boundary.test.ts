// Calls of the addon that lib/ never makes: each was a way to read or write what is not the tensor's.
import { afterEach, describe, expect, it } from 'vitest'
import { getNumThreads, setNumThreads } from '../../lib/index'
import { binding, nativeError, scratch } from '../../lib/native'

const ids = new Map(binding.opTable().map(({ name }, id) => [name, id]))

/** Runs an operator; outputs are handles or [dtype, ...sizes]. Returns the new handles. */
function call(name: string, inputs: number[], outputs: (number | number[])[], attributes: number[] = []): number[] {
  const placed = outputs.flatMap((each) =>
    typeof each === 'number' ? [each] : [0, each[0]!, each.length - 1, ...each.slice(1)],
  )
  scratch.set([
    ids.get(name)!,
    0,
    inputs.length,
    outputs.length,
    attributes.length,
    0, // cpu
    ...inputs,
    ...placed,
    ...attributes,
  ])
  const failure = binding.dispatch()
  if (failure !== undefined) throw nativeError(failure)
  return Array.from(scratch.subarray(0, outputs.filter((each) => typeof each !== 'number').length))
}

const filled = (sizes: number[], value = 1): number => call('fill', [], [[0, ...sizes]], [value])[0]!

function view(base: number, offset: number, sizes: number[], strides: number[]): number {
  scratch.set([base, offset, sizes.length, ...sizes, ...strides])
  const failure = binding.view()
  if (failure !== undefined) throw nativeError(failure)
  return scratch[0]!
}

function read(handle: number, n: number): number[] {
  const out = new Float32Array(n)
  scratch[0] = handle
  const failure = binding.readSync(new Uint8Array(out.buffer))
  if (failure !== undefined) throw nativeError(failure)
  return Array.from(out)
}

describe('outputs that are views', () => {
  const q = filled([2, 3, 4, 5])
  const attributes = [0.5, 0, 0, 0, 0, -1, -1, 0, 0] // no window, no blocks

  it('are refused by every operator when their elements share memory', () => {
    const expanded = view(filled([5]), 0, [2, 4, 3, 5], [0, 0, 0, 1])
    expect(() => call('attention', [q, q, q], [expanded, [0, 2, 3, 4]], attributes)).toThrow(
      'attention: the output is an expanded view',
    )
    const windows = view(filled([6]), 0, [4, 3], [1, 1])
    expect(() => call('matmul', [filled([4, 2]), filled([2, 3])], [windows], [1, 0])).toThrow('expanded view')
    expect(() => call('mul', [windows, windows], [windows], [0, 0])).toThrow('expanded view')
  })

  it('are refused where a kernel would walk them as if they had no strides', () => {
    const [x, w1, b1, w2, b2] = [[70, 4], [8, 4], [8], [4, 8], [4]].map((shape) => filled(shape)) as [
      number,
      number,
      number,
      number,
      number,
    ]
    const flipped = view(filled([70 * 8]), 7, [70, 8], [8, -1])
    expect(() => call('mlp', [x, w1, b1, w2, b2], [[0, 70, 4], flipped], [1])).toThrow('must be contiguous')
  })

  it('are written where their elements lie, and nowhere else', () => {
    const memory = filled([2 * 4 * 3 * 5 * 2], 7)
    const out = view(memory, 1, [2, 4, 3, 5], [120, 6 * 5, 10, 2]) // every second element
    call('attention', [q, q, q], [out, [0, 2, 3, 4]], attributes)
    const values = read(memory, 240)
    expect(values.every((value, i) => Math.abs(value - (i % 2 ? 1 : 7)) < 1e-6)).toBe(true)
  })

  it('may be flipped, transposed and sliced', () => {
    const memory = filled([12], 0)
    call('arange', [], [view(memory, 11, [6], [-2])], [0, 1])
    expect(read(memory, 12)).toEqual([0, 5, 0, 4, 0, 3, 0, 2, 0, 1, 0, 0])
  })

  it('may overlap what is copied into them', () => {
    const memory = call('arange', [], [[0, 6]], [0, 1])[0]!
    call('copy', [view(memory, 0, [5], [1])], [view(memory, 1, [5], [1])])
    expect(read(memory, 6)).toEqual([0, 0, 1, 2, 3, 4])
  })
})

describe('sizes', () => {
  it('of empty tensors are bounded, so that no product of some of them overflows', () => {
    for (const sizes of [
      [0, 2 ** 53, 2 ** 53],
      [2 ** 32, 2 ** 32, 0],
    ]) {
      expect(() => filled(sizes)).toThrow('too many elements')
    }
    expect(read(call('sum', [filled([2 ** 40, 0])], [[0]], [3])[0]!, 1)).toEqual([0])
  })

  it('of empty views ask for no memory, wherever they start', () => {
    const empty = view(filled([3]), 2 ** 52, [0, 4], [4, 1])
    expect(read(call('copy', [empty], [[0, 0, 4]])[0]!, 0)).toEqual([])
  })
})

describe('the queue', () => {
  it('takes commands of every length past its end', () => {
    const one = filled([1])
    for (let round = 0; round < 3000; round++) {
      const inputs = Array.from({ length: 1 + (round % 97) }, () => one)
      const [out] = call('cat', inputs, [[0, inputs.length]], [0])
      scratch.set([1, out!])
      binding.release()
    }
    expect(read(one, 1)).toEqual([1])
  })
})

describe('the number of threads', () => {
  const before = getNumThreads()
  afterEach(() => setNumThreads(before))

  it('may change while kernels run', () => {
    const x = filled([256, 300])
    const transposed = view(x, 0, [300, 256], [1, 300])
    for (let round = 0; round < 60; round++) {
      setNumThreads(1 + ((round * 7) % 16))
      const [product] = call('matmul', [x, transposed], [[0, 256, 256]], [1, 0])
      const [values, indices] = call(
        'sort',
        [x],
        [
          [0, 256, 300],
          [4, 256, 300],
        ],
        [1, 0],
      ) as [number, number]
      setNumThreads(16 - ((round * 5) % 16))
      if (round % 20 === 0) expect(new Set(read(product!, 256 * 256))).toEqual(new Set([300]))
      scratch.set([3, product!, values, indices])
      binding.release()
    }
    expect(read(x, 300 * 256).every((value) => value === 1)).toBe(true)
  })
})
