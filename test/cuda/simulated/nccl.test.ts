// What is left of collectives between several devices when something goes wrong on one of them.
import '../severalDevices'
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { afterEach, describe, expect, it } from 'vitest'
import { cuda, memory, NativeError, OutOfMemoryError, ops, optim, type Tensor, tensor, zeros } from '../../../lib/index'
import { binding, scratch } from '../../../lib/native'
import { numbersOf, worlds } from '../collectives'
import { simulator } from './simulator'

const { nccl } = cuda
const devices = ['cuda:0', 'cuda:1', 'cuda:2'] as const
const synchronize = () => Promise.all(devices.map((device) => cuda.synchronize(device)))
/** On each device the number of its rank and one more. */
const ranked = (ranks = 3, size = 4): Tensor[] =>
  devices.slice(0, ranks).map((device, rank) => zeros([size], { device }).add(rank + 1))
const failed = (index: number, device: (typeof devices)[number]): Tensor =>
  ops.embedding(tensor([1, index], { dtype: 'int64', device }), zeros([4, 2], { device }))

afterEach(() => simulator.control('reset'))

it('has the devices for what nccl.test.ts says of several', () => {
  expect(worlds).toEqual([1, 2, 3])
})

describe('a failure that a kernel finds on one device', () => {
  const elsewhere =
    'nccl.allReduce: it takes what an operation on another device failed to make: got a failure on cuda:1, expected none; the error of cuda:1 says which'

  it('counts on all that a collective brings together, and changes no weight on any of them', async () => {
    const weights = devices.map((device) => zeros([2, 2], { device }).requiresGrad_())
    const optimizers = weights.map((weight) => new optim.AdamW([weight], { lr: 0.1 }))
    const step = (gradients: Tensor[]): void => {
      for (const [rank, weight] of weights.entries()) weight.grad = gradients[rank]!
      nccl.allReduce([gradients[2]!, gradients[0]!, gradients[1]!])
      for (const optimizer of optimizers) optimizer.step()
    }
    const fine = (device: (typeof devices)[number]): Tensor => zeros([2, 2], { device }).add(1)
    const gradients = [fine('cuda:0'), failed(9, 'cuda:1'), fine('cuda:2')]
    step(gradients)
    await expect(gradients[1]!.data()).rejects.toThrow('embedding: index is out of range: got 9 at position 1')
    for (const rank of [0, 2]) {
      await expect(gradients[rank]!.data()).rejects.toThrow(elsewhere)
      await expect(gradients[rank]!.add(1).data()).rejects.toThrow(elsewhere)
    }
    await synchronize()
    for (const weight of weights) expect(numbersOf(weight)).toEqual([0, 0, 0, 0])
    step(devices.map(fine))
    const moved = numbersOf(weights[0]!)
    expect(moved[0]).toBeCloseTo(-0.1, 5)
    for (const weight of weights) expect(numbersOf(weight)).toEqual(moved)
  })

  it('is told to whoever waits for whatever device, and then forgotten', async () => {
    nccl.allReduce([zeros([2, 2], { device: 'cuda:0' }), failed(-3, 'cuda:1')])
    const hear = async (): Promise<string> => {
      const plain = zeros([1], { device: 'cuda:2' })
      return plain.data().then(
        () => 'nothing',
        (error: Error) => error.message,
      )
    }
    const heard = new Set<string>() // each device's own, as soon as it knows of it
    await expect.poll(async () => heard.add(await hear()).size, { timeout: 10_000 }).toBe(3)
    expect([...heard].sort()).toEqual([
      expect.stringContaining('embedding: index is out of range: got -3 at position 1'),
      expect.stringContaining('nccl.allReduce: it takes what an operation on another device failed to make'),
      'nothing',
    ])
    const next = ranked(2)
    nccl.allReduce(next)
    for (const each of next) expect(numbersOf(each)).toEqual([3, 3, 3, 3])
  })

  it('that is known by then fails the outputs with its own error, until they are replaced', async () => {
    const bad = failed(7, 'cuda:1')
    const text = 'embedding: index is out of range: got 7 at position 1'
    await expect(bad.data()).rejects.toThrow(text)
    const good = zeros([2, 2], { device: 'cuda:0' })
    const outputs = [zeros([2, 2], { device: 'cuda:0' }), zeros([2, 2], { device: 'cuda:1' })]
    nccl.allReduce([good, bad], outputs)
    for (const each of outputs) await expect(each.data()).rejects.toThrow(text)
    expect(numbersOf(good)).toEqual([0, 0, 0, 0])
    nccl.allReduce([good, zeros([2, 2], { device: 'cuda:1' }).add(5)], outputs)
    for (const each of outputs) expect(numbersOf(each)).toEqual([5, 5, 5, 5])
  })

  it('does not concern collectives of what cannot depend on it', async () => {
    const bad = failed(8, 'cuda:1')
    const plain = ranked(2)
    nccl.allReduce(plain)
    await expect(bad.data()).rejects.toThrow('got 8')
    for (const each of plain) expect(numbersOf(each)).toEqual([3, 3, 3, 3])
  })
})

describe('a collective', () => {
  it('that lacks an input for want of memory is done on no device', async () => {
    const given = ranked(2)
    await synchronize()
    simulator.control('failAllocation=1 failAllocations=2')
    const lost = given[1]!.add(1)
    nccl.allReduce([given[0]!, lost])
    await expect(given[0]!.data()).rejects.toThrow(OutOfMemoryError)
    await expect(lost.data()).rejects.toThrow(OutOfMemoryError)
    simulator.control('reset')
    expect(numbersOf(given[1]!)).toEqual([2, 2, 2, 2])
    nccl.broadcast([given[1]!, zeros([4], { device: 'cuda:0' })])
  })

  it('finds no memory for a communicator once, and then does', async () => {
    const given = ranked().reverse() // devices that have not met in this order
    await synchronize()
    simulator.control('failAllocation=1')
    nccl.allReduce(given)
    for (const each of given) await expect(each.data()).rejects.toThrow(OutOfMemoryError)
    const next = ranked().reverse()
    nccl.allReduce(next)
    for (const each of next) expect(numbersOf(each)).toEqual([6, 6, 6, 6])
  })

  it('that NCCL refuses fails on every device, names the call, and is the only one', async () => {
    const given = ranked()
    await synchronize()
    simulator.control('failCollective=2')
    nccl.allReduce(given)
    for (const each of given) {
      await expect(each.data()).rejects.toThrow(
        'nccl: ncclAllReduce failed: got "unhandled system error" (2: setting failCollective) from NCCL 2.30.7 (libnccl.so.2); a frequent reason is too little shared memory',
      )
      await expect(each.data()).rejects.toThrow(NativeError)
    }
    const next = ranked()
    nccl.allReduce(next)
    for (const each of next) expect(numbersOf(each)).toEqual([6, 6, 6, 6])
    await synchronize()
  })

  it('behind one that broke fails with what NCCL found, and the next connects anew', async () => {
    const [first, second, third] = [ranked(), ranked(), ranked()]
    simulator.control('breakCollective=1')
    nccl.allReduce(first)
    await first[0]!.data()
    nccl.allReduce(second)
    nccl.allReduce(third)
    for (const each of second) {
      await expect(each.data()).rejects.toThrow(
        'nccl: a collective before this one failed: got "remote process exited or there was a network error" (6: setting breakCollective)',
      )
    }
    for (const each of third) expect(numbersOf(each)).toEqual([6, 6, 6, 6])
  })

  it('takes no memory that it does not give back', async () => {
    const given = ranked(3, 1000)
    const outputs = devices.map((device) => zeros([3000], { device }))
    const round = (): void => {
      nccl.allReduce(given, given, { op: 'avg' })
      nccl.allGather(given, outputs)
    }
    round()
    await synchronize()
    const used = () => devices.map((device) => [memory.allocated(device), memory.reserved(device)])
    const before = used()
    for (let i = 0; i < 300; i++) round()
    await synchronize()
    expect(used()).toEqual(before)
    expect(numbersOf(given[0]!)[0]).toBeCloseTo(2, 5)
  })

  it('checks what only calls past the library could get wrong', () => {
    const [a, b] = ranked(2) as [Tensor, Tensor]
    const matrix = zeros([2, 3], { device: 'cuda:0' })
    const call = (...numbers: number[]): string | undefined => {
      scratch.set(numbers)
      return binding.collective()?.[1]
    }
    const [x, y] = [a._handle, b._handle]
    const odd = zeros([4], { device: 'cpu' })
    const half = b.to('float16')
    const [wide, cut] = [zeros([9], { device: 'cuda:1' }), matrix.transpose(0, 1)]
    const six = zeros([6], { device: 'cuda:1' })
    const calls: [string, number[]][] = [
      ['collective: kind', [5, 0, 0, 0, 1, x, x]],
      ['collective: kind', [Number.NaN, 0, 0, 0, 1, x, x]],
      ['collective: operation', [0, 5, 0, 0, 1, x, x]],
      ['collective: ranks', [0, 0, 0, 0, 17]],
      ['got 0 ranks', [0, 0, 0, 0, 0]],
      ['root 2', [1, 0, 2, 0, 2, x, x, y, y]],
      ['the tensor was released', [0, 0, 0, 0, 1, 12345, x]],
      ['rank 0 has the wrong operands', [0, 0, 0, 0, 1, x, 0]],
      ['rank 0 has the wrong operands', [0, 0, 0, 0, 1, 0, 0]],
      ['rank 1 has the wrong operands', [1, 0, 0, 0, 2, x, x, y, y]],
      ['rank 1 has the wrong operands', [2, 0, 0, 0, 2, x, 0, y, y]],
      ['ranks share a device', [0, 0, 0, 0, 2, x, x, x, x]],
      ['not on one CUDA device', [0, 0, 0, 0, 1, odd._handle, odd._handle]],
      ['not on one CUDA device', [0, 0, 0, 0, 2, x, y, y, x]],
      ['different dtypes', [0, 0, 0, 0, 2, x, x, half._handle, half._handle]],
      ['not of one size', [0, 0, 0, 0, 2, x, x, wide._handle, wide._handle]],
      ['not contiguous', [0, 0, 0, 0, 2, cut._handle, cut._handle, six._handle, six._handle]],
      ['sizes do not fit', [3, 0, 0, 0, 2, x, x, y, y]],
      ['sizes do not fit', [4, 0, 0, 0, 2, x, x, y, y]],
      ['sizes do not fit', [0, 0, 0, 0, 1, wide._handle, y]],
    ]
    for (const [text, numbers] of calls) expect(call(...numbers), String(numbers)).toContain(text)
    expect(call(0, 0, 0, 0, 2, x, x, y, y)).toBeUndefined()
    expect([numbersOf(a), numbersOf(b)]).toEqual([
      [3, 3, 3, 3],
      [3, 3, 3, 3],
    ])
  })
})

describe('collectives of several threads', () => {
  const worker = (body: string, workerData: unknown = null): Worker =>
    new Worker(
      `const { parentPort, workerData } = require('node:worker_threads')
       const { cuda, zeros } = require(${JSON.stringify(join(__dirname, '../../../dist'))})
       const on = (list, value) => list.map((at) => zeros([64], { device: 'cuda:' + at }).add(value))
       ;(async () => { ${body} })()`,
      { eval: true, workerData },
    )
  const answer = (thread: Worker): Promise<unknown> =>
    new Promise((resolve, reject) => {
      thread.once('message', resolve)
      thread.once('error', reject)
    })

  it('over the same and overlapping devices, beside copies between them, wait for each other in no circle', async () => {
    const body = (list: number[]): string => `
      let x = on(${JSON.stringify(list)}, 1)
      for (let i = 0; i < 60; i++) {
        cuda.nccl.allReduce(x, x, { op: 'avg' })
        x = x.map((each, i) => x[(i + 1) % x.length].to(each.device))
      }
      parentPort.postMessage(await Promise.all(x.map((each) => each.mean().item())))`
    const threads = [
      [0, 1],
      [1, 2],
      [2, 0],
      [0, 1, 2],
    ].map((list) => worker(body(list)))
    const mine = ranked()
    for (let i = 0; i < 60; i++) nccl.allReduce(mine, mine, { op: 'avg' })
    expect(await Promise.all(threads.map(answer))).toEqual([
      [1, 1],
      [1, 1],
      [1, 1],
      [1, 1, 1],
    ])
    for (const each of mine) expect(numbersOf(each)[0]).toBeCloseTo(2, 5)
  })

  it('are queued on their devices in one order, as copies between them are', async () => {
    const together = (list: number[]): string => `
      const x = on(${JSON.stringify(list)}, 0).map((each) => each.narrow(0, 0, 0))
      start()
      for (let i = 0; i < 10000; i++) cuda.nccl.broadcast(x)
      for (const each of x) each.device.synchronizeSync()
      parentPort.postMessage('done')`
    const copies = `
      const [x] = on([0], 0).map((each) => each.narrow(0, 0, 0))
      start()
      for (let i = 0; i < 10000; i++) x.to('cuda:1').dispose()
      await cuda.synchronize('cuda:1')
      parentPort.postMessage('done')`
    // two threads at a time, which begin together
    for (const pair of [
      [together([0, 1]), together([1, 0])],
      [together([0, 1]), copies],
    ]) {
      const here = new Int32Array(new SharedArrayBuffer(4))
      const start = 'const start = () => { for (Atomics.add(workerData, 0, 1); Atomics.load(workerData, 0) < 2; ); };'
      const threads = pair.map((body) => worker(start + body, here))
      expect(await Promise.all(threads.map(answer))).toEqual(['done', 'done'])
    }
  }, 30_000)

  it('leave nothing behind when a thread is terminated in mid-step', async () => {
    for (let round = 0; round < 5; round++) {
      const busy = worker(`const x = on([0, 1, 2], 1); parentPort.postMessage('busy')
                           for (;;) cuda.nccl.allReduce(x, x, { op: 'avg' })`)
      await answer(busy)
      await busy.terminate()
    }
    const next = ranked()
    nccl.allReduce(next)
    for (const each of next) expect(numbersOf(each)).toEqual([6, 6, 6, 6])
  })
})

describe('a process', () => {
  const run = (body: string, words = ''): unknown => {
    const script = `
      const { cuda, ones } = require('./dist')
      const { control } = require('./build/cudasim/lib/cudasim.node')
      const said = async (f) => { try { return await f() } catch (e) { return [e.name, e.message] } }
      const x = ['cuda:0', 'cuda:1'].map((device) => ones([4], { device }))
      ;(async () => { await cuda.synchronize('cuda:0'); await cuda.synchronize('cuda:1'); control('progress=1 ${words}'); ${body} })()`
    const { stdout, stderr, status } = spawnSync(process.execPath, ['-e', script], {
      encoding: 'utf8',
      timeout: 20_000,
      env: { ...process.env, CUDASIM_DEVICES: '2', CUDASIM_REPORT: '' },
    })
    expect([status, stderr]).toEqual([0, ''])
    return stdout === '' ? null : JSON.parse(stdout)
  }

  it('ends with collectives under way', () => {
    run(`for (let i = 0; i < 200; i++) cuda.nccl.allReduce(x, x, { op: 'avg' }); process.exit()`)
    run(`for (let i = 0; i < 200; i++) cuda.nccl.allReduce(x, x, { op: 'avg' })`)
  })

  it('hears of a kernel that failed before one, on every device, and ends', () => {
    const said = run(
      `const y = x[0].add(1); cuda.nccl.allReduce([y, x[1]])
       console.log(JSON.stringify([await said(() => y.data()), await said(() => x[1].data())]))`,
      'failLaunch=1',
    ) as string[][]
    for (const [name, message] of said) {
      expect(name).toBe('NativeError')
      expect(message).toMatch(/^cuda: .* failed: got CUDA_ERROR_LAUNCH_FAILED \(719: /)
    }
  })

  it('hears of a device that is lost', () => {
    const said = run(
      `cuda.nccl.allReduce(x); console.log(JSON.stringify([await said(() => x[0].data()), await said(() => x[1].data())]))`,
      'lostDevice=1',
    ) as string[][]
    for (const [name] of said) expect(name).toBe('NativeError')
  })
})
