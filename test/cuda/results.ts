// Under `scripts/testCuda.mjs --orders` each test runs once for each seed of GRADUS_CUDA_SEEDS, which is an order of blocks,
// warps and streams in the simulator; ordersRunner.ts repeats it. What it reads of tensors on cuda has to have the same bits
// each time: a hash over the reads is compared, in the order in which they were asked for.

import { createHash } from 'node:crypto'
import { afterEach, beforeEach, expect } from 'vitest'
import { random, Tensor, type TensorData } from '../../lib/index'
import { simulator } from './simulated/simulator'

interface First {
  random: random.RandomState
  read: string
}

const seeds = process.env.GRADUS_CUDA_SEEDS?.split(',')
let reads: (string | Promise<string>)[] = []

// At once: a test may change what it read.
const digest = (read: TensorData): string =>
  createHash('sha256')
    .update(new Uint8Array(read.buffer, read.byteOffset, read.byteLength))
    .digest('hex')

function compare(orders: readonly string[]): void {
  const { data, dataSync } = Tensor.prototype
  Tensor.prototype.data = function (this: Tensor): Promise<TensorData> {
    const read = data.call(this)
    if (this.device.type === 'cuda') reads.push(read.then(digest, () => 'failed'))
    return read
  }
  Tensor.prototype.dataSync = function (this: Tensor): TensorData {
    const read = dataSync.call(this)
    if (this.device.type === 'cuda') reads.push(digest(read))
    return read
  }
  const first = new Map<string, First>()
  beforeEach(({ task }) => {
    const known = first.get(task.id)
    if (known === undefined) first.set(task.id, { random: random.getState(), read: '' })
    else random.setState(known.random)
    simulator.control(`seed=${orders[task.result?.repeatCount ?? 0]}`)
    reads = []
  })
  afterEach(async ({ task }) => {
    const turn = task.result?.repeatCount ?? 0
    const all = await Promise.all(reads)
    const read = `${all.length} reads, ${createHash('sha256').update(all.join()).digest('hex')}`
    const known = first.get(task.id)!
    if (turn === 0) known.read = read
    else expect(read, `the order of blocks and warps by seed ${orders[turn]} shows in what is read`).toBe(known.read)
  })
}

if (seeds !== undefined) compare(seeds)
