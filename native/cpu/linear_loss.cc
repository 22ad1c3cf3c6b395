// linear + cross entropy without handing out the logits: the rows pass in chunks, and the gradients for an incoming
// gradient of 1 are made while a chunk's logits are at hand (the idea of Cut Cross-Entropy, Wijmans et al. 2024,
// arXiv:2411.09009, but nothing is computed twice).
//
// Logits in bfloat16 lie in blocks of classes, each of which fits into the last cache: a block is summed up after its
// product and, when the sums of whole rows are known, turned into its gradient in place before both products that read
// it. So a logit crosses the memory bus three times, and no product reads across rows that lie pages apart. Of other
// dtypes, whose products take twice as long beside the memory, all classes are one block: more gain nothing. Ignored
// rows are left out.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "linear_loss.cc"
#include <hwy/foreach_target.h>  // IWYU pragma: keep

#include <algorithm>

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
  // 7 MB with 4096 rows, and whole tiles both ways (28 x 32, 64 x 14). Twice as many were 2 % slower with 1024 rows,
  // half as many 4 %.
  static constexpr int64_t kBlockClasses = 896;

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
    blockClasses_ = narrow_ ? sizeOfBlock() : classes_;
    stride_ = strideOfLogits();
    const int64_t most = std::max<int64_t>(1, chunkBytes_ / (keptBlocks() * stride_ * bytesOfLogit()));
    const int64_t chunks = (count_ + most - 1) / most;
    chunk_ = (count_ + chunks - 1) / chunks;
    logits_ = call_.scratch<char>(keptBlocks() * chunk_ * stride_ * bytesOfLogit());
    sums_ = call_.scratch<RowSums<T>>(chunk_);
    atTarget_ = call_.scratch<T>(chunk_);
    roundsX_ = narrow_ && blocks() > 1 && multipliesPairs();
    const bool lies = count_ == rows_ && (!roundsX_ || x_.dtype == DType::kBFloat16);
    if (!lies)
      rowsOfX_ = call_.scratch<char>(chunk_ * scratchStride(width_) * (roundsX_ ? sizeof(BFloat16) : sizeof(T)));
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

  // The chunk's rows of x: as they lie when they are neighbours and the products read them so, else gathered. Products
  // in bfloat16 round them here, once for all blocks.
  void gather(int64_t first, int64_t count) {
    if (!rowsOfX_) {
      a_ = {x_.as<E>() + kept_[first] * x_.strides[0], x_.dtype, x_.strides[0], x_.strides[1]};
      return;
    }
    if constexpr (std::is_same_v<T, float>) {
      if (roundsX_) return gatherTo(reinterpret_cast<BFloat16*>(rowsOfX_), first, count);
    }
    gatherTo(reinterpret_cast<T*>(rowsOfX_), first, count);
  }

  template <class L>
  void gatherTo(L* to, int64_t first, int64_t count) {
    const hn::ScalableTag<T> d;
    const int64_t lanes = hn::Lanes(d), stride = scratchStride(width_);
    parallelFor(count, std::max<int64_t>(1, 32768 / std::max<int64_t>(width_, 1)), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const E* from = x_.as<E>() + kept_[first + i] * x_.strides[0];
        const int64_t whole = x_.strides[1] == 1 ? width_ - width_ % lanes : 0;
        for (int64_t k = 0; k < whole; k += lanes) vec::store(d, vec::load(d, from + k), to + i * stride + k);
        for (int64_t k = whole; k < width_; ++k) {
          to[i * stride + k] = Narrow<L>::from(static_cast<T>(widen(from[k * x_.strides[1]])));
        }
      }
    });
    a_ = {to, std::is_same_v<L, BFloat16> ? DType::kBFloat16 : dtypeOf<T>(), stride, 1};
  }

  // Of the logits and their gradients: products in bfloat16 round them, as a linear layer rounds its result.
  DType logitDType() const { return narrow_ ? DType::kBFloat16 : dtypeOf<T>(); }
  int64_t bytesOfLogit() const { return static_cast<int64_t>(itemSize(logitDType())); }

  // Blocks of about the same size, whole tiles wide.
  int64_t sizeOfBlock() const {
    constexpr int64_t tile = 32;
    const int64_t count = (classes_ + kBlockClasses - 1) / kBlockClasses, each = (classes_ + count - 1) / count;
    return std::min(classes_, (each + tile - 1) / tile * tile);
  }

  // Rows begin on cache lines, but not whole pages or eighths of them apart. What is behind a row is 0, so that an odd
  // number of classes is read in pairs, too.
  int64_t strideOfLogits() const {
    const int64_t line = 64 / bytesOfLogit(), lines = (blockClasses_ + line - 1) / line;
    return (lines % 8 == 0 ? lines + 1 : lines) * line;
  }

  // Without gradients nothing reads a block after it was summed up.
  int64_t keptBlocks() const { return withGradients_ ? blocks() : 1; }
  int64_t blocks() const { return (classes_ + blockClasses_ - 1) / blockClasses_; }

  struct Block {
    int64_t first, classes;  // of all
    char* logits;            // [chunk, stride]
  };
  Block block(int64_t at) const {
    const int64_t first = at * blockClasses_;
    return {first, std::min(blockClasses_, classes_ - first),
            logits_ + (withGradients_ ? at : 0) * chunk_ * stride_ * bytesOfLogit()};
  }

  // of the block's classes
  GemmOperand weightsOf(const Block& block) const {
    const int64_t bytes = block.first * weight_.strides[0] * static_cast<int64_t>(itemSize(weight_.dtype));
    return {weight_.as<char>() + bytes, weight_.dtype, weight_.strides[0], weight_.strides[1]};
  }

  // logits = x weight'
  Gemm logitsProduct(int64_t count, const Block& block) const {
    const GemmOperand weights = weightsOf(block);
    Gemm g;
    g.m = count;
    g.n = block.classes;
    g.k = width_;
    g.inBFloat16 = inBFloat16_;
    g.a = a_;
    g.b = {weights.data, weights.dtype, weights.colStride, weights.rowStride};
    g.c = block.logits;
    g.cDType = logitDType();
    g.cRowStride = stride_;
    g.cColStride = 1;
    return g;
  }

  // dx += dlogits weight
  Gemm inputGradient(int64_t count, const Block& block) const {
    Gemm g;
    g.m = count;
    g.n = width_;
    g.k = block.classes;
    g.inBFloat16 = inBFloat16_;
    g.a = {block.logits, logitDType(), stride_, 1};
    g.a.zeroFollows = stride_ > block.classes;
    g.b = weightsOf(block);
    g.c = rowsOfDx_;
    g.cDType = dtypeOf<T>();
    g.cRowStride = width_;
    g.cColStride = 1;
    g.beta = block.first > 0 ? 1 : 0;
    return g;
  }

  // dweight += dlogits' x
  Gemm weightGradient(int64_t count, const Block& block, bool accumulate) const {
    const DType dtype = dweightSum_ ? dtypeOf<T>() : call_.out[3].dtype;
    Gemm g;
    g.m = block.classes;
    g.n = width_;
    g.k = count;
    g.inBFloat16 = inBFloat16_;
    g.a = {block.logits, logitDType(), 1, stride_};
    g.b = a_;
    g.c = (dweightSum_ ? reinterpret_cast<char*>(dweightSum_) : call_.out[3].as<char>()) +
          block.first * width_ * static_cast<int64_t>(itemSize(dtype));
    g.cDType = dtype;
    g.cRowStride = width_;
    g.cColStride = 1;
    g.beta = accumulate ? 1 : 0;
    return g;
  }

  double chunk(int64_t first, int64_t count) {
    gather(first, count);
    std::fill(sums_, sums_ + count, RowSums<T>());
    for (int64_t b = 0; b < blocks(); ++b) {
      multiply(logitsProduct(count, block(b)));
      forRows(first, count, block(b), [&](int64_t i, int64_t y, auto* logits) { addToSums(i, y, logits, block(b)); });
    }
    double loss = 0;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t y = targets_[kept_[first + i]];
      if (y != kIgnored) loss += sums_[i].loss(options_, weights_, classes_, y, atTarget_[i]);
    }
    if (withGradients_) gradientsOfChunk(first, count);
    return loss;
  }

  // Calls body(row, target, logits) for the rows of a block, on all threads.
  template <class Body>
  void forRows(int64_t first, int64_t count, const Block& block, const Body& body) const {
    const auto visit = [&](auto* logits) {
      parallelFor(count, std::max<int64_t>(1, 16384 / block.classes), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) body(i, targets_[kept_[first + i]], logits + i * stride_);
      });
    };
    if constexpr (std::is_same_v<T, float>) {
      if (narrow_) return visit(reinterpret_cast<BFloat16*>(block.logits));
    }
    visit(reinterpret_cast<T*>(block.logits));
  }

  template <class L>
  void addToSums(int64_t row, int64_t y, const L* logits, const Block& block) const {
    if (y == kIgnored) return;
    addToRow(sums_[row], logits, block.classes, options_.smoothing > 0, weightsFrom(block));
    if (isIn(block, y)) atTarget_[row] = widen(logits[y - block.first]);
  }

  // The logits of a row become their gradients.
  template <class L>
  void turnToGradient(int64_t row, int64_t y, L* logits, const Block& block) const {
    std::memset(static_cast<void*>(logits + block.classes), 0, (stride_ - block.classes) * sizeof(L));
    if (y == kIgnored) {
      std::memset(static_cast<void*>(logits), 0, block.classes * sizeof(L));
      return;
    }
    const RowGradient<T> gradient(options_, weights_, classes_, y, incoming_);
    const T logsumexp = sums_[row].logsumexp();
    gradientOfRow(logits, block.classes, logsumexp, gradient, weightsFrom(block), logits);
    if (!isIn(block, y)) return;
    logits[y - block.first] = gradientAtTarget<L>(atTarget_[row], logsumexp, gradient, static_cast<T>(weights_.of(y)));
  }

  static bool isIn(const Block& block, int64_t y) { return y >= block.first && y < block.first + block.classes; }
  const T* weightsFrom(const Block& block) const { return weights_.data() ? weights_.data() + block.first : nullptr; }

  void gradientsOfChunk(int64_t first, int64_t count) {
    if (first == 0 && blocks() > 1) packedX_ = products_.keep(weightGradient(count, block(0), false));
    packedX_.filled = false;
    for (int64_t b = 0; b < blocks(); ++b) {
      forRows(first, count, block(b),
              [&](int64_t i, int64_t y, auto* logits) { turnToGradient(i, y, logits, block(b)); });
      multiply(inputGradient(count, block(b)));
      Gemm product = weightGradient(count, block(b), first > 0);
      product.keptB = &packedX_;
      multiply(product);
    }
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
  bool narrow_ = false;   // see logitDType()
  bool roundsX_ = false;  // where pairs are multiplied, x is gathered as they need it
  int64_t* targets_;
  const ClassWeights<T> weights_;  // made after the targets were checked

  double incoming_ = 1;
  int64_t *kept_ = nullptr, count_ = 0;  // rows that are computed: those not ignored, or all
  int64_t chunk_ = 0, blockClasses_ = 0, stride_ = 0;
  char* rowsOfX_ = nullptr;  // [chunk, scratchStride(width)]
  T* rowsOfDx_ = nullptr;
  char* logits_ = nullptr;  // of a chunk [keptBlocks, chunk, stride]; then their gradients
  RowSums<T>* sums_ = nullptr;
  T* atTarget_ = nullptr;
  T* dweightSum_ = nullptr;  // bfloat16: chunks add up in float32
  GemmOperand a_;
  PackedOperand packedX_;  // for the gradients of the weights of all blocks
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
