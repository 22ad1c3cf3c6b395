// What happens to a tile of scores between the products of attention: mask, online softmax and its gradient.
#if defined(GRADUS_ATTENTION_SOFTMAX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GRADUS_ATTENTION_SOFTMAX_INL_H_
#undef GRADUS_ATTENTION_SOFTMAX_INL_H_
#else
#define GRADUS_ATTENTION_SOFTMAX_INL_H_
#endif

#include "attention_dropout-inl.h"

HWY_BEFORE_NAMESPACE();
namespace gradus::cpu::HWY_NAMESPACE {

template <class T>
HWY_INLINE T maskValue(const TensorView& mask, int64_t at) {
  switch (mask.dtype) {
    case DType::kBool:
      return mask.as<uint8_t>()[at] ? T(0) : -std::numeric_limits<T>::infinity();
    case DType::kFloat32:
      return static_cast<T>(mask.as<float>()[at]);
    case DType::kFloat64:
      return static_cast<T>(mask.as<double>()[at]);
    case DType::kFloat16:
      return widen(mask.as<Float16>()[at]);
    default:
      return widen(mask.as<BFloat16>()[at]);
  }
}

// What normalizes the rows of a head, from a query on, as forward leaves it to backward: logsumexp; beside an additive
// mask the maximum and the sum, since a mask of -1e9 over a whole row would round log(sum) away. The maximum of a row
// without visible keys is -inf.
template <class T>
class SoftmaxTerms {
 public:
  SoftmaxTerms(const Attention& a, int64_t batch, int64_t head, int64_t query)
      : first_(a.logsumexp->as<T>() + (batch * a.heads + head) * a.queries + query),
        sums_(a.apart ? first_ + a.batch * a.heads * a.queries : nullptr) {}

  void store(int64_t i, T maximum, T sum) const {
    first_[i] = sums_ || sum == 0 ? maximum : maximum + std::log(sum);
    if (sums_) sums_[i] = sum;
  }
  // A probability is exp(score - shift) * factor; an infinite shift makes that of a dead row 0.
  void load(int64_t i, T& shift, T& factor) const {
    const bool dead = first_[i] == -std::numeric_limits<T>::infinity();
    shift = dead ? std::numeric_limits<T>::infinity() : first_[i];
    factor = sums_ && !dead ? 1 / sums_[i] : T(1);
  }

 private:
  T *first_, *sums_;
};

// What follows works on columns [begin, end) of a tile; `scores` is addressed from `begin` on, kStrip floats a row.
struct Columns {
  int begin, end;
};

// Adds the mask (0 or -inf for bool) to the scores. A padding mask, the same for all queries, costs one value a row.
template <int kRow, class T>
void addMask(const Attention& a, const TileAt& tile, Columns columns, T* scores) {
  const hn::ScalableTag<T> d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  const int64_t* strides = a.maskStrides;
  const int64_t base = tile.segment->batch * strides[0] + tile.head * strides[1] +
                       (tile.firstQuery + columns.begin) * strides[2] + tile.firstKey * strides[3];
  const int width = columns.end - columns.begin, queries = std::min(width, tile.queries - columns.begin);
  for (int r = 0; r < tile.keys; ++r) {
    T* row = scores + r * kRow;
    const int64_t at = base + r * strides[3];
    if (strides[2] == 0) {
      const auto value = hn::Set(d, maskValue<T>(*a.mask, at));
      for (int c = 0; c < width; c += lanes) hn::Store(hn::Add(hn::Load(d, row + c), value), d, row + c);
    } else {
      for (int c = 0; c < queries; ++c) row[c] += maskValue<T>(*a.mask, at + c * strides[2]);
    }
  }
}

// Hides what the block mask hides of a tile that meets blocks of both kinds.
template <int kRow, class T>
void hideBlocks(const Attention& a, const TileAt& tile, Columns columns, T* scores) {
  const auto* blocks = a.blockMask->as<uint8_t>();
  const int64_t base = tile.segment->batch * a.blockStrides[0] + tile.head * a.blockStrides[1];
  const int end = std::min(columns.end, tile.queries);
  for (int r = 0; r < tile.keys; ++r) {
    const int64_t ofKey = base + (tile.firstKey + r) / a.blockKeys * a.blockStrides[3];
    for (int c = columns.begin; c < end; ++c) {
      if (blocks[ofKey + (tile.firstQuery + c) / a.blockQueries * a.blockStrides[2]]) continue;
      scores[r * kRow + c - columns.begin] = -std::numeric_limits<T>::infinity();
    }
  }
}

// Rows of a column vector that have visible scores, widened to whole pairs. Those of their scores that are not visible
// become -inf.
struct Rows {
  int begin, end;
};

template <int kRow, class T>
HWY_INLINE Rows visibleRows(const TileAt& tile, int c, T* column) {
  const hn::ScalableTag<T> d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  const Rows rows{tile.anyBegin(c) & ~1, (tile.anyEnd(c, lanes) + 1) & ~1};
  const auto hideRow = [&](int r) {
    const auto at = hn::Set(d, static_cast<T>(r));
    auto visible = hn::And(hn::Le(hn::Iota(d, static_cast<T>(c + tile.lower)), at),
                           hn::Ge(hn::Iota(d, static_cast<T>(c + tile.upper)), at));
    if (r >= tile.keys) visible = hn::Lt(at, hn::Zero(d));
    const auto hidden = hn::Set(d, -std::numeric_limits<T>::infinity());
    hn::Store(hn::IfThenElse(visible, hn::Load(d, column + r * kRow), hidden), d, column + r * kRow);
  };
  const int fullBegin = std::min(tile.fullBegin(c, lanes), rows.end);
  for (int r = rows.begin; r < fullBegin; ++r) hideRow(r);
  for (int r = std::max(fullBegin, tile.fullEnd(c)); r < rows.end; ++r) hideRow(r);
  return rows;
}

// Receives the probabilities (or their gradients) of a column vector at two keys: as floats in the place of the scores,
// or as bfloat16 pairs along the keys and, for products that sum over queries, along these.
template <class T>
struct Weights {
  T* byKey;    // floats: [key][query]; pairs: [key / 2][query]
  T* byQuery;  // pairs: [key][query / 2]; may be null
};

template <bool kPairs, class T, class V>
HWY_INLINE void storeWeights(const Weights<T>& to, int r, int c, V first, V second) {
  const hn::ScalableTag<T> d;
  if constexpr (kPairs) {
#if GRADUS_PAIRS
    const __m512i both = roundToHalves(first, second);  // sixteen of row r, then sixteen of row r + 1
    if (to.byQuery) {
      auto* at = reinterpret_cast<char*>(to.byQuery) + (r * kAttentionBlock + c) * 2;
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), _mm512_castsi512_si256(both));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(at + kAttentionBlock * 2), _mm512_extracti64x4_epi64(both, 1));
    }
    if (to.byKey) {
      alignas(64) static constexpr uint16_t kInterleave[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                               21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                               11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
      _mm512_store_si512(to.byKey + r / 2 * kAttentionBlock + c,
                         _mm512_permutexvar_epi16(_mm512_load_si512(kInterleave), both));
    }
#endif
  } else {
    hn::Store(first, d, to.byKey + r * kAttentionBlock + c);
    hn::Store(second, d, to.byKey + (r + 1) * kAttentionBlock + c);
  }
}

// Zeros outside the rows that were stored.
template <bool kPairs, class T>
HWY_INLINE void clearWeights(const Weights<T>& to, int c, Rows rows) {
  const auto zero = hn::Zero(hn::ScalableTag<T>());
  for (int r = 0; r < rows.begin; r += 2) storeWeights<kPairs>(to, r, c, zero, zero);
  for (int r = rows.end; r < kAttentionBlock; r += 2) storeWeights<kPairs>(to, r, c, zero, zero);
}

// Scores -> unnormalized probabilities relative to the running maximum (Milakov & Gimelshein 2018, arXiv:1805.02867).
// `maximum` starts at the lowest finite value, not at -inf: then exp(x - maximum) of a masked score is 0 and not NaN,
// and a row without visible keys ends with sum 0. `rescale` receives what earlier outputs are multiplied with. `keep`
// (null without dropout) multiplies the probabilities, but not their sum.
template <bool kPairs, class T>
void onlineSoftmax(const TileAt& tile, Columns columns, T* scores, const Weights<T>& weights, const T* keep, T* maximum,
                   T* sum, T* rescale) {
  constexpr int kRow = kStrip<kPairs>;
  const hn::ScalableTag<T> d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  for (int c = columns.begin; c < columns.end; c += lanes) {
    T* column = scores + (c - columns.begin);
    const Rows rows = visibleRows<kRow>(tile, c, column);
    const auto before = hn::Load(d, maximum + c);
    auto top0 = before, top1 = before;
    for (int r = rows.begin; r < rows.end; r += 2) {
      top0 = hn::Max(top0, hn::Load(d, column + r * kRow));
      top1 = hn::Max(top1, hn::Load(d, column + (r + 1) * kRow));
    }
    const auto top = hn::Max(top0, top1);
    auto sum0 = hn::Zero(d), sum1 = hn::Zero(d);
    for (int r = rows.begin; r < rows.end; r += 2) {
      auto p0 = expNonPositive(d, hn::Sub(hn::Load(d, column + r * kRow), top));
      auto p1 = expNonPositive(d, hn::Sub(hn::Load(d, column + (r + 1) * kRow), top));
      sum0 = hn::Add(sum0, p0);
      sum1 = hn::Add(sum1, p1);
      if (keep) {
        p0 = hn::Mul(p0, hn::Load(d, keep + r * kAttentionBlock + c));
        p1 = hn::Mul(p1, hn::Load(d, keep + (r + 1) * kAttentionBlock + c));
      }
      storeWeights<kPairs>(weights, r, c, p0, p1);
    }
    clearWeights<kPairs>(weights, c, rows);
    const auto factor = expNonPositive(d, hn::Sub(before, top));
    hn::Store(top, d, maximum + c);
    hn::Store(factor, d, rescale + c);
    hn::Store(hn::MulAdd(hn::Load(d, sum + c), factor, hn::Add(sum0, sum1)), d, sum + c);
  }
}

// scores -> probabilities (with dropout applied), dprobs -> dscores = P * (dP - delta), delta = sum(dO * O).
// P = exp(score - shift) * rowScale, see SoftmaxTerms; `rowScale` and `keep` may be null.
template <bool kPairs, class T>
void softmaxGradient(const TileAt& tile, Columns columns, T* scores, const T* dprobs, const Weights<T>& weights,
                     const Weights<T>& dscores, const T* rowShift, const T* delta, const T* rowScale, const T* keep) {
  constexpr int kRow = kStrip<kPairs>;
  const hn::ScalableTag<T> d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  for (int c = columns.begin; c < columns.end; c += lanes) {
    T* column = scores + (c - columns.begin);
    const T* dcolumn = dprobs + (c - columns.begin);
    const Rows rows = visibleRows<kRow>(tile, c, column);
    const auto shift = hn::Load(d, rowShift + c), mean = hn::Load(d, delta + c);
    for (int r = rows.begin; r < rows.end; r += 2) {
      hn::Vec<decltype(d)> kept[2], ds[2];
      for (int i = 0; i < 2; ++i) {
        auto p = expNonPositive(d, hn::Sub(hn::Load(d, column + (r + i) * kRow), shift));
        if (rowScale) p = hn::Mul(p, hn::Load(d, rowScale + c));
        auto dp = hn::Load(d, dcolumn + (r + i) * kRow);
        kept[i] = p;
        if (keep) {
          const auto factor = hn::Load(d, keep + (r + i) * kAttentionBlock + c);
          dp = hn::Mul(dp, factor);
          kept[i] = hn::Mul(p, factor);
        }
        ds[i] = hn::Mul(p, hn::Sub(dp, mean));
      }
      storeWeights<kPairs>(weights, r, c, kept[0], kept[1]);
      storeWeights<kPairs>(dscores, r, c, ds[0], ds[1]);
    }
    clearWeights<kPairs>(weights, c, rows);
    clearWeights<kPairs>(dscores, c, rows);
  }
}

}  // namespace gradus::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
