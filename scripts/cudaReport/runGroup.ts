// Runs the workloads of one group, on the simulated driver that the environment chooses: tsx runGroup.ts <number>

import { groups } from './workloads'
import { wait } from './workloads/workload'

for (const { name, run } of groups[Number(process.argv[2])]!) {
  try {
    run()
    wait()
  } catch (error) {
    throw new Error(`${name}: ${(error as Error).message}`, { cause: error })
  }
}
