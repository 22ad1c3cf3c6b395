// Flash attention (Dao et al. 2022, arXiv:2205.14135): scores exist as tiles of 32 queries by 32 keys. Forward walks
// over the keys once with an online softmax; backward makes the probabilities again from the saved logsumexp, once for
// dQ and once for dK and dV, so that every sum belongs to one block and has a fixed order.
//
//   gradus_attention_<forward|query_gradient|key_gradient>_<dtype>(AttentionArguments)
//   a block of 256 threads a chunk of features, head (query_gradient and forward: of Q, key_gradient: of K), tile and
//   batch entry, in this order from the fastest; packed sequences: tiles of all of them, at most
//   gradus_attention_row_terms_<dtype>(AttentionArguments)   a warp a row of [B, H, L], 256 threads a block
//   gradus_attention_check(AttentionArguments)                one block of 256 threads
#include "attention.cuh"

namespace gradus::cuda {
namespace {

template <class T>
struct Shape {
  using C = typename ComputeOf<T>::Type;
  static constexpr int kCols = sizeof(T) == 8 ? 32 : 64;
  static constexpr int kChunks = 2;
  static constexpr int kFeatures = kCols * kChunks;
  static_assert(kFeatures == (sizeof(T) == 8 ? kAttentionFeaturesDouble : kAttentionFeatures));
};

// Of the features of a chunk a thread has kWide neighbours, and those 8 * kWide further on.
template <class C>
__device__ int ownFeature(int j) {
  return (threadIdx.x % 8 + j / kWide<C> * 8) * kWide<C> + j % kWide<C>;
}

// sums[j] += weights times rows of xs, for the thread's first kOwn features; the rows that `count` does not hold are 0.
template <bool kByRow, int kOwn, int kCols, class C>
__device__ void addTile(C* sums, const Tile<C, kCols>& xs, const Tile<C, kT>& weights, int count) {
  for (int k = 0; k < count; k += kWide<C>) {
    Wide<C> own;
    if constexpr (kByRow) {
      own = wideAt(weights[ownRow()][k]);
    } else {
#pragma unroll
      for (int i = 0; i < kWide<C>; ++i) own.at[i] = weights[k + i][ownRow()];
    }
#pragma unroll
    for (int i = 0; i < kWide<C>; ++i) {
#pragma unroll
      for (int j = 0; j < kOwn; j += kWide<C>) {
        const Wide<C> x = wideAt(xs[k + i][ownFeature<C>(j)]);
#pragma unroll
        for (int w = 0; w < kWide<C>; ++w) sums[j + w] += own.at[i] * x.at[w];
      }
    }
  }
}

// sums[chunk] += weights times rows of x: of its features from `feature` on. kByRow: weights[own row][k], else
// weights[k][own row].
template <class T, bool kByRow, class C = typename Shape<T>::C, int kCols = Shape<T>::kCols>
__device__ void addRows(C (&sums)[Shape<T>::kChunks][kCols / 8], Tile<C, kCols>& xs, const Tile<C, kT>& weights,
                        const AttentionOperand& x, int batch, int head, int origin, int first, int end, int feature,
                        int features) {
  static_assert(kCols == 16 * kWide<C>);
#pragma unroll
  for (int chunk = 0; chunk < Shape<T>::kChunks; ++chunk) {
    const int column = feature + chunk * kCols;
    if (column >= features) continue;
    const bool half = features - column <= kCols / 2;
    const int count = min(kT, end - first);
    __syncthreads();
    fetchTile<T, kCols>(xs, x, batch, head, origin, first, end, column, features, half ? kCols / 2 : kCols);
    __syncthreads();
    if (!half) {
      addTile<kByRow, kCols / 8, kCols>(sums[chunk], xs, weights, count);
    } else {
      addTile<kByRow, kCols / 16, kCols>(sums[chunk], xs, weights, count);
    }
  }
  __syncthreads();  // weights and rows may be overwritten
}

template <class T, class C = typename Shape<T>::C, int kCols = Shape<T>::kCols>
__device__ void storeRow(const C (&sums)[Shape<T>::kChunks][kCols / 8], C factor, const AttentionOperand& x, int batch,
                         int head, int position, int feature, int features) {
  T* row = static_cast<T*>(x.data) + batch * x.batch + head * x.head + position * x.position;
#pragma unroll
  for (int chunk = 0; chunk < Shape<T>::kChunks; ++chunk) {
#pragma unroll
    for (int j = 0; j < kCols / 8; ++j) {
      const int c = feature + chunk * kCols + ownFeature<C>(j);
      if (c < features) row[c * x.feature] = rounded<T>(sums[chunk][j] * factor);
    }
  }
}

// Over the eight threads of a row.
template <class C>
__device__ C rowMaximum(C x) {
  for (int lane = 1; lane < 8; lane *= 2) x = max(x, __shfl_xor_sync(~0u, x, lane));
  return x;
}
template <class C>
__device__ C rowSum(C x) {
  for (int lane = 1; lane < 8; lane *= 2) x += __shfl_xor_sync(~0u, x, lane);
  return x;
}

template <class T>
__device__ void forward(const AttentionArguments& a) {
  beginDropout(a);
  using C = typename Shape<T>::C;
  constexpr int kCols = Shape<T>::kCols, kChunks = Shape<T>::kChunks;
  __shared__ alignas(16) Tile<C, kCols> xs, ys;
  __shared__ alignas(16) Tile<C, kT> weights;
  AttentionPlace at;
  if (!placeOf(a, false, a.heads, kT, at)) return;
  const Segment& s = at.segment;
  const int feature = at.chunk * Shape<T>::kFeatures;
  const int row = at.first + ownRow();
  C sums[kChunks][kCols / 8] = {};
  // starts at the lowest value, so that a row without visible keys ends with sum 0
  C maximum = kLowest<C>, total = 0;
  const KeyRange range = keyRange(a, s, at.first, kT, kT);
  for (int key = range.begin; key < range.end; key += kT) {
    const TileKind kind = tileKind(a, s, at.head, at.first, kT, key, kT);
    if (kind == TileKind::kHidden) continue;
    C scores[kT / 8];
    scoreTile<T, kCols>(scores, xs, ys, a, s, kind, at.head, at.first, key);
    C top = maximum;
#pragma unroll
    for (int i = 0; i < kT / 8; ++i) top = max(top, scores[i]);
    top = rowMaximum(top);
    const C factor = exp(maximum - top);
    maximum = top;
    C part = 0;
#pragma unroll
    for (int i = 0; i < kT / 8; ++i) {
      C p = exp(scores[i] - top);
      part += p;
      if (a.dropout) p *= keepFactor<C>(a, s, at.head, row, key + ownColumn(i));
      weights[ownRow()][ownColumn(i)] = p;
    }
    total = total * factor + rowSum(part);
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) {
#pragma unroll
      for (int j = 0; j < kCols / 8; ++j) sums[chunk][j] *= factor;
    }
    addRows<T, true>(sums, xs, weights, a.v, s.batch, at.head / (a.heads / a.kvHeads), s.firstKey, key, s.keys, feature,
                     a.valueDim);
  }
  if (row >= s.queries) return;
  const bool dead = total == 0;  // every key masked: output 0
  storeRow<T>(sums, dead ? C(0) : 1 / total, a.out, s.batch, at.head, s.firstQuery + row, feature, a.valueDim);
  if (threadIdx.x % 8 == 0 && feature == 0) storeTerms(a, rowOf(a, s, at.head, row), maximum, total);
}

// Probabilities with dropout, and dS = P * (dO V' - delta) * scale, of a tile: thread by thread into shared memory.
template <class T, class C, int kCols>
__device__ void gradientTile(Tile<C, kCols>& xs, Tile<C, kCols>& ys, Tile<C, kT>* weights, Tile<C, kT>& dscores,
                             const AttentionArguments& a, const Segment& s, TileKind kind, int head, int firstQuery,
                             int firstKey) {
  C scores[kT / 8], dweights[kT / 8] = {};
  scoreTile<T, kCols>(scores, xs, ys, a, s, kind, head, firstQuery, firstKey);
  dotTile<T, kCols>(dweights, xs, ys, a.g, a.v, s.batch, head, head / (a.heads / a.kvHeads), s.firstQuery, firstQuery,
                    s.queries, s.firstKey, firstKey, s.keys, a.valueDim);
  const int query = firstQuery + ownRow();
  RowTerms<C> terms{C(INFINITY), C(1)};
  C mean = 0;
  if (query < s.queries) {
    const long long at = rowOf(a, s, head, query);
    terms = {static_cast<const C*>(a.shift)[at], static_cast<const C*>(a.share)[at]};
    mean = static_cast<const C*>(a.delta)[at];
  }
#pragma unroll
  for (int i = 0; i < kT / 8; ++i) {
    const C p = exp(scores[i] - terms.shift) * terms.share;
    const C keep = a.dropout ? keepFactor<C>(a, s, head, query, firstKey + ownColumn(i)) : C(1);
    if (weights) (*weights)[ownRow()][ownColumn(i)] = p * keep;
    dscores[ownRow()][ownColumn(i)] = p * (dweights[i] * keep - mean);
  }
}

template <class T>
__device__ void queryGradient(const AttentionArguments& a) {
  beginDropout(a);
  using C = typename Shape<T>::C;
  constexpr int kCols = Shape<T>::kCols, kChunks = Shape<T>::kChunks;
  __shared__ alignas(16) Tile<C, kCols> xs, ys;
  __shared__ alignas(16) Tile<C, kT> dscores;
  AttentionPlace at;
  if (!placeOf(a, false, a.heads, kT, at)) return;
  const Segment& s = at.segment;
  const int feature = at.chunk * Shape<T>::kFeatures;
  C sums[kChunks][kCols / 8] = {};
  const KeyRange range = keyRange(a, s, at.first, kT, kT);
  for (int key = range.begin; key < range.end; key += kT) {
    const TileKind kind = tileKind(a, s, at.head, at.first, kT, key, kT);
    if (kind == TileKind::kHidden) continue;
    gradientTile<T, C, kCols>(xs, ys, nullptr, dscores, a, s, kind, at.head, at.first, key);
    addRows<T, true>(sums, xs, dscores, a.k, s.batch, at.head / (a.heads / a.kvHeads), s.firstKey, key, s.keys, feature,
                     a.dim);
  }
  const int row = at.first + ownRow();
  if (row >= s.queries) return;
  storeRow<T>(sums, static_cast<C>(a.scale), a.dq, s.batch, at.head, s.firstQuery + row, feature, a.dim);
}

template <class T>
__device__ void keyGradient(const AttentionArguments& a) {
  beginDropout(a);
  using C = typename Shape<T>::C;
  constexpr int kCols = Shape<T>::kCols, kChunks = Shape<T>::kChunks;
  __shared__ alignas(16) Tile<C, kCols> xs, ys;
  __shared__ alignas(16) Tile<C, kT> weights, dscores;
  AttentionPlace at;
  if (!placeOf(a, true, a.kvHeads, kT, at)) return;
  const Segment& s = at.segment;
  const int feature = at.chunk * Shape<T>::kFeatures;
  C dkeys[kChunks][kCols / 8] = {}, dvalues[kChunks][kCols / 8] = {};
  const int group = a.heads / a.kvHeads;
  for (int head = at.head * group; head < (at.head + 1) * group; ++head) {
    for (int query = 0; query < s.queries; query += kT) {
      if (at.first >= s.keys) continue;
      const TileKind kind = tileKind(a, s, head, query, kT, at.first, kT);
      if (kind == TileKind::kHidden) continue;
      gradientTile<T, C, kCols>(xs, ys, &weights, dscores, a, s, kind, head, query, at.first);
      addRows<T, false>(dvalues, xs, weights, a.g, s.batch, head, s.firstQuery, query, s.queries, feature, a.valueDim);
      addRows<T, false>(dkeys, xs, dscores, a.q, s.batch, head, s.firstQuery, query, s.queries, feature, a.dim);
    }
  }
  // keys of a batch entry beyond its length have gradients, too: zeros
  const int row = at.first + ownRow();
  if (row >= (a.sequences ? s.keys : a.keys)) return;
  storeRow<T>(dvalues, C(1), a.dv, s.batch, at.head, s.firstKey + row, feature, a.valueDim);
  storeRow<T>(dkeys, static_cast<C>(a.scale), a.dk, s.batch, at.head, s.firstKey + row, feature, a.dim);
}

template <class T>
__device__ void rowTerms(const AttentionArguments& a) {
  using C = typename ComputeOf<T>::Type;
  const long long row = static_cast<long long>(blockIdx.x) * (kAttentionThreads / 32) + threadIdx.x / 32;
  if (row >= static_cast<long long>(a.batch) * a.heads * a.queries) return;
  const int query = row % a.queries, head = row / a.queries % a.heads, batch = row / a.queries / a.heads;
  const T* out = static_cast<const T*>(a.out.data) + batch * a.out.batch + head * a.out.head + query * a.out.position;
  const T* g = static_cast<const T*>(a.g.data) + batch * a.g.batch + head * a.g.head + query * a.g.position;
  C sum = 0;
  for (int c = threadIdx.x % 32; c < a.valueDim; c += 32) {
    sum += static_cast<C>(widen(out[c * a.out.feature])) * static_cast<C>(widen(g[c * a.g.feature]));
  }
  for (int lane = 1; lane < 32; lane *= 2) sum += __shfl_xor_sync(~0u, sum, lane);
  if (threadIdx.x % 32 != 0) return;
  const RowTerms<C> terms = loadTerms<C>(a, row);
  static_cast<C*>(a.delta)[row] = terms.shift == C(INFINITY) ? C(0) : sum;
  static_cast<C*>(a.shift)[row] = terms.shift;
  static_cast<C*>(a.share)[row] = terms.share;
}

// Offsets of packed sequences: from 0, never down, to the number of tokens. `first` is the place of the first one.
__device__ void checkOffsets(const AttentionArguments& a, const void* data, int wide, long long stride, int tokens,
                             int first) {
  for (int i = threadIdx.x; i <= a.sequences; i += kAttentionThreads) {
    const long long at = lengthAt(data, wide, i * stride);
    const bool in = i == 0 ? at == 0 : at >= lengthAt(data, wide, (i - 1) * stride) && at <= tokens;
    if (!in)
      report(a.failure, kNotCumulative, first + i, at);
    else if (i == a.sequences && at != tokens)
      report(a.failure, kNotAddingUp, first + a.sequences + 1, at);
  }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256) gradus_attention_check(const AttentionArguments a) {
  if (a.sequences > 0) {
    checkOffsets(a, a.ofQueries, a.queriesWide, a.queriesStride, a.queries, 0);
    checkOffsets(a, a.ofKeys, a.keysWide, a.keysStride, a.keys, a.sequences + 2);
    return;
  }
  for (int i = threadIdx.x; i < a.batch; i += kAttentionThreads) {
    const long long keys = lengthAt(a.ofKeys, a.keysWide, i * a.keysStride);
    if (keys < 0 || keys > a.keys) report(a.failure, kLengthOutOfRange, i, keys);
  }
}

#define GRADUS_ATTENTION(kernel, function, dtype, T)                    \
  extern "C" __global__ void __launch_bounds__(256, 1)                  \
      gradus_attention_##kernel##_##dtype(const AttentionArguments a) { \
    function<T>(a);                                                     \
  }
#define GRADUS_DTYPES(kernel, function)               \
  GRADUS_ATTENTION(kernel, function, float32, float)  \
  GRADUS_ATTENTION(kernel, function, float64, double) \
  GRADUS_ATTENTION(kernel, function, float16, __half) \
  GRADUS_ATTENTION(kernel, function, bfloat16, __nv_bfloat16)
GRADUS_DTYPES(forward, forward)
GRADUS_DTYPES(query_gradient, queryGradient)
GRADUS_DTYPES(key_gradient, keyGradient)
GRADUS_DTYPES(row_terms, rowTerms)

}  // namespace gradus::cuda
