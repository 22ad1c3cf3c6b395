// Number formats and roundings as PTX defines them. Written without branches where lanes run through them, so that the
// compiler can turn loops into vectors.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace cudasim {
namespace CUDASIM_ISA {

struct F16 {
  uint16_t bits;
};
struct BF16 {
  uint16_t bits;
};
struct F16x2 {
  uint32_t bits;
};
struct BF16x2 {
  uint32_t bits;
};

enum Rounding : int { kNearest, kZero, kDown, kUp };

constexpr uint32_t kNan32 = 0x7fffffff;  // what single precision makes of every NaN
constexpr uint16_t kNan16 = 0x7fff;      // the same for both half formats

inline float asFloat(uint32_t bits) { return std::bit_cast<float>(bits); }
inline uint32_t asBits(float f) { return std::bit_cast<uint32_t>(f); }
inline double asDouble(uint64_t bits) { return std::bit_cast<double>(bits); }
inline uint64_t asBits(double d) { return std::bit_cast<uint64_t>(d); }

inline float canonical(float f) { return f != f ? asFloat(kNan32) : f; }

// Denormals to zero of the same sign.
inline float flush(float f) {
  const uint32_t bits = asBits(f);
  return (bits & 0x7f800000) ? f : asFloat(bits & 0x80000000);
}

template <bool Ftz>
float flushIf(float f) {
  if constexpr (Ftz) return flush(f);
  return f;
}

// [0, 1], NaN to +0.
inline float saturate(float f) { return f > 0 ? (f < 1 ? f : 1.0f) : 0.0f; }
inline double saturate(double f) { return f > 0 ? (f < 1 ? f : 1.0) : 0.0; }

inline float toFloat(F16 h) {
  const uint32_t magnitude = h.bits & 0x7fffu, sign = (h.bits & 0x8000u) << 16;
  const uint32_t finite = asBits(asFloat(magnitude << 13) * 0x1p112f);
  return asFloat(sign | (magnitude >= 0x7c00 ? 0x7f800000 | magnitude << 13 : finite));
}

inline float toFloat(BF16 h) { return asFloat(static_cast<uint32_t>(h.bits) << 16); }

// To nearest even. NaN becomes canonical.
inline F16 toF16(float f) {
  const uint32_t bits = asBits(f), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
  const uint32_t normal = (magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13;
  const uint32_t small = asBits(asFloat(magnitude) + 0.5f) - 0x3f000000;  // the sum's last place is 2^-24
  uint32_t half = magnitude < 0x38800000 ? small : normal;
  half = magnitude >= 0x47800000 ? 0x7c00 : half;
  half |= sign;
  return {static_cast<uint16_t>(magnitude > 0x7f800000 ? kNan16 : half)};
}

inline BF16 toBF16(float f) {
  const uint32_t bits = asBits(f);
  const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  return {static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? kNan16 : rounded)};
}

inline F16 low(F16x2 p) { return {static_cast<uint16_t>(p.bits)}; }
inline F16 high(F16x2 p) { return {static_cast<uint16_t>(p.bits >> 16)}; }
inline BF16 low(BF16x2 p) { return {static_cast<uint16_t>(p.bits)}; }
inline BF16 high(BF16x2 p) { return {static_cast<uint16_t>(p.bits >> 16)}; }
inline F16x2 join(F16 l, F16 h) { return {l.bits | static_cast<uint32_t>(h.bits) << 16}; }
inline BF16x2 join(BF16 l, BF16 h) { return {l.bits | static_cast<uint32_t>(h.bits) << 16}; }

template <class H>
H narrow(float f);
template <>
inline F16 narrow<F16>(float f) {
  return toF16(f);
}
template <>
inline BF16 narrow<BF16>(float f) {
  return toBF16(f);
}

// An exact value as the sum of two doubles (Knuth's two-sum); `error` is what `sum` lost.
struct Exact {
  double sum, error;
};
inline Exact exactSum(double a, double b) {
  const double sum = a + b, t = sum - a;
  return {sum, (a - (sum - t)) + (b - t)};
}
inline Exact exactFma(float a, float b, float c) { return exactSum(static_cast<double>(a) * b, c); }

// The neighbour towards -inf or +inf of a float that is not NaN.
inline float step(float f, bool up) {
  const uint32_t bits = asBits(f);
  const uint32_t away = bits + 1, towards = bits - 1;
  const bool negative = bits >> 31, zero = (bits & 0x7fffffff) == 0;
  const uint32_t fromZero = up ? 1u : 0x80000001u;
  const bool grows = negative != up;
  const bool stays = grows && (bits & 0x7fffffff) == 0x7f800000;
  return asFloat(stays ? bits : zero ? fromZero : grows ? away : towards);
}

// Rounds an exact value to float in direction R; exact zero sums take their sign from the rounding.
template <Rounding R>
float roundExact(Exact x) {
  const float f = static_cast<float>(x.sum);
  const double back = f;
  const bool finite = std::fabs(x.sum) < std::numeric_limits<double>::infinity();
  const bool above = back > x.sum || (back == x.sum && x.error < 0);
  const bool below = back < x.sum || (back == x.sum && x.error > 0);
  if constexpr (R == kNearest) return f;
  if constexpr (R == kDown) return finite && above ? step(f, false) : f;
  if constexpr (R == kUp) return finite && below ? step(f, true) : f;
  const bool positive = x.sum > 0;
  const bool tooLarge = positive ? above : below;
  return finite && tooLarge ? step(f, !positive) : f;
}

// Makes a double whose rounding to a narrower format equals that of the exact value (rounding to odd).
inline double sticky(Exact x) {
  const uint64_t bits = asBits(x.sum);
  const bool towards = (x.error > 0) != (x.sum > 0);  // the exact value lies nearer to zero
  const uint64_t odd = bits & 1 ? bits : towards ? bits - 1 : bits + 1;
  return x.error != 0 && std::isfinite(x.sum) ? asDouble(odd) : x.sum;
}

// A double to half through float would round twice; through a sticky float it does not.
inline float stickyFloat(double d) {
  const float f = static_cast<float>(d);
  const uint32_t bits = asBits(f);
  const double back = f;
  const bool larger = std::fabs(back) > std::fabs(d);
  const uint32_t odd = bits & 1 ? bits : larger ? bits - 1 : bits + 1;
  return back != d && std::fabs(back) < std::numeric_limits<double>::infinity() ? asFloat(odd) : f;
}

}  // namespace CUDASIM_ISA
}  // namespace cudasim
