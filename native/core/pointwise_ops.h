// The formulas that pointwise operators are made of, in the order that every backend's tables have them. Device code
// includes this file, too.
#pragma once

namespace gradus {

#define GRADUS_UNARY(X)                                                                                              \
  X(neg)                                                                                                             \
  X(abs)                                                                                                             \
  X(sign) X(exp) X(expm1) X(log) X(log1p) X(log2) X(sqrt) X(rsqrt) X(sin) X(cos) X(tanh) X(sigmoid) X(erf) X(square) \
      X(cube) X(reciprocal) X(round) X(floor) X(ceil) X(trunc) X(relu) X(silu) X(softplus) X(geluErf) X(geluTanh)    \
          X(logicalNot) X(isnan) X(isinf) X(isfinite) X(clamp)

#define GRADUS_BINARY(X)                                                                                              \
  X(add)                                                                                                              \
  X(mul)                                                                                                              \
  X(div) X(floorDivide) X(truncDivide) X(remainder) X(pow) X(maximum) X(minimum) X(eq) X(ne) X(lt) X(le) X(gt) X(ge)  \
      X(logicalAnd) X(logicalOr) X(logicalXor) X(where) X(addcmul) X(tanhBackward) X(sigmoidBackward) X(reluBackward) \
          X(siluBackward) X(softplusBackward) X(geluErfBackward) X(geluTanhBackward) X(clampBackward)                 \
              X(signBackwardAbs)

#define GRADUS_ENUMERATOR(name) name,
enum class Unary { GRADUS_UNARY(GRADUS_ENUMERATOR) kCount };
enum class Binary { GRADUS_BINARY(GRADUS_ENUMERATOR) kCount };  // and the two ternary ones
#undef GRADUS_ENUMERATOR

}  // namespace gradus
