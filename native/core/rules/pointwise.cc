// Rules of the pointwise operators: operands broadcast to the output. Kernels convert dtypes as they read and write,
// so only what has no integer form asks for a floating output.
#include <cmath>

#include "../op.h"

namespace gradus::rules {
namespace {

enum class Result { kAny, kFloating, kTruth };

// The shape as text; `room` characters at `text`.
const char* describe(const TensorView& view, char* text, size_t room) {
  size_t at = static_cast<size_t>(snprintf(text, room, "["));
  for (int d = 0; d < view.rank && at + 24 < room; ++d) {
    at += static_cast<size_t>(
        snprintf(text + at, room - at, d ? ", %lld" : "%lld", static_cast<long long>(view.sizes[d])));
  }
  snprintf(text + at, room - at, "]");
  return text;
}

[[noreturn]] void refuseShape(const OpCall& call, const TensorView& in) {
  char got[160], expected[160];
  fail(ErrorCode::kShape, "%s: an operand does not broadcast: got %s, expected sizes that broadcast to %s; reshape it",
       call.name, describe(in, got, sizeof got), describe(call.out[0], expected, sizeof expected));
}

void checkOutput(const OpCall& call, Result result) {
  const TensorView& out = call.out[0];
  GRADUS_CHECK(result != Result::kFloating || isFloating(out.dtype), ErrorCode::kDType,
               "%s: not defined for integers: got an output of %s, expected a floating dtype; convert first", call.name,
               dtypeName(out.dtype));
  GRADUS_CHECK(result != Result::kTruth || out.dtype == DType::kBool, ErrorCode::kDType,
               "%s: gives truth values: got an output of %s, expected bool", call.name, dtypeName(out.dtype));
}

void checkOperands(const OpCall& call, Result result) {
  const TensorView& out = call.out[0];
  for (int i = 0; i < call.nIn; ++i) {
    const TensorView& in = call.in[i];
    GRADUS_CHECK(in.present(), ErrorCode::kShape, "%s: operand %d is absent", call.name, i);
    if (!sameSizes(in, out) && !broadcastsTo(in, out)) refuseShape(call, in);
  }
  checkOutput(call, result);
}

}  // namespace

void rule_copyTwice(const OpCall& call) {
  OpCall second = call;
  second.out = call.out + 1;
  checkOperands(call, Result::kAny);
  checkOperands(second, Result::kAny);
}

#define GRADUS_RULE(name, result) \
  void rule_##name(const OpCall& call) { checkOperands(call, Result::result); }

GRADUS_RULE(copy, kAny)
GRADUS_RULE(neg, kAny)
GRADUS_RULE(abs, kAny)
GRADUS_RULE(sign, kAny)
GRADUS_RULE(square, kAny)
GRADUS_RULE(relu, kAny)
GRADUS_RULE(round, kAny)
GRADUS_RULE(floor, kAny)
GRADUS_RULE(ceil, kAny)
GRADUS_RULE(trunc, kAny)
GRADUS_RULE(clamp, kAny)
GRADUS_RULE(exp, kFloating)
GRADUS_RULE(expm1, kFloating)
GRADUS_RULE(log, kFloating)
GRADUS_RULE(log1p, kFloating)
GRADUS_RULE(log2, kFloating)
GRADUS_RULE(sqrt, kFloating)
GRADUS_RULE(rsqrt, kFloating)
GRADUS_RULE(sin, kFloating)
GRADUS_RULE(cos, kFloating)
GRADUS_RULE(tanh, kFloating)
GRADUS_RULE(sigmoid, kFloating)
GRADUS_RULE(erf, kFloating)
GRADUS_RULE(reciprocal, kFloating)
GRADUS_RULE(silu, kFloating)
GRADUS_RULE(softplus, kFloating)
GRADUS_RULE(gelu, kFloating)
GRADUS_RULE(logicalNot, kTruth)
GRADUS_RULE(isnan, kTruth)
GRADUS_RULE(isinf, kTruth)
GRADUS_RULE(isfinite, kTruth)

GRADUS_RULE(tanhBackward, kFloating)
GRADUS_RULE(sigmoidBackward, kFloating)
GRADUS_RULE(reluBackward, kFloating)
GRADUS_RULE(siluBackward, kFloating)
GRADUS_RULE(softplusBackward, kFloating)
GRADUS_RULE(geluBackward, kFloating)
GRADUS_RULE(clampBackward, kFloating)
GRADUS_RULE(signBackwardAbs, kFloating)

GRADUS_RULE(add, kAny)
GRADUS_RULE(sub, kAny)
GRADUS_RULE(mul, kAny)
GRADUS_RULE(div, kFloating)
GRADUS_RULE(floorDivide, kAny)
GRADUS_RULE(truncDivide, kAny)
GRADUS_RULE(remainder, kAny)
GRADUS_RULE(pow, kAny)
GRADUS_RULE(maximum, kAny)
GRADUS_RULE(minimum, kAny)
GRADUS_RULE(eq, kTruth)
GRADUS_RULE(ne, kTruth)
GRADUS_RULE(lt, kTruth)
GRADUS_RULE(le, kTruth)
GRADUS_RULE(gt, kTruth)
GRADUS_RULE(ge, kTruth)
GRADUS_RULE(logicalAnd, kTruth)
GRADUS_RULE(logicalOr, kTruth)
GRADUS_RULE(logicalXor, kTruth)
GRADUS_RULE(addcmul, kAny)

void rule_where(const OpCall& call) {
  checkOperands(call, Result::kAny);
  GRADUS_CHECK(call.in[0].dtype == DType::kBool, ErrorCode::kDType,
               "where: the condition is not a truth value: got %s, expected bool; compare it with something",
               dtypeName(call.in[0].dtype));
}

void rule_maskedFill(const OpCall& call) {
  checkOperands(call, Result::kAny);
  GRADUS_CHECK(call.in[1].dtype == DType::kBool, ErrorCode::kDType,
               "maskedFill: the mask is not a truth value: got %s, expected bool; compare it with something",
               dtypeName(call.in[1].dtype));
}

void rule_fill(const OpCall& call) { checkOutput(call, Result::kAny); }

void rule_arange(const OpCall& call) {
  checkOutput(call, Result::kAny);
  GRADUS_CHECK(call.out[0].rank == 1, ErrorCode::kShape, "arange: the output has rank %d, expected 1",
               call.out[0].rank);
  GRADUS_CHECK(std::isfinite(call.attr[0]) && std::isfinite(call.attr[1]), ErrorCode::kShape,
               "arange: start and step are not finite: got %g and %g", call.attr[0], call.attr[1]);
  const double reach = std::abs(call.attr[0]) + std::abs(call.attr[1]) * static_cast<double>(call.out[0].numel);
  GRADUS_CHECK(!isIntegral(call.out[0].dtype) || reach < 0x1p62, ErrorCode::kShape,
               "arange: leaves the range of integers: start %g, step %g", call.attr[0], call.attr[1]);
}

}  // namespace gradus::rules
