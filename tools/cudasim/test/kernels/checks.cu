// One defect a kernel, and beside it the twin that is right. `bad` picks which.
#include <cuda_pipeline.h>

#include <cstdint>

extern "C" __global__ void pastTheEnd(float* out, int n, int bad) { out[threadIdx.x + (bad ? n : 0)] = 1; }

extern "C" __global__ void misaligned(const float* in, float4* out, int bad) {
  out[threadIdx.x] = *reinterpret_cast<const float4*>(in + 4 * threadIdx.x + bad);
}

extern "C" __global__ void unwrittenShared(float* out, int bad) {
  __shared__ float s[64];
  if (threadIdx.x < 64 - bad) s[threadIdx.x] = threadIdx.x;
  __syncthreads();
  out[threadIdx.x] = s[63 - threadIdx.x];
}

extern "C" __global__ void missingBarrier(float* out, int bad) {
  __shared__ float s[64];
  s[threadIdx.x] = 0;
  __syncthreads();
  s[threadIdx.x] = threadIdx.x;
  if (!bad) __syncthreads();
  out[threadIdx.x] = s[63 - threadIdx.x];
}

// The second half of the double buffer is what is often forgotten: readers must be done before the next write.
extern "C" __global__ void writeAfterRead(float* out, int bad) {
  __shared__ float s[64];
  float sum = 0;
  for (int i = 0; i < 3; ++i) {
    s[threadIdx.x] = threadIdx.x + i;
    __syncthreads();
    sum += s[63 - threadIdx.x];
    if (!bad) __syncthreads();
  }
  out[threadIdx.x] = sum;
}

extern "C" __global__ void missingSyncwarp(float* out, int bad) {
  __shared__ float s[32];
  s[threadIdx.x] = threadIdx.x;
  if (!bad) __syncwarp();
  out[threadIdx.x] = s[31 - threadIdx.x];
}

extern "C" __global__ void globalInBlock(float* out, float* scratch, int bad) {
  scratch[threadIdx.x] += threadIdx.x;
  if (!bad) __syncthreads();
  out[threadIdx.x] = scratch[63 - threadIdx.x];
}

extern "C" __global__ void betweenBlocks(float* out, int bad) {
  if (threadIdx.x == 0) {
    if (bad) out[0] = out[0] + blockIdx.x;
    else atomicAdd(out, static_cast<float>(blockIdx.x));
  }
}

extern "C" __global__ void noFence(float* partial, unsigned* counter, float* out, int bad) {
  __shared__ bool last;
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = blockIdx.x + 1;
    if (!bad) __threadfence();
    last = atomicAdd(counter, 1) == gridDim.x - 1;
  }
  __syncthreads();
  if (last && threadIdx.x == 0) {
    float sum = 0;
    for (int i = 0; i < gridDim.x; ++i) sum += partial[i];
    *out = sum;
  }
}

// One block hands its result to the next through a flag.
extern "C" __global__ void flagChain(float* value, volatile unsigned* flag, int bad) {
  if (threadIdx.x) return;
  if (blockIdx.x > 0) {
    while (*flag != blockIdx.x) __nanosleep(20);
    __threadfence();
  }
  *value = *value + 1;
  if (!bad) __threadfence();
  *flag = blockIdx.x + 1;
}

extern "C" __global__ void divergentBarrier(float* out, int bad) {
  if (!bad || threadIdx.x % 32 < 16) __syncthreads();
  out[threadIdx.x] = 1;
}

extern "C" __global__ void earlyExit(float* out, int bad) {
  if (bad && threadIdx.x >= 32) return;
  __syncthreads();
  out[threadIdx.x] = 1;
}

extern "C" __global__ void wrongMask(int* out, int bad) {
  int v = threadIdx.x;
  if (threadIdx.x < 16) v = __shfl_down_sync(bad ? 0xffffffff : 0xffff, v, 1, 16);
  out[threadIdx.x] = v;
}

extern "C" __global__ void notInOwnMask(int* out, int bad) { out[threadIdx.x] = __ballot_sync(bad ? 0xfffffffe : ~0u, 1); }

extern "C" __global__ void inactiveSource(int* out, int bad) {
  int v = threadIdx.x;
  if (threadIdx.x < 16) v = __shfl_xor_sync(0xffff, v, bad ? 16 : 8);
  out[threadIdx.x] = v;
}

extern "C" __global__ void noWait(const float4* in, float4* out, int bad) {
  __shared__ float4 s[64];
  __pipeline_memcpy_async(&s[threadIdx.x], &in[threadIdx.x], 16);
  __pipeline_commit();
  if (!bad) __pipeline_wait_prior(0);
  __syncthreads();
  out[threadIdx.x] = s[63 - threadIdx.x];
}

// The wait makes a thread's own copies visible to itself only.
extern "C" __global__ void waitWithoutBarrier(const float4* in, float4* out, int bad) {
  __shared__ float4 s[64];
  s[threadIdx.x] = in[0];
  __syncthreads();
  __pipeline_memcpy_async(&s[threadIdx.x], &in[threadIdx.x], 16);
  __pipeline_commit();
  __pipeline_wait_prior(0);
  if (!bad) __syncthreads();
  out[threadIdx.x] = s[63 - threadIdx.x];
}

extern "C" __global__ void endless(volatile int* flag, int bad) {
  while (bad && *flag == 0) {
  }
}

extern "C" __global__ void uninitializedRegister(int* out, int bad) {
  int v;
  asm volatile("{ .reg .b32 t; .reg .pred p; setp.eq.s32 p, %1, 0; @p mov.b32 t, 5; add.s32 %0, t, 1; }" : "=r"(v) : "r"(bad));
  out[threadIdx.x] = v;
}

extern "C" __global__ void throughConstantCache(float* data, const float* __restrict__ same, int bad) {
  data[threadIdx.x] = 1;
  data[threadIdx.x] += bad ? __ldg(&same[threadIdx.x]) : 0;
}

__constant__ float table[4] = {1, 2, 3, 4};
extern "C" __global__ void writesConstant(float* out, int bad) {
  out[threadIdx.x] = table[threadIdx.x & 3];
  if (bad) asm volatile("st.f32 [%0], %1;" ::"l"(table + (threadIdx.x & 3)), "f"(1.0f) : "memory");
}

extern "C" __global__ void betweenVariables(float* out, int n, int bad) {
  __shared__ float a[32], b[32];
  a[threadIdx.x] = threadIdx.x, b[threadIdx.x] = 2;
  __syncwarp();
  out[threadIdx.x] = a[threadIdx.x + (bad ? n : 0)] + b[threadIdx.x ^ 1];
}

// A lock that lanes of one warp take in turns: independent thread scheduling lets the winner finish.
extern "C" __global__ void laneLock(int* lock, int* count) {
  bool done = false;
  while (!done) {
    if (atomicCAS(lock, 0, 1) == 0) {
      __threadfence();
      *reinterpret_cast<volatile int*>(count) = *reinterpret_cast<volatile int*>(count) + 1;
      __threadfence();
      atomicExch(lock, 0);
      done = true;
    }
  }
}

// A lock that every warp takes, and only some write under, as they find the largest: what orders two writes is a chain of
// those between them.
extern "C" __global__ void largest(int* lock, int* order, int* value) {
  if (threadIdx.x % 32) return;
  const int mine = (blockIdx.x * blockDim.x + threadIdx.x) / 32 + 1;
  if (atomicMax(order, 0) >= mine) return;
  while (atomicCAS(lock, 0, 1) != 0) {
  }
  __threadfence();
  if (atomicMax(order, mine) < mine) *value = mine;
  __threadfence();
  atomicExch(lock, 0);
}

// Producer and consumer warps with named barriers.
extern "C" __global__ void namedBarriers(float* out, int bad) {
  __shared__ float s[32];
  int lane = threadIdx.x % 32;
  float sum = 0;
  for (int i = 0; i < 4; ++i) {
    if (threadIdx.x < 32) {
      if (i) asm volatile("bar.sync 2, 64;" ::: "memory");
      s[lane] = i * lane;
      if (!bad || i < 3) asm volatile("bar.arrive 1, 64;" ::: "memory");
    } else {
      if (!bad || i < 3) asm volatile("bar.sync 1, 64;" ::: "memory");
      sum += s[31 - lane];
      if (i < 3) asm volatile("bar.arrive 2, 64;" ::: "memory");
    }
  }
  out[threadIdx.x] = sum;
}
