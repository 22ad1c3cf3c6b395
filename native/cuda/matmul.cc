// Matrix products of tensors: batches, folding, integers, and the two products of a transformer's feed-forward layer
// with what stands between them. The products themselves are in gemm.cc.
#include <numeric>

#include "gemm.h"
#include "launch.h"

namespace gradus::cuda {
namespace {

static_assert(kGemmBatchRank == kMaxRank - 2);

int64_t batchStride(const TensorView& view, int fromEnd) {
  const int d = view.rank - fromEnd;
  return d < 0 || view.sizes[d] == 1 ? 0 : view.strides[d];
}

GemmOperand operandOf(const TensorView& view) { return {view.data, view.dtype, view.stride(-2), view.stride(-1), {}}; }

// Takes the batch dims of a product; those of size 1 are left out.
void addBatch(Gemm& g, const TensorView& a, const TensorView& b, const TensorView& out) {
  for (int d = 0; d + 2 < out.rank; ++d) {
    if (out.sizes[d] == 1) continue;
    g.sizes[g.rank] = out.sizes[d];
    g.a.batch[g.rank] = batchStride(a, out.rank - d);
    g.b.batch[g.rank] = batchStride(b, out.rank - d);
    g.cBatch[g.rank++] = out.strides[d];
  }
}

// Entries that use one B and follow each other as rows of A and C are one product of more rows.
void foldIntoRows(Gemm& g) {
  while (g.rank > 0) {
    const int d = g.rank - 1;
    if (g.b.batch[d] != 0 || g.a.batch[d] != g.a.rowStride * g.m || g.cBatch[d] != g.cRowStride * g.m) return;
    g.m *= g.sizes[d];
    g.rank = d;
  }
}

void integerProduct(const Gemm& g) {
  static Kernel whole[3] = {
      {"gemm", "gradus_gemm_whole_int64"}, {"gemm", "gradus_gemm_whole_int32"}, {"gemm", "gradus_gemm_whole_uint8"}};
  GemmIntegers arguments{};
  uint64_t count = static_cast<uint64_t>(g.m) * g.n;
  for (int d = 0; d < g.rank; ++d) {
    count *= g.sizes[d];
    arguments.sizes[d] = static_cast<int>(g.sizes[d]);
    arguments.aBatch[d] = g.a.batch[d];
    arguments.bBatch[d] = g.b.batch[d];
    arguments.cBatch[d] = g.cBatch[d];
  }
  if (count == 0) return;
  GRADUS_CHECK(count < uint64_t{1} << 38 && std::max({g.m, g.n, g.k}) < int64_t{1} << 31, ErrorCode::kShape,
               "matmul: too large for a product of integers on cuda: got %llu results",
               static_cast<unsigned long long>(count));
  arguments.m = static_cast<int>(g.m);
  arguments.n = static_cast<int>(g.n);
  arguments.k = static_cast<int>(g.k);
  arguments.rank = g.rank;
  arguments.a = g.a.data;
  arguments.b = g.b.data;
  arguments.c = g.c;
  arguments.aRow = g.a.rowStride;
  arguments.aCol = g.a.colStride;
  arguments.bRow = g.b.rowStride;
  arguments.bCol = g.b.colStride;
  arguments.cRow = g.cRowStride;
  arguments.cCol = g.cColStride;
  arguments.count = count;
  Kernel& kernel = whole[g.cDType == DType::kInt64 ? 0 : g.cDType == DType::kInt32 ? 1 : 2];
  currentDevice().launch(kernel, static_cast<unsigned>((count + kBlock - 1) / kBlock), kBlock, 0, &arguments);
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

  GemmOperand operand() const { return {data, dtype, rowStride, colStride, {}}; }
  GemmOperand transposed() const { return {data, dtype, colStride, rowStride, {}}; }
  Columns columns() const { return {data, dtype, rows, cols, rowStride, colStride}; }
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

void addBias(Gemm& g, const TensorView& bias) {
  g.bias = bias.data;
  g.biasDType = bias.dtype;
}

Activation geluOf(bool tanh) { return tanh ? Activation::kGeluTanh : Activation::kGeluErf; }

// A scratch matrix with rows of whole 16 bytes.
Matrix scratchLike(const OpCall& call, const Matrix& like, DType dtype) {
  const int64_t lanes = 16 / static_cast<int64_t>(itemSize(dtype));
  Matrix matrix = like;
  matrix.dtype = dtype;
  matrix.rowStride = (like.cols + lanes - 1) / lanes * lanes;
  matrix.colStride = 1;
  matrix.data =
      call.workspace->take(std::max<size_t>(64, static_cast<size_t>(like.rows * matrix.rowStride) * itemSize(dtype)));
  return matrix;
}

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
  addBatch(g, a, b, out);
  foldIntoRows(g);
  isIntegral(out.dtype) ? integerProduct(g) : gemm(g, call);
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
  gemm(productOf(grad.transposed(), x.operand(), grad.rows, dweight, accumulate ? 1 : 0), call);
  if (bias) columnSums(grad.columns(), call.out[1], accumulate, call);
}

void run_mlp(const OpCall& call) {
  const Matrix x(call.in[0]), w1(call.in[1]), w2(call.in[3]), out(call.out[0]), pre(call.out[1]);
  const Matrix hidden = scratchLike(call, pre, pre.dtype);
  Gemm up = productOf(x.operand(), w1.transposed(), x.cols, pre);
  addBias(up, call.in[2]);
  up.activation = geluOf(call.flag(0));
  up.activated = hidden.data;
  up.activatedRowStride = hidden.rowStride;
  gemm(up, call);
  Gemm down = productOf(hidden.operand(), w2.transposed(), pre.cols, out);
  addBias(down, call.in[4]);
  gemm(down, call);
}

void run_mlpBackward(const OpCall& call) {
  const Matrix grad(call.in[0]), x(call.in[1]), pre(call.in[2]), w1(call.in[3]), w2(call.in[4]);
  const Matrix dx(call.out[0]), dw1(call.out[1]), dw2(call.out[3]);
  const bool accumulate = call.flag(1);
  // hidden values and their gradient are rounded as the operands of the products that take them are
  const Matrix hidden = scratchLike(call, pre, pre.dtype), dpre = scratchLike(call, pre, pre.dtype);
  Gemm step = productOf(grad.operand(), w2.operand(), grad.cols, dpre);
  step.gradientAt = pre.data;
  step.gradientRowStride = pre.rowStride;
  step.gradientDType = pre.dtype;
  step.activation = geluOf(call.flag(0));
  step.activated = hidden.data;
  step.activatedRowStride = hidden.rowStride;
  gemm(step, call);
  const double beta = accumulate ? 1 : 0;
  gemm(productOf(grad.transposed(), hidden.operand(), grad.rows, dw2, beta), call);
  gemm(productOf(dpre.transposed(), x.operand(), grad.rows, dw1, beta), call);
  gemm(productOf(dpre.operand(), w1.operand(), pre.cols, dx), call);
  columnSums(dpre.columns(), call.out[2], accumulate, call);
  columnSums(grad.columns(), call.out[4], accumulate, call);
}

}  // namespace gradus::cuda
