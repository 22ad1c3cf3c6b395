// Makes a checkout ready to run, with plain Node and nothing else: npm packages, what the C++ build needs, the addon,
// dist/. Says nothing when there is nothing to do; what it says goes to stderr, so that stdout stays the command's.

import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { isFresh, root } from './sources.mjs'

const say = (line) => process.stderr.write(`setup: ${line}\n`)

function fail(line) {
  say(line)
  process.exit(1)
}

/** Runs a command with its output on stderr; true when it succeeded. */
function run(command, args, { env = {}, output = 2 } = {}) {
  return spawnSync(command, args, { cwd: root, stdio: [0, output, 2], env: { ...process.env, ...env } }).status === 0
}

const succeeds = (command, args, input) =>
  spawnSync(command, args, { input, stdio: ['pipe', 'ignore', 'ignore'] }).status === 0

function checkNode() {
  const [major] = process.versions.node.split('.').map(Number)
  if (major < 20) fail(`Node ${process.versions.node} is too old, expected 20 or newer; install a newer Node`)
}

function hasPackages() {
  const { dependencies, devDependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
  return Object.entries({ ...dependencies, ...devDependencies }).every(([name, version]) => {
    const manifest = join(root, 'node_modules', name, 'package.json')
    return existsSync(manifest) && JSON.parse(readFileSync(manifest, 'utf8')).version === version
  })
}

function installPackages() {
  say('installing npm packages (npm ci)')
  // npm_execpath is the npm that started this script: the same version, wherever it lies
  const npm = process.env.npm_execpath
  const args = ['ci', '--no-audit', '--no-fund', '--loglevel=error']
  const installed = npm ? run(process.execPath, [npm, ...args]) : run('npm', args)
  if (!installed) fail('npm ci failed; see its messages above, then run the command again')
}

/** Names of the Debian packages that hold what the C++ build lacks. */
function missingParts() {
  const missing = []
  const compiler = process.env.CXX ?? 'c++'
  const compiles = (source) => succeeds(compiler, ['-std=c++20', '-fsyntax-only', '-x', 'c++', '-'], source)
  if (!succeeds('cmake', ['--version'])) missing.push('cmake')
  if (!succeeds('ninja', ['--version']) && !succeeds('make', ['--version'])) missing.push('ninja-build')
  if (!compiles('#include <span>\n')) missing.push('g++')
  if (!compiles('#include <dnnl.h>\n')) missing.push('libdnnl-dev')
  if (!compiles('#include <hwy/highway.h>\n')) missing.push('libhwy-dev')
  return missing
}

function installParts() {
  let missing = missingParts()
  if (missing.length === 0) return
  const install = ['install', '-y', '--no-install-recommends', ...missing]
  const hasApt = succeeds('apt-get', ['--version'])
  if (!hasApt || process.getuid?.() !== 0) {
    const command = hasApt
      ? `sudo apt-get update && sudo apt-get ${install.join(' ')}`
      : `the packages of your system that Debian calls ${missing.join(', ')}`
    fail(`the native build needs ${missing.join(', ')}; ${hasApt ? 'run' : 'install'}:\n\n  ${command}\n`)
  }
  say(`installing what the native build needs: apt-get ${install.join(' ')}`)
  // what apt-get says on stdout is of interest to nobody; its errors come on stderr
  const options = { env: { DEBIAN_FRONTEND: 'noninteractive' }, output: 'ignore' }
  const quiet = ['-qq', '-o', 'Dpkg::Use-Pty=0']
  if (!run('apt-get', [...quiet, 'update'], options) || !run('apt-get', [...quiet, ...install], options)) {
    fail('apt-get failed; see its messages above')
  }
  missing = missingParts()
  if (missing.length > 0)
    fail(`still missing after apt-get: ${missing.join(', ')}; a C++20 compiler is needed (g++ 11 or newer)`)
}

function build(script, what) {
  say(`building ${what}`)
  if (!run(process.execPath, [join(root, 'scripts', script)])) fail(`building ${what} failed; see the messages above`)
}

const force = process.argv.includes('--force')
checkNode()
if (!hasPackages()) installPackages()
const buildNative = force || !isFresh('native')
if (buildNative) {
  installParts()
  build('buildNative.mjs', 'the native addon (some minutes the first time)')
}
if (force || buildNative || !isFresh('dist')) build('buildTs.mjs', 'dist/')
