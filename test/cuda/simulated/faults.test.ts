// What is left of a training step when something goes wrong in it: a typed error, and everything as it was before.
import { spawnSync } from 'node:child_process'
import { afterEach, describe, expect, it } from 'vitest'
import { cuda, nn, OutOfMemoryError, random, zeros } from '../../../lib/index'
import { inUse, makeTraining, type StepOptions } from '../trainingStep'
import { simulator } from './simulator'

afterEach(() => simulator.control('reset'))

/** The step fails for every n from 1 until it needs no n-th allocation, and can then be taken as if nothing had been. */
async function failEach(options: StepOptions): Promise<number> {
  const undisturbed = makeTraining(options)
  const state = random.getState()
  const wanted = [await undisturbed.step(), await undisturbed.step()]
  for (let n = 1; ; n++) {
    const training = makeTraining(options)
    await cuda.synchronize()
    // the allocator tries a second time, when it has given back what is not in use
    simulator.control(`failAllocation=${n} failAllocations=2`)
    const error = await training.step().then(
      () => null,
      (thrown: unknown) => thrown,
    )
    simulator.control('reset')
    if (error === null) return n - 1
    expect(error, `allocation ${n}`).toBeInstanceOf(OutOfMemoryError)
    random.setState(state)
    const losses = [await training.step(), await training.step()]
    expect(losses, `after allocation ${n} failed`).toEqual(wanted)
    training.dispose()
  }
}

describe('out of memory at the n-th allocation of a training step', () => {
  it.each([
    ['float32', { dtype: 'float32', dropout: 0.1 }],
    ['float16 with a GradScaler', { dtype: 'float16', dropout: 0.1 }],
  ] as const)(
    'in %s is a typed error, after which the step can be taken again',
    async (_, options) => {
      expect(await failEach(options)).toBeGreaterThan(80)
    },
    240_000,
  )

  it('leaks nothing', async () => {
    const usedBy = async (faults: number[]): Promise<number> => {
      const before = await inUse()
      const training = makeTraining()
      for (const n of faults) {
        await cuda.synchronize()
        simulator.control(`failAllocation=${n} failAllocations=2`)
        await expect(training.step()).rejects.toThrow(OutOfMemoryError)
        simulator.control('reset')
      }
      await training.step()
      const after = await inUse()
      training.dispose()
      return after - before
    }
    const undisturbed = await usedBy([])
    expect(await usedBy([1, 7, 40, 90])).toBe(undisturbed)
    expect(await usedBy([90, 60, 30, 20, 10, 5, 2])).toBe(undisturbed)
  })
})

describe('a constant that finds no memory', () => {
  it('is made again for who wants it later; what was computed from it is lost', async () => {
    await cuda.synchronize()
    simulator.control('failAllocation=1 failAllocations=2')
    const constant = zeros([1 << 20], { device: 'cuda' })
    const derived = constant.add(1)
    await expect(derived.data()).rejects.toThrow(OutOfMemoryError)
    simulator.control('reset')
    await expect(derived.data()).rejects.toThrow(OutOfMemoryError)
    await expect(derived.to('cpu').data()).rejects.toThrow(OutOfMemoryError)
    expect(await constant.add(1).mean().item()).toBe(1)
  })
})

describe('a module for which a device has no memory', () => {
  it('keeps the parameters that do not fit where they were', async () => {
    const layer = new nn.Linear(512, 512)
    const [weight, bias] = [await layer.weight.array(), await layer.bias!.array()]
    await cuda.synchronize()
    simulator.control('failAllocation=1 failAllocations=2') // of the weight; the bias is small
    layer.to('cuda').to('bfloat16')
    await expect(cuda.synchronize()).rejects.toThrow(OutOfMemoryError)
    simulator.control('reset')
    expect(layer.weight.dtype).toBe('float32')
    expect(layer.weight.device.toString()).toBe('cpu')
    expect(await layer.weight.array()).toEqual(weight)
    layer.to('cuda').to('float32')
    expect(((await layer.bias!.array()) as number[])[3]).toBeCloseTo((bias as number[])[3]!, 2)
    expect(await layer.weight.array()).toEqual(weight)
    expect(layer.weight.device.toString()).toBe('cuda:0')
    expect(layer.weight.requiresGrad).toBe(true)
  })
})

describe('a device that fails', () => {
  const script = (body: string): string => `
    const { cuda, ones } = require('./dist')
    const { control } = require('./build/cudasim/lib/cudasim.node')
    const said = async (f) => { try { return await f() } catch (e) { return [e.name, e.code, e.message] } }
    ;(async () => { ${body} })()`
  const run = (body: string, env: NodeJS.ProcessEnv = {}): unknown => {
    const { stdout, stderr, status } = spawnSync(process.execPath, ['-e', script(body)], {
      encoding: 'utf8',
      env: { ...process.env, CUDASIM_REPORT: '', ...env },
    })
    expect([status, stderr]).toEqual([0, ''])
    return JSON.parse(stdout)
  }

  it('in a kernel: everything that waits for it says so, and what to do', () => {
    const said = run(`
      const x = ones([4], { device: 'cuda' })
      await cuda.synchronize()
      control('failLaunch=1')
      const y = x.add(1)
      const first = await said(() => y.data())
      console.log(JSON.stringify([first, await said(() => cuda.synchronize()), await said(() => x.data())]))`) as string[][]
    for (const [name, code, message] of said) {
      expect([name, code]).toEqual(['NativeError', 'ERR_GRADUS_NATIVE'])
      expect(message).toMatch(/^cuda: .* on cuda:0 failed: got CUDA_ERROR_LAUNCH_FAILED \(719: .*restart the process/)
    }
  })

  it('as a whole: the same', () => {
    const said = run(`
      const x = ones([4], { device: 'cuda' })
      await cuda.synchronize()
      control('lostDevice=0')
      const event = new cuda.Event().record()
      const first = await said(() => x.add(1).data())
      console.log(JSON.stringify([first, await said(() => cuda.synchronize()), await said(() => event.query())]))`) as string[][]
    for (const [name, code, message] of said) {
      expect([name, code]).toEqual(['NativeError', 'ERR_GRADUS_NATIVE'])
      expect(message).toMatch(/^cuda: .* on cuda:0 failed: got CUDA_ERROR_/)
    }
  })

  it('before a product: the device is what is lost, not the library', () => {
    const said = run(
      `
      const x = ones([64, 64], { device: 'cuda' })
      await x.matmul(x).data()
      control('lostDevice=0')
      console.log(JSON.stringify(await said(() => x.matmul(x).data())))`,
      { GRADUS_CUBLASLT: '' },
    ) as string[]
    expect(said[2]).toMatch(/^cuda: .* on cuda:0 failed: got CUDA_ERROR_/)
  })

  it('for lack of pinned memory: only as long as it lasts', () => {
    const said = run(`
      const x = ones([4], { device: 'cuda' })
      control('failHostAllocation=1 failAllocations=3')
      const first = await said(() => x.data())
      console.log(JSON.stringify([first, Array.from(await x.add(1).data())]))`)
    const refused = expect.stringMatching(/^allocate: out of memory, the system refused it: got a request for/)
    expect(said).toEqual([
      ['OutOfMemoryError', 'ERR_GRADUS_OUT_OF_MEMORY', refused],
      [2, 2, 2, 2],
    ])
  })

  it('by a symbol that its driver lacks: no device, and which', () => {
    const said = run(
      `console.log(JSON.stringify([await said(() => ones([1], { device: 'cuda' })), cuda.isAvailable()]))`,
      { CUDASIM_MISSING: 'cuGraphLaunch' },
    )
    expect(said).toEqual([
      [
        'DeviceError',
        'ERR_GRADUS_DEVICE',
        expect.stringMatching(/the NVIDIA driver is too old: got one without cuGraphLaunch, expected CUDA \d+\.\d/),
      ],
      false,
    ])
  })
})
