// The blocks of a GEMM and their order. After Goto & van de Geijn 2008 (Anatomy of high-performance matrix
// multiplication), with blocks of C as tasks: a task finishes its block over all of k before it leaves L2, so that
// bias, activation gradients and rounding to 16 bits need no further pass over memory.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "gemm.cc"
#include <dnnl.h>
#include <hwy/foreach_target.h>

#include <atomic>
#include <new>

#include "gemm_kernel-inl.h"
#include "gemm_plan-inl.h"
#include "gemm_rows-inl.h"
#include "parallel.h"

HWY_BEFORE_NAMESPACE();
namespace gradus::cpu::HWY_NAMESPACE {
namespace {

// E: the element of packed panels; see Pair.
template <class E>
class Product {
 public:
  using T = Sum<E>;

  Product(const Gemm& g, int threads, void* scratch) : g_(g), plan_(g, threads), threads_(threads) {
    kept_ = plan_.keepsB(g) ? g.keptB : nullptr;
    packedB_ = static_cast<E*>(kept_ ? kept_->data : scratch);
    bias_ = reinterpret_cast<T*>(static_cast<E*>(scratch) + (kept_ ? 0 : plan_.packedB()));
    private_ = reinterpret_cast<E*>(bias_ + plan_.bias(g));
    if (g.bias) {
      visitFloating(g.biasDType, [&](auto type) {
        const auto* from = static_cast<const decltype(type)*>(g.bias);
        for (int64_t j = 0; j < g.n; ++j) bias_[j] = static_cast<T>(widen(from[j]));
      });
    }
  }

  void run() {
    if (plan_.strip > 0) return runStrips();
    for (int64_t n0 = 0; n0 < g_.n; n0 += plan_.superN) {
      // one visit at least: an empty k still writes beta * C + bias
      for (int64_t k0 = 0; k0 < plan_.k || k0 == 0; k0 += plan_.superK) {
        super_ = {k0, std::min(plan_.superK, plan_.k - k0), n0, std::min(plan_.superN, g_.n - n0)};
        nextPanel_.store(0, std::memory_order_relaxed);
        nextTask_.store(0, std::memory_order_relaxed);
        const bool packed = kept_ && kept_->filled;
        if (threads_ == 1) {
          if (!packed) packPanels();
          runTasks(0);
          continue;
        }
#pragma omp parallel num_threads(threads_)
        {
          if (!packed) {
            packPanels();
#pragma omp barrier
          }
          runTasks(omp_get_thread_num());
        }
      }
    }
    if (kept_) kept_->filled = true;
  }

 private:
  struct Super {
    int64_t k0, depth, n0, cols;
  };

  void runStrips() {
    super_ = {0, plan_.k, 0, g_.n};
    const int64_t strips = (g_.n + plan_.strip - 1) / plan_.strip;
    const int64_t chunks = (g_.m + plan_.stripRows - 1) / plan_.stripRows;
    const auto work = [&](int thread) {
      E* packed = private_ + thread * plan_.packedA();
      for (int64_t at; (at = nextTask_.fetch_add(1, std::memory_order_relaxed)) < strips * chunks;) {
        const int64_t m0 = at / strips * plan_.stripRows, n = at % strips * plan_.strip;
        computeStrip(m0, std::min(plan_.stripRows, g_.m - m0), n, std::min(plan_.strip, g_.n - n), packed,
                     packed + Tile<E>::kPanelA);
      }
    };
    if (threads_ == 1) return work(0);
#pragma omp parallel num_threads(threads_)
    work(omp_get_thread_num());
  }

  void computeStrip(int64_t m0, int64_t rows, int64_t n, int64_t cols, E* packedA, E* packedB) {
    constexpr int64_t mr = Tile<E>::kRows, nr = Tile<E>::kCols;
    const int64_t count = steps();
    for (int64_t step = 0; step < count; ++step) {
      const int64_t from = stepAt(step), depth = stepAt(step + 1) - from;
      packB<E>(g_.b, g_.k, from, depth, n, cols, packedB);
      const int64_t whole = rows / mr * mr;
      packA<E>(g_.a, g_.m, g_.k, m0 + whole, rows - whole, from, depth, plan_.rowMajorA, packedA);
      for (int64_t r = 0; r < rows; r += mr) {
        TileSource<E> source{};
        source.depth = depth;
        source.bStride = nr;
        const int height = static_cast<int>(std::min(mr, rows - r));
        panelOfA(m0 + r, height, from, packedA, source);
        if (g_.rowSum && n == 0) addSumsOfPanel(source, m0 + r, height);
        for (int64_t j = 0; j < cols; j += nr) {
          source.b = packedB + j * depth;
          source.ahead = source.b;
          source.aheadStep = 0;
          if (j == 0) fetchPanelOfA(source);
          computeTile(source, m0 + r, height, n + j, static_cast<int>(std::min(nr, cols - j)), step == 0);
        }
      }
    }
  }

  // A tile of C, straight to its place.
  void computeTile(const TileSource<E>& source, int64_t row, int height, int64_t column, int width, bool first) {
    const int64_t at = row * g_.cRowStride + column;
    const TileTarget<T> to{plan_.narrows ? nullptr : static_cast<T*>(g_.c) + at,
                           plan_.narrows ? static_cast<BFloat16*>(g_.c) + at : nullptr,
                           g_.cRowStride,
                           height,
                           width,
                           static_cast<T>(g_.alpha),
                           first ? static_cast<T>(g_.beta) : T(1),
                           g_.bias && first ? bias_ + column : nullptr};
    plan_.rowMajorA ? tileOfRows<E, true>(source, to) : tileOfRows<E, false>(source, to);
  }

  // k in equal steps of at most kDepth
  int64_t steps() const { return (super_.depth + Tile<E>::kDepth - 1) / Tile<E>::kDepth; }
  int64_t stepAt(int64_t i) const { return super_.depth * i / steps(); }

  // Panel (step, column) of B: steps follow each other, and within one the panels of kCols columns.
  E* panelOf(int64_t from, int64_t depth, int64_t panel) const {
    return packedB_ + from * roundUp(super_.cols, Tile<E>::kCols) + panel * depth * Tile<E>::kCols;
  }

  void packPanels() {
    constexpr int64_t nr = Tile<E>::kCols, together = 8;  // panels a turn
    const int64_t panels = (super_.cols + nr - 1) / nr, first = plan_.packsB ? 0 : super_.cols / nr;
    const int64_t turns = (panels - first + together - 1) / together;
    for (int64_t at; (at = nextPanel_.fetch_add(1, std::memory_order_relaxed)) < turns * steps();) {
      const int64_t step = at / turns, panel = first + at % turns * together;
      const int64_t from = stepAt(step), depth = stepAt(step + 1) - from;
      packB<E>(g_.b, g_.k, super_.k0 + from, depth, super_.n0 + panel * nr,
               std::min(together * nr, super_.cols - panel * nr), panelOf(from, depth, panel));
    }
  }

  void runTasks(int thread) {
    const int64_t columnBlocks = (super_.cols + plan_.cols - 1) / plan_.cols;
    const int64_t rowBlocks = (g_.m + plan_.rows - 1) / plan_.rows;
    E* packed = private_ + thread * (plan_.packedA() + plan_.block());
    // Neighbouring tasks share the larger of their blocks of A and B as long as half of L2 holds it.
    const bool sharesColumns = super_.depth * plan_.cols * int64_t{sizeof(E)} <= int64_t{512} << 10;
    for (int64_t at; (at = nextTask_.fetch_add(1, std::memory_order_relaxed)) < rowBlocks * columnBlocks;) {
      const int64_t m0 = (sharesColumns ? at % rowBlocks : at / columnBlocks) * plan_.rows;
      const int64_t n = (sharesColumns ? at / rowBlocks : at % columnBlocks) * plan_.cols;
      computeBlock(m0, std::min(plan_.rows, g_.m - m0), n, std::min(plan_.cols, super_.cols - n), packed,
                   reinterpret_cast<T*>(packed + plan_.packedA()));
    }
  }

  // n counts from the super-block's first column.
  void computeBlock(int64_t m0, int64_t rows, int64_t n, int64_t cols, E* packedA, T* block) {
    constexpr int64_t mr = Tile<E>::kRows, nr = Tile<E>::kCols;
    const bool first = super_.k0 == 0, last = super_.k0 + super_.depth >= plan_.k;
    const int64_t column = super_.n0 + n;
    const int64_t inC = m0 * g_.cRowStride + column;
    T* c = plan_.narrows ? nullptr : plan_.direct ? static_cast<T*>(g_.c) + inC : block;
    BFloat16* narrow = plan_.narrows ? static_cast<BFloat16*>(g_.c) + inC : nullptr;
    const int64_t stride = plan_.direct ? g_.cRowStride : plan_.cols;
    const int64_t count = steps();
    if (count == 0) return computeEmpty(m0, rows, column, cols, c, stride);
    for (int64_t step = 0; step < count; ++step) {
      const int64_t from = stepAt(step), depth = stepAt(step + 1) - from;
      const int64_t asTheyLie = plan_.readsA ? rows / mr * mr : 0;
      packA<E>(g_.a, g_.m, g_.k, m0 + asTheyLie, rows - asTheyLie, super_.k0 + from, depth, plan_.rowMajorA,
               packedA + asTheyLie / mr * Tile<E>::kPanelA);
      if (g_.rowSum && column == 0) addSums(m0, rows, from, depth, packedA);
      const bool opens = step == 0 && (first || !plan_.direct);
      const T beta = !opens ? T(1) : plan_.direct ? static_cast<T>(g_.beta) : T(0);
      for (int64_t j = 0; j < cols; j += nr) {
        const int64_t width = std::min(nr, cols - j), panel = (n + j) / nr;
        const bool inPlace = !plan_.packsB && width == nr;
        TileSource<E> source{};
        source.depth = depth;
        source.b = inPlace ? static_cast<const E*>(g_.b.data) + (super_.k0 + from) * g_.b.rowStride + column + j
                           : panelOf(from, depth, panel);
        source.bStride = inPlace ? g_.b.rowStride : nr;
        for (int64_t r = 0; r < rows; r += mr) {
          const TileTarget<T> to{c ? c + r * stride + j : nullptr,
                                 narrow ? narrow + r * stride + j : nullptr,
                                 stride,
                                 static_cast<int>(std::min(mr, rows - r)),
                                 static_cast<int>(width),
                                 static_cast<T>(g_.alpha),
                                 beta,
                                 g_.bias && first && step == 0 ? bias_ + column + j : nullptr};
          panelOfA(m0 + r, to.rows, from, packedA + r / mr * Tile<E>::kPanelA, source);
          source.ahead = source.b;
          source.aheadStep = 0;
          if (j == 0 && plan_.readsA) {
            fetchPanelOfA(source);
          } else if (!inPlace) {
            // the next panel of B comes from L3: each row of tiles fetches an eighth
            source.ahead = source.b + nr * depth + r / mr * (nr * depth / 8);
            source.aheadStep = nr / 8;
          }
          plan_.rowMajorA ? tileOfRows<E, true>(source, to) : tileOfRows<E, false>(source, to);
        }
      }
    }
    if (!plan_.direct) storeWhole(m0, rows, column, cols, c, stride, first);
    if (last) finishBlock(m0, rows, column, cols);
  }

  const E* elementOfA(int64_t row, int64_t k) const {
    constexpr int per = kPerElement<E>;
    const auto at = row * (g_.a.rowStride / per) + (super_.k0 + k) * g_.a.colStride;
    return static_cast<const E*>(g_.a.data) + at;
  }

  void panelOfA(int64_t row, int height, int64_t from, const E* packed, TileSource<E>& source) const {
    const bool asItLies = plan_.readsA && height == Tile<E>::kRows;
    source.a = asItLies ? elementOfA(row, from) : packed;
    source.aStride = plan_.rowMajorA ? (asItLies ? g_.a.rowStride / kPerElement<E> : int64_t{Tile<E>::kStride})
                                     : (asItLies ? g_.a.colStride : int64_t{Tile<E>::kRows});
  }

  // The first tiles of a block meet A in memory, and each step of a column-major A is on a page of its own, where no
  // hardware looks ahead. Of a row-major A the next panel follows if its rows are short, else the hardware sees a row.
  void fetchPanelOfA(TileSource<E>& source) const {
    constexpr int64_t stepsAhead = 16, line = 64 / sizeof(E);
    if (!plan_.rowMajorA) {
      source.ahead = source.a + stepsAhead * source.aStride;
      source.aheadStep = source.aStride;
    } else if (source.aStride * static_cast<int64_t>(sizeof(E)) <= 8 << 10) {
      source.ahead = source.a + Tile<E>::kRows * source.aStride;
      source.aheadStep = line;
    }
  }

  void addSums(int64_t m0, int64_t rows, int64_t from, int64_t depth, const E* packedA) const {
    TileSource<E> source{};
    for (int64_t r = 0; r < rows; r += Tile<E>::kRows) {
      const int height = static_cast<int>(std::min<int64_t>(Tile<E>::kRows, rows - r));
      panelOfA(m0 + r, height, from, packedA + r / Tile<E>::kRows * Tile<E>::kPanelA, source);
      source.depth = depth;
      addSumsOfPanel(source, m0 + r, height);
    }
  }

  void addSumsOfPanel(const TileSource<E>& source, int64_t row, int height) const {
    addRowSums(source.a, source.aStride, source.depth, plan_.rowMajorA, height, static_cast<T*>(g_.rowSum) + row);
  }

  void storeWhole(int64_t m0, int64_t rows, int64_t column, int64_t cols, const T* block, int64_t stride, bool first) {
    const T beta = first ? static_cast<T>(g_.beta) : T(1);
    visitFloating(g_.cDType, [&](auto type) {
      using S = decltype(type);
      if constexpr ((sizeof(T) == 8) == (sizeof(S) == 8)) {
        storeBlock(block, stride, static_cast<S*>(g_.c) + m0 * g_.cRowStride + column * g_.cColStride, g_.cRowStride,
                   g_.cColStride, rows, cols, beta);
      }
    });
  }

  // What is made of a block of C while it is in the cache.
  void finishBlock(int64_t m0, int64_t rows, int64_t column, int64_t cols) {
    if (!g_.gradientAt && !g_.activated) return;
    if constexpr (kPerElement<E> == 2) {
      if (g_.cDType == DType::kBFloat16) return finishRows(static_cast<BFloat16*>(g_.c), m0, rows, column, cols);
    }
    finishRows(static_cast<T*>(g_.c), m0, rows, column, cols);
  }

  template <class S>
  void finishRows(S* c, int64_t m0, int64_t rows, int64_t column, int64_t cols) {
    c += m0 * g_.cRowStride + column;
    if constexpr (kPerElement<E> == 2 && std::is_same_v<S, BFloat16>) {
      if (g_.activatedPanels) return finishInPanels(c, m0, rows, column, cols);
    }
    S* activated = g_.activated ? static_cast<S*>(g_.activated) + m0 * g_.activatedRowStride + column : nullptr;
    visitOperand<T>(GemmOperand{g_.gradientAt, g_.gradientDType, 0, 0, g_.gradientOf}, [&](auto* x, auto kind) {
      if constexpr (kind() != Activation::kNone) {
        if (!g_.gradientAt) return activateRows<kind()>(c, g_.cRowStride, rows, cols, activated, g_.activatedRowStride);
        scaleByGradient<kind()>(c, g_.cRowStride, x + m0 * g_.gradientRowStride + column, g_.gradientRowStride, rows,
                                cols, activated, g_.activatedRowStride);
      }
    });
  }

#if GRADUS_PAIRS
  // As finishRows; activation(x) goes to panels of B whose depth are the rows of C.
  void finishInPanels(BFloat16* c, int64_t m0, int64_t rows, int64_t column, int64_t cols) {
    constexpr int64_t nr = Tile<E>::kCols;
    const int64_t depth = g_.m / 2;
    Pair* panels = static_cast<Pair*>(g_.activatedPanels->data) + column / nr * depth * nr + m0 / 2 * nr;
    visitOperand<T>(GemmOperand{g_.gradientAt, g_.gradientDType, 0, 0, g_.gradientOf}, [&](auto* x, auto kind) {
      if constexpr (kind() != Activation::kNone) {
        scaleByGradient<kind()>(c, g_.cRowStride, x + m0 * g_.gradientRowStride + column, g_.gradientRowStride, rows,
                                cols, panels, depth);
      }
    });
  }
#endif

  void computeEmpty(int64_t m0, int64_t rows, int64_t column, int64_t cols, T* c, int64_t stride) {
    const T beta = plan_.direct ? static_cast<T>(g_.beta) : T(0);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t j = 0; j < cols; ++j) {
        T& at = c[r * stride + j];
        at = (beta == T(0) ? T(0) : beta * at) + (g_.bias ? bias_[column + j] : T(0));
      }
    }
    if (!plan_.direct) storeWhole(m0, rows, column, cols, c, stride, true);
    finishBlock(m0, rows, column, cols);
  }

  const Gemm& g_;
  const Plan<E> plan_;
  const int threads_;
  E* packedB_;
  PackedOperand* kept_ = nullptr;
  T* bias_;
  E* private_;
  Super super_{};
  std::atomic<int64_t> nextPanel_{0}, nextTask_{0};
};

template <class E>
size_t bytesOf(const Gemm& g, int threads) {
  return hasFewRows(g) ? RowProduct<Sum<E>>::bytes(g) : Plan<E>(g, threads).bytes(g, threads);
}

template <class E>
size_t keptBytesOf(const Gemm& g, int threads) {
  const Plan<E> plan(g, threads);
  return !hasFewRows(g) && plan.packsWholeB(g) ? plan.packedB() * sizeof(E) : 0;
}

bool leavesWholePanels(const Gemm& from, const Gemm& to) {
#if GRADUS_PAIRS
  return computesInPairs(from) && from.cDType == DType::kBFloat16 && from.gradientAt && from.m == to.k &&
         from.n == to.n && from.m % 2 == 0 && from.n % Tile<Pair>::kCols == 0 && to.k / 2 <= Tile<Pair>::kDepth &&
         computesInPairs(to) && packedBytes(to) > 0;
#else
  return false;
#endif
}

template <class E>
void compute(const Gemm& g, int threads, void* scratch) {
  if (hasFewRows(g))
    RowProduct<Sum<E>>(g, static_cast<Sum<E>*>(scratch)).run(threads);
  else
    Product<E>(g, threads, scratch).run();
}

// Calls body with a value of the element type that the product packs.
template <class Body>
HWY_INLINE auto visitElement(const Gemm& g, const Body& body) {
  if (computesInDouble(g)) return body(double{});
#if GRADUS_PAIRS
  if (computesInPairs(g)) return body(Pair{});
#endif
  return body(float{});
}

size_t scratchBytes(const Gemm& g, int threads) {
  return visitElement(g, [&](auto element) { return bytesOf<decltype(element)>(g, threads); });
}

size_t keptBytes(const Gemm& g, int threads) {
  return visitElement(g, [&](auto element) { return keptBytesOf<decltype(element)>(g, threads); });
}

// The sums over k of a column-major A, on their own: a thread takes neighbouring rows of C.
void columnMajorRowSums(const Gemm& g, int threads) {
  constexpr int64_t lanes = Tile<float>::kLanes, block = 256;
  const auto* a = static_cast<const float*>(g.a.data);
  parallelFor(g.m, std::max<int64_t>(1, g.m / threads), [&](int64_t begin, int64_t end) HWY_ATTR {
    for (int64_t k0 = 0; k0 < g.k; k0 += block) {  // short chains of additions, summed up afterwards
      const int64_t k1 = std::min(g.k, k0 + block);
      for (int64_t m = begin; m < end; m += 4 * lanes) {
        const int64_t count = std::min(4 * lanes, end - m);
        float sums[4 * lanes] = {};
        for (int64_t k = k0; k < k1; ++k) {
          const float* row = a + m + k * g.a.colStride;
          for (int64_t i = 0; i < count; ++i) sums[i] += row[i];
        }
        for (int64_t i = 0; i < count; ++i) static_cast<float*>(g.rowSum)[m + i] += sums[i];
      }
    }
  });
}

void product(const Gemm& g, int threads, void* scratch) {
  visitElement(g, [&](auto element) { compute<decltype(element)>(g, threads, scratch); });
}

}  // namespace
}  // namespace gradus::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace gradus::cpu {

HWY_EXPORT(scratchBytes);
HWY_EXPORT(keptBytes);
HWY_EXPORT(product);
HWY_EXPORT(leavesWholePanels);
HWY_EXPORT(columnMajorRowSums);

namespace {

// Tiles run along rows of C: a C whose columns are contiguous is computed as C' = B' A'. So is one with few columns,
// because the width of a tile is fixed and its height is not.
bool wantsTransposed(const Gemm& g) {
  if (g.bias || g.gradientAt || g.activated || g.rowSum) return false;
  if (g.cColStride != 1 && g.cRowStride == 1) return true;
  return g.n < 8 && g.m > g.n;
}

Gemm oriented(const Gemm& g) {
  if (!wantsTransposed(g)) return g;
  Gemm t = g;
  std::swap(t.m, t.n);
  std::swap(t.a, t.b);
  std::swap(t.a.rowStride, t.a.colStride);
  std::swap(t.b.rowStride, t.b.colStride);
  std::swap(t.cRowStride, t.cColStride);
  t.keptB = nullptr;
  return t;
}

// Measured over the shapes of a transformer, oneDNN's product takes 0.83 to 1.02 of our time where A is read across its
// rows, as for the gradient of a weight, and 0.88 to 1.05 where both lie in rows, as for the gradient of an input; but
// up to 1.3 where B is read across its rows, as in a layer's forward. It has no fusions.
bool oneDnnIsFaster(const Gemm& g, int threads) {
  return threads == numThreads() && g.b.colStride == 1 && g.k >= 32 && std::min(g.m, g.n) >= 32 && fitsOneDnn(g);
}

}  // namespace

bool multipliesPairs() {
#if HWY_ARCH_X86
  static const bool pairs = __builtin_cpu_supports("avx512bf16");
  return pairs;
#else
  return false;
#endif
}

bool computesInPairs(const Gemm& g) {
  const auto is = [](DType dtype) { return dtype == DType::kBFloat16; };
  return (g.inBFloat16 || is(g.a.dtype) || is(g.b.dtype) || is(g.cDType)) && !computesInDouble(g) && multipliesPairs();
}

bool fitsOneDnn(const Gemm& g) {
  const auto plain = [](const GemmOperand& x) {
    return x.dtype == DType::kFloat32 && std::min(x.rowStride, x.colStride) == 1 && x.activation == Activation::kNone;
  };
  if (computesInPairs(g) || g.cDType != DType::kFloat32 || g.cColStride != 1 || g.bias || g.gradientAt || g.activated ||
      !plain(g.a) || !plain(g.b)) {
    return false;
  }
  if (g.rowSum && g.a.rowStride != 1) return false;
  return std::max(g.a.rowStride, g.a.colStride) >= (g.a.colStride == 1 ? g.k : g.m) &&
         std::max(g.b.rowStride, g.b.colStride) >= (g.b.colStride == 1 ? g.n : g.k) && g.cRowStride >= g.n;
}

void gemmByOneDnn(const Gemm& g) {
  const bool a = g.a.colStride != 1, b = g.b.colStride != 1;
  const auto status = dnnl_sgemm(a ? 'T' : 'N', b ? 'T' : 'N', g.m, g.n, g.k, static_cast<float>(g.alpha),
                                 static_cast<const float*>(g.a.data), a ? g.a.colStride : g.a.rowStride,
                                 static_cast<const float*>(g.b.data), b ? g.b.colStride : g.b.rowStride,
                                 static_cast<float>(g.beta), static_cast<float*>(g.c), g.cRowStride);
  if (status == dnnl_out_of_memory) throw std::bad_alloc();
  GRADUS_CHECK(status == dnnl_success, ErrorCode::kNative, "sgemm: oneDNN refused %lld x %lld x %lld with status %d",
               static_cast<long long>(g.m), static_cast<long long>(g.n), static_cast<long long>(g.k),
               static_cast<int>(status));
  if (g.rowSum) HWY_DYNAMIC_DISPATCH(columnMajorRowSums)(g, numThreads());
}

int gemmThreads(const Gemm& g) {
  // Waking a thread costs 5 us, and 100 us on a busy machine; one thread does this in 60. Few rows are bound by reading
  // the matrix, so its size decides.
  const double rows = static_cast<double>(std::max<int64_t>(16, std::min(g.m, g.n)));
  return 2.0 * rows * std::max(g.m, g.n) * g.k < 1.6e7 ? 1 : numThreads();
}

size_t gemmScratch(const Gemm& g, int threads) {
  return oneDnnIsFaster(g, threads) ? 0 : HWY_DYNAMIC_DISPATCH(scratchBytes)(oriented(g), threads);
}

size_t packedBytes(const Gemm& g) {
  const int threads = gemmThreads(g);
  const bool packs = g.m > 0 && g.n > 0 && !oneDnnIsFaster(g, threads) && !wantsTransposed(g);
  return packs ? HWY_DYNAMIC_DISPATCH(keptBytes)(g, threads) : 0;
}

bool leavesPacked(const Gemm& from, const Gemm& to) { return HWY_DYNAMIC_DISPATCH(leavesWholePanels)(from, to); }

void gemm(const Gemm& g, int threads, void* scratch) {
  if (g.m == 0 || g.n == 0) return;
  if (oneDnnIsFaster(g, threads)) return gemmByOneDnn(g);
  HWY_DYNAMIC_DISPATCH(product)(oriented(g), threads, scratch);
}

void gemm(const Gemm& g, const OpCall& call) { GemmSeries(call).multiply(g); }

PackedOperand GemmSeries::keep(const Gemm& g) const {
  const size_t bytes = packedBytes(g);
  return {bytes > 0 ? call_.workspace->take(bytes) : nullptr};
}

void GemmSeries::multiply(const Gemm& g) {
  if (g.m == 0 || g.n == 0) return;
  const int threads = gemmThreads(g);
  if (const size_t bytes = gemmScratch(g, threads); bytes > bytes_) {
    scratch_ = call_.workspace->take(bytes);
    bytes_ = bytes;
  }
  gemm(g, threads, scratch_);
}

}  // namespace gradus::cpu
#endif
