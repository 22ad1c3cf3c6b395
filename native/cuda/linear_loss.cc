// linear + cross entropy without handing out the logits: rows pass in chunks, and the gradients for an incoming
// gradient of 1 are made while a chunk's logits are at hand. How many rows are not ignored, only the device knows: it
// moves them together, and of products of fewer rows than a chunk has, tiles without any end at once. Products of 16
// bits round logits, as a linear layer rounds its result, and their gradients.
#include "kernels/linear_loss.h"

#include "gemm.h"
#include "launch.h"
#include "views.h"

namespace gradus::cuda {

void run_copy(const OpCall&);
void run_fill(const OpCall&);

namespace {

DType computeOf(DType dtype) { return dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32; }

int64_t roundUp(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

void fillZero(const OpCall& call, const TensorView& x) {
  const double zero = 0;
  TensorView out = x;
  if (x.numel > 0) run_fill({call.name, nullptr, &out, &zero, 0, 1, 1, call.workspace});
}

struct Kernels {
  Kernel prepare{"linear_loss", "gradus_linear_loss_prepare"}, finish{"linear_loss", "gradus_linear_loss_finish"};
  Kernel gather[2] = {{"linear_loss", "gradus_linear_loss_gather_float32"},
                      {"linear_loss", "gradus_linear_loss_gather_float64"}};
  Kernel scatter[2] = {{"linear_loss", "gradus_linear_loss_scatter_float32"},
                       {"linear_loss", "gradus_linear_loss_scatter_float64"}};
  Kernel rows[4] = {{"linear_loss", "gradus_linear_loss_rows_float32"},
                    {"linear_loss", "gradus_linear_loss_rows_float64"},
                    {"linear_loss", "gradus_linear_loss_rows_float16"},
                    {"linear_loss", "gradus_linear_loss_rows_bfloat16"}};  // by dtype
};

Kernels& kernels() {
  static Kernels all;
  return all;
}

class LinearCrossEntropy {
 public:
  explicit LinearCrossEntropy(const OpCall& call)
      : call_(call),
        x_(call.in[0]),
        weight_(call.in[1]),
        rows_(x_.size(0)),
        width_(x_.size(1)),
        classes_(weight_.size(0)),
        compute_(computeOf(x_.dtype)),
        withGradients_(call.flag(3)),
        compact_(call.flag(4)) {
    const int64_t products = call.integer(5);
    const auto is = [&](DType dtype) { return products == static_cast<int64_t>(dtype); };
    if (is(DType::kBFloat16) || x_.dtype == DType::kBFloat16 || weight_.dtype == DType::kBFloat16) {
      logitDType_ = DType::kBFloat16;
    } else if (is(DType::kFloat16) || (x_.dtype == DType::kFloat16 && weight_.dtype == DType::kFloat16)) {
      logitDType_ = DType::kFloat16;
    } else {
      logitDType_ = compute_;
    }
  }

  void run() {
    checkSizes();
    describe();
    currentDevice().launch(kernels().prepare, 1, kBlock, 0, &a_);
    if (withGradients_ && compact_) fillZero(call_, call_.out[2]);
    if (rows_ > 0) {
      takeScratch();
      for (int64_t first = 0; first < rows_; first += chunk_) chunk(first, std::min(chunk_, rows_ - first));
      if (dweight_.data != call_.out[3].data && withGradients_) {
        run_copy({call_.name, &dweight_, &call_.out[3], nullptr, 1, 1, 0, call_.workspace});
      }
    } else if (withGradients_) {
      fillZero(call_, call_.out[3]);
    }
    currentDevice().launch(kernels().finish, 1, kBlock, 0, &a_);
  }

 private:
  void checkSizes() const {
    for (const int64_t size : {rows_, width_, classes_}) {
      GRADUS_CHECK(size < int64_t{1} << 30, ErrorCode::kShape, "%s: a dim is too large for cuda: got %lld", call_.name,
                   static_cast<long long>(size));
    }
  }

  void describe() {
    const TensorView& target = call_.in[2];
    a_.target = target.data;
    a_.targetDType = static_cast<int>(target.dtype);
    a_.targetStride = target.strides[0];
    a_.ignoreIndex = call_.integer(0);
    a_.rows = static_cast<int>(rows_);
    a_.classes = static_cast<int>(classes_);
    if (call_.nIn > 3 && call_.in[3].present()) {
      a_.classWeight = call_.in[3].data;
      a_.classWeightDType = static_cast<int>(call_.in[3].dtype);
      a_.classWeightStride = call_.in[3].strides[0];
    }
    a_.smoothing = call_.attr[1];
    a_.soft = a_.smoothing / static_cast<double>(classes_);
    a_.mean = call_.integer(2) == 1;
    a_.skipIgnored = compact_;
    a_.gradients = withGradients_;
    a_.scaled = logitDType_ == DType::kFloat16;
    a_.kept = call_.scratch<int>(std::max<int64_t>(rows_, 1));
    a_.count = call_.scratch<int>(1);
    a_.terms = call_.scratch<double>(4);
    a_.losses = call_.scratch<double>(std::max<int64_t>(rows_, 1));
    a_.x = x_.data;
    a_.width = static_cast<int>(width_);
    a_.xDType = static_cast<int>(x_.dtype);
    a_.xRow = x_.strides[0];
    a_.xCol = x_.strides[1];
    a_.packedRows = x_.strides[1] == 1 && width_ % (isDouble() ? 2 : 8) == 0 && isWide(x_.data) &&
                    x_.strides[0] * static_cast<int64_t>(itemSize(x_.dtype)) % 16 == 0 && isWide(call_.out[2].data);
    a_.loss = call_.out[0].data;
    a_.divisor = call_.out[1].data;
    a_.lossDType = static_cast<int>(call_.out[0].dtype);
    a_.failure = currentDevice().failureSlot(call_.name, a_.classes, a_.ignoreIndex);
  }

  void takeScratch() {
    const int64_t most =
        std::max<int64_t>(1, call_.integer(6) / (classes_ * static_cast<int64_t>(itemSize(logitDType_))));
    const int64_t chunks = (rows_ + most - 1) / most;
    chunk_ = (rows_ + chunks - 1) / chunks;
    a_.logitStride = roundUp(classes_, 16 / static_cast<int64_t>(itemSize(logitDType_)));
    a_.logits = call_.workspace->take(static_cast<size_t>(chunk_ * a_.logitStride) * itemSize(logitDType_));
    a_.rowsStride = roundUp(width_, 8);
    const size_t elements = static_cast<size_t>(chunk_ * a_.rowsStride);
    if (compact_) a_.rowsOfX = call_.workspace->take(std::max<size_t>(64, elements * itemSize(logitDType_)));
    a_.rowsDType = static_cast<int>(logitDType_);
    weights_ = {weight_.data, weight_.dtype, weight_.strides[0], weight_.strides[1], {}};
    if (weight_.dtype != logitDType_) weights_ = converted(weight_);
    rowsOfX_ = {x_.data, x_.dtype, x_.strides[0], x_.strides[1], {}};
    if (!compact_ && x_.dtype != logitDType_) rowsOfX_ = converted(x_);
    if (!withGradients_) return;
    a_.dx = call_.out[2].data;
    a_.dxDType = static_cast<int>(call_.out[2].dtype);
    if (compact_) a_.rowsOfDx = call_.workspace->take(std::max<size_t>(64, elements * itemSize(compute_)));
    dweight_ = call_.out[3];
    if (isHalf(dweight_.dtype) && chunks > 1) {  // chunks add up in float32
      dweight_.dtype = compute_;
      dweight_.data = call_.workspace->take(std::max<size_t>(64, dweight_.bytes()));
    }
  }

  // x or the weight, once for all chunks, as the products take them.
  GemmOperand converted(const TensorView& from) {
    TensorView to = from;
    to.dtype = logitDType_;
    to.strides[0] = a_.rowsStride;
    to.strides[1] = 1;
    to.contiguous = a_.rowsStride == width_;
    const size_t elements = static_cast<size_t>(from.sizes[0] * a_.rowsStride);
    to.data = call_.workspace->take(std::max<size_t>(64, elements * itemSize(logitDType_)));
    run_copy({call_.name, &from, &to, nullptr, 1, 1, 0, call_.workspace});
    return {to.data, to.dtype, to.strides[0], 1, {}};
  }

  const double* factor() const { return a_.scaled ? a_.terms + 3 : nullptr; }
  bool isDouble() const { return compute_ == DType::kFloat64; }

  void chunk(int64_t first, int64_t count) {
    a_.first = static_cast<int>(first);
    a_.chunk = static_cast<int>(count);
    GemmOperand x = rowsOfX_;
    x.data = static_cast<const char*>(x.data) + first * x.rowStride * static_cast<int64_t>(itemSize(x.dtype));
    if (compact_) {
      launchRows(kernels().gather[isDouble()]);
      x = {a_.rowsOfX, logitDType_, a_.rowsStride, 1, {}};
    }
    const GemmOperand logits{a_.logits, logitDType_, a_.logitStride, 1, {}};
    Gemm toLogits = product(count, classes_, width_, x, transposed(weights_));
    toLogits.c = a_.logits;
    toLogits.cDType = logitDType_;
    toLogits.cRowStride = a_.logitStride;
    gemm(toLogits, call_);
    launchRows(kernels().rows[static_cast<int>(logitDType_)]);
    if (!withGradients_) return;
    Gemm toX = product(count, width_, classes_, logits, weights_);
    toX.c = compact_ ? const_cast<void*>(a_.rowsOfDx)
                     : call_.out[2].as<char>() + first * width_ * static_cast<int64_t>(itemSize(call_.out[2].dtype));
    toX.cDType = compact_ ? compute_ : call_.out[2].dtype;
    toX.cRowStride = compact_ ? a_.rowsStride : width_;
    toX.factor = factor();
    gemm(toX, call_);
    Gemm toWeight = product(classes_, width_, count, transposed(logits), x);
    toWeight.c = dweight_.data;
    toWeight.cDType = dweight_.dtype;
    toWeight.cRowStride = width_;
    toWeight.beta = first > 0 ? 1 : 0;
    toWeight.live.inSum = true;
    toWeight.factor = factor();
    gemm(toWeight, call_);
    if (compact_) launchRows(kernels().scatter[isDouble()]);
  }

  static GemmOperand transposed(GemmOperand x) {
    std::swap(x.rowStride, x.colStride);
    return x;
  }

  Gemm product(int64_t m, int64_t n, int64_t k, const GemmOperand& a, const GemmOperand& b) const {
    Gemm g;
    g.m = m;
    g.n = n;
    g.k = k;
    g.a = a;
    g.b = b;
    g.cColStride = 1;
    if (compact_) g.live = {a_.count, a_.first, false};  // else all rows are
    return g;
  }

  // A block a row of the chunk.
  void launchRows(Kernel& kernel) { currentDevice().launch(kernel, static_cast<unsigned>(a_.chunk), kBlock, 0, &a_); }

  const OpCall& call_;
  const TensorView &x_, &weight_;
  const int64_t rows_, width_, classes_;
  const DType compute_;
  const bool withGradients_, compact_;  // compact_: rows that are not ignored are moved together
  DType logitDType_;                    // also of what is multiplied
  int64_t chunk_ = 0;
  LinearLoss a_{};
  GemmOperand weights_, rowsOfX_;
  TensorView dweight_;
};

}  // namespace

void run_linearCrossEntropy(const OpCall& call) { LinearCrossEntropy(call).run(); }

}  // namespace gradus::cuda
