// Element types in memory and the type that kernels compute in: 16-bit floats load to float32 and round once.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "dtype.h"

namespace gradus {

struct Float16 {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

template <class To, class From>
inline To bitCast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

inline float widen(BFloat16 x) { return bitCast<float>(static_cast<uint32_t>(x.bits) << 16); }

inline float widen(Float16 x) {
  // The exponent is rebased by a multiplication, which also normalizes subnormals.
  const uint32_t magnitude = static_cast<uint32_t>(x.bits & 0x7fff) << 13;
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000) << 16;
  uint32_t bits = bitCast<uint32_t>(bitCast<float>(magnitude) * 0x1p112f);
  if (magnitude >= 0x0f800000) bits = magnitude | 0x7f800000;  // infinity, NaN
  return bitCast<float>(bits | sign);
}

template <class T>
inline T widen(T x) {
  return x;
}

template <class T>
struct Narrow {
  static T from(float x) { return static_cast<T>(x); }
  static T from(double x) { return static_cast<T>(x); }
};

template <>
struct Narrow<BFloat16> {
  static BFloat16 from(float x) {
    const uint32_t bits = bitCast<uint32_t>(x);
    if (x != x) return {static_cast<uint16_t>((bits >> 16) | 0x40)};
    return {static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
  }
};

template <>
struct Narrow<Float16> {
  static Float16 from(float x) {
    const uint32_t bits = bitCast<uint32_t>(x);
    const uint32_t sign = (bits >> 16) & 0x8000;
    const uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return {static_cast<uint16_t>(sign | 0x7e00 | ((magnitude >> 13) & 0x3ff))};
    if (magnitude >= 0x47800000) return {static_cast<uint16_t>(sign | 0x7c00)};
    if (magnitude < 0x38800000) {  // subnormal: adding 0.5 leaves the rounded value in the low bits
      const uint32_t half = bitCast<uint32_t>(bitCast<float>(magnitude) + 0.5f) - 0x3f000000;
      return {static_cast<uint16_t>(sign | half)};
    }
    return {static_cast<uint16_t>(sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >> 13) & 1)) >> 13))};
  }
};

// Saturates, so that a conversion of any float is defined; NaN becomes 0.
template <class C>
int64_t toInteger(C x) {
  if constexpr (std::is_integral_v<C>) {
    return x;
  } else {
    if (!(x > C(-0x1p63))) return x != x ? 0 : std::numeric_limits<int64_t>::min();
    return x < C(0x1p63) ? static_cast<int64_t>(x) : std::numeric_limits<int64_t>::max();
  }
}

template <>
struct Narrow<int64_t> {
  static int64_t from(double x) { return toInteger(x); }
};

// float64 computes in float64, every other floating type in float32.
template <class T>
using Compute = std::conditional_t<std::is_same_v<T, double>, double, float>;

// Calls body with a value of the floating type that `dtype` stands for.
template <class Body>
decltype(auto) visitFloating(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::kFloat64:
      return body(double{});
    case DType::kFloat16:
      return body(Float16{});
    case DType::kBFloat16:
      return body(BFloat16{});
    default:
      return body(float{});
  }
}

// Calls body with a value of the type in memory of any dtype; a bool is a byte.
template <class Body>
decltype(auto) visitAny(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::kInt64:
      return body(int64_t{});
    case DType::kInt32:
      return body(int32_t{});
    case DType::kUint8:
    case DType::kBool:
      return body(uint8_t{});
    default:
      return visitFloating(dtype, body);
  }
}

}  // namespace gradus
