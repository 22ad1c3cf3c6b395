import { describe, expect, it } from 'vitest'
import { hostArray } from '../../lib/data/index'
import { fromFailure, packBatch, toFailure } from '../../lib/data/workerProtocol'
import { ShapeError } from '../../lib/index'

describe('packBatch', () => {
  it('moves whole buffers, and copies arrays that are a part of one', () => {
    const whole = hostArray(new Float32Array(4), [4])
    const large = new Int32Array(10).fill(7)
    const part = hostArray(large.subarray(2, 5), [3])
    const shared = hostArray(new Uint8Array(new SharedArrayBuffer(4)), [4])
    const { value, transfer } = packBatch({
      whole,
      list: [part, 'text'],
      shared,
      empty: hostArray(new Float32Array(0), [0]),
    })
    const packed = value as { whole: typeof whole; list: [typeof part, string]; shared: typeof shared }
    expect(packed.whole.data).toBe(whole.data)
    expect(packed.list[0].data).toEqual(Int32Array.of(7, 7, 7))
    expect(packed.list[0].data.buffer).not.toBe(large.buffer)
    expect(transfer).toEqual([whole.data.buffer, packed.list[0].data.buffer, packed.shared.data.buffer])
    structuredClone(value, { transfer })
    expect([whole.data.length, large.length]).toEqual([0, 10])
  })
})

describe('failures', () => {
  const travel = (error: unknown) => fromFailure(structuredClone(toFailure(error)), 'worker 1')

  it('keep class, code, message and stack', () => {
    const error = new ShapeError('op', { problem: 'wrong', got: '[1]' })
    const arrived = travel(error) as ShapeError
    expect(arrived).toBeInstanceOf(ShapeError)
    expect([arrived.name, arrived.message, arrived.code, arrived.op]).toEqual([
      'ShapeError',
      'op: wrong: got [1].',
      'ERR_GRADUS_SHAPE',
      'op',
    ])
    expect(arrived.stack).toBe(`${error.stack}\n    at worker 1`)
    expect(travel(new TypeError('t'))).toBeInstanceOf(TypeError)
  })

  it('of any kind become errors', () => {
    class Custom extends Error {
      override name = 'Custom'
    }
    expect(travel(new Custom('c'))).toMatchObject({ name: 'Custom', message: 'c' })
    expect(travel('text')).toMatchObject({ name: 'Error', message: 'text' })
    expect(travel(undefined).message).toBe('undefined')
  })
})
