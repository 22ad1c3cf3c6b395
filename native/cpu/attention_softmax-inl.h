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
    case DType::kBool: return mask.as<uint8_t>()[at] ? T(0) : -std::numeric_limits<T>::infinity();
    case DType::kFloat32: return static_cast<T>(mask.as<float>()[at]);
    case DType::kFloat64: return static_cast<T>(mask.as<double>()[at]);
    case DType::kFloat16: return widen(mask.as<Float16>()[at]);
    default: return widen(mask.as<BFloat16>()[at]);
  }
}

// Adds the mask (0 or -inf for bool) to the tile. A padding mask, the same for all queries, costs one value a row.
template <class T>
void addMask(const Attention& a, const TileAt& tile, T* scores) {
  const hn::ScalableTag<T> d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  const int64_t* strides = a.maskStrides;
  const int64_t base = tile.batch * strides[0] + tile.head * strides[1] + tile.firstQuery * strides[2] +
                       tile.firstKey * strides[3];
  for (int r = 0; r < tile.keys; ++r) {
    T* row = scores + r * kAttentionBlock;
    const int64_t at = base + r * strides[3];
    if (strides[2] == 0) {
      const auto value = hn::Set(d, maskValue<T>(*a.mask, at));
      for (int c = 0; c < kAttentionBlock; c += lanes) hn::Store(hn::Add(hn::Load(d, row + c), value), d, row + c);
    } else {
      for (int c = 0; c < tile.queries; ++c) row[c] += maskValue<T>(*a.mask, at + c * strides[2]);
    }
  }
}

// Lanes of the vector at column c that see row r.
template <class D>
HWY_INLINE auto visibleLanes(D d, const TileAt& tile, int c, int r) {
  using T = hn::TFromD<D>;
  return hn::Ge(hn::Iota(d, static_cast<T>(c + tile.diagonal)), hn::Set(d, static_cast<T>(r)));
}

template <class T>
HWY_INLINE void clearRows(T* tile, int c, int begin, int end) {
  const hn::ScalableTag<T> d;
  for (int r = begin; r < end; ++r) hn::Store(hn::Zero(d), d, tile + r * kAttentionBlock + c);
}

// Scores -> unnormalized probabilities relative to the running maximum (Milakov & Gimelshein 2018, arXiv:1805.02867).
// `maximum` starts at the lowest finite value, not at -inf: then exp(x - maximum) of a masked score is 0 and not NaN,
// and a row without visible keys ends with sum 0. `rescale` receives what earlier outputs are multiplied with.
template <class T>
void onlineSoftmax(const TileAt& tile, int columns, T* scores, T* maximum, T* sum, T* rescale) {
  const hn::ScalableTag<T> d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  const auto minusInfinity = hn::Set(d, -std::numeric_limits<T>::infinity());
  for (int c = 0; c < columns; c += lanes) {
    const int full = tile.fullRows(c), any = tile.anyRows(c, lanes);
    T* column = scores + c;
    const auto before = hn::Load(d, maximum + c);
    auto top0 = before, top1 = before;
    int r = 0;
    for (; r + 2 <= full; r += 2) {
      top0 = hn::Max(top0, hn::Load(d, column + r * kAttentionBlock));
      top1 = hn::Max(top1, hn::Load(d, column + (r + 1) * kAttentionBlock));
    }
    for (; r < any; ++r) {
      T* at = column + r * kAttentionBlock;
      const auto x = hn::IfThenElse(visibleLanes(d, tile, c, r), hn::Load(d, at), minusInfinity);
      hn::Store(x, d, at);
      top0 = hn::Max(top0, x);
    }
    const auto top = hn::Max(top0, top1);
    auto sum0 = hn::Zero(d), sum1 = hn::Zero(d);
    for (r = 0; r + 2 <= any; r += 2) {
      T* at = column + r * kAttentionBlock;
      const auto p0 = expNonPositive(d, hn::Sub(hn::Load(d, at), top));
      const auto p1 = expNonPositive(d, hn::Sub(hn::Load(d, at + kAttentionBlock), top));
      sum0 = hn::Add(sum0, p0);
      sum1 = hn::Add(sum1, p1);
      hn::Store(p0, d, at);
      hn::Store(p1, d, at + kAttentionBlock);
    }
    if (r < any) {
      T* at = column + r * kAttentionBlock;
      const auto p = expNonPositive(d, hn::Sub(hn::Load(d, at), top));
      sum0 = hn::Add(sum0, p);
      hn::Store(p, d, at);
    }
    clearRows(column, 0, any, kAttentionBlock);
    const auto factor = expNonPositive(d, hn::Sub(before, top));
    hn::Store(top, d, maximum + c);
    hn::Store(factor, d, rescale + c);
    hn::Store(hn::MulAdd(hn::Load(d, sum + c), factor, hn::Add(sum0, sum1)), d, sum + c);
  }
}

// scores -> probabilities (with dropout applied), dprobs -> dscores = P * (dP - delta), delta = sum(dO * O).
// `logsumexp` is +inf in dead columns; `rowScale` and `keep` may be null.
template <class T>
void softmaxGradient(const TileAt& tile, int columns, T* scores, T* dprobs, const T* logsumexp, const T* delta,
                     const T* rowScale, const T* keep) {
  const hn::ScalableTag<T> d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  for (int c = 0; c < columns; c += lanes) {
    const int full = tile.fullRows(c), any = tile.anyRows(c, lanes);
    const auto shift = hn::Load(d, logsumexp + c), mean = hn::Load(d, delta + c);
    for (int r = 0; r < any; ++r) {
      const int at = r * kAttentionBlock + c;
      auto p = expNonPositive(d, hn::Sub(hn::Load(d, scores + at), shift));
      if (rowScale) p = hn::Mul(p, hn::Load(d, rowScale + c));
      if (r >= full) p = hn::IfThenElseZero(visibleLanes(d, tile, c, r), p);
      auto dp = hn::Load(d, dprobs + at);
      auto kept = p;
      if (keep) {
        const auto factor = hn::Load(d, keep + at);
        dp = hn::Mul(dp, factor);
        kept = hn::Mul(p, factor);
      }
      hn::Store(kept, d, scores + at);
      hn::Store(hn::Mul(p, hn::Sub(dp, mean)), d, dprobs + at);
    }
    clearRows(scores + c, 0, any, kAttentionBlock);
    clearRows(dprobs + c, 0, any, kAttentionBlock);
  }
}

}  // namespace gradus::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
