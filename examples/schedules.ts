// Three ways to warm a learning rate up, and one written by hand.
//
//   npx tsx examples/schedules.ts

import { nn, optim } from 'gradus'

const totalSteps = 100
const warmupSteps = 10

type Schedule = { step(): void }

/** The rates that an optimizer uses in each step under a schedule. */
export function rates(make: (optimizer: optim.AdamW) => Schedule): number[] {
  const model = new nn.Linear(4, 2)
  const optimizer = new optim.AdamW(model.parameters(), { lr: 5e-5 })
  const schedule = make(optimizer)
  return Array.from({ length: totalSteps + 1 }, () => {
    const { lr } = optimizer.paramGroups[0]!
    optimizer.step() // parameters without a gradient stay as they are
    schedule.step()
    return lr
  })
}

/** Each schedule by name. */
export const schedules: Record<string, (optimizer: optim.AdamW) => Schedule> = {
  linear: (optimizer) => optim.linearWarmup(optimizer, { warmupSteps, totalSteps }),
  cosine: (optimizer) => optim.cosineWarmup(optimizer, { warmupSteps, totalSteps }),
  'inverse sqrt': (optimizer) => optim.inverseSqrt(optimizer, { warmupSteps, dModel: 512, mode: 'noam' }),
  'by hand': (optimizer) => new optim.LambdaLR(optimizer, (step) => Math.min(1, (step + 1) / warmupSteps)),
}

if (require.main === module) {
  for (const [name, make] of Object.entries(schedules)) {
    const shown = rates(make).filter((_, step) => step % 10 === 0)
    console.log(name.padEnd(14), shown.map((rate) => rate.toExponential(2)).join(' '))
  }
}
