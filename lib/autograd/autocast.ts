// Whether operators compute in a 16-bit dtype. The casts themselves are in lib/ops/autocast.ts.

import { AsyncLocalStorage } from 'node:async_hooks'
import { BFLOAT16 } from '../dtype'
import type { Tensor } from '../tensor/tensor'

/** @internal What autocast is set to. */
export interface AutocastState {
  readonly enabled: boolean
  /** Code of the dtype that products are computed in. */
  readonly dtype: number
  /** Whether a parameter is cast once and not at every use. */
  readonly cacheEnabled: boolean
}

/** @internal The cast of a parameter, as it was at a version. */
export interface CachedCast {
  readonly cast: Tensor
  readonly version: number
}

/** @internal */
export const autocastOff: AutocastState = { enabled: false, dtype: BFLOAT16, cacheEnabled: true }

// The region of the synchronous code that runs. It is null whenever a task or a continuation begins, because synchronous
// regions end before that: then the async context knows, and only while a region of an async function is under way. The
// exception is a `using` region that an await interrupts, an error of its author's: microtasks that were queued before it
// run within it, up to the one that ends it.
let current: Region | null = null

/** Code that runs under one setting. */
class Region implements AutocastState {
  open = true
  /** What synchronous code returns to behind it. */
  readonly before = current
  readonly enabled: boolean
  readonly dtype: number
  readonly cacheEnabled: boolean
  /** Casts of parameters, by parameter: one list for nested regions, which ends with the outermost. */
  readonly casts: Map<Tensor, CachedCast>

  constructor(
    { enabled, dtype, cacheEnabled }: AutocastState,
    readonly outer: Region | null,
  ) {
    this.enabled = enabled
    this.dtype = dtype
    this.cacheEnabled = cacheEnabled
    this.casts = outer?.casts ?? new Map()
  }

  close(): void {
    this.open = false
    if (this.outer !== null) return
    for (const { cast } of this.casts.values()) cast.dispose() // the tape's from here on
    this.casts.clear()
  }
}

/** @internal Whether autocast may be on: all that an operator asks while it is off. `autocastRegion` has the answer. */
export let autocasting = false

const context = new AsyncLocalStorage<Region>()
let asyncRegions = 0
const silent = new Region(autocastOff, null)

function enter(region: Region | null): void {
  current = region
  autocasting = asyncRegions > 0 || (region?.enabled ?? false)
}

function changeAsyncRegions(by: number): void {
  asyncRegions += by
  enter(current)
}

/** @internal The region of the code that runs, or null outside of any. */
export function autocastRegion(): Readonly<Region> | null {
  return innermost()
}

function innermost(): Region | null {
  if (current !== null) return current
  if (asyncRegions === 0) return null
  let region = context.getStore() ?? null
  while (region !== null && !region.open) region = region.outer
  return region
}

/** @internal The setting of the code that runs, for whoever runs a part of it again later. */
export function autocastState(): AutocastState {
  return innermost() ?? autocastOff
}

// Backward is no region of its own: what runs in it again is as if outside of any, and ends its own casts.
function outerRegion(): Region | null {
  const around = innermost()
  return around === silent ? null : around
}

/** @internal Runs fn, which may be async, under a setting; an async one keeps it across its awaits. */
export function runWithAutocast<R>(state: AutocastState, fn: () => R): R {
  const region = new Region(state, outerRegion())
  let result: R | undefined
  enter(region)
  try {
    result = context.run(region, fn)
  } finally {
    enter(region.before)
    if (!(result instanceof Promise)) region.close()
  }
  if (result instanceof Promise) {
    changeAsyncRegions(1)
    const done = (): void => {
      region.close()
      changeAsyncRegions(-1)
    }
    result.then(done, done)
  }
  return result
}

/** @internal Fast form for the engine, which runs synchronous code only: gradients keep the dtypes they have. */
export function withoutAutocast<R>(fn: () => R): R {
  if (!autocasting) return fn()
  const before = current
  enter(silent)
  try {
    return fn()
  } finally {
    enter(before)
  }
}

/** @internal A region that code opens and closes itself. */
export interface OpenAutocast {
  /** Ends it. Returns false where it was over already: one that is still open when its microtask ends is ended then. */
  close(): boolean
}

/** @internal Opens a region for the synchronous code that follows. */
export function openAutocast(state: AutocastState): OpenAutocast {
  const region = new Region(state, outerRegion())
  enter(region)
  const close = (): boolean => {
    if (!region.open) return false
    region.close()
    while (current !== null && !current.open) enter(current.before)
    return true
  }
  queueMicrotask(close)
  return { close }
}
