import { describe, expect, it } from 'vitest'
import { ArgumentError, cuda, DeviceError, ones, StateError } from '../../lib/index'

describe('cuda.Event', () => {
  it('tells the time between two points that the device has passed', async () => {
    const [start, end] = [new cuda.Event({ enableTiming: true }), new cuda.Event({ enableTiming: true })]
    const x = ones([64, 64], { device: 'cuda' })
    start.record()
    x.matmul(x)
    end.record('cuda:0')
    await end.synchronize()
    expect([start.query(), end.query()]).toEqual([true, true])
    expect(start.elapsedTime(end)).toBeGreaterThan(0)
    expect(start.elapsedTime(start)).toBe(0)
  })

  it('is passed before it is recorded, and waits for what was queued before it alone', async () => {
    const event = new cuda.Event()
    expect(event.query()).toBe(true)
    await event.synchronize()
    ones([16], { device: 'cuda' }).add(1)
    await event.record().synchronize()
    expect(event.query()).toBe(true)
    await cuda.synchronize()
  })

  it('moves when it is recorded again', async () => {
    const [start, end] = [new cuda.Event({ enableTiming: true }), new cuda.Event({ enableTiming: true })]
    start.record()
    end.record()
    const x = ones([32, 32], { device: 'cuda' })
    x.matmul(x)
    start.record()
    await Promise.all([start.synchronize(), end.synchronize()])
    expect(end.elapsedTime(start)).toBeGreaterThan(0)
  })

  it('refuses what has no answer', async () => {
    const [timed, plain] = [new cuda.Event({ enableTiming: true }), new cuda.Event()]
    await timed.record().synchronize()
    await plain.record().synchronize()
    expect(() => timed.elapsedTime(plain)).toThrow(
      new StateError(
        'Event.elapsedTime',
        'the end keeps no time; make it with new cuda.Event({ enableTiming: true }).',
      ),
    )
    expect(() => timed.elapsedTime(new cuda.Event({ enableTiming: true }))).toThrow(
      /the end was not recorded; call its record/,
    )
    expect(() => timed.elapsedTime(3 as never)).toThrow(ArgumentError)
    expect(() => new cuda.Event({ enable_timing: true } as never)).toThrow(/write enableTiming/)
    expect(() => new cuda.Event({ enableTiming: 1 } as never)).toThrow(/Event: enableTiming is neither true nor false/)
    expect(() => plain.record('cpu')).toThrow(DeviceError)
  })
})
