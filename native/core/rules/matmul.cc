// Rules of the matrix products.
#include "../op.h"

namespace gradus::rules {

namespace {

using Code = ErrorCode;

// float64 with float64; the other floating dtypes mix, because all of them compute in float32.
void checkFloating(const OpCall& call, const char* what, const TensorView& view, bool isDouble) {
  GRADUS_CHECK(isFloating(view.dtype) && (view.dtype == DType::kFloat64) == isDouble, Code::kDType,
               "%s: %s has the wrong dtype: got %s, expected %s; convert it with to()", call.name, what,
               dtypeName(view.dtype), isDouble ? "float64" : "float32, float16 or bfloat16");
}

void checkSize(const OpCall& call, const char* what, int64_t got, int64_t expected) {
  GRADUS_CHECK(got == expected, Code::kShape, "%s: %s does not fit: got %lld, expected %lld; check the layer's sizes",
               call.name, what, static_cast<long long>(got), static_cast<long long>(expected));
}

// A matrix, or any dims in front of the last one if they lie behind each other. Returns the rows.
int64_t checkRows(const OpCall& call, const char* what, const TensorView& view) {
  GRADUS_CHECK(view.rank >= 1, Code::kShape, "%s: %s has no dims: got rank 0, expected at least 1", call.name, what);
  GRADUS_CHECK(view.contiguous || view.rank == 2, Code::kShape,
               "%s: %s must be contiguous: got strides with gaps; call contiguous()", call.name, what);
  int64_t rows = 1;
  for (int d = 0; d + 1 < view.rank; ++d) rows *= view.sizes[d];
  return rows;
}

void checkMatrix(const OpCall& call, const char* what, const TensorView& view, int64_t rows, int64_t cols) {
  GRADUS_CHECK(view.rank == 2 && view.sizes[0] == rows && view.sizes[1] == cols, Code::kShape,
               "%s: %s has the wrong shape: got rank %d with %lld elements, expected [%lld, %lld]", call.name, what,
               view.rank, static_cast<long long>(view.numel), static_cast<long long>(rows),
               static_cast<long long>(cols));
}

void checkVector(const OpCall& call, const char* what, const TensorView& view, int64_t size) {
  GRADUS_CHECK(view.rank == 1 && view.sizes[0] == size, Code::kShape,
               "%s: %s has the wrong shape: got rank %d with %lld elements, expected [%lld]", call.name, what,
               view.rank, static_cast<long long>(view.numel), static_cast<long long>(size));
}

// A bias that a kernel adds: it reads neighbours.
void checkBias(const OpCall& call, const char* what, const TensorView& view, int64_t size, bool isDouble) {
  checkVector(call, what, view, size);
  checkFloating(call, what, view, isDouble);
  GRADUS_CHECK(view.contiguous, Code::kShape, "%s: %s must be contiguous: got strides with gaps; call contiguous()",
               call.name, what);
}

void checkPresent(const OpCall& call) {
  for (int i = 0; i < call.nIn; ++i) {
    GRADUS_CHECK(call.in[i].present(), Code::kNative, "%s: operand %d is missing", call.name, i);
  }
}

}  // namespace

void rule_matmul(const OpCall& call) {
  checkPresent(call);
  const TensorView &a = call.in[0], &b = call.in[1], &out = call.out[0];
  if (isFloating(a.dtype)) {
    checkFloating(call, "b", b, a.dtype == DType::kFloat64);
    checkFloating(call, "the output", out, a.dtype == DType::kFloat64);
  } else {
    GRADUS_CHECK(a.dtype == out.dtype && a.dtype == b.dtype && a.dtype != DType::kBool, Code::kDType,
                 "matmul: no product of this dtype: got %s, expected a floating or integer dtype", dtypeName(a.dtype));
    GRADUS_CHECK(call.attr[0] == 1 && call.attr[1] == 0, Code::kNative,
                 "matmul: integers have no alpha or beta: got %g and %g", call.attr[0], call.attr[1]);
  }
  GRADUS_CHECK(a.rank >= 2 && b.rank >= 2 && out.rank >= 2 && a.rank <= out.rank && b.rank <= out.rank, Code::kShape,
               "matmul: ranks do not fit: got %d, %d and output %d, expected at least 2", a.rank, b.rank, out.rank);
  checkSize(call, "the inner dim of b", b.size(-2), a.size(-1));
  checkSize(call, "the output's rows", out.size(-2), a.size(-2));
  checkSize(call, "the output's columns", out.size(-1), b.size(-1));
  for (int d = 3; d <= out.rank; ++d) {
    for (const TensorView* each : {&a, &b}) {
      const int64_t size = d <= each->rank ? each->size(-d) : 1;
      GRADUS_CHECK(size == 1 || size == out.size(-d), Code::kShape,
                   "matmul: batch dims do not broadcast: got %lld at dim -%d, expected 1 or %lld",
                   static_cast<long long>(size), d, static_cast<long long>(out.size(-d)));
    }
  }
}

void rule_linear(const OpCall& call) {
  const TensorView &x = call.in[0], &weight = call.in[1], &out = call.out[0];
  GRADUS_CHECK(x.present() && weight.present(), Code::kNative, "linear: an operand is missing");
  const bool isDouble = x.dtype == DType::kFloat64;
  const int64_t rows = checkRows(call, "x", x);
  checkMatrix(call, "weight", weight, out.rank > 0 ? out.size(-1) : 0, x.size(-1));
  checkSize(call, "the output's rows", checkRows(call, "the output", out), rows);
  checkFloating(call, "x", x, isDouble);
  checkFloating(call, "weight", weight, isDouble);
  checkFloating(call, "the output", out, isDouble);
  if (call.nIn > 2 && call.in[2].present()) checkBias(call, "bias", call.in[2], out.size(-1), isDouble);
}

void rule_linearBackwardWeight(const OpCall& call) {
  checkPresent(call);
  const TensorView &g = call.in[0], &x = call.in[1];
  const bool isDouble = g.dtype == DType::kFloat64;
  checkSize(call, "the rows of x", checkRows(call, "x", x), checkRows(call, "the gradient", g));
  checkMatrix(call, "dweight", call.out[0], g.size(-1), x.size(-1));
  checkVector(call, "dbias", call.out[1], call.flag(1) ? g.size(-1) : 0);
  for (int i = 0; i < 2; ++i) {
    checkFloating(call, "an operand", call.in[i], isDouble);
    checkFloating(call, "an output", call.out[i], isDouble);
  }
}

void rule_mlp(const OpCall& call) {
  checkPresent(call);
  const TensorView &x = call.in[0], &w1 = call.in[1], &w2 = call.in[3], &out = call.out[0], &pre = call.out[1];
  const int64_t rows = checkRows(call, "x", x);
  checkSize(call, "the output's rows", checkRows(call, "the output", out), rows);
  checkSize(call, "the pre-activation's rows", checkRows(call, "the pre-activation", pre), rows);
  GRADUS_CHECK(pre.contiguous, Code::kShape, "mlp: the pre-activation must be contiguous: got strides with gaps");
  checkMatrix(call, "w1", w1, pre.size(-1), x.size(-1));
  checkMatrix(call, "w2", w2, out.size(-1), pre.size(-1));
  for (const TensorView* each : {&x, &w1, &w2, &out, &pre}) {
    checkFloating(call, "an operand", *each, x.dtype == DType::kFloat64);
  }
  checkBias(call, "b1", call.in[2], pre.size(-1), x.dtype == DType::kFloat64);
  checkBias(call, "b2", call.in[4], out.size(-1), x.dtype == DType::kFloat64);
}

void rule_mlpBackward(const OpCall& call) {
  checkPresent(call);
  const TensorView &g = call.in[0], &x = call.in[1], &pre = call.in[2], &w1 = call.in[3], &w2 = call.in[4];
  const int64_t rows = checkRows(call, "the gradient", g);
  checkSize(call, "the rows of x", checkRows(call, "x", x), rows);
  checkSize(call, "the pre-activation's rows", checkRows(call, "the pre-activation", pre), rows);
  GRADUS_CHECK(pre.contiguous, Code::kShape,
               "mlpBackward: the pre-activation must be contiguous: got strides with gaps");
  checkMatrix(call, "w1", w1, pre.size(-1), x.size(-1));
  checkMatrix(call, "w2", w2, g.size(-1), pre.size(-1));
  checkSize(call, "dx's rows", checkRows(call, "dx", call.out[0]), rows);
  checkSize(call, "dx's columns", call.out[0].size(-1), x.size(-1));
  checkMatrix(call, "dw1", call.out[1], pre.size(-1), x.size(-1));
  checkVector(call, "db1", call.out[2], pre.size(-1));
  checkMatrix(call, "dw2", call.out[3], g.size(-1), pre.size(-1));
  checkVector(call, "db2", call.out[4], g.size(-1));
  for (int i = 0; i < 5; ++i) {
    checkFloating(call, "an operand", call.in[i], g.dtype == DType::kFloat64);
    checkFloating(call, "an output", call.out[i], g.dtype == DType::kFloat64);
  }
}

}  // namespace gradus::rules
