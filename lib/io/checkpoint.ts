// Checkpoints of a training run. Each is a folder of its own, written beside its place and moved there when all of it
// is on disk: a crash at any instant leaves the checkpoints that were there.
//
//   runs/x/step-00001000/model.safetensors      each part that is a list of named tensors, readable by anything
//                        training.safetensors   the tensors of the other parts (optimizer, …)
//                        checkpoint.json        the rest of their state, the step and the caller's own values

import { readFile, rm, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { ArgumentError, describeValue, FileError } from '../errors'
import { readOptions } from '../options'
import * as random from '../random'
import { Tensor } from '../tensor/tensor'
import { fileError, makeFolder, syncFolder, temporaryName, writeAtomically, writeFully } from './atomic'
import { listCheckpoints, manifestName, place, removeLeftovers } from './checkpointFolder'
import { type TensorSource, writeContainer } from './container'
import { restoreParts } from './restoreParts'
import { type NamedTensors, safeOpen, sources } from './safetensors'
import { flattenState, type Json, unflattenState } from './stateTree'

/** Anything with a state: modules, optimizers, schedules, scalers, loaders. */
export interface Stateful {
  stateDict(): object
  loadStateDict(state: object): unknown
}

/** What goes into a checkpoint, by names of the caller's choice: `{ model, optimizer, schedule, loader }`. The state of
 *  the default generator goes with it by itself. */
export type CheckpointParts = Record<string, Stateful>

/** Options of saveCheckpoint. */
export interface SaveCheckpointOptions {
  /** Updates so far; names the checkpoint. */
  step: number
  /** Values of the caller: plain objects, arrays, numbers, text, typed arrays, tensors. */
  extra?: unknown
  /** Deletes the checkpoints of the folder but for the new one and those written last before it, so many in all, when
   *  the new one is complete. What counts is when they were written, not their steps. Default: keeps all. */
  keepLast?: number
  /** Text files to lie beside, such as a model's config.json. */
  files?: Record<string, string>
}

/** What loadCheckpoint tells. */
export interface LoadedCheckpoint {
  step: number
  extra: unknown
  /** Folder it came from. */
  path: string
}

interface Manifest {
  format: 'gradus.checkpoint'
  version: 1
  step: number
  /** Sizes of the other files, in bytes. */
  files: Record<string, number>
  /** Parts with a file of their own. */
  tensorParts: string[]
  /** State of the other parts. */
  parts: { [name: string]: Json }
  /** State of the default generator. */
  random: Json
  extra: Json
}

const trainingName = 'training.safetensors'
const extraName = 'extra'
const reservedNames = ['extra', 'training', 'checkpoint', 'random']

const isTensor = (value: object): value is Tensor => value instanceof Tensor

function isNamedTensors(state: object): state is NamedTensors {
  const values = Object.values(state)
  return values.length > 0 && values.every((value) => value instanceof Tensor)
}

function checkArguments(op: string, parts: CheckpointParts, options: SaveCheckpointOptions) {
  const { step, keepLast = 1, files = {} } = readOptions(op, options, ['step', 'extra', 'keepLast', 'files'])
  const refuse = (problem: string, got: unknown, expected: string) =>
    new ArgumentError(op, { problem, got: describeValue(got), expected })
  if (!Number.isSafeInteger(step) || step < 0) throw refuse('step is out of range', step, 'an integer from 0')
  if (!Number.isSafeInteger(keepLast) || keepLast < 1)
    throw refuse('keepLast is out of range', keepLast, 'an integer from 1')
  if (parts === null || typeof parts !== 'object') {
    throw refuse('no parts', parts, 'an object such as { model, optimizer }')
  }
  for (const [name, part] of Object.entries(parts)) {
    if (!/^[A-Za-z]\w*$/.test(name) || reservedNames.includes(name)) {
      throw refuse('a part cannot have this name', name, `letters, digits and _, but not ${reservedNames.join(', ')}`)
    }
    if (typeof part?.stateDict !== 'function' || typeof part.loadStateDict !== 'function') {
      throw refuse(`${name} has no state`, part, 'an object with stateDict() and loadStateDict()')
    }
  }
  for (const [name, text] of Object.entries(files)) {
    if (basename(name) !== name || name.startsWith('.') || name === manifestName || name.endsWith('.safetensors')) {
      throw refuse('a file cannot have this name', name, 'a plain file name')
    }
    if (typeof text !== 'string') throw refuse(`${name} is not text`, text, 'a string')
  }
}

/** Saves the state of a training run in a folder of checkpoints. Complete or not there at all, whatever happens
 *  meanwhile; await it before the next update changes the tensors.
 *  @returns the new checkpoint's folder
 *  @throws FileError when it cannot be written; earlier checkpoints are then untouched
 *  @example
 *  await io.saveCheckpoint('runs/x', { model, optimizer, schedule, loader }, { step: 100, keepLast: 3 })
 *  const { step } = await io.loadCheckpoint('runs/x', { model, optimizer, schedule, loader }) */
export async function saveCheckpoint(
  folder: string,
  parts: CheckpointParts,
  options: SaveCheckpointOptions,
): Promise<string> {
  const op = 'io.saveCheckpoint'
  checkArguments(op, parts, options)
  const { step, extra, keepLast, files = {} } = options
  const manifest: Manifest = {
    format: 'gradus.checkpoint',
    version: 1,
    step,
    files: {},
    tensorParts: [],
    parts: {},
    random: null,
    extra: null,
  }
  const containers = new Map<string, TensorSource[]>()
  const training: TensorSource[] = []
  const flatten = (name: string, state: unknown): Json => {
    const { json, tensors, arrays } = flattenState(op, name, state, isTensor)
    training.push(...sources(op, tensors))
    for (const [path, bytes] of arrays) {
      training.push({ name: path, dtype: 'uint8', shape: [bytes.byteLength], bytes: async () => bytes })
    }
    return json
  }
  for (const [name, part] of Object.entries(parts)) {
    const state = part.stateDict()
    if (isNamedTensors(state)) {
      manifest.tensorParts.push(name)
      containers.set(`${name}.safetensors`, sources(op, state))
    } else {
      manifest.parts[name] = flatten(name, state)
    }
  }
  manifest.random = flatten('random', random.getState())
  manifest.extra = flatten(extraName, extra ?? null)
  if (training.length > 0) containers.set(trainingName, training)

  const target = join(folder, `step-${String(step).padStart(8, '0')}`)
  const temporary = temporaryName(target)
  try {
    await makeFolder(temporary)
    for (const [name, tensors] of containers) {
      await writeContainer(op, join(temporary, name), tensors, { format: 'pt' })
      manifest.files[name] = (await stat(join(temporary, name))).size
    }
    for (const [name, text] of Object.entries({ ...files, [manifestName]: JSON.stringify(manifest, null, 1) })) {
      await writeAtomically(op, join(temporary, name), (file) => writeFully(file, Buffer.from(text)))
    }
    await place(temporary, target)
    await syncFolder(folder)
  } catch (error) {
    // where the folder is a file, say, this fails as well
    await rm(temporary, { recursive: true, force: true }).catch(() => undefined)
    throw fileError(op, `cannot write ${target}`, error)
  }
  await removeLeftovers(op, folder, target, keepLast)
  return target
}

/** The complete checkpoint of the highest step in a folder, or null when there is none (or no folder). */
export async function latestCheckpoint(folder: string): Promise<string | null> {
  try {
    return (await listCheckpoints('io.latestCheckpoint', folder)).at(-1)?.path ?? null
  } catch (error) {
    if (((error as Error).cause as NodeJS.ErrnoException | undefined)?.code === 'ENOENT') return null
    throw error
  }
}

/** Restores a training run from a checkpoint, or from that of the highest step in a folder of checkpoints, and the
 *  state of the default generator with it. All or nothing: everything is read and checked before the first part is
 *  changed, and when a part refuses its state the others get back what they had. Parts that are not asked for are left in
 *  the file.
 *  @throws FileError when there is no checkpoint, or a damaged one; ArgumentError when it lacks a part; what a part throws
 *  whose state does not fit
 *  @example const { step, extra } = await io.loadCheckpoint('runs/x', { model, optimizer }) */
export async function loadCheckpoint(path: string, parts: CheckpointParts): Promise<LoadedCheckpoint> {
  const op = 'io.loadCheckpoint'
  checkArguments(op, parts, { step: 0 })
  const folder = await findCheckpoint(op, path)
  const manifest = await readManifest(op, folder)
  for (const name of Object.keys(parts)) {
    if (manifest.tensorParts.includes(name) || Object.hasOwn(manifest.parts, name)) continue
    throw new ArgumentError(op, {
      problem: `${folder} lacks a part`,
      got: name,
      expected: [...manifest.tensorParts, ...Object.keys(manifest.parts)].join(', '),
    })
  }
  const tensorParts = Object.keys(parts).filter((name) => manifest.tensorParts.includes(name))
  const otherParts = Object.keys(parts).filter((name) => !manifest.tensorParts.includes(name))
  const states = new Map<string, object>()
  for (const name of tensorParts) states.set(name, await readTensors(join(folder, `${name}.safetensors`), () => true))

  const wanted = [...otherParts, extraName]
  const training = Object.hasOwn(manifest.files, trainingName)
    ? await readTensors(join(folder, trainingName), (name) => wanted.some((part) => name.startsWith(part)))
    : {}
  const find = <T>(table: Record<string, T>, name: string): T => {
    if (Object.hasOwn(table, name)) return table[name]!
    throw new FileError(op, { problem: `${folder} is damaged`, got: `no ${name} in ${trainingName}` })
  }
  const arrays: Record<string, Uint8Array> = {}
  for (const [name, tensor] of Object.entries(training)) {
    if (tensor.dtype === 'uint8') arrays[name] = await tensor._bytes(op)
  }
  const restore = (json: Json) =>
    unflattenState(
      op,
      json,
      (name) => find(training, name),
      (name) => find(arrays, name),
    )
  for (const name of otherParts) states.set(name, restore(manifest.parts[name]!) as object)
  const extra = restore(manifest.extra)

  const generator = restore(manifest.random) as random.RandomState
  // After the parts: one may draw numbers while it is restored.
  await restoreParts(op, parts, states, () => random.setState(generator))
  return { step: manifest.step, extra, path: folder }
}

async function readTensors(path: string, wanted: (name: string) => boolean): Promise<NamedTensors> {
  const file = await safeOpen(path)
  try {
    const tensors: [string, Tensor][] = []
    for (const name of file.keys()) if (wanted(name)) tensors.push([name, await file.get(name)])
    return Object.fromEntries(tensors)
  } finally {
    await file.close()
  }
}

async function findCheckpoint(op: string, path: string): Promise<string> {
  const single = await stat(join(path, manifestName)).catch(() => undefined)
  if (single !== undefined) return path
  const latest = (await listCheckpoints(op, path)).at(-1)
  if (latest !== undefined) return latest.path
  throw new FileError(op, {
    problem: `no checkpoint in ${path}`,
    expected: 'a folder with step-… folders',
    action: 'check the path, or begin without a checkpoint',
  })
}

async function readManifest(op: string, folder: string): Promise<Manifest> {
  const path = join(folder, manifestName)
  let manifest: Manifest
  try {
    manifest = JSON.parse(await readFile(path, 'utf8')) as Manifest
  } catch (error) {
    throw fileError(op, `cannot read ${path}`, error)
  }
  if (manifest?.format !== 'gradus.checkpoint' || manifest.version !== 1) {
    throw new FileError(op, {
      problem: `${path} is not a checkpoint of this version`,
      got: describeValue(manifest?.format),
      expected: 'gradus.checkpoint, version 1',
    })
  }
  const isTable = (value: unknown): boolean => value !== null && typeof value === 'object' && !Array.isArray(value)
  const lacks = [
    !isTable(manifest.files) && 'files',
    !isTable(manifest.parts) && 'parts',
    !isTable(manifest.random) && 'random',
    !Array.isArray(manifest.tensorParts) && 'tensorParts',
    !Number.isSafeInteger(manifest.step) && 'step',
  ].filter(Boolean)
  if (lacks.length > 0) {
    throw new FileError(op, {
      problem: `${path} is damaged`,
      got: `no ${lacks.join(', no ')}`,
      action: 'load an older checkpoint',
    })
  }
  for (const [name, size] of Object.entries(manifest.files)) {
    const found = await stat(join(folder, name)).catch(() => undefined)
    if (found?.size === size) continue
    throw new FileError(op, {
      problem: `${join(folder, name)} is damaged`,
      got: found === undefined ? 'no file' : `${found.size} bytes`,
      expected: `${size} bytes`,
      action: 'load an older checkpoint',
    })
  }
  return manifest
}
