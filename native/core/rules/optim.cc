// Rules of the optimizers. `in` is params..., grads..., states...; `out` is params..., states..., all existing tensors.
#include "../op.h"

namespace gradus::rules {

namespace {

using Code = ErrorCode;

DType stateDType(DType parameter) { return parameter == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32; }

void checkPlain(const OpCall& call, const char* what, int i, const TensorView& view) {
  GRADUS_CHECK(view.present() && view.contiguous, Code::kShape,
               "%s: %s %d must be contiguous: got strides with gaps; call contiguous()", call.name, what, i);
  GRADUS_CHECK(isFloating(view.dtype), Code::kDType, "%s: %s %d has the wrong dtype: got %s, expected a floating dtype",
               call.name, what, i, dtypeName(view.dtype));
}

void checkLike(const OpCall& call, const char* what, int i, const TensorView& view, const TensorView& like,
               DType dtype) {
  checkPlain(call, what, i, view);
  GRADUS_CHECK(view.numel == like.numel, Code::kShape,
               "%s: %s %d has another size than its parameter: got %lld elements, expected %lld", call.name, what, i,
               static_cast<long long>(view.numel), static_cast<long long>(like.numel));
  GRADUS_CHECK(view.dtype == dtype, Code::kDType, "%s: %s %d has the wrong dtype: got %s, expected %s", call.name, what,
               i, dtypeName(view.dtype), dtypeName(dtype));
}

// `states` tensors a parameter.
void checkStep(const OpCall& call, int states) {
  const double given = call.attr[0];
  GRADUS_CHECK(given >= 1 && given <= 4096 && given == static_cast<int>(given), Code::kNative,
               "%s: count is out of range: got %g, expected 1 to 4096", call.name, given);
  const int count = static_cast<int>(given);
  GRADUS_CHECK(call.nIn == count * (2 + states) && call.nOut == count * (1 + states), Code::kNative,
               "%s: wrong number of operands: got %d and %d for %d parameters, expected %d and %d", call.name, call.nIn,
               call.nOut, count, count * (2 + states), count * (1 + states));
  for (int i = 0; i < count; ++i) {
    const TensorView& param = call.out[i];
    checkPlain(call, "parameter", i, param);
    const TensorView& grad = call.in[count + i];
    const bool widened = isHalf(param.dtype) && grad.present() && grad.dtype == DType::kFloat32;
    checkLike(call, "gradient", i, grad, param, widened ? DType::kFloat32 : param.dtype);
    for (int s = 1; s <= states; ++s) {
      checkLike(call, "state", i, call.out[s * count + i], param, stateDType(param.dtype));
    }
  }
}

// Tensors that are changed one by one: `in` has `extra` operands more than `out`.
void checkEach(const OpCall& call, int extra) {
  GRADUS_CHECK(call.nIn == call.nOut + extra, Code::kNative, "%s: wrong number of operands: got %d and %d", call.name,
               call.nIn, call.nOut);
  for (int i = 0; i < call.nOut; ++i) {
    checkPlain(call, "tensor", i, call.out[i]);
    checkLike(call, "tensor", i, call.in[i], call.out[i], call.out[i].dtype);
  }
}

void checkNorm(const OpCall& call, const TensorView& norm) {
  GRADUS_CHECK(norm.present() && norm.numel == 1 && norm.dtype == DType::kFloat32, Code::kShape,
               "%s: the norm is not a scalar: got %lld elements of %s, expected one float32", call.name,
               static_cast<long long>(norm.numel), dtypeName(norm.dtype));
}

}  // namespace

void rule_adamw(const OpCall& call) { checkStep(call, call.flag(7) ? 3 : 2); }
void rule_sgd(const OpCall& call) { checkStep(call, call.attr[2] != 0 ? 1 : 0); }
void rule_rmsprop(const OpCall& call) { checkStep(call, 1 + call.flag(6) + (call.attr[5] > 0 ? 1 : 0)); }
void rule_adagrad(const OpCall& call) { checkStep(call, 1); }

void rule_multiTensorNorm(const OpCall& call) {
  for (int i = 0; i < call.nIn; ++i) checkPlain(call, "tensor", i, call.in[i]);
  checkNorm(call, call.out[0]);
}

void rule_multiTensorClip(const OpCall& call) {
  checkEach(call, 1);
  checkNorm(call, call.in[call.nOut]);
}

void rule_multiTensorClamp(const OpCall& call) { checkEach(call, 0); }
void rule_multiTensorScale(const OpCall& call) { checkEach(call, 0); }

}  // namespace gradus::rules
