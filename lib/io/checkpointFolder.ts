// The checkpoints in a folder: step-00001000, step-00002000, …
//
// A checkpoint of a step that has one already first moves that one to step-….replaced; readers take it for the step
// as long as the new one is not there.

import { readdir, rename, rm, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { fileError, temporaryName } from './atomic'

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

/** @internal Deletes checkpoints but for the last `keepLast` steps, and what crashes left. */
export async function removeLeftovers(op: string, folder: string, keepLast: number | undefined): Promise<void> {
  try {
    const checkpoints = await listCheckpoints(op, folder)
    const kept = new Set(checkpoints.slice(keepLast === undefined ? 0 : -keepLast).map(({ path }) => basename(path)))
    for (const name of await readdir(folder)) {
      if (kept.has(name)) continue
      const path = join(folder, name)
      if (stepPattern.test(name)) {
        // Out of sight first: a checkpoint that is half deleted must not be taken for one.
        const hidden = temporaryName(path)
        await rename(path, hidden)
        await rm(hidden, { recursive: true, force: true })
      } else if (await isAbandoned(path, name)) {
        await rm(path, { recursive: true, force: true })
      }
    }
  } catch (error) {
    throw fileError(op, `cannot delete old checkpoints in ${folder}`, error)
  }
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
