// Formulas of the pointwise operators. They keep PyTorch's values at zeros, infinities and NaN; p and q are the
// operator's scalars. Those of native/cpu/pointwise_unary.cc and pointwise_binary.cc are the same.
#pragma once

#include "element.cuh"

namespace gradus::cuda {

template <class C>
__device__ C sigmoidOf(C x) {
  return 1 / (1 + exp(-x));
}

// 0.5 x (1 + tanh(u)) = x / (1 + e^-2u): one exponential, and no cancellation in the left tail
template <class C>
__device__ C geluTanhOf(C x) {
  constexpr double c = 2 * 0.7978845608028654;
  return x / (1 + exp(x * (x * x * C(-c * 0.044715) + C(-c))));
}

#define GRADUS_FORMULA(name, ...)                                             \
  struct name##Formula {                                                      \
    template <class C>                                                        \
    static __device__ C of(C x, [[maybe_unused]] C p, [[maybe_unused]] C q) { \
      __VA_ARGS__                                                             \
    }                                                                         \
  };

GRADUS_FORMULA(neg, return -x;)
GRADUS_FORMULA(abs, return fabs(x);)
GRADUS_FORMULA(sign, return C(x > 0) - C(x < 0);)
GRADUS_FORMULA(exp, return ::exp(x);)
GRADUS_FORMULA(expm1, return ::expm1(x);)
GRADUS_FORMULA(log, return ::log(x);)
GRADUS_FORMULA(log1p, return ::log1p(x);)
GRADUS_FORMULA(log2, return ::log2(x);)
GRADUS_FORMULA(sqrt, return ::sqrt(x);)
GRADUS_FORMULA(rsqrt, return 1 / ::sqrt(x);)
GRADUS_FORMULA(sin, return ::sin(x);)
GRADUS_FORMULA(cos, return ::cos(x);)
GRADUS_FORMULA(tanh, return ::tanh(x);)
GRADUS_FORMULA(sigmoid, return sigmoidOf(x);)
GRADUS_FORMULA(erf, return ::erf(x);)
GRADUS_FORMULA(square, return x * x;)
GRADUS_FORMULA(cube, return x * x * x;)
GRADUS_FORMULA(reciprocal, return 1 / x;)
GRADUS_FORMULA(round, return ::rint(x);)
GRADUS_FORMULA(floor, return ::floor(x);)
GRADUS_FORMULA(ceil, return ::ceil(x);)
GRADUS_FORMULA(trunc, return ::trunc(x);)
GRADUS_FORMULA(relu, return x < 0 ? C(0) : x;)  // NaN stays
GRADUS_FORMULA(silu, return x / (1 + ::exp(-x));)
GRADUS_FORMULA(softplus, const C z = x * p; return z > q ? x : ::log1p(::exp(z)) / p;)
GRADUS_FORMULA(geluErf, return x * C(0.5) * erfc(x * C(-0.7071067811865476));)
GRADUS_FORMULA(geluTanh, return geluTanhOf(x);)
GRADUS_FORMULA(logicalNot, return C(x == 0);)
GRADUS_FORMULA(isnan, return C(x != x);)
GRADUS_FORMULA(isinf, return C(fabs(x) == C(INFINITY));)
GRADUS_FORMULA(isfinite, return C(fabs(x) < C(INFINITY));)
GRADUS_FORMULA(clamp, const C raised = x < p ? p : x; return raised > q ? q : raised;)
#undef GRADUS_FORMULA

// fmod is exact, unlike a - floor(a / b) * b; the rest is Python's definition.
template <class C>
__device__ C remainderOf(C a, C b) {
  const C rest = fmod(a, b);
  return rest != 0 && (b < 0) != (rest < 0) ? rest + b : rest;
}

template <class C>
__device__ C floorDivideOf(C a, C b) {
  if (b == 0) return a / b;
  const C rest = fmod(a, b);
  C quotient = (a - rest) / b;  // an integer but for rounding
  if (rest != 0 && (b < 0) != (rest < 0)) quotient -= 1;
  return quotient != 0 ? ::rint(quotient) : copysign(C(0), a / b);
}

// a, b, c: the operands; gradients: a is the incoming one.
#define GRADUS_FORMULA(name, arity, ...)                                                                 \
  struct name##Formula {                                                                                 \
    static constexpr int kArity = arity;                                                                 \
    template <class C>                                                                                   \
    static __device__ C of(C a, C b, [[maybe_unused]] C c, [[maybe_unused]] C p, [[maybe_unused]] C q) { \
      __VA_ARGS__                                                                                        \
    }                                                                                                    \
  };

GRADUS_FORMULA(add, 2, return fma(p, b, a);)
GRADUS_FORMULA(mul, 2, return a * b;)
GRADUS_FORMULA(div, 2, return a / b;)
GRADUS_FORMULA(floorDivide, 2, return floorDivideOf(a, b);)
GRADUS_FORMULA(truncDivide, 2, return ::trunc(a / b);)
GRADUS_FORMULA(remainder, 2, return remainderOf(a, b);)
GRADUS_FORMULA(pow, 2, return ::pow(a, b);)
GRADUS_FORMULA(maximum, 2, return a != a || b < a ? a : b;)
GRADUS_FORMULA(minimum, 2, return a != a || b > a ? a : b;)
GRADUS_FORMULA(eq, 2, return C(a == b);)
GRADUS_FORMULA(ne, 2, return C(a != b);)
GRADUS_FORMULA(lt, 2, return C(a < b);)
GRADUS_FORMULA(le, 2, return C(a <= b);)
GRADUS_FORMULA(gt, 2, return C(a > b);)
GRADUS_FORMULA(ge, 2, return C(a >= b);)
GRADUS_FORMULA(logicalAnd, 2, return C(a != 0 && b != 0);)
GRADUS_FORMULA(logicalOr, 2, return C(a != 0 || b != 0);)
GRADUS_FORMULA(logicalXor, 2, return C((a != 0) != (b != 0));)
GRADUS_FORMULA(where, 3, return a != 0 ? b : c;)
GRADUS_FORMULA(addcmul, 3, return fma(p * b, c, a);)
GRADUS_FORMULA(tanhBackward, 2, return a * fma(-b, b, C(1));)
GRADUS_FORMULA(sigmoidBackward, 2, return a * b * (1 - b);)
GRADUS_FORMULA(reluBackward, 2, return b <= 0 ? C(0) : a;)
GRADUS_FORMULA(siluBackward, 2, const C s = sigmoidOf(b); return a * s * fma(b, 1 - s, C(1));)
GRADUS_FORMULA(softplusBackward, 2, const C z = b * p; return z > q ? a : a * sigmoidOf(z);)
// Phi(x) + x phi(x)
GRADUS_FORMULA(geluErfBackward, 2, const C cdf = C(0.5) * erfc(b * C(-0.7071067811865476));
               return a * fma(b, C(0.3989422804014327) * ::exp(C(-0.5) * b * b), cdf);)
// With s = sigmoid(2u): s + x s (1 - s) 2u', 2u' = 2 sqrt(2 / pi) (1 + 3 * 0.044715 x^2)
GRADUS_FORMULA(geluTanhBackward, 2, constexpr double k = 2 * 0.7978845608028654; const C square = b * b;
               const C s = 1 / (1 + ::exp(b * fma(square, C(-k * 0.044715), C(-k))));
               return a * fma(b * fma(square, C(k * 3 * 0.044715), C(k)), fma(-s, s, s), s);)
GRADUS_FORMULA(clampBackward, 2, return b >= p && b <= q ? a : C(0);)
GRADUS_FORMULA(signBackwardAbs, 2, return b > 0 ? a : b < 0 ? -a : C(0);)
#undef GRADUS_FORMULA

}  // namespace gradus::cuda
