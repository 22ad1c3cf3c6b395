// Flash attention, forward (Dao et al. 2022, arXiv:2205.14135; Rabe & Staats 2021, arXiv:2112.05682): each block of
// queries walks over the keys once with an online softmax, so memory is O(T) and scores never leave the cache.
#if defined(GRADUS_ATTENTION_FORWARD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GRADUS_ATTENTION_FORWARD_INL_H_
#undef GRADUS_ATTENTION_FORWARD_INL_H_
#else
#define GRADUS_ATTENTION_FORWARD_INL_H_
#endif

#include "attention_softmax-inl.h"

HWY_BEFORE_NAMESPACE();
namespace gradus::cpu::HWY_NAMESPACE {

// A thread's buffers; built on a null base it only measures itself.
template <bool kPairs, class T>
struct ForwardScratch {
  T *keys, *values, *queryRows, *queries, *scores, *weights, *out, *keep, *maximum, *sum, *rescale;
  uint8_t* packed;  // which blocks of keys are
  size_t bytes;

  ForwardScratch(const Attention& a, const AttentionPlan& plan, char* base) {
    Carver carve(base);
    // One block of queries meets each key once: its keys are packed block by block into the same, cached place.
    const int64_t blocks = plan.rangeSize > kAttentionBlock ? ceilDiv(a.longestKeys, kAttentionBlock) : 1;
    keys = carve.take<T>(blocks * inFloats<kPairs>(kAttentionBlock * a.dimPad));
    values = carve.take<T>(blocks * inFloats<kPairs>(kAttentionBlock * a.valuePad));
    queryRows = carve.take<T>(inFloats<kPairs>(kAttentionBlock * a.dimPad));
    queries = carve.take<T>(inFloats<kPairs>(kAttentionBlock * a.dimPad));
    scores = carve.take<T>(kAttentionBlock * kStrip<kPairs>);
    weights = kPairs ? carve.take<T>(inFloats<kPairs>(kAttentionBlock * kAttentionBlock)) : scores;
    out = carve.take<T>(kAttentionBlock * a.valuePad);
    keep = a.dropout > 0 ? carve.take<T>(kAttentionBlock * kAttentionBlock) : nullptr;
    maximum = carve.take<T>(kAttentionBlock);
    sum = carve.take<T>(kAttentionBlock);
    rescale = carve.take<T>(kAttentionBlock);
    packed = carve.take<uint8_t>(blocks);
    bytes = carve.used();
  }
};

// Scores of a strip, scaled: pairs of bfloat16 are multiplied as they are, floats were scaled as they were packed.
template <bool kPairs, class T>
HWY_INLINE void scoreStrip(const Attention& a, const TileAt& tile, Columns strip, const T* keys, const T* queries,
                           T* scores) {
  const T scale = static_cast<T>(a.scale);
  product<kPairs, false, kPairs ? Store::kScale : Store::kSet>(
      static_cast<int>(roundUp(tile.keys, kTileRows)), strip.begin, strip.end, keys, inFloats<kPairs>(a.dimPad),
      queries + strip.begin, kAttentionBlock, scores, kStrip<kPairs>, ScoreSpan{static_cast<int>(a.dim), tile}, &scale);
  if (a.mask) addMask<kStrip<kPairs>>(a, tile, strip, scores);
  if (tile.mixed) hideBlocks<kStrip<kPairs>>(a, tile, strip, scores);
}

template <bool kPairs, class E>
void forwardTask(const Attention& a, const AttentionPlan& plan, int64_t task, char* memory) {
  using T = Compute<E>;
  const ForwardScratch<kPairs, T> s(a, plan, memory);
  const int lanes = static_cast<int>(hn::Lanes(hn::ScalableTag<T>()));
  const int64_t heads = a.heads * static_cast<int64_t>(a.segments.size());
  const Segment& segment = a.segments[task % heads / a.heads];
  const int64_t b = segment.batch, h = task % a.heads, kvHead = h / (a.heads / a.kvHeads);
  const int64_t range = plan.ranges - 1 - task / heads;  // with causality the last ranges are the longest
  const Matrix<E> q(*a.q, b, h), k(*a.k, b, kvHead), v(*a.v, b, kvHead), out(*a.out, b, h);
  const SoftmaxTerms<T> terms(a, b, h, segment.firstQuery);
  const int valuePad = static_cast<int>(a.valuePad);
  const bool reuse = plan.rangeSize > kAttentionBlock;
  std::memset(s.packed, 0, reuse ? ceilDiv(segment.keys, kAttentionBlock) : 0);

  const int64_t end = std::min(segment.queries, (range + 1) * plan.rangeSize);
  Ahead ahead;
  for (int64_t i0 = range * plan.rangeSize; i0 < end; i0 += kAttentionBlock) {
    const int rows = static_cast<int>(std::min<int64_t>(kAttentionBlock, end - i0));
    const int columns = static_cast<int>(roundUp(rows, lanes));
    packTransposed<kPairs>(q, segment.firstQuery + i0, rows, a.dim, static_cast<T>(a.scale), s.queryRows, a.dimPad,
                           s.queries);
    std::fill(s.out, s.out + kAttentionBlock * a.valuePad, T(0));
    std::fill(s.maximum, s.maximum + kAttentionBlock, std::numeric_limits<T>::lowest());
    std::fill(s.sum, s.sum + kAttentionBlock, T(0));

    const TileWalk walk(a, segment, h, i0);
    TileAt tile, next;
    bool more = walk.find(0, segment.keys, next);
    ahead.add(q, segment.firstQuery + i0 + kAttentionBlock, std::min<int64_t>(kAttentionBlock, end - i0 - rows), a.dim);
    while (more) {
      tile = next;
      more = walk.find(tile.firstKey + kAttentionBlock, segment.keys, next);
      const auto isNew = [&](int64_t j0) { return !reuse || !s.packed[j0 / kAttentionBlock]; };
      const auto keysAt = [&](int64_t j0) { return std::min<int64_t>(kAttentionBlock, segment.keys - j0); };
      const int64_t j0 = tile.firstKey, key = segment.firstKey + j0, count = keysAt(j0);
      T* keySpace = s.keys + (reuse ? inFloats<kPairs>(j0 * a.dimPad) : 0);
      T* valueSpace = s.values + (reuse ? inFloats<kPairs>(j0 * a.valuePad) : 0);
      const T* keys = leftAlready<kPairs, T>(k, key, count, a.dim, a.dimPad);
      const T* values = rightAlready<kPairs, T>(v, key, count, a.valueDim, a.valuePad);
      if (isNew(j0)) {
        if (!keys) packLeft<kPairs>(k, key, count, a.dim, keySpace, a.dimPad);
        if (!values) packRight<kPairs>(v, key, count, a.valueDim, valueSpace, a.valuePad);
        if (reuse) s.packed[j0 / kAttentionBlock] = 1;
      }
      if (!keys) keys = keySpace;
      if (!values) values = valueSpace;
      if (more && isNew(next.firstKey)) {
        ahead.add(k, segment.firstKey + next.firstKey, keysAt(next.firstKey), a.dim);
        ahead.add(v, segment.firstKey + next.firstKey, keysAt(next.firstKey), a.valueDim);
      }
      if (s.keep) dropoutTile(a, tile, s.keep);
      for (int c = 0; c < columns; c += kStrip<kPairs>) {
        const Columns strip{c, std::min(c + kStrip<kPairs>, columns)};
        scoreStrip<kPairs>(a, tile, strip, keys, s.queries, s.scores);
        ahead.some();
        onlineSoftmax<kPairs>(tile, strip, s.scores, Weights<T>{s.weights, nullptr}, s.keep, s.maximum, s.sum,
                              s.rescale);
        ahead.some();
      }
      product<kPairs, true, Store::kScaleAdd>(static_cast<int>(roundUp(rows, kTileRows)), 0, valuePad, s.weights,
                                              kAttentionBlock, values, valuePad, s.out, valuePad, KeySpan{tile},
                                              s.rescale);
      ahead.some();
    }
    for (int r = 0; r < rows; ++r) {
      const bool dead = s.sum[r] == 0;  // every key masked: output 0
      storeRow(s.out + r * a.valuePad, a.valueDim, dead ? T(0) : 1 / s.sum[r], out.row(segment.firstQuery + i0 + r),
               out.columnStride);
      terms.store(i0 + r, dead ? -std::numeric_limits<T>::infinity() : s.maximum[r], s.sum[r]);
    }
  }
}

}  // namespace gradus::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
