// Building blocks of flash attention, compiled once for every SIMD target: products of small tiles that stay in
// registers, exp, packing.
//
// Scores are held transposed, [key][query]: queries lie on the lanes, so the maximum and the sum over keys need no
// work across lanes, and every product takes one operand as broadcast scalars (in any layout) and the other as rows.
// Only Q and dO are ever transposed.
//
// Where the processor multiplies bfloat16 (kPairs), an element of both operands is a pair of bfloat16 that are
// neighbours along the sum, in the place of a float; layouts, loops and sums in float32 stay the same.
#if defined(GRADUS_ATTENTION_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GRADUS_ATTENTION_TILE_INL_H_
#undef GRADUS_ATTENTION_TILE_INL_H_
#else
#define GRADUS_ATTENTION_TILE_INL_H_
#endif

#include <limits>

#include "attention.h"
#include "attention_fetch.h"
#include "exp-inl.h"
#include "pairs-inl.h"

HWY_BEFORE_NAMESPACE();
namespace gradus::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// A register tile is kTileRows rows of two vectors: 16 accumulators, which hides the latency of two fused
// multiply-adds a cycle, or 8 where the target has only 16 registers.
constexpr int kTileRows = HWY_TARGET <= HWY_AVX3 || HWY_TARGET == HWY_NEON ? 8 : 4;
static_assert(kRowMultiple % kTileRows == 0);

// Columns of scores that are made and used at a time. bfloat16 products are so fast that scores have to stay in the
// first-level cache; with float32 the probabilities take their place, so all of them are there anyway.
template <bool kPairs>
constexpr int kStrip = kPairs ? 32 : kAttentionBlock;

// Floats that a row of `width` elements takes, and steps of a sum over `depth` of them.
template <bool kPairs>
constexpr int64_t inFloats(int64_t width) {
  return kPairs ? width / 2 : width;
}
template <bool kPairs>
constexpr int steps(int depth) {
  return kPairs ? (depth + 1) / 2 : depth;
}

// sum + left * right, or for pairs sum + left.first * right.first + left.second * right.second in every lane.
template <bool kPairs, class V>
HWY_INLINE V multiplyAdd(V left, V right, V sum) {
  if constexpr (kPairs) {
#if GRADUS_PAIRS
    return addPairProduct(sum, left, right);
#else
    return sum;  // never run
#endif
  } else {
    return hn::MulAdd(left, right, sum);
  }
}

enum class Store { kScale, kSet, kAdd, kScaleAdd };

// c[kTileRows][kVectors] of a product over steps [begin, end). a(m, p) is a[m * lda + p], or a[p * lda + m] transposed.
// kScale: c = product * scale[0]. kScaleAdd: c = c * scale[m] + product, the rescaling of online softmax at no extra
// pass.
template <bool kPairs, bool kTransposed, Store kStore, int kVectors, class T>
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
      for (int v = 0; v < kVectors; ++v) sum[m][v] = multiplyAdd<kPairs>(left, right[v], sum[m][v]);
    }
  }
  HWY_UNROLL(8)
  for (int m = 0; m < kTileRows; ++m) {
    for (int v = 0; v < kVectors; ++v) {
      T* at = c + m * ldc + v * lanes;
      if constexpr (kStore == Store::kScale) sum[m][v] = hn::Mul(sum[m][v], hn::Set(d, scale[0]));
      if constexpr (kStore == Store::kAdd) sum[m][v] = hn::Add(hn::Load(d, at), sum[m][v]);
      if constexpr (kStore == Store::kScaleAdd) {
        sum[m][v] = hn::MulAdd(hn::Load(d, at), hn::Set(d, scale[m]), sum[m][v]);
      }
      hn::Store(sum[m][v], d, at);
    }
  }
}

// What visibility leaves of a row of register tiles: the depth to sum over and the columns that matter.
struct Span {
  int begin, end, firstColumn, endColumn;
};

// Spans of the products of a tile. Sums over all of a head dim make scores only where some are visible ...
struct ScoreSpan {
  int depth;
  const TileAt& tile;
  Span operator()(int row) const { return {0, depth, row - tile.upper, row + kTileRows - tile.lower}; }
};
// ... sums over keys go from the first to the last one that the queries from `query` see ...
struct KeySpan {
  const TileAt& tile;
  Span operator()(int query) const {
    return {std::max(0, query + tile.lower), std::min(tile.keys, query + kTileRows + tile.upper), 0, 1 << 30};
  }
};
// ... and sums over queries likewise for the keys from `row`.
struct QuerySpan {
  const TileAt& tile;
  Span operator()(int row) const {
    return {std::max(0, row - tile.upper), std::min(tile.queries, row + kTileRows - tile.lower), 0, 1 << 30};
  }
};

// rows is a multiple of kTileRows, columns of the lanes; `span(row)` gives the Span of the register tiles from `row`.
// b and c are addressed from column firstColumn on.
template <bool kPairs, bool kTransposed, Store kStore, class T, class SpanOf>
HWY_INLINE void product(int rows, int firstColumn, int endColumn, const T* a, ptrdiff_t lda, const T* b, ptrdiff_t ldb,
                        T* c, ptrdiff_t ldc, const SpanOf& spanOf, const T* scale = nullptr) {
  const int lanes = static_cast<int>(hn::Lanes(hn::ScalableTag<T>()));
  for (int n = firstColumn; n < endColumn; n += 2 * lanes) {
    const bool pair = n + lanes < endColumn;
    for (int m = 0; m < rows; m += kTileRows) {
      const Span span = spanOf(m);
      if (n + (pair ? 2 : 1) * lanes <= span.firstColumn || n >= span.endColumn) continue;
      const int begin = kPairs ? span.begin / 2 : span.begin, end = steps<kPairs>(span.end);
      const T* left = kTransposed ? a + m : a + m * lda;
      const T* factor = kStore == Store::kScaleAdd ? scale + m : scale;
      const T* right = b + (n - firstColumn);
      T* to = c + m * ldc + (n - firstColumn);
      if (pair) {
        registerTile<kPairs, kTransposed, kStore, 2>(begin, end, left, lda, right, ldb, to, ldc, factor);
      } else {
        registerTile<kPairs, kTransposed, kStore, 1>(begin, end, left, lda, right, ldb, to, ldc, factor);
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

// Pairs lie in memory that is read as floats.
using Bits16 = uint16_t __attribute__((may_alias));
using Bits32 = uint32_t __attribute__((may_alias));

// Rows [first, first + rows) as bfloat16, padded with zeros to `width` and to kRowMultiple rows: along a row, two
// neighbours are a pair already.
template <class T, class E>
void packBits(const Matrix<E>& from, int64_t first, int64_t rows, int64_t columns, T* to, int64_t width) {
  auto* at = reinterpret_cast<Bits16*>(to);
  for (int64_t r = 0; r < rows; ++r, at += width) {
    const auto* row = reinterpret_cast<const uint16_t*>(from.row(first + r));
    if (from.columnStride == 1) {
      std::memcpy(at, row, columns * sizeof(uint16_t));
    } else {
      for (int64_t c = 0; c < columns; ++c) at[c] = row[c * from.columnStride];
    }
    std::memset(at + columns, 0, (width - columns) * sizeof(uint16_t));
  }
  std::memset(at, 0, (roundUp(rows, kRowMultiple) - rows) * width * sizeof(uint16_t));
}

// The same rows, two by two: to[r / 2][c] is the pair (from[r][c], from[r + 1][c]); zeros pad to `width` and to
// kRowMultiple rows.
template <class T, class E>
void packRowPairs(const Matrix<E>& from, int64_t first, int64_t rows, int64_t columns, T* to, int64_t width) {
  const hn::ScalableTag<uint32_t> d;
  const hn::Rebind<uint16_t, decltype(d)> d16;
  const int64_t lanes = hn::Lanes(d);
  auto* at = reinterpret_cast<Bits32*>(to);
  for (int64_t r = 0; r < rows; r += 2, at += width) {
    const auto* low = reinterpret_cast<const uint16_t*>(from.row(first + r));
    const bool odd = r + 1 == rows;
    const auto* high = odd ? low : reinterpret_cast<const uint16_t*>(from.row(first + r + 1));
    int64_t c = 0;
    if (from.columnStride == 1 && !odd) {
      for (; c + lanes <= columns; c += lanes) {
        const auto upper = hn::ShiftLeft<16>(hn::PromoteTo(d, hn::LoadU(d16, high + c)));
        hn::Store(hn::Or(upper, hn::PromoteTo(d, hn::LoadU(d16, low + c))), d, reinterpret_cast<uint32_t*>(at + c));
      }
    }
    for (; c < columns; ++c) {
      at[c] = low[c * from.columnStride] | (odd ? 0u : static_cast<uint32_t>(high[c * from.columnStride]) << 16);
    }
    std::memset(at + columns, 0, (width - columns) * sizeof(uint32_t));
  }
  std::memset(at, 0, (roundUp(rows, kRowMultiple) - roundUp(rows, 2)) / 2 * width * sizeof(uint32_t));
}

// Keys or values with a head dim of `width`, once as the left operand of sums over the head dim, and once as the right
// operand of sums over the keys. For floats these are the same rows.
template <bool kPairs, class T, class E>
void packLeft(const Matrix<E>& from, int64_t first, int64_t rows, int64_t columns, T* to, int64_t width) {
  if constexpr (kPairs) {
    packBits(from, first, rows, columns, to, width);
  } else {
    packRows(from, first, rows, columns, T(1), to, width);
  }
}

template <bool kPairs, class T, class E>
void packRight(const Matrix<E>& from, int64_t first, int64_t rows, int64_t columns, T* to, int64_t width) {
  if constexpr (kPairs) {
    packRowPairs(from, first, rows, columns, to, width);
  } else {
    packRows(from, first, rows, columns, T(1), to, width);
  }
}

constexpr uintptr_t kAlignment = 64;  // of packed rows: that of the widest vector

// Rows that lie in memory as packing would put them are used where they are. Null for others.
template <class T, class E>
const T* packedAlready(const Matrix<E>& from, int64_t first, int64_t rows, int64_t columns, int64_t width) {
  const auto* at = reinterpret_cast<const T*>(from.row(first));
  const bool dense = from.columnStride == 1 && from.rowStride == width && columns == width;
  return dense && rows % kRowMultiple == 0 && reinterpret_cast<uintptr_t>(at) % kAlignment == 0 ? at : nullptr;
}

template <bool kPairs, class T, class E>
const T* leftAlready(const Matrix<E>& from, int64_t first, int64_t rows, int64_t columns, int64_t width) {
  if constexpr (kPairs || std::is_same_v<T, E>) return packedAlready<T>(from, first, rows, columns, width);
  return nullptr;
}

template <bool kPairs, class T, class E>
const T* rightAlready(const Matrix<E>& from, int64_t first, int64_t rows, int64_t columns, int64_t width) {
  if constexpr (!kPairs && std::is_same_v<T, E>) return packedAlready<T>(from, first, rows, columns, width);
  return nullptr;
}

// A block of Q or dO transposed, for the products that have queries on the lanes; `rows` receives what it is made from.
template <bool kPairs, class T, class E>
void packTransposed(const Matrix<E>& from, int64_t first, int64_t count, int64_t columns, T scale, T* rows,
                    int64_t width, T* to) {
  if constexpr (kPairs) {
    packBits(from, first, count, columns, rows, width);
  } else {
    packRows(from, first, count, columns, scale, rows, width);
  }
  const int64_t rowFloats = inFloats<kPairs>(width);
  std::fill(rows + count * rowFloats, rows + kAttentionBlock * rowFloats, T(0));
  transposeBlock(rows, rowFloats, to);
}

}  // namespace gradus::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
