import { join } from 'node:path'
import { defineConfig } from 'vitest/config'

export default defineConfig({
  resolve: { alias: { gradus: join(__dirname, 'lib/index.ts') } },
  test: {
    include: ['test/**/*.test.ts'],
    exclude: ['node_modules/**', 'test/cuda/**'], // npm run test:cuda
    pool: 'forks',
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // every fork has its own pool of kernel threads: more forks than this only take time from each other
    maxWorkers: 2,
    minWorkers: 1,
    env: { GRADUS_NUM_THREADS: process.env.GRADUS_NUM_THREADS ?? '2' },
  },
})
