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

template <class T>
class Product {
 public:
  Product(const Gemm& g, int threads, T* scratch) : g_(g), plan_(g, threads), threads_(threads) {
    packedB_ = scratch;
    bias_ = packedB_ + plan_.packedB();
    private_ = bias_ + plan_.bias(g);
    if (g.bias) {
      visitFloating(g.cDType, [&](auto type) {
        const auto* from = static_cast<const decltype(type)*>(g.bias);
        for (int64_t j = 0; j < g.n; ++j) bias_[j] = T(widen(from[j]));
      });
    }
  }

  void run() {
    for (int64_t n0 = 0; n0 < g_.n; n0 += plan_.superN) {
      // one visit at least: an empty k still writes beta * C + bias
      for (int64_t k0 = 0; k0 < g_.k || k0 == 0; k0 += plan_.superK) {
        super_ = {k0, std::min(plan_.superK, g_.k - k0), n0, std::min(plan_.superN, g_.n - n0)};
        nextPanel_.store(0, std::memory_order_relaxed);
        nextTask_.store(0, std::memory_order_relaxed);
        if (threads_ == 1) {
          packPanels();
          runTasks(0);
          continue;
        }
#pragma omp parallel num_threads(threads_)
        {
          packPanels();
#pragma omp barrier
          runTasks(omp_get_thread_num());
        }
      }
    }
  }

 private:
  struct Super {
    int64_t k0, depth, n0, cols;
  };

  // k in equal steps of at most kDepth
  int64_t steps() const { return (super_.depth + Tile<T>::kDepth - 1) / Tile<T>::kDepth; }
  int64_t stepAt(int64_t i) const { return super_.depth * i / steps(); }

  // Panel (step, column) of B: steps follow each other, and within one the panels of kCols columns.
  T* panelOf(int64_t from, int64_t depth, int64_t panel) const {
    return packedB_ + from * roundUp(super_.cols, Tile<T>::kCols) + panel * depth * Tile<T>::kCols;
  }

  void packPanels() {
    constexpr int64_t nr = Tile<T>::kCols, together = 8;  // panels a turn
    const int64_t panels = (super_.cols + nr - 1) / nr, first = plan_.packsB ? 0 : super_.cols / nr;
    const int64_t turns = (panels - first + together - 1) / together;
    for (int64_t at; (at = nextPanel_.fetch_add(1, std::memory_order_relaxed)) < turns * steps();) {
      const int64_t step = at / turns, panel = first + at % turns * together;
      const int64_t from = stepAt(step), depth = stepAt(step + 1) - from;
      packB<T>(g_.b, super_.k0 + from, depth, super_.n0 + panel * nr, std::min(together * nr, super_.cols - panel * nr),
               panelOf(from, depth, panel));
    }
  }

  void runTasks(int thread) {
    const int64_t columnBlocks = (super_.cols + plan_.cols - 1) / plan_.cols;
    const int64_t rowBlocks = (g_.m + plan_.rows - 1) / plan_.rows;
    T* packed = private_ + thread * (plan_.packedA() + plan_.block());
    for (int64_t at; (at = nextTask_.fetch_add(1, std::memory_order_relaxed)) < rowBlocks * columnBlocks;) {
      const int64_t m0 = at / columnBlocks * plan_.rows, n = at % columnBlocks * plan_.cols;
      computeBlock(m0, std::min(plan_.rows, g_.m - m0), n, std::min(plan_.cols, super_.cols - n), packed,
                   packed + plan_.packedA());
    }
  }

  // n counts from the super-block's first column.
  void computeBlock(int64_t m0, int64_t rows, int64_t n, int64_t cols, T* packedA, T* block) {
    constexpr int64_t mr = Tile<T>::kRows, nr = Tile<T>::kCols;
    const bool first = super_.k0 == 0, last = super_.k0 + super_.depth >= g_.k;
    const int64_t column = super_.n0 + n;
    T* c = plan_.direct ? static_cast<T*>(g_.c) + m0 * g_.cRowStride + column : block;
    const int64_t stride = plan_.direct ? g_.cRowStride : plan_.cols;
    const int64_t count = steps();
    if (count == 0) return computeEmpty(m0, rows, column, cols, c, stride);
    for (int64_t step = 0; step < count; ++step) {
      const int64_t from = stepAt(step), depth = stepAt(step + 1) - from;
      const int64_t asTheyLie = plan_.readsA ? rows / mr * mr : 0;
      packA<T>(g_.a, g_.m, m0 + asTheyLie, rows - asTheyLie, super_.k0 + from, depth, plan_.rowMajorA,
               packedA + asTheyLie / mr * Tile<T>::kPanelA);
      if (g_.rowSum && column == 0) addSums(m0, rows, from, depth, packedA);
      const bool opens = step == 0 && (first || !plan_.direct);
      const T beta = !opens ? T(1) : plan_.direct ? static_cast<T>(g_.beta) : T(0);
      for (int64_t j = 0; j < cols; j += nr) {
        const int64_t width = std::min(nr, cols - j), panel = (n + j) / nr;
        const bool inPlace = !plan_.packsB && width == nr;
        TileSource<T> source{};
        source.depth = depth;
        source.b = inPlace ? static_cast<const T*>(g_.b.data) + (super_.k0 + from) * g_.b.rowStride + column + j
                           : panelOf(from, depth, panel);
        source.bStride = inPlace ? g_.b.rowStride : nr;
        for (int64_t r = 0; r < rows; r += mr) {
          const TileTarget<T> to{c + r * stride + j,
                                 stride,
                                 static_cast<int>(std::min(mr, rows - r)),
                                 static_cast<int>(width),
                                 static_cast<T>(g_.alpha),
                                 beta,
                                 g_.bias && first && step == 0 ? bias_ + column + j : nullptr};
          panelOfA(m0 + r, to.rows, from, packedA + r / mr * Tile<T>::kPanelA, source);
          source.ahead = to.c;
          source.aheadStep = 0;
          if (j == 0 && plan_.readsA) {
            fetchPanelOfA(source);
          } else if (!inPlace) {
            // the next panel of B comes from L3: each row of tiles fetches an eighth
            source.ahead = source.b + nr * depth + r / mr * (nr * depth / 8);
            source.aheadStep = nr / 8;
          }
          plan_.rowMajorA ? tileOfRows<T, true>(source, to) : tileOfRows<T, false>(source, to);
        }
      }
    }
    finishBlock(m0, rows, column, cols, c, stride, first, last);
  }

  const T* elementOfA(int64_t row, int64_t k) const {
    return static_cast<const T*>(g_.a.data) + row * g_.a.rowStride + (super_.k0 + k) * g_.a.colStride;
  }

  void panelOfA(int64_t row, int height, int64_t from, const T* packed, TileSource<T>& source) const {
    const bool asItLies = plan_.readsA && height == Tile<T>::kRows;
    source.a = asItLies ? elementOfA(row, from) : packed;
    source.aStride = plan_.rowMajorA ? (asItLies ? g_.a.rowStride : int64_t{Tile<T>::kStride})
                                     : (asItLies ? g_.a.colStride : int64_t{Tile<T>::kRows});
  }

  // The first tiles of a block meet A in memory, and each step of a column-major A is on a page of its own, where no
  // hardware looks ahead. Of a row-major A the next panel follows if its rows are short, else the hardware sees a row.
  void fetchPanelOfA(TileSource<T>& source) const {
    constexpr int64_t stepsAhead = 16, line = 64 / sizeof(T);
    if (!plan_.rowMajorA) {
      source.ahead = source.a + stepsAhead * source.aStride;
      source.aheadStep = source.aStride;
    } else if (source.aStride * static_cast<int64_t>(sizeof(T)) <= 8 << 10) {
      source.ahead = source.a + Tile<T>::kRows * source.aStride;
      source.aheadStep = line;
    }
  }

  void addSums(int64_t m0, int64_t rows, int64_t from, int64_t depth, const T* packedA) const {
    TileSource<T> source{};
    for (int64_t r = 0; r < rows; r += Tile<T>::kRows) {
      const int height = static_cast<int>(std::min<int64_t>(Tile<T>::kRows, rows - r));
      panelOfA(m0 + r, height, from, packedA + r / Tile<T>::kRows * Tile<T>::kPanelA, source);
      addRowSums(source.a, source.aStride, depth, plan_.rowMajorA, height, static_cast<T*>(g_.rowSum) + m0 + r);
    }
  }

  void finishBlock(int64_t m0, int64_t rows, int64_t column, int64_t cols, T* c, int64_t stride, bool first,
                   bool last) {
    if (last && g_.gradientAt) {
      visitOperand<T>(GemmOperand{g_.gradientAt, g_.gradientDType, 0, 0, g_.gradientOf}, [&](auto* x, auto kind) {
        if constexpr (kind() != Activation::kNone) {
          scaleByGradient<kind()>(c, stride, x + m0 * g_.gradientRowStride + column, g_.gradientRowStride, rows, cols,
                                  activatedAt(m0, column), g_.activatedRowStride);
        }
      });
    }
    if (last && g_.activated && !g_.gradientAt) {
      visitOperand<T>(GemmOperand{c, plan_.own, 0, 0, g_.gradientOf}, [&](auto* x, auto kind) {
        activateRows<kind()>(x, stride, rows, cols, activatedAt(m0, column), g_.activatedRowStride);
      });
    }
    if (plan_.direct) return;
    const T beta = first ? static_cast<T>(g_.beta) : T(1);
    visitFloating(g_.cDType, [&](auto type) {
      using S = decltype(type);
      if constexpr ((sizeof(T) == 8) == (sizeof(S) == 8)) {
        storeBlock(c, stride, static_cast<S*>(g_.c) + m0 * g_.cRowStride + column * g_.cColStride, g_.cRowStride,
                   g_.cColStride, rows, cols, beta);
      }
    });
  }

  T* activatedAt(int64_t row, int64_t column) const {
    return g_.activated ? static_cast<T*>(g_.activated) + row * g_.activatedRowStride + column : nullptr;
  }

  void computeEmpty(int64_t m0, int64_t rows, int64_t column, int64_t cols, T* c, int64_t stride) {
    const T beta = plan_.direct ? static_cast<T>(g_.beta) : T(0);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t j = 0; j < cols; ++j) {
        T& at = c[r * stride + j];
        at = (beta == T(0) ? T(0) : beta * at) + (g_.bias ? bias_[column + j] : T(0));
      }
    }
    finishBlock(m0, rows, column, cols, c, stride, true, true);
  }

  const Gemm& g_;
  const Plan<T> plan_;
  const int threads_;
  T *packedB_, *bias_, *private_;
  Super super_{};
  std::atomic<int64_t> nextPanel_{0}, nextTask_{0};
};

template <class T>
size_t bytesOf(const Gemm& g, int threads) {
  return hasFewRows(g) ? RowProduct<T>::bytes(g) : Plan<T>(g, threads).bytes(g, threads);
}

template <class T>
void compute(const Gemm& g, int threads, void* scratch) {
  if (hasFewRows(g))
    RowProduct<T>(g, static_cast<T*>(scratch)).run(threads);
  else
    Product<T>(g, threads, static_cast<T*>(scratch)).run();
}

size_t scratchBytes(const Gemm& g, int threads) {
  return computesInDouble(g) ? bytesOf<double>(g, threads) : bytesOf<float>(g, threads);
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
  computesInDouble(g) ? compute<double>(g, threads, scratch) : compute<float>(g, threads, scratch);
}

}  // namespace
}  // namespace gradus::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace gradus::cpu {

HWY_EXPORT(scratchBytes);
HWY_EXPORT(product);
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
  return t;
}

// oneDNN's product is 5 to 15 % faster than ours where A is read across its rows and k is long: the gradient of a
// weight. Elsewhere ours is as fast or faster, and has the fusions.
bool oneDnnIsFaster(const Gemm& g, int threads) {
  return threads == numThreads() && g.a.rowStride == 1 && g.a.colStride != 1 && g.b.colStride == 1 && g.k >= 1024 &&
         std::min(g.m, g.n) >= 128 && fitsOneDnn(g);
}

}  // namespace

bool fitsOneDnn(const Gemm& g) {
  const auto plain = [](const GemmOperand& x) {
    return x.dtype == DType::kFloat32 && std::min(x.rowStride, x.colStride) == 1 && x.activation == Activation::kNone;
  };
  if (g.cDType != DType::kFloat32 || g.cColStride != 1 || g.bias || g.gradientAt || g.activated || !plain(g.a) ||
      !plain(g.b)) {
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

void gemm(const Gemm& g, int threads, void* scratch) {
  if (g.m == 0 || g.n == 0) return;
  if (oneDnnIsFaster(g, threads)) return gemmByOneDnn(g);
  HWY_DYNAMIC_DISPATCH(product)(oriented(g), threads, scratch);
}

void gemm(const Gemm& g, const OpCall& call) {
  if (g.m == 0 || g.n == 0) return;
  const int threads = gemmThreads(g);
  gemm(g, threads, call.workspace->take(gemmScratch(g, threads)));
}

}  // namespace gradus::cpu
#endif
