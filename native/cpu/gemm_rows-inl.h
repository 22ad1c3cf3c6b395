// Products of a few rows with a matrix whose columns are contiguous, as when a model generates token by token: weights
// [n, k] are read once, in their own dtype, and neither packed nor converted in memory.
#if defined(GRADUS_CPU_GEMM_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GRADUS_CPU_GEMM_ROWS_INL_H_
#undef GRADUS_CPU_GEMM_ROWS_INL_H_
#else
#define GRADUS_CPU_GEMM_ROWS_INL_H_
#endif

#include "gemm_pack-inl.h"
#include "parallel.h"

HWY_BEFORE_NAMESPACE();
namespace gradus::cpu::HWY_NAMESPACE {

// Rows up to which reading B alone decides the time; packing it for the register tiles was 3 to 7 times slower.
constexpr int kFewRows = 4;

inline bool hasFewRows(const Gemm& g) {
  return g.m <= kFewRows && g.b.rowStride == 1 && g.k > 0 && !g.rowSum && !g.gradientAt && !g.activated &&
         g.b.activation == Activation::kNone;
}

// sums[r][c] = a[r] . b[c] for `cols` columns; the columns' chains of additions overlap.
template <int rows, int cols, class T, class S>
HWY_INLINE void dots(const T* a, int64_t aStride, const S* b, int64_t bStride, int64_t k, T (*sums)[4]) {
  const hn::ScalableTag<T> d;
  using V = hn::Vec<decltype(d)>;
  constexpr int64_t lanes = Tile<T>::kLanes;
  V total[rows][cols];
#pragma GCC unroll 4
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < cols; ++c) total[r][c] = hn::Zero(d);
  }
  const auto add = [&](int64_t at, auto load) HWY_ATTR {
    V x[rows];
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r) x[r] = hn::LoadU(d, a + r * aStride + at);  // rows are padded with zeros
#pragma GCC unroll 4
    for (int c = 0; c < cols; ++c) {
      const V y = load(b + c * bStride + at);
#pragma GCC unroll 4
      for (int r = 0; r < rows; ++r) total[r][c] = hn::MulAdd(x[r], y, total[r][c]);
    }
  };
  int64_t i = 0;
  for (; i + lanes <= k; i += lanes) add(i, [&](const S* p) HWY_ATTR { return vec::load(d, p); });
  if (i < k) add(i, [&](const S* p) HWY_ATTR { return vec::loadTail(d, p, k - i); });
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < cols; ++c) sums[r][c] = vec::sumLanes(d, total[r][c]);
  }
}

template <class T>
class RowProduct {
 public:
  RowProduct(const Gemm& g, T* scratch) : g_(g), a_(scratch), stride_(strideOf(g)) {
    visitOperand<T>(g.a, [&](auto* data, auto kind) {
      for (int64_t r = 0; r < g.m; ++r) {
        for (int64_t k = 0; k < g.k; ++k) {
          a_[r * stride_ + k] = activateOne<kind()>(T(widen(data[r * g.a.rowStride + k * g.a.colStride])));
        }
        for (int64_t k = g.k; k < stride_; ++k) a_[r * stride_ + k] = T(0);
      }
    });
  }

  static size_t bytes(const Gemm& g) { return g.m * strideOf(g) * sizeof(T); }

  void run(int threads) const {
    const int64_t grain = threads > 1 ? std::max<int64_t>(4, (g_.n + threads - 1) / threads) : g_.n;
    parallelFor(g_.n, grain, [&](int64_t begin, int64_t end) {
      visitOperand<T>(g_.b, [&](auto* data, auto) {
        visitFloating(g_.cDType, [&](auto type) {
          using S = decltype(type);
          if constexpr ((sizeof(T) == 8) == (sizeof(S) == 8)) columns<S>(data, begin, end);
        });
      });
    });
  }

 private:
  static int64_t strideOf(const Gemm& g) { return (g.k + Tile<T>::kLanes - 1) / Tile<T>::kLanes * Tile<T>::kLanes; }

  T biasAt(int64_t j) const {
    return visitFloating(
        g_.biasDType, [&](auto type) { return static_cast<T>(widen(static_cast<const decltype(type)*>(g_.bias)[j])); });
  }

  template <class S, class B>
  void columns(const B* b, int64_t begin, int64_t end) const {
    T sums[kFewRows][4];
    int64_t j = begin;
    for (; j + 4 <= end; j += 4) group<4, S>(b, j, sums);
    for (; j < end; ++j) group<1, S>(b, j, sums);
  }

  template <int cols, class S, class B>
  void group(const B* b, int64_t j, T (*sums)[4]) const {
    const B* at = b + j * g_.b.colStride;
    switch (g_.m) {
      case 1:
        dots<1, cols>(a_, stride_, at, g_.b.colStride, g_.k, sums);
        break;
      case 2:
        dots<2, cols>(a_, stride_, at, g_.b.colStride, g_.k, sums);
        break;
      case 3:
        dots<3, cols>(a_, stride_, at, g_.b.colStride, g_.k, sums);
        break;
      default:
        dots<4, cols>(a_, stride_, at, g_.b.colStride, g_.k, sums);
        break;
    }
    for (int64_t r = 0; r < g_.m; ++r) {
      for (int c = 0; c < cols; ++c) {
        S& to = static_cast<S*>(g_.c)[r * g_.cRowStride + (j + c) * g_.cColStride];
        T value = static_cast<T>(g_.alpha) * sums[r][c];
        if (g_.beta != 0) value += static_cast<T>(g_.beta) * T(widen(to));
        if (g_.bias) value += biasAt(j + c);
        to = Narrow<S>::from(value);
      }
    }
  }

  const Gemm& g_;
  T* a_;
  int64_t stride_;
};

}  // namespace gradus::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
