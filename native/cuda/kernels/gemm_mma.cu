// Matrix products of 16-bit operands on tensor cores, sums in float32.
//
// A block makes 128 x 128 of C; each of its eight warps 64 x 32 in registers. Tiles of the operands come to shared
// memory by asynchronous copies, two steps ahead of the one that is multiplied. Operands stay as they lie in memory:
// ldmatrix transposes those whose contiguous dim is not that of the sum. The 16-byte chunks of a row are permuted so
// that the eight rows that ldmatrix reads at a time lie in different banks.
//
//   gradus_gemm_mma_<a><b>_<float16|bfloat16>(GemmArguments)      a, b: n is row-major, t column-major
//   a block of 256 threads a tile of C, batch entry and split, tiles first; 49,152 bytes of static shared memory
#include "gemm_epilogue.cuh"
#include "mma.cuh"

namespace gradus::cuda {
namespace {

constexpr int kTile = 128, kDepth = 32, kStages = 3, kThreads = 256;
constexpr int kWarpRows = 64, kWarpCols = 32;
constexpr int kTileElements = kTile * kDepth;
constexpr int kLanes = 8;  // 16-bit elements of a chunk

// An operand's tile in shared memory, as rows of its contiguous dim.
template <class T, Along kAlong>
struct Tile {
  static constexpr int kInner = kAlong == Along::kSum ? kDepth : kTile;
  static constexpr int kChunks = kInner / kLanes;

  __device__ static int place(int row, int chunk) {
    // rows of 64 bytes: two share the 32 banks; rows of 256 bytes: each begins in the first one
    const int permuted = kAlong == Along::kSum ? chunk ^ (row >> 1 & 3) : chunk ^ (row & 7);
    return row * kInner + permuted * kLanes;
  }

  // Starts copying the tile at `first` of m or n and `depth` of the sum's dim; zeros beyond the ends.
  __device__ static void fetch(T* tile, const GemmMatrix& x, const T* data, int first, int end, int depth,
                               int depthEnd) {
    const int outerEnd = kAlong == Along::kSum ? end : depthEnd, innerEnd = kAlong == Along::kSum ? depthEnd : end;
    const int outer0 = kAlong == Along::kSum ? first : depth, inner0 = kAlong == Along::kSum ? depth : first;
    constexpr int kCopies = kTileElements / kLanes;
    const auto validAt = [&](int row, int chunk) {
      return outer0 + row < outerEnd ? max(0, min(kLanes, innerEnd - inner0 - chunk * kLanes)) : 0;
    };
    if (x.vectors) {
#pragma unroll
      for (int i = 0; i < kCopies / kThreads; ++i) {
        const int at = i * kThreads + threadIdx.x, row = at / kChunks, chunk = at % kChunks,
                  valid = validAt(row, chunk);
        const T* from = data + (outer0 + row) * x.stride + inner0 + chunk * kLanes;
        copyAsync(tile + place(row, chunk), valid > 0 ? from : data, valid * static_cast<int>(sizeof(T)));
      }
      return;
    }
    // rows that do not begin on 16 bytes
#pragma unroll 1
    for (int at = threadIdx.x; at < kCopies; at += kThreads) {
      const int row = at / kChunks, chunk = at % kChunks, valid = validAt(row, chunk);
      const auto* from =
          reinterpret_cast<const unsigned short*>(data) + (outer0 + row) * x.stride + inner0 + chunk * kLanes;
      unsigned words[kLanes / 2] = {};
#pragma unroll
      for (int lane = 0; lane < kLanes; ++lane) {
        const unsigned bits = lane < valid ? from[lane] : 0;
        words[lane / 2] |= bits << lane % 2 * 16;
      }
      *reinterpret_cast<uint4*>(tile + place(row, chunk)) = make_uint4(words[0], words[1], words[2], words[3]);
    }
  }

  // The fragment of A at `first` of m and step `depth` of the tile.
  __device__ static void left(unsigned (&to)[4], const T* tile, int first, int depth) {
    const int lane = threadIdx.x % 32, row = lane % 8, odd = lane / 8 % 2, upper = lane / 16;
    if constexpr (kAlong == Along::kSum) {
      loadMatrices(to, tile + place(first + row + odd * 8, depth / kLanes + upper));
    } else {
      loadTransposed(to, tile + place(depth + row + upper * 8, first / kLanes + odd));
    }
  }

  // The fragments of B for two times eight columns from `first` on.
  __device__ static void right(unsigned (&to)[4], const T* tile, int first, int depth) {
    const int lane = threadIdx.x % 32, row = lane % 8, odd = lane / 8 % 2, upper = lane / 16;
    if constexpr (kAlong == Along::kSum) {
      loadMatrices(to, tile + place(first + row + upper * 8, depth / kLanes + odd));
    } else {
      loadTransposed(to, tile + place(depth + row + odd * 8, first / kLanes + upper));
    }
  }
};

template <class T, Along kA, Along kB>
__device__ void product(const GemmArguments& g) {
  __shared__ alignas(128) T shared[kStages][2][kTileElements];
  if (failedBefore(g.failure)) return;
  const TilePlace place = tilePlace(g, kTile, kTile);
  if (place.row >= g.m) return;
  const T *a = static_cast<const T*>(g.a.data) + place.a, *b = static_cast<const T*>(g.b.data) + place.b;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int warpRow = warp / (kTile / kWarpCols) * kWarpRows, warpCol = warp % (kTile / kWarpCols) * kWarpCols;
  constexpr int kDown = kWarpRows / 16, kAcross = kWarpCols / 8;
  float sums[kDown][kAcross][4] = {};
  const int steps = (place.end - place.depth + kDepth - 1) / kDepth;
  // Steps beyond the last one fetch nothing but are groups all the same, so that one count of groups fits all.
  const auto fetch = [&](int step) {
    if (step < steps) {
      T(*tile)[kTileElements] = shared[step % kStages];
      const int depth = place.depth + step * kDepth;
      Tile<T, kA>::fetch(tile[0], g.a, a, place.row, g.m, depth, place.end);
      Tile<T, kB>::fetch(tile[1], g.b, b, place.col, g.n, depth, place.end);
    }
    commitCopies();
  };
#pragma unroll
  for (int step = 0; step < kStages - 1; ++step) fetch(step);
  for (int step = 0; step < steps; ++step) {
    waitForCopies<kStages - 2>();
    __syncthreads();  // the step's tiles are there, and the stage that the next copies overwrite was read by all
    fetch(step + kStages - 1);
    const T(*tile)[kTileElements] = shared[step % kStages];
#pragma unroll
    for (int depth = 0; depth < kDepth; depth += 16) {
      unsigned left[kDown][4], right[kAcross / 2][4];
#pragma unroll
      for (int i = 0; i < kDown; ++i) Tile<T, kA>::left(left[i], tile[0], warpRow + i * 16, depth);
#pragma unroll
      for (int j = 0; j < kAcross / 2; ++j) Tile<T, kB>::right(right[j], tile[1], warpCol + j * 16, depth);
#pragma unroll
      for (int i = 0; i < kDown; ++i) {
#pragma unroll
        for (int j = 0; j < kAcross; ++j) {
          multiplyAdd<T>(sums[i][j], left[i], right[j / 2][j % 2 * 2], right[j / 2][j % 2 * 2 + 1]);
        }
      }
    }
  }
  waitForCopies<0>();
  __syncthreads();
  // Half of the rows of C at a time, with rows a few words longer so that a quad's rows begin in different banks.
  constexpr int kStride = kTile + 8;
  static_assert(kWarpRows * kStride * sizeof(float) <= sizeof(T) * kStages * 2 * kTileElements);
  float* out = reinterpret_cast<float*>(shared);
  for (int half = 0; half < kTile / kWarpRows; ++half) {
    if (warpRow == half * kWarpRows) {
#pragma unroll
      for (int i = 0; i < kDown; ++i) {
#pragma unroll
        for (int j = 0; j < kAcross; ++j) {
          float* to = out + (i * 16 + lane / 4) * kStride + warpCol + j * 8 + lane % 4 * 2;
          *reinterpret_cast<float2*>(to) = make_float2(sums[i][j][0], sums[i][j][1]);
          *reinterpret_cast<float2*>(to + 8 * kStride) = make_float2(sums[i][j][2], sums[i][j][3]);
        }
      }
    }
    __syncthreads();
    writeRows<kTile>(g, place.c, out, kStride, kWarpRows, place.row + half * kWarpRows, place.col);
    __syncthreads();
  }
}

}  // namespace

#define GRADUS_MMA(name, dtype, T, a, b)                                                                         \
  extern "C" __global__ void __launch_bounds__(256, 2) gradus_gemm_mma_##name##_##dtype(const GemmArguments g) { \
    product<T, Along::a, Along::b>(g);                                                                           \
  }
#define GRADUS_LAYOUTS(dtype, T)             \
  GRADUS_MMA(nn, dtype, T, kSum, kAcross)    \
  GRADUS_MMA(nt, dtype, T, kSum, kSum)       \
  GRADUS_MMA(tn, dtype, T, kAcross, kAcross) \
  GRADUS_MMA(tt, dtype, T, kAcross, kSum)
GRADUS_LAYOUTS(float16, __half)
GRADUS_LAYOUTS(bfloat16, __nv_bfloat16)

}  // namespace gradus::cuda
