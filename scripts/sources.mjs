// Content hashes that tell whether what was built still belongs to the sources.

import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The folder of package.json. */
export const root = dirname(dirname(fileURLToPath(import.meta.url)))

const inputs = {
  native: ['native', 'CMakeLists.txt', 'package.json'],
  dist: ['lib', 'native/ops.def', 'tsconfig.json', 'tsconfig.build.json', 'package.json', 'scripts/buildTs.mjs'],
}
const outputs = { native: 'build/Release/gradus.node', dist: 'dist/index.mjs' }

function* filesUnder(path) {
  if (!statSync(path).isDirectory()) yield path
  else for (const name of readdirSync(path).sort()) yield* filesUnder(join(path, name))
}

function hashOf(part) {
  const hash = createHash('sha256').update(`${process.platform}-${process.arch}`)
  for (const input of inputs[part]) {
    for (const file of filesUnder(join(root, input))) hash.update(file.slice(root.length)).update(readFileSync(file))
  }
  return hash.digest('hex')
}

const stampOf = (part) => join(root, 'build', `${part}.sha256`)

/** Whether `part` ('native' or 'dist') was built from the sources as they are now. */
export function isFresh(part) {
  const stamp = stampOf(part)
  return existsSync(join(root, outputs[part])) && existsSync(stamp) && readFileSync(stamp, 'utf8') === hashOf(part)
}

/** Remembers that `part` was just built. */
export function markFresh(part) {
  mkdirSync(join(root, 'build'), { recursive: true })
  writeFileSync(stampOf(part), hashOf(part))
}
