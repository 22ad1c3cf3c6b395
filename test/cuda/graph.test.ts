import { Worker } from 'node:worker_threads'
import { describe, expect, it } from 'vitest'
import { amp, cuda, fromTypedArray, ones, optim, random, StateError, type Tensor, tensor, zeros } from '../../lib/index'
import { inUse, makeTraining, type StepOptions, type Training } from './trainingStep'

/** Everything that a step changes, as bytes would show it. */
async function stateOf({ model, optimizer, scaler }: Training): Promise<unknown[]> {
  const { state } = optimizer.stateDict()
  const tensors = [
    ...model.parameters(),
    ...Object.values(state).flatMap((each) => Object.values(each)),
    ...Object.values(scaler.stateDict()),
  ].filter((each): each is Tensor => typeof each === 'object')
  return Promise.all(tensors.map(async (each) => Array.from((await each.data()) as Float32Array)))
}

const numbersOf = async ({ model, optimizer }: Training): Promise<unknown[]> => {
  const states = Object.values(optimizer.stateDict().state).flatMap((each) => Object.values(each))
  return Promise.all([...model.parameters(), ...(states as Tensor[])].map((each) => each.array()))
}

const copyOf = (state: optim.OptimizerState['state']): optim.OptimizerState['state'] =>
  Object.fromEntries(
    Object.entries(state).map(([number, each]) => [
      number,
      Object.fromEntries(Object.entries(each).map(([name, value]) => [name, (value as Tensor).clone()])),
    ]),
  )

const batches = (training: Training, n: number): Tensor[] =>
  Array.from({ length: n }, (_, i) => training.inputIds.add(i + 1).remainder(11))

/** Losses of steps with new inputs and rates, and the state after the last; with a graph each is one launch. */
async function train(options: StepOptions, withGraph: boolean, steps = 20): Promise<unknown> {
  const training = makeTraining(options)
  const { inputIds, optimizer } = training
  const schedule = new optim.LambdaLR(optimizer, (step) => 1 / (1 + step))
  for (let i = 0; i < 2; i++) await training.step()
  const graph = new cuda.CUDAGraph()
  const captured = withGraph ? graph.capture(training.queue) : null
  const losses: number[] = []
  for (const batch of batches(training, steps)) {
    inputIds.copy_(batch)
    if (captured !== null) graph.replay()
    const loss = captured ?? training.queue()
    losses.push(await loss.item())
    schedule.step()
  }
  return { losses, state: await stateOf(training), random: random.getState() }
}

describe('cuda.CUDAGraph', () => {
  it.each([
    ['float32', { dtype: 'float32', dropout: 0.2 }],
    ['float16 with a GradScaler that grows', { dtype: 'float16', dropout: 0.2 }],
  ] as const)(
    'replays training steps in %s to the bit of eager ones, with dropout and a schedule',
    async (_, options) => {
      expect(await train(options, true)).toEqual(await train(options, false))
    },
  )

  it('skips a step that overflows, and backs off', async () => {
    const x = ones([4], { device: 'cuda', requiresGrad: true })
    const factor = ones([], { device: 'cuda' })
    const optimizer = new optim.SGD([x], { lr: 1, momentum: 0.9 })
    const scaler = new amp.GradScaler({ initScale: 4 })
    const step = (): void => {
      optimizer.zeroGrad()
      scaler.scale(x.mul(factor).sum()).backward()
      scaler.step(optimizer)
      scaler.update()
    }
    step()
    const graph = new cuda.CUDAGraph()
    graph.capture(step)
    graph.replay()
    factor.fill_(Number.POSITIVE_INFINITY)
    graph.replay()
    expect([await x.array(), await scaler.getScale()]).toEqual([[-1.9, -1.9, -1.9, -1.9].map(Math.fround), 2])
  })

  it('keeps what it reads, whoever lets go of it, and gives it back', async () => {
    const before = await inUse()
    const graph = new cuda.CUDAGraph()
    const input = tensor([1, 2, 3], { device: 'cuda' })
    const weight = tensor([10, 20, 30], { device: 'cuda' })
    const output = graph.capture(() => input.mul(weight).add(1))
    weight.dispose()
    for (let i = 0; i < 8; i++) zeros([3], { device: 'cuda' }) // takes memory that is free
    graph.replay()
    expect(await output.array()).toEqual([11, 41, 91])
    input.copy_(tensor([0, 1, 0]))
    graph.replay()
    expect(await output.array()).toEqual([1, 21, 1])
    graph.reset()
    expect(await output.array()).toEqual([1, 21, 1])
    expect(() => graph.replay()).toThrow(/^CUDAGraph\.replay: nothing was captured; call capture\(fn\) first\.$/)
    for (const each of [input, output]) each.dispose()
    expect(await inUse()).toBe(before)
  })

  it('says what cannot be captured, and captures afterwards', async () => {
    const x = ones([2], { device: 'cuda' })
    const schedule = new optim.LambdaLR(new optim.SGD([x.clone().requiresGrad_()], { lr: 1 }), () => 0.5)
    const other = new cuda.CUDAGraph()
    other.capture(() => x.mul(2))
    const onHost = ones([2])
    const cases: [string, () => unknown][] = [
      ['read', () => x.sum().itemSync()],
      ['read', () => x.add(1).dataSync()],
      ['synchronize', () => x.device.synchronizeSync()],
      ['upload', () => x.add(fromTypedArray(Float32Array.of(1, 2), [2], { device: 'cuda' }))],
      ['to', () => x.to('cpu')],
      ['Event.record', () => new cuda.Event().record()],
    ]
    for (const [op, fn] of cases) {
      expect(() => new cuda.CUDAGraph().capture(fn), op).toThrow(StateError)
      expect(() => new cuda.CUDAGraph().capture(fn), op).toThrow(`${op}: a graph is being captured on cuda:0`)
    }
    const refused: [RegExp, () => unknown][] = [
      [/^CUDAGraph\.capture: an asynchronous function cannot be captured/, async () => x.add(1)],
      [/^CUDAGraph\.capture: a generator of its own/, () => x.bernoulli({ generator: new random.Generator(1) })],
      [/^CUDAGraph\.capture: a graph is being captured/, () => new cuda.CUDAGraph().capture(() => x.add(1))],
      [/^LambdaLR\.step: in a captured function, a replay moves no schedule on/, () => schedule.step()],
      [/^mine$/, () => raise(new Error('mine'))],
      [/^random\.seed: in a captured function, every replay goes on/, () => random.seed(3)],
      [
        /^read: a graph is being captured on cuda:0/,
        () =>
          void x
            .sum()
            .item()
            .catch(() => {}),
      ],
      [/^random\.uniform: in a captured function, a number drawn for JavaScript/, () => x.mul(random.uniform())],
      [/^CUDAGraph\.replay: a graph is being captured on cuda:0: got the replay of another/, () => other.replay()],
      [/^add: a graph is being captured on cuda:0: got an operation on cpu, which a replay/, () => onHost.add(1)],
    ]
    for (const [message, fn] of refused) expect(() => new cuda.CUDAGraph().capture(fn)).toThrow(message)
    const graph = new cuda.CUDAGraph()
    const y = graph.capture(() => x.add(1))
    expect(() => graph.capture(() => x)).toThrow(/the graph was captured before; reset\(\) it/)
    graph.replay()
    expect(await y.array()).toEqual([2, 2])
  })

  it('goes on with the states that its model, optimizer and scaler load', async () => {
    const run = async (withGraph: boolean): Promise<unknown> => {
      const training = makeTraining({ dtype: 'float16' })
      const { model, optimizer, scaler, queue } = training
      for (let i = 0; i < 2; i++) await training.step()
      const saved = structuredClone(await numbersOf(training))
      const graph = new cuda.CUDAGraph()
      if (withGraph) graph.capture(queue)
      const step = (): void => (withGraph ? graph.replay() : void queue())
      const [weights, states] = [model.stateDict(), optimizer.stateDict()]
      const copies = Object.fromEntries(Object.entries(weights).map(([name, each]) => [name, each.clone()]))
      const copied = { ...states, state: copyOf(states.state) }
      const scale = scaler.stateDict()
      for (let i = 0; i < 3; i++) step()
      model.loadStateDict(copies)
      optimizer.loadStateDict(copied)
      scaler.loadStateDict(scale)
      expect(await numbersOf(training)).toEqual(saved)
      for (let i = 0; i < 4; i++) step() // the scale grows on the way
      return [await numbersOf(training), await scaler.getScale()]
    }
    expect(await run(true)).toEqual(await run(false))
  })

  it('begins anew where a state that its optimizer loads has nothing', async () => {
    const run = async (withGraph: boolean, make: (x: Tensor) => optim.Optimizer): Promise<unknown> => {
      const x = ones([4], { device: 'cuda', requiresGrad: true })
      const optimizer = make(x)
      const step = (): void => {
        optimizer.zeroGrad()
        x.mul(x).sum().backward()
        optimizer.step()
      }
      step()
      const graph = new cuda.CUDAGraph()
      if (withGraph) graph.capture(step)
      const next = (): void => (withGraph ? graph.replay() : step())
      next()
      optimizer.loadStateDict(make(ones([4], { requiresGrad: true })).stateDict())
      for (let i = 0; i < 2; i++) next()
      const { state } = optimizer.stateDict()
      const kept = await Promise.all(Object.values(state[0]!).map((each) => (each as Tensor).array()))
      return [await x.array(), kept]
    }
    for (const make of [
      (x: Tensor) => new optim.SGD([x], { lr: 0.1, momentum: 0.5, dampening: 0.25 }),
      (x: Tensor) => new optim.Adam([x], { lr: 0.1, amsgrad: true }),
      (x: Tensor) => new optim.Adagrad([x], { lr: 0.1, initialAccumulatorValue: 0.5 }),
    ]) {
      expect(await run(true, make)).toEqual(await run(false, make))
    }
  })

  it('ends with the thread that was capturing it', async () => {
    const x = ones([2], { device: 'cuda' })
    const worker = new Worker(
      `const { cuda, ones } = require('./dist')
       const x = ones([2], { device: 'cuda' })
       new cuda.CUDAGraph().capture(() => { x.add(1); process.exit(3) })`,
      { eval: true },
    )
    expect(await new Promise((resolve) => worker.once('exit', resolve))).toBe(3)
    expect(await x.add(1).array()).toEqual([2, 2])
    const graph = new cuda.CUDAGraph()
    const y = graph.capture(() => x.add(2))
    graph.replay()
    expect(await y.array()).toEqual([3, 3])
  })

  it('has no contents before its first replay, for reads and for operations', async () => {
    const x = ones([2], { device: 'cuda' })
    const graph = new cuda.CUDAGraph()
    const y = graph.capture(() => x.add(1))
    const early = /^CUDAGraph: a tensor that a captured function made has no contents: got a use of it before the first/
    await expect(y.array()).rejects.toThrow(early)
    await expect(y.add(1).array()).rejects.toThrow(early)
    graph.replay()
    expect(await y.add(1).array()).toEqual([3, 3])
    graph.reset()
    expect(await y.array()).toEqual([2, 2])
  })

  it('fails what keeps something of a capture that failed, until all of it is written', async () => {
    const parameter = ones([4], { device: 'cuda', requiresGrad: true })
    const optimizer = new optim.AdamW([parameter], { lr: 0.1 })
    const step = (): Tensor => {
      const loss = parameter.square().sum()
      loss.backward()
      optimizer.step()
      return loss
    }
    let made: Tensor | null = null
    const refused = (): unknown =>
      new cuda.CUDAGraph().capture(() => {
        made = parameter.detach().mul(2).keep()
        return step().itemSync()
      })
    expect(refused).toThrow('read: a graph is being captured on cuda:0')
    const never =
      /^CUDAGraph: a tensor that a captured function made has no contents: got one of a graph that was never/
    optimizer.zeroGrad()
    step() // with the states that were made then
    await expect(cuda.synchronize()).rejects.toThrow(never)
    expect(await parameter.array()).toEqual([1, 1, 1, 1])
    await expect(made!.array()).rejects.toThrow(never)
    const again = new cuda.CUDAGraph()
    again.capture(step)
    again.replay()
    await expect(cuda.synchronize()).rejects.toThrow(never)
    const doubled = new cuda.CUDAGraph()
    const y = doubled.capture(() => made!.add(1))
    expect(await parameter.array()).toEqual([1, 1, 1, 1])
    expect(await made!.fill_(3).array()).toEqual([3, 3, 3, 3])
    doubled.replay()
    await expect(cuda.synchronize()).rejects.toThrow('CUDAGraph.replay: a tensor that the graph uses was written anew')
    await expect(y.array()).rejects.toThrow(/^CUDAGraph: a tensor that a captured function made has no contents/)
  })

  it('reports what a replay finds in its data, each time', async () => {
    const index = tensor([0, 1], { device: 'cuda', dtype: 'int64' })
    const rows = ones([2, 3], { device: 'cuda' })
    const graph = new cuda.CUDAGraph()
    const picked = graph.capture(() => rows.indexSelect(0, index))
    graph.replay()
    expect(await picked.sum().item()).toBe(6)
    for (let turn = 0; turn < 2; turn++) {
      index.fill_(7)
      graph.replay()
      await expect(cuda.synchronize()).rejects.toThrow(/indexSelect: index is out of range: got 7/)
      index.fill_(1)
      graph.replay()
      expect(await picked.sum().item()).toBe(6)
    }
  })
})

function raise(error: Error): never {
  throw error
}
