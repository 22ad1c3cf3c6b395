// Which cases can be run, and how.

import { runAutocastTables } from './autocast'
import type { Case, Fixtures } from './fixtures'
import { knowsModel, runModel } from './models'
import { knowsOperator, runOperator } from './operators'
import { knowsOptimizer, runOptimizer } from './optimizers'
import { knowsScaler, runScaler } from './scaler'
import { knowsSchedule, runSchedule } from './schedules'

type Runner = (each: Case, fixtures: Fixtures) => Promise<number>

/** The groups of the manifest: which cases can be run, and how. */
const groups: Record<string, [(op: string) => boolean, Runner]> = {
  ops: [knowsOperator, runOperator],
  lowp: [knowsOperator, runOperator],
  amp: [(op) => op === 'torch.autocast', runAutocastTables],
  optim: [knowsOptimizer, runOptimizer],
  schedules: [knowsSchedule, runSchedule],
  amp: [knowsScaler, runScaler],
  models: [knowsModel, runModel],
  training: [knowsModel, runModel],
}

/** How a case went. */
export interface Outcome {
  name: string
  group: string
  status: 'passed' | 'failed' | 'skipped'
  largestError?: number
  problem?: string
}

/** Runs a case; one that nothing runs is skipped, or failed where all must run. */
export async function runCase(each: Case, fixtures: Fixtures, mustRun: boolean): Promise<Outcome> {
  const { name, group, op } = each
  const [knows, run] = groups[group] ?? []
  if (run === undefined || !knows?.(op)) {
    const problem = `nothing runs "${op}" of group ${group}`
    return { name, group, status: mustRun ? 'failed' : 'skipped', problem }
  }
  try {
    return { name, group, status: 'passed', largestError: await run(each, fixtures) }
  } catch (error) {
    return { name, group, status: 'failed', problem: error instanceof Error ? error.message : String(error) }
  }
}
