// The process ends while work is queued: with its own exit code, whatever the executors are at.
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'

const root = join(__dirname, '../..')

// The first products of a process: their library is set up while the process ends.
const queue = `
  const { ones } = require('./lib/index.ts')
  let x = ones([512, 512]).mul(1 / 512)
  for (let i = 0; i < 60; i++) x = x.matmul(x)
`

const end = (script: string) => {
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, ['--import', 'tsx', '-e', queue + script], {
    cwd: root,
    encoding: 'utf8',
  })
  return { status, signal, stdout, stderr }
}

describe('a process that ends while work is queued', () => {
  it('has the exit code that it was given', () => {
    for (let i = 0; i < 5; i++) {
      expect(end('process.exit(3)')).toEqual({ status: 3, signal: null, stdout: '', stderr: '' })
    }
  })

  it('reports what was thrown', () => {
    for (let i = 0; i < 3; i++) {
      const { status, signal, stderr } = end("throw new Error('from the program')")
      expect([status, signal]).toEqual([1, null])
      expect(stderr).toContain('Error: from the program')
    }
  })

  it('lets listeners read what was queued', () => {
    const { status, stdout } = end("process.on('exit', () => console.log(x.sum().itemSync())); process.exit(4)")
    expect(status).toBe(4)
    expect(Number(stdout)).toBeCloseTo(512, 1)
  })

  it('ends by itself', () => {
    expect(end('')).toEqual({ status: 0, signal: null, stdout: '', stderr: '' })
  })
})
