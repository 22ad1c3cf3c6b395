// Spans of the operators of two and three operands, gradients of the activations among them.
#include "spans.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "pointwise_binary.cc"
#include <hwy/foreach_target.h>
#include "simd.h"

HWY_BEFORE_NAMESPACE();
namespace gradus::cpu::HWY_NAMESPACE {
namespace {

// a, b, c: the operands (gradients: a is the incoming one), p and q: the operator's scalars in every lane.
#define GRADUS_FORMULA(name, arity, ...)                                \
  struct name##Formula {                                                \
    static constexpr int kArity = arity;                                \
    template <class D, class V = vec::Of<D>>                            \
    static HWY_INLINE V of(D d, V a, V b, V c, V p, V q) {              \
      using T [[maybe_unused]] = hn::TFromD<D>;                         \
      [[maybe_unused]] const V zero = hn::Zero(d);                      \
      [[maybe_unused]] const V one = hn::Set(d, hn::TFromD<D>(1));      \
      __VA_ARGS__                                                       \
    }                                                                   \
  };

template <class D, class V, class Function>
HWY_INLINE V mapPairs(D d, V a, V b, const Function& function) {
  hn::TFromD<D> x[hn::MaxLanes(d)], y[hn::MaxLanes(d)];
  hn::StoreU(a, d, x);
  hn::StoreU(b, d, y);
  for (size_t i = 0; i < hn::MaxLanes(d); ++i) x[i] = function(x[i], y[i]);
  return hn::LoadU(d, x);
}

// fmod is exact, unlike a - floor(a / b) * b; the rest is Python's definition.
template <class T>
T remainderOf(T a, T b) {
  const T rest = std::fmod(a, b);
  return rest != 0 && (b < 0) != (rest < 0) ? rest + b : rest;
}

template <class T>
T floorDivideOf(T a, T b) {
  if (b == 0) return a / b;
  const T rest = std::fmod(a, b);
  T quotient = (a - rest) / b;  // an integer but for rounding
  if (rest != 0 && (b < 0) != (rest < 0)) quotient -= 1;
  return quotient != 0 ? std::nearbyint(quotient) : std::copysign(T(0), a / b);
}

template <class D, class M>
HWY_INLINE vec::Of<D> truth(D d, M mask) {
  return hn::IfThenElseZero(mask, hn::Set(d, hn::TFromD<D>(1)));
}

GRADUS_FORMULA(add, 2, return hn::MulAdd(p, b, a);)
GRADUS_FORMULA(mul, 2, return hn::Mul(a, b);)
GRADUS_FORMULA(div, 2, return hn::Div(a, b);)
GRADUS_FORMULA(floorDivide, 2, return mapPairs(d, a, b, [](T x, T y) { return floorDivideOf(x, y); });)
GRADUS_FORMULA(truncDivide, 2, return hn::Trunc(hn::Div(a, b));)
GRADUS_FORMULA(remainder, 2, return mapPairs(d, a, b, [](T x, T y) { return remainderOf(x, y); });)
GRADUS_FORMULA(pow, 2, return mapPairs(d, a, b, [](T x, T y) { return std::pow(x, y); });)
GRADUS_FORMULA(maximum, 2, return hn::IfThenElse(hn::IsNaN(a), a, hn::IfThenElse(hn::Lt(b, a), a, b));)
GRADUS_FORMULA(minimum, 2, return hn::IfThenElse(hn::IsNaN(a), a, hn::IfThenElse(hn::Gt(b, a), a, b));)
GRADUS_FORMULA(eq, 2, return truth(d, hn::Eq(a, b));)
GRADUS_FORMULA(ne, 2, return hn::IfThenZeroElse(hn::Eq(a, b), one);)  // Highway's Ne is false for NaN
GRADUS_FORMULA(lt, 2, return truth(d, hn::Lt(a, b));)
GRADUS_FORMULA(le, 2, return truth(d, hn::Le(a, b));)
GRADUS_FORMULA(gt, 2, return truth(d, hn::Gt(a, b));)
GRADUS_FORMULA(ge, 2, return truth(d, hn::Ge(a, b));)
GRADUS_FORMULA(logicalAnd, 2,
               return hn::IfThenZeroElse(hn::Or(hn::Eq(a, zero), hn::Eq(b, zero)), one);)
GRADUS_FORMULA(logicalOr, 2,
               return hn::IfThenZeroElse(hn::And(hn::Eq(a, zero), hn::Eq(b, zero)), one);)
GRADUS_FORMULA(logicalXor, 2, return truth(d, hn::Xor(hn::Eq(a, zero), hn::Eq(b, zero)));)
GRADUS_FORMULA(where, 3, return hn::IfThenElse(hn::Eq(a, zero), c, b);)
GRADUS_FORMULA(addcmul, 3, return hn::MulAdd(hn::Mul(p, b), c, a);)

GRADUS_FORMULA(tanhBackward, 2, return hn::Mul(a, hn::NegMulAdd(b, b, one));)
GRADUS_FORMULA(sigmoidBackward, 2, return hn::Mul(hn::Mul(a, b), hn::Sub(one, b));)
GRADUS_FORMULA(reluBackward, 2, return hn::IfThenElse(hn::Le(b, zero), zero, a);)
GRADUS_FORMULA(siluBackward, 2, const V s = vec::sigmoid(d, b);
               return hn::Mul(hn::Mul(a, s), hn::MulAdd(b, hn::Sub(one, s), one));)
GRADUS_FORMULA(softplusBackward, 2, const V z = hn::Mul(b, p);
               return hn::IfThenElse(hn::Gt(z, q), a, hn::Mul(a, vec::sigmoid(d, z)));)
// Phi(x) + x phi(x)
GRADUS_FORMULA(geluErfBackward, 2, const auto parts = vec::normal(d, b);
               const V density = hn::Mul(hn::Set(d, T(0.3989422804014327)), parts.bell);
               return hn::Mul(a, hn::MulAdd(b, density, parts.cdf));)
// With s = sigmoid(2u): s + x s (1 - s) 2u', 2u' = 2 sqrt(2 / pi) (1 + 3 * 0.044715 x^2)
GRADUS_FORMULA(geluTanhBackward, 2, constexpr double k = 2 * 0.7978845608028654;
               const V square = hn::Mul(b, b);
               const V slope = hn::MulAdd(square, hn::Set(d, T(-k * 0.044715)), hn::Set(d, T(-k)));
               const V s = hn::Div(one, hn::Add(one, vec::exp(d, hn::Mul(b, slope))));
               const V steep = hn::MulAdd(square, hn::Set(d, T(k * 3 * 0.044715)), hn::Set(d, T(k)));
               const V bent = hn::Mul(hn::Mul(b, steep), hn::NegMulAdd(s, s, s));
               return hn::Mul(a, hn::Add(s, bent));)
GRADUS_FORMULA(clampBackward, 2,
               return hn::IfThenElseZero(hn::And(hn::Ge(b, p), hn::Le(b, q)), a);)
GRADUS_FORMULA(signBackwardAbs, 2, const V positive = hn::IfThenElseZero(hn::Gt(b, zero), a);
               return hn::Sub(positive, hn::IfThenElseZero(hn::Lt(b, zero), a));)

template <class Formula, class C>
void span(const C* a, const C* b, const C* c, C* out, int64_t n, const double* s) {
  const hn::ScalableTag<C> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto p = hn::Set(d, static_cast<C>(s[0])), q = hn::Set(d, static_cast<C>(s[1]));
  constexpr bool ternary = Formula::kArity == 3;
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto third = ternary ? hn::LoadU(d, c + i) : hn::Zero(d);
    hn::StoreU(Formula::of(d, hn::LoadU(d, a + i), hn::LoadU(d, b + i), third, p, q), d, out + i);
  }
  if (i == n) return;
  const auto third = ternary ? vec::loadTail(d, c + i, n - i) : hn::Zero(d);
  const auto y = Formula::of(d, vec::loadTail(d, a + i, n - i), vec::loadTail(d, b + i, n - i), third, p, q);
  vec::storeTail(d, y, out + i, n - i);
}

}  // namespace

const SpanSet* binarySpans() {
#define GRADUS_ROW(name) {span<name##Formula, float>, span<name##Formula, double>},
  static constexpr SpanSet kSpans[] = {GRADUS_BINARY(GRADUS_ROW)};
#undef GRADUS_ROW
  return kSpans;
}
#undef GRADUS_FORMULA

}  // namespace gradus::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace gradus::cpu {
HWY_EXPORT(binarySpans);

const SpanSet& spansOf(Binary op) {
  static const SpanSet* const spans = HWY_DYNAMIC_DISPATCH(binarySpans)();
  return spans[static_cast<int>(op)];
}

}  // namespace gradus::cpu
#endif
