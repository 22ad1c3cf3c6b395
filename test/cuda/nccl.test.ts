// Collectives between the devices of this machine against float64; the simulator has three. A card need not have NCCL:
// ncclCalls.test.ts is about that, and about what is refused.
import './severalDevices'
import { describe, expect, it } from 'vitest'
import { cuda, type DType, device, nn, noGrad, ops, optim, type Tensor, tensor, zeros } from '../../lib/index'
import { expectReduced, filled, numbersOf, reduceOps, spreadOut, worlds } from './collectives'
import { all, floats } from './support'

const { nccl } = cuda
const hasLibrary = nccl.isAvailable([])
const opsOf = (dtype: DType) => reduceOps.filter((op) => dtype !== 'bool' || op !== 'avg')
const shapes = [[], [7], [3, 43], [0, 5], [2, 517]] as const
const blanks = (ranks: number, shape: readonly number[], dtype: DType): Tensor[] =>
  Array.from({ length: ranks }, (_, rank) => zeros(shape, { dtype, device: `cuda:${rank}` }))
/** Rows 1 and on of a larger tensor. */
const windows = (tensors: readonly Tensor[]): Tensor[] =>
  spreadOut(tensors).map((x) => {
    const around = zeros([x.shape[0]! + 2, ...x.shape.slice(1)], { dtype: x.dtype, device: x.device })
    return around.narrow(0, 1, x.shape[0]!).copy_(x)
  })

describe.runIf(hasLibrary)('collectives', () => {
  it.each(all)('reduce to every device, into other tensors and in place: %s', (dtype) => {
    for (const ranks of worlds) {
      for (const shape of shapes) {
        for (const op of opsOf(dtype)) {
          const what = `${op} of ${ranks} ${dtype} [${shape}]`
          const inputs = filled(ranks, shape, dtype)
          const given = spreadOut(inputs)
          const outputs = blanks(ranks, shape, dtype)
          nccl.allReduce(given, outputs, { op })
          for (const [rank, each] of outputs.entries()) expectReduced(each, inputs, op, `${what}, rank ${rank}`)
          for (const [rank, each] of given.entries()) expect(numbersOf(each), what).toEqual(numbersOf(inputs[rank]!))
          nccl.allReduce(given, undefined, { op })
          for (const each of given) expectReduced(each, inputs, op, `${what} in place`)
        }
      }
    }
  })

  it('sum where nothing is said, and take parts of larger tensors, whose neighbours stay', () => {
    for (const ranks of worlds) {
      const inputs = filled(ranks, [4, 5], 'float32')
      const parts = windows(inputs)
      nccl.allReduce(parts)
      for (const part of parts) {
        expectReduced(part, inputs, 'sum', `${ranks} ranks`)
        const around = numbersOf(part._base!)
        expect([...around.slice(0, 5), ...around.slice(-5)]).toEqual(Array(10).fill(0))
      }
    }
  })

  it.each(all)('reduce to the root alone: %s', (dtype) => {
    for (const ranks of worlds) {
      for (let root = 0; root < ranks; root++) {
        for (const op of opsOf(dtype)) {
          const what = `${op} of ${ranks}, root ${root}`
          const inputs = filled(ranks, [3, 43], dtype)
          const given = spreadOut(inputs)
          const output = zeros([3, 43], { dtype, device: `cuda:${root}` })
          nccl.reduce(given, { output, root, op })
          expectReduced(output, inputs, op, what)
          for (const [rank, each] of given.entries()) expect(numbersOf(each), what).toEqual(numbersOf(inputs[rank]!))
          nccl.reduce(given, { root, op })
          expectReduced(given[root]!, inputs, op, `${what} in place`)
          for (const [rank, each] of given.entries()) {
            if (rank !== root) expect(numbersOf(each), what).toEqual(numbersOf(inputs[rank]!))
          }
        }
      }
    }
  })

  it.each(all)('copy the root to all: %s', (dtype) => {
    for (const ranks of worlds) {
      for (let root = 0; root < ranks; root++) {
        const inputs = filled(ranks, [2, 517], dtype)
        const given = spreadOut(inputs)
        nccl.broadcast(given, root)
        for (const each of given) expect(numbersOf(each)).toEqual(numbersOf(inputs[root]!))
      }
    }
  })

  it.each(all)('gather all inputs on every device: %s', (dtype) => {
    for (const ranks of worlds) {
      const inputs = filled(ranks, [3, 7], dtype)
      const wanted = inputs.flatMap(numbersOf)
      const outputs = blanks(ranks, [ranks, 3, 7], dtype)
      nccl.allGather(spreadOut(inputs), outputs)
      for (const each of outputs) expect(numbersOf(each), `${ranks} ranks`).toEqual(wanted)
      const wholes = blanks(ranks, [3 * ranks, 7], dtype)
      const parts = spreadOut(inputs).map((x, rank) => wholes[rank]!.narrow(0, 3 * rank, 3).copy_(x))
      nccl.allGather(parts, wholes)
      for (const each of wholes) expect(numbersOf(each), `${ranks} ranks in place`).toEqual(wanted)
    }
  })

  it.each(all)('reduce to parts, one on each device: %s', (dtype) => {
    for (const ranks of worlds) {
      for (const op of opsOf(dtype)) {
        const inputs = filled(ranks, [3 * ranks, 7], dtype)
        const given = spreadOut(inputs)
        const outputs = blanks(ranks, [3, 7], dtype)
        nccl.reduceScatter(given, outputs, { op })
        const parts = given.map((x, rank) => x.narrow(0, 3 * rank, 3))
        nccl.reduceScatter(given, parts, { op })
        for (let rank = 0; rank < ranks; rank++) {
          const what = `${op} of ${ranks}, rank ${rank}`
          expectReduced(outputs[rank]!, inputs, op, what, 21 * rank)
          expectReduced(parts[rank]!, inputs, op, `${what} in place`, 21 * rank)
        }
      }
    }
  })

  it('stand in the order of what else is queued on each device', () => {
    for (const ranks of worlds) {
      const numbers = Array.from({ length: ranks }, (_, rank) => rank + 1)
      const on = numbers.map((value, rank) => zeros([33], { dtype: 'float64', device: `cuda:${rank}` }).add(value))
      for (let round = 0; round < 12; round++) {
        for (const [rank, x] of on.entries()) x.mul_(rank + 0.5).add_(round)
        nccl.allReduce(on, on, { op: round % 3 === 0 ? 'max' : 'avg' })
        for (const [rank, x] of on.entries()) x.sub_(rank)
        const before = numbers.map((value, rank) => value * (rank + 0.5) + round)
        const met = round % 3 === 0 ? Math.max(...before) : before.reduce((a, b) => a + b, 0) / ranks
        for (let rank = 0; rank < ranks; rank++) numbers[rank] = met - rank
      }
      for (const [rank, x] of on.entries()) {
        for (const value of numbersOf(x)) expect(value).toBeCloseTo(numbers[rank]!, 8)
      }
    }
  })

  it('follow lists of devices in any order, which may overlap', () => {
    const count = worlds.at(-1)!
    const lists =
      count < 3
        ? [worlds.map((_, i) => i)]
        : [
            [0, 1],
            [1, 2],
            [2, 0],
            [2, 1, 0],
            [1, 0],
          ]
    for (let round = 0; round < 5; round++) {
      for (const list of lists) {
        const inputs = list.map((at, rank) => tensor([at, 10 * rank + round]))
        const outputs = list.map((at) => zeros([2 * list.length], { device: `cuda:${at}` }))
        nccl.allGather(
          inputs.map((x, rank) => x.to(`cuda:${list[rank]!}`)),
          outputs,
        )
        for (const each of outputs) expect(numbersOf(each)).toEqual(inputs.flatMap(numbersOf))
      }
    }
  })

  it('give a step over parts of a batch the gradients of the whole, and every device the same weights', async () => {
    const build = () => new nn.Sequential(new nn.Linear(6, 16), new nn.GELU(), new nn.Linear(16, 3))
    const whole = build()
    for (const ranks of worlds) {
      const replicas = Array.from({ length: ranks }, (_, rank) => build().to(`cuda:${rank}`))
      const one = build().to('cuda')
      one.loadStateDict(whole.stateDict())
      replicas[0]!.loadStateDict(whole.stateDict())
      const parameters = replicas.map((replica) => replica.parameters())
      const eachOf = (visit: (tensors: Tensor[]) => void): void => {
        for (let i = 0; i < parameters[0]!.length; i++) visit(parameters.map((list) => list[i]!))
      }
      noGrad(() => eachOf((tensors) => nccl.broadcast(tensors)))
      const optimizers = [...replicas, one].map((each) => new optim.AdamW(each.parameters(), { lr: 0.01 }))
      const [x] = filled(1, [4 * ranks, 6], 'float32') as [Tensor]
      const [y] = filled(1, [4 * ranks, 3], 'float32') as [Tensor]
      const backward = (model: nn.Sequential, first: number, rows: number): void => {
        const at = model.parameters()[0]!.device
        const [input, target] = [x.narrow(0, first, rows).to(at), y.narrow(0, first, rows).to(at)]
        model.forward(input).sub(target).square().mean().backward()
      }
      for (let step = 0; step < 3; step++) {
        for (const optimizer of optimizers) optimizer.zeroGrad()
        for (const [rank, replica] of replicas.entries()) backward(replica, 4 * rank, 4)
        eachOf((tensors) => {
          const grads = tensors.map(({ grad }) => grad!)
          nccl.allReduce(grads, grads, { op: 'avg' })
        })
        backward(one, 0, 4 * ranks)
        for (const [i, { grad }] of one.parameters().entries()) {
          const wanted = numbersOf(grad!)
          for (const list of parameters) {
            for (const [j, value] of numbersOf(list[i]!.grad!).entries()) expect(value).toBeCloseTo(wanted[j]!, 5)
          }
        }
        for (const optimizer of optimizers) optimizer.step()
      }
      eachOf(([first, ...others]) => {
        for (const other of others) expect(numbersOf(other)).toEqual(numbersOf(first!))
      })
    }
    await cuda.synchronize()
  })

  it('take their floats as they are: a sum that float16 cannot hold is infinite', () => {
    for (const ranks of worlds.filter((n) => n > 1)) {
      for (const dtype of floats) {
        const large = Array.from({ length: ranks }, (_, rank) =>
          zeros([3], { dtype, device: `cuda:${rank}` }).fill_(40000),
        )
        nccl.allReduce(large)
        const wanted = dtype === 'float16' ? Infinity : 40000 * ranks
        for (const each of large)
          expect(Math.abs(numbersOf(each)[0]! / wanted - 1) < 0.01 || numbersOf(each)[0] === wanted).toBe(true)
      }
    }
  })

  it('return when they are queued', async () => {
    const on = worlds.map((_, rank) => zeros([128, 128], { device: `cuda:${rank}` }).add(1))
    const before = on.map((x) => x.matmul(x).matmul(x))
    const event = new cuda.Event()
    nccl.allReduce(before)
    event.record()
    expect(event.query()).toBe(false)
    await event.synchronize()
    expect(await before[0]!.mean().item()).toBe(worlds.length * 128 * 128)
  })

  it('fail late with what they read, and let go of it', async () => {
    const bad = ops.embedding(tensor([1, 9], { dtype: 'int64', device: 'cuda' }), zeros([4, 2], { device: 'cuda' }))
    const output = zeros([2, 2], { device: 'cuda' })
    nccl.allReduce([bad], [output])
    const text = 'embedding: index is out of range: got 9'
    await expect(output.data()).rejects.toThrow(text)
    await expect(output.data()).rejects.toThrow(text)
    nccl.allReduce([zeros([2, 2], { device: 'cuda' }).add(3)], [output])
    expect(await output.array()).toEqual([
      [3, 3],
      [3, 3],
    ])
    await device('cuda').synchronize()
  })
})
