// Random operators: cuda draws what the cpu draws.
import { describe, expect, it } from 'vitest'
import { device, zeros } from '../../lib/index'
import { make, native, run } from '../../lib/tensor/dispatch'
import { code, computedUnit, expectAlike, expectEqual, floats, leastNormal, spread, whole } from './support'

const [here, there] = [device('cpu'), device('cuda')]
const stream = [2 ** 52 + 11, 2 ** 41 + 3]
const shapes = [[0], [1], [3], [4], [1021], [17, 64]]

describe('random tensors', () => {
  for (const dtype of floats) {
    it(`uniform of ${dtype}`, () => {
      const op = native('uniform', 'seed,offset,low,high')
      for (const shape of shapes) {
        for (const range of [
          [0, 1],
          [-2, 6],
        ]) {
          const draw = (on: typeof here) => make(op, shape, code(dtype), on, [...stream, ...range])
          expectAlike(draw(there), draw(here), `${shape}`, range[0] === 0 ? 0 : 1)
        }
      }
    })

    it(`normal of ${dtype}`, () => {
      const op = native('normal', 'seed,offset,mean,std')
      for (const shape of shapes) {
        const draw = (on: typeof here, of = shape, as = dtype) => make(op, of, code(as), on, [...stream, 1, 2])
        const numbers = draw(here)
        // Mean + r cos and mean + r sin of pairs, r = 2 sqrt(-2 ln u): 6 units of r cos, of which ln has 3 that the root
        // halves, root and product 1 each, and cosine or sine 2.5. In float64 the cpu's angle, up to 2 pi, is rounded, and
        // so is 2 pi: 6 units of r, however small the cosine.
        const wide = draw(
          here,
          [numbers.numel + (numbers.numel % 2)],
          dtype === 'float64' ? dtype : 'float32',
        ).dataSync()
        const beside = Array.from({ length: numbers.numel }, (_, i) => {
          const [own, other] = [Number(wide[i]) - 1, Number(wide[i ^ 1]) - 1]
          const units = 6 * Math.abs(own) + (dtype === 'float64' ? 6 * Math.hypot(own, other) : 0)
          return computedUnit(dtype) * Math.min(units, 28) // no number has them all
        })
        expectAlike(draw(there), numbers, `${shape}`, 1, leastNormal(dtype), beside)
      }
    })

    it(`bernoulli of ${dtype}`, () => {
      const op = native('bernoulli', 'seed,offset')
      const p = spread([129], dtype).mul(0.125).add(0.5)
      expectEqual(run(op, [p.to('cuda')], [129], code(dtype), stream), run(op, [p], [129], code(dtype), stream), dtype)
    })
  }

  for (const dtype of [...floats, ...whole]) {
    it(`randint of ${dtype}`, () => {
      const op = native('randint', 'seed,offset,low,high')
      for (const range of [
        [0, 7],
        [-5, 100],
        [-(2 ** 40), 2 ** 52],
      ]) {
        if (dtype !== 'int64' && dtype !== 'float64' && range[1]! > 100) continue
        if (dtype === 'uint8' && range[0]! < 0) continue
        const draw = (on: typeof here) => make(op, [517], code(dtype), on, [...stream, ...range])
        expectEqual(draw(there), draw(here), `${range}`)
      }
    })
  }
})

describe('dropout', () => {
  const plain = native('dropout', 'seed,offset,p')
  const sum = native('dropoutAdd', 'seed,offset,p')

  for (const from of floats) {
    for (const to of floats) {
      if ((from === 'float64') !== (to === 'float64')) continue
      it(`of ${from} into ${to}`, () => {
        for (const n of [0, 1, 7, 1000, 4099]) {
          const [x, residual] = [spread([n], from), spread([n], to, 2)]
          for (const p of [0, 0.1, 0.5, 1]) {
            const attrs = [...stream, p]
            const on = { there: [x.to('cuda'), residual.to('cuda')], here: [x, residual] }
            expectEqual(
              run(plain, [on.there[0]], [n], code(to), attrs),
              run(plain, [on.here[0]], [n], code(to), attrs),
              `${n}, ${p}`,
            )
            expectAlike(
              run(sum, on.there, [n], code(to), attrs),
              run(sum, on.here, [n], code(to), attrs),
              `${n}, ${p}`,
              1,
            )
          }
        }
      })
    }
  }

  it('of strided and unaligned operands', () => {
    const x = spread([12, 10], 'float32')
    for (const take of [(t: typeof x) => t.transpose(0, 1), (t: typeof x) => t.view(120).slice(0, 1)]) {
      const [a, b] = [take(x.to('cuda')), take(x)]
      expectEqual(
        run(plain, [a], b.shape, 0, [...stream, 0.3]),
        run(plain, [b], b.shape, 0, [...stream, 0.3]),
        'strided',
      )
    }
  })

  it('keeps nothing at p 1', () => {
    expect(run(plain, [zeros([3], { device: 'cuda' }).add(5)], [3], 0, [1, 2, 1]).arraySync()).toEqual([0, 0, 0])
  })
})
