// Flash attention on tensor cores, backward (Dao 2023, arXiv:2307.08691). Probabilities are made again from what
// forward saved of every row, once for dQ, where a block owns queries, and once for dK and dV, where it owns keys:
//   dV = P' dO,   dS = P * (dO V' - delta),   dK = dS' Q * scale,   dQ = dS K * scale,   delta = rowsum(dO * O).
// That is 7 products instead of the 5 of one pass, but every sum belongs to one block and has a fixed order, without
// atomics. Where a block owns keys, scores are made transposed, so that they are left operands as they are.
//
//   gradus_attention_mma_query_gradient_<32|64|128|256>_<float16|bfloat16>(AttentionArguments)
//   gradus_attention_mma_key_gradient_<32|64|128|256>_<float16|bfloat16>(AttentionArguments)
//   the number is that of features the head is padded to; a block of 128 threads a head (key_gradient: of K), tile of
//   64 queries or keys and batch entry, heads first; with 256 features two blocks a tile of keys, one for dV and one
//   for dK, because sums of both do not fit the registers; shared memory as attentionQueryGradientBytes() and
//   attentionKeyGradientBytes() say
#include "attention_mma.cuh"

namespace gradus::cuda {
namespace {

constexpr int kOwn = kAttentionBackwardRows, kOwnOfWarp = 16;

template <class T, int kDim>
__device__ void queryGradient(const AttentionArguments& a) {
  using Rows = HeadRows<T, kDim>;
  constexpr int kKeys = AttentionBackwardTiles<kDim>::kKeys;
  T *const queries = reinterpret_cast<T*>(dynamicShared), *const grads = queries + kOwn * kDim;
  T* const stages = grads + kOwn * kDim;
  AttentionPlace at;
  if (!placeOf(a, false, a.heads, kOwn, at)) return;
  const Segment& s = at.segment;
  const int kvHead = at.head / (a.heads / a.kvHeads);
  const T *k = headOf<T>(a.k, s.batch, kvHead, s.firstKey), *v = headOf<T>(a.v, s.batch, kvHead, s.firstKey);
  const int lane = threadIdx.x % 32, warpRow = threadIdx.x / 32 * kOwnOfWarp;
  const float scale = static_cast<float>(a.scale), keep = a.dropout ? static_cast<float>(a.keep) : 1.0f;
  float shift[2], share[2], delta[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int query = at.first + warpRow + half * 8 + lane / 4;
    const bool inside = query < s.queries;
    const long long row = inside ? rowOf(a, s, at.head, query) : 0;
    shift[half] = inside ? static_cast<const float*>(a.shift)[row] : INFINITY;
    share[half] = inside ? static_cast<const float*>(a.share)[row] : 0;
    delta[half] = inside ? static_cast<const float*>(a.delta)[row] : 0;
  }

  const KeyRange range = keyRange(a, s, at.first, kOwn, kKeys);
  const auto fetch = [&](int stage, int key) {
    T* tile = stages + stage * 2 * kKeys * kDim;
    Rows::template fetch<kKeys>(tile, a.k, k, key, s.keys, a.dim);
    Rows::template fetch<kKeys>(tile + kKeys * kDim, a.v, v, key, s.keys, a.valueDim);
  };
  TileKind kind, nextKind;
  const auto find = [&](int key) {
    for (; key < range.end; key += kKeys) {
      nextKind = tileKind(a, s, at.head, at.first, kOwn, key, kKeys);
      if (nextKind != TileKind::kHidden) break;
    }
    return key;
  };
  Rows::template fetch<kOwn>(queries, a.q, headOf<T>(a.q, s.batch, at.head, s.firstQuery), at.first, s.queries, a.dim);
  Rows::template fetch<kOwn>(grads, a.g, headOf<T>(a.g, s.batch, at.head, s.firstQuery), at.first, s.queries,
                             a.valueDim);
  int key = find(range.begin);
  if (key < range.end) fetch(0, key);
  commitCopies();
  float sums[1][kDim / 8][4] = {};
  for (int stage = 0; key < range.end; stage ^= 1) {
    kind = nextKind;
    const int next = find(key + kKeys);
    waitForCopies<0>();
    __syncthreads();  // the tile is there, and the stage that the next copies overwrite was read by all
    if (next < range.end) fetch(stage ^ 1, next);
    commitCopies();
    const T *keys = stages + stage * 2 * kKeys * kDim, *values = keys + kKeys * kDim;
    float scores[1][kKeys / 8][4] = {}, dweights[1][kKeys / 8][4] = {};
    Rows::template dots<1, kKeys>(scores, queries, warpRow, keys, a.dim);
    Rows::template dots<1, kKeys>(dweights, grads, warpRow, values, a.valueDim);
    if (a.dropout) {
      drop<kKeys>(dweights[0],
                  droppedOf<false, kKeys>(a, s, at.head, at.first + warpRow + lane / 4, key + lane % 4 * 2));
    }
    ScoreTile<true, 1, kKeys>{a, s, at.head, at.first + warpRow + lane / 4, key + lane % 4 * 2}.finish(scores, kind,
                                                                                                       scale);
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float *pair = scores[0][j] + half * 2, *dpair = dweights[0][j] + half * 2;
#pragma unroll
        for (int side = 0; side < 2; ++side) {
          const float p = probability(pair[side] - shift[half]) * share[half];
          pair[side] = p * (dpair[side] * keep - delta[half]);
        }
      }
    }
    Rows::template addRows<1, kKeys>(sums, scores, keys, a.dim);
    key = next;
  }
  waitForCopies<0>();
  __syncthreads();
  const float factors[1][2] = {{scale, scale}};
  Rows::template store<1>(queries + warpRow * kDim, sums, factors, a.dq,
                          headOf<T>(a.dq, s.batch, at.head, s.firstQuery), at.first + warpRow, s.queries, a.dim);
}

// The tiles of queries that see a tile of keys, of all heads that share it.
struct QueryWalk {
  int head, query;
  TileKind kind;
};

template <class T, int kDim, bool kForValues, bool kForKeys>
__device__ void keyGradient(const AttentionArguments& a, const AttentionPlace& at) {
  using Rows = HeadRows<T, kDim>;
  constexpr int kQueries = AttentionBackwardTiles<kDim>::kQueries;
  T *const keys = reinterpret_cast<T*>(dynamicShared), *const values = keys + kOwn * kDim;
  T* const stages = values + kOwn * kDim;
  float* const terms = reinterpret_cast<float*>(stages + 4 * kQueries * kDim);  // of each stage: shift, share, delta
  const Segment& s = at.segment;
  const int lane = threadIdx.x % 32, warpRow = threadIdx.x / 32 * kOwnOfWarp;
  const float scale = static_cast<float>(a.scale), keep = a.dropout ? static_cast<float>(a.keep) : 1.0f;
  const int group = a.heads / a.kvHeads, headEnd = (at.head + 1) * group;

  const auto bounded = [&](long long query) {
    return static_cast<int>(min(max(query, 0LL), static_cast<long long>(s.queries)));
  };
  const int begin = bounded(at.first - a.right - s.shift) / kQueries * kQueries;
  const int end = at.first < s.keys ? bounded(at.first + kOwn + a.left - s.shift) : 0;
  const auto find = [&](QueryWalk& walk) {
    for (; walk.head < headEnd; ++walk.head, walk.query = begin) {
      for (; walk.query < end; walk.query += kQueries) {
        walk.kind = tileKind(a, s, walk.head, walk.query, kQueries, at.first, kOwn);
        if (walk.kind != TileKind::kHidden) return;
      }
    }
  };
  const auto fetch = [&](int stage, const QueryWalk& walk) {
    T* tile = stages + stage * 2 * kQueries * kDim;
    Rows::template fetch<kQueries>(tile, a.q, headOf<T>(a.q, s.batch, walk.head, s.firstQuery), walk.query, s.queries,
                                   a.dim);
    Rows::template fetch<kQueries>(tile + kQueries * kDim, a.g, headOf<T>(a.g, s.batch, walk.head, s.firstQuery),
                                   walk.query, s.queries, a.valueDim);
    if (threadIdx.x < kQueries) {
      const int query = walk.query + threadIdx.x;
      const bool inside = query < s.queries;
      const long long row = inside ? rowOf(a, s, walk.head, query) : 0;
      float* to = terms + stage * 3 * kQueries + threadIdx.x;
      copyWordAsync(to, static_cast<const float*>(a.shift) + row, inside);
      copyWordAsync(to + kQueries, static_cast<const float*>(a.share) + row, inside);
      copyWordAsync(to + 2 * kQueries, static_cast<const float*>(a.delta) + row, inside);
    }
  };
  Rows::template fetch<kOwn>(keys, a.k, headOf<T>(a.k, s.batch, at.head, s.firstKey), at.first, s.keys, a.dim);
  if (kForKeys) {
    Rows::template fetch<kOwn>(values, a.v, headOf<T>(a.v, s.batch, at.head, s.firstKey), at.first, s.keys, a.valueDim);
  }
  QueryWalk walk{at.head * group, begin, TileKind::kHidden};
  find(walk);
  if (walk.head < headEnd) fetch(0, walk);
  commitCopies();
  float dvalues[1][kForValues ? kDim / 8 : 1][4] = {}, dkeys[1][kForKeys ? kDim / 8 : 1][4] = {};
  for (int stage = 0; walk.head < headEnd; stage ^= 1) {
    QueryWalk next{walk.head, walk.query + kQueries, TileKind::kHidden};
    find(next);
    waitForCopies<0>();
    __syncthreads();  // the tile is there, and the stage that the next copies overwrite was read by all
    if (next.head < headEnd) fetch(stage ^ 1, next);
    commitCopies();
    const T *queries = stages + stage * 2 * kQueries * kDim, *grads = queries + kQueries * kDim;
    const float* rows = terms + stage * 3 * kQueries;
    float scores[1][kQueries / 8][4] = {}, dweights[1][kForKeys ? kQueries / 8 : 1][4] = {};
    Rows::template dots<1, kQueries>(scores, keys, warpRow, queries, a.dim);
    if constexpr (kForKeys) Rows::template dots<1, kQueries>(dweights, values, warpRow, grads, a.valueDim);
    unsigned dropped = 0;
    if (a.dropout) {
      dropped = droppedOf<true, kQueries>(a, s, walk.head, at.first + warpRow + lane / 4, walk.query + lane % 4 * 2);
    }
    ScoreTile<false, 1, kQueries>{a, s, walk.head, at.first + warpRow + lane / 4, walk.query + lane % 4 * 2}.finish(
        scores, walk.kind, scale);
#pragma unroll
    for (int j = 0; j < kQueries / 8; ++j) {
#pragma unroll
      for (int side = 0; side < 2; ++side) {
        const int column = j * 8 + lane % 4 * 2 + side;
        const float shift = rows[column], share = rows[kQueries + column], delta = rows[2 * kQueries + column];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int i = half * 2 + side;
          const float p = probability(scores[0][j][i] - shift) * share;
          const float kept = dropped >> (j * 4 + i) & 1 ? 0 : keep;
          scores[0][j][i] = p * kept;
          if constexpr (kForKeys) dweights[0][j][i] = p * (dweights[0][j][i] * kept - delta);
        }
      }
    }
    if constexpr (kForValues) Rows::template addRows<1, kQueries>(dvalues, scores, grads, a.valueDim);
    if constexpr (kForKeys) Rows::template addRows<1, kQueries>(dkeys, dweights, queries, a.dim);
    walk = next;
  }
  waitForCopies<0>();
  __syncthreads();
  // keys of a batch entry beyond its length have gradients, too: zeros
  const int last = a.sequences ? s.keys : a.keys, first = at.first + warpRow;
  T* const own = keys + warpRow * kDim;
  if constexpr (kForValues) {
    const float factors[1][2] = {{1, 1}};
    Rows::template store<1>(own, dvalues, factors, a.dv, headOf<T>(a.dv, s.batch, at.head, s.firstKey), first, last,
                            a.valueDim);
  }
  if constexpr (kForKeys) {
    const float factors[1][2] = {{scale, scale}};
    Rows::template store<1>(own, dkeys, factors, a.dk, headOf<T>(a.dk, s.batch, at.head, s.firstKey), first, last,
                            a.dim);
  }
}

template <class T, int kDim>
__device__ void keyGradient(const AttentionArguments& a) {
  AttentionPlace at;
  if (!placeOf(a, true, a.kvHeads, kOwn, at)) return;
  if constexpr (kDim <= 128) {
    keyGradient<T, kDim, true, true>(a, at);
  } else if (at.chunk == 0) {
    keyGradient<T, kDim, true, false>(a, at);
  } else {
    keyGradient<T, kDim, false, true>(a, at);
  }
}

}  // namespace

#define GRADUS_BACKWARD(kernel, function, dim, dtype, T)                            \
  extern "C" __global__ void __launch_bounds__(kHeadThreads, 2)                     \
      gradus_attention_mma_##kernel##_##dim##_##dtype(const AttentionArguments a) { \
    beginDropout(a);                                                                \
    function<T, dim>(a);                                                            \
  }
#define GRADUS_DTYPES(kernel, function, dim)              \
  GRADUS_BACKWARD(kernel, function, dim, float16, __half) \
  GRADUS_BACKWARD(kernel, function, dim, bfloat16, __nv_bfloat16)
#define GRADUS_DIMS(kernel, function)  \
  GRADUS_DTYPES(kernel, function, 32)  \
  GRADUS_DTYPES(kernel, function, 64)  \
  GRADUS_DTYPES(kernel, function, 128) \
  GRADUS_DTYPES(kernel, function, 256)
GRADUS_DIMS(query_gradient, queryGradient)
GRADUS_DIMS(key_gradient, keyGradient)

}  // namespace gradus::cuda
