// Writing so that a crash at any instant leaves either the old content or the new, never a part of it: a temporary
// file in the same folder, fsync, rename over the target, fsync of the folder.

import { randomBytes } from 'node:crypto'
import { type FileHandle, mkdir, open, realpath, rename, rm, stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { FileError, GradusError } from '../errors'

const advice: Record<string, string> = {
  ENOENT: 'check the path',
  EACCES: 'check the permissions',
  EPERM: 'check the permissions',
  EROFS: 'the file system is mounted read-only, choose another folder',
  ENOSPC: 'free some space or choose another folder',
  EDQUOT: 'the quota of this user is used up, free some space',
  EFBIG: 'the size limit of this process or file system is smaller than the file',
  EISDIR: 'name a file, not a folder',
  ENOTDIR: 'a part of the path is a file, not a folder',
  ERR_INVALID_ARG_TYPE: 'give the path as a string',
  EMFILE: 'close some files or raise the limit (ulimit -n)',
}

/** @internal Words a failed system call as a FileError; errors of the library pass unchanged. */
export function fileError(op: string, problem: string, error: unknown): GradusError {
  if (error instanceof GradusError) return error
  const { code, message } = error as NodeJS.ErrnoException
  return new FileError(op, { problem, got: code ?? message, action: advice[code ?? ''] ?? '', cause: error })
}

/** @internal Name of a temporary sibling of `path`; hidden, and unique over processes and threads. */
export function temporaryName(path: string): string {
  return join(dirname(path), `.${basename(path)}.${process.pid}-${randomBytes(6).toString('hex')}.tmp`)
}

/** @internal Makes a folder and those above it. (`mkdir` with `recursive` never returns in file systems like /proc that
 *  answer ENOENT below folders that exist.) */
export async function makeFolder(path: string): Promise<void> {
  try {
    await mkdir(path)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EEXIST') return
    if (code !== 'ENOENT' || dirname(path) === path) throw error
    await makeFolder(dirname(path))
    await mkdir(path).catch((again: NodeJS.ErrnoException) => {
      if (again.code !== 'EEXIST') throw again
    })
  }
}

/** @internal Makes renames inside `folder` durable. Windows cannot open folders and orders renames by itself. */
export async function syncFolder(folder: string): Promise<void> {
  if (process.platform === 'win32') return
  const handle = await open(folder, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

// A rename would put a file in the place of a device, a pipe or a socket. (Folders it refuses by itself.)
async function expectReplaceable(op: string, path: string, target: string): Promise<void> {
  const found = await stat(target).catch(() => undefined)
  if (found === undefined || found.isFile() || found.isDirectory()) return
  const kind = found.isFIFO() ? 'a pipe' : found.isSocket() ? 'a socket' : 'a device'
  throw new FileError(op, {
    problem: `cannot write ${path}`,
    got: kind,
    expected: 'a regular file, or none yet',
    action: 'choose another path',
  })
}

/** @internal Calls `write` with a fresh file and puts that file in the place of `path` when all of it is on disk.
 *  Whatever fails, `path` is untouched and nothing is left behind. Missing folders are made. */
export async function writeAtomically(
  op: string,
  path: string,
  write: (file: FileHandle) => Promise<void>,
): Promise<void> {
  try {
    await makeFolder(dirname(path))
    // A link stays a link: what it points at is replaced.
    const target = await realpath(path).catch(() => path)
    await expectReplaceable(op, path, target)
    const temporary = temporaryName(target)
    try {
      const file = await open(temporary, 'wx')
      try {
        await write(file)
        await file.sync()
      } finally {
        await file.close()
      }
      await rename(temporary, target)
    } catch (error) {
      await rm(temporary, { force: true })
      throw error
    }
    await syncFolder(dirname(target))
  } catch (error) {
    throw fileError(op, `cannot write ${path}`, error)
  }
}

/** @internal Writes all of `bytes`; a single write may be short, and more than 2 GiB at once is refused by the kernel. */
export async function writeFully(file: FileHandle, bytes: Uint8Array): Promise<void> {
  const chunk = 2 ** 30
  for (let done = 0; done < bytes.byteLength; ) {
    const { bytesWritten } = await file.write(bytes, done, Math.min(chunk, bytes.byteLength - done))
    done += bytesWritten
  }
}

/** @internal Fills `bytes` from `position`; false when the file ends before. */
export async function readFully(file: FileHandle, bytes: Uint8Array, position: number): Promise<boolean> {
  const chunk = 2 ** 30
  for (let done = 0; done < bytes.byteLength; ) {
    const { bytesRead } = await file.read(bytes, done, Math.min(chunk, bytes.byteLength - done), position + done)
    if (bytesRead === 0) return false
    done += bytesRead
  }
  return true
}
