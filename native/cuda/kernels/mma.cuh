// The instructions of tensor cores and what feeds them. Fragments are laid out as the PTX ISA says under "Matrix
// fragments for mma.m16n8k16": lane l holds row l / 4 and columns 2 (l % 4) and the next, of every 8 x 8 quarter.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace gradus::cuda {

__device__ inline unsigned sharedAddress(const void* at) { return static_cast<unsigned>(__cvta_generic_to_shared(at)); }

// Four 8 x 8 matrices of 16-bit values: lanes 8 i to 8 i + 7 give the rows of matrix i.
__device__ inline void loadMatrices(unsigned (&to)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(sharedAddress(row))
               : "memory");
}

__device__ inline void loadTransposed(unsigned (&to)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(sharedAddress(row))
               : "memory");
}

// c [16, 8] += a [16, 16] b [16, 8], sums in float32.
template <class T>
__device__ void multiplyAdd(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1);

template <>
__device__ inline void multiplyAdd<__half>(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

template <>
__device__ inline void multiplyAdd<__nv_bfloat16>(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Two neighbours of a row, rounded.
template <class T>
__device__ unsigned packPair(float first, float second);
template <>
__device__ inline unsigned packPair<__half>(float first, float second) {
  const __half2 pair = __floats2half2_rn(first, second);
  return reinterpret_cast<const unsigned&>(pair);
}
template <>
__device__ inline unsigned packPair<__nv_bfloat16>(float first, float second) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
  return reinterpret_cast<const unsigned&>(pair);
}

// 16 bytes from memory to shared memory, past the registers and the first-level cache; zeros after `bytes`.
__device__ inline void copyAsync(void* to, const void* from, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(sharedAddress(to)), "l"(from), "r"(bytes)
               : "memory");
}

// 4 bytes; zero unless `inside`.
__device__ inline void copyWordAsync(void* to, const void* from, bool inside) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(sharedAddress(to)), "l"(from), "r"(inside ? 4 : 0)
               : "memory");
}

__device__ inline void commitCopies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Until at most kPending of the youngest groups are on their way.
template <int kPending>
__device__ void waitForCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

}  // namespace gradus::cuda
