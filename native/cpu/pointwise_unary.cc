// Spans of the operators of one operand. Formulas keep PyTorch's values at zeros, infinities and NaN.
#include "spans.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "pointwise_unary.cc"
#include <hwy/foreach_target.h>
#include "simd.h"

HWY_BEFORE_NAMESPACE();
namespace gradus::cpu::HWY_NAMESPACE {
namespace {

// x: the operand, p and q: the operator's scalars in every lane.
#define GRADUS_FORMULA(name, ...)                            \
  struct name##Formula {                                     \
    template <class D, class V = vec::Of<D>>                 \
    static HWY_INLINE V of(D d, V x, V p, V q) {             \
      using T = hn::TFromD<D>;                               \
      [[maybe_unused]] const V zero = hn::Zero(d);           \
      [[maybe_unused]] const V one = hn::Set(d, T(1));       \
      __VA_ARGS__                                            \
    }                                                        \
  };

template <class D, class V>
HWY_INLINE V cosLanes(D d, V x) {
  return vec::mapLanes(d, x, [](auto v) { return std::cos(v); });
}

template <class D, class V>
HWY_INLINE V sinLanes(D d, V x) {
  return vec::mapLanes(d, x, [](auto v) { return std::sin(v); });
}

GRADUS_FORMULA(neg, return hn::Neg(x);)
GRADUS_FORMULA(abs, return hn::Abs(x);)
GRADUS_FORMULA(sign, return hn::Sub(hn::IfThenElseZero(hn::Gt(x, zero), one),
                                    hn::IfThenElseZero(hn::Lt(x, zero), one));)
GRADUS_FORMULA(exp, return vec::exp(d, x);)
GRADUS_FORMULA(expm1, return vec::expm1(d, x);)
GRADUS_FORMULA(log, return vec::log(d, x);)
GRADUS_FORMULA(log1p, return vec::log1p(d, x);)
GRADUS_FORMULA(log2, return vec::log2(d, x);)
GRADUS_FORMULA(sqrt, return hn::Sqrt(x);)
GRADUS_FORMULA(rsqrt, return hn::Div(one, hn::Sqrt(x));)
GRADUS_FORMULA(sin, return sinLanes(d, x);)
GRADUS_FORMULA(cos, return cosLanes(d, x);)
GRADUS_FORMULA(tanh, return vec::tanh(d, x);)
GRADUS_FORMULA(sigmoid, return vec::sigmoid(d, x);)
GRADUS_FORMULA(erf, return vec::erf(d, x);)
GRADUS_FORMULA(square, return hn::Mul(x, x);)
GRADUS_FORMULA(cube, return hn::Mul(hn::Mul(x, x), x);)
GRADUS_FORMULA(reciprocal, return hn::Div(one, x);)
GRADUS_FORMULA(round, return hn::Round(x);)
GRADUS_FORMULA(floor, return hn::Floor(x);)
GRADUS_FORMULA(ceil, return hn::Ceil(x);)
GRADUS_FORMULA(trunc, return hn::Trunc(x);)
GRADUS_FORMULA(relu, return hn::IfThenElse(hn::Lt(x, zero), zero, x);)  // NaN stays
GRADUS_FORMULA(silu, return hn::Div(x, hn::Add(one, vec::exp(d, hn::Neg(x))));)
GRADUS_FORMULA(softplus, const V z = hn::Mul(x, p);
               return hn::IfThenElse(hn::Gt(z, q), x, hn::Div(vec::log1p(d, vec::exp(d, z)), p));)
GRADUS_FORMULA(geluErf, return hn::Mul(x, vec::normal(d, x).cdf);)
// 0.5 x (1 + tanh(u)) = x / (1 + e^-2u): one exponential, and no cancellation in the left tail
GRADUS_FORMULA(geluTanh, constexpr double c = 2 * 0.7978845608028654;
               const V slope = hn::MulAdd(hn::Mul(x, x), hn::Set(d, T(-c * 0.044715)), hn::Set(d, T(-c)));
               return hn::Div(x, hn::Add(one, vec::exp(d, hn::Mul(x, slope))));)
GRADUS_FORMULA(logicalNot, return hn::IfThenElseZero(hn::Eq(x, zero), one);)
GRADUS_FORMULA(isnan, return hn::IfThenZeroElse(hn::Eq(x, x), one);)
GRADUS_FORMULA(isinf, return hn::IfThenElseZero(
                          hn::Eq(hn::Abs(x), hn::Set(d, std::numeric_limits<T>::infinity())), one);)
GRADUS_FORMULA(isfinite, return hn::IfThenElseZero(
                             hn::Lt(hn::Abs(x), hn::Set(d, std::numeric_limits<T>::infinity())), one);)
GRADUS_FORMULA(clamp, const V raised = hn::IfThenElse(hn::Lt(x, p), p, x);
               return hn::IfThenElse(hn::Gt(raised, q), q, raised);)

template <class Formula, class C>
void span(const C* a, const C*, const C*, C* out, int64_t n, const double* s) {
  const hn::ScalableTag<C> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto p = hn::Set(d, static_cast<C>(s[0])), q = hn::Set(d, static_cast<C>(s[1]));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    hn::StoreU(Formula::of(d, hn::LoadU(d, a + i), p, q), d, out + i);
  }
  if (i < n) vec::storeTail(d, Formula::of(d, vec::loadTail(d, a + i, n - i), p, q), out + i, n - i);
}

}  // namespace

const SpanSet* unarySpans() {
#define GRADUS_ROW(name) {span<name##Formula, float>, span<name##Formula, double>},
  static constexpr SpanSet kSpans[] = {GRADUS_UNARY(GRADUS_ROW)};
#undef GRADUS_ROW
  return kSpans;
}
#undef GRADUS_FORMULA

}  // namespace gradus::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace gradus::cpu {
HWY_EXPORT(unarySpans);

const SpanSet& spansOf(Unary op) {
  static const SpanSet* const spans = HWY_DYNAMIC_DISPATCH(unarySpans)();
  return spans[static_cast<int>(op)];
}

}  // namespace gradus::cpu
#endif
