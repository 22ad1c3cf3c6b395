// The probabilities of attention, made again tile by tile from what forward saved of every row: written out where they
// are wanted, which takes O(T^2) memory, or summed up in O(T) to the entropy of every query's distribution and to what
// every key receives from all queries. Each sum belongs to one block and has a fixed order.
//
//   gradus_attention_weights_<dtype>(AttentionArguments)    a block a tile of keys, head, tile of queries, batch entry
//   gradus_attention_entropy_<dtype>(AttentionArguments)    a block a head, tile of queries and batch entry
//   gradus_attention_received_<dtype>(AttentionArguments)   a block a head (of Q), tile of keys and batch entry
//   blocks of 256 threads, tiles of 32, in this order from the fastest
#include "attention.cuh"

namespace gradus::cuda {
namespace {

template <class T>
struct Shape {
  using C = typename ComputeOf<T>::Type;
  static constexpr int kCols = sizeof(T) == 8 ? 32 : 64;
};

// The terms of the thread's row; those of a row that does not exist make its probabilities 0.
template <class C>
__device__ RowTerms<C> ownTerms(const AttentionArguments& a, const Segment& s, int head, int firstQuery) {
  const int query = firstQuery + ownRow();
  return query < s.queries ? loadTerms<C>(a, rowOf(a, s, head, query)) : RowTerms<C>{C(INFINITY), C(1)};
}

template <class T>
__device__ void weights(const AttentionArguments& a) {
  using C = typename Shape<T>::C;
  constexpr int kCols = Shape<T>::kCols;
  __shared__ alignas(16) Tile<C, kCols> xs, ys;
  AttentionPlace at;
  if (!placeOf(a, false, a.heads, kT, at)) return;
  const Segment& s = at.segment;
  const int key = at.chunk * kT, query = at.first + ownRow();
  C scores[kT / 8];
  const TileKind kind = tileKind(a, s, at.head, at.first, kT, key, kT);
  const bool hidden = kind == TileKind::kHidden;
  if (!hidden) scoreTile<T, kCols>(scores, xs, ys, a, s, kind, at.head, at.first, key);
  if (query >= s.queries) return;
  const RowTerms<C> terms = ownTerms<C>(a, s, at.head, at.first);
  T* row = static_cast<T*>(a.out.data) + s.batch * a.out.batch + at.head * a.out.head + query * a.out.position;
#pragma unroll
  for (int i = 0; i < kT / 8; ++i) {
    const int column = key + ownColumn(i);
    // keys beyond the length of a batch entry have weights, too: zeros
    if (column < a.keys)
      row[column * a.out.feature] = rounded<T>(hidden ? C(0) : exp(scores[i] - terms.shift) * terms.share);
  }
}

template <class T>
__device__ void entropy(const AttentionArguments& a) {
  using C = typename Shape<T>::C;
  constexpr int kCols = Shape<T>::kCols;
  __shared__ alignas(16) Tile<C, kCols> xs, ys;
  AttentionPlace at;
  if (!placeOf(a, false, a.heads, kT, at)) return;
  const Segment& s = at.segment;
  const RowTerms<C> terms = ownTerms<C>(a, s, at.head, at.first);
  const C logShare = log(terms.share);
  C sum = 0;
  const KeyRange range = keyRange(a, s, at.first, kT, kT);
  for (int key = range.begin; key < range.end; key += kT) {
    const TileKind kind = tileKind(a, s, at.head, at.first, kT, key, kT);
    if (kind == TileKind::kHidden) continue;
    C scores[kT / 8];
    scoreTile<T, kCols>(scores, xs, ys, a, s, kind, at.head, at.first, key);
#pragma unroll
    for (int i = 0; i < kT / 8; ++i) {
      const C logP = scores[i] - terms.shift, p = exp(logP) * terms.share;
      sum -= p * (max(logP, kLowest<C>) + logShare);  // 0 log 0 is 0: a finite logarithm makes it so
    }
  }
  for (int lane = 1; lane < 8; lane *= 2) sum += __shfl_xor_sync(~0u, sum, lane);
  const int query = at.first + ownRow();
  if (threadIdx.x % 8 == 0 && query < s.queries) static_cast<C*>(a.entropy)[rowOf(a, s, at.head, query)] = sum;
}

template <class T>
__device__ void received(const AttentionArguments& a) {
  using C = typename Shape<T>::C;
  constexpr int kCols = Shape<T>::kCols;
  __shared__ alignas(16) Tile<C, kCols> xs, ys;
  __shared__ C sums[kT][kT + 1];
  AttentionPlace at;
  if (!placeOf(a, true, a.heads, kT, at)) return;
  const Segment& s = at.segment;
  C own[kT / 8] = {};
  for (int query = 0; query < s.queries && at.first < s.keys; query += kT) {
    const TileKind kind = tileKind(a, s, at.head, query, kT, at.first, kT);
    if (kind == TileKind::kHidden) continue;
    C scores[kT / 8];
    scoreTile<T, kCols>(scores, xs, ys, a, s, kind, at.head, query, at.first);
    const RowTerms<C> terms = ownTerms<C>(a, s, at.head, query);
#pragma unroll
    for (int i = 0; i < kT / 8; ++i) own[i] += exp(scores[i] - terms.shift) * terms.share;
  }
#pragma unroll
  for (int i = 0; i < kT / 8; ++i) sums[ownRow()][ownColumn(i)] = own[i];
  __syncthreads();
  // keys of a batch entry beyond its length receive nothing
  const int key = at.first + static_cast<int>(threadIdx.x);
  if (threadIdx.x >= kT || key >= (a.sequences ? s.keys : a.keys)) return;
  C sum = 0;
  for (int row = 0; row < kT; ++row) sum += sums[row][threadIdx.x];
  const long long to = (static_cast<long long>(s.batch) * a.heads + at.head) * a.keys + s.firstKey + key;
  static_cast<C*>(a.received)[to] = sum;
}

}  // namespace

#define GRADUS_STATISTICS(kernel, dtype, T)                             \
  extern "C" __global__ void __launch_bounds__(256, 1)                  \
      gradus_attention_##kernel##_##dtype(const AttentionArguments a) { \
    kernel<T>(a);                                                       \
  }
#define GRADUS_DTYPES(kernel)                \
  GRADUS_STATISTICS(kernel, float32, float)  \
  GRADUS_STATISTICS(kernel, float64, double) \
  GRADUS_STATISTICS(kernel, float16, __half) \
  GRADUS_STATISTICS(kernel, bfloat16, __nv_bfloat16)
GRADUS_DTYPES(weights)
GRADUS_DTYPES(entropy)
GRADUS_DTYPES(received)

}  // namespace gradus::cuda
