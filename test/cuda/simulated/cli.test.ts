// The commands with --device: what a run on CUDA leaves can be continued on either device, and bench says what it measured.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'

const folder = mkdtempSync(join(tmpdir(), 'gradus-cuda-cli-'))
afterAll(() => rmSync(folder, { recursive: true }))

function gradus(args: string[], env: NodeJS.ProcessEnv = {}): Record<string, unknown>[] {
  const stdout = execFileSync(process.execPath, ['dist/cli/main.js', ...args, '--json'], {
    encoding: 'utf8',
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  return stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
}

describe('gradus on CUDA', () => {
  it('trains, and continues a text as on the cpu', () => {
    const [text, run] = [join(folder, 'text.txt'), join(folder, 'run')]
    writeFileSync(text, 'the quick brown fox jumps over the lazy dog. '.repeat(40))
    const sizes = ['--layers', '1', '--heads', '2', '--width', '16', '--context', '16', '--batch-size', '2']
    const [trained] = gradus(['train', '--text', text, '--out', run, '--steps', '3', ...sizes, '--device', 'cuda'])
    expect(trained!.steps).toBe(3)
    const prompt = ['generate', run, '--prompt', 'the ', '--tokens', '12', '--device']
    expect(gradus([...prompt, 'cuda'])).toEqual(gradus([...prompt, 'cpu']))
  })

  it('measures, and says what', () => {
    const rows = gradus(['bench', '--seconds', '0.01', '--device', 'cuda'], { CUDASIM_RECORD_ONLY: '1' })
    expect(rows.map(({ unit }) => unit)).toEqual(['GFLOP/s', 'GFLOP/s', 'GB/s', 'GB/s', 'tokens/s'])
    for (const { device, name } of rows) expect([device, name]).toEqual(['cuda:0', expect.stringContaining('cudasim')])
  })
})
