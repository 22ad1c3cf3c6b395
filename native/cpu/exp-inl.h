// exp of a difference to a maximum, as softmax and its relatives need it.
#if defined(GRADUS_CPU_EXP_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GRADUS_CPU_EXP_INL_H_
#undef GRADUS_CPU_EXP_INL_H_
#else
#define GRADUS_CPU_EXP_INL_H_
#endif

#include "simd.h"

HWY_BEFORE_NAMESPACE();
namespace gradus::cpu::HWY_NAMESPACE {

// exp for arguments up to 0 (or a little above, where a saved logsumexp was rounded): 2^n * 2^f with f in [-1/2, 1/2]
// and a minimax polynomial (relative error 9e-8). vec::exp costs half as much again, for a range that softmax does not
// need: below 2^-126 this is 0. NaN stays.
template <class D>
HWY_INLINE hn::Vec<D> expNonPositive(D d, hn::Vec<D> x) {
  if constexpr (vec::kDouble<D>) {
    return vec::exp(d, x);
  } else {
    const hn::RebindToSigned<D> di;
    const auto t = hn::Mul(x, hn::Set(d, 1.44269504f));
    const auto shifter = hn::Set(d, 0x1.8p23f);  // adding it rounds to an integer and leaves that in the low bits
    const auto shifted = hn::Add(t, shifter);
    const auto f = hn::Sub(t, hn::Sub(shifted, shifter));
    auto y = hn::MulAdd(f, hn::Set(d, 1.32647269e-3f), hn::Set(d, 9.67151266e-3f));
    y = hn::MulAdd(y, f, hn::Set(d, 5.55073374e-2f));
    y = hn::MulAdd(y, f, hn::Set(d, 2.40222421e-1f));
    y = hn::MulAdd(y, f, hn::Set(d, 6.93146978e-1f));
    y = hn::MulAdd(y, f, hn::Set(d, 1.0f));
    const auto result = hn::BitCast(d, hn::Add(hn::BitCast(di, y), hn::ShiftLeft<23>(hn::BitCast(di, shifted))));
    return hn::IfThenZeroElse(hn::Le(t, hn::Set(d, -126.0f)), result);
  }
}

}  // namespace gradus::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
