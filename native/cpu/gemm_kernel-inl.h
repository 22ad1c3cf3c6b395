// The register tile of the GEMM: kRows x 2 vectors of C, one step of k at a time.
#if defined(GRADUS_CPU_GEMM_KERNEL_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GRADUS_CPU_GEMM_KERNEL_INL_H_
#undef GRADUS_CPU_GEMM_KERNEL_INL_H_
#else
#define GRADUS_CPU_GEMM_KERNEL_INL_H_
#endif

#include "gemm_pack-inl.h"
#include "gemm_pairs-inl.h"

HWY_BEFORE_NAMESPACE();
namespace gradus::cpu::HWY_NAMESPACE {

// Where a tile goes: c = alpha * product + beta * c + bias. beta 0 does not read c. With `narrow`, which has beta 0,
// it goes there instead.
template <class T>
struct TileTarget {
  T* c;
  BFloat16* narrow;
  int64_t stride;
  int rows, cols;
  T alpha, beta;
  const T* bias;  // of the tile's columns, or null
};

// What a tile reads: a(r, k) at a[r * aStride + k] or a[k * aStride + r], b(k, j) at b[k * bStride + j]. At every step
// of k it also fetches a cache line for later, aheadStep elements after the one before.
template <class E>
struct TileSource {
  int64_t depth;
  const E* a;
  int64_t aStride;
  const E* b;
  int64_t bStride;
  const E* ahead;
  int64_t aheadStep;
};

// A vector of elements, and the same element in every lane. Pairs travel as the bits of floats.
template <class D, class E>
HWY_INLINE vec::Of<D> loadElements(D d, const E* p) {
  if constexpr (kPerElement<E> == 2) {
    const hn::Rebind<uint32_t, D> d32;
    return hn::BitCast(d, hn::LoadU(d32, reinterpret_cast<const uint32_t*>(p)));
  } else {
    return hn::LoadU(d, p);
  }
}

template <class D, class E>
HWY_INLINE vec::Of<D> broadcast(D d, const E* p) {
  if constexpr (kPerElement<E> == 2) {
    const hn::Rebind<uint32_t, D> d32;
    uint32_t bits;
    std::memcpy(&bits, p, sizeof bits);
    return hn::BitCast(d, hn::Set(d32, bits));
  } else {
    return hn::Set(d, *p);
  }
}

// sum + a b, or sum + a.first b.first + a.second b.second.
template <class E, class V>
HWY_INLINE V addProduct(V sum, V a, V b) {
#if GRADUS_PAIRS
  if constexpr (kPerElement<E> == 2) return addPairProduct(sum, a, b);
#endif
  return hn::MulAdd(a, b, sum);
}

template <class E, class T>
HWY_INLINE void storeEdge(const T* product, const TileTarget<T>& to) {
  for (int r = 0; r < to.rows; ++r) {
    for (int j = 0; j < to.cols; ++j) {
      T value = to.alpha * product[r * Tile<E>::kCols + j];
      if (to.bias) value += to.bias[j];
      if (to.narrow) {
        to.narrow[r * to.stride + j] = Narrow<BFloat16>::from(value);
        continue;
      }
      T& c = to.c[r * to.stride + j];
      c = to.beta != T(0) ? value + to.beta * c : value;
    }
  }
}

template <class E, int rows, bool rowMajor>
HWY_NOINLINE void tile(const TileSource<E>& from, const TileTarget<Sum<E>>& to) {
  using T = Sum<E>;
  const E* HWY_RESTRICT a = from.a;
  const E* HWY_RESTRICT b = from.b;
  const E* ahead = from.ahead;
  const int64_t depth = from.depth, aStride = from.aStride, bStride = from.bStride, aheadStep = from.aheadStep;
  const hn::ScalableTag<T> d;
  using V = hn::Vec<decltype(d)>;
  constexpr int lanes = Tile<E>::kLanes;
  V c0[rows], c1[rows];
#pragma GCC unroll 16
  for (int r = 0; r < rows; ++r) {
    c0[r] = c1[r] = hn::Zero(d);
    if (r < to.rows && to.c) {  // C comes from memory while the products are made
      __builtin_prefetch(to.c + r * to.stride, 1);
      __builtin_prefetch(to.c + r * to.stride + to.cols - 1, 1);
    }
  }
  // rows in groups of three: a group's pointer and one register with the stride address all of them
  constexpr int groups = (rows + 2) / 3;
  const E* group[groups];
  for (int g = 0; g < groups; ++g) group[g] = a + 3 * g * (rowMajor ? aStride : 1);
  for (int64_t k = 0; k < depth; ++k) {
    const V b0 = loadElements(d, b), b1 = loadElements(d, b + lanes);
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) {
      const V x = broadcast(d, rowMajor ? group[r / 3] + r % 3 * aStride : a + r);
      c0[r] = addProduct<E>(c0[r], x, b0);
      c1[r] = addProduct<E>(c1[r], x, b1);
    }
    if constexpr (rowMajor) {
      for (int g = 0; g < groups; ++g) ++group[g];
    } else {
      a += aStride;
    }
    b += bStride;
    __builtin_prefetch(ahead);
    ahead += aheadStep;
  }
  if (to.cols < Tile<E>::kCols || to.rows < rows) {
    T product[rows * Tile<E>::kCols];
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) {
      hn::StoreU(c0[r], d, product + r * Tile<E>::kCols);
      hn::StoreU(c1[r], d, product + r * Tile<E>::kCols + lanes);
    }
    storeEdge<E>(product, to);
    return;
  }
  const V alpha = hn::Set(d, to.alpha), beta = hn::Set(d, to.beta);
  const V bias0 = to.bias ? hn::LoadU(d, to.bias) : hn::Zero(d);
  const V bias1 = to.bias ? hn::LoadU(d, to.bias + lanes) : hn::Zero(d);
  const bool accumulates = to.beta != T(0);
#pragma GCC unroll 16
  for (int r = 0; r < rows; ++r) {
    V v0 = hn::MulAdd(alpha, c0[r], bias0), v1 = hn::MulAdd(alpha, c1[r], bias1);
#if GRADUS_PAIRS
    if constexpr (kPerElement<E> == 2) {
      if (to.narrow) {
        storeNarrow(v0, v1, to.narrow + r * to.stride);
        continue;
      }
    }
#endif
    T* row = to.c + r * to.stride;
    if (accumulates) {
      v0 = hn::MulAdd(beta, hn::LoadU(d, row), v0);
      v1 = hn::MulAdd(beta, hn::LoadU(d, row + lanes), v1);
    }
    hn::StoreU(v0, d, row);
    hn::StoreU(v1, d, row + lanes);
  }
}

// The shortest kernel that covers the rows: panels are padded with zeros.
template <class E, bool rowMajor>
HWY_INLINE void tileOfRows(const TileSource<E>& from, const TileTarget<Sum<E>>& to) {
  constexpr int most = Tile<E>::kRows;
  if (to.rows == most) return tile<E, most, rowMajor>(from, to);
  if constexpr (most > 8) {
    if (to.rows > 8) return tile<E, most, rowMajor>(from, to);
    if (to.rows > 4) return tile<E, 8, rowMajor>(from, to);
  } else {
    if (to.rows > 4) return tile<E, most, rowMajor>(from, to);
  }
  if (to.rows > 2) return tile<E, 4, rowMajor>(from, to);
  return tile<E, 2, rowMajor>(from, to);
}

// --- before a block leaves the cache ---------------------------------------------------------------------------------

// activation'(x), and activation(x) in `value`. kCoarse: see activate.
template <Activation kind, bool kCoarse, class D>
HWY_INLINE vec::Of<D> gradientOf(D d, vec::Of<D> x, vec::Of<D>& value) {
  if constexpr (kind == Activation::kGeluTanh)
    return vec::geluTanhGradient<kCoarse>(d, x, value);
  else
    return vec::geluErfGradient(d, x, value);
}

// c *= activation'(x) over [rows, cols]; activated: activation(x), or null where it is not wanted.
template <Activation kind, class C, class S>
HWY_INLINE void scaleByGradient(C* c, int64_t cStride, const S* x, int64_t xStride, int64_t rows, int64_t cols,
                                C* activated, int64_t activatedStride) {
  constexpr bool kCoarse = std::is_same_v<C, BFloat16>;
  const hn::ScalableTag<Compute<C>> d;
  constexpr int64_t lanes = hn::MaxLanes(hn::ScalableTag<Compute<C>>());
  for (int64_t r = 0; r < rows; ++r, c += cStride, x += xStride) {
    C* to = activated ? activated + r * activatedStride : nullptr;
    hn::Vec<decltype(d)> value;
    int64_t j = 0;
    for (; j + lanes <= cols; j += lanes) {
      vec::store(d, hn::Mul(vec::load(d, c + j), gradientOf<kind, kCoarse>(d, vec::load(d, x + j), value)), c + j);
      if (to) vec::store(d, value, to + j);
    }
    if (j < cols) {
      const auto slope = gradientOf<kind, kCoarse>(d, vec::loadTail(d, x + j, cols - j), value);
      vec::storeTail(d, hn::Mul(vec::loadTail(d, c + j, cols - j), slope), c + j, cols - j);
      if (to) vec::storeTail(d, value, to + j, cols - j);
    }
  }
}

#if GRADUS_PAIRS
// The same with activation(x) as pairs of rows in panels of kCols columns, [depth][kCols] each. An even number of rows,
// whole panels.
template <Activation kind, class S>
HWY_INLINE void scaleByGradient(BFloat16* c, int64_t cStride, const S* x, int64_t xStride, int64_t rows, int64_t cols,
                                Pair* panels, int64_t depth) {
  constexpr int64_t width = Tile<Pair>::kCols;
  static_assert(Tile<Pair>::kRows % 2 == 0, "blocks begin with the first row of a pair");
  const Floats d;
  constexpr int64_t lanes = hn::MaxLanes(Floats());
  // scales a vector of C -> activation(x)
  const auto scale = [&](BFloat16* at, const S* xAt) HWY_ATTR {
    hn::Vec<Floats> value;
    const auto slope = gradientOf<kind, true>(d, vec::load(d, xAt), value);
    vec::store(d, hn::Mul(vec::load(d, at), slope), at);
    return rounded(value);
  };
  for (int64_t r = 0; r < rows; r += 2, c += 2 * cStride, x += 2 * xStride, panels += width) {
    for (int64_t j = 0; j < cols; j += lanes) {
      const auto first = scale(c + j, x + j), second = scale(c + cStride + j, x + xStride + j);
      storePairs(first, second, panels + j / width * depth * width + j % width);
    }
  }
}
#endif

// to = activation(x) over [rows, cols].
template <Activation kind, class C>
HWY_INLINE void activateRows(const C* x, int64_t xStride, int64_t rows, int64_t cols, C* to, int64_t toStride) {
  constexpr bool kCoarse = std::is_same_v<C, BFloat16>;
  const hn::ScalableTag<Compute<C>> d;
  constexpr int64_t lanes = hn::MaxLanes(hn::ScalableTag<Compute<C>>());
  for (int64_t r = 0; r < rows; ++r, x += xStride, to += toStride) {
    int64_t j = 0;
    for (; j + lanes <= cols; j += lanes) vec::store(d, activate<kind, kCoarse>(d, vec::load(d, x + j)), to + j);
    if (j < cols) vec::storeTail(d, activate<kind, kCoarse>(d, vec::loadTail(d, x + j, cols - j)), to + j, cols - j);
  }
}

// c = narrow(block + beta * c): blocks of other dtypes and strides than the compute type's rows.
template <class T, class S>
HWY_INLINE void storeBlock(const T* block, int64_t blockStride, S* c, int64_t rowStride, int64_t colStride,
                           int64_t rows, int64_t cols, T beta) {
  const hn::ScalableTag<T> d;
  constexpr int64_t lanes = hn::MaxLanes(hn::ScalableTag<T>());
  for (int64_t r = 0; r < rows; ++r, block += blockStride, c += rowStride) {
    int64_t j = 0;
    if (colStride == 1 && beta == T(0)) {
      for (; j + lanes <= cols; j += lanes) vec::store(d, hn::LoadU(d, block + j), c + j);
    }
    for (; j < cols; ++j) {
      S& to = c[j * colStride];
      to = Narrow<S>::from(beta == T(0) ? block[j] : block[j] + beta * T(widen(to)));
    }
  }
}

}  // namespace gradus::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
