// Walking over a row in vectors. Include inside a kernel file that Highway compiles for every target, after simd.h.
#if defined(GRADUS_CPU_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GRADUS_CPU_ROWS_INL_H_
#undef GRADUS_CPU_ROWS_INL_H_
#else
#define GRADUS_CPU_ROWS_INL_H_
#endif

#include <hwy/cache_control.h>

#include "simd.h"

#ifndef GRADUS_INLINE_BODY
#define GRADUS_INLINE_BODY __attribute__((always_inline))  // on lambdas: [&](...) GRADUS_INLINE_BODY { ... }
#endif

HWY_BEFORE_NAMESPACE();
namespace gradus::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Vectors that hold the compute type of T.
template <class T>
using Lanes = hn::ScalableTag<Compute<T>>;

// body(first element, elements): all vectors are full but the last.
template <class D, class Body>
HWY_INLINE void forVectors(D, int64_t n, const Body& body) {
  constexpr int64_t kLanes = hn::MaxLanes(D());
  for (int64_t i = 0; i + kLanes <= n; i += kLanes) body(i, kLanes);
  // as a remainder: so the compiler, too, knows that it is less than a vector
  if (const int64_t rest = n % kLanes; rest > 0) body(n - rest, rest);
}

template <class D, class T>
HWY_INLINE vec::Of<D> loadSome(D d, const T* p, int64_t count) {
  return count == static_cast<int64_t>(hn::MaxLanes(d)) ? vec::load(d, p) : vec::loadTail(d, p, count);
}

template <class D, class T>
HWY_INLINE void storeSome(D d, vec::Of<D> v, T* p, int64_t count) {
  if (count == static_cast<int64_t>(hn::MaxLanes(d))) {
    vec::store(d, v, p);
  } else {
    vec::storeTail(d, v, p, count);
  }
}

// The lanes that a partial vector has; `otherwise` in the rest.
template <class D>
HWY_INLINE vec::Of<D> padded(D d, vec::Of<D> v, int64_t count, hn::TFromD<D> otherwise) {
  if (count == static_cast<int64_t>(hn::MaxLanes(d))) return v;
  return hn::IfThenElse(hn::FirstN(d, count), v, hn::Set(d, otherwise));
}

// Whether rows of a fresh output should be written around the caches: it is larger than what stays there until its
// reader comes, and an ordinary store first reads the line that it overwrites. Needs whole, aligned vectors.
inline bool streamsRows(const void* out, int64_t rows, int64_t width, size_t item) {
  constexpr int64_t kBeyondCaches = 8 << 20;
  const int64_t bytes = width * static_cast<int64_t>(item);
  return rows * bytes >= kBeyondCaches && (reinterpret_cast<uintptr_t>(out) | bytes) % 64 == 0;
}

// Stores a result; around the caches where `stream` says so. FlushStream() must follow before others read it.
template <class D, class T>
HWY_INLINE void putSome(D d, vec::Of<D> v, T* p, int64_t count, bool stream) {
  if constexpr (std::is_same_v<T, hn::TFromD<D>>) {
    if (stream) return hn::Stream(v, d, p);
  }
  storeSome(d, v, p, count);
}

}  // namespace gradus::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
