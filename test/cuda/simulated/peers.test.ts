// Copies from one device to another, where only the driver sees how they are made, and what goes wrong with them.
import './caching'
import '../severalDevices'
import { spawnSync } from 'node:child_process'
import { afterEach, describe, expect, it, vi } from 'vitest'
import {
  cuda,
  empty,
  memory,
  nn,
  OutOfMemoryError,
  ones,
  ops,
  optim,
  StateError,
  type Tensor,
  tensor,
  tidy,
  zeros,
} from '../../../lib/index'
import { numbersOf } from '../collectives'
import { simulator } from './simulator'

const devices = ['cuda:0', 'cuda:1', 'cuda:2'] as const
/** Waits for all devices; what they tell of failures is dropped. */
const synchronize = () => Promise.allSettled(devices.map((device) => cuda.synchronize(device)))
const failed = (index: number, device: (typeof devices)[number] = 'cuda:0'): Tensor =>
  ops.embedding(tensor([1, index], { dtype: 'int64', device }), zeros([4, 2], { device }))
const outOfRange = (index: number): string => `embedding: index is out of range: got ${index} at position 1`

interface Submitted {
  kernels: number
  hostBytes: number
  peerCopies: number
}

/** What the function submits to the driver; waiting for all devices, which takes some bytes, is left out. */
async function submitted(queue: () => void): Promise<Submitted> {
  const count = async (then: () => void): Promise<Submitted> => {
    await synchronize()
    simulator.control('reset')
    then()
    await synchronize()
    return JSON.parse(simulator.counters()).submitted
  }
  const [waiting, all] = [await count(() => {}), await count(queue)]
  const { kernels, hostBytes, peerCopies } = all
  return { kernels, hostBytes: hostBytes - waiting.hostBytes, peerCopies }
}

/** Bytes of the word in which kernels tell of failures; it is read, not the elements. */
const word = 32

afterEach(() => simulator.control('reset'))

describe('a copy from one device to another', () => {
  it('is one of the driver, and nothing goes through the host', async () => {
    const x = tensor([1, 2, 3, 4, 5, 6], { device: 'cuda:0' }).view(2, 3)
    const target = zeros([2, 3], { device: 'cuda:1' })
    const copies: Tensor[] = []
    const one = { kernels: 0, hostBytes: word, peerCopies: 1 } // the target's word, for what it found itself
    expect(await submitted(() => copies.push(x.to('cuda:1')))).toEqual(one)
    expect(await submitted(() => copies.push(x.to('cuda:2', { nonBlocking: true })))).toEqual(one)
    expect(await submitted(() => copies.push(x.select(0, 1).to('cuda:1')))).toEqual(one) // a part, contiguous
    expect(await submitted(() => copies.push(x.transpose(0, 1).to('cuda:1')))).toEqual({ ...one, kernels: 1 })
    expect(await submitted(() => target.copy_(x))).toMatchObject({ hostBytes: word, peerCopies: 1 })
    expect(await submitted(() => copies.push(x.to('cuda:1', 'float16')))).toEqual({ ...one, kernels: 1 })
    expect(await submitted(() => copies.push(x.narrow(0, 0, 0).to('cuda:1')))).toEqual({
      ...one,
      hostBytes: 0,
      peerCopies: 0,
    })
    expect(copies.map(numbersOf)).toEqual([
      [1, 2, 3, 4, 5, 6],
      [1, 2, 3, 4, 5, 6],
      [4, 5, 6],
      [1, 4, 2, 5, 3, 6],
      [1, 2, 3, 4, 5, 6],
      [],
    ])
    expect(numbersOf(target)).toEqual([1, 2, 3, 4, 5, 6])
  })

  it('moves modules, gradients and states of optimizers', async () => {
    const layer = new nn.Linear(64, 32).to('cuda:0')
    const optimizer = new optim.AdamW(layer.parameters())
    layer
      .forward(ones([4, 64], { device: 'cuda:0' }))
      .sum()
      .backward()
    const before = layer.parameters().flatMap((each) => [numbersOf(each), numbersOf(each.grad!)])
    const peeked = 4 * (word + word + 4) // and at one number of each, whether it has come
    expect(await submitted(() => layer.to('cuda:1'))).toEqual({ kernels: 0, hostBytes: peeked, peerCopies: 4 })
    expect(layer.parameters().flatMap((each) => [numbersOf(each), numbersOf(each.grad!)])).toEqual(before)
    optimizer.step()
    expect(numbersOf(layer.bias!)).not.toEqual(before[2])
    const once = numbersOf(layer.bias!)
    layer.to('cuda:2')
    const { hostBytes } = await submitted(() => optimizer.step()) // takes its states along
    expect(hostBytes).toBeLessThanOrEqual(8 * word)
    expect(numbersOf(layer.bias!)).not.toEqual(once)
  })

  it('has gradients, which come back the same way', async () => {
    const x = ones([300], { device: 'cuda:0' }).requiresGrad_()
    const { hostBytes, peerCopies } = await submitted(() => x.mul(2).to('cuda:1').mul(3).sum().backward())
    expect(hostBytes).toBe(peerCopies * word) // one for each, and one for what a gradient may depend on
    expect(numbersOf(x.grad!)).toEqual(new Array(300).fill(6))
  })

  it('has what was there at the call, and spoils nothing that is under way on either device', async () => {
    const sums: Tensor[] = []
    for (let turn = 0; turn < 40; turn++) {
      const x = zeros([1000], { device: 'cuda:0' }).add(turn)
      zeros([1000], { device: 'cuda:1' }).add(1).dispose() // its memory is the copy's
      const there = x.to('cuda:1')
      x.fill_(-1)
      if (turn % 2 === 0) sums.push(there.mul(2).sum())
      x.dispose()
      zeros([1000], { device: 'cuda:0' }).add(9).dispose()
      if (turn % 4 !== 1)
        there.dispose() // some before anybody used them
      else sums.push(there.to('cuda:2').to('cuda:0').sum())
    }
    const turns = Array.from({ length: 40 }, (_, turn) => turn)
    const wanted = turns.flatMap((turn) => (turn % 2 === 0 ? [2000 * turn] : turn % 4 === 1 ? [1000 * turn] : []))
    expect(await Promise.all(sums.map((sum) => sum.item()))).toEqual(wanted)
  })

  it('needs no access to the peer', async () => {
    simulator.control('peers=0')
    const x = ones([4], { device: 'cuda:2' }) // which has sent nothing yet to cuda:1
    expect(await submitted(() => x.to('cuda:1'))).toEqual({ kernels: 0, hostBytes: word, peerCopies: 1 })
    simulator.control('peers=1')
  })

  it('leaves nothing behind', async () => {
    const x = ones([8, 8], { device: 'cuda:0' })
    const round = (): void => tidy(() => void x.transpose(0, 1).to('cuda:1').to('cuda:0'))
    round()
    await synchronize()
    const used = () => devices.map((device) => memory.allocated(device))
    const before = used()
    for (let i = 0; i < 100; i++) round()
    await synchronize()
    expect(used()).toEqual(before)
  })

  it('is refused while a graph is captured on either device', () => {
    const x = ones([4], { device: 'cuda:0' })
    const y = ones([4], { device: 'cuda:1' })
    for (const move of [() => x.to('cuda:1'), () => y.to('cuda:0')]) {
      expect(() => new cuda.CUDAGraph('cuda:0').capture(move)).toThrow(StateError)
    }
    expect(numbersOf(x.to('cuda:1'))).toEqual([1, 1, 1, 1])
  })
})

describe('a failure that a kernel finds before a copy to another device', () => {
  it('is told there in its own words, to every read of what depends on it', async () => {
    const x = failed(9).keep()
    const y = x.add(1).to('cuda:1').keep()
    const z = y.mul(2).to('cuda:2').sum().keep()
    for (const each of [z, y, y.mul(2), x, z]) await expect(each.data()).rejects.toThrow(outOfRange(9))
    expect(numbersOf(ones([2], { device: 'cuda:1' }).to('cuda:2'))).toEqual([1, 1])
    await expect(y.to('cuda:0').data()).rejects.toThrow(outOfRange(9))
  })

  it('travels as a number beside the elements, if they may depend on one', async () => {
    const x = failed(1)
    expect(await submitted(() => x.to('cuda:1'))).toEqual({ kernels: 1, hostBytes: 2 * word, peerCopies: 2 })
  })

  it('changes no weight of the target, and is forgotten', async () => {
    const weight = zeros([2, 2], { device: 'cuda:1' }).requiresGrad_()
    const optimizer = new optim.AdamW([weight], { lr: 0.1 })
    weight.grad = failed(7).to('cuda:1')
    optimizer.step()
    await expect(weight.grad.data()).rejects.toThrow(outOfRange(7))
    await synchronize()
    expect(numbersOf(weight)).toEqual([0, 0, 0, 0])
    weight.grad = failed(2).add(1).to('cuda:1')
    optimizer.step()
    expect(numbersOf(weight)[3]).toBeCloseTo(-0.1, 5)
  })

  it('is told once to whoever waits for the source, and to nobody who waits for the target', async () => {
    failed(-3).to('cuda:1')
    await cuda.synchronize('cuda:1')
    await expect(cuda.synchronize('cuda:0')).rejects.toThrow(outOfRange(-3))
    failed(-3).to('cuda:1').mul(2).to('cuda:2').add(1)
    await cuda.synchronize('cuda:2')
    await cuda.synchronize('cuda:1')
    await expect(cuda.synchronize('cuda:0')).rejects.toThrow(outOfRange(-3))
    await synchronize()
    for (const device of devices) await cuda.synchronize(device)
  })

  it('that is known by then fails the copy, until it is replaced', async () => {
    const x = failed(5).keep()
    await expect(x.data()).rejects.toThrow(outOfRange(5))
    const { peerCopies } = await submitted(() => x.to('cuda:1'))
    expect(peerCopies).toBe(0)
    const y = x.to('cuda:1')
    await expect(y.data()).rejects.toThrow(outOfRange(5))
    y.copy_(ones([2, 2], { device: 'cuda:0' }))
    expect(numbersOf(y)).toEqual([1, 1, 1, 1])
  })

  it('goes with a tensor that has no elements, too', async () => {
    const at = (list: number[][]): Tensor => tensor(list, { dtype: 'int64', device: 'cuda:0' })
    const none = zeros([1, 0], { device: 'cuda:0' }).scatter(1, at([[3]]), ones([1, 1], { device: 'cuda:0' }))
    const copy = none.to('cuda:1')
    await expect(copy.data()).rejects.toThrow(/^scatter: index is out of range: got 3/)
    await synchronize()
    expect(await zeros([1, 0], { device: 'cuda:0' }).to('cuda:1').array()).toEqual([[]])
  })

  it('does not concern copies of what cannot depend on it, nor those after it', async () => {
    const plain = ones([3], { device: 'cuda:0' })
    const x = failed(6).keep()
    const y = plain.to('cuda:1')
    expect(numbersOf(y.add(1))).toEqual([2, 2, 2])
    await expect(x.data()).rejects.toThrow(outOfRange(6))
    for (const good of [0, 1, 2, 3]) expect(numbersOf(failed(good).to('cuda:1'))).toEqual([0, 0, 0, 0])
  })

  it('leaves what the target found itself to be told', async () => {
    const own = failed(8, 'cuda:1').keep()
    const x = failed(5).keep()
    x.to('cuda:1')
    await expect(x.data()).rejects.toThrow(outOfRange(5))
    await new Promise((resolve) => setTimeout(resolve, 100)) // the target has heard of it
    ones([2], { device: 'cuda:1' }).add(1)
    await expect(own.data()).rejects.toThrow(outOfRange(8))
    await synchronize()
    expect(numbersOf(failed(2).to('cuda:1'))).toEqual([0, 0, 0, 0])
  })

  it('goes with all that may depend on one, by its own words also when somebody has heard of it', async () => {
    const x = failed(1).keep()
    const indices = tensor([1, 9], { dtype: 'int64', device: 'cuda:0' })
    const table = zeros([4, 2], { device: 'cuda:0' })
    await synchronize()
    simulator.control('reset')
    simulator.control('paused=1') // the word is copied before anybody has read it
    const heard = ops.embedding(indices, table).data()
    const y = x.to('cuda:1').keep()
    await vi.waitUntil(() => JSON.parse(simulator.counters()).submitted.peerCopies === 2, 10_000)
    simulator.control('paused=0')
    await expect(heard).rejects.toThrow(outOfRange(9))
    await expect(y.data()).rejects.toThrow(outOfRange(9))
    expect(numbersOf(x)).toEqual([0, 0, 0, 0])
    expect(numbersOf(failed(2).to('cuda:1'))).toEqual([0, 0, 0, 0])
  })

  it('is the first of several, on whichever devices, and each is found', async () => {
    const texts = [4, 5, 6].map(outOfRange)
    for (let turn = 0; turn < 5; turn++) {
      const [a, b, c] = devices.map((device, i) => failed(4 + i, device)) as [Tensor, Tensor, Tensor]
      const ring = [a.to('cuda:1').add(b), b.to('cuda:2').add(c), c.to('cuda:0').add(a)]
      for (const each of ring) {
        const error = await each.data().catch((error: Error) => error)
        expect(texts).toContain((error as Error).message.split(', expected')[0])
      }
      await synchronize()
      expect(numbersOf(ones([2], { device: 'cuda:0' }).to('cuda:1').to('cuda:2'))).toEqual([1, 1])
    }
  })
})

describe('a copy to another device', () => {
  it('for which that has no memory is an OutOfMemoryError, and can be made again', async () => {
    const x = empty([1 << 23], { device: 'cuda:0' }) // more than is kept
    await synchronize()
    simulator.control('failAllocation=1 failAllocations=3')
    const y = x.to('cuda:1').keep()
    await expect(y.add(1).data()).rejects.toThrow(OutOfMemoryError)
    simulator.control('reset')
    await expect(y.data()).rejects.toThrow(OutOfMemoryError)
    await synchronize()
    expect(numbersOf(x.narrow(0, 0, 4).fill_(2).to('cuda:1'))).toEqual([2, 2, 2, 2])
    expect(numbersOf(x.to('cuda:1').narrow(0, 0, 4))).toEqual([2, 2, 2, 2])
  })

  /** What the reads in a process say where something goes wrong that no device survives. */
  const heard = (words: string, body: string): string[] => {
    const script = `
      const { cuda, ones } = require('./dist')
      const { control } = require('./build/cudasim/lib/cudasim.node')
      const x = ones([4], { device: 'cuda:0' })
      const z = ones([4], { device: 'cuda:1' })
      const said = (t) => t.data().then((data) => String(data), (e) => e.name + ': ' + e.message)
      ;(async () => {
        await cuda.synchronize('cuda:0'); await cuda.synchronize('cuda:1')
        control('${words}')
        console.log(JSON.stringify(await Promise.all([${body}].map(said))))
      })()`
    const { stdout, stderr, status } = spawnSync(process.execPath, ['-e', script], {
      encoding: 'utf8',
      timeout: 20_000,
      env: { ...process.env, CUDASIM_DEVICES: '2', CUDASIM_REPORT: '', CUDASIM_CHECKS: '-initialized' },
    })
    expect([status, stderr]).toEqual([0, ''])
    return JSON.parse(stdout)
  }

  it('of what a kernel that failed should have made is a NativeError there, too', () => {
    const said = heard('failLaunch=1', "x.add(1).to('cuda:1'), x.to('cuda:1').mul(2), x")
    for (const each of said) {
      expect(each).toMatch(/^NativeError: cuda: .* failed: got CUDA_ERROR_LAUNCH_FAILED \(719: /)
    }
  })

  it('from or to a device that is lost is a NativeError', () => {
    for (const lost of [0, 1]) {
      const [copy, ...there] = heard(`lostDevice=${lost}`, "x.to('cuda:1'), x, z") as [string, string, string]
      expect(copy, `cuda:${lost}`).toMatch(/^NativeError: cuda: /)
      expect(there[lost]).toMatch(/^NativeError: cuda: /)
    }
  })
})
