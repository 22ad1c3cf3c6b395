// Matrix products of the smoke tests: a tiled one in float32, and one on tensor cores with asynchronous copies.
#include <cuda_fp16.h>

#include <cstdint>

// C [M, N] = A [M, K] B [K, N], all multiples of 32; 16 x 16 threads, each four elements.
extern "C" __global__ void gemmTiled(const float* A, const float* B, float* C, int M, int N, int K) {
  __shared__ float a[32][33], b[32][32];
  int tx = threadIdx.x, ty = threadIdx.y, row = blockIdx.y * 32, col = blockIdx.x * 32;
  float acc[2][2] = {};
  for (int k0 = 0; k0 < K; k0 += 32) {
    for (int i = 0; i < 2; ++i)
      for (int j = 0; j < 2; ++j) {
        a[ty + 16 * i][tx + 16 * j] = A[(row + ty + 16 * i) * K + k0 + tx + 16 * j];
        b[ty + 16 * i][tx + 16 * j] = B[(k0 + ty + 16 * i) * N + col + tx + 16 * j];
      }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < 32; ++k)
      for (int i = 0; i < 2; ++i)
        for (int j = 0; j < 2; ++j) acc[i][j] += a[ty + 16 * i][k] * b[k][tx + 16 * j];
    __syncthreads();
  }
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < 2; ++j) C[(row + ty + 16 * i) * N + col + tx + 16 * j] = acc[i][j];
}

__device__ uint32_t sharedAddress(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

__device__ void copyAsync(void* to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(sharedAddress(to)), "l"(from) : "memory");
}

// C [M, N] float32 = A [M, K] B [K, N] float16; blocks of 64 x 64, four warps, two stages of K = 32.
extern "C" __global__ void __launch_bounds__(128) gemmMma(const __half* A, const __half* B, float* C, int M, int N, int K) {
  __shared__ __align__(16) __half a[2][64][40], b[2][32][72];
  int tid = threadIdx.x, warp = tid / 32, lane = tid % 32, row = blockIdx.y * 64, col = blockIdx.x * 64;
  float acc[8][4] = {};
  auto load = [&](int stage, int k0) {
    for (int i = tid; i < 64 * 4; i += 128) copyAsync(&a[stage][i / 4][i % 4 * 8], &A[(row + i / 4) * K + k0 + i % 4 * 8]);
    for (int i = tid; i < 32 * 8; i += 128) copyAsync(&b[stage][i / 8][i % 8 * 8], &B[(k0 + i / 8) * N + col + i % 8 * 8]);
    asm volatile("cp.async.commit_group;" ::: "memory");
  };
  load(0, 0);
  for (int k0 = 0, stage = 0; k0 < K; k0 += 32, stage ^= 1) {
    if (k0 + 32 < K) {
      load(stage ^ 1, k0 + 32);
      asm volatile("cp.async.wait_group 1;" ::: "memory");
    } else {
      asm volatile("cp.async.wait_group 0;" ::: "memory");
    }
    __syncthreads();
    for (int kk = 0; kk < 32; kk += 16) {
      uint32_t fa[4];
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                   : "=r"(fa[0]), "=r"(fa[1]), "=r"(fa[2]), "=r"(fa[3])
                   : "r"(sharedAddress(&a[stage][warp * 16 + lane % 16][kk + lane / 16 * 8])));
      for (int n = 0; n < 8; ++n) {
        uint32_t fb[2];
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                     : "=r"(fb[0]), "=r"(fb[1])
                     : "r"(sharedAddress(&b[stage][kk + lane % 16][n * 8])));
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                     : "+f"(acc[n][0]), "+f"(acc[n][1]), "+f"(acc[n][2]), "+f"(acc[n][3])
                     : "r"(fa[0]), "r"(fa[1]), "r"(fa[2]), "r"(fa[3]), "r"(fb[0]), "r"(fb[1]));
      }
    }
    __syncthreads();
  }
  for (int n = 0; n < 8; ++n) {
    float* c = &C[(row + warp * 16 + lane / 4) * N + col + n * 8 + lane % 4 * 2];
    c[0] = acc[n][0], c[1] = acc[n][1], c[8 * N] = acc[n][2], c[8 * N + 1] = acc[n][3];
  }
}
