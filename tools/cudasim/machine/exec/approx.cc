// Approximate operations: computed in double and rounded once, so better than the hardware's documented bounds. With
// Options::ulpPerturbation results move by up to so many units in the last place, to show that a test's tolerance is
// not luck.
#include "../run/launch_state.h"
#include "lanes.h"

namespace cudasim {
namespace CUDASIM_ISA {

namespace {

constexpr double kLog2e = 1.4426950408889634074, kLn2 = 0.69314718055994530942;

// 2^x by Taylor's series of e^(f ln 2), |f| <= 1/2: the twelfth term is below 1e-15.
inline double exp2Of(double x) {
  x = x < -1000 ? -1000 : x > 1000 ? 1000 : x;
  const double shifted = x + 0x1.8p52, n = shifted - 0x1.8p52, t = (x - n) * kLn2;
  double p = 1.0 / 479001600;
  p = p * t + 1.0 / 39916800;
  p = p * t + 1.0 / 3628800;
  p = p * t + 1.0 / 362880;
  p = p * t + 1.0 / 40320;
  p = p * t + 1.0 / 5040;
  p = p * t + 1.0 / 720;
  p = p * t + 1.0 / 120;
  p = p * t + 1.0 / 24;
  p = p * t + 1.0 / 6;
  p = p * t + 0.5;
  p = p * t + 1;
  p = p * t + 1;
  return asDouble(asBits(p) + (asBits(shifted) << 52));
}

// log2 m * 2^e with m around 1, by the series of atanh((m - 1) / (m + 1)).
inline double log2Of(double x) {
  const uint64_t bits = asBits(x), shifted = bits - 0x3fe6a09e667f3bcd;  // sqrt(1/2)
  const auto e = static_cast<double>(static_cast<int64_t>(shifted) >> 52);
  const double m = asDouble(bits - (shifted & 0xfff0000000000000));
  const double s = (m - 1) / (m + 1), z = s * s;
  double p = 1.0 / 21;
  p = p * z + 1.0 / 19;
  p = p * z + 1.0 / 17;
  p = p * z + 1.0 / 15;
  p = p * z + 1.0 / 13;
  p = p * z + 1.0 / 11;
  p = p * z + 1.0 / 9;
  p = p * z + 1.0 / 7;
  p = p * z + 1.0 / 5;
  p = p * z + 1.0 / 3;
  p = p * z + 1;
  return e + 2 * kLog2e * s * p;
}

struct Exp2 {
  float operator()(float a) const {
    const auto r = static_cast<float>(exp2Of(a));
    return a != a ? asFloat(kNan32) : a > 128 ? std::numeric_limits<float>::infinity() : a < -151 ? 0.0f : r;
  }
};

struct Log2 {
  float operator()(float a) const {
    const auto r = static_cast<float>(log2Of(a));
    const float infinity = std::numeric_limits<float>::infinity();
    return !(a >= 0) ? asFloat(kNan32) : a == 0 ? -infinity : a == infinity ? infinity : r;
  }
};

struct Tanh {
  float operator()(float a) const {
    const double x = a, t = exp2Of((x < -20 ? -20 : x > 20 ? 20 : x) * 2 * kLog2e);
    const double r = std::fabs(x) < 1e-4 ? x * (1 - x * x / 3) : (t - 1) / (t + 1);
    return canonical(a != a ? a : static_cast<float>(r));
  }
};

struct Sin {
  float operator()(float a) const { return canonical(static_cast<float>(std::sin(static_cast<double>(a)))); }
};
struct Cos {
  float operator()(float a) const { return canonical(static_cast<float>(std::cos(static_cast<double>(a)))); }
};
struct Reciprocal {
  float operator()(float a) const { return canonical(static_cast<float>(1.0 / a)); }
};
struct ReciprocalRoot {
  float operator()(float a) const { return canonical(static_cast<float>(1.0 / std::sqrt(static_cast<double>(a)))); }
};
struct Root {
  float operator()(float a) const { return canonical(static_cast<float>(std::sqrt(static_cast<double>(a)))); }
};
struct Full {
  float operator()(float a, float b) const { return canonical(static_cast<float>(static_cast<double>(a) / b)); }
};
// For a divisor beyond 2^126 the hardware's reciprocal is a denormal that it flushes.
struct Approximate {
  float operator()(float a, float b) const {
    const bool huge = std::fabs(b) > 0x1p126f && std::fabs(b) < std::numeric_limits<float>::infinity();
    return canonical(huge ? a * std::copysign(0.0f, b) : Full{}(a, b));
  }
};

// Exact results stay: zeros, infinities, NaN, and powers such as 2^3 that every implementation gets right.
void perturb(Warp& w, uint32_t* cells, int ulp) {
  Random& random = w.block->random;
  for (int i = 0; i < 32; ++i) {
    const uint32_t magnitude = cells[i] & 0x7fffffff;
    if (magnitude == 0 || magnitude >= 0x7f000000 || magnitude < 0x01000000) continue;
    cells[i] += random.below(static_cast<uint32_t>(2 * ulp + 1)) - static_cast<uint32_t>(ulp);
  }
}

template <class F, bool Ftz, class... S>
void run(Warp& w, const Insn& in, uint32_t exec) {
  alignas(64) uint32_t result[32];
  uint32_t* d = w.row<uint32_t>(in.r[0]);
  const uint32_t *a = w.row<uint32_t>(in.r[1]), *b = sizeof...(S) > 1 ? w.row<uint32_t>(in.r[2]) : a;
  for (int i = 0; i < 32; ++i) {
    const float x = flushIf<Ftz>(asFloat(a[i]));
    if constexpr (sizeof...(S) > 1)
      result[i] = asBits(flushIf<Ftz>(F{}(x, flushIf<Ftz>(asFloat(b[i])))));
    else
      result[i] = asBits(flushIf<Ftz>(F{}(x)));
  }
  if (const int ulp = w.worker->launch->options.ulpPerturbation) perturb(w, result, ulp);
  storeLanes<uint32_t>(d, result, exec);
}

template <class F, class... S>
void both(Registry& r, const std::string& name) {
  const std::string signature = sizeof...(S) > 1 ? "Www" : "Ww";
  r.add(name + ".f32", &run<F, false, S...>, signature);
  r.add(name + ".ftz.f32", &run<F, true, S...>, signature);
}

template <class F>
struct Halves {
  template <class H>
  H operator()(H h) const {
    return narrow<H>(F{}(toFloat(h)));
  }
};
template <class F>
struct Pairs {
  template <class P>
  P operator()(P p) const {
    return join(Halves<F>{}(low(p)), Halves<F>{}(high(p)));
  }
};

}  // namespace

void registerApprox(Registry& r) {
  both<Exp2, float>(r, "ex2.approx");
  both<Log2, float>(r, "lg2.approx");
  both<Sin, float>(r, "sin.approx");
  both<Cos, float>(r, "cos.approx");
  both<Reciprocal, float>(r, "rcp.approx");
  both<ReciprocalRoot, float>(r, "rsqrt.approx");
  both<Root, float>(r, "sqrt.approx");
  both<Approximate, float, float>(r, "div.approx");
  both<Full, float, float>(r, "div.full");
  r.add("tanh.approx.f32", &run<Tanh, false, float>, "Ww");
  add<F16, F16>(r, "ex2.approx.f16", Halves<Exp2>{});
  add<F16x2, F16x2>(r, "ex2.approx.f16x2", Pairs<Exp2>{});
  add<BF16, BF16>(r, "ex2.approx.ftz.bf16", Halves<Exp2>{});
  add<BF16x2, BF16x2>(r, "ex2.approx.ftz.bf16x2", Pairs<Exp2>{});
  add<F16, F16>(r, "tanh.approx.f16", Halves<Tanh>{});
  add<F16x2, F16x2>(r, "tanh.approx.f16x2", Pairs<Tanh>{});
  add<BF16, BF16>(r, "tanh.approx.bf16", Halves<Tanh>{});
  add<BF16x2, BF16x2>(r, "tanh.approx.bf16x2", Pairs<Tanh>{});
}

}  // namespace CUDASIM_ISA
}  // namespace cudasim
