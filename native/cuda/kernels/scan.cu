// Along one dim: extrema with their places, and running sums.
//
// An extreme is the same whatever the order it was looked for in: NaN wins, and among equals the first. Running sums
// are made in float64 (whole numbers: int64), so that the error does not grow with the length; a long line is cut into
// chunks, whose sums come first.
//
//   gradus_scan_extreme_<f32|f64|i64>(ScanExtreme): `threads` threads a piece; the type that is computed in
//   gradus_scan_extreme_pieces_<f32|f64|i64>(ScanExtreme): a warp an output
//   gradus_scan_sum_columns_<f64|i64>(ScanSum): a thread a line, for lines that lie side by side
//   gradus_scan_sum_<f64|i64>(ScanSum): a block a chunk; the sums so far of the line's other chunks are in `starts`
//   gradus_scan_chunks_<f64|i64>(ScanSum): a block a chunk: its sum, to `starts`
//   gradus_scan_starts_<f64|i64>(ScanSum): a thread a line: sums of chunks become what comes before each
//   blocks of 256 threads, which stride over their items by the grid
#include "rows.cuh"
#include "scan.h"

namespace gradus::cuda {
namespace {

// --- extrema --------------------------------------------------------------------------------------------------------

template <class C>
struct Extreme {
  C value;
  Int64 index;  // -1: nothing yet
};
template <class C>
__device__ Extreme<C> fromLane(Extreme<C> extreme, int lane) {
  return {cuda::fromLane(extreme.value, lane), cuda::fromLane(extreme.index, lane)};
}

template <class C>
__device__ bool beats(const Extreme<C>& a, const Extreme<C>& b, bool largest) {
  if (a.index < 0 || b.index < 0) return b.index < 0;
  const bool aIsNaN = a.value != a.value, bIsNaN = b.value != b.value;
  if (aIsNaN != bIsNaN) return aIsNaN;
  if (!aIsNaN && a.value != b.value) return largest ? a.value > b.value : a.value < b.value;
  return a.index < b.index;
}

template <class C>
__device__ void put(const ScanExtreme& a, long long output, const Extreme<C>& best) {
  if (a.values) store(a.values + output * a.itemSize, a.dtype, best.value);
  a.indices[output] = best.index;
}

template <class C>
__device__ void extreme(const ScanExtreme& a) {
  const Group group(a.threads);
  const bool largest = a.largest;
  const long long items = a.outputs * a.pieces, step = gridDim.x * static_cast<long long>(group.count);
  for (long long base = blockIdx.x * static_cast<long long>(group.count); base < items; base += step) {
    const long long item = base + group.first, output = item / a.pieces, piece = item - output * a.pieces;
    Extreme<C> best{0, -1};
    if (item < items) {
      const char* range = a.in + offsetOf(a.kept, output);
      const long long end = a.count * (piece + 1) / a.pieces;
      for (long long i = a.count * piece / a.pieces + group.lane; i < end; i += group.size) {
        const Extreme<C> next{load<C>(range + offsetOf(a.line, i), a.dtype), i};
        if (beats(next, best, largest)) best = next;
      }
    }
    best = group.reduce(best, [&](const Extreme<C>& p, const Extreme<C>& q) { return beats(q, p, largest) ? q : p; });
    if (item >= items || group.lane != 0) continue;
    if (a.pieces == 1) {
      put(a, output, best);
    } else {
      static_cast<C*>(a.partialValues)[item] = best.value;
      a.partialIndices[item] = best.index;
    }
  }
}

template <class C>
__device__ void extremePieces(const ScanExtreme& a) {
  const Group warp(32);
  const bool largest = a.largest;
  const long long step = gridDim.x * static_cast<long long>(warp.count);
  for (long long o = blockIdx.x * static_cast<long long>(warp.count) + warp.first; o < a.outputs; o += step) {
    Extreme<C> best{0, -1};
    for (long long i = o * a.pieces + warp.lane; i < (o + 1) * a.pieces; i += 32) {
      const Extreme<C> next{static_cast<const C*>(a.partialValues)[i], a.partialIndices[i]};
      if (beats(next, best, largest)) best = next;
    }
    best = warp.reduce(best, [&](const Extreme<C>& p, const Extreme<C>& q) { return beats(q, p, largest) ? q : p; });
    if (warp.lane == 0) put(a, o, best);
  }
}

// --- running sums ---------------------------------------------------------------------------------------------------

template <class A>
__device__ A plus(A a, A b) {
  if constexpr (A(0.5) == A(0))
    return A(static_cast<unsigned long long>(a) + static_cast<unsigned long long>(b));  // wraps
  else
    return a + b;
}

template <class A>
__device__ void sumColumns(const ScanSum& a) {
  const long long step = gridDim.x * 256ll;
  for (long long line = blockIdx.x * 256ll + threadIdx.x; line < a.lines; line += step) {
    const char* in = a.in + offsetOf(a.inRest, line);
    char* out = a.out + offsetOf(a.outRest, line);
    A total = 0;
    for (long long i = 0; i < a.count; ++i) {
      total = plus(total, load<A>(in + i * a.inStride, a.inDType));
      store(out + i * a.outStride, a.outDType, total);
    }
  }
}

// The sum of the values of this thread and of those before it in the block; `all` is the whole block's.
template <class A>
__device__ A inclusive(A value, A& all) {
  __shared__ A warps[kMostWarps];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (int offset = 1; offset < 32; offset *= 2) {
    const A before = __shfl_up_sync(kAllLanes, value, offset);
    if (lane >= offset) value = plus(before, value);
  }
  __syncthreads();  // the last totals have been read
  if (lane == 31) warps[warp] = value;
  __syncthreads();
  A before = 0;
  all = 0;
  for (int w = 0; w < kMostWarps; ++w) {
    if (w == warp) before = all;
    all = plus(all, warps[w]);
  }
  return plus(before, value);
}

// A block's chunk: body(in, out, first, end, item).
template <class Body>
__device__ void overChunks(const ScanSum& a, const Body& body) {
  for (long long item = blockIdx.x; item < a.lines * a.chunks; item += gridDim.x) {
    const long long line = item / a.chunks, first = (item - line * a.chunks) * a.chunk;
    const long long end = first + a.chunk < a.count ? first + a.chunk : a.count;
    body(a.in + offsetOf(a.inRest, line), a.out + offsetOf(a.outRest, line), first, end, item);
  }
}

template <class A>
__device__ void sumRows(const ScanSum& a) {
  overChunks(a, [&](const char* in, char* out, long long first, long long end, long long item) {
    A carried = a.chunks > 1 ? static_cast<const A*>(a.starts)[item] : A(0);
    for (long long base = first; base < end; base += 256) {
      const long long i = base + threadIdx.x;
      A all;
      const A sum = inclusive(i < end ? load<A>(in + i * a.inStride, a.inDType) : A(0), all);
      if (i < end) store(out + i * a.outStride, a.outDType, plus(carried, sum));
      carried = plus(carried, all);
    }
  });
}

template <class A>
__device__ void sumChunks(const ScanSum& a) {
  const Group block(256);
  overChunks(a, [&](const char* in, char*, long long first, long long end, long long item) {
    A sum = 0;
    for (long long i = first + threadIdx.x; i < end; i += 256) sum = plus(sum, load<A>(in + i * a.inStride, a.inDType));
    sum = block.reduce(sum, [](A p, A q) { return plus(p, q); });
    if (threadIdx.x == 0) static_cast<A*>(a.starts)[item] = sum;
  });
}

template <class A>
__device__ void sumStarts(const ScanSum& a) {
  const long long step = gridDim.x * 256ll;
  for (long long line = blockIdx.x * 256ll + threadIdx.x; line < a.lines; line += step) {
    A* starts = static_cast<A*>(a.starts) + line * a.chunks;
    A total = 0;
    for (long long c = 0; c < a.chunks; ++c) {
      const A sum = starts[c];
      starts[c] = total;
      total = plus(total, sum);
    }
  }
}

}  // namespace

#define GRADUS_SCAN(name, body, Arguments) \
  extern "C" __global__ void __launch_bounds__(256) gradus_scan_##name(const __grid_constant__ Arguments a) { body(a); }
#define GRADUS_SCAN_SUMS(type, A)                         \
  GRADUS_SCAN(sum_columns_##type, sumColumns<A>, ScanSum) \
  GRADUS_SCAN(sum_##type, sumRows<A>, ScanSum)            \
  GRADUS_SCAN(chunks_##type, sumChunks<A>, ScanSum)       \
  GRADUS_SCAN(starts_##type, sumStarts<A>, ScanSum)

GRADUS_SCAN(extreme_f32, extreme<float>, ScanExtreme)
GRADUS_SCAN(extreme_f64, extreme<double>, ScanExtreme)
GRADUS_SCAN(extreme_i64, extreme<Int64>, ScanExtreme)
GRADUS_SCAN(extreme_pieces_f32, extremePieces<float>, ScanExtreme)
GRADUS_SCAN(extreme_pieces_f64, extremePieces<double>, ScanExtreme)
GRADUS_SCAN(extreme_pieces_i64, extremePieces<Int64>, ScanExtreme)
GRADUS_SCAN_SUMS(f64, double)
GRADUS_SCAN_SUMS(i64, Int64)

}  // namespace gradus::cuda
