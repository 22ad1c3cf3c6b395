// Kernels of the simulator's smoke tests, one for each way in which threads work together.
#include <cstdint>

extern "C" __global__ void vectorAdd(const float* a, const float* b, float* out, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = a[i] + b[i];
}

extern "C" __global__ void blockSum(const float* in, float* out, int n) {
  __shared__ float partial[32];
  float sum = 0;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) sum += in[i];
  for (int offset = 16; offset; offset /= 2) sum += __shfl_xor_sync(~0u, sum, offset);
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  if (lane == 0) partial[warp] = sum;
  __syncthreads();
  if (warp == 0) {
    sum = lane < blockDim.x / 32 ? partial[lane] : 0;
    for (int offset = 16; offset; offset /= 2) sum += __shfl_xor_sync(~0u, sum, offset);
    if (lane == 0) out[blockIdx.x] = sum;
  }
}

extern "C" __global__ void histogram(const int* in, unsigned* counts, int n) {
  __shared__ unsigned local[64];
  for (int i = threadIdx.x; i < 64; i += blockDim.x) local[i] = 0;
  __syncthreads();
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) atomicAdd(&local[in[i] & 63], 1);
  __syncthreads();
  for (int i = threadIdx.x; i < 64; i += blockDim.x) atomicAdd(&counts[i], local[i]);
}

// The last block to finish adds up what all blocks left: threadFenceReduction's pattern.
__device__ unsigned arrived = 0;
extern "C" __global__ void lastBlockSum(const float* in, float* partial, float* out, int n) {
  __shared__ float row[256];
  __shared__ bool last;
  float sum = 0;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) sum += in[i];
  row[threadIdx.x] = sum;
  __syncthreads();
  for (int s = blockDim.x / 2; s; s /= 2) {
    if (threadIdx.x < s) row[threadIdx.x] += row[threadIdx.x + s];
    __syncthreads();
  }
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = row[0];
    __threadfence();
    last = atomicInc(&arrived, gridDim.x - 1) == gridDim.x - 1;
  }
  __syncthreads();
  if (!last) return;
  sum = 0;
  for (int i = threadIdx.x; i < gridDim.x; i += blockDim.x) sum += partial[i];
  row[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int i = 1; i < blockDim.x; ++i) sum += row[i];
    out[0] = sum;
  }
}

// Philox4x32-10, four words a thread (Salmon et al. 2011).
extern "C" __global__ void philox(uint32_t* out, uint32_t key0, uint32_t key1, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  uint32_t c0 = i, c1 = 0, c2 = 0, c3 = 0;
  for (int round = 0; round < 10; ++round) {
    uint32_t h0 = __umulhi(0xD2511F53u, c0), l0 = 0xD2511F53u * c0;
    uint32_t h1 = __umulhi(0xCD9E8D57u, c2), l1 = 0xCD9E8D57u * c2;
    c0 = h1 ^ c1 ^ key0, c1 = l1, c2 = h0 ^ c3 ^ key1, c3 = l0;
    key0 += 0x9E3779B9u, key1 += 0xBB67AE85u;
  }
  reinterpret_cast<uint4*>(out)[i] = make_uint4(c0, c1, c2, c3);
}

// Row-wise softmax in one pass over the data (Milakov & Gimelshein 2018), one warp a row.
extern "C" __global__ void onlineSoftmax(const float* in, float* out, int rows, int cols) {
  int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= rows) return;
  float top = -INFINITY, sum = 0;
  for (int c = lane; c < cols; c += 32) {
    float x = in[row * cols + c], next = fmaxf(top, x);
    sum = sum * __expf(top - next) + __expf(x - next);
    top = next;
  }
  for (int offset = 16; offset; offset /= 2) {
    float otherTop = __shfl_xor_sync(~0u, top, offset), otherSum = __shfl_xor_sync(~0u, sum, offset);
    float next = fmaxf(top, otherTop);
    sum = (top == -INFINITY ? 0 : sum * expf(top - next)) + (otherTop == -INFINITY ? 0 : otherSum * expf(otherTop - next));
    top = next;
  }
  for (int c = lane; c < cols; c += 32) out[row * cols + c] = expf(in[row * cols + c] - top) / sum;
}
