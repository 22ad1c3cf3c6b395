// How a GEMM is cut: super-blocks of B that are packed together, and the blocks of C that are its tasks.
#if defined(GRADUS_CPU_GEMM_PLAN_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GRADUS_CPU_GEMM_PLAN_INL_H_
#undef GRADUS_CPU_GEMM_PLAN_INL_H_
#else
#define GRADUS_CPU_GEMM_PLAN_INL_H_
#endif

#include <algorithm>

#include "gemm_pack-inl.h"

HWY_BEFORE_NAMESPACE();
namespace gradus::cpu::HWY_NAMESPACE {

constexpr int64_t roundUp(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

template <class E>
struct Plan {
  using T = Sum<E>;
  // B is packed in super-blocks of at most 8 MB, which L3 keeps while every block of rows of A passes.
  static constexpr int64_t kPackedB = (8 << 20) / sizeof(E);
  static constexpr int64_t kMostCols = 768, kMostRows = 112, kUnpackedRows = 512;
  static constexpr int64_t kStripRows = 512, kStripDepth = 128;

  int64_t k;               // elements along k
  int64_t superK, superN;  // extent of a packed super-block
  int64_t rows, cols;      // extent of a task's block of C
  bool narrows;            // tiles are whole sums and are rounded to C's bfloat16 as they leave the registers
  bool direct;             // tiles go straight to C: it has unit column stride, and the compute type unless `narrows`
  bool packsB;             // false: B's rows are read where they lie
  bool rowMajorA;
  bool readsA;  // whole panels of A are read where they lie, too
  // Columns of B that a thread packs for itself, into a buffer that stays in its L2, and multiplies with stripRows of
  // A; 0: threads share a packed B, and a block of A stays in L2. Of few rows packing is what takes the time, and a
  // strip does half of it: a shared B is written to the cache of one core and fetched from there by the other. (128
  // rows of 768 x 768: 1.5 times as fast; 512: 1.04; 1024: the same; 2048: 0.97.)
  int64_t strip = 0, stripRows = 0;

  static constexpr DType own = sizeof(T) == 8 ? DType::kFloat64 : DType::kFloat32;

  Plan(const Gemm& g, int threads) {
    constexpr int64_t nr = Tile<E>::kCols;
    constexpr bool pairs = kPerElement<E> == 2;
    k = (g.k + kPerElement<E> - 1) / kPerElement<E>;
    const bool unitColumns = g.cColStride == 1 || g.n == 1;
    narrows = pairs && g.cDType == DType::kBFloat16 && unitColumns && g.beta == 0 && k > 0 && k <= Tile<E>::kDepth;
    direct = narrows || (g.cDType == own && unitColumns);
    // A block that is rounded to 16 bits is rounded once, so its k stays whole.
    superK = std::max<int64_t>(1, direct ? std::min(k, mostK(g.n)) : k);
    superN = std::min(roundUp(g.n, nr), std::max(nr, kPackedB / superK / nr * nr));
    chooseBlock(g.m, threads);
    // A copy of B costs as much as a hundred rows of the product; without one only a last, partial panel is copied, for
    // its zeros.
    packsB =
        pairs || g.m > kUnpackedRows || g.b.dtype != own || g.b.colStride != 1 || g.b.activation != Activation::kNone;
    rowMajorA = g.a.colStride == 1 || g.k == 1;
    // A tile reads each element of A once and 32 products use it, so a copy gains nothing, unless the rows lie whole
    // pages apart: then all of them fall into one set of L1.
    const bool pageApart = rowMajorA && g.a.rowStride * static_cast<int64_t>(itemSize(g.a.dtype)) % 4096 == 0;
    readsA = g.a.activation == Activation::kNone && !pageApart &&
             (pairs ? g.a.dtype == DType::kBFloat16 && g.a.colStride == 1 && (g.k % 2 == 0 || g.a.zeroFollows) &&
                          g.a.rowStride % 2 == 0
                    : g.a.dtype == own && (rowMajorA || g.a.rowStride == 1));
    // What a block is finished with is read in rows, which a strip would cut into two lines each.
    const bool finishes = g.gradientAt || g.activated;
    if (readsA && packsB && direct && !finishes && g.m <= kStripRows && g.k >= kStripDepth)
      chooseStrip(g.m, g.n, threads);
  }

  // A B that products share when it is one super-block.
  bool packsWholeB(const Gemm& g) const { return packsB && strip == 0 && superK >= k && superN >= g.n; }
  bool keepsB(const Gemm& g) const { return g.keptB && g.keptB->data && packsWholeB(g); }
  int64_t packedB() const { return strip > 0 ? 0 : roundUp(superK * superN, 16); }
  int64_t packedA() const {
    if (strip > 0) return roundUp(Tile<E>::kPanelA + strip * std::min<int64_t>(k, Tile<E>::kDepth), 16);
    return roundUp((rows / Tile<E>::kRows) * int64_t{Tile<E>::kPanelA}, 16);
  }
  int64_t block() const { return direct ? 0 : roundUp(rows * cols, 16); }
  int64_t bias(const Gemm& g) const { return g.bias ? roundUp(g.n + Tile<E>::kCols, 16) : 0; }
  size_t bytes(const Gemm& g, int threads) const {
    return ((keepsB(g) ? 0 : packedB()) + threads * packedA()) * sizeof(E) + (bias(g) + threads * block()) * sizeof(T);
  }

 private:
  // Every super-block of columns reads A once more and every one of k adds to C once more; both move least with blocks
  // of about 1024 columns.
  static int64_t mostK(int64_t n) {
    const int64_t columns = std::min<int64_t>(roundUp(n, Tile<E>::kCols), 1024);
    return std::max<int64_t>(Tile<E>::kDepth, kPackedB / columns);
  }

  void chooseStrip(int64_t m, int64_t n, int threads) {
    constexpr int64_t mr = Tile<E>::kRows;
    strip = 2 * Tile<E>::kCols;
    const int64_t columns = (n + strip - 1) / strip;
    const int64_t chunks = (6 * threads + columns - 1) / columns;  // tasks enough for the threads to end together
    stripRows = std::max(roundUp((m + chunks - 1) / chunks, mr), kMostRows / mr * mr);
  }

  // The largest block whose tasks leave no thread idle at the end.
  void chooseBlock(int64_t m, int threads) {
    constexpr int64_t mr = Tile<E>::kRows, nr = Tile<E>::kCols;
    const int64_t fewest = (superN + kMostCols - 1) / kMostCols, largest = std::max(mr, kMostRows / mr * mr);
    int64_t best = INT64_MAX;
    rows = mr;  // the compiler cannot see that the loops below find something
    cols = nr;
    for (int64_t split = fewest; split <= 2 * fewest; ++split) {
      const int64_t width = roundUp((superN + split - 1) / split, nr), columns = (superN + width - 1) / width;
      for (int64_t r = largest; r >= mr && (r >= largest / 4 || best == INT64_MAX); r -= mr) {
        const int64_t longest = busiest(m, r, columns, threads) * width;
        if (longest < best) {
          best = longest;
          rows = r;
          cols = width;
        }
      }
    }
  }

  // Rows that the busiest thread computes when blocks of r rows are dealt out in order and the last row of blocks is
  // short.
  static int64_t busiest(int64_t m, int64_t r, int64_t columns, int threads) {
    const int64_t whole = m / r * columns, shortRows = roundUp(m % r, Tile<E>::kRows);
    const int64_t shorts = shortRows > 0 ? columns : 0, level = whole / threads * r;
    const int64_t ahead = whole % threads;  // threads with one whole block more than the others
    if (shorts <= threads - ahead) return level + (ahead > 0 ? r : shorts > 0 ? shortRows : 0);
    return (whole * r + shorts * shortRows + threads - 1) / threads + shortRows / 2;
  }
};

}  // namespace gradus::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
