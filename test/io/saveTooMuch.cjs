// Saves a small file, then a larger one over it, and prints what came of that. Run with a limit on file sizes.

const { readdirSync } = require('node:fs')
const { io, full } = require('../../dist/index.js')

async function main(folder) {
  const path = `${folder}/a.safetensors`
  await io.saveFile({ a: full([2], 1) }, path)
  const error = await io.saveFile({ a: full([100_000], 2) }, path).catch((error) => error)
  const kept = await io.loadFile(path)
  const result = { code: error.code, message: error.message, files: readdirSync(folder), kept: await kept.a.array() }
  process.stdout.write(JSON.stringify(result))
}

void main(process.argv[2])
