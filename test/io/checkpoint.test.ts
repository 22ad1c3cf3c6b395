import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { DataLoader } from '../../lib/data/index'
import {
  ArgumentError,
  FileError,
  full,
  io,
  models,
  nn,
  optim,
  random,
  ShapeError,
  StateError,
  type Tensor,
  tensor,
} from '../../lib/index'

const root = mkdtempSync(join(tmpdir(), 'gradus-checkpoint-'))
afterAll(() => rmSync(root, { recursive: true }))
const fresh = () => mkdtempSync(join(root, 'run-'))

/** Something with a state, which keeps what it is given. */
class Part {
  constructor(public state: object) {}
  stateDict() {
    return this.state
  }
  loadStateDict(state: object) {
    this.state = state
  }
}

const valuesOf = async (part: Part) => Array.from((await (part.state as { w: Tensor }).w.data()) as Float32Array)
const model = (value: number) => new Part({ w: full([3], value) })

describe('checkpoint', () => {
  it('restores tensors and values of every kind', async () => {
    const folder = fresh()
    const shared = { $odd: 1, 'a.b': tensor([1]), a: { b: tensor([2]) } }
    const optimizer = new Part({
      groups: [{ lr: 1e-3, betas: [0.9, 0.999], fused: true, name: null }],
      state: new Map<unknown, unknown>([
        [0, { step: 12, mean: tensor([1, 2], { dtype: 'float64' }) }],
        ['w', new Map()],
      ]),
      limits: [Number.NaN, Infinity, -Infinity, -0, 2n ** 70n],
      seed: new Uint32Array([1, 2 ** 32 - 1]),
      empty: new Float32Array(0),
      left: undefined,
      shared,
    })
    const path = await io.saveCheckpoint(
      folder,
      { model: model(4), optimizer },
      { step: 12, extra: { note: 'ü', w: tensor([5]) } },
    )
    expect(path).toBe(join(folder, 'step-00000012'))
    expect(readdirSync(path).sort()).toEqual(['checkpoint.json', 'model.safetensors', 'training.safetensors'])

    const again = { model: model(0), optimizer: new Part({}) }
    const loaded = await io.loadCheckpoint(folder, again)
    expect([loaded.step, loaded.path, await valuesOf(again.model)]).toEqual([12, path, [4, 4, 4]])
    const extra = loaded.extra as { note: string; w: Tensor }
    expect([extra.note, await extra.w.array()]).toEqual(['ü', [5]])

    const state = again.optimizer.state as Record<string, unknown>
    expect(state.groups).toEqual([{ lr: 1e-3, betas: [0.9, 0.999], fused: true, name: null }])
    expect(state.limits).toEqual([Number.NaN, Infinity, -Infinity, -0, 2n ** 70n])
    expect([state.seed, state.empty, 'left' in state]).toEqual([
      new Uint32Array([1, 2 ** 32 - 1]),
      new Float32Array(0),
      false,
    ])
    const entries = state.state as Map<unknown, { step: number; mean: Tensor }>
    expect([...entries.keys()]).toEqual([0, 'w'])
    expect([entries.get(0)!.step, entries.get(0)!.mean.dtype, await entries.get(0)!.mean.array()]).toEqual([
      12,
      'float64',
      [1, 2],
    ])
    const restored = state.shared as typeof shared
    expect([restored.$odd, await restored['a.b'].array(), await restored.a.b.array()]).toEqual([1, [1], [2]])
  })

  it('training that was stopped and resumed gives the bits of training that was not', async () => {
    const folder = fresh()
    class Scale extends nn.Module {
      weight = new nn.Parameter(tensor([0.5, -1.5, 2]))
      forward(x: Tensor): Tensor {
        return this.weight.mul(this.weight).mul(x)
      }
    }
    const make = () => {
      const model = new Scale()
      const optimizer = new optim.AdamW(model.parameters(), { lr: 0.1, weightDecay: 0.01 })
      const schedule = optim.linearWarmup(optimizer, { warmupSteps: 2, totalSteps: 9 })
      return { model, optimizer, schedule }
    }
    const train = ({ model, optimizer, schedule }: ReturnType<typeof make>, steps: number) => {
      for (let i = 0; i < steps; i++) {
        optimizer.zeroGrad()
        model.forward(full([3], random.uniform())).backward({ gradient: full([3], 1) })
        optimizer.step()
        schedule.step()
      }
    }
    random.seed(3)
    const whole = make()
    train(whole, 4)
    await io.saveCheckpoint(folder, whole, { step: 4 })
    train(whole, 3)

    random.seed(99)
    const resumed = make()
    await io.loadCheckpoint(folder, resumed)
    train(resumed, 3)
    expect(await resumed.model.weight.data()).toEqual(await whole.model.weight.data())
    expect(resumed.schedule.getLastLr()).toEqual(whole.schedule.getLastLr())
  })

  it('brings back the random numbers', async () => {
    const folder = fresh()
    random.seed(77)
    random.uniform()
    await io.saveCheckpoint(folder, { model: model(1) }, { step: 1 })
    const next = [random.uniform(), random.uniform()]
    random.seed(1)
    await io.loadCheckpoint(folder, { model: model(1) })
    expect([random.uniform(), random.uniform()]).toEqual(next)
  })

  it('the model is a file that other programs read; files lie beside it', async () => {
    const folder = fresh()
    const path = await io.saveCheckpoint(folder, { model: model(1) }, { step: 0, files: { 'config.json': '{"a":1}' } })
    expect(Object.keys(await io.loadFile(join(path, 'model.safetensors')))).toEqual(['w'])
    expect(readFileSync(join(path, 'config.json'), 'utf8')).toBe('{"a":1}')
  })

  it('a DataLoader continues where it stood', async () => {
    const folder = fresh()
    const samples = Array.from({ length: 9 }, (_, i) => i)
    const make = () => new DataLoader(samples, { batchSize: 2, shuffle: true, seed: 3 })
    const take = async (loader: AsyncIterable<Tensor>, count: number) => {
      const taken: unknown[] = []
      for await (const batch of loader) if (taken.push(await batch.array()) === count) break
      return taken
    }
    const whole = await take(make(), 5)
    const first = make()
    const start = await take(first, 2)
    await io.saveCheckpoint(folder, { loader: first }, { step: 2 })
    const second = make()
    await io.loadCheckpoint(folder, { loader: second })
    expect([...start, ...(await take(second, 5))]).toEqual(whole)
  })

  it('keeps the new one and those written last before it, whatever their steps', async () => {
    const folder = fresh()
    for (const [age, step] of [5, 100_000_000, 20, 10].entries()) {
      const path = await io.saveCheckpoint(folder, { model: model(step) }, { step, keepLast: 2 })
      expect(await io.loadCheckpoint(path, {})).toMatchObject({ step, path })
      utimesSync(join(path, 'checkpoint.json'), 1000 + age, 1000 + age)
    }
    expect(readdirSync(folder).sort()).toEqual(['step-00000010', 'step-00000020'])
    expect(await io.latestCheckpoint(folder)).toBe(join(folder, 'step-00000020'))
    const old = model(0)
    expect((await io.loadCheckpoint(join(folder, 'step-00000010'), { model: old })).step).toBe(10)
    expect(await valuesOf(old)).toEqual([10, 10, 10])
    const only = await io.saveCheckpoint(folder, { model: model(1) }, { step: 1, keepLast: 1 })
    expect(readdirSync(folder)).toEqual(['step-00000001'])
    expect(await io.latestCheckpoint(folder)).toBe(only)
  })

  it('processes that save in one folder at the same time do not trip over what the other deleted', async () => {
    const folder = fresh()
    const save = (step: number) => io.saveCheckpoint(folder, { model: model(step) }, { step, keepLast: 1 })
    for (let step = 0; step < 60; step += 6) {
      await Promise.all([0, 1, 2, 3, 4, 5].map((i) => save(step + i)))
    }
    expect(readdirSync(folder).length).toBeGreaterThan(0)
  })

  it('replaces the checkpoint of the same step', async () => {
    const folder = fresh()
    for (const value of [1, 2, 3]) await io.saveCheckpoint(folder, { model: model(value) }, { step: 7 })
    expect(readdirSync(folder)).toEqual(['step-00000007'])
    const restored = model(0)
    await io.loadCheckpoint(folder, { model: restored })
    expect(await valuesOf(restored)).toEqual([3, 3, 3])
  })

  it('a crash while a step is replaced leaves the one that was there', async () => {
    const folder = fresh()
    const path = await io.saveCheckpoint(folder, { model: model(1) }, { step: 7 })
    renameSync(path, `${path}.replaced`)
    const restored = model(0)
    await io.loadCheckpoint(folder, { model: restored })
    expect(await valuesOf(restored)).toEqual([1, 1, 1])
    cpSync(`${path}.replaced`, path, { recursive: true })
    expect(await io.latestCheckpoint(folder)).toBe(path)
    await io.saveCheckpoint(folder, { model: model(2) }, { step: 8 })
    expect(readdirSync(folder).sort()).toEqual(['step-00000007', 'step-00000008'])
  })

  it('removes what a dead process left, once it is old', async () => {
    const folder = fresh()
    const abandoned = join(folder, '.step-00000001.999999999-00aa11bb22cc.tmp')
    mkdirSync(abandoned)
    await io.saveCheckpoint(folder, { model: model(1) }, { step: 1 })
    expect(readdirSync(folder)).toHaveLength(2)
    utimesSync(abandoned, 0, 0)
    await io.saveCheckpoint(folder, { model: model(1) }, { step: 2 })
    expect(readdirSync(folder).sort()).toEqual(['step-00000001', 'step-00000002'])
  })

  it.each(['next', 'same'])('a process killed in mid-write leaves a whole checkpoint (%s step)', async (mode) => {
    const folder = fresh()
    let kills = 0
    for (const delay of [0, 1, 3, 7, 12, 20, 31]) {
      const child = spawn(process.execPath, [join(__dirname, 'saveForever.cjs'), folder, mode], {
        stdio: ['ignore', 'pipe', 'inherit'],
      })
      await once(child.stdout, 'data')
      await new Promise((resolve) => setTimeout(resolve, delay))
      child.kill('SIGKILL')
      await once(child, 'exit')
      kills += readdirSync(folder).some((name) => name.endsWith('.tmp')) ? 1 : 0

      const parts = { model: new Part({}), ema: new Part({}), optimizer: new Part({}) }
      const { extra } = await io.loadCheckpoint(folder, parts)
      const { n } = extra as { n: number }
      for (const part of Object.values(parts)) {
        const values = await (part.state as { values: Tensor }).values.data()
        expect(new Set(values as Float32Array)).toEqual(new Set([n]))
      }
      expect((parts.optimizer.state as { n: number }).n).toBe(n)
    }
    // At least one of them was killed while it wrote.
    expect(kills).toBeGreaterThan(0)
  })

  it('changes nothing when the file is damaged or lacks a part', async () => {
    const folder = fresh()
    const path = await io.saveCheckpoint(folder, { model: model(1), ema: model(2) }, { step: 3 })
    const restored = { model: model(0), other: model(0) }
    await expect(io.loadCheckpoint(folder, restored)).rejects.toThrow(ArgumentError)
    await expect(io.loadCheckpoint(folder, restored)).rejects.toThrow(
      `${path} lacks a part: got other, expected model, ema.`,
    )
    truncateSync(join(path, 'ema.safetensors'), 40)
    const both = { model: model(0), ema: model(0) }
    await expect(io.loadCheckpoint(folder, both)).rejects.toThrow(
      /ema\.safetensors is damaged: got 40 bytes, expected \d+ bytes; load an older/,
    )
    expect(await valuesOf(both.model)).toEqual([0, 0, 0])
    writeFileSync(join(path, 'checkpoint.json'), '{"format":"other"}')
    await expect(io.loadCheckpoint(folder, both)).rejects.toThrow('is not a checkpoint of this version: got "other"')
    writeFileSync(join(path, 'checkpoint.json'), '{')
    await expect(io.loadCheckpoint(folder, both)).rejects.toThrow(FileError)
  })

  it('changes nothing when a part refuses its state', async () => {
    const folder = fresh()
    const step = (model: nn.Linear, optimizer: optim.Optimizer) => {
      model
        .forward(full([1, 3], 1))
        .sum()
        .backward()
      optimizer.step()
    }
    const saved = new nn.Linear(3, 2)
    const adam = new optim.AdamW(saved.parameters())
    step(saved, adam)
    await io.saveCheckpoint(folder, { model: saved, ema: model(3), optimizer: adam }, { step: 1 })

    const mine = new nn.Linear(3, 2)
    const own = new optim.AdamW(mine.parameters(), { lr: 0.5 })
    step(mine, own)
    const other = new nn.Linear(4, 2)
    const ema = model(1)
    const look = async () => ({
      weight: await mine.weight.array(),
      average: await (own.stateDict().state[0]!.expAvg as Tensor).array(),
      lr: own.paramGroups[0]!.lr,
      ema: await valuesOf(ema),
      random: random.getState(),
    })
    const before = await look()
    const sgd = new optim.SGD(mine.parameters(), { lr: 0.1 })
    await expect(io.loadCheckpoint(folder, { model: mine, optimizer: sgd })).rejects.toThrow(StateError)
    expect(await look()).toEqual(before)
    await expect(io.loadCheckpoint(folder, { optimizer: own, ema, model: other })).rejects.toThrow(ShapeError)
    expect(await look()).toEqual(before)
    const refusing = new Part({})
    refusing.loadStateDict = () => {
      throw new Error('no')
    }
    await io.saveCheckpoint(folder, { model: saved, ema: model(3), optimizer: adam, refusing }, { step: 2 })
    await expect(io.loadCheckpoint(folder, { model: mine, ema, optimizer: own, refusing })).rejects.toThrow('no')
    expect(await look()).toEqual(before)
    await io.loadCheckpoint(folder, { model: mine, ema, optimizer: own })
    expect(await mine.weight.array()).toEqual(await saved.weight.array())
    expect(await valuesOf(ema)).toEqual([3, 3, 3])
  })

  it('a model whose head the writer stored twice is checked without it', async () => {
    const gpt = () => new models.GPT({ vocabSize: 5, nLayer: 1, nHead: 1, nEmbd: 8, blockSize: 4 })
    const folder = fresh()
    const [from, to] = [gpt(), gpt()]
    const state = from.stateDict()
    const twice = new Part({ ...state, 'lm_head.weight': state['transformer.wte.weight'] })
    await io.saveCheckpoint(folder, { model: twice }, { step: 1 })
    await io.loadCheckpoint(folder, { model: to })
    expect(await to.transformer.wte.weight.array()).toEqual(await from.transformer.wte.weight.array())
  })

  it('says when there is none', async () => {
    expect(await io.latestCheckpoint(join(root, 'nowhere'))).toBe(null)
    await expect(io.loadCheckpoint(join(root, 'nowhere'), {})).rejects.toThrow('io.loadCheckpoint: cannot read')
    const folder = fresh()
    expect(await io.latestCheckpoint(folder)).toBe(null)
    await expect(io.loadCheckpoint(folder, {})).rejects.toThrow(
      `io.loadCheckpoint: no checkpoint in ${folder}: expected a folder with step-`,
    )
  })

  it('refuses states and arguments that cannot be saved, and leaves nothing', async () => {
    const folder = fresh()
    const save = (state: object, options: object = {}) =>
      io.saveCheckpoint(folder, { optimizer: new Part(state) }, { step: 1, ...options })
    await expect(save({ hook: () => 1 })).rejects.toThrow(
      'io.saveCheckpoint: optimizer.hook cannot be saved: got a function',
    )
    await expect(save({ a: [new Date()] })).rejects.toThrow('optimizer.a.0 cannot be saved: got a Date')
    const cycle: { self?: object } = {}
    cycle.self = cycle
    await expect(save(cycle)).rejects.toThrow('optimizer.self contains itself; break the cycle')
    await expect(save({}, { step: -1 })).rejects.toThrow('step is out of range: got -1')
    await expect(save({}, { keepLast: 0 })).rejects.toThrow('keepLast is out of range: got 0')
    await expect(save({}, { files: { '../x': '' } })).rejects.toThrow('a file cannot have this name: got "../x"')
    await expect(io.saveCheckpoint(folder, { extra: new Part({}) }, { step: 1 })).rejects.toThrow(
      'a part cannot have this name',
    )
    await expect(io.saveCheckpoint(folder, { model: {} as Part }, { step: 1 })).rejects.toThrow(
      'model has no state: got an object',
    )
    await expect(io.saveCheckpoint(folder, null as never, { step: 1 })).rejects.toThrow('no parts: got null')
    await expect(io.saveCheckpoint(folder, {}, undefined as never)).rejects.toThrow('the options are not an object')
    await expect(save({}, { keep_last: 2 } as never)).rejects.toThrow('write keepLast.')
    expect(readdirSync(folder)).toEqual([])
  })
})

describe('a manifest', () => {
  it('that lacks what it must have is a FileError', async () => {
    const folder = fresh()
    const manifest = join(folder, 'checkpoint.json')
    for (const content of ['{"format":"gradus.checkpoint","version":1}', 'null', '[]', '{', '3']) {
      writeFileSync(manifest, content)
      await expect(io.loadCheckpoint(folder, {})).rejects.toThrow(FileError)
    }
    writeFileSync(manifest, '{"format":"gradus.checkpoint","version":1,"files":{},"parts":{}}')
    await expect(io.loadCheckpoint(folder, {})).rejects.toThrow('is damaged: got no random, no tensorParts, no step')
  })

  it('that holds values of no form is a FileError, and so is a folder that is a file', async () => {
    const folder = fresh()
    const path = await io.saveCheckpoint(folder, { o: new Part({ a: 1 }) }, { step: 1, extra: new Float64Array(2) })
    const manifest = join(path, 'checkpoint.json')
    const sound = JSON.parse(readFileSync(manifest, 'utf8'))
    const load = (changes: object, part: io.Stateful = new Part({})) => {
      writeFileSync(manifest, JSON.stringify({ ...sound, ...changes }))
      return io.loadCheckpoint(folder, { o: part })
    }
    for (const a of [{ $bigint: 'zz' }, { $map: [1, 2] }, { $map: [[1]] }, { $entries: [null] }, { $number: 'many' }]) {
      await expect(load({ parts: { o: { a } } })).rejects.toThrow(FileError)
    }
    await expect(load({ extra: { ...sound.extra, type: 'BigInt64Array' } })).resolves.toBeDefined()
    const layer = new nn.Linear(2, 2)
    const adam = new optim.AdamW(layer.parameters())
    const { paramGroups } = adam.stateDict()
    await expect(load({ parts: { o: { state: { 0: null }, paramGroups } } }, adam)).rejects.toThrow(
      'AdamW.loadStateDict: the state of parameter 0 is not complete: got null',
    )
    const trusting: io.Stateful = {
      stateDict: () => ({}),
      loadStateDict: (state: unknown) => void (state as { list: number[] }).list.length,
    }
    await expect(load({ parts: { o: {} } }, trusting)).rejects.toThrow(
      'io.loadCheckpoint: o cannot take the state in the checkpoint',
    )
    const file = join(folder, 'plain')
    writeFileSync(file, '')
    for (const at of [file, join(file, 'below')]) {
      const saved = io.saveCheckpoint(at, { o: new Part({}) }, { step: 1 })
      await expect(saved).rejects.toThrow(FileError)
      await expect(saved).rejects.toThrow('ENOTDIR; a part of the path is a file, not a folder')
    }
  })
})
