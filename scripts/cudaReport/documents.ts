// What docs/cuda.md says of the kernels, as data: their names, and the layouts of their arguments.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'

export interface DocumentedKernel {
  file: string
  struct: string
  threads: string
}

export interface Field {
  offset: number
  /** Elements of an array, else 1. */
  count: number
  /** Of an element. */
  bytes: number
  /** s32, f64, pointer, number, or a struct's name. */
  type: string
  name: string
}

export interface Struct {
  name: string
  bytes: number
  fields: Field[]
}

export interface Documents {
  /** By name. */
  kernels: Map<string, DocumentedKernel>
  structs: Struct[]
  /** Dynamic shared memory of kernels on tensor cores, by the beginning of their names. */
  sharedBytes: Map<string, number>
}

const cellsOf = (line: string): string[] =>
  line
    .slice(1, -1)
    .split(/(?<!\\)\|/)
    .map((cell) => cell.trim())

/** `a_<b, c>` stands for a_b and a_c; what words such as <dtype> stand for, the page says. */
function expand(pattern: string, words: ReadonlyMap<string, readonly string[]>): string[] {
  const choice = /<([^>]*)>/.exec(pattern)
  if (choice === null) return [pattern]
  const [whole, inside] = choice as unknown as [string, string]
  const options = words.get(inside) ?? inside.split(', ')
  return options.flatMap((option) => expand(pattern.replace(whole, option), words))
}

/** What each word stands for, from "`<word>` for a, b, c;" or the same with a full stop. */
function readWords(page: string): Map<string, string[]> {
  const flat = page.replace(/\s+/g, ' ')
  return new Map(
    [...flat.matchAll(/`<(\w+)>` for ([\w, ]+?)(?=[;.])/g)].map(([, word, list]) => [word!, list!.split(', ')]),
  )
}

export function readDocuments(path = join(__dirname, '../../docs/cuda.md')): Documents {
  const page = readFileSync(path, 'utf8')
  const words = readWords(page)
  const kernels: Documents['kernels'] = new Map()
  const structs: Struct[] = []
  const sharedBytes: Documents['sharedBytes'] = new Map()
  for (const line of page.split('\n')) {
    const heading = /^### `([\w:]+)`, (\d+) bytes$/.exec(line)
    if (heading !== null) structs.push({ name: heading[1]!, bytes: Number(heading[2]), fields: [] })
    if (!line.startsWith('|')) continue
    const cells = cellsOf(line)
    const names = [...cells[1]!.matchAll(/`(gradus_[^`]*)`/g)]
    if (cells.length === 5 && names.length > 0) {
      for (const name of names.flatMap(([, pattern]) => expand(pattern!, words))) {
        if (kernels.has(name)) throw new Error(`docs/cuda.md: ${name} is there twice`)
        kernels.set(name, { file: cells[0]!, struct: cells[2]!.replaceAll('`', ''), threads: cells[3]! })
      }
    }
    const shared = /^`(gradus_\w+_mma_(?:\w+_)?)<([^>]*)>`$/.exec(cells[0]!)
    if (shared !== null) {
      const variants = shared[2]!.split(', ')
      variants.forEach((variant, i) => void sharedBytes.set(`${shared[1]}${variant}_`, Number(cells[1 + i])))
    }
    if (cells.length === 5 && /^\d+$/.test(cells[0]!)) {
      const array = /^(\d+) x (\d+)$/.exec(cells[1]!)
      structs.at(-1)!.fields.push({
        offset: Number(cells[0]),
        count: array ? Number(array[1]) : 1,
        bytes: Number(array ? array[2] : cells[1]),
        type: cells[2]!.replaceAll('`', ''),
        name: cells[3]!.replaceAll('`', ''),
      })
    }
  }
  return { kernels, structs, sharedBytes }
}

const kinds: Record<string, string> = { s: 'std::is_signed_v<T>', u: 'std::is_unsigned_v<T>' }

/** C++ for the dynamic shared memory of a kernel whose name begins so. */
function bytesOf(kernel: string): string {
  const product = /^gradus_gemm_mma_(\w+)_$/.exec(kernel)
  if (product !== null) {
    const [rows, cols] = { large: [128, 128], medium: [64, 128], small: [64, 64] }[product[1]!]!
    return `gemmMmaBytes(${rows}, ${cols})`
  }
  const [, pass, features] = /^gradus_attention_mma_(\w+)_(\d+)_$/.exec(kernel)!
  if (pass === 'forward') {
    const tiles = `AttentionForwardTiles<${features}>`
    return `attentionForwardBytes(${features}, ${tiles}::kQueries, ${tiles}::kKeys)`
  }
  const [bytes, rows] =
    pass === 'query_gradient' ? ['attentionQueryGradientBytes', 'kKeys'] : ['attentionKeyGradientBytes', 'kQueries']
  return `${bytes}(${features}, AttentionBackwardTiles<${features}>::${rows})`
}

/** A condition on the C++ type T. */
function typeCondition(type: string): string {
  if (type === 'pointer') return 'std::is_pointer_v<T>'
  if (type === 'number') return 'std::is_union_v<T>'
  const scalar = /^([suf])(\d+)$/.exec(type)
  if (scalar === null) return `std::is_same_v<T, ${type}>`
  const [, kind, bits] = scalar as unknown as [string, string, string]
  const isKind = kind === 'f' ? 'std::is_floating_point_v<T>' : `std::is_integral_v<T> && ${kinds[kind]}`
  return `(${isKind} || (std::is_enum_v<T> && "${type}"[0] == 's')) && sizeof(T) == ${Number(bits) / 8}`
}

/** A C++ file that compiles where the layouts are those of the headers, and leave out nothing but padding. */
export function layoutCheck({ structs, sharedBytes }: Documents, headers: readonly string[]): string {
  const lines = ['#include <cstddef>', '#include <type_traits>', ...headers.map((header) => `#include "${header}"`)]
  lines.push('using namespace gradus::cuda;')
  const assert = (condition: string, text: string): void => {
    lines.push(`static_assert(${condition}, ${JSON.stringify(text)});`)
  }
  for (const { name, bytes, fields } of structs) {
    assert(`sizeof(${name}) == ${bytes}`, `${name}: bytes`)
    let end = 0
    for (const field of fields) {
      const member = `${name}::${field.name}`
      const place = `offsetof(${name}, ${field.name})`
      const alignment = `alignof(std::remove_all_extents_t<decltype(${member})>)`
      assert(
        `${place} == ${field.offset} && sizeof(${member}) == ${field.count * field.bytes}`,
        `${member}: place, size`,
      )
      assert(
        `[] { using T = std::remove_all_extents_t<decltype(${member})>; return (${typeCondition(field.type)}) && sizeof(T) == ${field.bytes}; }()`,
        `${member}: type`,
      )
      assert(`${field.offset} - ${end} < ${alignment} && ${field.offset} >= ${end}`, `${member}: follows a gap`)
      end = field.offset + field.count * field.bytes
    }
    assert(`${bytes} - ${end} < alignof(${name})`, `${name}: its end is not described`)
  }
  for (const [kernel, bytes] of sharedBytes) assert(`${bytesOf(kernel)} == ${bytes}`, `${kernel}: shared memory`)
  return `${lines.join('\n')}\n`
}
