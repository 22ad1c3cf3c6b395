// Building blocks of flash attention, compiled once for every SIMD target: products of small tiles that stay in
// registers, exp, packing.
//
// Scores are held transposed, [key][query]: queries lie on the lanes, so the maximum and the sum over keys need no
// work across lanes, and every product takes one operand as broadcast scalars (in any layout) and the other as rows.
// Only Q and dO are ever transposed.
#if defined(GRADUS_ATTENTION_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GRADUS_ATTENTION_TILE_INL_H_
#undef GRADUS_ATTENTION_TILE_INL_H_
#else
#define GRADUS_ATTENTION_TILE_INL_H_
#endif

#include <limits>

#include "attention.h"
#include "exp-inl.h"

HWY_BEFORE_NAMESPACE();
namespace gradus::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// A register tile is kTileRows rows of two vectors: 16 accumulators, which hides the latency of two fused
// multiply-adds a cycle, or 8 where the target has only 16 registers.
constexpr int kTileRows = HWY_TARGET <= HWY_AVX3 || HWY_TARGET == HWY_NEON ? 8 : 4;
static_assert(kRowMultiple % kTileRows == 0);

enum class Store { kSet, kAdd, kScaleAdd };

// c[kTileRows][kVectors] of a product over depth [begin, end). a(m, p) is a[m * lda + p], or a[p * lda + m] transposed.
// kScaleAdd: c = c * scale[m] + product, the rescaling of online softmax at no extra pass.
template <bool kTransposed, Store kStore, int kVectors, class T>
HWY_INLINE void registerTile(int begin, int end, const T* HWY_RESTRICT a, ptrdiff_t lda, const T* HWY_RESTRICT b,
                             ptrdiff_t ldb, T* HWY_RESTRICT c, ptrdiff_t ldc, const T* HWY_RESTRICT scale) {
  const hn::ScalableTag<T> d;
  const ptrdiff_t lanes = hn::Lanes(d);
  using V = hn::Vec<decltype(d)>;
  V sum[kTileRows][kVectors];
  for (auto& row : sum) {
    for (V& s : row) s = hn::Zero(d);
  }
  for (ptrdiff_t p = begin; p < end; ++p) {
    V right[kVectors];
    for (int v = 0; v < kVectors; ++v) right[v] = hn::Load(d, b + p * ldb + v * lanes);
    HWY_UNROLL(8)
    for (int m = 0; m < kTileRows; ++m) {
      const V left = hn::Set(d, kTransposed ? a[p * lda + m] : a[m * lda + p]);
      for (int v = 0; v < kVectors; ++v) sum[m][v] = hn::MulAdd(left, right[v], sum[m][v]);
    }
  }
  HWY_UNROLL(8)
  for (int m = 0; m < kTileRows; ++m) {
    for (int v = 0; v < kVectors; ++v) {
      T* at = c + m * ldc + v * lanes;
      if constexpr (kStore == Store::kAdd) sum[m][v] = hn::Add(hn::Load(d, at), sum[m][v]);
      if constexpr (kStore == Store::kScaleAdd) {
        sum[m][v] = hn::MulAdd(hn::Load(d, at), hn::Set(d, scale[m]), sum[m][v]);
      }
      hn::Store(sum[m][v], d, at);
    }
  }
}

// What causality leaves of a row of register tiles: the depth to sum over and the first column that matters.
struct Span {
  int begin, end, firstColumn;
};

// rows is a multiple of kTileRows, columns of the lanes; `span(row)` gives the Span of the register tiles from `row`.
template <bool kTransposed, Store kStore, class T, class SpanOf>
HWY_INLINE void product(int rows, int columns, const T* a, ptrdiff_t lda, const T* b, ptrdiff_t ldb, T* c,
                        ptrdiff_t ldc, const SpanOf& spanOf, const T* scale = nullptr) {
  const int lanes = static_cast<int>(hn::Lanes(hn::ScalableTag<T>()));
  for (int n = 0; n < columns; n += 2 * lanes) {
    const bool pair = n + lanes < columns;
    for (int m = 0; m < rows; m += kTileRows) {
      const Span span = spanOf(m);
      if (n + (pair ? 2 : 1) * lanes <= span.firstColumn) continue;
      const T* left = kTransposed ? a + m : a + m * lda;
      const T* factor = kStore == Store::kScaleAdd ? scale + m : nullptr;
      if (pair) {
        registerTile<kTransposed, kStore, 2>(span.begin, span.end, left, lda, b + n, ldb, c + m * ldc + n, ldc, factor);
      } else {
        registerTile<kTransposed, kStore, 1>(span.begin, span.end, left, lda, b + n, ldb, c + m * ldc + n, ldc, factor);
      }
    }
  }
}

// A [rows][columns] piece of a head, as one (b, h) of a four-dimensional view.
template <class E>
struct Matrix {
  E* data;
  int64_t rowStride, columnStride;
  Matrix(const TensorView& x, int64_t b, int64_t h)
      : data(x.as<E>() + b * x.strides[0] + h * x.strides[1]), rowStride(x.strides[2]), columnStride(x.strides[3]) {}
  E* row(int64_t i) const { return data + i * rowStride; }
};

// Rows between storage and scratch, converted and scaled.
template <class T, class E>
HWY_INLINE void loadRow(const E* HWY_RESTRICT from, int64_t stride, int64_t count, T scale, T* HWY_RESTRICT to) {
  const hn::ScalableTag<T> d;
  const int64_t lanes = hn::Lanes(d);
  const auto factor = hn::Set(d, scale);
  int64_t i = 0;
  if (stride == 1) {
    for (; i + lanes <= count; i += lanes) hn::StoreU(hn::Mul(factor, vec::load(d, from + i)), d, to + i);
  }
  for (; i < count; ++i) to[i] = scale * widen(from[i * stride]);
}

template <class T, class E>
HWY_INLINE void storeRow(const T* HWY_RESTRICT from, int64_t count, T scale, E* HWY_RESTRICT to, int64_t stride) {
  const hn::ScalableTag<T> d;
  const int64_t lanes = hn::Lanes(d);
  const auto factor = hn::Set(d, scale);
  int64_t i = 0;
  if (stride == 1) {
    for (; i + lanes <= count; i += lanes) vec::store(d, hn::Mul(factor, hn::LoadU(d, from + i)), to + i);
  }
  for (; i < count; ++i) to[i * stride] = Narrow<E>::from(from[i] * scale);
}

// Rows [first, first + rows) to dense rows of `width`, padded with zeros to it and to kRowMultiple rows.
template <class T, class E>
void packRows(const Matrix<E>& from, int64_t first, int64_t rows, int64_t columns, T scale, T* to, int64_t width) {
  for (int64_t r = 0; r < rows; ++r, to += width) {
    loadRow(from.row(first + r), from.columnStride, columns, scale, to);
    std::fill(to + columns, to + width, T(0));
  }
  std::fill(to, to + (roundUp(rows, kRowMultiple) - rows) * width, T(0));
}

// from [kAttentionBlock][width] -> to [width][kAttentionBlock]
template <class T>
HWY_INLINE void transposeBlock(const T* HWY_RESTRICT from, int64_t width, T* HWY_RESTRICT to) {
  for (int64_t c = 0; c < width; ++c) {
    for (int64_t r = 0; r < kAttentionBlock; ++r) to[c * kAttentionBlock + r] = from[r * width + c];
  }
}

template <>
HWY_INLINE void transposeBlock(const float* HWY_RESTRICT from, int64_t width, float* HWY_RESTRICT to) {
  const hn::FixedTag<float, 4> d;
  const hn::FixedTag<double, 2> pairs;
  for (int64_t r = 0; r < kAttentionBlock; r += 4) {
    for (int64_t c = 0; c < width; c += 4) {
      const float* at = from + r * width + c;
      const auto r0 = hn::Load(d, at), r1 = hn::Load(d, at + width);
      const auto r2 = hn::Load(d, at + 2 * width), r3 = hn::Load(d, at + 3 * width);
      const auto low01 = hn::BitCast(pairs, hn::InterleaveLower(d, r0, r1));
      const auto low23 = hn::BitCast(pairs, hn::InterleaveLower(d, r2, r3));
      const auto high01 = hn::BitCast(pairs, hn::InterleaveUpper(d, r0, r1));
      const auto high23 = hn::BitCast(pairs, hn::InterleaveUpper(d, r2, r3));
      float* into = to + c * kAttentionBlock + r;
      hn::Store(hn::BitCast(d, hn::InterleaveLower(pairs, low01, low23)), d, into);
      hn::Store(hn::BitCast(d, hn::InterleaveUpper(pairs, low01, low23)), d, into + kAttentionBlock);
      hn::Store(hn::BitCast(d, hn::InterleaveLower(pairs, high01, high23)), d, into + 2 * kAttentionBlock);
      hn::Store(hn::BitCast(d, hn::InterleaveUpper(pairs, high01, high23)), d, into + 3 * kAttentionBlock);
    }
  }
}

// Q or dO by rows, all kAttentionBlock of them, and transposed for the products that have queries on the lanes.
template <class T, class E>
void packQueries(const Matrix<E>& from, int64_t first, int64_t rows, int64_t columns, T scale, T* byRows,
                 int64_t width, T* transposed) {
  packRows(from, first, rows, columns, scale, byRows, width);
  std::fill(byRows + rows * width, byRows + kAttentionBlock * width, T(0));
  transposeBlock(byRows, width, transposed);
}

}  // namespace gradus::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
