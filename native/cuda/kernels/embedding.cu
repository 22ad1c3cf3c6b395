// Gradient of an embedding: rows of g added up by index into a dense [V, C] table. Positions come sorted by index,
// equal ones in their order, so a row of the table is summed by one thread a column in the order of positions and
// written once: deterministic, and without atomics.
//
//   gradus_embedding_keys(IndexKeys): blocks of 256 threads, one position a thread and round of a grid-stride loop
//   gradus_embedding_sum_<dtype of the table>_<dtype of g>(EmbeddingSum)
//     blocks of up to 256 threads, as a row needs, one sorted position a block and round; a thread has 8 neighbouring
//     columns where one dtype has 16 bits, else 4. The block of the first position of an index sums, the others have
//     nothing to do.
#include "embedding.h"
#include "packs.cuh"

namespace gradus::cuda {
namespace {

__device__ void makeKeys(const IndexKeys& a) {
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < a.count; i += gridDim.x * blockDim.x) {
    const int size = a.dtype == static_cast<int>(DType::kInt64)   ? 8
                     : a.dtype == static_cast<int>(DType::kInt32) ? 4
                                                                  : 1;
    const Int64 index = load<Int64>(a.index + static_cast<Int64>(i) * size, a.dtype);
    const bool inRange = index >= 0 && index < a.rows;
    if (!inRange) report(a.failure, kIndexOutOfRange, i, index);
    a.keys[i] = inRange && index != a.skipped ? static_cast<unsigned>(index) : a.rows;
    a.values[i] = i;
  }
}

// The end of the run of `key` that begins at `first`, found by the lanes of each warp together.
__device__ unsigned endOfRun(const unsigned* keys, unsigned first, unsigned count, unsigned key) {
  for (unsigned end = first;; end += 32) {
    const unsigned at = end + threadIdx.x % 32;
    const unsigned alike = __ballot_sync(kAllLanes, at < count && keys[at] == key);
    if (alike != kAllLanes) return end + __popc(alike);
  }
}

// Columns from `column` on of the row that positions [first, end) hit.
template <class T, class G, class C, int kWidth>
__device__ void sumRun(const EmbeddingSum& a, unsigned key, unsigned first, unsigned end, long long column) {
  const int count = a.width - column < kWidth ? static_cast<int>(a.width - column) : kWidth;
  const bool whole = a.aligned && count == kWidth;
  C total[kWidth];
#pragma unroll
  for (int k = 0; k < kWidth; ++k) total[k] = 0;
#pragma unroll 4
  for (unsigned i = first; i < end; ++i) {
    const G* from = static_cast<const G*>(a.g) + a.order[i] * a.width + column;
    C x[kWidth];
    if (whole)
      loadRun(from, x);
    else
      loadSome(from, count, x);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) total[k] += x[k];
  }
  T* to = static_cast<T*>(a.table) + key * a.width + column;
  if (a.accumulate) {
    C x[kWidth];
    if (whole)
      loadRun(to, x);
    else
      loadSome(to, count, x);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) total[k] += x[k];
  }
  if (whole)
    storeRun(to, total);
  else
    storeSome(to, count, total);
}

template <class T, class G>
__device__ void sum(const EmbeddingSum& a) {
  using C = Compute<T>;
  constexpr int kWidth = sizeof(T) == 2 || sizeof(G) == 2 ? 8 : 4;
  if (a.accumulate && a.failure->serial != 0) return;
  for (unsigned first = blockIdx.x; first < a.count; first += gridDim.x) {
    const unsigned key = a.keys[first];
    if (key >= a.rows || (first > 0 && a.keys[first - 1] == key)) continue;
    const unsigned end = endOfRun(a.keys, first, a.count, key);
    for (long long column = threadIdx.x * kWidth; column < a.width; column += blockDim.x * kWidth) {
      sumRun<T, G, C, kWidth>(a, key, first, end, column);
    }
  }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256) gradus_embedding_keys(const IndexKeys a) { makeKeys(a); }

#define GRADUS_SUM(to, T, from, G)                                                                             \
  extern "C" __global__ void __launch_bounds__(256) gradus_embedding_sum_##to##_##from(const EmbeddingSum a) { \
    sum<T, G>(a);                                                                                              \
  }
#define GRADUS_SUM_INTO(to, T)       \
  GRADUS_SUM(to, T, float32, float)  \
  GRADUS_SUM(to, T, float16, __half) \
  GRADUS_SUM(to, T, bfloat16, __nv_bfloat16)

GRADUS_SUM_INTO(float32, float)
GRADUS_SUM_INTO(float16, __half)
GRADUS_SUM_INTO(bfloat16, __nv_bfloat16)
GRADUS_SUM(float64, double, float64, double)

}  // namespace gradus::cuda
