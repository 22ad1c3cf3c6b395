// What matrix products have in common: where a block's tile lies, and what happens to its sums on the way to memory.
// Sums pass through shared memory, so that neighbouring threads write neighbouring columns and the code for every dtype
// and activation exists once a kernel, not once an accumulator.
#pragma once

#include "element.cuh"
#include "gemm.h"
#include "mma.cuh"

namespace gradus::cuda {

// Which of an operand's dims is contiguous: that of the sum, or the one across it (m or n).
enum class Along { kSum, kAcross };

struct TilePlace {
  int row, col;       // of C; row m: nothing to do
  int depth, end;     // the range of the sum's dim
  long long a, b, c;  // offsets of the batch entry, in elements
};

// Adds the offsets of a batch entry; what is left of its number is that of the split.
__device__ inline int addBatchOffsets(const GemmArguments& g, int batch, TilePlace& place) {
  for (int d = g.rank - 1; d >= 0; --d) {
    const int i = batch % g.sizes[d];
    batch /= g.sizes[d];
    place.a += i * g.a.batch[d];
    place.b += i * g.b.batch[d];
    place.c += i * g.cBatch[d];
  }
  return batch;
}

// Tiles of a batch entry are taken in bands of eight rows of tiles, so that blocks that run together share operands in
// the second-level cache.
__device__ inline TilePlace tilePlace(const GemmArguments& g, int tileRows, int tileCols) {
  constexpr int kBand = 8;
  const int down = (g.m + tileRows - 1) / tileRows, across = (g.n + tileCols - 1) / tileCols;
  const int tiles = down * across;
  const int batch = blockIdx.x / tiles;
  const int tile = blockIdx.x % tiles;
  const int band = tile / (kBand * across), height = min(kBand, down - band * kBand);
  const int within = tile - band * kBand * across;
  TilePlace place{(band * kBand + within % height) * tileRows, within / height * tileCols, 0, g.k, 0, 0, 0};
  const int split = addBatchOffsets(g, batch, place);
  if (g.splits > 1) {
    place.depth = split * g.depthOfSplit;
    place.end = min(g.k, place.depth + g.depthOfSplit);
    place.c += split * g.splitStride;
  }
  if (g.live.count) {
    const int live = max(*g.live.count - g.live.first, 0);
    if (g.live.inSum) {
      place.end = min(place.end, live);
    } else if (place.row >= live) {
      place.row = g.m;
    }
  }
  return place;
}

__device__ inline bool failedBefore(const FailureWord* word) { return word != nullptr && word->serial != 0; }

// tanh(u) of gelu as a logistic function, which is exact and cheaper.
template <class C>
__device__ C geluGate(C x, C square) {
  constexpr C c = C(2 * 0.7978845608028654);
  return C(1) / (C(1) + exp(-x * (square * (c * C(0.044715)) + c)));
}

template <class C>
__device__ C gelu(C x, bool byTanh) {
  return x * (byTanh ? geluGate(x, x * x) : C(0.5) * erfc(x * C(-0.7071067811865476)));
}

template <class C>
__device__ C geluDerivative(C x, bool byTanh) {
  if (byTanh) {
    constexpr C c = C(2 * 0.7978845608028654);
    const C square = x * x, s = geluGate(x, square);
    return s * (x * (C(1) - s) * (square * (3 * c * C(0.044715)) + c) + C(1));
  }
  const C cdf = C(0.5) * erfc(x * C(-0.7071067811865476));
  return x * (C(0.3989422804014327) * exp(C(-0.5) * x * x)) + cdf;
}

template <class C>
__device__ C loadAt(const void* data, int dtype, long long at) {
  return load<C>(static_cast<const char*>(data) + (at << itemShift(dtype)), dtype);
}

template <class C>
__device__ void storeAt(void* data, int dtype, long long at, C x) {
  store<C>(static_cast<char*>(data) + (at << itemShift(dtype)), dtype, x);
}

// What all results of a product have in common, in the type of its sums.
template <class C>
struct Ending {
  C alpha, beta;

  __device__ explicit Ending(const GemmArguments& g)
      : alpha(static_cast<C>(g.factor ? g.alpha * *g.factor : g.alpha)), beta(static_cast<C>(g.beta)) {}
};

// The end of a product for one result; its old value, and x of activation'(x), were read already.
template <class C>
struct Finished {
  C value, activated;
};
template <class C>
__device__ Finished<C> finished(const GemmArguments& g, const Ending<C>& ending, C sum, C bias, C old, C x) {
  C value = ending.alpha * sum + bias;
  if (g.activation && g.gradientAt) value *= geluDerivative(x, g.activation == 1);
  if (ending.beta != 0) value += ending.beta * old;
  if (!g.activation || !g.activated) return {value, value};
  return {value, gelu(g.gradientAt ? x : value, g.activation == 1)};
}

template <class C>
__device__ void finish(const GemmArguments& g, const Ending<C>& ending, long long base, int row, int col, C sum) {
  const long long at = base + row * g.cRow + col * g.cCol;
  const C bias = g.bias ? loadAt<C>(g.bias, g.biasDType, col) : C(0);
  const C old = ending.beta != 0 ? loadAt<C>(g.c, g.cDType, at) : C(0);
  const C x = g.gradientAt ? loadAt<C>(g.gradientAt, g.gradientDType, row * g.gradientRow + col) : C(0);
  const Finished<C> result = finished(g, ending, sum, bias, old, x);
  if (g.activated) storeAt(g.activated, g.cDType, row * g.activatedRow + col, result.activated);
  storeAt(g.c, g.cDType, at, result.value);
}

// Neighbouring columns that a thread finishes at once: 16 bytes of 16-bit results.
template <class C>
constexpr int kNeighbours = sizeof(C) == 8 ? 2 : 8;

template <class C>
__device__ void loadNeighbours(const void* data, int dtype, long long at, C (&to)[kNeighbours<C>]) {
  const char* from = static_cast<const char*>(data) + (at << itemShift(dtype));
  if constexpr (sizeof(C) == 8) {
    const double2 pair = *reinterpret_cast<const double2*>(from);
    to[0] = pair.x;
    to[1] = pair.y;
  } else if (static_cast<DType>(dtype) == DType::kFloat32) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float4 four = reinterpret_cast<const float4*>(from)[i];
      to[4 * i] = four.x;
      to[4 * i + 1] = four.y;
      to[4 * i + 2] = four.z;
      to[4 * i + 3] = four.w;
    }
  } else {
    const bool half = static_cast<DType>(dtype) == DType::kFloat16;
    const uint4 words = *reinterpret_cast<const uint4*>(from);
    const unsigned pairs[] = {words.x, words.y, words.z, words.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 both = half ? __half22float2(reinterpret_cast<const __half2&>(pairs[i]))
                               : __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(pairs[i]));
      to[2 * i] = both.x;
      to[2 * i + 1] = both.y;
    }
  }
}

template <class C>
__device__ void storeNeighbours(void* data, int dtype, long long at, const C (&from)[kNeighbours<C>]) {
  char* to = static_cast<char*>(data) + (at << itemShift(dtype));
  if constexpr (sizeof(C) == 8) {
    *reinterpret_cast<double2*>(to) = make_double2(from[0], from[1]);
  } else if (static_cast<DType>(dtype) == DType::kFloat32) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      reinterpret_cast<float4*>(to)[i] = make_float4(from[4 * i], from[4 * i + 1], from[4 * i + 2], from[4 * i + 3]);
    }
  } else {
    unsigned pairs[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      pairs[i] = static_cast<DType>(dtype) == DType::kFloat16 ? packPair<__half>(from[2 * i], from[2 * i + 1])
                                                              : packPair<__nv_bfloat16>(from[2 * i], from[2 * i + 1]);
    }
    *reinterpret_cast<uint4*>(to) = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
  }
}

// From shared memory. Of 32 bytes a thread, neighbouring quads of threads take the two halves in turns: so eight
// threads read all banks at a time.
template <class C>
__device__ void takeNeighbours(const C* from, C (&to)[kNeighbours<C>]) {
  if constexpr (sizeof(C) == 8) {
    const double2 pair = *reinterpret_cast<const double2*>(from);
    to[0] = pair.x;
    to[1] = pair.y;
  } else {
    const bool swaps = threadIdx.x / 4 % 2;
    const float4* halves = reinterpret_cast<const float4*>(from);
    const float4 one = halves[swaps], other = halves[!swaps];
    const float4 low = swaps ? other : one, high = swaps ? one : other;
    to[0] = low.x;
    to[1] = low.y;
    to[2] = low.z;
    to[3] = low.w;
    to[4] = high.x;
    to[5] = high.y;
    to[6] = high.z;
    to[7] = high.w;
  }
}

template <class C>
__device__ void loadBias(const GemmArguments& g, int col, C (&to)[kNeighbours<C>]) {
#pragma unroll
  for (int i = 0; i < kNeighbours<C>; ++i) to[i] = g.bias ? loadAt<C>(g.bias, g.biasDType, col + i) : C(0);
}

// kNeighbours<C> results of a row whose operands are `wide`; all of them lie in C.
template <class C>
__device__ void finishNeighbours(const GemmArguments& g, const Ending<C>& ending, long long base, int row, int col,
                                 const C (&bias)[kNeighbours<C>], const C (&sums)[kNeighbours<C>]) {
  constexpr int kCount = kNeighbours<C>;
  const long long at = base + row * g.cRow + col;
  C values[kCount];
  if (ending.beta == 0 && !g.activation) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) values[i] = ending.alpha * sums[i] + bias[i];
  } else {
    C old[kCount] = {}, x[kCount] = {}, activated[kCount];
    if (ending.beta != 0) loadNeighbours(g.c, g.cDType, at, old);
    if (g.gradientAt) loadNeighbours(g.gradientAt, g.gradientDType, row * g.gradientRow + col, x);
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const Finished<C> result = finished(g, ending, sums[i], bias[i], old[i], x[i]);
      values[i] = result.value;
      activated[i] = result.activated;
    }
    if (g.activated) storeNeighbours(g.activated, g.cDType, row * g.activatedRow + col, activated);
  }
  storeNeighbours(g.c, g.cDType, at, values);
}

// Writes `rows` rows of a tile of kCols columns from shared memory, from row and column (row, col) of C on.
template <int kCols, class C>
__device__ void writeRows(const GemmArguments& g, long long base, const C* tile, int stride, int rows, int row,
                          int col) {
  const int end = min(rows, g.m - row);
  const Ending<C> ending(g);
  if (g.wide) {
    constexpr int kCount = kNeighbours<C>, kGroups = kCols / kCount;
    const int own = threadIdx.x % kGroups * kCount, first = threadIdx.x / kGroups, apart = blockDim.x / kGroups;
    if (col + own + kCount <= g.n) {
      C bias[kCount];
      loadBias(g, col + own, bias);
      for (int r = first; r < end; r += apart) {
        C sums[kCount];
        takeNeighbours(tile + r * stride + own, sums);
        finishNeighbours(g, ending, base, row + r, col + own, bias, sums);
      }
    } else {
#pragma unroll 1
      for (int r = first; r < end; r += apart) {
#pragma unroll 1
        for (int i = 0; i < g.n - col - own; ++i) {
          finish(g, ending, base, row + r, col + own + i, tile[r * stride + own + i]);
        }
      }
    }
    return;
  }
  const int own = threadIdx.x % kCols;
  if (col + own >= g.n) return;
  for (int r = threadIdx.x / kCols; r < end; r += blockDim.x / kCols) {
    finish(g, ending, base, row + r, col + own, tile[r * stride + own]);
  }
}

}  // namespace gradus::cuda
