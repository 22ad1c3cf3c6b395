// What random operators ask of their operands. Seeds and offsets are whole numbers below 2^53.
#include "../op.h"

namespace gradus::rules {
namespace {

void checkStream(const OpCall& call) {
  for (int i = 0; i < 2; ++i) {
    const double value = call.attr[i];
    GRADUS_CHECK(value >= 0 && value < 0x1p53 && value == static_cast<double>(static_cast<int64_t>(value)),
                 ErrorCode::kState, "%s: not a %s: got %g, expected a whole number from 0 to 2^53 - 1", call.name,
                 i == 0 ? "seed" : "random offset", value);
  }
}

void checkOutput(const OpCall& call) {
  GRADUS_CHECK(call.out[0].contiguous, ErrorCode::kShape,
               "%s: the tensor is not contiguous; call contiguous() on it first", call.name);
}

void checkFloating(const OpCall& call, const TensorView& x) {
  GRADUS_CHECK(x.present(), ErrorCode::kNative, "%s: an operand is missing", call.name);
  GRADUS_CHECK(isFloating(x.dtype), ErrorCode::kDType,
               "%s: no fractions: got %s, expected a floating dtype; convert it with to('float32')", call.name,
               dtypeName(x.dtype));
}

void checkLike(const OpCall& call, const TensorView& x) {
  checkFloating(call, x);
  GRADUS_CHECK(sameSizes(x, call.out[0]) && x.dtype == call.out[0].dtype, ErrorCode::kShape,
               "%s: operands and output differ in shape or dtype", call.name);
}

void checkDropout(const OpCall& call) {
  checkStream(call);
  checkOutput(call);
  const TensorView &x = call.in[0], &out = call.out[0];
  checkFloating(call, x);
  checkFloating(call, out);
  GRADUS_CHECK(sameSizes(x, out), ErrorCode::kShape, "%s: x and the output differ in shape", call.name);
  GRADUS_CHECK((x.dtype == DType::kFloat64) == (out.dtype == DType::kFloat64), ErrorCode::kDType,
               "%s: float64 does not mix: got %s and %s", call.name, dtypeName(x.dtype), dtypeName(out.dtype));
  for (int i = 1; i < call.nIn; ++i) checkLike(call, call.in[i]);
  const double p = call.attr[2];
  GRADUS_CHECK(p >= 0 && p <= 1, ErrorCode::kState, "%s: p is not a probability: got %g, expected 0 to 1", call.name,
               p);
}

}  // namespace

void rule_uniform(const OpCall& call) {
  checkStream(call);
  checkOutput(call);
  checkFloating(call, call.out[0]);
}

void rule_normal(const OpCall& call) { rule_uniform(call); }

void rule_randint(const OpCall& call) {
  checkStream(call);
  checkOutput(call);
  GRADUS_CHECK(call.out[0].dtype != DType::kBool, ErrorCode::kDType, "randint: no whole numbers: got bool");
  const double low = call.attr[2], high = call.attr[3];
  GRADUS_CHECK(low >= -0x1p53 && high <= 0x1p53 && low < high, ErrorCode::kState,
               "randint: the range is empty or too wide: got low %g and high %g, expected low < high, both of at most "
               "2^53",
               low, high);
}

void rule_bernoulli(const OpCall& call) {
  checkStream(call);
  checkOutput(call);
  checkLike(call, call.in[0]);
}

void rule_dropout(const OpCall& call) { checkDropout(call); }
void rule_dropoutAdd(const OpCall& call) { checkDropout(call); }

void rule_randperm(const OpCall& call) {
  checkStream(call);
  checkOutput(call);
  GRADUS_CHECK(call.out[0].rank == 1 && call.out[0].dtype == DType::kInt64, ErrorCode::kShape,
               "randperm: the output does not fit: expected int64 of one dim");
}

void rule_multinomial(const OpCall& call) {
  checkStream(call);
  checkOutput(call);
  const TensorView &weights = call.in[0], &out = call.out[0];
  checkFloating(call, weights);
  GRADUS_CHECK(weights.rank >= 1 && out.rank == weights.rank && out.dtype == DType::kInt64, ErrorCode::kShape,
               "multinomial: the output does not fit: expected int64 of the rank of the weights, at least 1");
  for (int d = 0; d + 1 < out.rank; ++d) {
    GRADUS_CHECK(out.sizes[d] == weights.sizes[d], ErrorCode::kShape,
                 "multinomial: rows differ: got %lld, expected %lld", static_cast<long long>(out.sizes[d]),
                 static_cast<long long>(weights.sizes[d]));
  }
  const int64_t choices = weights.size(-1), samples = out.size(-1);
  GRADUS_CHECK(samples == 0 || choices > 0, ErrorCode::kShape, "multinomial: nothing to choose from");
  GRADUS_CHECK(call.flag(2) || samples <= choices, ErrorCode::kShape,
               "multinomial: too many samples without replacement: got %lld, expected at most %lld",
               static_cast<long long>(samples), static_cast<long long>(choices));
}

}  // namespace gradus::rules
