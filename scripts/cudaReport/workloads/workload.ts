// What kernels are run on to count what they move: operators on simulated cuda, each with what its algorithm has to
// move, so that a kernel that reads twice, or half a sector, shows.

import { type DType, device, fromTypedArray, isFloatingPoint, type Tensor } from '../../../lib/index'

/** What a kernel has to do, in all its launches: bytes of global memory, as threads ask for them, not as caches pass
 *  them on. */
export interface Ideal {
  loaded: number
  stored: number
  /** Bytes that memory has to give and take at least, where caches can spare the rest; else loaded + stored. */
  compulsory?: number
  /** Of products; absent where operations are not what a kernel is about. */
  flops?: number
  /** Bars: `stream` kernels move 128 bits an access and at most 5 % more than they have to; `tensor` ones multiply on
   *  tensor cores, from conflict-free shared memory, and move at most 10 % more. Others are told and not held. */
  bar?: 'stream' | 'tensor'
  /** Stores of a byte an element, or of single numbers, which cannot fill 128 bits where loads do. */
  narrowStores?: boolean
  /** Bytes of the loaded ones that are a byte an element, and cannot fill 128 bits where the others do. */
  narrowLoads?: number
}

export interface Workload {
  /** What runs, with shapes. */
  name: string
  kernels: Record<string, Ideal>
  run(): void
}

const dtypes: readonly DType[] = ['float32', 'float64', 'float16', 'bfloat16', 'int64', 'int32', 'uint8', 'bool']
export const floats: readonly DType[] = ['float32', 'float64', 'float16', 'bfloat16']
export const narrow: readonly DType[] = ['float32', 'float16', 'bfloat16']
export const halves: readonly DType[] = ['float16', 'bfloat16']

export const code = (dtype: DType): number => dtypes.indexOf(dtype)
export const sizeOf = (dtype: DType): number => [4, 8, 2, 2, 8, 4, 1, 1][code(dtype)]!
/** Of what a dtype is computed in. */
export const computeSize = (dtype: DType): number => (dtype === 'float64' ? 8 : 4)
const product = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1)

/** Numbers in (0, 2), whole ones in [0, 40), on cuda; made by no kernel. */
export function data(shape: readonly number[], dtype: DType, seed = 1): Tensor {
  let state = seed * 7919
  const numbers = Float64Array.from({ length: product(shape) }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return isFloatingPoint(dtype) ? (state + 1) / 2 ** 31 : Math.floor(state / (2 ** 32 / 40))
  })
  return fromTypedArray(numbers)
    .to(dtype)
    .view(...shape)
    .to('cuda')
}

export const wait = (): void => device('cuda').synchronizeSync()
