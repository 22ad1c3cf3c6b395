// Saves checkpoints until it is killed. Every value of one is its number, so that a mixture of two would show.
// Arguments: folder, then 'same' to write one step again and again or 'next' to go on.

const { io, full } = require('../../dist/index.js')

async function main(folder, mode) {
  for (let n = 1; ; n++) {
    const part = (elements) => ({ stateDict: () => ({ values: full([elements], n) }), loadStateDict: () => {} })
    const mixed = { stateDict: () => ({ values: full([1000], n), n }), loadStateDict: () => {} }
    const parts = { model: part(200_000), ema: part(1000), optimizer: mixed }
    await io.saveCheckpoint(folder, parts, { step: mode === 'same' ? 7 : n, extra: { n }, keepLast: 2 })
    if (n === 1) process.stdout.write('saved\n')
  }
}

void main(process.argv[2], process.argv[3])
