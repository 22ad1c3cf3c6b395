// What softmax and its gradients ask of their operands.
#include "../op.h"

namespace gradus::rules {
namespace {

void checkSoftmax(const OpCall& call) {
  const TensorView& x = call.in[0];
  const TensorView& out = call.out[0];
  for (int i = 0; i < call.nIn; ++i) {
    const TensorView& operand = call.in[i];
    GRADUS_CHECK(operand.present(), ErrorCode::kNative, "%s: operand %d is missing", call.name, i);
    GRADUS_CHECK(isFloating(operand.dtype), ErrorCode::kDType,
                 "%s: operand %d has no fractions: got %s, expected a floating dtype; convert it with to('float32')",
                 call.name, i, dtypeName(operand.dtype));
    GRADUS_CHECK(sameSizes(operand, x) && operand.dtype == x.dtype, ErrorCode::kShape,
                 "%s: operands 0 and %d differ in shape or dtype", call.name, i);
  }
  GRADUS_CHECK(sameSizes(out, x) && out.dtype == x.dtype && out.contiguous, ErrorCode::kShape,
               "%s: the output does not fit: expected the shape and dtype of the input, contiguous", call.name);
  const double dim = call.attr[0];
  const int dims = x.rank > 0 ? x.rank : 1;
  GRADUS_CHECK(dim >= 0 && dim < dims && dim == static_cast<int>(dim), ErrorCode::kIndex,
               "%s: dim is out of range: got %g, expected 0 to %d", call.name, dim, dims - 1);
}

}  // namespace

void rule_softmax(const OpCall& call) { checkSoftmax(call); }
void rule_softmaxBackward(const OpCall& call) { checkSoftmax(call); }
void rule_logSoftmax(const OpCall& call) { checkSoftmax(call); }
void rule_logSoftmaxBackward(const OpCall& call) { checkSoftmax(call); }

}  // namespace gradus::rules
