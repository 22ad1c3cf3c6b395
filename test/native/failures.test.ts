// What fails on the executor poisons what depends on it, is reported once, and leaves the library usable.
import { afterEach, describe, expect, it } from 'vitest'
import { device, IndexError, memory, OutOfMemoryError, ones, type Tensor, tensor, zeros } from '../../lib/index'
import { native, run, runInto } from '../../lib/tensor/dispatch'

const embedding = native('embedding')
const add = native('add', 'scalar,reversed,alpha')

/** An operation whose index is out of range, which only the executor finds out. */
const failing = (): Tensor => run(embedding, [tensor([7], { dtype: 'int64' }), zeros([4, 2])], [1, 2], 0)

describe('a late failure', () => {
  it('reaches everything that depends on it, as a typed error', async () => {
    const bad = failing()
    const dependent = bad.add(1).mul(2)
    await expect(dependent.array()).rejects.toThrow(IndexError)
    expect(() => dependent.arraySync()).toThrow(/7/)
    await device('cpu').synchronize()
  })

  it('is thrown once by the device and then forgotten', async () => {
    failing()
    await expect(device('cpu').synchronize()).rejects.toThrow(IndexError)
    await device('cpu').synchronize()
    expect(await ones([2]).add(1).array()).toEqual([2, 2])
  })

  it('leaves the targets of in-place operations untouched', async () => {
    const target = ones([1, 2])
    runInto(add, [target, failing()], target, [0, 0, 1])
    await device('cpu')
      .synchronize()
      .catch(() => {})
    expect(await target.array()).toEqual([[1, 1]])
  })
})

describe('running out of memory', () => {
  afterEach(() => memory.setLimit(0))

  it('says what was asked, what is in use and what to do, and goes on', async () => {
    const held = ones([1024, 1024])
    await device('cpu').synchronize()
    memory.setLimit(memory.allocated() + 1024)
    const large = zeros([4096, 4096])
    await expect(large.slice(0, 0, 1).array()).rejects.toThrow(
      /out of memory.*a request for 64\.0 MiB with \d+\.\d MiB in use.*smaller batch with gradient accumulation/,
    )
    await expect(large.add(1).slice(0, 0, 1).array()).rejects.toThrow(OutOfMemoryError)
    memory.setLimit(0)
    expect(await held.slice(0, 0, 1).slice(1, 0, 2).array()).toEqual([[1, 1]])
  })

  it('refuses sizes beyond any machine', async () => {
    await expect(
      zeros([2 ** 20, 2 ** 20, 64])
        .slice(0, 0, 1)
        .slice(1, 0, 1)
        .array(),
    ).rejects.toThrow(OutOfMemoryError)
    expect(() => zeros([2 ** 30, 2 ** 30])).toThrow('too many elements')
  })
})
