// Runs each test once for each of GRADUS_CUDA_SEEDS; results.ts sets the seed and compares. In one process a test's imports
// and the kernels it loads are there for all of them.
import { VitestTestRunner } from 'vitest/runners'

// biome-ignore lint/style/noDefaultExport: vitest looks for it
export default class OrdersRunner extends VitestTestRunner {
  override async onBeforeRunTask(test: Parameters<VitestTestRunner['onBeforeRunTask']>[0]): Promise<void> {
    test.repeats = process.env.GRADUS_CUDA_SEEDS!.split(',').length - 1
    await super.onBeforeRunTask(test)
  }
}
