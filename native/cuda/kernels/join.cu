// Putting tensors together and picking their parts: cat, triangles, positions of what is not zero.
//
//   gradus_join_cat_<1|2|4|8|16>(JoinCat): units of so many bytes; blocks of 256 threads, one chunk of a part a block
//     and round
//   gradus_join_triangle_<1|2|4|8>_<1|many>(JoinTriangle): elements of so many bytes; blocks of 256 threads, one
//   element
//     or 16 bytes a thread and round of a grid-stride loop
//   gradus_join_count(JoinNonzero), gradus_join_positions(JoinNonzero): blocks of 256 threads, a tile a block and round
//   gradus_join_total(JoinNonzero): one block
#include "join.h"
#include "packs.cuh"
#include "rows.cuh"

namespace gradus::cuda {
namespace {

using Byte = unsigned char;
using Short = unsigned short;
using Long = unsigned long long;

// --- cat ------------------------------------------------------------------------------------------------------------

template <class U>
__device__ void cat(const JoinCat& a) {
  for (int chunk = blockIdx.x; chunk < a.chunks; chunk += gridDim.x) {
    int low = 0, high = a.count - 1;  // the last part whose first chunk is not behind this one
    while (low < high) {
      const int middle = (low + high + 1) / 2;
      if (a.parts[middle].firstChunk <= chunk)
        low = middle;
      else
        high = middle - 1;
    }
    const JoinPart& part = a.parts[low];
    const Long first = static_cast<Long>(chunk - part.firstChunk) * kJoinChunk;
    const Long end = first + kJoinChunk < part.units ? first + kJoinChunk : part.units;
    const U* from = static_cast<const U*>(part.from);
    U* to = static_cast<U*>(a.out) + part.offset;
    const Long width = part.width, firstRow = first / width, within = first - firstRow * width;
    for (unsigned i = threadIdx.x; i < end - first; i += blockDim.x) {
      const Long at = within + i;
      // one division of 64 bits a chunk: a row whose number is not 0 or 1 has less than a chunk before it
      const Long row = at < width           ? 0
                       : at - width < width ? 1
                                            : static_cast<unsigned>(at) / static_cast<unsigned>(width);
      to[(firstRow + row) * a.width + (at - row * width)] = from[first + i];
    }
  }
}

// --- triangles ------------------------------------------------------------------------------------------------------

template <class U, int kLanes>
__device__ void triangle(const JoinTriangle& a) {
  using Part = Pack<U, kLanes>;
  const Long step = static_cast<Long>(gridDim.x) * blockDim.x;
  for (Long i = static_cast<Long>(blockIdx.x) * blockDim.x + threadIdx.x; i < a.units; i += step) {
    const Long flat = i / a.rowUnits;
    const long long column = (i - flat * a.rowUnits) * kLanes, row = flat % a.height;
    Part part{};
    const bool keeps = column + kLanes - 1 - row >= a.first && column - row <= a.last;  // any of its lanes
    if (keeps) part.from(static_cast<const U*>(a.in) + i * kLanes);
#pragma unroll
    for (int k = 0; k < kLanes; ++k) {
      const long long beyond = column + k - row;
      if (!keeps || beyond < a.first || beyond > a.last) part.lanes[k] = 0;
    }
    part.to(static_cast<U*>(a.out) + i * kLanes);
  }
}

// --- what is not zero -----------------------------------------------------------------------------------------------

__device__ bool isNonzero(const JoinNonzero& a, Long at) {
  const char* x = a.in + at * a.itemSize;
  switch (static_cast<DType>(a.dtype)) {
    case DType::kFloat64:
      return *reinterpret_cast<const double*>(x) != 0;
    case DType::kFloat32:
      return *reinterpret_cast<const float*>(x) != 0;
    case DType::kFloat16:
    case DType::kBFloat16:
      return (*reinterpret_cast<const Short*>(x) & 0x7fff) != 0;
    case DType::kInt64:
      return *reinterpret_cast<const Int64*>(x) != 0;
    case DType::kInt32:
      return *reinterpret_cast<const int*>(x) != 0;
    default:
      return *reinterpret_cast<const Byte*>(x) != 0;
  }
}

// body(place among the tile's, position) for all of a tile that are not zero, in order; gives their number to each
// thread. Every thread of the block gets here.
template <class Body>
__device__ unsigned overTile(const JoinNonzero& a, unsigned tile, const Body& body) {
  __shared__ unsigned warps[kMostWarps];
  const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  unsigned before = 0;
  for (unsigned round = 0; round < kNonzeroTile / 256; ++round) {
    const Long at = static_cast<Long>(tile) * kNonzeroTile + round * 256 + threadIdx.x;
    const bool found = at < a.count && isNonzero(a, at);
    const unsigned lanes = __ballot_sync(kAllLanes, found);
    __syncthreads();  // the last round's numbers have been read
    if (lane == 0) warps[warp] = __popc(lanes);
    __syncthreads();
    unsigned place = before + __popc(lanes & ((1u << lane) - 1));
    for (unsigned w = 0; w < kMostWarps; ++w) {
      if (w < warp) place += warps[w];
      before += warps[w];
    }
    if (found) body(place, at);
  }
  return before;
}

__device__ void count(const JoinNonzero& a) {
  for (unsigned tile = blockIdx.x; tile < a.tiles; tile += gridDim.x) {
    const unsigned found = overTile(a, tile, [](unsigned, Long) {});
    if (threadIdx.x == 0) a.counts[tile] = found;
  }
}

__device__ void total(const JoinNonzero& a) {
  long long sum = 0;
  for (unsigned tile = threadIdx.x; tile < a.tiles; tile += blockDim.x) sum += a.counts[tile];
  sum = Group(256).sum(sum);
  if (threadIdx.x == 0) *a.out = sum;
}

// The output has as many rows as its caller counted; the operand may have changed since then.
__device__ void positions(const JoinNonzero& a) {
  for (unsigned tile = blockIdx.x; tile < a.tiles; tile += gridDim.x) {
    const long long before = a.counts[tile];
    overTile(a, tile, [&](unsigned place, Long at) {
      const long long row = before + place;
      if (row >= a.rows) return;
#pragma unroll
      for (int d = kNonzeroRank - 1; d >= 0; --d) {  // unrolled, so that the arguments are read at fixed places
        if (d >= a.rank) continue;
        const Long quotient = at / a.sizes[d];
        a.out[row * a.rank + d] = at - quotient * a.sizes[d];
        at = quotient;
      }
    });
  }
}

}  // namespace

#define GRADUS_JOIN(name, Arguments, ...)                                                                     \
  extern "C" __global__ void __launch_bounds__(256) gradus_join_##name(const __grid_constant__ Arguments a) { \
    __VA_ARGS__(a);                                                                                           \
  }
#define GRADUS_TRIANGLE(bytes, U)                                 \
  GRADUS_JOIN(triangle_##bytes##_1, JoinTriangle, triangle<U, 1>) \
  GRADUS_JOIN(triangle_##bytes##_many, JoinTriangle, triangle<U, kWide<U>>)

GRADUS_JOIN(cat_1, JoinCat, cat<Byte>)
GRADUS_JOIN(cat_2, JoinCat, cat<Short>)
GRADUS_JOIN(cat_4, JoinCat, cat<unsigned>)
GRADUS_JOIN(cat_8, JoinCat, cat<Long>)
GRADUS_JOIN(cat_16, JoinCat, cat<uint4>)
GRADUS_TRIANGLE(1, Byte)
GRADUS_TRIANGLE(2, Short)
GRADUS_TRIANGLE(4, unsigned)
GRADUS_TRIANGLE(8, Long)
GRADUS_JOIN(count, JoinNonzero, count)
GRADUS_JOIN(total, JoinNonzero, total)
GRADUS_JOIN(positions, JoinNonzero, positions)

}  // namespace gradus::cuda
