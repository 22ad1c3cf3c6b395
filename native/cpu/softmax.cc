// Softmax and log-softmax over one dim, and their gradients.
//
// Memory traffic is the cost: a row is read once from memory and its passes (maximum, sum of exponentials, division)
// find it in the first-level cache. Where other dims lie inside the reduced one, 16 neighbouring rows are turned into
// scratch rows together, so that every cache line is used whole.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "softmax.cc"
#include <hwy/foreach_target.h>

#include "rows-inl.h"
#include "views.h"

HWY_BEFORE_NAMESPACE();
namespace gradus::cpu::HWY_NAMESPACE {

// e^x for x <= 0, and NaN. What is below the smallest normal number is 0, as is e^-inf: next to a sum of at least 1 it
// has no weight, and one factor 2^k is enough.
template <class D>
HWY_INLINE vec::Of<D> expOfDifference(D d, vec::Of<D> x) {
  if constexpr (vec::kDouble<D>) {
    return vec::exp(d, x);
  } else {
    const auto lowest = hn::Set(d, -87.3f);
    const auto parts = vec::expParts(d, hn::Max(lowest, x));  // NaN stays because it is the second operand
    const auto scale = vec::powerOfTwo(d, parts.k);
    return hn::IfThenZeroElse(hn::Lt(x, lowest), hn::MulAdd(scale, parts.p, scale));
  }
}

template <class T>
HWY_INLINE Compute<T> rowMax(const T* x, int64_t n) {
  const Lanes<T> d;
  constexpr int64_t kLanes = hn::MaxLanes(Lanes<T>());
  constexpr Compute<T> kLowest = -std::numeric_limits<Compute<T>>::infinity();
  auto m0 = hn::Set(d, kLowest), m1 = m0, m2 = m0, m3 = m0;  // four, because one would wait for itself
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    m0 = hn::Max(m0, vec::load(d, x + i));
    m1 = hn::Max(m1, vec::load(d, x + i + kLanes));
    m2 = hn::Max(m2, vec::load(d, x + i + 2 * kLanes));
    m3 = hn::Max(m3, vec::load(d, x + i + 3 * kLanes));
  }
  forVectors(d, n - i, [&](int64_t j, int64_t count) GRADUS_INLINE_BODY {
    m0 = hn::Max(m0, padded(d, loadSome(d, x + i + j, count), count, kLowest));
  });
  return vec::maxLanes(d, hn::Max(hn::Max(m0, m1), hn::Max(m2, m3)));
}

// A row of equal -inf gives NaN (-inf - -inf), as does one with +inf or NaN: so it is in PyTorch.
template <bool kLog>
struct Forward {
  static constexpr int kInputs = 1;
  template <class T>
  static void row(const T* x, const T*, T* y, int64_t n, Compute<T>* scratch, bool stream) {
    const Lanes<T> d;
    const Compute<T> largest = rowMax(x, n);
    const auto most = hn::Set(d, largest);
    auto sum = hn::Zero(d);
    forVectors(d, n, [&](int64_t i, int64_t count) GRADUS_INLINE_BODY {
      const auto e = expOfDifference(d, hn::Sub(loadSome(d, x + i, count), most));
      sum = hn::Add(sum, padded(d, e, count, 0));
      if (!kLog) storeSome(d, e, scratch + i, count);
    });
    const Compute<T> total = vec::sumLanes(d, sum);
    if (kLog) {
      // (x - max) - log(sum): x - (max + log(sum)) would round away the digits of a small difference of large logits
      const auto log = hn::Set(d, std::log(total));
      forVectors(d, n, [&](int64_t i, int64_t count) GRADUS_INLINE_BODY {
        putSome(d, hn::Sub(hn::Sub(loadSome(d, x + i, count), most), log), y + i, count, stream);
      });
    } else {
      const auto scale = hn::Set(d, 1 / total);
      forVectors(d, n, [&](int64_t i, int64_t count) GRADUS_INLINE_BODY {
        putSome(d, hn::Mul(loadSome(d, scratch + i, count), scale), y + i, count, stream);
      });
    }
  }
};

// softmax: dx = y (g - sum(g y));  log-softmax: dx = g - e^y sum(g)
template <bool kLog>
struct Backward {
  static constexpr int kInputs = 2;
  template <class T>
  static void row(const T* g, const T* y, T* dx, int64_t n, Compute<T>*, bool stream) {
    const Lanes<T> d;
    auto sum = hn::Zero(d);
    forVectors(d, n, [&](int64_t i, int64_t count) GRADUS_INLINE_BODY {
      const auto grad = loadSome(d, g + i, count);
      sum = kLog ? hn::Add(sum, grad) : hn::MulAdd(grad, loadSome(d, y + i, count), sum);
    });
    const auto total = hn::Set(d, vec::sumLanes(d, sum));
    forVectors(d, n, [&](int64_t i, int64_t count) GRADUS_INLINE_BODY {
      const auto grad = loadSome(d, g + i, count), out = loadSome(d, y + i, count);
      const auto result =
          kLog ? hn::NegMulAdd(expOfDifference(d, out), total, grad) : hn::Mul(out, hn::Sub(grad, total));
      putSome(d, result, dx + i, count, stream);
    });
  }
};

template <class Kernel, class T>
void lastDim(const OpCall& call, const T* a, const T* b, T* out, int64_t rows, int64_t n) {
  using C = Compute<T>;
  const int threads = numThreads();
  C* scratch = call.scratch<C>(Kernel::kInputs == 1 ? static_cast<size_t>(n) * threads : 1);
  const int64_t grain = std::max<int64_t>(1, 16384 / n);  // 16384 elements take longer than a fork
  const int64_t parts = std::clamp<int64_t>(rows / grain, 1, threads);
  const bool stream = streamsRows(out, rows, n, sizeof(T));
  parallelFor(parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) {
      for (int64_t r = rows * part / parts; r < rows * (part + 1) / parts; ++r) {
        C* spare = scratch + (Kernel::kInputs == 1 ? part * n : 0);
        Kernel::row(a + r * n, b ? b + r * n : b, out + r * n, n, spare, stream);
      }
    }
    hwy::FlushStream();
  });
}

template <class Kernel, class T>
void innerDim(const OpCall& call, const T* a, const T* b, T* out, const Around& at) {
  using C = Compute<T>;
  constexpr int64_t kRows = 16;
  const int64_t n = at.size, groups = (at.inner + kRows - 1) / kRows, tasks = at.outer * groups;
  const int64_t grain = std::max<int64_t>(1, 4096 / (n * std::min(kRows, at.inner)));
  const int64_t parts = std::clamp<int64_t>(tasks / grain, 1, numThreads());
  const int64_t pitch = n + 16;  // rows a power of two apart would share a few sets of the first-level cache
  const int64_t each = (3 * kRows + 1) * pitch;
  C* scratch = call.scratch<C>(static_cast<size_t>(parts) * each);
  parallelFor(parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) {
      C* rowsA = scratch + part * each;
      C *rowsB = rowsA + kRows * pitch, *rowsOut = rowsB + kRows * pitch, *spare = rowsOut + kRows * pitch;
      for (int64_t task = tasks * part / parts; task < tasks * (part + 1) / parts; ++task) {
        const int64_t first = task % groups * kRows, count = std::min(kRows, at.inner - first);
        const int64_t base = task / groups * n * at.inner + first;
        for (int64_t i = 0; i < n; ++i) {
          for (int64_t r = 0; r < count; ++r) {
            rowsA[r * pitch + i] = widen(a[base + i * at.inner + r]);
            if (b) rowsB[r * pitch + i] = widen(b[base + i * at.inner + r]);
          }
        }
        for (int64_t r = 0; r < count; ++r)
          Kernel::row(rowsA + r * pitch, rowsB + r * pitch, rowsOut + r * pitch, n, spare, false);
        for (int64_t i = 0; i < n; ++i) {
          for (int64_t r = 0; r < count; ++r) out[base + i * at.inner + r] = Narrow<T>::from(rowsOut[r * pitch + i]);
        }
      }
    }
  });
}

template <class Kernel>
void apply(const OpCall& call) {
  const TensorView a = contiguousOf(call, call.in[0]);
  const TensorView b = Kernel::kInputs == 2 ? contiguousOf(call, call.in[1]) : TensorView{};
  const Around at(a, static_cast<int>(call.integer(0)));
  if (a.numel == 0) return;
  visitFloating(a.dtype, [&](auto tag) {
    using T = decltype(tag);
    T* out = call.out[0].as<T>();
    if (at.inner == 1) {
      lastDim<Kernel>(call, a.as<T>(), b.as<T>(), out, at.outer, at.size);
    } else {
      innerDim<Kernel>(call, a.as<T>(), b.as<T>(), out, at);
    }
  });
}

void softmaxForward(const OpCall& call) { apply<Forward<false>>(call); }
void logSoftmaxForward(const OpCall& call) { apply<Forward<true>>(call); }
void softmaxGradient(const OpCall& call) { apply<Backward<false>>(call); }
void logSoftmaxGradient(const OpCall& call) { apply<Backward<true>>(call); }

}  // namespace gradus::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace gradus::cpu {

HWY_EXPORT(softmaxForward);
HWY_EXPORT(logSoftmaxForward);
HWY_EXPORT(softmaxGradient);
HWY_EXPORT(logSoftmaxGradient);

void run_softmax(const OpCall& call) { HWY_DYNAMIC_DISPATCH(softmaxForward)(call); }
void run_logSoftmax(const OpCall& call) { HWY_DYNAMIC_DISPATCH(logSoftmaxForward)(call); }
void run_softmaxBackward(const OpCall& call) { HWY_DYNAMIC_DISPATCH(softmaxGradient)(call); }
void run_logSoftmaxBackward(const OpCall& call) { HWY_DYNAMIC_DISPATCH(logSoftmaxGradient)(call); }

}  // namespace gradus::cpu
#endif
