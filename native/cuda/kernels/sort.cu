// Stable radix sort of pairs of 32-bit keys and values, 8 bits a pass. Atomics count integers only, and a pair's place
// follows from its position, so the result is the same each time. A warp has neighbouring pairs and finds those of one
// digit by a match over its lanes, which keeps their order.
//
//   gradus_sort_count(RadixPass), gradus_sort_scatter(RadixPass): blocks of 256 threads, a tile of 2048 pairs a block
//   gradus_sort_scan(RadixScan): one block of 1024 threads, four counts a thread and round
#include "element.cuh"
#include "sort.h"

namespace gradus::cuda {
namespace {

constexpr int kWarps = 8, kRounds = kRadixTile / (32 * kWarps);

__device__ unsigned digitOf(unsigned key, int shift) { return key >> shift & (kRadixDigits - 1); }

__device__ unsigned firstPair() {
  return blockIdx.x * kRadixTile + threadIdx.x / 32 * (32 * kRounds) + threadIdx.x % 32;
}

__device__ void count(const RadixPass& a) {
  __shared__ unsigned counts[kRadixDigits];
  counts[threadIdx.x] = 0;
  __syncthreads();
#pragma unroll
  for (int r = 0; r < kRounds; ++r) {
    const unsigned at = firstPair() + 32 * r;
    if (at < a.n) atomicAdd(&counts[digitOf(a.keys[at], a.shift)], 1u);
  }
  __syncthreads();
  a.counts[threadIdx.x * a.blocks + blockIdx.x] = counts[threadIdx.x];
}

// Hillis & Steele 1986 within a warp.
__device__ unsigned sumUpTo(unsigned value) {
  const unsigned lane = threadIdx.x % 32;
  for (unsigned offset = 1; offset < 32; offset *= 2) {
    const unsigned below = __shfl_up_sync(kAllLanes, value, offset);
    if (lane >= offset) value += below;
  }
  return value;
}

__device__ void scan(const RadixScan& a) {
  __shared__ unsigned warps[32];
  const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  unsigned before = 0;
  for (unsigned first = 0; first < a.n; first += 4 * kScanThreads) {
    const unsigned at = first + 4 * threadIdx.x;
    unsigned own[4], total = 0;
#pragma unroll
    for (int k = 0; k < 4; ++k) total += own[k] = at + k < a.n ? a.counts[at + k] : 0;
    const unsigned upTo = sumUpTo(total);
    if (lane == 31) warps[warp] = upTo;
    __syncthreads();
    if (warp == 0) warps[lane] = sumUpTo(warps[lane]);
    __syncthreads();
    unsigned start = before + upTo - total + (warp > 0 ? warps[warp - 1] : 0);
    before += warps[31];
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      if (at + k < a.n) a.counts[at + k] = start;
      start += own[k];
    }
    __syncthreads();  // the warps' sums have been read
  }
}

__device__ void scatter(const RadixPass& a) {
  __shared__ unsigned places[kWarps][kRadixDigits];  // where the warp's next pair of a digit goes
  const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) places[w][threadIdx.x] = 0;
  __syncthreads();
  unsigned keys[kRounds];
#pragma unroll
  for (int r = 0; r < kRounds; ++r) {
    const unsigned at = firstPair() + 32 * r;
    keys[r] = at < a.n ? a.keys[at] : 0;
    if (at < a.n) atomicAdd(&places[warp][digitOf(keys[r], a.shift)], 1u);
  }
  __syncthreads();
  unsigned next = a.counts[threadIdx.x * a.blocks + blockIdx.x];
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
    const unsigned own = places[w][threadIdx.x];
    places[w][threadIdx.x] = next;
    next += own;
  }
  __syncthreads();
#pragma unroll
  for (int r = 0; r < kRounds; ++r) {
    const unsigned at = firstPair() + 32 * r;
    const bool exists = at < a.n;
    const unsigned digit = exists ? digitOf(keys[r], a.shift) : kRadixDigits;
    const unsigned alike = __match_any_sync(kAllLanes, digit);
    const unsigned rank = __popc(alike & ((1u << lane) - 1));
    unsigned place = 0;
    if (exists) place = places[warp][digit] + rank;
    __syncwarp();
    if (exists && rank + 1 == __popc(alike)) places[warp][digit] = place + 1;
    __syncwarp();
    if (exists) {
      a.keysOut[place] = keys[r];
      a.valuesOut[place] = a.values[at];
    }
  }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256) gradus_sort_count(const RadixPass a) { count(a); }
extern "C" __global__ void __launch_bounds__(1024) gradus_sort_scan(const RadixScan a) { scan(a); }
extern "C" __global__ void __launch_bounds__(256) gradus_sort_scatter(const RadixPass a) { scatter(a); }

}  // namespace gradus::cuda
