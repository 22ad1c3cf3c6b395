// docs/cuda.md lists every kernel and lays out every argument: what runs a kernel from it alone must not be misled.
import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { layoutCheck, readDocuments } from '../../../scripts/cudaReport/documents'
import { entriesOf, readFamilies } from '../../../scripts/cudaReport/ptx'

const folder = join(__dirname, '../../../native/cuda/kernels')
const headers = readdirSync(folder)
  .filter((name) => name.endsWith('.h'))
  .map((name) => join(folder, name))
const documents = readDocuments()
const families = readFamilies()
const bytesOf = new Map(documents.structs.map(({ name, bytes }) => [name, bytes]))

function compile(source: string): string {
  const args = ['-std=c++20', '-fsyntax-only', '-Wno-invalid-offsetof', '-x', 'c++', '-']
  return spawnSync(process.env.CXX ?? 'c++', args, { input: source, encoding: 'utf8' }).stderr
}

describe('docs/cuda.md', () => {
  it('lays out arguments as the headers do', () => {
    expect(documents.structs.length).toBeGreaterThan(50)
    expect(compile(layoutCheck(documents, headers))).toBe('')
  })

  it('would be caught at a field that is missing, moved or of another type', () => {
    const change = (edit: (fields: (typeof documents.structs)[0]['fields']) => unknown): string => {
      const structs = structuredClone(documents.structs)
      edit(structs.find(({ name }) => name === 'PointwiseDense')!.fields)
      return compile(layoutCheck({ ...documents, structs }, headers))
    }
    expect(change((fields) => fields.splice(1, 1))).toContain('PointwiseDense::in: follows a gap')
    expect(change((fields) => fields.pop())).toContain('PointwiseDense: its end is not described')
    expect(change(([, out]) => Object.assign(out!, { offset: 16 }))).toContain('PointwiseDense::out: place, size')
    expect(change(([count]) => Object.assign(count!, { type: 's64' }))).toContain('PointwiseDense::count: type')
  })

  it('lists the kernels of the build, with their files, arguments and blocks', () => {
    const entries = new Map(families.flatMap((family) => [...entriesOf(family)]))
    expect([...documents.kernels.keys()].sort()).toEqual([...entries.keys()].sort())
    for (const [name, { file, bytes, threads, alignment }] of entries) {
      const documented = documents.kernels.get(name)!
      expect([documented.file, bytesOf.get(documented.struct), alignment], name).toEqual([file, bytes, 8])
      const most = /^\d+$/.test(documented.threads) ? Number(documented.threads) : 256
      expect(most, `${name}: threads`).toBeLessThanOrEqual(threads)
    }
  })
})
