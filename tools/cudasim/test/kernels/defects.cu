// More defects with their clean twins: local memory, asynchronous copies, matrix instructions, orders that only some
// threads keep, and patterns that are right and must raise nothing.
#include <cooperative_groups.h>
#include <cuda_fp16.h>
#include <cuda_pipeline.h>

#include <cstdint>

__device__ uint32_t sharedAddress(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

extern "C" __global__ void localOverrun(float* out, int n, int bad) {
  float own[8];
  for (int i = 0; i < 8; ++i) own[(i * n) & 7] = i;
  out[threadIdx.x] = own[(threadIdx.x & 7) + (bad ? n : 0)];
}

extern "C" __global__ void localUnwritten(float* out, int n, int bad) {
  float own[8];
  for (int i = 0; i < n - bad; ++i) own[i] = i;
  out[threadIdx.x] = own[(threadIdx.x * 7) & 7];
}

extern "C" __global__ void pastDynamicShared(float* out, int bad) {
  extern __shared__ float dynamic[];
  dynamic[threadIdx.x + bad] = 1;
  __syncthreads();
  out[threadIdx.x] = dynamic[threadIdx.x + bad];
}

extern "C" __global__ void misalignedShared(float2* out, int bad) {
  __shared__ float s[66];
  for (int i = threadIdx.x; i < 66; i += 32) s[i] = i;
  __syncwarp();
  out[threadIdx.x] = *reinterpret_cast<float2*>(s + 2 * threadIdx.x + bad);
}

extern "C" __global__ void vectorOverTheEnd(const float* in, float4* out, int bad) {
  out[threadIdx.x] = *reinterpret_cast<const float4*>(in + 4 * threadIdx.x + 4 * bad);
}

// Two warps write bytes that lie side by side, or the same ones.
extern "C" __global__ void neighbouringBytes(uint8_t* out, int bad) {
  __shared__ uint8_t s[64];
  int at = threadIdx.x / 32 * (bad ? 0 : 1) + threadIdx.x % 32 * 2;
  s[at] = threadIdx.x;
  __syncthreads();
  if (threadIdx.x < 32) out[threadIdx.x] = s[2 * threadIdx.x];
}

extern "C" __global__ void sameValue(int* out, int bad) {
  __shared__ int flag;
  flag = bad ? threadIdx.x / 32 : 1;
  __syncthreads();
  out[threadIdx.x] = flag;
}

extern "C" __global__ void atomicAndPlain(int* out, int bad) {
  __shared__ int sum;
  if (threadIdx.x == 0) sum = 0;
  __syncthreads();
  atomicAdd(&sum, 1);
  if (!bad) __syncthreads();
  out[threadIdx.x] = sum;
}

// One warp hands a number to the other through a flag.
extern "C" __global__ void flagInBlock(int* out, int n, int bad) {
  __shared__ int value;
  __shared__ volatile int flag;
  if (threadIdx.x == 0) flag = 0;
  __syncthreads();
  if (threadIdx.x == 0) {
    value = n;
    if (!bad) __threadfence_block();
    flag = 1;
  } else if (threadIdx.x == 32) {
    while (flag == 0) {
    }
    __threadfence_block();
    out[0] = value;
  }
}

extern "C" __global__ void differentCounts(float* out, int bad) {
  __shared__ float s[64];
  int rounds = 2 + (bad ? threadIdx.x / 32 : 0);
  for (int i = 0; i < rounds; ++i) {
    s[threadIdx.x] = i;
    __syncthreads();
  }
  out[threadIdx.x] = s[threadIdx.x];
}

extern "C" __global__ void wrongGroup(const float4* in, float4* out, int bad) {
  __shared__ float4 s[2][32];
  for (int stage = 0; stage < 2; ++stage) {
    __pipeline_memcpy_async(&s[stage][threadIdx.x], &in[32 * stage + threadIdx.x], 16);
    __pipeline_commit();
  }
  if (bad) __pipeline_wait_prior(1);
  else __pipeline_wait_prior(0);
  __syncthreads();
  out[threadIdx.x] = s[1][31 - threadIdx.x];
}

extern "C" __global__ void notCommitted(const float4* in, float4* out, int bad) {
  __shared__ float4 s[32];
  __pipeline_memcpy_async(&s[threadIdx.x], &in[threadIdx.x], 16);
  if (!bad) __pipeline_commit();
  __pipeline_wait_prior(0);
  out[threadIdx.x] = s[threadIdx.x];
  __pipeline_commit();
  __pipeline_wait_prior(0);
}

extern "C" __global__ void writeInFlight(const float4* in, float4* out, int bad) {
  __shared__ float4 s[32];
  __pipeline_memcpy_async(&s[threadIdx.x], &in[threadIdx.x], 16);
  __pipeline_commit();
  if (!bad) __pipeline_wait_prior(0);
  s[threadIdx.x].x = 1;
  __pipeline_wait_prior(0);
  out[threadIdx.x] = s[threadIdx.x];
}

// A stage is filled again while others may still read it.
extern "C" __global__ void refillWhileRead(const float4* in, float4* out, int bad) {
  __shared__ float4 s[64];
  float4 sum = make_float4(0, 0, 0, 0);
  for (int k = 0; k < 3; ++k) {
    __pipeline_memcpy_async(&s[threadIdx.x], &in[64 * k + threadIdx.x], 16);
    __pipeline_commit();
    __pipeline_wait_prior(0);
    __syncthreads();
    sum.x += s[63 - threadIdx.x].x;
    if (!bad) __syncthreads();
  }
  out[threadIdx.x] = sum;
}

extern "C" __global__ void matrixPastTheEnd(uint32_t* out, int bad) {
  __shared__ __align__(16) __half s[16][8];
  for (int i = threadIdx.x; i < 128; i += 32) (&s[0][0])[i] = __float2half(i);
  __syncwarp();
  uint32_t a, b;
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(a), "=r"(b) : "r"(sharedAddress(&s[0][0]) + (threadIdx.x % 16 + bad) * 16));
  out[threadIdx.x] = a + b;
}

extern "C" __global__ void divergentMma(float* out, int bad) {
  float d0 = 0, d1 = 0, d2 = 0, d3 = 0;
  if (threadIdx.x < 32 - bad)
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %4}, {%4}, {%0, %1, %2, %3};"
                 : "+f"(d0), "+f"(d1), "+f"(d2), "+f"(d3) : "r"(0x3c003c00));
  out[threadIdx.x] = d0 + d1 + d2 + d3;
}

extern "C" __global__ void copySizeTooLarge(const float4* in, float4* out, int bad) {
  __shared__ float4 s[32];
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2; cp.async.wait_all;"
               ::"r"(sharedAddress(&s[threadIdx.x])), "l"(in + threadIdx.x), "r"(bad ? 17 : 9) : "memory");
  out[threadIdx.x] = s[threadIdx.x];
}

extern "C" __global__ void stopsItself(int* out, int bad) {
  out[threadIdx.x] = 1;
  if (bad && threadIdx.x == 5) __trap();
}

extern "C" __global__ void shuffleFromExited(int* out, int bad) {
  int v = threadIdx.x;
  if (bad && threadIdx.x >= 16) return;
  out[threadIdx.x] = __shfl_xor_sync(~0u, v, 16);
}

extern "C" __global__ void missingGridBarrier(int* data, int* out, int bad) {
  data[blockIdx.x] = blockIdx.x;
  if (!bad) cooperative_groups::this_grid().sync();
  out[blockIdx.x] = data[(blockIdx.x + 1) % gridDim.x];
}

// Block-wide fences do not reach other blocks.
extern "C" __global__ void fenceTooNarrow(int* data, int* flag, int* out, int bad) {
  if (blockIdx.x == 0) {
    data[0] = 7;
    if (bad) __threadfence_block();
    else __threadfence();
    atomicExch(flag, 1);
  } else {
    while (atomicAdd(flag, 0) == 0) {
    }
    __threadfence();
    out[0] = data[0];
  }
}

// A tree in one warp that forgets __syncwarp between reading and writing.
extern "C" __global__ void warpTree(float* out, int bad) {
  __shared__ float s[32];
  int lane = threadIdx.x;
  s[lane] = lane;
  __syncwarp();
  for (int step = 16; step; step /= 2) {
    float v = s[lane] + s[lane ^ step];
    if (!bad) __syncwarp();
    s[lane] = v;
    __syncwarp();
  }
  out[lane] = s[lane];
}

extern "C" __global__ void nullPointer(const float* in, float* out, int bad) { out[threadIdx.x] = bad ? in[threadIdx.x] : 0; }
