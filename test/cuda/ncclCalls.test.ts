// What collectives do to the tape, what they refuse, and what is said where there is no NCCL.
import './severalDevices'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { cuda, noGrad, type Tensor, zeros } from '../../lib/index'
import { describeNccl } from '../../lib/tensor/cuda'
import { filled, numbersOf, spreadOut, worlds } from './collectives'

const { nccl } = cuda

describe.runIf(nccl.isAvailable([]))('collectives', () => {
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

  it('are available for contiguous tensors on CUDA devices of their own', () => {
    const x = zeros([2, 3], { device: 'cuda' })
    expect(nccl.isAvailable([x])).toBe(true)
    for (const wrong of [[x, x], [zeros([2])], [x.transpose(0, 1)], [3], x, null]) {
      expect(nccl.isAvailable(wrong as never)).toBe(false)
    }
    const [major, minor, patch] = nccl.version()
    expect(describeNccl()).toBe(`NCCL ${major}.${minor}.${patch} (${process.env.GRADUS_NCCL ?? 'libnccl.so.2'})`)
    expect(major).toBe(2)
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
    const { GRADUS_NCCL: _, LD_LIBRARY_PATH: path = '', ...env } = process.env
    const withoutSimulator = path.split(':').filter((folder) => !folder.includes('cudasim'))
    const { stdout } = spawnSync(process.execPath, ['-e', script], {
      encoding: 'utf8',
      env: { ...env, LD_LIBRARY_PATH: withoutSimulator.join(':'), CUDASIM_REPORT: '' },
    })
    expect(stdout).toMatch(
      /^(NCCL 2\.|no NCCL: got "libnccl\.so\.2: .*", expected libnccl\.so\.2; install it \(pip install nvidia-nccl-cu13, or apt)/,
    )
  })
})
