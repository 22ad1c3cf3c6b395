// Fills prebuilds/<platform>-<arch>/ from build/Release: the addon, its CPU backend, and beside them the libraries that
// a machine with Node alone does not have, each with its licence. The backend's $ORIGIN run path finds them there.

import { execFileSync } from 'node:child_process'
import { chmodSync, copyFileSync, mkdirSync, readdirSync, realpathSync, rmSync } from 'node:fs'
import { basename, join } from 'node:path'
import { root } from './sources.mjs'

// what every Linux that runs Node has: the C and C++ run times
const provided = /^(linux-vdso|ld-linux.*|libc|libm|libdl|libpthread|librt|libstdc\+\+|libgcc_s)\.so/

const output = (command, args) => execFileSync(command, args, { encoding: 'utf8' })

/** [name, path] of every shared library that `file` loads, directly or not. */
function librariesOf(file) {
  const lines = output('ldd', [file]).split('\n')
  const missing = lines.filter((line) => line.includes('not found'))
  if (missing.length > 0) throw new Error(`ldd ${file}: ${missing.join(', ')}`)
  return lines
    .map((line) => /^\s*(\S+) => (\/\S+)/.exec(line))
    .filter((match) => match !== null && !provided.test(match[1]))
    .map(([, name, path]) => [name, path])
}

/** The Debian package that a library comes from; its copyright file holds the licence. */
function packageOf(path) {
  const real = realpathSync(path)
  return output('dpkg', ['-S', real]).split(':')[0]
}

const built = join(root, 'build', 'Release')
const target = join(root, 'prebuilds', `${process.platform}-${process.arch}`)
const licences = join(target, 'licenses')
rmSync(target, { recursive: true, force: true })
mkdirSync(licences, { recursive: true })

// node-gyp-build reads the C library from the name
copyFileSync(join(built, 'gradus.node'), join(target, 'gradus.glibc.node'))
const backends = readdirSync(built).filter((name) => name.endsWith('.so'))
for (const backend of backends) {
  copyFileSync(join(built, backend), join(target, backend))
  for (const [name, path] of librariesOf(join(built, backend))) {
    copyFileSync(path, join(target, name))
    const owner = packageOf(path)
    copyFileSync(join('/usr/share/doc', owner, 'copyright'), join(licences, `${name}.txt`))
  }
}
for (const name of readdirSync(target)) {
  if (!/\.(node|so(\.\d+)*)$/.test(name)) continue
  chmodSync(join(target, name), 0o755)
  if (name.startsWith('gradus')) execFileSync('strip', ['--strip-unneeded', join(target, name)])
}
process.stderr.write(`prebuild: ${basename(target)}: ${readdirSync(target).join(' ')}\n`)
