// Matrix products of tensors: batches, folding, integers. The products themselves are in gemm.cc.
#include "../core/element.h"
#include "gemm.h"
#include "parallel.h"

namespace gradus::cpu {

namespace {

constexpr double kGrain = 8e6;  // floating-point operations that a thread is woken for

// One [m, k] x [k, n] product and the batch dims around it, right-aligned to the output's.
struct Batched {
  int64_t count = 1;
  int rank = 0;
  int64_t sizes[kMaxRank] = {}, a[kMaxRank] = {}, b[kMaxRank] = {}, c[kMaxRank] = {};

  Batched(const TensorView& x, const TensorView& y, const TensorView& out) : rank(out.rank - 2) {
    for (int d = 0; d < rank; ++d) {
      sizes[d] = out.sizes[d];
      a[d] = strideOf(x, out.rank - d);
      b[d] = strideOf(y, out.rank - d);
      c[d] = out.strides[d];
      count *= sizes[d];
    }
  }

  static int64_t strideOf(const TensorView& view, int fromEnd) {
    const int d = view.rank - fromEnd;
    return d < 0 || view.sizes[d] == 1 ? 0 : view.strides[d];
  }

  // Offsets in elements of one batch.
  void offsets(int64_t index, int64_t& atA, int64_t& atB, int64_t& atC) const {
    atA = atB = atC = 0;
    for (int d = rank - 1; d >= 0; --d) {
      const int64_t i = index % sizes[d];
      index /= sizes[d];
      atA += i * a[d];
      atB += i * b[d];
      atC += i * c[d];
    }
  }

  // Whether all batches use one B and follow each other as rows of A and C: then they are one product.
  bool foldsIntoRows(const TensorView& x, const TensorView& out) const {
    if (count == 0) return false;
    int64_t stepA = x.stride(-2) * out.size(-2), stepC = out.stride(-2) * out.size(-2);
    for (int d = rank - 1; d >= 0; --d) {
      if (sizes[d] == 1) continue;
      if (b[d] != 0 || a[d] != stepA || c[d] != stepC) return false;
      stepA *= sizes[d];
      stepC *= sizes[d];
    }
    return true;
  }
};

GemmOperand operandOf(const TensorView& view) {
  return {view.data, view.dtype, view.stride(-2), view.stride(-1), Activation::kNone};
}

const void* advance(const void* data, int64_t elements, DType dtype) {
  return static_cast<const char*>(data) + elements * static_cast<int64_t>(itemSize(dtype));
}

template <class T>
void integerProduct(const Gemm& g, const T* a, const T* b, T* c) {
  using U = std::make_unsigned_t<T>;  // overflow wraps
  for (int64_t i = 0; i < g.m; ++i) {
    for (int64_t j = 0; j < g.n; ++j) {
      U sum = 0;
      for (int64_t k = 0; k < g.k; ++k) {
        sum += static_cast<U>(a[i * g.a.rowStride + k * g.a.colStride]) *
               static_cast<U>(b[k * g.b.rowStride + j * g.b.colStride]);
      }
      c[i * g.cRowStride + j * g.cColStride] = static_cast<T>(sum);
    }
  }
}

void integerProduct(const Gemm& g) {
  const auto as = [&](auto type) {
    using T = decltype(type);
    integerProduct(g, static_cast<const T*>(g.a.data), static_cast<const T*>(g.b.data), static_cast<T*>(g.c));
  };
  switch (g.cDType) {
    case DType::kInt64:
      return as(int64_t{});
    case DType::kInt32:
      return as(int32_t{});
    default:
      return as(uint8_t{});
  }
}

// [rows, columns] of a tensor whose leading dims follow each other (rank 1: one row). The rules have checked that.
struct Matrix {
  void* data;
  DType dtype;
  int64_t rows, cols, rowStride, colStride;

  explicit Matrix(const TensorView& view) : data(view.data), dtype(view.dtype) {
    cols = view.rank > 0 ? view.size(-1) : 1;
    colStride = view.rank > 0 ? view.stride(-1) : 1;
    rows = 1;
    for (int d = 0; d + 1 < view.rank; ++d) rows *= view.sizes[d];
    rowStride = view.rank == 2 && !view.contiguous ? view.strides[0] : cols;
    if (view.contiguous) colStride = 1;
  }

  GemmOperand operand() const { return {data, dtype, rowStride, colStride, Activation::kNone}; }
  GemmOperand transposed() const { return {data, dtype, colStride, rowStride, Activation::kNone}; }
  Matrix rowsFrom(int64_t first, int64_t count) const {
    Matrix part = *this;
    part.data = const_cast<void*>(advance(data, first * rowStride, dtype));
    part.rows = count;
    return part;
  }
};

Gemm productOf(const GemmOperand& a, const GemmOperand& b, int64_t k, const Matrix& c, double beta = 0) {
  Gemm g;
  g.m = c.rows;
  g.n = c.cols;
  g.k = k;
  g.a = a;
  g.b = b;
  g.c = c.data;
  g.cDType = c.dtype;
  g.cRowStride = c.rowStride;
  g.cColStride = c.colStride;
  g.beta = beta;
  return g;
}

// The sums that a product left in compute precision, as a bias gradient.
void storeSums(const void* sums, bool isDouble, const TensorView& out, bool accumulate) {
  visitFloating(out.dtype, [&](auto type) {
    using T = decltype(type);
    T* to = out.as<T>();
    for (int64_t i = 0; i < out.numel; ++i) {
      const double sum = isDouble ? static_cast<const double*>(sums)[i] : static_cast<const float*>(sums)[i];
      const double before = accumulate ? static_cast<double>(widen(to[i * out.strides[0]])) : 0.0;
      to[i * out.strides[0]] = Narrow<T>::from(static_cast<Compute<T>>(before + sum));
    }
  });
}

void* zeroSums(const OpCall& call, int64_t count) {
  void* sums = call.workspace->take(count * sizeof(double));
  std::memset(sums, 0, count * sizeof(double));
  return sums;
}

void addBias(Gemm& g, const TensorView& bias) {
  g.bias = bias.data;
  g.biasDType = bias.dtype;
}

Activation geluOf(bool tanh) { return tanh ? Activation::kGeluTanh : Activation::kGeluErf; }

}  // namespace

void run_matmul(const OpCall& call) {
  const TensorView &a = call.in[0], &b = call.in[1], &out = call.out[0];
  if (out.numel == 0) return;
  Gemm g;
  g.m = out.size(-2);
  g.n = out.size(-1);
  g.k = a.size(-1);
  g.a = operandOf(a);
  g.b = operandOf(b);
  g.c = out.data;
  g.cDType = out.dtype;
  g.cRowStride = out.stride(-2);
  g.cColStride = out.stride(-1);
  g.alpha = call.attr[0];
  g.beta = call.attr[1];
  const Batched batches(a, b, out);
  if (batches.count > 1 && batches.foldsIntoRows(a, out)) {
    g.m *= batches.count;
    return isIntegral(out.dtype) ? integerProduct(g) : gemm(g, call);
  }
  const auto one = [&](int64_t index, int threads, void* scratch) {
    int64_t atA, atB, atC;
    batches.offsets(index, atA, atB, atC);
    Gemm each = g;
    each.a.data = advance(g.a.data, atA, g.a.dtype);
    each.b.data = advance(g.b.data, atB, g.b.dtype);
    each.c = const_cast<void*>(advance(g.c, atC, g.cDType));
    if (isIntegral(g.cDType))
      integerProduct(each);
    else
      gemm(each, threads, scratch);
  };
  // Threads share one product after the other when those are large, else the batches.
  const bool whole = !isIntegral(g.cDType) && (batches.count == 1 || gemmThreads(g) > 1);
  const int threads = whole ? gemmThreads(g) : 1, copies = whole ? 1 : numThreads();
  const size_t bytes = isIntegral(g.cDType) ? 0 : (gemmScratch(g, threads) + 63) / 64 * 64;
  char* scratch = static_cast<char*>(call.workspace->take(std::max<size_t>(64, bytes * copies)));
  if (whole) {
    for (int64_t i = 0; i < batches.count; ++i) one(i, threads, scratch);
    return;
  }
  const double work = 2.0 * g.m * g.n * std::max<int64_t>(g.k, 1);
  parallelFor(batches.count, static_cast<int64_t>(kGrain / work) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) one(i, 1, scratch + omp_get_thread_num() * bytes);
  });
}

void run_linear(const OpCall& call) {
  const Matrix x(call.in[0]), weight(call.in[1]), out(call.out[0]);
  Gemm g = productOf(x.operand(), weight.transposed(), x.cols, out);
  if (call.nIn > 2 && call.in[2].present()) addBias(g, call.in[2]);
  gemm(g, call);
}

void run_linearBackwardWeight(const OpCall& call) {
  const Matrix grad(call.in[0]), x(call.in[1]), dweight(call.out[0]);
  const bool accumulate = call.flag(0), bias = call.flag(1);
  Gemm g = productOf(grad.transposed(), x.operand(), grad.rows, dweight, accumulate ? 1 : 0);
  if (bias) g.rowSum = zeroSums(call, grad.cols);
  gemm(g, call);
  if (bias) storeSums(g.rowSum, computesInDouble(g), call.out[1], accumulate);
}

// Rows whose hidden values an mlp holds at a time. The weights are packed once for all of them.
constexpr int64_t kRowsOfHidden = 1024;

void run_mlp(const OpCall& call) {
  const Matrix x(call.in[0]), w1(call.in[1]), w2(call.in[3]), out(call.out[0]), pre(call.out[1]);
  const Activation gelu = geluOf(call.flag(0));
  const int64_t hidden = pre.cols, stride = scratchStride(hidden);
  // Hidden values are activated before a block of them leaves the cache. Few rows, and 16-bit ones that pass through
  // float32 blocks, are activated when the second product packs them.
  const bool pairs = pre.dtype == DType::kBFloat16 && multipliesPairs();
  const bool atOnce = (pairs || !isHalf(pre.dtype)) && x.rows >= 64;
  const int64_t chunk = atOnce ? kRowsOfHidden : std::max<int64_t>(1, x.rows);
  void* activated = atOnce ? call.workspace->take(std::min(chunk, x.rows) * stride * itemSize(pre.dtype)) : nullptr;
  GemmSeries products(call);
  PackedOperand packedW1, packedW2;
  for (int64_t row = 0; row < x.rows; row += chunk) {
    const int64_t count = std::min(chunk, x.rows - row);
    const Matrix z = pre.rowsFrom(row, count);
    Gemm up = productOf(x.rowsFrom(row, count).operand(), w1.transposed(), x.cols, z);
    addBias(up, call.in[2]);
    if (atOnce) {
      up.gradientOf = gelu;
      up.activated = activated;
      up.activatedRowStride = stride;
    }
    if (row == 0 && count < x.rows) packedW1 = products.keep(up);
    up.keptB = &packedW1;
    products.multiply(up);
    const GemmOperand h = atOnce ? GemmOperand{activated, pre.dtype, stride, 1, Activation::kNone}
                                 : GemmOperand{z.data, z.dtype, z.rowStride, z.colStride, gelu};
    Gemm down = productOf(h, w2.transposed(), hidden, out.rowsFrom(row, count));
    addBias(down, call.in[4]);
    if (row == 0 && count < x.rows) packedW2 = products.keep(down);
    down.keptB = &packedW2;
    products.multiply(down);
  }
}

void run_mlpBackward(const OpCall& call) {
  const Matrix grad(call.in[0]), x(call.in[1]), pre(call.in[2]), w1(call.in[3]), w2(call.in[4]);
  const Matrix dx(call.out[0]), dw1(call.out[1]), dw2(call.out[3]);
  const Activation gelu = geluOf(call.flag(0));
  const bool accumulate = call.flag(1);
  const bool pairs = pre.dtype == DType::kBFloat16 && multipliesPairs();
  const DType compute = grad.dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
  const DType kept = pairs ? pre.dtype : compute;  // of the hidden values and their gradient
  // Rows at a time, so that the hidden values and their gradient stay in cache and are never whole. Weight gradients
  // that are rounded to 16 bits are rounded once, so there the rows stay together.
  const int64_t chunk = isHalf(dw1.dtype) || isHalf(dw2.dtype) ? std::max<int64_t>(1, grad.rows) : kRowsOfHidden;
  const int64_t hidden = pre.cols, stride = scratchStride(hidden);
  TensorView scratch = call.in[2];
  scratch.dtype = kept;
  scratch.rank = 2;
  scratch.contiguous = true;
  scratch.sizes[1] = hidden;
  const size_t bytes = std::max<size_t>(64, std::min(chunk, grad.rows) * stride * itemSize(kept));
  scratch.data = call.workspace->take(bytes);
  void* activated = nullptr;
  void *sums1 = zeroSums(call, hidden), *sums2 = zeroSums(call, grad.cols);
  GemmSeries products(call);
  PackedOperand packedW1, packedW2, packedH;
  for (int64_t row = 0; row < grad.rows || row == 0; row += chunk) {
    const int64_t count = std::min(chunk, grad.rows - row);
    const Matrix g = grad.rowsFrom(row, count), z = pre.rowsFrom(row, count), xs = x.rowsFrom(row, count);
    scratch.sizes[0] = count;
    Matrix dz(scratch);
    dz.rowStride = stride;
    const double beta = accumulate || row > 0 ? 1 : 0;

    Gemm step = productOf(g.operand(), w2.operand(), g.cols, dz);
    step.gradientAt = z.data;
    step.gradientRowStride = z.rowStride;
    step.gradientDType = z.dtype;
    step.gradientOf = gelu;
    const GemmOperand h{nullptr, kept, stride, 1, Activation::kNone};
    Gemm outer = productOf(g.transposed(), h, count, dw2, beta);
    outer.rowSum = sums2;
    if (leavesPacked(step, outer)) {
      if (!packedH.data) packedH = products.keep(outer);
      packedH.filled = false;
      step.activatedPanels = outer.keptB = &packedH;
    } else {
      if (!activated) activated = call.workspace->take(bytes);
      outer.b.data = step.activated = activated;
      step.activatedRowStride = stride;
    }
    if (row == 0 && count < grad.rows) packedW2 = products.keep(step);
    step.keptB = &packedW2;
    products.multiply(step);
    packedH.filled = true;
    products.multiply(outer);

    step = productOf(dz.transposed(), xs.operand(), count, dw1, beta);
    step.rowSum = sums1;
    products.multiply(step);

    step = productOf(dz.operand(), w1.operand(), hidden, dx.rowsFrom(row, count));
    if (row == 0 && count < grad.rows) packedW1 = products.keep(step);
    step.keptB = &packedW1;
    products.multiply(step);
  }
  storeSums(sums1, compute == DType::kFloat64, call.out[2], accumulate);
  storeSums(sums2, compute == DType::kFloat64, call.out[4], accumulate);
}

}  // namespace gradus::cpu
