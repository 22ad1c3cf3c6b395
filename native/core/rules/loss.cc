// Rules of the losses with kernels of their own.
#include "../op.h"

namespace gradus::rules {
namespace {

using Long = long long;

DType statisticsOf(DType dtype) { return dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32; }

void checkTarget(const OpCall& call, const TensorView& target, int64_t rows) {
  GRADUS_CHECK(target.dtype == DType::kInt64 || target.dtype == DType::kInt32 || target.dtype == DType::kUint8,
               ErrorCode::kDType, "%s: target dtype: got %s, expected int64, int32 or uint8 class indices", call.name,
               dtypeName(target.dtype));
  GRADUS_CHECK(target.rank == 1 && target.size(0) == rows, ErrorCode::kShape,
               "%s: rows differ: got %lld targets for %lld rows of logits", call.name,
               Long(target.rank == 1 ? target.size(0) : target.numel), Long(rows));
}

void checkClassWeight(const OpCall& call, int at, int64_t classes) {
  if (call.nIn <= at || !call.in[at].present()) return;
  const TensorView& weight = call.in[at];
  GRADUS_CHECK(isFloating(weight.dtype), ErrorCode::kDType, "%s: class weight dtype: got %s, expected a floating dtype",
               call.name, dtypeName(weight.dtype));
  GRADUS_CHECK(weight.rank == 1 && weight.size(0) == classes, ErrorCode::kShape,
               "%s: class weights do not match: got %lld, expected one for each of %lld classes", call.name,
               Long(weight.numel), Long(classes));
}

void checkOptions(const OpCall& call, bool none) {
  const double ignoreIndex = call.attr[0], smoothing = call.attr[1], reduction = call.attr[2];
  GRADUS_CHECK(ignoreIndex >= -0x1p53 && ignoreIndex <= 0x1p53, ErrorCode::kIndex,
               "%s: ignoreIndex: got %g, expected a whole number", call.name, ignoreIndex);
  GRADUS_CHECK(smoothing >= 0 && smoothing <= 1, ErrorCode::kShape, "%s: labelSmoothing: got %g, expected 0 to 1",
               call.name, smoothing);
  GRADUS_CHECK(reduction == 1 || reduction == 2 || (none && reduction == 0), ErrorCode::kNative,
               "%s: reduction: got %g, expected %s1 (mean) or 2 (sum)", call.name, reduction, none ? "0 (none), " : "");
}

void checkLogits(const OpCall& call, const TensorView& logits) {
  GRADUS_CHECK(isFloating(logits.dtype), ErrorCode::kDType, "%s: logits dtype: got %s, expected a floating dtype",
               call.name, dtypeName(logits.dtype));
  GRADUS_CHECK(logits.rank == 2 && logits.size(1) > 0, ErrorCode::kShape,
               "%s: logits must be [N, C] with at least one class: got rank %d", call.name, logits.rank);
}

void checkPresent(const OpCall& call, int count) {
  for (int i = 0; i < count; ++i) {
    GRADUS_CHECK(call.in[i].present(), ErrorCode::kNative, "%s: operand %d is missing", call.name, i);
  }
}

// Losses have the logits' dtype, or float32 for 16-bit logits whose loss is to keep its range.
bool isLoss(const OpCall& call, const TensorView& loss, const TensorView& logits) {
  const bool fits = call.attr[2] == 0 ? loss.rank == 1 && loss.size(0) == logits.size(0) : loss.rank == 0;
  return fits && (loss.dtype == logits.dtype || loss.dtype == statisticsOf(logits.dtype));
}

bool isScalar(const TensorView& x, DType dtype) { return x.rank == 0 && x.dtype == dtype; }

bool isRows(const TensorView& x, int64_t rows, DType dtype) {
  return x.rank == 1 && x.size(0) == rows && x.dtype == dtype;
}

bool isMatrix(const TensorView& x, int64_t rows, int64_t columns, DType dtype) {
  return x.rank == 2 && x.size(0) == rows && x.size(1) == columns && x.dtype == dtype && x.contiguous;
}

}  // namespace

void rule_crossEntropy(const OpCall& call) {
  checkPresent(call, 2);
  const TensorView& logits = call.in[0];
  checkLogits(call, logits);
  const int64_t rows = logits.size(0);
  const DType statistics = statisticsOf(logits.dtype);
  checkTarget(call, call.in[1], rows);
  checkClassWeight(call, 2, logits.size(1));
  checkOptions(call, true);
  GRADUS_CHECK(isLoss(call, call.out[0], logits), ErrorCode::kNative,
               "crossEntropy: the loss must be [] or, without reduction, [N], of the logits' dtype or %s",
               dtypeName(statistics));
  GRADUS_CHECK(isRows(call.out[1], rows, statistics) && call.out[1].contiguous && isScalar(call.out[2], statistics),
               ErrorCode::kNative, "crossEntropy: logsumexp must be a contiguous %s [N] and the divisor %s []",
               dtypeName(statistics), dtypeName(statistics));
}

void rule_crossEntropyBackward(const OpCall& call) {
  checkPresent(call, 5);
  const TensorView &g = call.in[0], &logits = call.in[1];
  checkLogits(call, logits);
  const int64_t rows = logits.size(0);
  const DType statistics = statisticsOf(logits.dtype);
  checkTarget(call, call.in[2], rows);
  checkClassWeight(call, 5, logits.size(1));
  checkOptions(call, true);
  GRADUS_CHECK(isLoss(call, g, logits), ErrorCode::kShape,
               "crossEntropyBackward: the incoming gradient must have the loss's shape, and the logits' dtype or %s",
               dtypeName(statistics));
  GRADUS_CHECK(isRows(call.in[3], rows, statistics) && call.in[3].contiguous && isScalar(call.in[4], statistics),
               ErrorCode::kNative, "crossEntropyBackward: logsumexp must be a contiguous %s [N] and the divisor %s []",
               dtypeName(statistics), dtypeName(statistics));
  GRADUS_CHECK(isMatrix(call.out[0], rows, logits.size(1), logits.dtype), ErrorCode::kNative,
               "crossEntropyBackward: the output must be contiguous with the logits' shape and dtype");
}

void rule_linearCrossEntropy(const OpCall& call) {
  checkPresent(call, 3);
  const TensorView &x = call.in[0], &weight = call.in[1];
  const bool isDouble = x.dtype == DType::kFloat64;
  GRADUS_CHECK(isFloating(x.dtype) && isFloating(weight.dtype) && (weight.dtype == DType::kFloat64) == isDouble,
               ErrorCode::kDType,
               "linearCrossEntropy: dtypes do not fit: got input %s and weight %s, expected floating ones, and float64 "
               "with float64",
               dtypeName(x.dtype), dtypeName(weight.dtype));
  const int64_t products = call.integer(5);  // a dtype
  GRADUS_CHECK(products == static_cast<int64_t>(DType::kFloat32) || products == static_cast<int64_t>(DType::kFloat16) ||
                   products == static_cast<int64_t>(DType::kBFloat16),
               ErrorCode::kNative, "linearCrossEntropy: products must be in float16, bfloat16 or the operands' dtype");
  GRADUS_CHECK(products == static_cast<int64_t>(DType::kFloat32) || !isDouble, ErrorCode::kDType,
               "linearCrossEntropy: float64 is not computed in 16 bits: got products in %s of float64 operands",
               dtypeName(static_cast<DType>(products)));
  GRADUS_CHECK(x.rank == 2 && weight.rank == 2 && x.size(1) == weight.size(1) && weight.size(0) > 0, ErrorCode::kShape,
               "linearCrossEntropy: shapes do not match: got input of rank %d ending in %lld and weight of rank %d "
               "ending in %lld, expected [N, K] and [C, K]",
               x.rank, Long(x.rank > 0 ? x.size(-1) : 0), weight.rank, Long(weight.rank > 0 ? weight.size(-1) : 0));
  checkTarget(call, call.in[2], x.size(0));
  checkClassWeight(call, 3, weight.size(0));
  checkOptions(call, false);
  const DType statistics = statisticsOf(x.dtype);
  GRADUS_CHECK(isScalar(call.out[0], statistics) && isScalar(call.out[1], statistics), ErrorCode::kNative,
               "linearCrossEntropy: loss and divisor must be %s []", dtypeName(statistics));
  GRADUS_CHECK(call.attr[6] >= 1, ErrorCode::kNative, "linearCrossEntropy: chunkBytes must be at least 1");
  if (call.flag(3)) {
    const auto kept = [](DType dtype) { return dtype == DType::kFloat16 ? DType::kFloat32 : dtype; };
    GRADUS_CHECK(isMatrix(call.out[2], x.size(0), x.size(1), kept(x.dtype)) &&
                     isMatrix(call.out[3], weight.size(0), weight.size(1), kept(weight.dtype)),
                 ErrorCode::kNative,
                 "linearCrossEntropy: gradients must be contiguous, like input and weight, and float32 for float16");
  }
}

void rule_scaleByScalar(const OpCall& call) {
  checkPresent(call, 1);
  const TensorView& g = call.in[0];
  GRADUS_CHECK(g.rank == 0 && (g.dtype == DType::kFloat32 || g.dtype == DType::kFloat64), ErrorCode::kNative,
               "scaleByScalar: the factor must be a float32 or float64 scalar");
  for (int i = 0; i < call.nOut; ++i) {
    GRADUS_CHECK(isFloating(call.out[i].dtype) && call.out[i].contiguous, ErrorCode::kNative,
                 "scaleByScalar: tensors must be contiguous and floating");
  }
}

}  // namespace gradus::rules
