// Vectors of any floating dtype and their elementary functions, once for each SIMD target.
//
// Use from a kernel file, which Highway compiles again for every target:
//
//   #undef HWY_TARGET_INCLUDE
//   #define HWY_TARGET_INCLUDE "norm.cc"
//   #include <hwy/foreach_target.h>
//   #include "simd.h"
//   HWY_BEFORE_NAMESPACE();
//   namespace gradus::cpu::HWY_NAMESPACE { ... vec::load(d, p) ... }
//   HWY_AFTER_NAMESPACE();
//
// float32 functions are polynomials without branches or tables, so that they run at the speed of memory: at most
// 2 ulp on all of float32, subnormals, infinities and NaN included. float64 is there for checks: it goes to libm.
// The coefficients are minimax fits (Remez) to the function named beside them.
#if defined(GRADUS_CPU_SIMD_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GRADUS_CPU_SIMD_H_
#undef GRADUS_CPU_SIMD_H_
#else
#define GRADUS_CPU_SIMD_H_
#endif

#include <hwy/highway.h>

#include <cmath>
#include <limits>

#include "../core/element.h"

HWY_BEFORE_NAMESPACE();
namespace gradus::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace vec {

template <class D>
using Of = hn::Vec<D>;

// --- memory --------------------------------------------------------------------------------------------------------

template <class D>
HWY_INLINE Of<D> load(D d, const hn::TFromD<D>* p) {
  return hn::LoadU(d, p);
}

template <class D>
HWY_INLINE Of<D> load(D d, const BFloat16* p) {
  const hn::Rebind<uint16_t, D> d16;
  const hn::Rebind<uint32_t, D> d32;
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(d32, hn::LoadU(d16, &p->bits))));
}

template <class D>
HWY_INLINE Of<D> load(D d, const Float16* p) {
  const hn::Rebind<uint16_t, D> d16;
  const auto half = hn::LoadU(d16, &p->bits);
#if HWY_TARGET == HWY_SSE4  // no instruction; see widen(Float16)
  const hn::Rebind<uint32_t, D> d32;
  const auto bits = hn::PromoteTo(d32, half);
  const auto magnitude = hn::ShiftLeft<13>(hn::And(bits, hn::Set(d32, 0x7fff)));
  const auto sign = hn::ShiftLeft<16>(hn::And(bits, hn::Set(d32, 0x8000)));
  const auto rebased = hn::BitCast(d32, hn::Mul(hn::BitCast(d, magnitude), hn::Set(d, 0x1p112f)));
  const hn::Rebind<int32_t, D> di;
  const auto special = hn::Gt(hn::BitCast(di, magnitude), hn::Set(di, 0x0f7fffff));
  const auto value = hn::IfThenElse(hn::RebindMask(d32, special),
                                    hn::Or(magnitude, hn::Set(d32, 0x7f800000)), rebased);
  return hn::BitCast(d, hn::Or(value, sign));
#else
  return hn::PromoteTo(d, hn::BitCast(hn::Rebind<hwy::float16_t, D>(), half));
#endif
}

template <class D>
HWY_INLINE void store(D d, Of<D> v, hn::TFromD<D>* p) {
  hn::StoreU(v, d, p);
}

template <class D>
HWY_INLINE void store(D d, Of<D> v, BFloat16* p) {  // Highway 1.0 truncates; this rounds to nearest even
  const hn::Rebind<uint32_t, D> d32;
  const hn::Rebind<int32_t, D> di;
  const hn::Rebind<uint16_t, D> d16;
  const auto bits = hn::BitCast(d32, v);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(d32, 1));
  const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(d32, 0x7fff)));
  const auto quiet = hn::Or(bits, hn::Set(d32, 0x400000));
  const auto chosen = hn::IfThenElse(hn::RebindMask(d32, hn::IsNaN(v)), quiet, rounded);
  hn::StoreU(hn::DemoteTo(d16, hn::BitCast(di, hn::ShiftRight<16>(chosen))), d16, &p->bits);
}

template <class D>
HWY_INLINE void store(D d, Of<D> v, Float16* p) {
#if HWY_TARGET == HWY_SSE4
  float lanes[hn::MaxLanes(d)];
  hn::StoreU(v, d, lanes);
  for (size_t i = 0; i < hn::MaxLanes(d); ++i) p[i] = Narrow<Float16>::from(lanes[i]);
#else
  const hn::Rebind<hwy::float16_t, D> dh;
  const hn::Rebind<uint16_t, D> d16;
  hn::StoreU(hn::BitCast(d16, hn::DemoteTo(dh, v)), d16, &p->bits);
#endif
}

// The last, partial vector of a row: missing lanes read as zero and are not written.
template <class D, class T>
HWY_INLINE Of<D> loadTail(D d, const T* p, size_t count) {
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3  // masked instructions do not touch what is masked
  if constexpr (std::is_same_v<T, hn::TFromD<D>>) return hn::MaskedLoad(hn::FirstN(d, count), d, p);
#endif
  T lanes[hn::MaxLanes(d)] = {};
  std::memcpy(static_cast<void*>(lanes), p, count * sizeof(T));
  return load(d, lanes);
}

template <class D, class T>
HWY_INLINE void storeTail(D d, Of<D> v, T* p, size_t count) {
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
  if constexpr (std::is_same_v<T, hn::TFromD<D>>) {
    hn::BlendedStore(v, hn::FirstN(d, count), d, p);
    return;
  }
#endif
  T lanes[hn::MaxLanes(d)];
  store(d, v, lanes);
  std::memcpy(static_cast<void*>(p), lanes, count * sizeof(T));
}

// --- horizontal ----------------------------------------------------------------------------------------------------

template <class D>
HWY_INLINE hn::TFromD<D> sumLanes(D d, Of<D> v) {
  return hn::GetLane(hn::SumOfLanes(d, v));
}

template <class D>
HWY_INLINE hn::TFromD<D> maxLanes(D d, Of<D> v) {  // NaN is not guaranteed to win
  return hn::GetLane(hn::MaxOfLanes(d, v));
}

template <class D>
HWY_INLINE hn::TFromD<D> minLanes(D d, Of<D> v) {
  return hn::GetLane(hn::MinOfLanes(d, v));
}

// --- elementary functions ------------------------------------------------------------------------------------------

template <class D>
constexpr bool kDouble = sizeof(hn::TFromD<D>) == 8;

// One lane at a time through a scalar function: float64, and what is too rare to deserve a polynomial.
template <class D, class Function>
HWY_INLINE Of<D> mapLanes(D d, Of<D> x, const Function& function) {
  hn::TFromD<D> lanes[hn::MaxLanes(d)];
  hn::StoreU(x, d, lanes);
  for (size_t i = 0; i < hn::MaxLanes(d); ++i) lanes[i] = function(lanes[i]);
  return hn::LoadU(d, lanes);
}

// e^x = 2^k (1 + p): k = round(x / ln 2), p = e^r - 1 with r = x - k ln 2 in two parts.
template <class D>
struct ExpParts {
  hn::Vec<hn::Rebind<int32_t, D>> k;
  Of<D> p;
};

template <class D>
HWY_INLINE ExpParts<D> expParts(D d, Of<D> x) {
  const hn::Rebind<int32_t, D> di;
  const auto shifter = hn::Set(d, 0x1.8p23f);  // adding it rounds to an integer and leaves that in the low bits
  const auto shifted = hn::MulAdd(x, hn::Set(d, 1.44269504f), shifter);
  const auto k = hn::Sub(hn::BitCast(di, shifted), hn::BitCast(di, shifter));
  const auto n = hn::Sub(shifted, shifter);
  auto r = hn::NegMulAdd(n, hn::Set(d, 0.693145752f), x);
  r = hn::NegMulAdd(n, hn::Set(d, 1.42860677e-6f), r);
  // (e^r - 1 - r) / r^2
  auto q = hn::MulAdd(r, hn::Set(d, 0.0013817624f), hn::Set(d, 0.008368186f));
  q = hn::MulAdd(q, r, hn::Set(d, 0.041668277f));
  q = hn::MulAdd(q, r, hn::Set(d, 0.16666527f));
  q = hn::MulAdd(q, r, hn::Set(d, 0.49999994f));
  return {k, hn::MulAdd(hn::Mul(r, r), q, r)};
}

template <class D, class VI>
HWY_INLINE Of<D> powerOfTwo(D d, VI k) {  // -127 < k < 128
  const hn::Rebind<int32_t, D> di;
  return hn::BitCast(d, hn::ShiftLeft<23>(hn::Add(k, hn::Set(di, 127))));
}

template <class D>
HWY_INLINE Of<D> exp(D d, Of<D> x) {
  if constexpr (kDouble<D>) {
    return mapLanes(d, x, [](double v) { return std::exp(v); });
  } else {
    // The bounds give 0 and infinity; NaN stays because it is the second operand.
    const auto bounded = hn::Max(hn::Set(d, -104.0f), hn::Min(hn::Set(d, 89.0f), x));
    const auto parts = expParts(d, bounded);
    const auto first = hn::ShiftRight<1>(parts.k);  // two factors, so that subnormal results round once
    const auto y = hn::Mul(hn::Add(hn::Set(d, 1.0f), parts.p), powerOfTwo(d, first));
    return hn::Mul(y, powerOfTwo(d, hn::Sub(parts.k, first)));
  }
}

template <class D>
HWY_INLINE Of<D> expm1(D d, Of<D> x) {
  if constexpr (kDouble<D>) {
    return mapLanes(d, x, [](double v) { return std::expm1(v); });
  } else {
    // 2^k p + (2^k - 1) has no cancellation; above 80 the 1 is below half an ulp.
    const auto parts = expParts(d, hn::Max(hn::Set(d, -80.0f), hn::Min(hn::Set(d, 80.0f), x)));
    const auto scale = powerOfTwo(d, parts.k);
    const auto y = hn::MulAdd(scale, parts.p, hn::Sub(scale, hn::Set(d, 1.0f)));
    return hn::IfThenElse(hn::Gt(x, hn::Set(d, 80.0f)), exp(d, x), hn::IfThenElse(hn::Eq(x, hn::Zero(d)), x, y));
  }
}

// x = 2^e (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)); tail is log(1 + f) - f. x > 0 and finite.
template <class D>
struct LogParts {
  Of<D> e, f, tail;
};

template <class D>
HWY_INLINE LogParts<D> logParts(D d, Of<D> x) {
  const hn::Rebind<int32_t, D> di;
  const auto subnormal = hn::Lt(x, hn::Set(d, 0x1p-126f));
  const auto bits = hn::BitCast(di, hn::IfThenElse(subnormal, hn::Mul(x, hn::Set(d, 0x1p23f)), x));
  const auto k = hn::ShiftRight<23>(hn::Sub(bits, hn::Set(di, 0x3f3504f3)));
  const auto f = hn::Sub(hn::BitCast(d, hn::Sub(bits, hn::ShiftLeft<23>(k))), hn::Set(d, 1.0f));
  const auto e = hn::Sub(hn::ConvertTo(d, k), hn::IfThenElseZero(subnormal, hn::Set(d, 23.0f)));
  // (log(1 + f) - f + f^2 / 2) / f^3
  auto q = hn::MulAdd(f, hn::Set(d, 0.06931949f), hn::Set(d, -0.117627576f));
  q = hn::MulAdd(q, f, hn::Set(d, 0.11849902f));
  q = hn::MulAdd(q, f, hn::Set(d, -0.123879276f));
  q = hn::MulAdd(q, f, hn::Set(d, 0.14222653f));
  q = hn::MulAdd(q, f, hn::Set(d, -0.16669147f));
  q = hn::MulAdd(q, f, hn::Set(d, 0.20001993f));
  q = hn::MulAdd(q, f, hn::Set(d, -0.24999987f));
  q = hn::MulAdd(q, f, hn::Set(d, 0.33333313f));
  const auto square = hn::Mul(f, f);
  return {e, f, hn::MulAdd(hn::Mul(square, f), q, hn::Mul(square, hn::Set(d, -0.5f)))};
}

// log of 0, negative numbers, infinity and NaN, put over y.
template <class D>
HWY_INLINE Of<D> logSpecials(D d, Of<D> x, Of<D> y) {
  const auto infinity = hn::Set(d, std::numeric_limits<float>::infinity());
  const auto nan = hn::Set(d, std::numeric_limits<float>::quiet_NaN());
  y = hn::IfThenElse(hn::Lt(x, infinity), y, x);  // infinity, NaN
  y = hn::IfThenElse(hn::Eq(x, hn::Zero(d)), hn::Neg(infinity), y);
  return hn::IfThenElse(hn::Lt(x, hn::Zero(d)), nan, y);
}

template <class D>
HWY_INLINE Of<D> log(D d, Of<D> x) {
  if constexpr (kDouble<D>) {
    return mapLanes(d, x, [](double v) { return std::log(v); });
  } else {
    const auto parts = logParts(d, x);
    const auto low = hn::MulAdd(parts.e, hn::Set(d, 1.42860677e-6f), parts.tail);
    return logSpecials(d, x, hn::MulAdd(parts.e, hn::Set(d, 0.693145752f), hn::Add(low, parts.f)));
  }
}

template <class D>
HWY_INLINE Of<D> log2(D d, Of<D> x) {
  if constexpr (kDouble<D>) {
    return mapLanes(d, x, [](double v) { return std::log2(v); });
  } else {
    const auto parts = logParts(d, x);
    // f / ln 2 in two parts: the exponent is exact, so powers of two are too
    const auto low = hn::MulAdd(parts.tail, hn::Set(d, 1.44269504f), hn::Mul(parts.f, hn::Set(d, 1.92596299e-8f)));
    const auto mantissa = hn::MulAdd(parts.f, hn::Set(d, 1.44269504f), low);
    return logSpecials(d, x, hn::Add(parts.e, mantissa));
  }
}

template <class D>
HWY_INLINE Of<D> log1p(D d, Of<D> x) {
  if constexpr (kDouble<D>) {
    return mapLanes(d, x, [](double v) { return std::log1p(v); });
  } else {
    // log(u) + (1 + x - u) / u with u = round(1 + x): the second term returns what rounding lost
    const auto one = hn::Set(d, 1.0f);
    const auto u = hn::Add(one, x);
    const auto lost = hn::Sub(x, hn::Sub(u, one));
    const auto y = log(d, u);
    const auto usual = hn::And(hn::Gt(u, hn::Zero(d)), hn::Lt(x, hn::Set(d, 0x1p60f)));
    const auto corrected = hn::IfThenElse(usual, hn::Add(y, hn::Div(lost, u)), y);
    return hn::IfThenElse(hn::Lt(hn::Abs(x), hn::Set(d, 0x1p-25f)), x, corrected);
  }
}

template <class D>
HWY_INLINE Of<D> sigmoid(D d, Of<D> x) {
  const auto one = hn::Set(d, hn::TFromD<D>(1));
  return hn::Div(one, hn::Add(one, exp(d, hn::Neg(x))));
}

template <class D>
HWY_INLINE Of<D> tanh(D d, Of<D> x) {
  if constexpr (kDouble<D>) {
    return mapLanes(d, x, [](double v) { return std::tanh(v); });
  } else {
    const auto one = hn::Set(d, 1.0f);
    const auto t = hn::Abs(x), s = hn::Mul(x, x);
    const auto e = exp(d, hn::Add(t, t));
    const auto large = hn::NegMulAdd(hn::Set(d, 2.0f), hn::Div(one, hn::Add(e, one)), one);
    // (tanh(x) / x - 1) / x^2 in x^2: near 0 the formula above cancels
    auto q = hn::MulAdd(s, hn::Set(d, -0.0057633566f), hn::Set(d, 0.02069704f));
    q = hn::MulAdd(q, s, hn::Set(d, -0.053759858f));
    q = hn::MulAdd(q, s, hn::Set(d, 0.13331726f));
    q = hn::MulAdd(q, s, hn::Set(d, -0.33333296f));
    const auto small = hn::MulAdd(hn::Mul(q, s), x, x);
    return hn::IfThenElse(hn::Lt(t, hn::Set(d, 0.625f)), small, hn::CopySign(large, x));
  }
}

template <class D>
HWY_INLINE Of<D> erf(D d, Of<D> x) {
  if constexpr (kDouble<D>) {
    return mapLanes(d, x, [](double v) { return std::erf(v); });
  } else {
    const auto t = hn::Min(hn::Set(d, 4.0f), hn::Abs(x)), s = hn::Mul(x, x);
    // -log(erfc(t)) - t, 0.92 < t < 4: erf is 1 in float32 from 3.93
    auto q = hn::MulAdd(t, hn::Set(d, -0.00019593719f), hn::Set(d, 0.003043217f));
    q = hn::MulAdd(q, t, hn::Set(d, -0.022226918f));
    q = hn::MulAdd(q, t, hn::Set(d, 0.10393159f));
    q = hn::MulAdd(q, t, hn::Set(d, 0.63718224f));
    q = hn::MulAdd(q, t, hn::Set(d, 0.12767562f));
    q = hn::MulAdd(q, t, hn::Set(d, 0.00019567597f));
    const auto large = hn::Sub(hn::Set(d, 1.0f), exp(d, hn::Neg(hn::Add(q, t))));
    // erf(x) / x - 1 in x^2
    auto p = hn::MulAdd(s, hn::Set(d, -0.00059658f), hn::Set(d, 0.0049883067f));
    p = hn::MulAdd(p, s, hn::Set(d, -0.02676333f));
    p = hn::MulAdd(p, s, hn::Set(d, 0.112817265f));
    p = hn::MulAdd(p, s, hn::Set(d, -0.37612486f));
    p = hn::MulAdd(p, s, hn::Set(d, 0.12837915f));
    const auto small = hn::MulAdd(p, x, x);
    return hn::IfThenElse(hn::Lt(t, hn::Set(d, 0.925f)), small, hn::CopySign(large, x));
  }
}

// The normal distribution at x: its function Phi, and e^(-x^2 / 2), which both Phi and its derivative need.
template <class D>
struct NormalParts {
  Of<D> cdf, bell;
};

template <class D>
HWY_INLINE NormalParts<D> normal(D d, Of<D> x) {
  using T = hn::TFromD<D>;
  const auto bell = exp(d, hn::Mul(hn::Mul(x, x), hn::Set(d, T(-0.5))));
  if constexpr (kDouble<D>) {
    return {mapLanes(d, x, [](double v) { return 0.5 * std::erfc(-v * M_SQRT1_2); }), bell};
  } else {
    const auto one = hn::Set(d, 1.0f);
    const auto t = hn::Div(one, hn::MulAdd(hn::Abs(x), hn::Set(d, 0.25f), one));
    // Phi(-|x|) e^(x^2 / 2) / t in t = 1 / (1 + |x| / 4)
    auto q = hn::MulAdd(t, hn::Set(d, 0.025723407f), hn::Set(d, -0.152808994f));
    q = hn::MulAdd(q, t, hn::Set(d, 0.296121269f));
    q = hn::MulAdd(q, t, hn::Set(d, -0.205782801f));
    q = hn::MulAdd(q, t, hn::Set(d, 0.201758161f));
    q = hn::MulAdd(q, t, hn::Set(d, 0.032927867f));
    q = hn::MulAdd(q, t, hn::Set(d, 0.10374672f));
    q = hn::MulAdd(q, t, hn::Set(d, 0.0985168368f));
    q = hn::MulAdd(q, t, hn::Set(d, 0.0997974798f));
    const auto tail = hn::Mul(hn::Mul(q, t), bell);
    return {hn::IfThenElse(hn::Lt(x, hn::Zero(d)), tail, hn::Sub(one, tail)), bell};
  }
}

}  // namespace vec
}  // namespace gradus::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
