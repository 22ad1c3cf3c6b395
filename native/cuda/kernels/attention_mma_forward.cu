// Flash attention on tensor cores, forward (Dao 2023, arXiv:2307.08691). A block has 64 or 128 queries of a head in
// shared memory and walks over the tiles of keys that they see, two stages of K and V at a time: the next tile is on
// its way while the present one is multiplied. The softmax is an online one; sums of a row are put together at the end.
//
//   gradus_attention_mma_forward_<32|64|128|256>_<float16|bfloat16>(AttentionArguments)
//   the number is that of features the head is padded to; a block of 128 threads a head, tile of queries (the last one
//   first; 128, or 64 with more than 64 features) and batch entry, heads first; shared memory as
//   attentionForwardBytes() says
#include "attention_mma.cuh"

namespace gradus::cuda {
namespace {

template <class T, int kDim>
__device__ void forward(const AttentionArguments& a) {
  using Rows = HeadRows<T, kDim>;
  using Tiles = AttentionForwardTiles<kDim>;
  constexpr int kQueries = Tiles::kQueries, kKeys = Tiles::kKeys, kAtoms = kQueries / 64;
  T* const queries = reinterpret_cast<T*>(dynamicShared);
  T* const stages = queries + kQueries * kDim;
  const AttentionPlace* const place = sharedPlaceOf(a, false, a.heads, kQueries);
  if (place == nullptr) return;
  const AttentionPlace& at = *place;
  const Segment& s = at.segment;
  const int kvHead = at.head / (a.heads / a.kvHeads);
  const T *q = headOf<T>(a.q, s.batch, at.head, s.firstQuery), *k = headOf<T>(a.k, s.batch, kvHead, s.firstKey),
          *v = headOf<T>(a.v, s.batch, kvHead, s.firstKey);
  const int lane = threadIdx.x % 32, warpRow = threadIdx.x / 32 * 16 * kAtoms;
  const float scale = static_cast<float>(a.scale);
  float out[kAtoms][kDim / 8][4] = {}, maximum[kAtoms][2], total[kAtoms][2] = {};
#pragma unroll
  for (int i = 0; i < kAtoms; ++i) maximum[i][0] = maximum[i][1] = kLowest<float>;

  const KeyRange range = keyRange(a, s, at.first, kQueries, kKeys);
  const auto fetch = [&](int stage, int key) {
    T* tile = stages + stage * 2 * kKeys * kDim;
    Rows::template fetch<kKeys>(tile, a.k, k, key, s.keys, a.dim);
    Rows::template fetch<kKeys>(tile + kKeys * kDim, a.v, v, key, s.keys, a.valueDim);
  };
  TileKind kind, nextKind;
  const auto find = [&](int key) {
    for (; key < range.end; key += kKeys) {
      nextKind = tileKind(a, s, at.head, at.first, kQueries, key, kKeys);
      if (nextKind != TileKind::kHidden) break;
    }
    return key;
  };
  Rows::template fetch<kQueries>(queries, a.q, q, at.first, s.queries, a.dim);
  int key = find(range.begin);
  if (key < range.end) fetch(0, key);
  commitCopies();
  for (int stage = 0; key < range.end; stage ^= 1) {
    kind = nextKind;
    const int next = find(key + kKeys);
    waitForCopies<0>();
    __syncthreads();  // the tile is there, and the stage that the next copies overwrite was read by all
    if (next < range.end) fetch(stage ^ 1, next);
    commitCopies();
    const T *keys = stages + stage * 2 * kKeys * kDim, *values = keys + kKeys * kDim;
    float scores[kAtoms][kKeys / 8][4] = {};
    Rows::template dots<kAtoms, kKeys>(scores, queries, warpRow, keys, a.dim);
    ScoreTile<true, kAtoms, kKeys>{a, s, at.head, at.first + warpRow + lane / 4, key + lane % 4 * 2}.finish(
        scores, kind, scale);
#pragma unroll
    for (int i = 0; i < kAtoms; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float top = maximum[i][half];
#pragma unroll
        for (int j = 0; j < kKeys / 8; ++j) {
          top = fmaxf(top, fmaxf(scores[i][j][half * 2], scores[i][j][half * 2 + 1]));
        }
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
        const float factor = probability(maximum[i][half] - top);
        maximum[i][half] = top;
        float sum = 0;
#pragma unroll
        for (int j = 0; j < kKeys / 8; ++j) {
          float* pair = scores[i][j] + half * 2;
          pair[0] = probability(pair[0] - top);
          pair[1] = probability(pair[1] - top);
          sum += pair[0] + pair[1];
        }
        total[i][half] = total[i][half] * factor + sum;
        if (!__any_sync(~0u, factor != 1)) continue;  // most maxima are found early
#pragma unroll
        for (int j = 0; j < kDim / 8; ++j) {
          out[i][j][half * 2] *= factor;
          out[i][j][half * 2 + 1] *= factor;
        }
      }
    }
    if (a.dropout) {
#pragma unroll
      for (int i = 0; i < kAtoms; ++i) {
        drop<kKeys>(scores[i],
                    droppedOf<false, kKeys>(a, s, at.head, at.first + warpRow + i * 16 + lane / 4, key + lane % 4 * 2));
      }
    }
    Rows::template addRows<kAtoms, kKeys>(out, scores, values, a.valueDim);
    key = next;
  }
  waitForCopies<0>();
  __syncthreads();
  float factors[kAtoms][2];
#pragma unroll
  for (int i = 0; i < kAtoms; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float& sum = total[i][half];
      sum += __shfl_xor_sync(~0u, sum, 1);
      sum += __shfl_xor_sync(~0u, sum, 2);
      factors[i][half] = sum == 0 ? 0 : (a.dropout ? static_cast<float>(a.keep) : 1.0f) / sum;  // 0: all keys masked
      const int query = at.first + warpRow + i * 16 + half * 8 + lane / 4;
      if (lane % 4 == 0 && query < s.queries) storeTerms(a, rowOf(a, s, at.head, query), maximum[i][half], sum);
    }
  }
  Rows::template store<kAtoms>(queries + warpRow * kDim, out, factors, a.out,
                               headOf<T>(a.out, s.batch, at.head, s.firstQuery), at.first + warpRow, s.queries,
                               a.valueDim);
}

}  // namespace

#define GRADUS_FORWARD(dim, dtype, T)                                            \
  extern "C" __global__ void __launch_bounds__(kHeadThreads, 2)                  \
      gradus_attention_mma_forward_##dim##_##dtype(const AttentionArguments a) { \
    beginDropout(a);                                                             \
    forward<T, dim>(a);                                                          \
  }
#define GRADUS_DIMS(dtype, T)   \
  GRADUS_FORWARD(32, dtype, T)  \
  GRADUS_FORWARD(64, dtype, T)  \
  GRADUS_FORWARD(128, dtype, T) \
  GRADUS_FORWARD(256, dtype, T)
GRADUS_DIMS(float16, __half)
GRADUS_DIMS(bfloat16, __nv_bfloat16)

}  // namespace gradus::cuda
