// npm run parity -- DIR: runs the golden cases of a folder against the library.

import { Command, InvalidArgumentError } from 'commander'
import { type DeviceName, setDefaultDevice } from 'gradus'
import { Fixtures } from './fixtures'
import { runCase } from './run'

interface Options {
  group?: string
  device: string
  json?: boolean
  through?: number
}

function stage(text: string): number {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError('expected a whole number.')
  return Number(text)
}

async function main(folder: string, options: Options): Promise<void> {
  setDefaultDevice(options.device as DeviceName)
  const fixtures = new Fixtures(folder)
  const cases = fixtures.cases.filter(
    (each) =>
      (options.group === undefined || each.group === options.group) &&
      (options.through === undefined || each.stage <= options.through),
  )
  const counts = { passed: 0, failed: 0, skipped: 0 }
  for (const each of cases) {
    const outcome = await runCase(each, fixtures, options.through !== undefined)
    counts[outcome.status]++
    if (options.json) console.log(JSON.stringify(outcome))
    else if (outcome.status === 'failed') console.log(`failed ${outcome.group}/${outcome.name}: ${outcome.problem}`)
  }
  console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`)
  if (counts.failed > 0 || cases.length === 0) process.exitCode = 1
}

new Command('parity')
  .description('Runs the golden cases of a folder: manifest.json with its safetensors files.')
  .argument('<dir>', 'folder of the fixtures')
  .option('--group <name>', 'only this group: ops, lowp, amp, optim, schedules, models, training')
  .option('--device <name>', 'device to run on', 'cpu')
  .option('--json', 'a JSON line for each case')
  .option('--through <stage>', 'every case up to this stage must run; skipping one is a failure', stage)
  .action(main)
  .parseAsync()
  .catch((error: Error) => {
    console.error(error.message)
    process.exitCode = 1
  })
