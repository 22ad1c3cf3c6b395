// Element types. The codes are those of native/core/dtype.h.

import { DTypeError, describeValue } from './errors'

/** Element type of a tensor, named as in PyTorch. */
export type DType = 'float32' | 'float64' | 'float16' | 'bfloat16' | 'int64' | 'int32' | 'uint8' | 'bool'

/** @internal Code of a dtype on the native side. */
export const FLOAT32 = 0
export const FLOAT64 = 1
export const FLOAT16 = 2
export const BFLOAT16 = 3
export const INT64 = 4
export const INT32 = 5
export const UINT8 = 6
export const BOOL = 7

/** @internal By code. */
export const dtypeNames: readonly DType[] = [
  'float32',
  'float64',
  'float16',
  'bfloat16',
  'int64',
  'int32',
  'uint8',
  'bool',
]
/** @internal Bytes of one element, by code. */
export const itemSizes: readonly number[] = [4, 8, 2, 2, 8, 4, 1, 1]

/** @internal Of sums and statistics over elements of a dtype: float32, or float64 for float64. */
export const statisticsDType = (dtype: number): number => (dtype === FLOAT64 ? FLOAT64 : FLOAT32)

const codes = new Map(dtypeNames.map((name, code) => [name, code]))

/** @internal Code of a dtype's name. @throws DTypeError when there is no such dtype */
export function dtypeCode(dtype: DType, op = 'dtype'): number {
  const code = codes.get(dtype)
  if (code === undefined) {
    throw new DTypeError(op, {
      problem: 'unknown dtype',
      got: describeValue(dtype),
      expected: `one of ${dtypeNames.join(', ')}`,
    })
  }
  return code
}

/** @internal */
export const isFloatingCode = (code: number): boolean => code <= BFLOAT16

/** Whether the dtype is one of float32, float64, float16, bfloat16. */
export function isFloatingPoint(dtype: DType): boolean {
  return isFloatingCode(dtypeCode(dtype))
}

// PyTorch's promotion: category first (bool < integer < float), then width; bf16 with fp16 gives fp32.
/** @internal dtype code of an operation between tensors of these dtypes. */
export function promote(a: number, b: number): number {
  if (a === b) return a
  const aFloat = isFloatingCode(a)
  const bFloat = isFloatingCode(b)
  if (aFloat !== bFloat) return aFloat ? a : b
  if (aFloat) {
    if (a === FLOAT64 || b === FLOAT64) return FLOAT64
    return FLOAT32
  }
  if (a === BOOL) return b
  if (b === BOOL) return a
  return Math.min(a, b) // int64 < int32 < uint8 by code: the wider has the lower code
}

/** The dtype of an operation between two tensors, by PyTorch's rules.
 *  @example promoteTypes('float16', 'bfloat16') // 'float32' */
export function promoteTypes(a: DType, b: DType): DType {
  return dtypeNames[promote(dtypeCode(a), dtypeCode(b))]!
}
