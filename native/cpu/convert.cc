// Conversions between dtypes in memory and compute types. The 16-bit floats have vector code; the rest are loops that
// the compiler vectorizes.
#include <hwy/cache_control.h>

#include "../core/element.h"
#include "spans.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "convert.cc"
#include <hwy/foreach_target.h>

#include "simd.h"

HWY_BEFORE_NAMESPACE();
namespace gradus::cpu::HWY_NAMESPACE {
namespace {

template <class T>
void loadHalf(const void* from, float* to, int64_t n) {
  const hn::ScalableTag<float> d;
  const auto* source = static_cast<const T*>(from);
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) hn::StoreU(vec::load(d, source + i), d, to + i);
  if (i < n) vec::storeTail(d, vec::loadTail(d, source + i, n - i), to + i, n - i);
}

template <class T>
void storeHalf(const float* from, void* to, int64_t n) {
  const hn::ScalableTag<float> d;
  auto* target = static_cast<T*>(to);
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) vec::store(d, hn::LoadU(d, from + i), target + i);
  if (i < n) vec::storeTail(d, vec::loadTail(d, from + i, n - i), target + i, n - i);
}

void streamBytes(const void* from, void* to, int64_t bytes) {
  const hn::ScalableTag<uint8_t> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto* source = static_cast<const uint8_t*>(from);
  auto* target = static_cast<uint8_t*>(to);
  const int64_t head = (-reinterpret_cast<intptr_t>(to)) & (lanes - 1);
  int64_t i = bytes < head ? bytes : head;
  std::memcpy(target, source, i);
  for (; i + lanes <= bytes; i += lanes) hn::Stream(hn::LoadU(d, source + i), d, target + i);
  std::memcpy(target + i, source + i, bytes - i);
}

void streamBytesTwice(const void* from, void* first, void* second, int64_t bytes) {
  const hn::ScalableTag<uint8_t> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto* source = static_cast<const uint8_t*>(from);
  auto *one = static_cast<uint8_t*>(first), *other = static_cast<uint8_t*>(second);
  int64_t i = 0;
  for (; i + lanes <= bytes; i += lanes) {
    const auto v = hn::LoadU(d, source + i);
    hn::Stream(v, d, one + i);
    hn::Stream(v, d, other + i);
  }
  std::memcpy(one + i, source + i, bytes - i);
  std::memcpy(other + i, source + i, bytes - i);
}

}  // namespace

HalfConversions halfConversions() {
  return {loadHalf<Float16>,   loadHalf<BFloat16>, storeHalf<Float16>,
          storeHalf<BFloat16>, streamBytes,        streamBytesTwice};
}

}  // namespace gradus::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace gradus::cpu {
HWY_EXPORT(halfConversions);

namespace {

template <class C, class T>
void load(const void* from, C* to, int64_t n) {
  const auto* source = static_cast<const T*>(from);
  for (int64_t i = 0; i < n; ++i) {
    if constexpr (std::is_same_v<C, int64_t> && !std::is_integral_v<T>) {
      to[i] = toInteger(widen(source[i]));
    } else {
      to[i] = static_cast<C>(widen(source[i]));
    }
  }
}

template <class C, class T>
void store(const C* from, void* to, int64_t n) {
  auto* target = static_cast<T*>(to);
  for (int64_t i = 0; i < n; ++i) {
    if constexpr (std::is_integral_v<T>) {
      target[i] = static_cast<T>(toInteger(from[i]));
    } else if constexpr (std::is_same_v<T, double>) {
      target[i] = static_cast<double>(from[i]);
    } else {
      target[i] = Narrow<T>::from(static_cast<float>(from[i]));
    }
  }
}

template <class C>
void storeBool(const C* from, void* to, int64_t n) {
  auto* target = static_cast<uint8_t*>(to);
  for (int64_t i = 0; i < n; ++i) target[i] = from[i] != 0;
}

const HalfConversions& half() {
  static const auto conversions = HWY_DYNAMIC_DISPATCH(halfConversions)();
  return conversions;
}

}  // namespace

template <class C>
Loader<C> loaderOf(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return load<C, float>;
    case DType::kFloat64:
      return load<C, double>;
    case DType::kFloat16:
      if constexpr (std::is_same_v<C, float>) return half().loadFloat16;
      return load<C, Float16>;
    case DType::kBFloat16:
      if constexpr (std::is_same_v<C, float>) return half().loadBFloat16;
      return load<C, BFloat16>;
    case DType::kInt64:
      return load<C, int64_t>;
    case DType::kInt32:
      return load<C, int32_t>;
    default:
      return load<C, uint8_t>;
  }
}

template <class C>
Storer<C> storerOf(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return store<C, float>;
    case DType::kFloat64:
      return store<C, double>;
    case DType::kFloat16:
      if constexpr (std::is_same_v<C, float>) return half().storeFloat16;
      return store<C, Float16>;
    case DType::kBFloat16:
      if constexpr (std::is_same_v<C, float>) return half().storeBFloat16;
      return store<C, BFloat16>;
    case DType::kInt64:
      return store<C, int64_t>;
    case DType::kInt32:
      return store<C, int32_t>;
    case DType::kUint8:
      return store<C, uint8_t>;
    default:
      return storeBool<C>;
  }
}

template Loader<float> loaderOf<float>(DType);
template Loader<double> loaderOf<double>(DType);
template Loader<int64_t> loaderOf<int64_t>(DType);
template Storer<float> storerOf<float>(DType);
template Storer<double> storerOf<double>(DType);
template Storer<int64_t> storerOf<int64_t>(DType);

void streamCopy(const void* from, void* to, int64_t bytes) { half().stream(from, to, bytes); }
void streamCopyTwice(const void* from, void* first, void* second, int64_t bytes) {
  half().streamTwice(from, first, second, bytes);
}
void streamEnd() { hwy::FlushStream(); }

}  // namespace gradus::cpu
#endif
