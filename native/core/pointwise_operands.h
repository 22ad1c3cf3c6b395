// Operands of pointwise operators, and the type that they are computed in.
//
// Operands of different dtypes are converted as they are read, so type promotion costs no pass of its own:
// float64 if any is, else float32 if any is floating, else int64.
#pragma once

#include <cmath>

#include "op.h"
#include "pointwise_ops.h"

namespace gradus {

enum class Kind { kFloat, kDouble, kInteger };

// One operand of a call: a tensor, or a number.
struct Operand {
  const TensorView* view;
  double number;
};

// The output decides too, unless it is a truth value: int64 / int64 is computed as the float32 that it gives.
inline Kind kindOf(const TensorView& out, const Operand* operands, int count) {
  bool wide = out.dtype == DType::kFloat64, floating = isFloating(out.dtype);
  for (int i = 0; i < count; ++i) {
    if (operands[i].view) {
      wide |= operands[i].view->dtype == DType::kFloat64;
      floating |= isFloating(operands[i].view->dtype);
    } else if (out.dtype == DType::kBool && !floating) {
      wide |= operands[i].number != std::floor(operands[i].number);  // 3 < 3.5
    }
  }
  return wide ? Kind::kDouble : floating ? Kind::kFloat : Kind::kInteger;
}

}  // namespace gradus
