// What layer norm, rms norm and their gradients ask of their operands.
#include "../op.h"

namespace gradus::rules {
namespace {

void checkFloating(const OpCall& call, int i) {
  const TensorView& x = call.in[i];
  GRADUS_CHECK(x.present(), ErrorCode::kNative, "%s: operand %d is missing", call.name, i);
  GRADUS_CHECK(isFloating(x.dtype), ErrorCode::kDType,
               "%s: operand %d has no fractions: got %s, expected a floating dtype; convert it with to('float32')",
               call.name, i, dtypeName(x.dtype));
}

struct Sizes {
  int64_t rows = 1, width = 1;
};

Sizes sizesOf(const OpCall& call, const TensorView& x, int attribute) {
  const double normDims = call.attr[attribute];
  GRADUS_CHECK(normDims >= 1 && normDims <= x.rank && normDims == static_cast<int>(normDims), ErrorCode::kShape,
               "%s: cannot normalize over %g dims: got an input of %d dims", call.name, normDims, x.rank);
  Sizes sizes;
  for (int d = 0; d < x.rank; ++d) (d < x.rank - normDims ? sizes.rows : sizes.width) *= x.sizes[d];
  return sizes;
}

void checkParameter(const OpCall& call, int i, int64_t width) {
  if (i >= call.nIn || !call.in[i].present()) return;
  checkFloating(call, i);
  GRADUS_CHECK(call.in[i].numel == width, ErrorCode::kShape,
               "%s: weight or bias does not fit: got %lld elements, expected %lld", call.name,
               static_cast<long long>(call.in[i].numel), static_cast<long long>(width));
}

void checkLike(const OpCall& call, const TensorView& y, const TensorView& x) {
  GRADUS_CHECK(sameSizes(y, x) && y.dtype == x.dtype, ErrorCode::kShape,
               "%s: operands differ: expected the shape and dtype of x everywhere", call.name);
}

// The same sizes, and a dtype that computes as that of x.
void checkNear(const OpCall& call, const TensorView& y, const TensorView& x) {
  GRADUS_CHECK(isFloating(y.dtype) && (y.dtype == DType::kFloat64) == (x.dtype == DType::kFloat64), ErrorCode::kDType,
               "%s: dtypes do not fit: got %s and %s, expected floating ones, and float64 with float64", call.name,
               dtypeName(x.dtype), dtypeName(y.dtype));
  GRADUS_CHECK(sameSizes(y, x), ErrorCode::kShape, "%s: operands differ: expected one shape everywhere", call.name);
}

void checkNormalized(const OpCall& call, const TensorView& normalized, const TensorView& x) {
  GRADUS_CHECK(normalized.contiguous && isFloating(normalized.dtype), ErrorCode::kShape,
               "%s: the normalized output is not contiguous and floating", call.name);
  if (normalized.numel != 0) checkNear(call, normalized, x);
}

// x of a gradient: like dx, or normalized and then perhaps of another dtype.
void checkSource(const OpCall& call, const TensorView& x, const TensorView& dx) {
  call.flag(2) ? checkNear(call, x, dx) : checkLike(call, x, dx);
}

void checkOutput(const OpCall& call, int i, const TensorView& x) {
  checkLike(call, call.out[i], x);
  GRADUS_CHECK(call.out[i].contiguous, ErrorCode::kShape, "%s: the output is not contiguous", call.name);
}

void checkStatistic(const OpCall& call, const TensorView& s, const TensorView& x, int64_t rows) {
  const DType dtype = x.dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
  GRADUS_CHECK(s.present() && s.dtype == dtype && s.numel == rows && s.contiguous, ErrorCode::kShape,
               "%s: a row statistic does not fit: expected %lld contiguous elements of %s", call.name,
               static_cast<long long>(rows), dtypeName(dtype));
}

void checkParameterGradient(const OpCall& call, int i, int64_t width) {
  const TensorView& grad = call.out[i];
  GRADUS_CHECK(isFloating(grad.dtype) && grad.contiguous && (grad.numel == 0 || grad.numel == width), ErrorCode::kShape,
               "%s: the gradient of weight or bias does not fit: got %lld elements, expected %lld", call.name,
               static_cast<long long>(grad.numel), static_cast<long long>(width));
}

}  // namespace

void rule_layerNorm(const OpCall& call) {
  checkFloating(call, 0);
  const TensorView& x = call.in[0];
  const Sizes sizes = sizesOf(call, x, 1);
  checkParameter(call, 1, sizes.width);
  checkParameter(call, 2, sizes.width);
  checkOutput(call, 0, x);
  checkStatistic(call, call.out[1], x, sizes.rows);
  checkStatistic(call, call.out[2], x, sizes.rows);
  checkNormalized(call, call.out[3], x);
}

void rule_layerNormBackward(const OpCall& call) {
  checkFloating(call, 0);
  checkFloating(call, 1);
  const TensorView& g = call.in[0];
  const Sizes sizes = sizesOf(call, g, 0);
  checkSource(call, call.in[1], g);
  if (!call.flag(2)) checkStatistic(call, call.in[2], g, sizes.rows);
  checkStatistic(call, call.in[3], g, sizes.rows);
  checkParameter(call, 4, sizes.width);
  checkOutput(call, 0, g);
  checkParameterGradient(call, 1, sizes.width);
  checkParameterGradient(call, 2, sizes.width);
}

void rule_rmsNorm(const OpCall& call) {
  checkFloating(call, 0);
  const TensorView& x = call.in[0];
  const Sizes sizes = sizesOf(call, x, 1);
  checkParameter(call, 1, sizes.width);
  checkOutput(call, 0, x);
  checkStatistic(call, call.out[1], x, sizes.rows);
  checkNormalized(call, call.out[2], x);
}

void rule_rmsNormBackward(const OpCall& call) {
  checkFloating(call, 0);
  checkFloating(call, 1);
  const TensorView& g = call.in[0];
  const Sizes sizes = sizesOf(call, g, 0);
  checkSource(call, call.in[1], g);
  checkStatistic(call, call.in[2], g, sizes.rows);
  checkParameter(call, 3, sizes.width);
  checkOutput(call, 0, g);
  checkParameterGradient(call, 1, sizes.width);
}

void rule_scaleShift(const OpCall& call) {
  checkFloating(call, 0);
  const Sizes sizes = sizesOf(call, call.in[0], 0);
  checkParameter(call, 1, sizes.width);
  checkParameter(call, 2, sizes.width);
  checkNear(call, call.out[0], call.in[0]);
  GRADUS_CHECK(call.out[0].contiguous, ErrorCode::kShape, "scaleShift: the output is not contiguous");
}

}  // namespace gradus::rules
