// All workloads, in groups that run in a process each: counters are by kernel, so no two of a group share one.

import { overLists } from './lists'
import { overMemory } from './memory'
import { pointwise } from './pointwise'
import { overMatrices } from './products'
import { overRows } from './rows'
import { inSteps } from './steps'
import type { Workload } from './workload'

export const groups: readonly (readonly Workload[])[] = [
  ...overMatrices,
  ...pointwise,
  ...overRows,
  ...overLists,
  ...overMemory,
  ...inSteps,
]

const quick: readonly unknown[] = [...overLists, ...overMemory, ...inSteps, ...pointwise.slice(1)]

/** Whether the group takes a second or two, so that every test run can count it again. */
export const isQuick = (index: number): boolean => quick.includes(groups[index])
