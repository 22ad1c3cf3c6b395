// Numbers rounded by the definition of a format: divided by the unit of the last place, rounded to an integer in
// 128-bit arithmetic, multiplied again. Slow, and independent of how the machine rounds.
#pragma once

#include <cfenv>
#include <cmath>

#include "op.h"

namespace cudasim::test {

using Quad = __float128;

struct Format {
  int bits, digits, least;  // digits with the leading one; exponent of the smallest normal number
  Bits nan;                 // what arithmetic gives
};
constexpr Format kF16{16, 11, -14, 0x7fff}, kBF16{16, 8, -126, 0x7fff}, kF32{32, 24, -126, 0x7fffffff},
    kF64{64, 53, -1022, kAnyNan}, kTF32{32, 11, -126, 0x7fffffff};

enum class To { kNearest, kZero, kDown, kUp, kAway };  // kAway: nearest, ties away from zero

inline bool isNegative(Quad x) { return __builtin_signbit(static_cast<double>(x)) || x < 0; }

inline Quad power(int e) {
  Quad p = 1;
  for (; e > 0; --e) p *= 2;
  for (; e < 0; ++e) p /= 2;
  return p;
}

inline int exponentOf(Quad x) {
  x = x < 0 ? -x : x;
  int e = 0;
  while (x >= 2) x /= 2, ++e;
  while (x < 1) x *= 2, --e;
  return e;
}

// An integer near x, |x| < 2^100.
inline Quad integral(Quad x, To how) {
  const bool negative = x < 0;
  Quad a = negative ? -x : x;
  // The largest integer not above a, bit by bit.
  Quad whole = 0;
  for (Quad bit = power(110); bit >= 1; bit /= 2)
    if (whole + bit <= a) whole += bit;
  const Quad rest = a - whole;
  bool up = false;
  switch (how) {
    case To::kNearest: {
      Quad half = whole / 2, even = 0;
      for (Quad bit = power(110); bit >= 1; bit /= 2)
        if (even + bit <= half) even += bit;
      up = rest > 0.5 || (rest == 0.5 && even != half);
      break;
    }
    case To::kAway:
      up = rest >= 0.5;
      break;
    case To::kZero:
      break;
    case To::kDown:
      up = negative && rest > 0;
      break;
    case To::kUp:
      up = !negative && rest > 0;
      break;
  }
  a = whole + (up ? 1 : 0);
  return negative ? -a : a;
}

// The bits of x in a format. x is finite; `zero` is its sign when it is zero.
inline Bits encode(Quad x, const Format& f, To how, bool zeroIsNegative = false) {
  const int fraction = f.bits == 32 && f.digits == 11 ? 23 : f.digits - 1;  // tf32 lies in 32 bits
  const int top = f.bits - 1;
  const int most = -f.least + 1;  // the largest exponent
  const bool negative = x == 0 ? zeroIsNegative : x < 0;
  const Bits sign = static_cast<Bits>(negative) << top;
  if (x == 0) return sign;
  int e = std::max(exponentOf(x), f.least);
  Quad units = integral(x / power(e - f.digits + 1), how);
  units = units < 0 ? -units : units;
  if (units >= power(f.digits)) units /= 2, ++e;
  const Bits infinity = static_cast<Bits>(most - f.least + 2) << fraction;
  if (e > most) {
    const bool stays = how == To::kZero || (how == To::kDown && !negative) || (how == To::kUp && negative);
    return sign | (stays ? infinity - (Bits{1} << (fraction - f.digits + 1)) : infinity);
  }
  const auto whole = static_cast<Bits>(units) << (fraction - f.digits + 1);
  const bool normal = units >= power(f.digits - 1);
  return sign | (normal ? (static_cast<Bits>(e - f.least + 1) << fraction) + whole - (Bits{1} << fraction) : whole);
}

// The value of finite bits.
inline Quad decode(Bits bits, const Format& f) {
  const int fraction = f.bits == 32 ? 23 : f.digits - 1;
  const Bits magnitude = bits & ((Bits{1} << (f.bits - 1)) - 1);
  const auto exponent = static_cast<int>(magnitude >> fraction);
  const Bits low = magnitude & ((Bits{1} << fraction) - 1);
  const Quad value = exponent ? (static_cast<Quad>(low) + power(fraction)) * power(exponent - 1 + f.least - fraction)
                              : static_cast<Quad>(low) * power(f.least - fraction);
  return bits >> (f.bits - 1) & 1 ? -value : value;
}

inline Bits infinityOf(const Format& f) {
  return f.bits == 16 ? (f.digits == 11 ? 0x7c00 : 0x7f80) : f.bits == 32 ? 0x7f800000 : 0x7ff0000000000000;
}
inline Bits magnitudeOf(Bits bits, const Format& f) { return bits & ((Bits{1} << (f.bits - 1)) - 1); }
inline bool isNan(Bits bits, const Format& f) { return magnitudeOf(bits, f) > infinityOf(f); }
inline bool isInfinite(Bits bits, const Format& f) { return magnitudeOf(bits, f) == infinityOf(f); }
inline bool isZero(Bits bits, const Format& f) { return magnitudeOf(bits, f) == 0; }
inline bool signOf(Bits bits, const Format& f) { return bits >> (f.bits - 1) & 1; }
// Denormals become zeros of their sign.
inline Bits flushed(Bits bits, const Format& f) {
  const int fraction = f.bits == 32 ? 23 : f.digits - 1;
  return magnitudeOf(bits, f) >> fraction ? bits : bits & (Bits{1} << (f.bits - 1));
}
// [0, 1], NaN to zero.
inline Bits saturated(Bits bits, const Format& f) {
  const Bits one = encode(1, f, To::kNearest);
  if (bits == kAnyNan || isNan(bits, f) || signOf(bits, f)) return 0;
  return bits > one ? one : bits;
}

}  // namespace cudasim::test
