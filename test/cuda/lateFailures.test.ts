// What kernels find in their data is known when something waits: who hears of it, and what is lost with it.
import { describe, expect, it } from 'vitest'
import { nn, ops, setDefaultDevice, tensor, zeros } from '../../lib/index'

setDefaultDevice('cuda')

const bad = (index: number) => ops.embedding(tensor([1, index, 2], { dtype: 'int64' }), zeros([4, 2]))

describe('a failure that a kernel finds', () => {
  it('is told by every read of what depends on it, whoever heard of it first', async () => {
    const failed = bad(9)
    const sum = failed.mul(2).sum().keep()
    const text = 'embedding: index is out of range: got 9 at position 1, expected 0 to 3'
    await expect(zeros([2]).data()).rejects.toThrow(text)
    await expect(sum.item()).rejects.toThrow(text)
    await expect(sum.item()).rejects.toThrow(text)
    await expect(failed.add(1).data()).rejects.toThrow(text)
  })

  it('names the module whose operation it was, as on the cpu, also in backward', async () => {
    const model = new nn.Sequential(new nn.Embedding(4, 2), new nn.Linear(2, 2))
    const said = 'embedding (in Sequential.0): index is out of range: got 7 at position 1, expected 0 to 3'
    const index = tensor([1, 7], { dtype: 'int64' })
    await expect(model.forward(index).data()).rejects.toThrow(said)
    await expect(model.to('cpu').forward(index.cpu()).data()).rejects.toThrow(said)
    await expect(bad(9).data()).rejects.toThrow('embedding: index')
  })

  it('spares what was made from nothing that may fail, and what is changed in place', async () => {
    const [weight, other] = [zeros([4, 2]), zeros([3])]
    const failed = bad(-1)
    const made = other.add(1).keep()
    weight.indexAdd_(0, tensor([0, 1, 2], { dtype: 'int64' }), failed)
    await expect(failed.data()).rejects.toThrow('got -1 at position 1')
    expect(await weight.array()).toEqual(zeros([4, 2]).arraySync())
    expect(await made.array()).toEqual([1, 1, 1])
    weight.add_(1)
    expect(await weight.select(0, 0).array()).toEqual([1, 1])
  })

  it('is the first one, at its first place, in any order of threads', async () => {
    const index = tensor(
      Array.from({ length: 5000 }, (_, i) => (i < 1234 ? 0 : -i)),
      { dtype: 'int64' },
    )
    const failed = ops.embedding(index, zeros([4, 2])).keep()
    const after = bad(8).keep()
    await expect(failed.data()).rejects.toThrow('got -1234 at position 1234')
    await expect(after.data()).rejects.toThrow('got -1234 at position 1234') // the device had stopped looking
    await expect(bad(8).data()).rejects.toThrow('got 8 at position 1')
  })

  it('leaves the tensors of the next failure alone', async () => {
    const first = bad(5).keep()
    await expect(first.data()).rejects.toThrow('got 5')
    const fine = bad(3).keep()
    const second = bad(6).keep()
    await expect(second.data()).rejects.toThrow('got 6')
    await expect(first.data()).rejects.toThrow('got 5')
    expect(await fine.array()).toEqual(zeros([3, 2]).arraySync())
  })

  it('spoils what was changed in place by it, unless the kernel looks first, until all of it is replaced', async () => {
    const [copied, added, part] = [zeros([3, 2]), zeros([3, 2]), zeros([4, 2])]
    const failed = bad(7).keep()
    copied.copy_(failed)
    added.add_(failed)
    part.narrow(0, 1, 3).copy_(failed)
    await expect(failed.data()).rejects.toThrow('got 7')
    for (const each of [copied, added, part]) {
      await expect(each.data()).rejects.toThrow('got 7')
      await expect(each.add(1).data()).rejects.toThrow('got 7')
    }
    for (const each of [copied, added]) {
      each.copy_(
        tensor([
          [1, 2],
          [3, 4],
          [5, 6],
        ]),
      )
      each.add_(1)
      expect(await each.array()).toEqual([
        [2, 3],
        [4, 5],
        [6, 7],
      ])
    }
    part.narrow(0, 1, 3).copy_(
      tensor([
        [1, 2],
        [3, 4],
        [5, 6],
      ]),
    )
    await expect(part.data()).rejects.toThrow('got 7')
    part.fill_(2)
    expect(await part.sum().item()).toBe(16)
  })
})
