// Walking lists of tensors: a block handles chunks of kListChunk elements, each of one tensor. Which block has which
// chunk never shows in a result.
#pragma once

#include "multi_tensor.h"
#include "packs.cuh"

namespace gradus::cuda {

constexpr int kListLanes = 8;

// The last tensor whose first chunk is not behind `chunk`.
template <class List>
__device__ int tensorOf(const List& list, int chunk) {
  int low = 0, high = list.count - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (list.tensors[middle].firstChunk <= chunk)
      low = middle;
    else
      high = middle - 1;
  }
  return low;
}

__device__ inline bool areWide(const void* a, const void* b) {
  return ((reinterpret_cast<unsigned long long>(a) | reinterpret_cast<unsigned long long>(b)) & 15) == 0;
}

// body(chunk, tensor, first element, elements) for the chunks of the block.
template <class List, class Body>
__device__ void forChunks(const List& list, const Body& body) {
  for (int chunk = blockIdx.x; chunk < list.chunks; chunk += gridDim.x) {
    const int i = tensorOf(list, chunk);
    const unsigned long long from = static_cast<unsigned long long>(chunk - list.tensors[i].firstChunk) * kListChunk;
    const unsigned long long rest = list.tensors[i].numel - from;
    body(chunk, i, from, rest < kListChunk ? static_cast<int>(rest) : kListChunk);
  }
}

// body(first element, elements, whether they are kListLanes that lie on a wide boundary) for the thread's share of n.
template <class Body>
__device__ void forRuns(int n, bool wide, const Body& body) {
  for (int at = threadIdx.x * kListLanes; at < n; at += blockDim.x * kListLanes) {
    const int count = n - at < kListLanes ? n - at : kListLanes;
    body(at, count, wide && count == kListLanes);
  }
}

// What the threads of a block of 256 found, put together in a tree; thread 0 gets it.
template <class V, class Merge>
__device__ V mergeBlock(V value, const Merge& merge) {
  __shared__ V warps[8];
  for (int offset = 16; offset > 0; offset /= 2) value = merge(value, __shfl_down_sync(kAllLanes, value, offset));
  __syncthreads();  // the last result has been read
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int w = 1; w < 8; ++w) value = merge(value, warps[w]);
  }
  return value;
}

__device__ inline bool hasFailed(const FailureWord* failure) { return failure->serial != 0; }

}  // namespace gradus::cuda
