// Single precision, all roundings. Every NaN result is the canonical one.
#include "lanes.h"

namespace cudasim {
namespace CUDASIM_ISA {

namespace {

template <bool Ftz, bool Sat>
float finish(float f) {
  f = flushIf<Ftz>(f);
  if constexpr (Sat) return saturate(f);
  return canonical(f);
}

// Rounding towards zero or downwards of an exact zero sum: x - x is -0 downwards only.
template <Rounding R>
float directed(Exact x, float nearest) {
  if constexpr (R == kNearest) return nearest;
  if (x.sum != x.sum) return nearest;
  return roundExact<R>(x);
}

// With two zeros of different sign, or x - x, IEEE 754 gives +0, and -0 when rounding downwards.
template <Rounding R>
double zeroSign(double a, double b, double sum) {
  if (R == kDown && sum == 0 && !(std::signbit(a) && std::signbit(b)) && (std::signbit(a) || std::signbit(b) || a != 0))
    return -0.0;
  return sum;
}

template <Rounding R, bool Ftz, bool Sat>
struct Add {
  float operator()(float a, float b) const {
    a = flushIf<Ftz>(a), b = flushIf<Ftz>(b);
    if constexpr (R == kNearest) return finish<Ftz, Sat>(a + b);
    Exact x = exactSum(a, b);
    x.sum = zeroSign<R>(a, b, x.sum);
    return finish<Ftz, Sat>(directed<R>(x, static_cast<float>(x.sum)));
  }
};

template <Rounding R, bool Ftz, bool Sat>
struct Sub {
  float operator()(float a, float b) const { return Add<R, Ftz, Sat>{}(a, b != b ? b : -b); }
};

template <Rounding R, bool Ftz, bool Sat>
struct Mul {
  float operator()(float a, float b) const {
    a = flushIf<Ftz>(a), b = flushIf<Ftz>(b);
    if constexpr (R == kNearest) return finish<Ftz, Sat>(a * b);
    const Exact x{static_cast<double>(a) * b, 0};
    return finish<Ftz, Sat>(directed<R>(x, static_cast<float>(x.sum)));
  }
};

template <Rounding R, bool Ftz, bool Sat>
struct Fma {
  float operator()(float a, float b, float c) const {
    a = flushIf<Ftz>(a), b = flushIf<Ftz>(b), c = flushIf<Ftz>(c);
    if constexpr (R == kNearest) return finish<Ftz, Sat>(std::fma(a, b, c));
    Exact x = exactFma(a, b, c);
    x.sum = zeroSign<R>(static_cast<double>(a) * b, c, x.sum);
    return finish<Ftz, Sat>(directed<R>(x, static_cast<float>(x.sum)));
  }
};

// A quotient's or root's exact value is the double plus a remainder whose sign is known.
inline Exact quotient(float a, float b) {
  const double q = static_cast<double>(a) / b;
  const double rest = std::fma(-q, static_cast<double>(b), static_cast<double>(a));
  const double error = b < 0 ? -rest : rest;
  return {q, std::isfinite(q) && b != 0 ? error : 0};
}

template <Rounding R, bool Ftz>
struct Div {
  float operator()(float a, float b) const {
    a = flushIf<Ftz>(a), b = flushIf<Ftz>(b);
    if constexpr (R == kNearest) return finish<Ftz, false>(a / b);
    const Exact x = quotient(a, b);
    return finish<Ftz, false>(directed<R>(x, static_cast<float>(x.sum)));
  }
};

template <Rounding R, bool Ftz>
struct Reciprocal {
  float operator()(float a) const { return Div<R, Ftz>{}(1.0f, a); }
};

template <Rounding R, bool Ftz>
struct Root {
  float operator()(float a) const {
    a = flushIf<Ftz>(a);
    if constexpr (R == kNearest) return finish<Ftz, false>(std::sqrt(a));
    const double root = std::sqrt(static_cast<double>(a));
    const Exact x{root, std::isfinite(root) ? std::fma(-root, root, static_cast<double>(a)) : 0};
    return finish<Ftz, false>(directed<R>(x, static_cast<float>(root)));
  }
};

enum class Pick { kMin, kMax };

// -0 is less than +0. A NaN loses, or wins with .NaN.
template <Pick P, bool Ftz, bool Nan, bool XorSign>
struct MinMax {
  float operator()(float a, float b) const {
    a = flushIf<Ftz>(a), b = flushIf<Ftz>(b);
    const uint32_t sign = (asBits(a) ^ asBits(b)) & 0x80000000;
    if constexpr (XorSign) a = std::fabs(a), b = std::fabs(b);
    // As integers that order like the floats.
    const auto rank = [](float f) {
      const auto bits = static_cast<int32_t>(asBits(f));
      return bits ^ (bits >> 31 & 0x7fffffff);
    };
    const bool first = P == Pick::kMin ? rank(a) < rank(b) : rank(a) > rank(b);
    float r = first ? a : b;
    r = a != a ? b : r;
    r = b != b ? a : r;
    if constexpr (Nan) r = a != a || b != b ? asFloat(kNan32) : r;
    r = canonical(r);
    if constexpr (XorSign) r = r == r ? asFloat((asBits(r) & 0x7fffffff) | sign) : r;
    return r;
  }
};

template <Rounding R, bool Ftz, bool Sat>
void arithmetic(Registry& r, const std::string& round, const std::string& modifiers) {
  add<float, float, float>(r, "add" + round + modifiers, Add<R, Ftz, Sat>{});
  add<float, float, float>(r, "sub" + round + modifiers, Sub<R, Ftz, Sat>{});
  add<float, float, float>(r, "mul" + round + modifiers, Mul<R, Ftz, Sat>{});
  if (!round.empty()) {
    add<float, float, float, float>(r, "fma" + round + modifiers, Fma<R, Ftz, Sat>{});
    add<float, float, float, float>(r, "mad" + round + modifiers, Fma<R, Ftz, Sat>{});
  }
}

template <Rounding R>
void rounded(Registry& r, const std::string& round) {
  arithmetic<R, false, false>(r, round, ".f32");
  arithmetic<R, true, false>(r, round, ".ftz.f32");
  arithmetic<R, false, true>(r, round, ".sat.f32");
  arithmetic<R, true, true>(r, round, ".ftz.sat.f32");
  if (round.empty()) return;
  add<float, float, float>(r, "div" + round + ".f32", Div<R, false>{});
  add<float, float, float>(r, "div" + round + ".ftz.f32", Div<R, true>{});
  add<float, float>(r, "rcp" + round + ".f32", Reciprocal<R, false>{});
  add<float, float>(r, "rcp" + round + ".ftz.f32", Reciprocal<R, true>{});
  add<float, float>(r, "sqrt" + round + ".f32", Root<R, false>{});
  add<float, float>(r, "sqrt" + round + ".ftz.f32", Root<R, true>{});
}

template <bool Ftz>
void others(Registry& r, const std::string& type) {
  add<float, float>(r, "neg" + type, [](float a) { return canonical(asFloat(asBits(flushIf<Ftz>(a)) ^ 0x80000000)); });
  add<float, float>(r, "abs" + type, [](float a) { return canonical(asFloat(asBits(flushIf<Ftz>(a)) & 0x7fffffff)); });
  const auto both = [&](const std::string& modifier, auto min, auto max) {
    add<float, float, float>(r, "min" + modifier, min);
    add<float, float, float>(r, "max" + modifier, max);
  };
  const std::string head = Ftz ? ".ftz" : "";
  both(type, MinMax<Pick::kMin, Ftz, false, false>{}, MinMax<Pick::kMax, Ftz, false, false>{});
  both(head + ".NaN.f32", MinMax<Pick::kMin, Ftz, true, false>{}, MinMax<Pick::kMax, Ftz, true, false>{});
  both(head + ".xorsign.abs.f32", MinMax<Pick::kMin, Ftz, false, true>{}, MinMax<Pick::kMax, Ftz, false, true>{});
  both(head + ".NaN.xorsign.abs.f32", MinMax<Pick::kMin, Ftz, true, true>{}, MinMax<Pick::kMax, Ftz, true, true>{});
}

}  // namespace

void registerFloat(Registry& r) {
  rounded<kNearest>(r, "");
  rounded<kNearest>(r, ".rn");
  rounded<kZero>(r, ".rz");
  rounded<kDown>(r, ".rm");
  rounded<kUp>(r, ".rp");
  others<false>(r, ".f32");
  others<true>(r, ".ftz.f32");
  // The sign of a, the rest of b.
  add<float, float, float>(
      r, "copysign.f32", [](float a, float b) { return asFloat((asBits(a) & 0x80000000) | (asBits(b) & 0x7fffffff)); });
}

}  // namespace CUDASIM_ISA
}  // namespace cudasim
