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
template <class T>
struct ForwardScratch {
  T *keys, *values, *queryRows, *queries, *scores, *out, *keep, *maximum, *sum, *rescale;
  size_t bytes;

  ForwardScratch(const Attention& a, const AttentionPlan& plan, char* base) {
    Carver carve(base);
    // One block of queries meets each key once: its keys are packed block by block into the same, cached place.
    const int64_t packed = plan.rangeSize > kAttentionBlock ? roundUp(a.keys, kAttentionBlock) : kAttentionBlock;
    keys = carve.take<T>(packed * a.dimPad);
    values = carve.take<T>(packed * a.valuePad);
    queryRows = carve.take<T>(kAttentionBlock * a.dimPad);
    queries = carve.take<T>(kAttentionBlock * a.dimPad);
    scores = carve.take<T>(kAttentionBlock * kAttentionBlock);
    out = carve.take<T>(kAttentionBlock * a.valuePad);
    keep = a.dropout > 0 ? carve.take<T>(kAttentionBlock * kAttentionBlock) : nullptr;
    maximum = carve.take<T>(kAttentionBlock);
    sum = carve.take<T>(kAttentionBlock);
    rescale = carve.take<T>(kAttentionBlock);
    bytes = carve.used();
  }
};

template <class E>
void forwardTask(const Attention& a, const AttentionPlan& plan, int64_t task, char* memory) {
  using T = Compute<E>;
  const ForwardScratch<T> s(a, plan, memory);
  const int lanes = static_cast<int>(hn::Lanes(hn::ScalableTag<T>()));
  const int64_t headIndex = task % (a.batch * a.heads);
  const int64_t range = plan.ranges - 1 - task / (a.batch * a.heads);  // with causality the last ranges are the longest
  const int64_t b = headIndex / a.heads, h = headIndex % a.heads, kvHead = h / (a.heads / a.kvHeads);
  const Matrix<E> q(*a.q, b, h), k(*a.k, b, kvHead), v(*a.v, b, kvHead), out(*a.out, b, h);
  T* logsumexp = a.logsumexp->as<T>() + headIndex * a.queries;
  const int dim = static_cast<int>(a.dim), valuePad = static_cast<int>(a.valuePad);
  const bool reuse = plan.rangeSize > kAttentionBlock;
  int64_t packedKeys = 0;

  const int64_t end = std::min(a.queries, (range + 1) * plan.rangeSize);
  for (int64_t i0 = range * plan.rangeSize; i0 < end; i0 += kAttentionBlock) {
    const int rows = static_cast<int>(std::min<int64_t>(kAttentionBlock, end - i0));
    const int columns = static_cast<int>(roundUp(rows, lanes));
    packQueries(q, i0, rows, a.dim, static_cast<T>(a.scale), s.queryRows, a.dimPad, s.queries);
    std::fill(s.out, s.out + kAttentionBlock * a.valuePad, T(0));
    std::fill(s.maximum, s.maximum + kAttentionBlock, std::numeric_limits<T>::lowest());
    std::fill(s.sum, s.sum + kAttentionBlock, T(0));

    for (int64_t j0 = 0, visible = a.visibleKeys(i0); j0 < visible; j0 += kAttentionBlock) {
      const TileAt tile = tileAt(a, b, h, i0, j0);
      T* keys = s.keys + (reuse ? j0 * a.dimPad : 0);
      T* values = s.values + (reuse ? j0 * a.valuePad : 0);
      if (j0 >= packedKeys || !reuse) {
        const int64_t count = std::min<int64_t>(kAttentionBlock, a.keys - j0);
        packRows(k, j0, count, a.dim, T(1), keys, a.dimPad);
        packRows(v, j0, count, a.valueDim, T(1), values, a.valuePad);
        packedKeys = j0 + count;
      }
      product<false, Store::kSet>(
          static_cast<int>(roundUp(tile.keys, kTileRows)), columns, keys, a.dimPad, s.queries, kAttentionBlock,
          s.scores, kAttentionBlock, [&](int r) { return Span{0, dim, r - tile.diagonal}; });
      if (a.mask) addMask(a, tile, s.scores);
      onlineSoftmax(tile, columns, s.scores, s.maximum, s.sum, s.rescale);
      if (s.keep) {
        dropoutTile(a, tile, s.keep);
        multiplyTile(tile.keys, columns, s.keep, s.scores);
      }
      product<true, Store::kScaleAdd>(
          static_cast<int>(roundUp(rows, kTileRows)), valuePad, s.scores, kAttentionBlock, values, a.valuePad, s.out,
          a.valuePad,
          [&](int c) { return Span{0, std::min(tile.keys, c + kTileRows + tile.diagonal), 0}; }, s.rescale);
    }
    for (int r = 0; r < rows; ++r) {
      const bool dead = s.sum[r] == 0;  // every key masked: output 0
      storeRow(s.out + r * a.valuePad, a.valueDim, dead ? T(0) : 1 / s.sum[r], out.row(i0 + r), out.columnStride);
      logsumexp[i0 + r] = dead ? -std::numeric_limits<T>::infinity() : s.maximum[r] + std::log(s.sum[r]);
    }
  }
}

}  // namespace gradus::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
