// Rows of elements and the threads that share one. What threads found is put together in a tree whose shape depends on
// their number alone, so the bits of a result do not change from run to run.
#pragma once

#include "packs.cuh"
#include "walk.h"

namespace gradus::cuda {

// Packs of a row that a thread keeps in registers between the passes over it.
template <int kWidth>
constexpr int kHeldPacks = kWidth == 1 ? 8 : 4;

// --- any strides ---------------------------------------------------------------------------------------------------

__device__ inline long long offsetOf(const Walk& walk, long long index) {
  long long offset = 0;
#pragma unroll
  for (int d = 7; d > 0; --d) {  // unrolled, so that the arguments are read at fixed places
    if (d >= walk.rank) continue;
    const long long size = walk.sizes[d];
    // a division of 64 bits takes several times as long
    const long long quotient = (index | size) >> 32 ? index / size : unsigned(index) / unsigned(size);
    offset += (index - quotient * size) * walk.strides[d];
    index = quotient;
  }
  return offset + index * walk.strides[0];
}

// --- threads that share a row ---------------------------------------------------------------------------------------

constexpr int kMostWarps = 8;

template <class V>
__device__ V fromLane(V value, int lane) {
  return __shfl_sync(kAllLanes, value, lane);
}

// `size` neighbouring threads, a power of two up to 32, or the whole block.
struct Group {
  int size, lane;
  int first;  // row of the block's round that the group has
  int count;  // rows of a round

  __device__ explicit Group(int threads)
      : size(threads), lane(threadIdx.x % threads), first(threadIdx.x / threads), count(blockDim.x / threads) {}

  // Every thread of the block gets here, and each of the group gets the same.
  template <class V, class Combine>
  __device__ V reduce(V value, const Combine& combine) const {
    const int own = threadIdx.x % 32;
    for (int offset = (size < 32 ? size : 32) / 2; offset > 0; offset /= 2) {
      value = combine(value, fromLane(value, own ^ offset));
    }
    if (size <= 32)
      return fromLane(value, own & ~(size - 1));  // a combination may round differently the other way round
    __shared__ V warps[kMostWarps];
    __syncthreads();  // the last result has been read
    if (own == 0) warps[threadIdx.x / 32] = value;
    __syncthreads();
    value = warps[0];
    for (int w = 1; w < int(blockDim.x / 32); ++w) value = combine(value, warps[w]);
    return value;
  }

  template <class V>
  __device__ V sum(V value) const {
    return reduce(value, [](V a, V b) { return a + b; });
  }
};

}  // namespace gradus::cuda
