// gelu and its derivative on vectors, for kernels that fuse them. Include after simd.h, inside foreach_target.
#if defined(GRADUS_CPU_GELU_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GRADUS_CPU_GELU_INL_H_
#undef GRADUS_CPU_GELU_INL_H_
#else
#define GRADUS_CPU_GELU_INL_H_
#endif

#include "simd.h"

HWY_BEFORE_NAMESPACE();
namespace gradus::cpu::HWY_NAMESPACE {
namespace vec {

// e^x where only 1 / (1 + e^x) is wanted: without vec::exp's second factor, which makes subnormal results exact.
template <class D>
HWY_INLINE Of<D> expForLogistic(D d, Of<D> x) {
  if constexpr (kDouble<D>) {
    return exp(d, x);
  } else {
    const auto parts = expParts(d, hn::Max(hn::Set(d, -87.0f), hn::Min(hn::Set(d, 88.0f), x)));
    const auto scale = powerOfTwo(d, parts.k);
    return hn::MulAdd(scale, parts.p, scale);
  }
}

// 1 / (1 + e^-x): with kCoarse to 2^-13, for what is rounded to 2^-9 of bfloat16, in half the time.
template <bool kCoarse, class D>
HWY_INLINE Of<D> logistic(D d, Of<D> x) {
  const auto one = hn::Set(d, hn::TFromD<D>(1));
#if HWY_ARCH_X86  // elsewhere the approximate reciprocal has 8 bits only
  if constexpr (kCoarse) {
    const hn::RebindToSigned<D> di;
    // 2^n * 2^f with f in [-1/2, 1/2]; adding the shifter rounds to an integer and leaves that in the low bits
    const auto t = hn::Max(hn::Set(d, -126.0f), hn::Min(hn::Set(d, 126.0f), hn::Mul(x, hn::Set(d, -1.44269504f))));
    const auto shifter = hn::Set(d, 0x1.8p23f);
    const auto shifted = hn::Add(t, shifter);
    const auto f = hn::Sub(t, hn::Sub(shifted, shifter));
    auto y = hn::MulAdd(f, hn::Set(d, 9.57010210e-3f), hn::Set(d, 5.59178591e-2f));
    y = hn::MulAdd(y, f, hn::Set(d, 2.40247443e-1f));
    y = hn::MulAdd(y, f, hn::Set(d, 6.93121791e-1f));
    y = hn::MulAdd(y, f, hn::Set(d, 9.99999285e-1f));
    const auto power = hn::BitCast(d, hn::Add(hn::BitCast(di, y), hn::ShiftLeft<23>(hn::BitCast(di, shifted))));
    return hn::ApproximateReciprocal(hn::Add(one, power));
  }
#endif
  return hn::Div(one, hn::Add(one, expForLogistic(d, hn::Neg(x))));
}

// tanh form: x s(2u), u = sqrt(2/pi) (x + 0.044715 x^3), s the logistic function: 1 + tanh(u) = 2 s(2u) exactly, and
// one exponential is cheaper than a tanh. Hendrycks & Gimpel 2016, arXiv:1606.08415.
template <bool kCoarse, class D>
HWY_INLINE Of<D> geluTanh(D d, Of<D> x) {
  using T = hn::TFromD<D>;
  constexpr double c = 2 * 0.7978845608028654;
  const auto u = hn::Mul(x, hn::MulAdd(hn::Mul(x, x), hn::Set(d, T(c * 0.044715)), hn::Set(d, T(c))));
  return hn::Mul(x, logistic<kCoarse>(d, u));
}

// gelu'(x), and in `value` gelu(x), which costs one multiplication more.
template <bool kCoarse, class D>
HWY_INLINE Of<D> geluTanhGradient(D d, Of<D> x, Of<D>& value) {
  using T = hn::TFromD<D>;
  constexpr double c = 2 * 0.7978845608028654;
  const auto one = hn::Set(d, T(1)), square = hn::Mul(x, x);
  const auto u = hn::Mul(x, hn::MulAdd(square, hn::Set(d, T(c * 0.044715)), hn::Set(d, T(c))));
  const auto s = logistic<kCoarse>(d, u);
  const auto du = hn::MulAdd(square, hn::Set(d, T(3 * c * 0.044715)), hn::Set(d, T(c)));
  value = hn::Mul(x, s);
  return hn::Mul(s, hn::MulAdd(hn::Mul(x, hn::Sub(one, s)), du, one));
}

template <class D>
HWY_INLINE Of<D> geluErf(D d, Of<D> x) {
  using T = hn::TFromD<D>;
  const auto half = hn::Mul(x, hn::Set(d, T(0.5)));
  return hn::MulAdd(half, erf(d, hn::Mul(x, hn::Set(d, T(0.7071067811865476)))), half);
}

template <class D>
HWY_INLINE Of<D> geluErfGradient(D d, Of<D> x, Of<D>& value) {
  using T = hn::TFromD<D>;
  const auto half = hn::Set(d, T(0.5));
  const auto cdf = hn::MulAdd(half, erf(d, hn::Mul(x, hn::Set(d, T(0.7071067811865476)))), half);
  const auto pdf = hn::Mul(hn::Set(d, T(0.3989422804014327)), exp(d, hn::Mul(hn::Neg(half), hn::Mul(x, x))));
  value = hn::Mul(x, cdf);
  return hn::MulAdd(x, pdf, cdf);
}

}  // namespace vec
}  // namespace gradus::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
