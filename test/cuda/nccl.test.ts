// Collectives between the devices of this machine against float64; the simulator has three. Where there is no NCCL only
// what is said of that is tested.
import './severalDevices'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { cuda, type DType, device, nn, noGrad, ops, optim, type Tensor, tensor, zeros } from '../../lib/index'
import { describeNccl } from '../../lib/tensor/cuda'
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

  it('count as changes of what they write', () => {
    const [x] = spreadOut(filled(1, [4], 'float32')) as [Tensor]
    const w = zeros([4], { device: 'cuda' }).requiresGrad_()
    const y = w.mul(x) // saves x
    nccl.allReduce([x])
    expect(() => y.sum().backward()).toThrow(/changed in place/)
    const [given, output] = [zeros([4], { device: 'cuda' }), zeros([4], { device: 'cuda' })]
    const z = w.mul(given)
    nccl.allReduce([given], [output])
    z.sum().backward() // what is only read stays as it was
  })

  it('refuse what the tape would have to know of', () => {
    const leaf = zeros([2], { device: 'cuda' }).requiresGrad_()
    const inGraph = leaf.mul(2)
    expect(() => nccl.allReduce([leaf])).toThrow(
      /^nccl\.allReduce: a leaf that requires a gradient cannot be changed in place while operations are recorded; wrap/,
    )
    expect(() => nccl.allReduce([inGraph], [zeros([2], { device: 'cuda' })])).toThrow(
      'nccl.allReduce: a collective has no gradient: got inputs[0], which requires one; wrap the call in noGrad(() => ...), or detach() the tensor.',
    )
    expect(() => nccl.broadcast([inGraph])).toThrow(/^nccl\.broadcast: a collective has no gradient/)
    noGrad(() => nccl.allReduce([leaf]))
    nccl.allReduce([inGraph.detach()])
    expect(numbersOf(leaf)).toEqual([0, 0])
  })

  it('are not captured in a graph', () => {
    const x = zeros([2], { device: 'cuda' })
    const graph = new cuda.CUDAGraph()
    expect(() => graph.capture(() => nccl.allReduce([x]))).toThrow(
      'nccl.allReduce: a graph is being captured on cuda:0: got an operation of several devices, expected those of one; call it before or after a replay',
    )
    const y = graph.capture(() => x.add(1))
    nccl.allReduce([x])
    graph.replay()
    expect(numbersOf(y)).toEqual([1, 1])
  })

  it('are told apart where they are refused', () => {
    const on = (...shape: number[]): Tensor => zeros(shape, { device: 'cuda' })
    const x = on(2, 3)
    const cases: [call: () => void, name: string, text: string | RegExp][] = [
      [
        () => nccl.allReduce(x as never),
        'ArgumentError',
        'nccl.allReduce: inputs are not a list of tensors: got a Tensor, expected an array with a tensor for each device.',
      ],
      [() => nccl.allReduce([]), 'ArgumentError', /inputs are not a list of tensors: got an array of length 0/],
      [() => nccl.allReduce([3 as never]), 'DTypeError', /nccl\.allReduce: inputs\[0\] is not a tensor: got 3/],
      [
        () => nccl.broadcast([zeros([2])]),
        'DeviceError',
        "nccl.broadcast: not on a CUDA device: got inputs[0] on cpu, expected a CUDA device of its own for each tensor; move it with to('cuda:0').",
      ],
      [
        () => nccl.broadcast([x, on(2, 3)]),
        'DeviceError',
        "nccl.broadcast: two tensors are on one device: got inputs[0] and inputs[1] on cuda:0, expected a device of its own for each tensor; move one with to('cuda:1').",
      ],
      [() => nccl.allReduce([x], []), 'ArgumentError', /outputs are not a list of tensors/],
      [
        () => nccl.allReduce([x], [x, x]),
        'ArgumentError',
        'nccl.allReduce: there is not an output for each input: got 2 outputs for 1 inputs, expected 1.',
      ],
      [
        () => nccl.allReduce([x], [zeros([2, 3])]),
        'DeviceError',
        'nccl.allReduce: an output is not on the device of its input: got outputs[0] on cpu, inputs[0] on cuda:0, expected both on cuda:0.',
      ],
      [
        () => nccl.allReduce([x], [x.to('float16')]),
        'DTypeError',
        "nccl.allReduce: the tensors are of different dtypes: got float32 for inputs[0] and float16 for outputs[0], expected one dtype; convert one with .to('float32').",
      ],
      [
        () => nccl.allReduce([x.transpose(0, 1)]),
        'ShapeError',
        /nccl\.allReduce: inputs\[0\] is not contiguous: got strides \[1, 3\] for shape \[3, 2\]/,
      ],
      [
        () => nccl.allReduce([x], [on(3, 2)]),
        'ShapeError',
        'nccl.allReduce: the tensors are of different shapes: got [2, 3] for inputs[0] and [3, 2] for outputs[0], expected one shape.',
      ],
      [
        () => nccl.allReduce([x], undefined, { op: 'mean' as never }),
        'ArgumentError',
        'nccl.allReduce: unknown operation: got "mean", expected one of sum, prod, min, max, avg.',
      ],
      [
        () => nccl.allReduce([x], undefined, { reduceOp: 'sum' } as never),
        'ArgumentError',
        /unknown option: got reduceOp, expected op/,
      ],
      [
        () => nccl.allReduce([x.to('bool')], undefined, { op: 'avg' }),
        'DTypeError',
        /truth values have no average: got bool/,
      ],
      [
        () => nccl.reduce([x], { root: 1 }),
        'IndexError',
        'nccl.reduce: the root is no place in the list: got 1, expected 0 to 0.',
      ],
      [() => nccl.broadcast([x], -1), 'IndexError', /nccl\.broadcast: the root is no place in the list: got -1/],
      [
        () => nccl.reduce([x], { output: zeros([2, 3]) }),
        'DeviceError',
        /an output is not on the device of its input: got output on cpu/,
      ],
      [() => nccl.reduce([x], { output: on(6) }), 'ShapeError', /got \[2, 3\] for inputs\[0\] and \[6\] for output/],
      [
        () => nccl.allGather([x], [on(7)]),
        'ShapeError',
        'nccl.allGather: the sizes do not fit: got 7 elements in outputs[0] [7], expected 6, as 1 inputs of 6 have together.',
      ],
      [
        () => nccl.reduceScatter([x], [on(5)]),
        'ShapeError',
        'nccl.reduceScatter: the sizes do not fit: got 6 elements in inputs[0] [2, 3], expected 5, as 1 outputs of 5 have together.',
      ],
      [
        () => {
          const all = on(9)
          nccl.allReduce([all.narrow(0, 0, 6)], [all.narrow(0, 3, 6)])
        },
        'ShapeError',
        'nccl.allReduce: inputs[0] and outputs[0] overlap: got an input that begins -3 elements behind the output, expected the same elements, or others; clone() the input.',
      ],
      [
        () => {
          const gone = on(2)
          gone.dispose()
          nccl.allReduce([gone])
        },
        'StateError',
        /nccl\.allReduce: a tensor of shape \[2\] was released by dispose\(\)/,
      ],
    ]
    for (const [call, name, text] of cases) {
      expect(call).toThrow(text)
      expect(call).toThrow(expect.objectContaining({ name }))
    }
    expect(numbersOf(x)).toEqual(Array(6).fill(0))
  })

  it('are checked across devices', () => {
    if (worlds.at(-1)! < 2) return
    const [a, b] = [zeros([6], { device: 'cuda:0' }), zeros([6], { device: 'cuda:1' })]
    expect(() => nccl.allReduce([a, zeros([5], { device: 'cuda:1' })])).toThrow(
      'nccl.allReduce: the tensors are of different shapes: got [6] for inputs[0] and [5] for inputs[1], expected one shape.',
    )
    expect(() => nccl.allReduce([a, b], [b, a])).toThrow(
      /an output is not on the device of its input: got outputs\[0\] on/,
    )
    expect(() => nccl.reduce([a, b], { root: 1, output: a.clone() })).toThrow(
      /got output on cuda:0, inputs\[1\] on cuda:1/,
    )
    const part = a.narrow(0, 0, 3)
    const other = zeros([3], { device: 'cuda:1' })
    expect(() => nccl.allGather([part, other], [a, b])).not.toThrow()
    expect(() => nccl.allGather([other, part], [b, a])).toThrow(
      'nccl.allGather: inputs[1] and outputs[1] overlap: got an input that begins 0 elements behind the output, expected 3, or memory of its own; clone() the input.',
    )
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

  it('are available for contiguous tensors on CUDA devices of their own', () => {
    const x = zeros([2, 3], { device: 'cuda' })
    expect(nccl.isAvailable([x])).toBe(true)
    for (const wrong of [[x, x], [zeros([2])], [x.transpose(0, 1)], [3], x, null]) {
      expect(nccl.isAvailable(wrong as never)).toBe(false)
    }
    const [major, minor, patch] = nccl.version()
    expect(describeNccl()).toBe(`NCCL ${major}.${minor}.${patch} (libnccl.so.2)`)
    expect(major).toBe(2)
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

describe('a machine', () => {
  const folder = mkdtempSync(join(tmpdir(), 'gradus-nccl-'))
  const old = join(folder, 'old.so')
  const require = createRequire(__filename)
  const names = [
    ...['GetErrorString', 'GetLastError', 'CommInitAll', 'CommAbort', 'CommGetAsyncError', 'GroupStart', 'GroupEnd'],
    ...['AllReduce', 'Reduce', 'Broadcast', 'AllGather', 'ReduceScatter'],
  ]

  beforeAll(() => {
    const functions = names.map((name) => `int nccl${name}(void) { return 5; }`)
    const { status, stderr } = spawnSync('cc', ['-shared', '-fPIC', '-x', 'c', '-o', old, '-'], {
      input: ['int ncclGetVersion(int* version) { *version = 2804; return 0; }', ...functions].join('\n'),
      encoding: 'utf8',
    })
    expect([status, stderr]).toEqual([0, ''])
  })
  afterAll(() => rmSync(folder, { recursive: true }))

  /** What is said where GRADUS_NCCL is so. */
  const ask = (setting: string): Record<'available' | 'version' | 'call' | 'other' | 'found', unknown> => {
    const script = `
      const { cuda, ones } = require('./dist')
      const { describeNccl } = require('./dist/tensor/cuda')
      const said = (f) => { try { return f() } catch (e) { return [e.name, e.message] } }
      const x = ones([4], { device: 'cuda' })
      const answers = {
        available: cuda.nccl.isAvailable([x]),
        version: said(() => cuda.nccl.version()),
        call: said(() => cuda.nccl.allReduce([x])),
        found: describeNccl(),
      }
      x.add(1).data().then((d) => console.log(JSON.stringify({ ...answers, other: d[0] })))`
    const { stdout, stderr } = spawnSync(process.execPath, ['-e', script], {
      encoding: 'utf8',
      env: { ...process.env, CUDASIM_REPORT: '', GRADUS_NCCL: setting },
    })
    expect(stderr).toBe('')
    return JSON.parse(stdout)
  }

  const addon = (): string => require('node-gyp-build').resolve(join(__dirname, '../..')) // a library, of something else

  it.each([
    [
      'no library',
      () => '/nowhere/libnccl.so.2',
      /^no NCCL: got GRADUS_NCCL=\/nowhere\/libnccl\.so\.2 \(.*\), expected the library's file; unset it, or name libnccl\.so\.2\.$/,
    ],
    ['a library that is turned off', () => '0', /^NCCL is turned off: got GRADUS_NCCL=0; unset it\.$/],
    [
      'a library without a function',
      addon,
      /^NCCL is not usable: got .*gradus\.node without ncclGetVersion, expected NCCL 2\.13\.0 or newer; update it, or unset GRADUS_NCCL\.$/,
    ],
    [
      'a library that is too old',
      () => old,
      /^NCCL is too old: got version code 2804 \(.*old\.so\), expected 2\.13\.0 or newer; update it\.$/,
    ],
  ])('with %s says so at every call, and does everything else', (_, setting, text) => {
    const { available, version, call, found, other } = ask(setting())
    expect(available).toBe(false)
    expect(found).toMatch(text)
    for (const said of [version, call]) expect(said).toEqual(['DeviceError', `nccl: ${found}`])
    expect(other).toBe(2)
  })

  it('has a line of gradus doctor for it, as text and as JSON', () => {
    const env = { ...process.env, CUDASIM_REPORT: '' }
    const doctor = (...args: string[]) =>
      spawnSync(process.execPath, ['dist/cli/main.js', 'doctor', ...args], { encoding: 'utf8', env })
    const { stdout, status } = doctor()
    expect(stdout.split('\n')).toContain(`NCCL         ${describeNccl()}`)
    expect(status).toBe(0)
    expect(JSON.parse(doctor('--json').stdout)).toContainEqual({ part: 'NCCL', found: describeNccl() })
  })

  it('whose loader finds none is told where to get it', () => {
    const script = `console.log(require('./dist/tensor/cuda').describeNccl())`
    const { GRADUS_NCCL: _, ...env } = process.env
    const { stdout } = spawnSync(process.execPath, ['-e', script], {
      encoding: 'utf8',
      env: { ...env, LD_LIBRARY_PATH: '', CUDASIM_REPORT: '' },
    })
    expect(stdout).toMatch(
      /^(NCCL 2\.|no NCCL: got "libnccl\.so\.2: .*", expected libnccl\.so\.2; install it \(pip install nvidia-nccl-cu13, or apt)/,
    )
  })
})
