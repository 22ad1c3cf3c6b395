import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { commonestToken, readText, unigramEntropy } from '../../lib/train/text'

const folder = mkdtempSync(join(tmpdir(), 'gradus-text-'))
afterAll(() => rmSync(folder, { recursive: true }))

function file(name: string, content: string | Uint8Array): string {
  writeFileSync(join(folder, name), content)
  return join(folder, name)
}

test('readText: reads UTF-8', async () => {
  expect(await readText(file('good.txt', 'naïve café'))).toBe('naïve café')
})

test('readText: names a missing file', async () => {
  const path = join(folder, 'missing.txt')
  await expect(readText(path)).rejects.toThrow(`readText: no such file: got ${path}, expected a UTF-8 text file.`)
})

test('readText: refuses a folder, binary data and other encodings', async () => {
  await expect(readText(folder)).rejects.toThrow('a folder is not a text')
  const binary = file('binary', Uint8Array.of(72, 105, 0, 1))
  await expect(readText(binary)).rejects.toThrow(`a binary file: got ${binary} with a zero byte at 2`)
  await expect(readText(file('latin1', Uint8Array.of(0xe9, 0x20)))).rejects.toThrow('not valid UTF-8')
})

test('unigramEntropy: log 2 for two tokens that are equally frequent', () => {
  expect(unigramEntropy(Int32Array.of(0, 1, 1, 0))).toBeCloseTo(Math.log(2), 12)
  expect(unigramEntropy(Int32Array.of(3, 3, 3))).toBe(0)
})

test('commonestToken: the one that comes most often', () => {
  expect(commonestToken(Int32Array.of(4, 2, 7, 2, 2, 4))).toBe(2)
})
