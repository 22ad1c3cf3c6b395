// Keeps worker threads busy ahead of the consumer, and hands their batches over in the order of one thread.

import type { Pass } from './fetch'
import type { Answer, WorkerPool } from './pool'

/** @internal Batches of a map-style dataset. Whichever worker is idle takes the next list of indices. */
export async function* prefetchIndexed(
  pool: WorkerPool,
  batches: Iterable<readonly number[] | number>,
  pass: Pass,
  depth: number,
): AsyncGenerator<unknown, void> {
  const source = batches[Symbol.iterator]()
  const queue: Promise<Answer>[] = []
  const fill = () => {
    while (queue.length < depth) {
      const { value: indices, done } = source.next()
      if (done) return
      queue.push(pool.request({ kind: 'batch', pass, indices }))
    }
  }
  try {
    fill()
    while (queue.length > 0) {
      const { value } = await pool.wait(queue.shift()!)
      // Before the consumer gets this one, so that the workers do not wait for its training step.
      fill()
      yield value
    }
  } finally {
    source.return?.()
  }
}

/** @internal Where a pass over an iterable dataset stands: batches taken from each worker, and whose turn it is. */
export interface StreamPosition {
  delivered: number[]
  turn: number
}

/** @internal Batches of an iterable dataset: one from each worker in turn, leaving out those that have ended. */
export async function* prefetchStreams(
  pool: WorkerPool,
  position: StreamPosition,
  options: Pass & { batchSize: number | null; dropLast: boolean },
  depth: number,
): AsyncGenerator<unknown, void> {
  const queues = position.delivered.map((skip, id) => {
    const stream = { ...options, skip, worker: { id, count: pool.size } }
    const begun = pool.request({ kind: 'stream', stream }, id)
    const ahead = Array.from({ length: depth }, () => pool.request({ kind: 'next' }, id))
    return { begun, ahead, ended: false }
  })
  for (const { begun } of queues) await pool.wait(begun)
  while (queues.some(({ ended }) => !ended)) {
    const id = position.turn
    const queue = queues[id]!
    if (!queue.ended) {
      const answer = await pool.wait(queue.ahead.shift()!)
      if (answer.done) queue.ended = true
      else {
        queue.ahead.push(pool.request({ kind: 'next' }, id))
        position.delivered[id]!++
        position.turn = (id + 1) % pool.size
        yield answer.value
        continue
      }
    }
    position.turn = (id + 1) % pool.size
  }
}
