// Norm, clipping, unscaling of many tensors at once, on cuda against the cpu.
import { describe, expect, it } from 'vitest'
import { full, type Tensor, tensor, zeros } from '../../lib/index'
import { native, run, runInto, runMany } from '../../lib/tensor/dispatch'
import { expectAlike, expectEqual, floats, spread } from './support'

const normOp = native('multiTensorNorm', 'p')
const clipOp = native('multiTensorClip', 'maxNorm')
const clampOp = native('multiTensorClamp', 'limit')
const scaleOp = native('multiTensorScale', 'factor')
const unscaleOp = native('multiTensorUnscale', 'write')
const updateOp = native('scalerUpdate', 'growthFactor,backoffFactor,growthInterval')

/** Tensors of every dtype and of sizes around a block's share, more than a launch takes. */
const list = (): Tensor[] =>
  Array.from({ length: 130 }, (_, i) => spread([[0, 1, 7, 64, 300][i % 5]!], floats[i % 4]!, i + 1)).concat(
    spread([16385], 'float32', 500),
    spread([3, 11000], 'bfloat16', 501),
  )
const moved = (tensors: Tensor[]): Tensor[] => tensors.map((x) => x.to('cuda'))

describe('many tensors at once', () => {
  for (const p of [2, 1, 0, Infinity, -Infinity, 3]) {
    it(`norm ${p}`, () => {
      const tensors = list()
      const norm = (of: Tensor[]): Tensor => run(normOp, of, [], 0, [p])
      expectAlike(norm(moved(tensors)), norm(tensors), `${p}`, 16)
      const few = [tensors[3]!, tensor([1, Number.NaN, 2])]
      expect(norm(moved(few)).itemSync()).toEqual(norm(few).itemSync())
    })
  }

  it('norm of nothing', () => {
    for (const p of [2, Infinity, -Infinity])
      expect(run(normOp, [zeros([0], { device: 'cuda' })], [], 0, [p]).itemSync()).toBe(0)
  })

  it('scale, clamp and clip in place', () => {
    const calls: [string, (of: Tensor[]) => unknown][] = [
      ['scale', (of) => runMany(scaleOp, of, of, [0.3])],
      ['clamp', (of) => runMany(clampOp, of, of, [1.5])],
      ['clip', (of) => runMany(clipOp, [...of, full([], 12, { device: of[0]!.device })], of, [3])],
      ['clip to more', (of) => runMany(clipOp, [...of, full([], 2, { device: of[0]!.device })], of, [3])],
      ['clip by NaN', (of) => runMany(clipOp, [...of, full([], Number.NaN, { device: of[0]!.device })], of, [3])],
    ]
    for (const [name, call] of calls) {
      const [there, here] = [moved(list()), list()]
      call(there)
      call(here)
      there.forEach((x, i) => {
        expectEqual(x, here[i]!, `${name} of tensor ${i}`)
      })
    }
  })

  it('scale by a number of the device', () => {
    const op = native('scaleByScalar')
    for (const factor of [0.3, 1, Number.NaN]) {
      for (const dtype of ['float32', 'float64'] as const) {
        const call = (of: Tensor[]): unknown =>
          runMany(op, [full([], factor, { dtype, device: of[0]!.device })], of, [])
        const [there, here] = [moved(list()), list()]
        call(there)
        call(here)
        there.forEach((x, i) => {
          expectEqual(x, here[i]!, `${factor} of ${dtype}, tensor ${i}`)
        })
      }
    }
  })

  it('unscale', () => {
    for (const write of [1, 0]) {
      for (const bad of [-1, 3, 131]) {
        for (const scale of [8, null]) {
          const start = list()
          if (bad >= 0) start[bad] = start[bad]!.clone().fill_(Infinity)
          const call = (of: Tensor[]): Tensor[] => {
            const place = of[0]!.device
            const results = [
              zeros([], { device: place }),
              zeros([], { device: place }),
              zeros([], { device: place, dtype: 'int32' }),
            ]
            const factor = scale === null ? null : full([], scale, { device: place })
            runMany(unscaleOp, [...of, factor], [...(write ? of : []), ...results], [write])
            return [...results, ...of]
          }
          const [there, here] = [call(moved(start)), call(start.map((x) => x.clone()))]
          there.forEach((x, i) => {
            if (i === 1 && bad >= 0) return
            expectAlike(x, here[i]!, `write ${write}, bad ${bad}, result ${i}`, i === 1 ? 16 : 0)
          })
        }
      }
    }
  })

  it('update the loss scale', () => {
    for (const flags of [
      [0, 0],
      [0, 1],
    ]) {
      for (const interval of [1, 3]) {
        const call = (place: 'cpu' | 'cuda'): Tensor[] => {
          const pairs = flags.flatMap((flag, i) => [
            full([], flag, { device: place }),
            full([], flag ? i + 4 : -1, { device: place, dtype: 'int32' }),
          ])
          const results = [
            full([], 1024, { device: place }),
            full([], 0, { device: place, dtype: 'int32' }),
            zeros([3], { device: place }),
          ]
          runMany(updateOp, pairs, results, [2, 0.5, interval])
          return results
        }
        const here = call('cpu')
        call('cuda').forEach((x, i) => {
          expectEqual(x, here[i]!, `flags ${flags}, interval ${interval}, result ${i}`)
        })
      }
    }
  })

  it('gate', () => {
    expect(runInto(native('gate'), [zeros([2], { device: 'cuda' })], full([], 5, { device: 'cuda' })).itemSync()).toBe(
      0,
    )
  })
})
