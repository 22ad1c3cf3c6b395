// Datasets that worker threads load by themselves; plain JavaScript, because a thread cannot run TypeScript on every
// supported Node version.

const { threadId } = require('node:worker_threads')

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

/** A sample is its index, as a vector and a number; `ms` is how long the thread sleeps over each. */
class Numbers {
  constructor(length, ms = 0) {
    this.length = length
    this.ms = ms
  }

  get(index, { epoch, random }) {
    if (this.ms > 0) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, this.ms)
    return { x: Float32Array.of(index, index + 0.5), index, epoch, noise: random.uint32(), thread: threadId }
  }

  toWorker() {
    return { module: __filename, name: 'Numbers', args: [this.length, this.ms] }
  }
}

/** Throws, hangs or ends its thread at one index. */
class Faulty {
  constructor(length, at, fault) {
    Object.assign(this, { length, at, fault })
  }

  async get(index) {
    if (index === this.at) {
      if (this.fault === 'throw') throw new RangeError(`no sample ${index}`)
      if (this.fault === 'exit') process.exit(3)
      if (this.fault === 'later') setTimeout(() => explode(index), 1)
      if (this.fault === 'unsendable') return { index: () => index }
      await pause(60_000)
    }
    return { index }
  }

  toWorker() {
    return { module: __filename, name: 'Faulty', args: [this.length, this.at, this.fault] }
  }
}

function explode(index) {
  throw new TypeError(`exploded at ${index}`)
}

/** Counts up; worker w of n gives w, w + n, w + 2n, … below `length`. */
class Counter {
  constructor(length) {
    this.end = length
  }

  async *iterate({ worker }) {
    for (let i = worker.id; i < this.end; i += worker.count) yield { value: i }
  }

  toWorker() {
    return { module: __filename, name: 'Counter', args: [this.end] }
  }
}

/** Made by an asynchronous function instead of a class. */
async function openNumbers(length) {
  await pause(1)
  return new Numbers(length)
}

/** The sum of the samples' indices, collated in the worker. */
function sumIndices(samples) {
  return { sum: samples.reduce((sum, { index }) => sum + index, 0), thread: threadId }
}
sumIndices.toWorker = () => ({ module: __filename, name: 'sumIndices' })

module.exports = { Numbers, Faulty, Counter, openNumbers, sumIndices }
