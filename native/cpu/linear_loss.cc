// linear + cross entropy without handing out the logits: the rows pass in chunks, and the gradients for an incoming
// gradient of 1 are made while a chunk's logits are at hand (the idea of Cut Cross-Entropy, Wijmans et al. 2024,
// arXiv:2411.09009, but nothing is computed twice).
//
// Within a chunk a row of logits is summed up and turned into its gradient in place while it is in the second-level
// cache, so the three products are large ones and nothing else crosses the memory bus. Ignored rows are left out.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "linear_loss.cc"
#include <hwy/foreach_target.h>  // IWYU pragma: keep

#include <algorithm>
#include <numeric>

#include "gemm.h"
#include "loss-inl.h"
#include "parallel.h"

HWY_BEFORE_NAMESPACE();
namespace gradus::cpu::HWY_NAMESPACE {

template <class T>
constexpr DType dtypeOf() {
  return sizeof(T) == 8 ? DType::kFloat64 : DType::kFloat32;
}

// What gradients are kept in until the one that arrives is known. They are divided by the number of rows already, and
// where that is in float16 a loss scale, which would have kept them in its range, comes too late.
template <class E>
using GradientOf = std::conditional_t<std::is_same_v<E, Float16>, float, E>;

template <class E>
class LinearCrossEntropy {
 public:
  using T = Compute<E>;
  using G = GradientOf<E>;

  explicit LinearCrossEntropy(const OpCall& call)
      : call_(call),
        x_(call.in[0]),
        weight_(call.in[1]),
        rows_(x_.size(0)),
        width_(x_.size(1)),
        classes_(weight_.size(0)),
        options_{call.integer(0), call.attr[1], static_cast<int>(call.attr[2])},
        withGradients_(call.flag(3)),
        inBFloat16_(call.integer(5) == static_cast<int64_t>(DType::kBFloat16)),
        chunkBytes_(call.integer(6)),
        targets_(call.scratch<int64_t>(rows_)),
        weights_((readTargets(call.name, call.in[2], classes_, options_.ignoreIndex, targets_),
                  call.nIn > 3 && call.in[3].present() ? &call.in[3] : nullptr),
                 classes_),
        products_(call) {}

  void run() {
    const double divisor = options_.reduction == kMean ? meanDivisor(weights_, targets_, rows_) : 1;
    incoming_ = 1 / divisor;
    kept_ = call_.scratch<int64_t>(rows_);
    for (int64_t row = 0; row < rows_; ++row) {
      if (targets_[row] != kIgnored || !call_.flag(4)) kept_[count_++] = row;
    }
    if (withGradients_ && count_ < rows_) zero(call_.out[2]);
    if (withGradients_ && count_ == 0) zero(call_.out[3]);
    double total = 0;
    if (count_ > 0) {
      takeScratch();
      for (int64_t first = 0; first < count_; first += chunk_) total += chunk(first, std::min(chunk_, count_ - first));
      if (dweightSum_) narrowWeightGradient();
    }
    writeScalar(call_.out[1], divisor);
    writeScalar(call_.out[0], total / divisor);
  }

 private:
  static void zero(const TensorView& out) { std::memset(out.data, 0, out.bytes()); }

  void takeScratch() {
    narrow_ = inBFloat16_ || x_.dtype == DType::kBFloat16 || weight_.dtype == DType::kBFloat16;
    stride_ = strideOfLogits();
    const int64_t most = std::max<int64_t>(1, chunkBytes_ / (stride_ * bytesOfLogit()));
    const int64_t chunks = (count_ + most - 1) / most;
    chunk_ = (count_ + chunks - 1) / chunks;
    logits_ = call_.scratch<char>(chunk_ * stride_ * bytesOfLogit());
    losses_ = call_.scratch<double>(chunk_);
    if (count_ < rows_) rowsOfX_ = call_.scratch<T>(chunk_ * width_);  // else they lie side by side
    if (withGradients_) {
      rowsOfDx_ = call_.scratch<T>(chunk_ * width_);
      if (isHalf(call_.out[3].dtype) && chunks > 1) dweightSum_ = call_.scratch<T>(classes_ * width_);
    }
  }

  // Nothing is fused into these products, so oneDNN makes the large ones; it would wake its threads for small ones,
  // too.
  void multiply(const Gemm& product) {
    gemmThreads(product) > 1 && fitsOneDnn(product) ? gemmByOneDnn(product) : products_.multiply(product);
  }

  // The chunk's rows of x: as they lie when they are neighbours, else gathered.
  void gather(int64_t first, int64_t count) {
    if (kept_[first + count - 1] - kept_[first] == count - 1) {
      a_ = {x_.as<E>() + kept_[first] * x_.strides[0], x_.dtype, x_.strides[0], x_.strides[1]};
      return;
    }
    parallelFor(count, std::max<int64_t>(1, 32768 / std::max<int64_t>(width_, 1)), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const E* from = x_.as<E>() + kept_[first + i] * x_.strides[0];
        for (int64_t k = 0; k < width_; ++k) rowsOfX_[i * width_ + k] = widen(from[k * x_.strides[1]]);
      }
    });
    a_ = {rowsOfX_, dtypeOf<T>(), width_, 1};
  }

  // Of the logits and their gradients: products in bfloat16 round them, as a linear layer rounds its result.
  DType logitDType() const { return narrow_ ? DType::kBFloat16 : dtypeOf<T>(); }
  int64_t bytesOfLogit() const { return static_cast<int64_t>(itemSize(logitDType())); }

  // Rows begin on cache lines, but not whole pages apart. What is behind a row is 0, so that an odd number of classes
  // is read in pairs, too.
  int64_t strideOfLogits() const {
    const int64_t line = 64 / bytesOfLogit(), lines = (classes_ + line - 1) / line;
    return (lines % 64 == 0 ? lines + 1 : lines) * line;
  }

  // logits = x weight'
  Gemm logitsProduct(int64_t count) const {
    Gemm g;
    g.m = count;
    g.n = classes_;
    g.k = width_;
    g.inBFloat16 = inBFloat16_;
    g.a = a_;
    g.b = {weight_.data, weight_.dtype, weight_.strides[1], weight_.strides[0]};
    g.c = logits_;
    g.cDType = logitDType();
    g.cRowStride = stride_;
    g.cColStride = 1;
    return g;
  }

  // dx = dlogits weight
  Gemm inputGradient(int64_t count) const {
    Gemm g;
    g.m = count;
    g.n = width_;
    g.k = classes_;
    g.inBFloat16 = inBFloat16_;
    g.a = {logits_, logitDType(), stride_, 1};
    g.a.zeroFollows = stride_ > classes_;
    g.b = {weight_.data, weight_.dtype, weight_.strides[0], weight_.strides[1]};
    g.c = rowsOfDx_;
    g.cDType = dtypeOf<T>();
    g.cRowStride = width_;
    g.cColStride = 1;
    return g;
  }

  // dweight += dlogits' x
  Gemm weightGradient(int64_t count, bool accumulate) const {
    Gemm g;
    g.m = classes_;
    g.n = width_;
    g.k = count;
    g.inBFloat16 = inBFloat16_;
    g.a = {logits_, logitDType(), 1, stride_};
    g.b = a_;
    g.c = dweightSum_ ? static_cast<void*>(dweightSum_) : call_.out[3].data;
    g.cDType = dweightSum_ ? dtypeOf<T>() : call_.out[3].dtype;
    g.cRowStride = width_;
    g.cColStride = 1;
    g.beta = accumulate ? 1 : 0;
    return g;
  }

  double chunk(int64_t first, int64_t count) {
    gather(first, count);
    multiply(logitsProduct(count));
    const auto finish = [&](auto* logits) {
      parallelFor(count, std::max<int64_t>(1, 16384 / classes_), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          losses_[i] = finishRow(targets_[kept_[first + i]], logits + i * stride_);
        }
      });
    };
    if constexpr (std::is_same_v<T, float>) {
      narrow_ ? finish(reinterpret_cast<BFloat16*>(logits_)) : finish(reinterpret_cast<T*>(logits_));
    } else {
      finish(reinterpret_cast<T*>(logits_));
    }
    if (withGradients_) gradientsOfChunk(first, count);
    return std::accumulate(losses_, losses_ + count, 0.0);
  }

  // The loss of a row, whose logits become their gradients.
  template <class L>
  double finishRow(int64_t y, L* logits) const {
    std::memset(static_cast<void*>(logits + classes_), 0, (stride_ - classes_) * sizeof(L));
    if (y == kIgnored) {
      if (withGradients_) std::memset(static_cast<void*>(logits), 0, classes_ * sizeof(L));
      return 0;
    }
    RowSums<T> sums;
    addToRow(sums, logits, classes_, options_.smoothing > 0, weights_.data());
    const L atTarget = logits[y];
    if (withGradients_) {
      const RowGradient<T> gradient(options_, weights_, classes_, y, incoming_);
      const T logsumexp = sums.logsumexp();
      gradientOfRow(logits, classes_, logsumexp, gradient, weights_.data(), logits);
      logits[y] = gradientAtTarget<L>(atTarget, logsumexp, gradient, static_cast<T>(weights_.of(y)));
    }
    return sums.loss(options_, weights_, classes_, y, widen(atTarget));
  }

  void gradientsOfChunk(int64_t first, int64_t count) {
    multiply(inputGradient(count));
    multiply(weightGradient(count, first > 0));
    parallelFor(count, std::max<int64_t>(1, 32768 / std::max<int64_t>(width_, 1)), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        narrow(rowsOfDx_ + i * width_, width_, call_.out[2].as<G>() + kept_[first + i] * width_);
      }
    });
  }

  template <class S>
  static void narrow(const T* from, int64_t n, S* to) {
    if constexpr ((sizeof(S) == 8) == (sizeof(T) == 8)) {
      const hn::ScalableTag<T> d;
      const int64_t lanes = hn::Lanes(d);
      int64_t i = 0;
      for (; i + lanes <= n; i += lanes) vec::store(d, hn::LoadU(d, from + i), to + i);
      for (; i < n; ++i) to[i] = Narrow<S>::from(from[i]);
    }
  }

  void narrowWeightGradient() {
    visitFloating(call_.out[3].dtype, [&](auto sample) {
      auto* to = call_.out[3].as<decltype(sample)>();
      parallelFor(classes_, std::max<int64_t>(1, 32768 / std::max<int64_t>(width_, 1)),
                  [&](int64_t begin, int64_t end) {
                    for (int64_t c = begin; c < end; ++c) narrow(dweightSum_ + c * width_, width_, to + c * width_);
                  });
    });
  }

  const OpCall& call_;
  const TensorView &x_, &weight_;
  const int64_t rows_, width_, classes_;
  const LossOptions options_;
  const bool withGradients_, inBFloat16_;
  const int64_t chunkBytes_;
  bool narrow_ = false;  // see logitDType()
  int64_t* targets_;
  const ClassWeights<T> weights_;  // made after the targets were checked

  double incoming_ = 1;
  int64_t *kept_ = nullptr, count_ = 0;  // rows that are computed: those not ignored, or all
  int64_t chunk_ = 0, stride_ = 0;
  T *rowsOfX_ = nullptr, *rowsOfDx_ = nullptr;
  char* logits_ = nullptr;  // of a chunk [chunk, stride]; then their gradients
  double* losses_ = nullptr;
  T* dweightSum_ = nullptr;  // bfloat16: chunks add up in float32
  GemmOperand a_;
  GemmSeries products_;
};

void linearCrossEntropy(const OpCall& call) {
  visitFloating(call.in[0].dtype, [&](auto sample) { LinearCrossEntropy<decltype(sample)>(call).run(); });
}

}  // namespace gradus::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace gradus::cpu {

HWY_EXPORT(linearCrossEntropy);
void run_linearCrossEntropy(const OpCall& call) { HWY_DYNAMIC_DISPATCH(linearCrossEntropy)(call); }

}  // namespace gradus::cpu
#endif  // HWY_ONCE
