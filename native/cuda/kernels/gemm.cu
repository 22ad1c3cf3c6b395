// Matrix products in float32 and float64: every thread sums a square of C in registers, from tiles in shared memory.
// The next tiles travel from memory to registers while the present ones are multiplied.
//
//   gradus_gemm_<large|small>_<a><b>_<float32|float64>(GemmArguments)      a, b: n is row-major, t column-major
//   a block of 256 threads a tile of C (large: 128 x 128, float32 only; small: 64 x 64), batch entry and split, tiles
//   first
//   gradus_gemm_join_<float32|float64>(GemmJoin)                           a thread eight (float64: two) columns of a
//   row gradus_gemm_whole_<int64|int32|uint8>(GemmIntegers)                    one result a thread, 256 a block; wraps
//   gradus_gemm_column_sums_<float32|float64>(ColumnSums)
//   a block of 256 threads has 32 columns, or, `packed`, 16 (float64: 4); blocks of the next range of rows follow
#include "gemm_epilogue.cuh"
#include "packs.cuh"

namespace gradus::cuda {
namespace {

constexpr int kThreads = 256;

// The part of an operand's tile that a thread carries: kTile of m or n, kDepth of the sum.
template <class T, int kTile, int kDepth, Along kAlong>
struct Carried {
  static constexpr int kLanes = 16 / sizeof(T);
  static constexpr int kCount = kTile * kDepth / (kThreads * kLanes);
  static constexpr int kInner = kAlong == Along::kSum ? kDepth : kTile;  // contiguous
  static_assert(kCount >= 1 && kInner % kLanes == 0);
  T values[kCount][kLanes];

  // From row `first` of the tile's dim and `depth` of the sum's on; zeros beyond the ends.
  __device__ void fetch(const GemmMatrix& x, long long base, int first, int end, int depth, int depthEnd) {
    const T* data = static_cast<const T*>(x.data) + base;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int at = (i * kThreads + static_cast<int>(threadIdx.x)) * kLanes;
      const int outer = at / kInner + (kAlong == Along::kSum ? first : depth);
      const int inner = at % kInner + (kAlong == Along::kSum ? depth : first);
      const int outerEnd = kAlong == Along::kSum ? end : depthEnd, innerEnd = kAlong == Along::kSum ? depthEnd : end;
      const T* from = data + outer * x.stride + inner;
      if (x.vectors && outer < outerEnd && inner + kLanes <= innerEnd) {
        const auto loaded = *reinterpret_cast<const Pack<T, kLanes>*>(from);
#pragma unroll
        for (int lane = 0; lane < kLanes; ++lane) values[i][lane] = loaded.lanes[lane];
      } else {
#pragma unroll
        for (int lane = 0; lane < kLanes; ++lane) {
          values[i][lane] = outer < outerEnd && inner + lane < innerEnd ? from[lane] : T(0);
        }
      }
    }
  }

  // As rows of kTile values a step of the sum.
  __device__ void put(T* tile, int stride) const {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int at = (i * kThreads + static_cast<int>(threadIdx.x)) * kLanes;
#pragma unroll
      for (int lane = 0; lane < kLanes; ++lane) {
        const int inner = at % kInner + lane, outer = at / kInner;
        tile[kAlong == Along::kSum ? inner * stride + outer : outer * stride + inner] = values[i][lane];
      }
    }
  }
};

// kOwn x kOwn results a thread. They lie in groups of four, 16 groups apart, so that the threads of a warp read
// neighbouring words of shared memory.
template <class T, int kTile, int kDepth, Along kA, Along kB>
__device__ void tiles(const GemmArguments& g) {
  constexpr int kOwn = kTile / 16, kGroup = 4, kGroups = kOwn / kGroup;
  constexpr int kStride = kTile + 4;  // rows of a transposed tile begin in different banks
  constexpr int kSlice = kDepth * 2;  // rows of C that fit the operands' place
  static_assert(kTile * kTile % kSlice == 0 && kSlice % kGroup == 0);
  __shared__ alignas(16) T shared[2 * kDepth * kStride];
  T *const aTile = shared, *const bTile = shared + kDepth * kStride;
  if (failedBefore(g.failure)) return;
  const TilePlace place = tilePlace(g, kTile, kTile);
  if (place.row >= g.m) return;
  const int down = threadIdx.x / 16, across = threadIdx.x % 16;
  T sums[kOwn][kOwn] = {};
  Carried<T, kTile, kDepth, kA> a;
  Carried<T, kTile, kDepth, kB> b;
  a.fetch(g.a, place.a, place.row, g.m, place.depth, place.end);
  b.fetch(g.b, place.b, place.col, g.n, place.depth, place.end);
  for (int depth = place.depth; depth < place.end; depth += kDepth) {
    a.put(aTile, kStride);
    b.put(bTile, kStride);
    __syncthreads();
    a.fetch(g.a, place.a, place.row, g.m, depth + kDepth, place.end);
    b.fetch(g.b, place.b, place.col, g.n, depth + kDepth, place.end);
#pragma unroll
    for (int k = 0; k < kDepth; ++k) {
      T x[kOwn], y[kOwn];
#pragma unroll
      for (int group = 0; group < kGroups; ++group) {
        const T* left = aTile + k * kStride + (group * 16 + down) * kGroup;
        const T* right = bTile + k * kStride + (group * 16 + across) * kGroup;
#pragma unroll
        for (int i = 0; i < kGroup; ++i) {
          x[group * kGroup + i] = left[i];
          y[group * kGroup + i] = right[i];
        }
      }
#pragma unroll
      for (int i = 0; i < kOwn; ++i) {
#pragma unroll
        for (int j = 0; j < kOwn; ++j) sums[i][j] += x[i] * y[j];
      }
    }
    __syncthreads();
  }
  // Rows of C in slices: row (group * 16 + down) * 4 + i belongs to slice row / kSlice.
  for (int slice = 0; slice < kTile / kSlice; ++slice) {
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      const int row = (i / kGroup * 16 + down) * kGroup + i % kGroup - slice * kSlice;
      if (row < 0 || row >= kSlice) continue;
#pragma unroll
      for (int j = 0; j < kOwn; ++j) {
        shared[row * kTile + (j / kGroup * 16 + across) * kGroup + j % kGroup] = sums[i][j];
      }
    }
    __syncthreads();
    writeRows<kTile>(g, place.c, shared, kTile, kSlice, place.row + slice * kSlice, place.col);
    __syncthreads();
  }
}

// A thread the neighbouring columns of one row, from the sums of all splits in their order.
template <class C>
__device__ void join(const GemmJoin& j) {
  const GemmArguments& g = j.product;
  constexpr int kCount = kNeighbours<C>;
  const long long group = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (group >= j.groups || failedBefore(g.failure)) return;
  const int groupsOfRow = (g.n + kCount - 1) / kCount, col = static_cast<int>(group % groupsOfRow) * kCount;
  const long long row = group / groupsOfRow;  // of all batch entries
  if (g.live.count && !g.live.inSum && row % g.m >= *g.live.count - g.live.first) return;
  TilePlace place{};
  addBatchOffsets(g, static_cast<int>(row / g.m), place);
  const C* from = static_cast<const C*>(j.sums) + row * g.n + col;
  const Ending<C> ending(g);
  if (g.wide && col + kCount <= g.n) {
    constexpr int kDType = static_cast<int>(sizeof(C) == 8 ? DType::kFloat64 : DType::kFloat32);
    const bool packed = g.n * sizeof(C) % 16 == 0;  // every row of every split begins on a boundary
    C sums[kCount] = {};
    for (int split = 0; split < g.splits; ++split, from += g.splitStride) {
      C part[kCount];
      if (packed) {
        loadNeighbours(from, kDType, 0, part);
      } else {
#pragma unroll
        for (int i = 0; i < kCount; ++i) part[i] = from[i];
      }
#pragma unroll
      for (int i = 0; i < kCount; ++i) sums[i] += part[i];
    }
    C bias[kCount];
    loadBias(g, col, bias);
    return finishNeighbours(g, ending, place.c, static_cast<int>(row % g.m), col, bias, sums);
  }
#pragma unroll 1
  for (int i = 0; i < min(kCount, g.n - col); ++i) {
    C sum = 0;
    for (int split = 0; split < g.splits; ++split) sum += from[split * g.splitStride + i];
    finish(g, ending, place.c, static_cast<int>(row % g.m), col + i, sum);
  }
}

template <class T>
__device__ void whole(const GemmIntegers& g) {
  const unsigned long long at = static_cast<unsigned long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= g.count) return;
  const int col = at % g.n, row = at / g.n % g.m;
  unsigned long long batch = at / g.n / g.m;
  const T *a = static_cast<const T*>(g.a) + row * g.aRow, *b = static_cast<const T*>(g.b) + col * g.bCol;
  T* c = static_cast<T*>(g.c) + row * g.cRow + col * g.cCol;
  for (int d = g.rank - 1; d >= 0; --d) {
    const long long i = batch % g.sizes[d];
    batch /= g.sizes[d];
    a += i * g.aBatch[d];
    b += i * g.bBatch[d];
    c += i * g.cBatch[d];
  }
  unsigned long long sum = 0;  // wraps in any of the types
  for (int k = 0; k < g.k; ++k) {
    sum += static_cast<unsigned long long>(a[k * g.aCol]) * static_cast<unsigned long long>(b[k * g.bRow]);
  }
  *c = static_cast<T>(sum);
}

template <class C>
__device__ void storeColumn(const ColumnSums& a, long long range, int column, C sum) {
  if (column >= a.columns || failedBefore(a.failure)) return;
  const long long at = range * a.columns + column * a.toStride;
  if (a.accumulate) sum += loadAt<C>(a.to, a.toDType, at);
  storeAt(a.to, a.toDType, at, sum);
}

constexpr int kWarps = kThreads / 32;

// The block's warps take every eighth row each, and are added in order.
template <class C>
__device__ void columnSums(const ColumnSums& a) {
  __shared__ C parts[kWarps][32];
  const int lane = threadIdx.x % 32, part = threadIdx.x / 32;
  const int blocks = (a.columns + 31) / 32;
  const long long range = blockIdx.x / blocks;
  const int column = blockIdx.x % blocks * 32 + lane;
  const long long end = min(a.rows, (range + 1) * a.rowsOfRange);
  C sum = 0;
  if (column < a.columns) {
    for (long long row = range * a.rowsOfRange + part; row < end; row += kWarps) {
      sum += loadAt<C>(a.from, a.dtype, row * a.row + column * a.col);
    }
  }
  parts[part][lane] = sum;
  __syncthreads();
  if (part > 0) return;
  for (int i = 1; i < kWarps; ++i) sum += parts[i][lane];
  storeColumn(a, range, column, sum);
}

// Pairs of threads have a row's 32 bytes or more, a sector of memory, and the block's pairs every 128th row each.
template <class C, DType kDType>
__device__ void packedColumnSums(const ColumnSums& a) {
  constexpr int kOwn = kNeighbours<C>, kPairs = kThreads / 2;
  __shared__ C parts[kWarps][2 * kOwn];
  const int side = threadIdx.x % 2, pair = threadIdx.x / 2, warp = threadIdx.x / 32;
  const int blocks = (a.columns + 2 * kOwn - 1) / (2 * kOwn), first = blockIdx.x % blocks * 2 * kOwn;
  const long long range = blockIdx.x / blocks, end = min(a.rows, (range + 1) * a.rowsOfRange);
  const int column = first + side * kOwn;
  C sums[kOwn] = {};
  if (column < a.columns) {
#pragma unroll kDType == DType::kFloat32 ? 4 : 8
    for (long long row = range * a.rowsOfRange + pair; row < end; row += kPairs) {
      C values[kOwn];
      loadNeighbours(a.from, static_cast<int>(kDType), row * a.row + column, values);
#pragma unroll
      for (int i = 0; i < kOwn; ++i) sums[i] += values[i];
    }
  }
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    for (int lane = 16; lane > 1; lane /= 2) sums[i] += __shfl_xor_sync(~0u, sums[i], lane);
    if (threadIdx.x % 32 < 2) parts[warp][side * kOwn + i] = sums[i];
  }
  __syncthreads();
  if (threadIdx.x >= 2 * kOwn) return;
  C sum = parts[0][threadIdx.x];
  for (int i = 1; i < kWarps; ++i) sum += parts[i][threadIdx.x];
  storeColumn(a, range, first + static_cast<int>(threadIdx.x), sum);
}

template <class C>
__device__ void sumColumns(const ColumnSums& a) {
  if (!a.packed) return columnSums<C>(a);
  if constexpr (sizeof(C) == 8) {
    packedColumnSums<C, DType::kFloat64>(a);
  } else {
    switch (static_cast<DType>(a.dtype)) {
      case DType::kFloat16:
        return packedColumnSums<C, DType::kFloat16>(a);
      case DType::kBFloat16:
        return packedColumnSums<C, DType::kBFloat16>(a);
      default:
        return packedColumnSums<C, DType::kFloat32>(a);
    }
  }
}

}  // namespace

#define GRADUS_GEMM(size, name, dtype, T, tile, depth, a, b)                                                          \
  extern "C" __global__ void __launch_bounds__(256, 1) gradus_gemm_##size##_##name##_##dtype(const GemmArguments g) { \
    tiles<T, tile, depth, Along::a, Along::b>(g);                                                                     \
  }
#define GRADUS_LAYOUTS(size, dtype, T, tile, depth)              \
  GRADUS_GEMM(size, nn, dtype, T, tile, depth, kSum, kAcross)    \
  GRADUS_GEMM(size, nt, dtype, T, tile, depth, kSum, kSum)       \
  GRADUS_GEMM(size, tn, dtype, T, tile, depth, kAcross, kAcross) \
  GRADUS_GEMM(size, tt, dtype, T, tile, depth, kAcross, kSum)
GRADUS_LAYOUTS(large, float32, float, 128, 8)
GRADUS_LAYOUTS(small, float32, float, 64, 16)
GRADUS_LAYOUTS(small, float64, double, 64, 16)

#define GRADUS_JOIN(dtype, T) \
  extern "C" __global__ void __launch_bounds__(256) gradus_gemm_join_##dtype(const GemmJoin j) { join<T>(j); }
GRADUS_JOIN(float32, float)
GRADUS_JOIN(float64, double)

#define GRADUS_WHOLE(dtype, T) \
  extern "C" __global__ void __launch_bounds__(256, 1) gradus_gemm_whole_##dtype(const GemmIntegers g) { whole<T>(g); }
GRADUS_WHOLE(int64, long long)
GRADUS_WHOLE(int32, int)
GRADUS_WHOLE(uint8, unsigned char)

#define GRADUS_COLUMN_SUMS(dtype, T)                                                                         \
  extern "C" __global__ void __launch_bounds__(256, 1) gradus_gemm_column_sums_##dtype(const ColumnSums a) { \
    sumColumns<T>(a);                                                                                        \
  }
GRADUS_COLUMN_SUMS(float32, float)
GRADUS_COLUMN_SUMS(float64, double)

}  // namespace gradus::cuda
