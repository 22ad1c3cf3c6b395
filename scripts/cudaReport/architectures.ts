// What multiprocessors of an architecture hold, and what cards move and compute at best.

export interface Architecture {
  /** As of sm_80. */
  number: number
  /** Of a multiprocessor: CUDA C++ Programming Guide 13.0, "Technical Specifications per Compute Capability". */
  warps: number
  blocks: number
  sharedBytes: number
}

export const architectures: readonly Architecture[] = [
  { number: 80, warps: 64, blocks: 32, sharedBytes: 164 * 1024 },
  { number: 86, warps: 48, blocks: 16, sharedBytes: 100 * 1024 },
  { number: 89, warps: 48, blocks: 24, sharedBytes: 100 * 1024 },
  { number: 90, warps: 64, blocks: 32, sharedBytes: 228 * 1024 },
  { number: 100, warps: 64, blocks: 32, sharedBytes: 228 * 1024 },
  { number: 120, warps: 48, blocks: 24, sharedBytes: 100 * 1024 },
]

export interface Card {
  name: string
  source: string
  /** Bytes a second of its memory. */
  bandwidth: number
  /** Operations a second, two for a multiply-add: in float32, in float64, and of 16-bit operands on tensor cores with
   *  sums in float32, without sparsity. */
  float32: number
  float64: number
  tensor: number
}

export const cards: readonly Card[] = [
  {
    name: 'H100 SXM',
    source: 'NVIDIA H100 Tensor Core GPU data sheet: 3.35 TB/s; 67 TFLOPS FP32, 34 FP64, 1,979 FP16 with sparsity',
    bandwidth: 3.35e12,
    float32: 67e12,
    float64: 34e12,
    tensor: 989.5e12,
  },
  {
    name: 'A100 SXM 80 GB',
    source: 'NVIDIA A100 Tensor Core GPU data sheet: 2,039 GB/s; 19.5 TFLOPS FP32, 9.7 FP64, 312 FP16',
    bandwidth: 2.039e12,
    float32: 19.5e12,
    float64: 9.7e12,
    tensor: 312e12,
  },
  {
    name: 'RTX 4090',
    source:
      'NVIDIA Ada GPU Architecture white paper, appendix A: 1,008 GB/s; 82.6 TFLOPS FP32, 1/64 of it FP64, 165.2 FP16 with FP32 sums',
    bandwidth: 1.008e12,
    float32: 82.6e12,
    float64: 1.29e12,
    tensor: 165.2e12,
  },
]

const registers = 65536 // of a multiprocessor, for all of them
const registerUnit = 256 // a warp's are handed out in
const sharedUnit = 128
const sharedOfSystem = 1024 // of every block
const warpSize = 32

const roundUp = (n: number, unit: number): number => Math.ceil(n / unit) * unit

/** Warps of a multiprocessor that blocks of a kernel keep busy at a time, as a share of the most there can be. */
export function occupancy(
  { warps, blocks, sharedBytes }: Architecture,
  kernel: { registers: number; threads: number; sharedBytes: number },
): number {
  const ofBlock = Math.ceil(kernel.threads / warpSize)
  const byRegisters = Math.floor(registers / (roundUp(kernel.registers * warpSize, registerUnit) * ofBlock))
  const byShared = Math.floor(sharedBytes / (roundUp(kernel.sharedBytes, sharedUnit) + sharedOfSystem))
  return (Math.min(Math.floor(warps / ofBlock), blocks, byRegisters, byShared) * ofBlock) / warps
}
