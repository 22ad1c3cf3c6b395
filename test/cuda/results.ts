// Records what each test reads of tensors on cuda, for `scripts/testCuda.mjs --orders` to compare between runs: a line of
// JSON a test in the file GRADUS_CUDA_RESULTS, with a hash over the reads in the order in which they were asked for.

import { createHash } from 'node:crypto'
import { appendFileSync } from 'node:fs'
import { basename } from 'node:path'
import { afterEach, beforeEach, expect } from 'vitest'
import { Tensor, type TensorData } from '../../lib/index'

const file = process.env.GRADUS_CUDA_RESULTS
let reads: (string | Promise<string>)[] = []

// At once: a test may change what it read.
const digest = (read: TensorData): string =>
  createHash('sha256')
    .update(new Uint8Array(read.buffer, read.byteOffset, read.byteLength))
    .digest('hex')

function record(to: string): void {
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
  beforeEach(() => {
    reads = []
  })
  afterEach(async () => {
    const all = await Promise.all(reads)
    const { testPath = '', currentTestName } = expect.getState()
    const hash = createHash('sha256').update(all.join()).digest('hex')
    const line = { test: `${basename(testPath)}: ${currentTestName}`, reads: all.length, hash }
    appendFileSync(to, `${JSON.stringify(line)}\n`)
  })
}

if (file !== undefined) record(file)
