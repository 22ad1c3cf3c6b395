// Model folders as Hugging Face's libraries read and write them: config.json beside model.safetensors.

import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { FileError, StateError } from '../errors'
import { writeAtomically, writeFully } from '../io/atomic'
import { loadFile, saveFile } from '../io/safetensors'
import type { Module } from '../nn/module'
import type { StateDict } from '../nn/stateDict'

/** What a config.json holds. */
export type JsonConfig = Record<string, unknown>

async function readObject(op: string, path: string): Promise<JsonConfig> {
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (cause) {
    throw new FileError(op, { problem: 'the file cannot be read', got: path, cause })
  }
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw new FileError(op, { problem: 'the file is not JSON', got: path, cause })
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new FileError(op, { problem: 'the file does not hold an object', got: path })
  }
  return value as JsonConfig
}

/** @internal Values of a config.json, checked; null and absent ones are the default. */
export function readJson(op: string, json: JsonConfig) {
  const value = <T>(name: string, type: 'number' | 'string' | 'boolean', otherwise: T): T => {
    const found = json[name] ?? otherwise
    if (typeof found !== type) {
      throw new FileError(op, {
        problem: `config.json has an odd ${name}`,
        got: JSON.stringify(found) ?? 'nothing',
        expected: `a ${type}`,
      })
    }
    return found as T
  }
  return {
    number: (name: string, otherwise: number): number => value(name, 'number', otherwise),
    string: (name: string, otherwise: string): string => value(name, 'string', otherwise),
    boolean: (name: string, otherwise: boolean): boolean => value(name, 'boolean', otherwise),
  }
}

/** @internal The config.json of a model folder. */
export function readConfig(op: string, folder: string): Promise<JsonConfig> {
  return readObject(op, join(folder, 'config.json'))
}

async function weightFiles(op: string, folder: string): Promise<string[]> {
  const single = join(folder, 'model.safetensors')
  const index = await readFile(`${single}.index.json`).catch(() => null)
  if (index === null) return [single]
  const { weight_map: map } = await readObject(op, `${single}.index.json`)
  if (typeof map !== 'object' || map === null) {
    throw new FileError(op, { problem: 'the index of the weights has no weight_map', got: folder })
  }
  return [...new Set(Object.values(map as Record<string, string>))].map((name) => join(folder, name))
}

/** @internal Loads a folder's weights (one file, or several with an index) into a model. `rename` gives each name in the
 *  file the model's name, or null for what the model has no use for; `mayMiss` says what need not be there. */
export async function loadWeights(
  op: string,
  model: Module,
  folder: string,
  rename: (name: string) => string | null,
  mayMiss: (name: string) => boolean = () => false,
): Promise<void> {
  const missing = new Set(Object.keys(model.stateDict()))
  for (const path of await weightFiles(op, folder)) {
    const file = await loadFile(path)
    const state: StateDict = {}
    for (const [name, tensor] of Object.entries(file)) {
      const renamed = rename(name)
      if (renamed !== null) state[renamed] = tensor
    }
    try {
      const { unexpectedKeys } = model.loadStateDict(state, { strict: false })
      if (unexpectedKeys.length > 0) {
        throw new StateError(op, {
          problem: 'the file has weights that the model has no place for',
          got: JSON.stringify(unexpectedKeys),
          action: 'check that config.json belongs to the weights',
        })
      }
    } finally {
      for (const tensor of Object.values(file)) tensor.dispose()
    }
    for (const name of Object.keys(state)) missing.delete(name)
  }
  const lacking = [...missing].filter((name) => !mayMiss(name))
  if (lacking.length > 0) {
    throw new StateError(op, {
      problem: 'the file lacks weights of the model',
      got: JSON.stringify(lacking),
      action: 'check that config.json belongs to the weights',
    })
  }
}

/** @internal Writes config.json and model.safetensors. */
export async function savePretrained(model: Module, config: JsonConfig, folder: string): Promise<void> {
  await saveFile(model.stateDict(), join(folder, 'model.safetensors'), { format: 'pt' })
  const text = new TextEncoder().encode(`${JSON.stringify(config, null, 2)}\n`)
  await writeAtomically('savePretrained', join(folder, 'config.json'), (file) => writeFully(file, text))
}
