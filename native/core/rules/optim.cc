// Rules of the optimizers. `in` is params..., grads..., states...; `out` is params..., states..., all existing tensors.
#include "../blocks.h"
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

void checkScalar(const OpCall& call, const char* what, const TensorView& view, DType dtype = DType::kFloat32) {
  GRADUS_CHECK(view.present() && view.numel == 1 && view.dtype == dtype, Code::kShape,
               "%s: the %s is not a scalar: got %lld elements of %s, expected one %s", call.name, what,
               static_cast<long long>(view.present() ? view.numel : 0), dtypeName(view.dtype), dtypeName(dtype));
}

void checkSized(const OpCall& call, const char* what, int i, const TensorView& view, int64_t numel, DType dtype) {
  GRADUS_CHECK(view.present() && view.contiguous && view.numel == numel && view.dtype == dtype, Code::kShape,
               "%s: %s %d does not fit: got %lld elements of %s, expected %lld of %s, contiguous", call.name, what, i,
               static_cast<long long>(view.present() ? view.numel : 0), dtypeName(view.dtype),
               static_cast<long long>(numel), dtypeName(dtype));
}

using CheckState = void (*)(const OpCall& call, int i, int s, const TensorView& state, const TensorView& param);

void checkWideState(const OpCall& call, int i, int, const TensorView& state, const TensorView& param) {
  checkLike(call, "state", i, state, param, stateDType(param.dtype));
}

// Codes of both averages, then the magnitudes of both.
void checkNarrowState(const OpCall& call, int i, int s, const TensorView& state, const TensorView& param) {
  const bool codes = s < 2;
  checkSized(call, "state", i, state, codes ? param.numel : quantizedBlocks(param.numel),
             codes ? DType::kUint8 : DType::kFloat32);
}

// `states` tensors a parameter.
void checkStep(const OpCall& call, int states, CheckState checkState = checkWideState) {
  const double given = call.attr[0];
  GRADUS_CHECK(given >= 1 && given <= 4096 && given == static_cast<int>(given), Code::kNative,
               "%s: count is out of range: got %g, expected 1 to 4096", call.name, given);
  const int count = static_cast<int>(given), counted = call.flag(1) ? 1 : 0, conditions = 3;
  const int nIn = count * (2 + states + counted) + conditions, nOut = count * (1 + states + counted);
  GRADUS_CHECK(call.nIn == nIn && call.nOut == nOut, Code::kNative,
               "%s: wrong number of operands: got %d and %d for %d parameters, expected %d and %d", call.name, call.nIn,
               call.nOut, count, nIn, nOut);
  for (int i = 0; i < count; ++i) {
    const TensorView& param = call.out[i];
    checkPlain(call, "parameter", i, param);
    const TensorView& grad = call.in[count + i];
    const bool widened = isHalf(param.dtype) && grad.present() && grad.dtype == DType::kFloat32;
    checkLike(call, "gradient", i, grad, param, widened ? DType::kFloat32 : param.dtype);
    for (int s = 0; s < states; ++s) checkState(call, i, s, call.out[(s + 1) * count + i], param);
    if (counted) checkScalar(call, "step count", call.out[(1 + states) * count + i]);
  }
  constexpr const char* names[] = {"scale", "overflow flag", "norm"};
  for (int i = 0; i < conditions; ++i) {
    const TensorView& condition = call.in[nIn - conditions + i];
    if (condition.present()) checkScalar(call, names[i], condition);
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

// Attribute `i` of the algorithm, behind those that all steps have.
constexpr int own(int i) { return 3 + i; }

}  // namespace

void rule_adamw(const OpCall& call) { checkStep(call, call.flag(own(6)) ? 3 : 2); }
void rule_sgd(const OpCall& call) { checkStep(call, call.attr[own(1)] != 0 ? 1 : 0); }
void rule_rmsprop(const OpCall& call) { checkStep(call, 1 + call.flag(own(5)) + (call.attr[own(4)] > 0 ? 1 : 0)); }
void rule_adagrad(const OpCall& call) { checkStep(call, 1); }

void rule_adamw8bit(const OpCall& call) {
  checkStep(call, 4, checkNarrowState);
  for (int i = 0; i < static_cast<int>(call.attr[0]); ++i) {
    GRADUS_CHECK(call.out[i].dtype != DType::kFloat64, Code::kDType,
                 "%s: parameter %d has the wrong dtype: got float64, expected one whose states are float32", call.name,
                 i);
  }
}

void rule_quantizeBlocks(const OpCall& call) {
  const int64_t numel = call.in[0].present() ? call.in[0].numel : 0;
  checkSized(call, "tensor", 0, call.in[0], numel, DType::kFloat32);
  checkSized(call, "result", 0, call.out[0], numel, DType::kUint8);
  checkSized(call, "result", 1, call.out[1], quantizedBlocks(numel), DType::kFloat32);
}

void rule_dequantizeBlocks(const OpCall& call) {
  const int64_t numel = call.in[0].present() ? call.in[0].numel : 0;
  checkSized(call, "tensor", 0, call.in[0], numel, DType::kUint8);
  checkSized(call, "tensor", 1, call.in[1], quantizedBlocks(numel), DType::kFloat32);
  checkSized(call, "result", 0, call.out[0], numel, DType::kFloat32);
}

void rule_multiTensorNorm(const OpCall& call) {
  for (int i = 0; i < call.nIn; ++i) checkPlain(call, "tensor", i, call.in[i]);
  checkScalar(call, "norm", call.out[0]);
}

void rule_multiTensorClip(const OpCall& call) {
  checkEach(call, 1);
  checkScalar(call, "norm", call.in[call.nOut]);
}

void rule_multiTensorClamp(const OpCall& call) { checkEach(call, 0); }
void rule_multiTensorScale(const OpCall& call) { checkEach(call, 0); }

void rule_multiTensorUnscale(const OpCall& call) {
  const int count = call.nIn - 1, written = call.flag(0) ? count : 0;
  GRADUS_CHECK(call.nOut == written + 3, Code::kNative, "%s: wrong number of operands: got %d and %d", call.name,
               call.nIn, call.nOut);
  for (int i = 0; i < count; ++i) {
    checkPlain(call, "tensor", i, call.in[i]);
    if (!written) continue;
    checkPlain(call, "tensor", i, call.out[i]);
    checkLike(call, "tensor", i, call.in[i], call.out[i], call.out[i].dtype);
  }
  if (call.in[count].present()) checkScalar(call, "scale", call.in[count]);
  checkScalar(call, "overflow flag", call.out[written]);
  checkScalar(call, "norm", call.out[written + 1]);
  checkScalar(call, "index", call.out[written + 2], DType::kInt32);
}

void rule_gate(const OpCall& call) { checkScalar(call, "gate", call.out[0]); }

void rule_scalerUpdate(const OpCall& call) {
  GRADUS_CHECK(call.nIn % 2 == 0, Code::kNative, "%s: wrong number of operands: got %d, expected pairs", call.name,
               call.nIn);
  for (int i = 0; i < call.nIn; i += 2) {
    checkScalar(call, "overflow flag", call.in[i]);
    checkScalar(call, "index", call.in[i + 1], DType::kInt32);
  }
  checkScalar(call, "scale", call.out[0]);
  checkScalar(call, "growth tracker", call.out[1], DType::kInt32);
  checkSized(call, "status", 0, call.out[2], 3, DType::kFloat32);
}

}  // namespace gradus::rules
