// Products of bfloat16: AVX512-BF16 multiplies pairs that are neighbours along k and adds both products to a float32.
// A pair is one element of a packed panel, so tiles, blocks and plans are those of float32 with half the depth; here is
// what differs: the packing and the rounding of a tile.
#if defined(GRADUS_CPU_GEMM_PAIRS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GRADUS_CPU_GEMM_PAIRS_INL_H_
#undef GRADUS_CPU_GEMM_PAIRS_INL_H_
#else
#define GRADUS_CPU_GEMM_PAIRS_INL_H_
#endif

#include <algorithm>

#include "gemm_pack-inl.h"
#include "pairs-inl.h"

#if GRADUS_PAIRS
HWY_BEFORE_NAMESPACE();
namespace gradus::cpu::HWY_NAMESPACE {

using Floats = hn::ScalableTag<float>;
using Halves = hn::Rebind<uint16_t, Floats>;
using Words = hn::Rebind<uint32_t, Floats>;

HWY_INLINE hn::Vec<Halves> rounded(FloatVector v) { return hn::Vec<Halves>{roundToHalves(v)}; }

// 32 neighbours.
HWY_INLINE void storeNarrow(FloatVector v0, FloatVector v1, BFloat16* to) {
  _mm512_storeu_si512(to, roundToHalves(v0, v1));
}

// --- neighbours along k on different rows of memory ------------------------------------------------------------------

template <Activation kind, class S>
HWY_INLINE hn::Vec<Halves> loadHalves(const S* p) {
  if constexpr (std::is_same_v<S, BFloat16> && kind == Activation::kNone) {
    return hn::LoadU(Halves(), &p->bits);
  } else {
    return rounded(activate<kind, true>(Floats(), vec::load(Floats(), p)));
  }
}

template <Activation kind, class S>
HWY_INLINE hn::Vec<Halves> loadHalves(const S* p, int64_t count) {
  return rounded(activate<kind, true>(Floats(), vec::loadTail(Floats(), p, count)));
}

HWY_INLINE void storePairs(hn::Vec<Halves> first, hn::Vec<Halves> second, Pair* to) {
  const Words d;
  const auto pairs = hn::Or(hn::PromoteTo(d, first), hn::ShiftLeft<16>(hn::PromoteTo(d, second)));
  hn::StoreU(pairs, d, reinterpret_cast<uint32_t*>(to));
}

// [depth][width] pairs of `width` <= 32 columns, of which `count` are there. `depth` pairs of rows; the last one may
// lack its second row.
template <Activation kind, class S>
void interleave(const S* source, int64_t stride, int64_t left, int64_t depth, int64_t count, int64_t width, Pair* to) {
  constexpr int64_t lanes = Tile<Pair>::kLanes;
  for (int64_t k = 0; k < depth; ++k, to += width) {
    const S* first = source + 2 * k * stride;
    const S* second = 2 * k + 1 < left ? first + stride : nullptr;
    for (int64_t j = 0; j < width; j += lanes) {
      const int64_t n = std::min(lanes, count - j);
      auto a = hn::Zero(Halves()), b = a;
      if (n > 0) a = loadHalves<kind>(first + j, n);
      if (n > 0 && second) b = loadHalves<kind>(second + j, n);
      alignas(64) Pair pairs[lanes];
      storePairs(a, b, pairs);
      std::memcpy(to + j, pairs, std::min(lanes, width - j) * sizeof(Pair));
    }
  }
}

// Whole panels of kCols columns side by side; see packPanels. No row is missing.
template <Activation kind, class S>
void interleavePanels(const S* source, int64_t stride, int64_t depth, int64_t panels, Pair* to) {
  constexpr int64_t lanes = Tile<Pair>::kLanes, width = Tile<Pair>::kCols;
  for (int64_t k = 0; k < depth; ++k) {
    const S *first = source + 2 * k * stride, *second = first + stride;
    for (int64_t p = 0; p < panels; ++p, first += width, second += width) {
      Pair* at = to + (p * depth + k) * width;
      storePairs(loadHalves<kind>(first), loadHalves<kind>(second), at);
      storePairs(loadHalves<kind>(first + lanes), loadHalves<kind>(second + lanes), at + lanes);
    }
  }
}

// Whole panels of kRows rows of a column-major A; see packColumnPanels. The last vector of a step overhangs, in the
// source and in the panel. No row of the source is missing. Every row of it is on a page of its own, where the hardware
// does not look ahead.
template <Activation kind, class S>
void interleaveColumns(const S* source, int64_t stride, int64_t depth, int64_t panels, Pair* to) {
  constexpr int64_t height = Tile<Pair>::kRows, rowsAhead = 48;
  static_assert(height <= Tile<Pair>::kLanes);
  for (int64_t k = 0; k < depth; ++k) {
    const S *first = source + 2 * k * stride, *second = first + stride;
    for (int64_t p = 0; p < panels; ++p, first += height, second += height) {
      __builtin_prefetch(first + rowsAhead * stride);
      __builtin_prefetch(second + rowsAhead * stride);
      storePairs(loadHalves<kind>(first), loadHalves<kind>(second), to + p * Tile<Pair>::kPanelA + k * height);
    }
  }
}

// --- neighbours along k side by side in memory -----------------------------------------------------------------------

// `left` values of one row along k as pairs: as they lie, or converted to `buffer`. A missing second half is 0.
template <Activation kind, class S>
const Pair* pairsOfRow(const S* source, int64_t left, Pair* buffer) {
  if constexpr (std::is_same_v<S, BFloat16> && kind == Activation::kNone) {
    if (left % 2 == 0) return reinterpret_cast<const Pair*>(source);
  }
  constexpr int64_t lanes = Tile<Pair>::kLanes;
  auto* to = reinterpret_cast<uint16_t*>(buffer);
  int64_t i = 0;
  for (; i + lanes <= left; i += lanes) hn::StoreU(loadHalves<kind>(source + i), Halves(), to + i);
  if (i < left) {
    alignas(64) uint16_t tail[lanes];
    hn::StoreU(loadHalves<kind>(source + i, left - i), Halves(), tail);
    std::memcpy(to + i, tail, (left - i) * sizeof *tail);
  }
  if (left % 2 != 0) to[left] = 0;
  return buffer;
}

// [depth][kCols] from columns whose elements along k are neighbours. left: values along k, 2 depth or one less.
template <Activation kind, class S>
void transposePairs(const S* source, int64_t stride, int64_t left, int64_t depth, int64_t count, Pair* to) {
  constexpr int64_t width = Tile<Pair>::kCols;
  const hn::FixedTag<float, 4> d;  // moved, not computed with
  Pair buffers[4][Tile<Pair>::kDepth];
  for (int64_t column = 0; column < width; column += 4) {
    const Pair* rows[4];
    const int64_t present = std::clamp<int64_t>(count - column, 0, 4);
    for (int64_t i = 0; i < 4; ++i) {
      if (i < present) {
        rows[i] = pairsOfRow<kind>(source + (column + i) * stride, left, buffers[i]);
      } else {
        std::memset(static_cast<void*>(buffers[i]), 0, depth * sizeof(Pair));
        rows[i] = buffers[i];
      }
    }
    const auto load = [&](int64_t i, int64_t k)
                          HWY_ATTR { return hn::LoadU(d, reinterpret_cast<const float*>(rows[i] + k)); };
    int64_t k = 0;
    for (; k + 4 <= depth; k += 4) {
      auto v0 = load(0, k), v1 = load(1, k), v2 = load(2, k), v3 = load(3, k);
      transpose4(d, v0, v1, v2, v3);
      hn::StoreU(v0, d, reinterpret_cast<float*>(to + k * width + column));
      hn::StoreU(v1, d, reinterpret_cast<float*>(to + (k + 1) * width + column));
      hn::StoreU(v2, d, reinterpret_cast<float*>(to + (k + 2) * width + column));
      hn::StoreU(v3, d, reinterpret_cast<float*>(to + (k + 3) * width + column));
    }
    for (; k < depth; ++k) {
      for (int64_t i = 0; i < 4; ++i) to[k * width + column + i] = rows[i][k];
    }
  }
}

template <Activation kind, class S>
void packAnyPairs(const S* source, int64_t stride, int64_t stepStride, int64_t left, int64_t depth, int64_t count,
                  int64_t width, Pair* to) {
  const auto value = [&](int64_t i, int64_t k) -> uint16_t {
    if (i >= count || k >= left) return 0;
    return Narrow<BFloat16>::from(activateOne<kind>(float(widen(source[i * stride + k * stepStride])))).bits;
  };
  for (int64_t k = 0; k < depth; ++k) {
    for (int64_t i = 0; i < width; ++i) to[k * width + i] = {value(i, 2 * k), value(i, 2 * k + 1)};
  }
}

// --- entry -----------------------------------------------------------------------------------------------------------

// As for other elements; k0 and depth count pairs.
template <>
HWY_NOINLINE void packB<Pair>(const GemmOperand& b, int64_t k, int64_t k0, int64_t depth, int64_t n0, int64_t count,
                              Pair* to) {
  constexpr int64_t width = Tile<Pair>::kCols;
  const int64_t left = std::min(2 * depth, k - 2 * k0);
  visitOperand<float>(b, [&](auto* data, auto kind) {
    auto* source = data + 2 * k0 * b.rowStride + n0 * b.colStride;
    int64_t columns = count;
    if (b.colStride == 1 && left == 2 * depth && count >= width) {
      interleavePanels<kind()>(source, b.rowStride, depth, count / width, to);
      source += count / width * width;
      to += count / width * width * depth;
      columns = count % width;
    }
    for (; columns > 0; columns -= width, source += width * b.colStride, to += width * depth) {
      const int64_t present = std::min(columns, width);
      if (b.colStride == 1)
        interleave<kind()>(source, b.rowStride, left, depth, present, width, to);
      else if (b.rowStride == 1)
        transposePairs<kind()>(source, b.colStride, left, depth, present, to);
      else
        packAnyPairs<kind()>(source, b.colStride, b.rowStride, left, depth, present, width, to);
    }
  });
}

template <>
HWY_NOINLINE void packA<Pair>(const GemmOperand& a, int64_t m, int64_t k, int64_t m0, int64_t count, int64_t k0,
                              int64_t depth, bool rowMajor, Pair* to) {
  constexpr int64_t rows = Tile<Pair>::kRows;
  const int64_t left = std::min(2 * depth, k - 2 * k0);
  visitOperand<float>(a, [&](auto* data, auto kind) {
    auto* source = data + m0 * a.rowStride + 2 * k0 * a.colStride;
    int64_t r = 0;
    if (!rowMajor && a.rowStride == 1 && left == 2 * depth) {
      // a panel may read a vector's width, which the matrix must have
      const int64_t readable = (m - m0 - Tile<Pair>::kLanes) / rows + 1;
      const int64_t whole = m - m0 < Tile<Pair>::kLanes ? 0 : std::min(count / rows, readable);
      interleaveColumns<kind()>(source, a.colStride, depth, whole, to);
      r = whole * rows;
    }
    for (; r < count; r += rows) {
      auto* from = source + r * a.rowStride;
      Pair* panel = to + r / rows * Tile<Pair>::kPanelA;
      const int64_t height = std::min(rows, count - r);
      if (!rowMajor) {
        a.rowStride == 1 ? interleave<kind()>(from, a.colStride, left, depth, height, rows, panel)
                         : packAnyPairs<kind()>(from, a.rowStride, a.colStride, left, depth, height, rows, panel);
        continue;
      }
      for (int64_t i = 0; i < rows; ++i) {
        Pair* row = panel + i * Tile<Pair>::kStride;
        if (i >= height) {
          std::memset(static_cast<void*>(row), 0, depth * sizeof(Pair));
        } else if (const Pair* pairs = pairsOfRow<kind()>(from + i * a.rowStride, left, row); pairs != row) {
          std::memcpy(static_cast<void*>(row), pairs, depth * sizeof(Pair));
        }
      }
    }
  });
}

// By multiplying with ones: sums of pairs are what the instruction makes.
HWY_NOINLINE inline void addRowSums(const Pair* panel, int64_t stride, int64_t depth, bool rowMajor, int64_t count,
                                    float* sums) {
  constexpr int64_t lanes = Tile<Pair>::kLanes, rows = Tile<Pair>::kRows;
  const Floats d;
  const auto load = [](const Pair* p) HWY_ATTR {
    return hn::BitCast(Floats(), hn::LoadU(Words(), reinterpret_cast<const uint32_t*>(p)));
  };
  const auto loadSome = [](const Pair* p, int64_t n) HWY_ATTR {
    return hn::BitCast(Floats(), hn::MaskedLoad(hn::FirstN(Words(), n), Words(), reinterpret_cast<const uint32_t*>(p)));
  };
  const auto ones = hn::BitCast(d, hn::Set(Words(), 0x3f803f80u));
  if (!rowMajor) {
    auto even = hn::Zero(d), odd = hn::Zero(d);
    int64_t k = 0;
    for (; k + 2 <= depth; k += 2) {
      even = addPairProduct(even, loadSome(panel + k * stride, count), ones);
      odd = addPairProduct(odd, loadSome(panel + (k + 1) * stride, count), ones);
    }
    if (k < depth) even = addPairProduct(even, loadSome(panel + k * stride, count), ones);
    static_assert(rows <= lanes);
    alignas(64) float total[lanes];
    hn::Store(hn::Add(even, odd), d, total);
    for (int64_t r = 0; r < count; ++r) sums[r] += total[r];
    return;
  }
  for (int64_t r = 0; r < count; ++r) {
    const Pair* row = panel + r * stride;
    auto sum = hn::Zero(d);
    int64_t k = 0;
    for (; k + lanes <= depth; k += lanes) sum = addPairProduct(sum, load(row + k), ones);
    if (k < depth) sum = addPairProduct(sum, loadSome(row + k, depth - k), ones);
    sums[r] += vec::sumLanes(d, sum);
  }
}

}  // namespace gradus::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // GRADUS_PAIRS

#endif  // per-target include guard
