// The checkpoints in a folder: step-00001000, step-00002000, …
//
// A checkpoint of a step that has one already first moves that one to step-….replaced; readers take it for the step
// as long as the new one is not there.

import { readdir, rename, rm, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { fileError, temporaryName } from './atomic'

/** @internal The file that makes a folder a checkpoint. */
export const manifestName = 'checkpoint.json'

const stepPattern = /^step-(\d+)(\.replaced)?$/

/** @internal Moves a complete checkpoint to its place. */
export async function place(temporary: string, target: string): Promise<void> {
  const replaced = `${target}.replaced`
  const exists = await stat(target).then(
    () => true,
    () => false,
  )
  if (exists) {
    await rm(replaced, { recursive: true, force: true })
    await rename(target, replaced)
  }
  try {
    await rename(temporary, target)
  } catch (error) {
    if (exists) await rename(replaced, target)
    throw error
  }
}

/** @internal Complete checkpoints of a folder, oldest step first. */
export async function listCheckpoints(op: string, folder: string): Promise<{ step: number; path: string }[]> {
  let names: string[]
  try {
    names = await readdir(folder)
  } catch (error) {
    throw fileError(op, `cannot read ${folder}`, error)
  }
  const found = new Map<number, string>()
  // Replaced ones first, so that the plain name of a step wins.
  for (const name of names.sort((a, b) => b.length - a.length)) {
    const step = stepPattern.exec(name)?.[1]
    if (step !== undefined) found.set(Number(step), join(folder, name))
  }
  return [...found].map(([step, path]) => ({ step, path })).sort((a, b) => a.step - b.step)
}

/** @internal Deletes checkpoints but for `written` and those written last before it, `keepLast` in all, and what crashes
 *  left. Steps say nothing about age: a run that begins anew counts from 0 beside the higher steps of the one before. */
export async function removeLeftovers(
  op: string,
  folder: string,
  written: string,
  keepLast: number | undefined,
): Promise<void> {
  try {
    const names = await readdir(folder)
    for (const name of await outdated(op, folder, names, basename(written), keepLast)) {
      // Out of sight first: a checkpoint that is half deleted must not be taken for one.
      const hidden = temporaryName(join(folder, name))
      try {
        await rename(join(folder, name), hidden)
      } catch (error) {
        // another process that saves here was quicker
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') continue
        throw error
      }
      await rm(hidden, { recursive: true, force: true })
    }
    for (const name of names) {
      const path = join(folder, name)
      if (await isAbandoned(path, name)) await rm(path, { recursive: true, force: true })
    }
  } catch (error) {
    throw fileError(op, `cannot delete old checkpoints in ${folder}`, error)
  }
}

// What was written after `written` is another process's, whose own turn to delete comes: two that save at the same time
// would else delete each other's.
async function outdated(op: string, folder: string, names: string[], written: string, keepLast?: number) {
  const replaced = names.filter((name) => stepPattern.exec(name)?.[2] && names.includes(name.replace('.replaced', '')))
  if (keepLast === undefined) return replaced
  // of the manifest, which is the last file of a checkpoint: a folder's own time changes when it is moved about
  const dated = (await listCheckpoints(op, folder)).map(async ({ step, path }) => {
    const found = await stat(join(path, manifestName)).catch(() => undefined)
    return { name: basename(path), step, at: found?.mtimeMs ?? 0 }
  })
  const oldestFirst = (await Promise.all(dated)).sort((a, b) => a.at - b.at || a.step - b.step).map(({ name }) => name)
  const count = oldestFirst.indexOf(written) + 1 - keepLast
  return [...replaced, ...oldestFirst.slice(0, Math.max(0, count))]
}

/** Whether this is what a process that died left of a checkpoint. An hour's grace, because on a shared disk the process
 *  may be another machine's. */
async function isAbandoned(path: string, name: string): Promise<boolean> {
  const pid = /^\.step-\d+.*\.(\d+)-[0-9a-f]+\.tmp$/.exec(name)?.[1]
  if (pid === undefined) return false
  const found = await stat(path).catch(() => undefined)
  if (found === undefined || Date.now() - found.mtimeMs < 3_600_000) return false
  try {
    process.kill(Number(pid), 0)
    return false
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH'
  }
}
