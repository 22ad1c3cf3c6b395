// Learning rates: what two groups of a plain optimizer use in every step.

import { nn, optim, tensor, zeros } from 'gradus'
import { type Case, compare, type Fixtures } from './fixtures'

// biome-ignore lint/suspicious/noExplicitAny: parameters of any schedule, from the manifest
type Params = Record<string, any>

const schedules: Record<string, (optimizer: optim.Optimizer, params: Params) => { step(): void }> = {
  lambda_linear: (optimizer, { warmup, total }) =>
    new optim.LambdaLR(optimizer, (s) =>
      s < warmup ? s / Math.max(1, warmup) : Math.max(0, (total - s) / Math.max(1, total - warmup)),
    ),
  hf_linear: (optimizer, { warmup, total }) =>
    optim.linearWarmup(optimizer, { warmupSteps: warmup, totalSteps: total }),
  hf_cosine: (optimizer, { warmup, total }) =>
    optim.cosineWarmup(optimizer, { warmupSteps: warmup, totalSteps: total }),
  hf_inverse_sqrt: (optimizer, { warmup }) => optim.inverseSqrt(optimizer, { warmupSteps: warmup, mode: 'relative' }),
  hf_inverse_sqrt_ts: (optimizer, { warmup, timescale }) =>
    optim.inverseSqrt(optimizer, { warmupSteps: warmup, mode: 'relative', timescale }),
  exponential: (optimizer, { gamma }) => new optim.ExponentialLR(optimizer, gamma),
}

/** Whether the table has the case's schedule. */
export function knowsSchedule(op: string): boolean {
  return op in schedules
}

/** Runs a schedule; returns the largest error. */
export async function runSchedule(each: Case, fixtures: Fixtures): Promise<number> {
  const stored = await fixtures.tensors(each.file)
  const { base_lr: baseRates, steps } = each.params as { base_lr: number[]; steps: number }
  const groups = baseRates.map((lr) => ({ params: [nn.parameter(zeros([1]))], lr }))
  const optimizer = new optim.SGD(groups, { lr: baseRates[0]!, momentum: 0.9 })
  const schedule = schedules[each.op]!(optimizer, each.params)
  const rates: number[][] = []
  for (let step = 0; step <= steps; step++) {
    rates.push(optimizer.paramGroups.map(({ lr }) => lr))
    if (step === steps) break
    for (const { params } of optimizer.paramGroups) for (const each of params) each.grad = zeros([1])
    optimizer.step()
    schedule.step()
  }
  const reference = stored[(each.outputs as Record<string, string>).lr!]!
  return compare('learning rate', tensor(rates, { dtype: 'float64' }), reference, each.tolerance)
}
