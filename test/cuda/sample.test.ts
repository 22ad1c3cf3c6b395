// Permutations and draws from weights: cuda chooses what the cpu chooses.
import { describe, expect, it } from 'vitest'
import { device, StateError, type Tensor, tensor } from '../../lib/index'
import { make, native, run } from '../../lib/tensor/dispatch'
import { code, expectEqual, floats, spread } from './support'

const int64 = code('int64')
const stream = [2 ** 52 + 11, 2 ** 41 + 3]

describe('randperm', () => {
  it('is the permutation of the cpu, for sizes around a block', () => {
    const op = native('randperm', 'seed,offset')
    for (const n of [0, 1, 2, 3, 50, 1023, 1024, 1025, 1026, 5000]) {
      const draw = (on: 'cpu' | 'cuda'): Tensor => make(op, [n], int64, device(on), stream)
      expectEqual(draw('cuda'), draw('cpu'), `${n}`)
    }
  })
})

describe('multinomial', () => {
  const op = native('multinomial', 'seed,offset,replacement')
  const draw = (weights: Tensor, k: number, again: boolean): Tensor =>
    run(op, [weights], [...weights.shape.slice(0, -1), k], int64, [...stream, Number(again)])

  it.each(floats)('from weights of %s', (dtype) => {
    for (const shape of [[5], [3, 1000], [2, 3, 17], [1, 1], [0, 4]]) {
      const weights = spread(shape, dtype).abs().add(0.01).to(dtype)
      for (const again of [true, false]) {
        const k = again ? 300 : Math.ceil(shape.at(-1)! / 2)
        expectEqual(draw(weights.to('cuda'), k, again), draw(weights, k, again), `${shape}, ${again}`)
      }
    }
  })

  it('never takes a weight of 0', () => {
    const weights = tensor([0, 1, 0, 0, 2, 1e-30, 0])
    for (const again of [true, false]) {
      expectEqual(draw(weights.to('cuda'), again ? 999 : 2, again), draw(weights, again ? 999 : 2, again), `${again}`)
    }
    const strided = spread([6, 4]).abs().transpose(0, 1)
    expectEqual(draw(strided.to('cuda'), 3, false), draw(strided, 3, false), 'strided')
  })

  it.each([
    ['negative ones', [1, -1, 2], 'a weight is not usable: got -1 at position 1 of row 0'],
    ['NaN', [1, 2, Number.NaN], 'a weight is not usable: got nan at position 2 of row 0'],
    ['nothing but 0', [0, 0, 0], 'the weights of row 0 have no usable sum: got 0'],
    ['too few above 0', [0, 1, 0], 'too few weights above 0 to draw without replacement: got 1, expected at least 2'],
  ])('reports %s', async (_, weights, message) => {
    const drawn = draw(tensor(weights, { device: 'cuda' }), 2, false)
    await expect(drawn.array()).rejects.toThrow(StateError)
    await expect(draw(tensor(weights, { device: 'cuda' }), 2, false).array()).rejects.toThrow(`multinomial: ${message}`)
  })
})
