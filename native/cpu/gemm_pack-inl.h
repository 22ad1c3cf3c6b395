// Packing of GEMM operands: any strides and floating dtype to panels of the compute type, activated on the way.
#if defined(GRADUS_CPU_GEMM_PACK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GRADUS_CPU_GEMM_PACK_INL_H_
#undef GRADUS_CPU_GEMM_PACK_INL_H_
#else
#define GRADUS_CPU_GEMM_PACK_INL_H_
#endif

#include <algorithm>

#include "gelu-inl.h"
#include "gemm.h"
#include "simd.h"

HWY_BEFORE_NAMESPACE();
namespace gradus::cpu::HWY_NAMESPACE {

// Two bfloat16 that are neighbours along k: one element of a packed panel where the processor multiplies such pairs.
struct Pair {
  uint16_t first, second;
};

// What products of elements add up in.
template <class E>
using Sum = std::conditional_t<std::is_same_v<E, Pair>, float, E>;

// Steps along k in one element.
template <class E>
constexpr int kPerElement = std::is_same_v<E, Pair> ? 2 : 1;

// A tile of C stays in registers: kRows x 2 vectors. 14 x 2 accumulators, 2 vectors of B and one of A fill the 32
// registers of AVX-512 and NEON; 6 x 2 the 16 of AVX2 and SSE.
template <class T>
struct Tile {
  static constexpr int kLanes = static_cast<int>(hn::MaxLanes(hn::ScalableTag<Sum<T>>()));
#if HWY_TARGET <= HWY_AVX3 || HWY_TARGET == HWY_NEON
  static constexpr int kRows = 14;
#else
  static constexpr int kRows = 6;
#endif
  static constexpr int kCols = 2 * kLanes;
  // Steps of k between two visits of a tile of C: long enough that reading C back costs nothing (512 was 2 to 10 %
  // slower), short enough that a block of A stays in L2. Both panels stream, 13 bytes a cycle, so L1 need not hold
  // them.
  static constexpr int kDepth = 4096 / static_cast<int>(sizeof(T));
  // Row stride of a row-major panel of A: an odd number of cache lines, so that its rows fall into different sets.
  static constexpr int kStride = kDepth + 64 / static_cast<int>(sizeof(T));
  static constexpr int kPanelA = kRows * kStride + kLanes;  // elements, with room for the last vector's overhang
};

// kCoarse: the result is rounded to bfloat16.
template <Activation kind, bool kCoarse = false, class D>
HWY_INLINE vec::Of<D> activate(D d, vec::Of<D> x) {
  if constexpr (kind == Activation::kGeluTanh)
    return vec::geluTanh<kCoarse>(d, x);
  else if constexpr (kind == Activation::kGeluErf)
    return vec::geluErf(d, x);
  else
    return x;
}

template <Activation kind, class T>
HWY_INLINE T activateOne(T x) {
  const hn::CappedTag<T, 1> d;
  return hn::GetLane(activate<kind>(d, hn::Set(d, x)));
}

// --- rows copied as they lie -----------------------------------------------------------------------------------------

template <Activation kind, class T, class S>
HWY_INLINE void packRow(const S* source, int64_t count, T* to) {
  const hn::ScalableTag<T> d;
  constexpr int64_t lanes = Tile<T>::kLanes;
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) hn::StoreU(activate<kind>(d, vec::load(d, source + i)), d, to + i);
  if (i < count) vec::storeTail(d, activate<kind>(d, vec::loadTail(d, source + i, count - i)), to + i, count - i);
}

// [k][width] from a source whose elements along the panel's width are neighbours.
template <int width, Activation kind, class T, class S>
void packSteps(const S* source, int64_t stepStride, int64_t depth, int64_t count, T* to) {
  const hn::ScalableTag<T> d;
  constexpr int lanes = Tile<T>::kLanes;
  if (count == width && width % lanes == 0) {
    for (int64_t k = 0; k < depth; ++k) {
      for (int v = 0; v < width; v += lanes) {
        hn::StoreU(activate<kind>(d, vec::load(d, source + k * stepStride + v)), d, to + k * width + v);
      }
    }
    return;
  }
  for (int64_t k = 0; k < depth; ++k) {
    packRow<kind>(source + k * stepStride, count, to + k * width);
    for (int64_t i = count; i < width; ++i) to[k * width + i] = T(0);
  }
}

// --- transposed -----------------------------------------------------------------------------------------------------

// 4 x 4 elements, rows to columns.
template <class V, class D>
HWY_INLINE void transpose4(D d, V& a, V& b, V& c, V& e) {
  const hn::Repartition<uint64_t, D> d64;
  const auto ab0 = hn::BitCast(d64, hn::InterleaveLower(d, a, b)), ab1 = hn::BitCast(d64, hn::InterleaveUpper(d, a, b));
  const auto ce0 = hn::BitCast(d64, hn::InterleaveLower(d, c, e)), ce1 = hn::BitCast(d64, hn::InterleaveUpper(d, c, e));
  a = hn::BitCast(d, hn::InterleaveLower(d64, ab0, ce0));
  b = hn::BitCast(d, hn::InterleaveUpper(d64, ab0, ce0));
  c = hn::BitCast(d, hn::InterleaveLower(d64, ab1, ce1));
  e = hn::BitCast(d, hn::InterleaveUpper(d64, ab1, ce1));
}

// [k][width] from a source whose elements along k are neighbours; the columns beyond count are not written.
template <int width, Activation kind, class T, class S>
HWY_INLINE void transposeSome(const S* source, int64_t stride, int64_t depth, int64_t count, T* to) {
  int64_t column = 0;
  if constexpr (sizeof(T) == 4) {
    const hn::FixedTag<float, 4> d;
    for (; column + 4 <= count; column += 4) {
      const S* at = source + column * stride;
      int64_t k = 0;
      for (; k + 4 <= depth; k += 4) {
        auto v0 = vec::load(d, at + k), v1 = vec::load(d, at + stride + k);
        auto v2 = vec::load(d, at + 2 * stride + k), v3 = vec::load(d, at + 3 * stride + k);
        transpose4(d, v0, v1, v2, v3);
        hn::StoreU(activate<kind>(d, v0), d, to + k * width + column);
        hn::StoreU(activate<kind>(d, v1), d, to + (k + 1) * width + column);
        hn::StoreU(activate<kind>(d, v2), d, to + (k + 2) * width + column);
        hn::StoreU(activate<kind>(d, v3), d, to + (k + 3) * width + column);
      }
      for (; k < depth; ++k) {
        for (int i = 0; i < 4; ++i) to[k * width + column + i] = activateOne<kind>(T(widen(at[i * stride + k])));
      }
    }
  }
  for (; column < count; ++column) {
    for (int64_t k = 0; k < depth; ++k) {
      to[k * width + column] = activateOne<kind>(T(widen(source[column * stride + k])));
    }
  }
}

// The same with zeros in the other columns. A part at a time: four columns after four, a whole panel would pass through
// L1 eight times.
template <int width, Activation kind, class T, class S>
void packTransposed(const S* source, int64_t stride, int64_t depth, int64_t count, T* to) {
  constexpr int64_t part = 64;
  for (int64_t k = 0; k < depth; k += part) {
    const int64_t steps = std::min(part, depth - k);
    transposeSome<width, kind>(source + k, stride, steps, count, to + k * width);
    for (int64_t step = k; step < k + steps && count < width; ++step) {
      std::fill(to + step * width + count, to + (step + 1) * width, T(0));
    }
  }
}

template <int width, Activation kind, class T, class S>
void packAny(const S* source, int64_t stride, int64_t stepStride, int64_t depth, int64_t count, T* to) {
  for (int64_t k = 0; k < depth; ++k) {
    for (int64_t i = 0; i < width; ++i) {
      to[k * width + i] = i < count ? activateOne<kind>(T(widen(source[i * stride + k * stepStride]))) : T(0);
    }
  }
}

// --- entry ----------------------------------------------------------------------------------------------------------

// Calls body(pointer of the source type, std::integral_constant of the activation).
template <class T, class Body>
HWY_INLINE void visitOperand(const GemmOperand& operand, const Body& body) {
  const auto withActivation = [&](auto* data) {
    using A = Activation;
    switch (operand.activation) {
      case A::kGeluTanh:
        return body(data, std::integral_constant<A, A::kGeluTanh>());
      case A::kGeluErf:
        return body(data, std::integral_constant<A, A::kGeluErf>());
      default:
        return body(data, std::integral_constant<A, A::kNone>());
    }
  };
  if constexpr (sizeof(T) == 8) {
    withActivation(static_cast<const double*>(operand.data));
  } else {
    switch (operand.dtype) {
      case DType::kFloat16:
        return withActivation(static_cast<const Float16*>(operand.data));
      case DType::kBFloat16:
        return withActivation(static_cast<const BFloat16*>(operand.data));
      default:
        return withActivation(static_cast<const float*>(operand.data));
    }
  }
}

// `panels` whole panels side by side, [panels][depth][kCols]. Row by row over all of them: a single panel would read
// 128 bytes of every row, and each row of a wide matrix is on a page of its own.
template <Activation kind, class T, class S>
void packPanels(const S* source, int64_t stepStride, int64_t depth, int64_t panels, T* to) {
  const hn::ScalableTag<T> d;
  constexpr int lanes = Tile<T>::kLanes, width = Tile<T>::kCols;
  for (int64_t k = 0; k < depth; ++k) {
    const S* row = source + k * stepStride;
    for (int64_t p = 0; p < panels; ++p) {
      T* at = to + (p * depth + k) * width;
      hn::StoreU(activate<kind>(d, vec::load(d, row + p * width)), d, at);
      hn::StoreU(activate<kind>(d, vec::load(d, row + p * width + lanes)), d, at + lanes);
    }
  }
}

template <int width, Activation kind, class T, class S>
HWY_INLINE void packPanel(const S* source, const GemmOperand& b, int64_t depth, int64_t count, T* to) {
  if (b.colStride == 1)
    packSteps<width, kind>(source, b.rowStride, depth, count, to);
  else if (b.rowStride == 1)
    packTransposed<width, kind>(source, b.colStride, depth, count, to);
  else
    packAny<width, kind>(source, b.colStride, b.rowStride, depth, count, to);
}

// Columns [n0, n0 + count) of rows [k0, k0 + depth) of B [k, n] -> [panels][depth][kCols], missing columns 0.
template <class T>
HWY_NOINLINE void packB(const GemmOperand& b, int64_t k, int64_t k0, int64_t depth, int64_t n0, int64_t count, T* to) {
  constexpr int width = Tile<T>::kCols;
  visitOperand<T>(b, [&](auto* data, auto kind) {
    auto* source = data + k0 * b.rowStride + n0 * b.colStride;
    int64_t left = count;
    if (b.colStride == 1 && count >= width) {
      packPanels<kind()>(source, b.rowStride, depth, count / width, to);
      source += count / width * width;
      to += count / width * width * depth;
      left = count % width;
    }
    for (; left > 0; left -= width, source += width * b.colStride, to += width * depth) {
      packPanel<width, kind()>(source, b, depth, std::min<int64_t>(left, width), to);
    }
  });
}

// `panels` whole panels of a column-major A, each [depth][kRows], kPanelA apart: k by k over all of them, because the
// rows of a task are neighbours in memory and each k is on a page of its own. The last vector of a step overhangs: what
// it writes too far the next step overwrites, and what it reads too far is of the matrix but at its end.
template <Activation kind, class T, class S>
void packColumnPanels(const S* source, int64_t stepStride, int64_t depth, int64_t panels, bool mayOverread, T* to) {
  const hn::ScalableTag<T> d;
  constexpr int lanes = Tile<T>::kLanes, width = Tile<T>::kRows, vectors = (width + lanes - 1) / lanes;
  const int64_t safe = width % lanes == 0 || mayOverread ? depth
                       : stepStride > 0                  ? std::max<int64_t>(0, depth - lanes)
                                                         : 0;
  for (int64_t k = 0; k < safe; ++k) {
    for (int64_t p = 0; p < panels; ++p) {
      const S* from = source + k * stepStride + p * width;
      T* at = to + p * Tile<T>::kPanelA + k * width;
      for (int v = 0; v < vectors; ++v) {
        hn::StoreU(activate<kind>(d, vec::load(d, from + v * lanes)), d, at + v * lanes);
      }
    }
  }
  for (int64_t k = safe; k < depth; ++k) {
    for (int64_t p = 0; p < panels; ++p) {
      packRow<kind>(source + k * stepStride + p * width, width, to + p * Tile<T>::kPanelA + k * width);
    }
  }
}

// Rows [m0, m0 + count) of columns [k0, k0 + depth) of A [m, k] as panels of kRows, kPanelA apart: row-major
// [kRows][kStride] when `rowMajor`, else [depth][kRows]; missing rows 0. No transposition either way: the kernel
// broadcasts single elements of A, so a panel may lie as its matrix does.
template <class T>
HWY_NOINLINE void packA(const GemmOperand& a, int64_t m, int64_t k, int64_t m0, int64_t count, int64_t k0,
                        int64_t depth, bool rowMajor, T* to) {
  constexpr int rows = Tile<T>::kRows;
  visitOperand<T>(a, [&](auto* data, auto kind) {
    auto* source = data + m0 * a.rowStride + k0 * a.colStride;
    int64_t r = 0;
    if (!rowMajor && a.rowStride == 1) {
      const int64_t whole = count / rows;
      packColumnPanels<kind()>(source, a.colStride, depth, whole, m0 + whole * rows + Tile<T>::kLanes <= m, to);
      r = whole * rows;
    }
    for (; r < count; r += rows) {
      auto* from = source + r * a.rowStride;
      T* panel = to + r / rows * Tile<T>::kPanelA;
      const int64_t height = std::min<int64_t>(rows, count - r);
      if (!rowMajor) {
        a.rowStride == 1 ? packSteps<rows, kind()>(from, a.colStride, depth, height, panel)
                         : packAny<rows, kind()>(from, a.rowStride, a.colStride, depth, height, panel);
        continue;
      }
      for (int i = 0; i < rows; ++i) {
        T* row = panel + i * Tile<T>::kStride;
        if (i < height)
          packRow<kind()>(from + i * a.rowStride, depth, row);
        else
          std::memset(static_cast<void*>(row), 0, depth * sizeof(T));
      }
    }
  });
}

// Adds the sums over k of the rows of a panel, packed or as it lies.
template <class T>
HWY_NOINLINE void addRowSums(const T* panel, int64_t stride, int64_t depth, bool rowMajor, int64_t count, T* sums) {
  const hn::ScalableTag<T> d;
  constexpr int lanes = Tile<T>::kLanes;
  if (rowMajor) {
    for (int r = 0; r < count; ++r) {
      const T* row = panel + r * stride;
      auto sum = hn::Zero(d);
      int64_t k = 0;
      for (; k + lanes <= depth; k += lanes) sum = hn::Add(sum, hn::LoadU(d, row + k));
      if (k < depth) sum = hn::Add(sum, vec::loadTail(d, row + k, depth - k));
      sums[r] += vec::sumLanes(d, sum);
    }
    return;
  }
  T total[Tile<T>::kRows] = {};
  for (int64_t k = 0; k < depth; ++k) {
    for (int64_t r = 0; r < count; ++r) total[r] += panel[k * stride + r];
  }
  for (int64_t r = 0; r < count; ++r) sums[r] += total[r];
}

}  // namespace gradus::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
