// Half precision, f16 and bf16, single and packed in pairs. Sums, products and quotients of halves are exact enough in
// float for a second rounding to be harmless (24 >= 2 * 11 + 2); a fused product is not, and goes through a sticky
// double.
#include "lanes.h"

namespace cudasim {
namespace CUDASIM_ISA {

namespace {

template <bool Ftz>
float in(F16 h) {
  const float f = toFloat(h);
  if constexpr (Ftz) return std::fabs(f) < 0x1p-14f ? std::copysign(0.0f, f) : f;
  return f;
}
template <bool Ftz>
float in(BF16 h) {
  return toFloat(h);
}

template <bool Ftz, bool Sat, class H>
H out(float f) {
  if constexpr (Sat) f = saturate(f);
  const H h = narrow<H>(f);
  if constexpr (Ftz && std::is_same_v<H, F16>) {
    if ((h.bits & 0x7c00) == 0) return {static_cast<uint16_t>(h.bits & 0x8000)};
  }
  return h;
}

template <bool Ftz, bool Sat>
struct AddOp {
  template <class H>
  H operator()(H a, H b) const {
    return out<Ftz, Sat, H>(in<Ftz>(a) + in<Ftz>(b));
  }
};
template <bool Ftz, bool Sat>
struct SubOp {
  template <class H>
  H operator()(H a, H b) const {
    return out<Ftz, Sat, H>(in<Ftz>(a) - in<Ftz>(b));
  }
};
template <bool Ftz, bool Sat>
struct MulOp {
  template <class H>
  H operator()(H a, H b) const {
    return out<Ftz, Sat, H>(in<Ftz>(a) * in<Ftz>(b));
  }
};
template <bool Ftz, bool Sat, bool Relu>
struct FmaOp {
  template <class H>
  H operator()(H a, H b, H c) const {
    const double exact = sticky(exactFma(in<Ftz>(a), in<Ftz>(b), in<Ftz>(c)));
    float f = stickyFloat(exact);
    if constexpr (Relu) f = f < 0 ? 0.0f : f == 0 ? 0.0f : f;  // NaN stays, canonical
    return out<Ftz, Sat, H>(f);
  }
};

template <bool Less, bool Ftz, bool Nan, bool XorSign>
struct PickOp {
  template <class H>
  H operator()(H x, H y) const {
    const float fx = in<Ftz>(x), fy = in<Ftz>(y);
    uint16_t a = Ftz && fx == 0 ? x.bits & 0x8000 : x.bits, b = Ftz && fy == 0 ? y.bits & 0x8000 : y.bits;
    const uint16_t sign = (a ^ b) & 0x8000;
    if constexpr (XorSign) a &= 0x7fff, b &= 0x7fff;
    const bool nanA = fx != fx, nanB = fy != fy;
    const auto rank = [](uint16_t bits) {
      const auto s = static_cast<int16_t>(bits);
      return static_cast<int16_t>(s ^ (s >> 15 & 0x7fff));
    };
    const bool first = Less ? rank(a) < rank(b) : rank(a) > rank(b);
    uint16_t r = nanA ? b : nanB ? a : first ? a : b;
    if ((nanA && nanB) || (Nan && (nanA || nanB))) return {kNan16};
    if constexpr (XorSign) r = static_cast<uint16_t>((r & 0x7fff) | sign);
    return {r};
  }
};

struct NegOp {
  template <class H>
  H operator()(H a) const {
    return in<false>(a) != in<false>(a) ? H{kNan16} : H{static_cast<uint16_t>(a.bits ^ 0x8000)};
  }
};
struct AbsOp {
  template <class H>
  H operator()(H a) const {
    return in<false>(a) != in<false>(a) ? H{kNan16} : H{static_cast<uint16_t>(a.bits & 0x7fff)};
  }
};
template <class Op>
struct FtzOf {  // of neg and abs
  template <class H>
  H operator()(H a) const {
    return Op{}(in<true>(a) == 0 ? H{static_cast<uint16_t>(a.bits & 0x8000)} : a);
  }
};

// The same for both halves of a pair.
template <class Op>
struct Paired {
  template <class P, class... Ps>
  P operator()(P a, Ps... rest) const {
    return join(Op{}(low(a), low(rest)...), Op{}(high(a), high(rest)...));
  }
};

template <class H, class P, class Op>
void unary(Registry& r, const std::string& name, const std::string& type, Op) {
  add<H, H>(r, name + type, Op{});
  add<P, P>(r, name + type + "x2", Paired<Op>{});
}
template <class H, class P, class Op>
void binary(Registry& r, const std::string& name, const std::string& type, Op) {
  add<H, H, H>(r, name + type, Op{});
  add<P, P, P>(r, name + type + "x2", Paired<Op>{});
}
template <class H, class P, class Op>
void ternary(Registry& r, const std::string& name, const std::string& type, Op) {
  add<H, H, H, H>(r, name + type, Op{});
  add<P, P, P, P>(r, name + type + "x2", Paired<Op>{});
}

template <class H, class P, bool Ftz>
void picks(Registry& r, const std::string& ftz, const std::string& type) {
  binary<H, P>(r, "min" + ftz, type, PickOp<true, Ftz, false, false>{});
  binary<H, P>(r, "max" + ftz, type, PickOp<false, Ftz, false, false>{});
  binary<H, P>(r, "min" + ftz + ".NaN", type, PickOp<true, Ftz, true, false>{});
  binary<H, P>(r, "max" + ftz + ".NaN", type, PickOp<false, Ftz, true, false>{});
  binary<H, P>(r, "min" + ftz + ".xorsign.abs", type, PickOp<true, Ftz, false, true>{});
  binary<H, P>(r, "max" + ftz + ".xorsign.abs", type, PickOp<false, Ftz, false, true>{});
  binary<H, P>(r, "min" + ftz + ".NaN.xorsign.abs", type, PickOp<true, Ftz, true, true>{});
  binary<H, P>(r, "max" + ftz + ".NaN.xorsign.abs", type, PickOp<false, Ftz, true, true>{});
}

template <bool Ftz, bool Sat>
void halfArithmetic(Registry& r, const std::string& modifiers) {
  for (const char* round : {"", ".rn"}) {
    binary<F16, F16x2>(r, "add" + std::string(round) + modifiers, ".f16", AddOp<Ftz, Sat>{});
    binary<F16, F16x2>(r, "sub" + std::string(round) + modifiers, ".f16", SubOp<Ftz, Sat>{});
    binary<F16, F16x2>(r, "mul" + std::string(round) + modifiers, ".f16", MulOp<Ftz, Sat>{});
  }
  ternary<F16, F16x2>(r, "fma.rn" + modifiers, ".f16", FmaOp<Ftz, Sat, false>{});
}

}  // namespace

void registerHalf(Registry& r) {
  halfArithmetic<false, false>(r, "");
  halfArithmetic<true, false>(r, ".ftz");
  halfArithmetic<false, true>(r, ".sat");
  halfArithmetic<true, true>(r, ".ftz.sat");
  ternary<F16, F16x2>(r, "fma.rn.relu", ".f16", FmaOp<false, false, true>{});
  ternary<F16, F16x2>(r, "fma.rn.ftz.relu", ".f16", FmaOp<true, false, true>{});
  ternary<BF16, BF16x2>(r, "fma.rn", ".bf16", FmaOp<false, false, false>{});
  ternary<BF16, BF16x2>(r, "fma.rn.relu", ".bf16", FmaOp<false, false, true>{});
  for (const char* round : {"", ".rn"}) {  // sm_90 and later
    binary<BF16, BF16x2>(r, "add" + std::string(round), ".bf16", AddOp<false, false>{});
    binary<BF16, BF16x2>(r, "sub" + std::string(round), ".bf16", SubOp<false, false>{});
    binary<BF16, BF16x2>(r, "mul" + std::string(round), ".bf16", MulOp<false, false>{});
  }
  unary<F16, F16x2>(r, "neg", ".f16", NegOp{});
  unary<F16, F16x2>(r, "abs", ".f16", AbsOp{});
  unary<F16, F16x2>(r, "neg.ftz", ".f16", FtzOf<NegOp>{});
  unary<F16, F16x2>(r, "abs.ftz", ".f16", FtzOf<AbsOp>{});
  unary<BF16, BF16x2>(r, "neg", ".bf16", NegOp{});
  unary<BF16, BF16x2>(r, "abs", ".bf16", AbsOp{});
  picks<F16, F16x2, false>(r, "", ".f16");
  picks<F16, F16x2, true>(r, ".ftz", ".f16");
  picks<BF16, BF16x2, false>(r, "", ".bf16");
}

}  // namespace CUDASIM_ISA
}  // namespace cudasim
