import { defineConfig } from 'vitest/config'
import base from './vitest.config'

const exclude = ['node_modules/**']
// products are our own kernels'; test/cuda/cublas.test.ts turns the library on that was asked for
const env = { ...base.test?.env, GRADUS_CUBLASLT: '0', GRADUS_TEST_CUBLASLT: process.env.GRADUS_CUBLASLT ?? '' }

// Spread, not merged: merging joins the lists, and what the base excludes is what is wanted here.
export default defineConfig({
  ...base,
  test: {
    ...base.test,
    projects: [
      // cuda against cpu, and what is said of drivers and devices
      { ...base, test: { ...base.test, name: 'cuda', include: ['test/cuda/**/*.test.ts'], exclude, env } },
      // the tests of the cpu, with all their tensors on cuda
      {
        ...base,
        test: {
          ...base.test,
          name: 'on cuda',
          include: ['test/{ops,nn,optim,amp}/**/*.test.ts'],
          exclude,
          env: { ...env, GRADUS_TEST_DEVICE: 'cuda' },
          testTimeout: 180_000, // every lane of every kernel is simulated and checked
          setupFiles: ['test/support/device.ts'],
        },
      },
    ],
  },
})
