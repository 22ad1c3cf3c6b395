// Matrix products of 16-bit operands on tensor cores, sums in float32.
//
// A block's four warps make a tile of C in registers. Tiles of the operands come to shared memory by asynchronous
// copies, two steps ahead of the one that is multiplied, and from there to registers, half a step ahead. Operands
// stay as they lie in memory: ldmatrix transposes those whose contiguous dim is not that of the sum. The 16-byte chunks
// of a row are permuted so that the eight rows that ldmatrix reads at a time lie in different banks. Sums run over k in
// one order, whatever the tile: the host takes the one that suits the device.
//
//   gradus_gemm_mma_<large|medium|small>_<a><b>_<float16|bfloat16>(GemmArguments)
//   tiles of 128 x 128, 64 x 128, 64 x 64; a, b: n is row-major, t column-major; a block of 128 threads a tile of C,
//   batch entry and split, tiles first; shared memory as gemmMmaBytes() says
#include "gemm_epilogue.cuh"
#include "mma.cuh"

namespace gradus::cuda {
namespace {

constexpr int kThreads = kGemmMmaThreads, kDepth = kGemmMmaDepth, kStages = kGemmMmaStages;
constexpr int kLanes = 8;  // 16-bit elements of a chunk

extern __shared__ uint4 dynamicShared[];

// An operand: kSize rows of m or n, in tiles of kDepth of the sum's dim. In shared memory a tile lies as rows of the
// operand's contiguous dim.
template <class T, Along kAlong, int kSize>
struct Operand {
  static constexpr int kInner = kAlong == Along::kSum ? kDepth : kSize;
  static constexpr int kOuter = kAlong == Along::kSum ? kSize : kDepth;
  static constexpr int kChunks = kInner / kLanes, kCopies = kOuter * kChunks / kThreads;
  static constexpr int kRowsApart = kThreads / kChunks;  // of a thread's copies
  static constexpr int kElements = kSize * kDepth;
  static_assert(kRowsApart % 8 == 0, "a thread's copies are permuted alike");

  const GemmMatrix& x;
  const T* next;    // the thread's first chunk of the tile that is fetched next
  unsigned inside;  // along the sum: bits, of which copies lie in the operand; else: bytes of each that do

  __device__ static int place(int row, int chunk) {
    // rows of 64 bytes: two share the 32 banks; longer rows each begin in the first one
    const int permuted = kChunks == 4 ? chunk ^ (row >> 1 & 3) : chunk ^ (row & 7);
    return row * kInner + permuted * kLanes;
  }

  __device__ Operand(const GemmMatrix& x, const T* data, int first, int end, int depth) : x(x) {
    const int row = threadIdx.x / kChunks, chunk = threadIdx.x % kChunks;
    if constexpr (kAlong == Along::kSum) {
      next = data + (first + row) * x.stride + depth + chunk * kLanes;
      inside = 0;
#pragma unroll
      for (int i = 0; i < kCopies; ++i) inside |= (first + row + i * kRowsApart < end ? 1u : 0u) << i;
    } else {
      next = data + (depth + row) * x.stride + first + chunk * kLanes;
      inside = max(0, min(kLanes, end - first - chunk * kLanes)) * sizeof(T);
    }
  }

  // Starts copying a tile of whole depth of rows that begin on 16 bytes; zeros beyond the operand's end.
  __device__ void fetchWhole(T* tile) {
    T* const to = tile + place(threadIdx.x / kChunks, threadIdx.x % kChunks);
    const T* from = next;
#pragma unroll
    for (int i = 0; i < kCopies; ++i, from += kRowsApart * x.stride) {
      copyAsync(to + i * kRowsApart * kInner, from, kAlong == Along::kSum ? (inside >> i & 1) * 16 : inside);
    }
    next += kAlong == Along::kSum ? kDepth : kDepth * x.stride;
  }

  // Any tile, from `first` of m or n and `depth` of the sum's dim on; zeros beyond the ends.
  __device__ static void fetchAny(T* tile, const GemmMatrix& x, const T* data, int first, int end, int depth,
                                  int depthEnd) {
    const int outerEnd = kAlong == Along::kSum ? end : depthEnd, innerEnd = kAlong == Along::kSum ? depthEnd : end;
    const int outer0 = kAlong == Along::kSum ? first : depth, inner0 = kAlong == Along::kSum ? depth : first;
#pragma unroll 1
    for (int at = threadIdx.x; at < kOuter * kChunks; at += kThreads) {
      const int row = at / kChunks, chunk = at % kChunks;
      const int valid = outer0 + row < outerEnd ? max(0, min(kLanes, innerEnd - inner0 - chunk * kLanes)) : 0;
      const T* from = data + (outer0 + row) * x.stride + inner0 + chunk * kLanes;
      T* const to = tile + place(row, chunk);
      if (x.vectors) {
        copyAsync(to, valid > 0 ? from : data, valid * static_cast<int>(sizeof(T)));
        continue;
      }
      unsigned words[kLanes / 2] = {};
#pragma unroll
      for (int lane = 0; lane < kLanes; ++lane) {
        const unsigned bits = lane < valid ? reinterpret_cast<const unsigned short*>(from)[lane] : 0;
        words[lane / 2] |= bits << lane % 2 * 16;
      }
      *reinterpret_cast<uint4*>(to) = make_uint4(words[0], words[1], words[2], words[3]);
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

template <class T, int kRows, int kCols, Along kA, Along kB>
__device__ void product(const GemmArguments& g) {
  using A = Operand<T, kA, kRows>;
  using B = Operand<T, kB, kCols>;
  constexpr int kStage = A::kElements + B::kElements, kSteps = kDepth / 16;
  constexpr int kWarpRows = kRows / 2, kWarpCols = kCols / 2, kDown = kWarpRows / 16, kAcross = kWarpCols / 8;
  T* const stages = reinterpret_cast<T*>(dynamicShared);
  if (failedBefore(g.failure)) return;
  const TilePlace place = tilePlace(g, kRows, kCols);
  if (place.row >= g.m) return;
  const T *a = static_cast<const T*>(g.a.data) + place.a, *b = static_cast<const T*>(g.b.data) + place.b;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int warpRow = warp / 2 * kWarpRows, warpCol = warp % 2 * kWarpCols;
  float sums[kDown][kAcross][4] = {};
  const int depth = place.end - place.depth, steps = (depth + kDepth - 1) / kDepth;
  const int whole = g.a.vectors && g.b.vectors ? depth / kDepth : 0;
  A ofA(g.a, a, place.row, g.m, place.depth);
  B ofB(g.b, b, place.col, g.n, place.depth);
  // Steps beyond the last one fetch nothing but are groups all the same, so that one count of groups fits all.
  const auto fetch = [&](int step, T* stage) {
    if (step < whole) {
      ofA.fetchWhole(stage);
      ofB.fetchWhole(stage + A::kElements);
    } else if (step < steps) {
      const int from = place.depth + step * kDepth;
      A::fetchAny(stage, g.a, a, place.row, g.m, from, place.end);
      B::fetchAny(stage + A::kElements, g.b, b, place.col, g.n, from, place.end);
    }
    commitCopies();
  };
  unsigned left[2][kDown][4], right[2][kAcross / 2][4];
  const auto load = [&](int to, const T* stage, int from) {
#pragma unroll
    for (int i = 0; i < kDown; ++i) A::left(left[to][i], stage, warpRow + i * 16, from);
#pragma unroll
    for (int j = 0; j < kAcross / 2; ++j) B::right(right[to][j], stage + A::kElements, warpCol + j * 16, from);
  };
#pragma unroll
  for (int step = 0; step < kStages - 1; ++step) fetch(step, stages + step * kStage);
  waitForCopies<kStages - 2>();
  __syncthreads();
  if (steps > 0) load(0, stages, 0);
  int reading = 0, writing = kStages - 1;
  for (int step = 0; step < steps; ++step) {
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
      if (k == kSteps - 1) {
        waitForCopies<kStages - 2>();
        __syncthreads();  // the next step's tiles are there, and the present one's were read by all
        reading = (reading + 1) % kStages;
      }
      if (k < kSteps - 1 || step + 1 < steps) load((k + 1) % 2, stages + reading * kStage, (k + 1) % kSteps * 16);
      if (k == 0) {
        fetch(step + kStages - 1, stages + writing * kStage);
        writing = (writing + 1) % kStages;
      }
#pragma unroll
      for (int i = 0; i < kDown; ++i) {
#pragma unroll
        for (int j = 0; j < kAcross; ++j) {
          const unsigned* pair = right[k % 2][j / 2] + j % 2 * 2;
          multiplyAdd<T>(sums[i][j], left[k % 2][i], pair[0], pair[1]);
        }
      }
    }
  }
  waitForCopies<0>();
  __syncthreads();
  // Half of the rows of C at a time, with rows a few words longer so that a quad's rows begin in different banks.
  constexpr int kStride = kCols + 8;
  static_assert(kWarpRows * kStride * sizeof(float) <= kStages * kStage * sizeof(T));
  float* const out = reinterpret_cast<float*>(dynamicShared);
  for (int half = 0; half < 2; ++half) {
    if (warp / 2 == half) {
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
    writeRows<kCols>(g, place.c, out, kStride, kWarpRows, place.row + half * kWarpRows, place.col);
    __syncthreads();
  }
}

}  // namespace

#define GRADUS_MMA(size, name, dtype, T, rows, cols, blocks, a, b)       \
  extern "C" __global__ void __launch_bounds__(kThreads, blocks)         \
      gradus_gemm_mma_##size##_##name##_##dtype(const GemmArguments g) { \
    product<T, rows, cols, Along::a, Along::b>(g);                       \
  }
#define GRADUS_LAYOUTS(size, dtype, T, rows, cols, blocks)             \
  GRADUS_MMA(size, nn, dtype, T, rows, cols, blocks, kSum, kAcross)    \
  GRADUS_MMA(size, nt, dtype, T, rows, cols, blocks, kSum, kSum)       \
  GRADUS_MMA(size, tn, dtype, T, rows, cols, blocks, kAcross, kAcross) \
  GRADUS_MMA(size, tt, dtype, T, rows, cols, blocks, kAcross, kSum)
#define GRADUS_SIZES(dtype, T)                 \
  GRADUS_LAYOUTS(large, dtype, T, 128, 128, 2) \
  GRADUS_LAYOUTS(medium, dtype, T, 64, 128, 2) \
  GRADUS_LAYOUTS(small, dtype, T, 64, 64, 4)
GRADUS_SIZES(float16, __half)
GRADUS_SIZES(bfloat16, __nv_bfloat16)

}  // namespace gradus::cuda
