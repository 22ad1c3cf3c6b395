// Double precision. Directed roundings use the processor's, so this file is compiled with -frounding-math.
#include <cfenv>

#include "lanes.h"

namespace cudasim {
namespace CUDASIM_ISA {

namespace {

template <Rounding R>
struct Directed {
  Directed() {
    if constexpr (R != kNearest) std::fesetround(R == kZero ? FE_TOWARDZERO : R == kDown ? FE_DOWNWARD : FE_UPWARD);
  }
  ~Directed() {
    if constexpr (R != kNearest) std::fesetround(FE_TONEAREST);
  }
};

// The operands pass through volatiles: the compiler knows nothing of the rounding mode.
template <Rounding R, class F>
double with(F f, double a, double b = 0, double c = 0) {
  const Directed<R> mode;
  const volatile double x = a, y = b, z = c;
  const volatile double result = f(x, y, z);
  return result;
}

template <Rounding R>
void rounded(Registry& r, const std::string& round) {
  using D = double;
  add<D, D, D>(r, "add" + round + ".f64", [](D a, D b) { return a + b; });
  add<D, D, D>(r, "sub" + round + ".f64", [](D a, D b) { return a - b; });
  add<D, D, D>(r, "mul" + round + ".f64", [](D a, D b) { return a * b; });
  if constexpr (R != kNearest) {
    addEach<D, D, D>(r, "add" + round + ".f64",
                     [](D a, D b) { return with<R>([](D x, D y, D) { return x + y; }, a, b); });
    addEach<D, D, D>(r, "sub" + round + ".f64",
                     [](D a, D b) { return with<R>([](D x, D y, D) { return x - y; }, a, b); });
    addEach<D, D, D>(r, "mul" + round + ".f64",
                     [](D a, D b) { return with<R>([](D x, D y, D) { return x * y; }, a, b); });
  }
  if (round.empty()) return;
  if constexpr (R == kNearest) {
    const auto fma = [](D a, D b, D c) { return std::fma(a, b, c); };
    add<D, D, D, D>(r, "fma" + round + ".f64", fma);
    add<D, D, D, D>(r, "mad" + round + ".f64", fma);
    add<D, D, D>(r, "div" + round + ".f64", [](D a, D b) { return a / b; });
    add<D, D>(r, "rcp" + round + ".f64", [](D a) { return 1.0 / a; });
    add<D, D>(r, "sqrt" + round + ".f64", [](D a) { return std::sqrt(a); });
    return;
  }
  const auto fma = [](D a, D b, D c) { return with<R>([](D x, D y, D z) { return std::fma(x, y, z); }, a, b, c); };
  addEach<D, D, D, D>(r, "fma" + round + ".f64", fma);
  addEach<D, D, D, D>(r, "mad" + round + ".f64", fma);
  addEach<D, D, D>(r, "div" + round + ".f64",
                   [](D a, D b) { return with<R>([](D x, D y, D) { return x / y; }, a, b); });
  addEach<D, D>(r, "rcp" + round + ".f64", [](D a) { return with<R>([](D x, D, D) { return 1.0 / x; }, a); });
  addEach<D, D>(r, "sqrt" + round + ".f64", [](D a) { return with<R>([](D x, D, D) { return std::sqrt(x); }, a); });
}

// -0 is less than +0, and a NaN loses: without branches, so that lanes run side by side.
template <bool Less>
double pick(double a, double b) {
  const auto rank = [](double d) {
    const auto bits = static_cast<int64_t>(asBits(d));
    return bits ^ static_cast<int64_t>(static_cast<uint64_t>(bits >> 63) >> 1);
  };
  const bool first = Less ? rank(a) < rank(b) : rank(a) > rank(b);
  double r = first ? a : b;
  r = a != a ? b : r;
  return b != b ? a : r;
}

// The hardware's fast reciprocals keep 20 bits of the fraction and take and give no denormals.
inline double cutTo20Bits(double d) {
  const uint64_t bits = asBits(d) & 0xffffffff00000000;
  return (bits & 0x7ff0000000000000) ? asDouble(bits) : asDouble(bits & 0x8000000000000000);
}
inline double flushDouble(double d) { return asBits(d) & 0x7ff0000000000000 ? d : std::copysign(0.0, d); }

}  // namespace

void registerDouble(Registry& r) {
  using D = double;
  rounded<kNearest>(r, "");
  rounded<kNearest>(r, ".rn");
  rounded<kZero>(r, ".rz");
  rounded<kDown>(r, ".rm");
  rounded<kUp>(r, ".rp");
  add<D, D>(r, "neg.f64", [](D a) { return asDouble(asBits(a) ^ uint64_t{1} << 63); });
  add<D, D>(r, "abs.f64", [](D a) { return asDouble(asBits(a) & ~(uint64_t{1} << 63)); });
  add<D, D, D>(r, "min.f64", [](D a, D b) { return pick<true>(a, b); });
  add<D, D, D>(r, "max.f64", [](D a, D b) { return pick<false>(a, b); });
  add<D, D, D>(r, "copysign.f64", [](D a, D b) {
    const uint64_t sign = uint64_t{1} << 63;
    return asDouble((asBits(a) & sign) | (asBits(b) & ~sign));
  });
  addEach<D, D>(r, "rcp.approx.ftz.f64", [](D a) { return cutTo20Bits(1.0 / flushDouble(a)); });
  addEach<D, D>(r, "rsqrt.approx.ftz.f64", [](D a) { return cutTo20Bits(1.0 / std::sqrt(flushDouble(a))); });
  addEach<D, D>(r, "rsqrt.approx.f64", [](D a) { return 1.0 / std::sqrt(a); });
}

}  // namespace CUDASIM_ISA
}  // namespace cudasim
