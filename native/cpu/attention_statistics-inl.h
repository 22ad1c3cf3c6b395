// The probabilities of attention, made again tile by tile from the saved terms of the softmax: written out where they
// are wanted, which takes O(T^2) memory, or summed up in O(T) to the entropy of every query's distribution and to what
// every key receives from all queries.
#if defined(GRADUS_ATTENTION_STATISTICS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GRADUS_ATTENTION_STATISTICS_INL_H_
#undef GRADUS_ATTENTION_STATISTICS_INL_H_
#else
#define GRADUS_ATTENTION_STATISTICS_INL_H_
#endif

#include "attention_backward-inl.h"

HWY_BEFORE_NAMESPACE();
namespace gradus::cpu::HWY_NAMESPACE {

template <bool kPairs, class T>
struct StatisticsScratch {
  T *keys, *queryRows, *queries, *scores, *shift, *rowScale, *entropy;
  size_t bytes;

  StatisticsScratch(const Attention& a, char* base) {
    Carver carve(base);
    keys = carve.take<T>(inFloats<kPairs>(roundUp(a.longestKeys, kAttentionBlock) * a.dimPad));
    queryRows = carve.take<T>(inFloats<kPairs>(kAttentionBlock * a.dimPad));
    queries = carve.take<T>(inFloats<kPairs>(kAttentionBlock * a.dimPad));
    scores = carve.take<T>(kAttentionBlock * kStrip<kPairs>);
    shift = carve.take<T>(kAttentionBlock);
    rowScale = carve.take<T>(kAttentionBlock);
    entropy = carve.take<T>(kAttentionBlock);
    bytes = carve.used();
  }
};

// Calls use(tile, strip) with the scores of every visible strip of a block of queries in s.scores.
template <bool kPairs, class E, class T, class Use>
void visitScores(const Attention& a, const StatisticsScratch<kPairs, T>& s, const Segment& segment, int64_t h,
                 int64_t i0, const Use& use) {
  const int lanes = static_cast<int>(hn::Lanes(hn::ScalableTag<T>()));
  const Matrix<E> q(*a.q, segment.batch, h);
  const SoftmaxTerms<T> terms(a, segment.batch, h, segment.firstQuery + i0);
  const int rows = static_cast<int>(std::min<int64_t>(kAttentionBlock, segment.queries - i0));
  const int columns = static_cast<int>(roundUp(rows, lanes));
  packTransposed<kPairs>(q, segment.firstQuery + i0, rows, a.dim, static_cast<T>(a.scale), s.queryRows, a.dimPad,
                         s.queries);
  for (int r = 0; r < kAttentionBlock; ++r) {
    s.shift[r] = std::numeric_limits<T>::infinity();  // that of a padded row
    s.rowScale[r] = 1;
    if (r < rows) terms.load(r, s.shift[r], s.rowScale[r]);
  }
  const TileWalk walk(a, segment, h, i0);
  TileAt tile;
  for (int64_t j0 = 0; walk.find(j0, segment.keys, tile); j0 = tile.firstKey + kAttentionBlock) {
    for (int c = 0; c < columns; c += kStrip<kPairs>) {
      const Columns strip{c, std::min(c + kStrip<kPairs>, columns)};
      scoreStrip<kPairs>(a, tile, strip, s.keys + inFloats<kPairs>(tile.firstKey * a.dimPad), s.queries, s.scores);
      use(tile, strip);
    }
  }
}

// Adds a strip's share to the entropy -sum(p log p) of its queries, log p = score - shift + log(rowScale), and to what
// its keys receive.
template <int kRow, class T>
void addStatistics(const TileAt& tile, Columns columns, T* scores, const T* rowShift, const T* rowScale, T* entropy,
                   T* received) {
  const hn::ScalableTag<T> d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  const auto lowest = hn::Set(d, std::numeric_limits<T>::lowest());
  for (int c = columns.begin; c < columns.end; c += lanes) {
    T* column = scores + (c - columns.begin);
    const Rows rows = visibleRows<kRow>(tile, c, column);
    const auto shift = hn::Load(d, rowShift + c), share = hn::Load(d, rowScale + c);
    const auto logShare = vec::log(d, share);
    auto sum = hn::Load(d, entropy + c);
    for (int r = rows.begin; r < std::min(rows.end, tile.keys); ++r) {
      const auto logP = hn::Sub(hn::Load(d, column + r * kRow), shift);
      const auto p = hn::Mul(expNonPositive(d, logP), share);
      // 0 log 0 is 0: a finite logarithm makes it so
      sum = hn::NegMulAdd(p, hn::Add(hn::Max(logP, lowest), logShare), sum);
      received[r] += vec::sumLanes(d, p);
    }
    hn::Store(sum, d, entropy + c);
  }
}

template <bool kPairs, class E>
void statisticsTask(const Attention& a, int64_t task, char* memory) {
  using T = Compute<E>;
  const StatisticsScratch<kPairs, T> s(a, memory);
  const Segment& segment = a.segments[task / a.heads];
  const int64_t h = task % a.heads, head = segment.batch * a.heads + h;
  const Matrix<E> k(*a.k, segment.batch, h / (a.heads / a.kvHeads));
  T* entropy = a.entropy->as<T>() + head * a.queries + segment.firstQuery;
  T* received = a.received->as<T>() + head * a.keys + segment.firstKey;
  std::fill_n(received, segment.keys, T(0));
  packLeft<kPairs>(k, segment.firstKey, segment.keys, a.dim, s.keys, a.dimPad);
  for (int64_t i0 = 0; i0 < segment.queries; i0 += kAttentionBlock) {
    std::fill_n(s.entropy, kAttentionBlock, T(0));
    visitScores<kPairs, E>(a, s, segment, h, i0, [&](const TileAt& tile, Columns strip) {
      addStatistics<kStrip<kPairs>>(tile, strip, s.scores, s.shift, s.rowScale, s.entropy, received + tile.firstKey);
    });
    std::copy_n(s.entropy, std::min<int64_t>(kAttentionBlock, segment.queries - i0), entropy + i0);
  }
}

// Writes the visible probabilities of one head; the caller has written zeros.
template <bool kPairs, class E>
void weightsTask(const Attention& a, int64_t task, char* memory) {
  using T = Compute<E>;
  const StatisticsScratch<kPairs, T> s(a, memory);
  const hn::ScalableTag<T> d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  const Segment& segment = a.segments[task / a.heads];
  const int64_t h = task % a.heads;
  const Matrix<E> k(*a.k, segment.batch, h / (a.heads / a.kvHeads)), out(*a.weights, segment.batch, h);
  packLeft<kPairs>(k, segment.firstKey, segment.keys, a.dim, s.keys, a.dimPad);
  for (int64_t i0 = 0; i0 < segment.queries; i0 += kAttentionBlock) {
    visitScores<kPairs, E>(a, s, segment, h, i0, [&](const TileAt& tile, Columns strip) {
      constexpr int kRow = kStrip<kPairs>;
      for (int c = strip.begin; c < strip.end; c += lanes) {
        T* column = s.scores + (c - strip.begin);
        const Rows rows = visibleRows<kRow>(tile, c, column);
        const auto shift = hn::Load(d, s.shift + c), share = hn::Load(d, s.rowScale + c);
        for (int r = rows.begin; r < rows.end; ++r) {
          const auto p = hn::Mul(expNonPositive(d, hn::Sub(hn::Load(d, column + r * kRow), shift)), share);
          hn::Store(p, d, column + r * kRow);
        }
        const int end = std::min(rows.end, tile.keys);
        for (int i = 0; i < std::min(lanes, tile.queries - c); ++i) {
          E* to = out.row(i0 + c + i) + (tile.firstKey + rows.begin) * out.columnStride;
          for (int r = rows.begin; r < end; ++r, to += out.columnStride) *to = Narrow<E>::from(column[r * kRow + i]);
        }
      }
    });
  }
}

}  // namespace gradus::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
