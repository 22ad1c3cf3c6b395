// Integer formulas: int32, uint8 and bool compute in int64 and wrap when they are stored, like PyTorch's own types.
// Arithmetic is done on unsigned numbers, where overflow is defined.
#pragma once

#include "../../core/pointwise_ops.h"
#include "element.cuh"

namespace gradus::cuda {

using Unsigned = unsigned long long;

// -1 is apart because the lowest number / -1 overflows. A divisor of 0 was reported; what comes out does not matter.
__device__ inline Int64 truncated(Int64 a, Int64 b) { return b == -1 ? Int64(0 - Unsigned(a)) : b == 0 ? 0 : a / b; }
__device__ inline Int64 remainderOf(Int64 a, Int64 b) {
  if (b == 0 || b == -1) return 0;
  const Int64 rest = a % b;
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}
__device__ inline Int64 floored(Int64 a, Int64 b) {
  const Int64 quotient = truncated(a, b);
  return b != 0 && b != -1 && a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

__device__ inline Int64 power(Int64 base, Int64 exponent) {
  if (exponent < 0) return base == 1 ? 1 : base == -1 ? (exponent % 2 ? -1 : 1) : 0;
  Unsigned result = 1;
  for (Unsigned square = base; exponent; exponent >>= 1, square *= square) {
    if (exponent & 1) result *= square;
  }
  return Int64(result);
}

// The scalars p and q come as integers. What has no integer form never gets here.
__device__ inline Int64 integerUnary(Unary op, Int64 x, Int64 p, Int64 q) {
  switch (op) {
    case Unary::neg:
      return Int64(0 - Unsigned(x));
    case Unary::abs:
      return x < 0 ? Int64(0 - Unsigned(x)) : x;
    case Unary::sign:
      return x < 0 ? -1 : x != 0;
    case Unary::square:
      return Int64(Unsigned(x) * Unsigned(x));
    case Unary::relu:
      return x < 0 ? 0 : x;
    case Unary::logicalNot:
      return x == 0;
    case Unary::isnan:
    case Unary::isinf:
      return 0;
    case Unary::isfinite:
      return 1;
    case Unary::clamp: {
      const Int64 raised = x < p ? p : x;
      return raised > q ? q : raised;
    }
    default:
      return x;  // round, floor, ceil, trunc
  }
}

__device__ inline Int64 integerBinary(Binary op, Int64 a, Int64 b, Int64 c, Int64 p, Int64) {
  switch (op) {
    case Binary::add:
      return Int64(Unsigned(a) + Unsigned(p) * Unsigned(b));
    case Binary::mul:
      return Int64(Unsigned(a) * Unsigned(b));
    case Binary::floorDivide:
      return floored(a, b);
    case Binary::truncDivide:
      return truncated(a, b);
    case Binary::remainder:
      return remainderOf(a, b);
    case Binary::pow:
      return power(a, b);
    case Binary::maximum:
      return a < b ? b : a;
    case Binary::minimum:
      return b < a ? b : a;
    case Binary::eq:
      return a == b;
    case Binary::ne:
      return a != b;
    case Binary::lt:
      return a < b;
    case Binary::le:
      return a <= b;
    case Binary::gt:
      return a > b;
    case Binary::ge:
      return a >= b;
    case Binary::logicalAnd:
      return a && b;
    case Binary::logicalOr:
      return a || b;
    case Binary::logicalXor:
      return !a != !b;
    case Binary::where:
      return a ? b : c;
    default:
      return Int64(Unsigned(a) + Unsigned(p) * Unsigned(b) * Unsigned(c));  // addcmul
  }
}

}  // namespace gradus::cuda
