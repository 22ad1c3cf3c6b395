// cvt between all integer and float types.
#include "convert.h"

#include <algorithm>
#include <utility>

#include "lanes.h"

namespace cudasim {
namespace CUDASIM_ISA {

namespace {

template <class T>
constexpr bool isFloat =
    std::is_same_v<T, float> || std::is_same_v<T, double> || std::is_same_v<T, F16> || std::is_same_v<T, BF16>;

template <class T>
T roundToIntegral(T v, int rounding) {
  switch (rounding) {
    case kZero:
      return std::trunc(v);
    case kDown:
      return std::floor(v);
    case kUp:
      return std::ceil(v);
    default:
      return std::nearbyint(v);
  }
}

template <class T>
double widen(T v) {
  if constexpr (std::is_same_v<T, F16> || std::is_same_v<T, BF16>)
    return toFloat(v);
  else
    return static_cast<double>(v);
}

// A half from an exact value, in any direction: the nearest half, corrected by comparing.
template <class H>
H halfFrom(Exact x, int rounding) {
  const H nearest = narrow<H>(stickyFloat(sticky(x)));
  const double back = toFloat(nearest);
  if (rounding == kNearest || back != back || x.sum != x.sum) return nearest;
  const bool above = back > x.sum || (back == x.sum && x.error < 0),
             below = back < x.sum || (back == x.sum && x.error > 0);
  const bool negative = nearest.bits & 0x8000;
  const bool down = rounding == kDown || (rounding == kZero && x.sum > 0),
             up = rounding == kUp || (rounding == kZero && x.sum < 0);
  const auto move = [&](bool towardsUp) -> H {
    if ((nearest.bits & 0x7fff) == 0) return {static_cast<uint16_t>(towardsUp ? 0x0001 : 0x8001)};
    return {static_cast<uint16_t>(negative != towardsUp ? nearest.bits + 1 : nearest.bits - 1)};
  };
  if (std::isinf(x.sum)) return nearest;
  if (above && down) return move(false);
  if (below && up) return move(true);
  return nearest;
}

inline float floatFrom(Exact x, int rounding) {
  switch (rounding) {
    case kZero:
      return roundExact<kZero>(x);
    case kDown:
      return roundExact<kDown>(x);
    case kUp:
      return roundExact<kUp>(x);
    default:
      return static_cast<float>(sticky(x));
  }
}

// 64-bit integers need two doubles.
template <class S>
Exact exactOf(S v) {
  if constexpr (std::is_integral_v<S> && sizeof(S) == 8) {
    const auto high = static_cast<double>(static_cast<S>(v >> 32 << 32));
    return exactSum(high, static_cast<double>(static_cast<uint32_t>(v)));
  } else {
    return {widen(v), 0};
  }
}

template <class D>
D floatResult(Exact x, uint16_t sub) {
  const int rounding = sub & kConvertRound;
  if constexpr (std::is_same_v<D, double>) {
    double d = x.sum;
    if (x.error != 0 && rounding != kNearest) {
      const bool positive = d > 0;
      const bool down = rounding == kDown || (rounding == kZero && positive);
      if (x.error < 0 && down) d = std::nextafter(d, -INFINITY);
      if (x.error > 0 && !down) d = std::nextafter(d, INFINITY);
    }
    return sub & kConvertSat ? saturate(d) : d;
  } else if constexpr (std::is_same_v<D, float>) {
    float f = canonical(floatFrom(x, rounding));
    if (sub & kConvertFtz) f = flush(f);
    if (sub & kConvertRelu) f = f < 0 || f == 0 ? 0.0f : f;
    return sub & kConvertSat ? saturate(f) : f;
  } else {
    if (sub & kConvertSat) x = {saturate(x.sum), x.sum > 0 && x.sum < 1 ? x.error : 0};
    if (sub & kConvertRelu && x.sum <= 0) x = {0, 0};
    return halfFrom<D>(x, rounding);
  }
}

// From float to integer: rounded, clamped to the range; NaN gives zero, or the top bit where 64-bit types are involved.
template <class D, bool FromDouble>
D integerFrom(double v, int rounding) {
  if (v != v) return FromDouble || sizeof(D) == 8 ? static_cast<D>(uint64_t{1} << (8 * sizeof(D) - 1)) : D{0};
  v = roundToIntegral(v, rounding);
  constexpr double below = std::is_signed_v<D> ? -static_cast<double>(uint64_t{1} << (8 * sizeof(D) - 1)) : 0;
  constexpr double above = 2.0 * static_cast<double>(uint64_t{1} << (8 * sizeof(D) - (std::is_signed_v<D> ? 2 : 1)));
  if (v <= below) return std::numeric_limits<D>::min();
  if (v >= above) return std::numeric_limits<D>::max();
  return static_cast<D>(v);
}

template <class D, class S>
D saturateInteger(S v) {
  if (std::cmp_less(v, std::numeric_limits<D>::min())) return std::numeric_limits<D>::min();
  if (std::cmp_greater(v, std::numeric_limits<D>::max())) return std::numeric_limits<D>::max();
  return static_cast<D>(v);
}

template <class D, class S>
D convert(S s, uint16_t sub) {
  const int rounding = sub & kConvertRound;
  if constexpr (isFloat<S>) {
    if constexpr (std::is_same_v<S, float>) {
      if (sub & kConvertFtz) s = flush(s);
    }
    if constexpr (!isFloat<D>) {
      return integerFrom<D, sizeof(S) == 8>(widen(s), rounding);
    } else if (sub & kConvertIntegral) {
      return floatResult<D>({roundToIntegral(widen(s), rounding), 0}, static_cast<uint16_t>(sub & ~kConvertRound));
    } else {
      return floatResult<D>({widen(s), 0}, sub);
    }
  } else if constexpr (isFloat<D>) {
    return floatResult<D>(exactOf(s), sub);
  } else {
    return sub & kConvertSat ? saturateInteger<D>(s) : static_cast<D>(s);
  }
}

// Source and destination registers may be wider than their types: the source is cut, the result sign- or zero-extended.
template <class D, class S>
void run(Warp& w, const Insn& in, uint32_t exec) {
  const uint16_t sub = in.sub;
  const bool wideSource = in.count;
  const auto source = [&](int i) -> S {
    if constexpr (sizeof(S) == 8) {
      return unpack<S>(w.row<uint64_t>(in.r[1])[i]);
    } else {
      return unpack<S>(wideSource ? static_cast<uint32_t>(w.row<uint64_t>(in.r[1])[i]) : w.row<uint32_t>(in.r[1])[i]);
    }
  };
  for (uint32_t m = exec; m; m &= m - 1) {
    const int i = std::countr_zero(m);
    const D d = convert<D, S>(source(i), sub);
    if constexpr (sizeof(D) == 8) {
      w.row<uint64_t>(in.r[0])[i] = pack(d);
    } else {
      uint64_t bits = pack(d);
      if constexpr (std::is_integral_v<D>) {
        if (std::is_signed_v<D> && (sub & kConvertSignExtend)) bits = static_cast<uint64_t>(static_cast<int64_t>(d));
      }
      if (sub & kConvertWideDest)
        w.row<uint64_t>(in.r[0])[i] = bits;
      else
        w.row<uint32_t>(in.r[0])[i] = static_cast<uint32_t>(bits);
    }
  }
}

template <class D, class S>
void one(Registry& r, const char* to, const char* from) {
  r.add(std::string("@cvt.") + to + "." + from, &run<D, S>);
}

template <class D>
void allTo(Registry& r, const char* to) {
  one<D, uint8_t>(r, to, "u8");
  one<D, int8_t>(r, to, "s8");
  one<D, uint16_t>(r, to, "u16");
  one<D, int16_t>(r, to, "s16");
  one<D, uint32_t>(r, to, "u32");
  one<D, int32_t>(r, to, "s32");
  one<D, uint64_t>(r, to, "u64");
  one<D, int64_t>(r, to, "s64");
  one<D, F16>(r, to, "f16");
  one<D, BF16>(r, to, "bf16");
  one<D, float>(r, to, "f32");
  one<D, double>(r, to, "f64");
}

// Two floats into a pair: the first is the high half.
template <class H, bool Relu, int Rounding>
uint32_t pairOf(float high, float low) {
  const uint16_t sub = Relu ? kConvertRelu : 0;
  const auto half = [&](float f) -> uint32_t {
    if constexpr (Rounding == kNearest && !Relu) return narrow<H>(f).bits;
    return floatResult<H>({f, 0}, static_cast<uint16_t>(sub | Rounding)).bits;
  };
  return half(low) | half(high) << 16;
}

// tf32 keeps ten bits of the fraction: ties away from zero, or to even with .rn.
inline uint32_t toTf32(float f, bool away) {
  const uint32_t bits = asBits(f);
  if ((bits & 0x7f800000) == 0x7f800000) return bits & 0x7fffff ? kNan32 : bits;
  return (bits + (away ? 0x1000u : 0xfffu + (bits >> 13 & 1))) & ~0x1fffu;
}

}  // namespace

void registerConvert(Registry& r) {
  allTo<uint8_t>(r, "u8");
  allTo<int8_t>(r, "s8");
  allTo<uint16_t>(r, "u16");
  allTo<int16_t>(r, "s16");
  allTo<uint32_t>(r, "u32");
  allTo<int32_t>(r, "s32");
  allTo<uint64_t>(r, "u64");
  allTo<int64_t>(r, "s64");
  allTo<F16>(r, "f16");
  allTo<BF16>(r, "bf16");
  allTo<float>(r, "f32");
  allTo<double>(r, "f64");
  using U = uint32_t;
  add<U, float, float>(r, "cvt.rn.f16x2.f32", [](float a, float b) { return pairOf<F16, false, kNearest>(a, b); });
  add<U, float, float>(r, "cvt.rz.f16x2.f32", [](float a, float b) { return pairOf<F16, false, kZero>(a, b); });
  add<U, float, float>(r, "cvt.rn.relu.f16x2.f32", [](float a, float b) { return pairOf<F16, true, kNearest>(a, b); });
  add<U, float, float>(r, "cvt.rz.relu.f16x2.f32", [](float a, float b) { return pairOf<F16, true, kZero>(a, b); });
  add<U, float, float>(r, "cvt.rn.bf16x2.f32", [](float a, float b) { return pairOf<BF16, false, kNearest>(a, b); });
  add<U, float, float>(r, "cvt.rz.bf16x2.f32", [](float a, float b) { return pairOf<BF16, false, kZero>(a, b); });
  add<U, float, float>(r, "cvt.rn.relu.bf16x2.f32",
                       [](float a, float b) { return pairOf<BF16, true, kNearest>(a, b); });
  add<U, float, float>(r, "cvt.rz.relu.bf16x2.f32", [](float a, float b) { return pairOf<BF16, true, kZero>(a, b); });
  add<U, float>(r, "cvt.rna.tf32.f32", [](float a) { return toTf32(a, true); });
  add<U, float>(r, "cvt.rn.tf32.f32", [](float a) { return toTf32(a, false); });
  // The usual ones again, in a form that lanes run through together; the decoder prefers them.
  add<U, float>(r, "@fast.cvt.rn.f16.f32", [](float a) { return static_cast<U>(toF16(a).bits); });
  add<U, float>(r, "@fast.cvt.rn.bf16.f32", [](float a) { return static_cast<U>(toBF16(a).bits); });
  add<float, F16>(r, "@fast.cvt.f32.f16", [](F16 a) { return canonical(toFloat(a)); });
  add<float, BF16>(r, "@fast.cvt.f32.bf16", [](BF16 a) { return canonical(toFloat(a)); });
  add<float, int32_t>(r, "@fast.cvt.rn.f32.s32", [](int32_t a) { return static_cast<float>(a); });
  add<float, U>(r, "@fast.cvt.rn.f32.u32", [](U a) { return static_cast<float>(a); });
  add<int32_t, float>(r, "@fast.cvt.rzi.s32.f32", [](float a) {
    const float cut = a >= 0x1p31f ? 0 : a < -0x1p31f ? 0 : a == a ? a : 0;
    const auto v = static_cast<int32_t>(cut);
    return a >= 0x1p31f ? 0x7fffffff : a < -0x1p31f ? static_cast<int32_t>(0x80000000) : v;
  });
  add<uint64_t, U>(r, "@fast.cvt.u64.u32", [](U a) { return static_cast<uint64_t>(a); });
  add<int64_t, int32_t>(r, "@fast.cvt.s64.s32", [](int32_t a) { return static_cast<int64_t>(a); });
  add<U, uint64_t>(r, "@fast.cvt.u32.u64", [](uint64_t a) { return static_cast<U>(a); });
  add<float, float>(r, "@fast.cvt.sat.f32.f32", [](float a) { return saturate(a); });
  add<double, float>(r, "@fast.cvt.f64.f32", [](float a) { return static_cast<double>(a); });
  add<float, double>(r, "@fast.cvt.rn.f32.f64", [](double a) { return canonical(static_cast<float>(a)); });
}

}  // namespace CUDASIM_ISA
}  // namespace cudasim
