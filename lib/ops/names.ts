// Names that PyTorch has beside those of the operators. Nothing here computes.

import { cudaDevice, type Device, type DeviceName } from '../device'
import { describeShape, ShapeError } from '../errors'
import { Tensor } from '../tensor/tensor'
import { clamp } from './compare'
import { defineMethods, expectTensor } from './registry'
import { reshape, to, transpose, view } from './shape'
import type { ToOptions } from './target'

declare module '../tensor/tensor' {
  interface Tensor {
    /** Rows and columns of a matrix exchanged; a vector and a number stay. */
    readonly T: Tensor
    /** The last two dims exchanged. */
    readonly mT: Tensor
    /** `to('float32')` */
    float(): Tensor
    /** `to('float64')` */
    double(): Tensor
    /** `to('float16')` */
    half(): Tensor
    /** `to('bfloat16')` */
    bfloat16(): Tensor
    /** `to('int64')` */
    long(): Tensor
    /** `to('int32')` */
    int(): Tensor
    /** `to('bool')`: whether each element is not 0 */
    bool(): Tensor
    /** `to(other.dtype)` */
    typeAs(other: Tensor): Tensor
    /** `to('cpu')`
     *  @see https://docs.pytorch.org/docs/stable/generated/torch.Tensor.cpu.html */
    cpu(): Tensor
    /** `to('cuda')`, or to the CUDA device of an index or a name.
     *  @throws DeviceError where there is no such CUDA device
     *  @see https://docs.pytorch.org/docs/stable/generated/torch.Tensor.cuda.html */
    cuda(device?: number | DeviceName | Device, options?: ToOptions): Tensor
    /** `ndim` */
    dim(): number
    /** `view(...other.shape)` */
    viewAs(other: Tensor): Tensor
    /** `reshape(...other.shape)` */
    reshapeAs(other: Tensor): Tensor
    /** `clamp(min)` */
    clampMin(min: number): Tensor
    /** `clamp(null, max)` */
    clampMax(max: number): Tensor
  }
}

function sizesOf(op: string, other: unknown): number[] {
  expectTensor(op, 'other', other)
  return [...other.shape]
}

defineMethods({
  float: (x: Tensor) => to(x, 'float32'),
  double: (x: Tensor) => to(x, 'float64'),
  half: (x: Tensor) => to(x, 'float16'),
  bfloat16: (x: Tensor) => to(x, 'bfloat16'),
  long: (x: Tensor) => to(x, 'int64'),
  int: (x: Tensor) => to(x, 'int32'),
  bool: (x: Tensor) => to(x, 'bool'),
  typeAs: (x: Tensor, other: Tensor) => {
    expectTensor('typeAs', 'other', other)
    return to(x, other.dtype)
  },
  cpu: (x: Tensor) => to(x, 'cpu'),
  cuda: (x: Tensor, where?: number | DeviceName | Device, options?: ToOptions) =>
    to(x, cudaDevice('cuda', where), options),
  dim: (x: Tensor) => x.ndim,
  viewAs: (x: Tensor, other: Tensor) => view(x, sizesOf('viewAs', other)),
  reshapeAs: (x: Tensor, other: Tensor) => reshape(x, sizesOf('reshapeAs', other)),
  clampMin: (x: Tensor, min: number) => clamp(x, min),
  clampMax: (x: Tensor, max: number) => clamp(x, null, max),
})

function matrixTranspose(name: 'T' | 'mT', fits: (rank: number) => boolean): void {
  Object.defineProperty(Tensor.prototype, name, {
    configurable: true,
    get(this: Tensor): Tensor {
      if (name === 'T' && this.ndim < 2) return this
      if (fits(this.ndim)) return transpose(this, -2, -1)
      throw new ShapeError(name, {
        problem: 'not a matrix',
        got: describeShape(this.shape),
        expected: name === 'T' ? 'at most two dims' : 'two or more dims',
        action: 'use transpose() or permute()',
      })
    },
  })
}

matrixTranspose('T', (rank) => rank === 2)
matrixTranspose('mT', (rank) => rank >= 2)
