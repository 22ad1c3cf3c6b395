import { defineConfig } from 'vitest/config'
import { BaseSequencer, type TestSpecification } from 'vitest/node'
import base from './vitest.config'

const exclude = ['node_modules/**']
// Every lane of every kernel is simulated and checked, and machines differ: a test that hangs is what this ends.
const timeouts = { testTimeout: 600_000, hookTimeout: 600_000 }
// products are our own kernels'; test/cuda/cublas.test.ts turns the library on that was asked for
const env = { ...base.test?.env, GRADUS_CUBLASLT: '0', GRADUS_TEST_CUBLASLT: process.env.GRADUS_CUBLASLT ?? '' }
// The host's side, and what a library computes: run once, as it is no question of the order of blocks and warps.
const devices = [
  'cublas',
  'docs',
  'driver',
  'event',
  'graph',
  'graphFailures',
  'hostScalars',
  'moving',
  'nccl',
  'ncclCalls',
  'nvtx',
  'upload',
].map((name) => `test/cuda/${name}.test.ts`)

// Simulated, these take as long as all others together: first, so that workers end at about the same time.
const long = ['attentionMasks', 'attentionBlocks', 'parity', 'training', 'attention', 'matmul', 'linearCrossEntropy']

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId }: TestSpecification): number => {
      const at = long.findIndex((name) => moduleId.endsWith(`/${name}.test.ts`))
      return at < 0 ? long.length : at
    }
    return (await super.sort(files)).sort((a, b) => rank(a) - rank(b))
  }
}

// Spread, not merged: merging joins the lists, and what the base excludes is what is wanted here.
export default defineConfig({
  ...base,
  test: {
    ...base.test,
    sequence: { sequencer: LongestFirst },
    projects: [
      // operators on cuda against the cpu
      {
        ...base,
        test: {
          ...base.test,
          name: 'cuda',
          include: ['test/cuda/*.test.ts'],
          ...timeouts,
          exclude: [...exclude, ...devices],
          env,
          setupFiles: ['test/cuda/results.ts'],
          ...(process.env.GRADUS_CUDA_SEEDS !== undefined && { runner: 'test/cuda/ordersRunner.ts' }),
        },
      },
      { ...base, test: { ...base.test, name: 'cuda devices', include: devices, exclude, env, ...timeouts } },
      // what asks the simulator for faults, counts or devices, or is about the build: all other projects run on a card, too
      {
        ...base,
        test: {
          ...base.test,
          name: 'simulated',
          include: ['test/cuda/simulated/*.test.ts'],
          exclude,
          env,
          ...timeouts,
        },
      },
      // the tests of the cpu, with all their tensors on cuda
      {
        ...base,
        test: {
          ...base.test,
          name: 'on cuda',
          include: ['test/{ops,nn,optim,amp,parity}/**/*.test.ts'],
          exclude,
          env: { ...env, GRADUS_TEST_DEVICE: 'cuda' },
          ...timeouts,
          setupFiles: ['test/support/device.ts'],
        },
      },
    ],
  },
})
