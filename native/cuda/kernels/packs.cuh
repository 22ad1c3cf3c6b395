// Runs of elements in registers: loaded and stored 128 bits at a time where memory allows, in any floating dtype.
#pragma once

#include "element.cuh"

namespace gradus::cuda {

__device__ inline double widen(double x) { return x; }

// What elements of a dtype are computed in.
template <class T>
struct ComputeOf {
  using Type = float;
};
template <>
struct ComputeOf<double> {
  using Type = double;
};
template <class T>
using Compute = typename ComputeOf<T>::Type;

template <class T, class C>
__device__ T narrowFrom(C x) {
  if constexpr (sizeof(T) == sizeof(C))
    return x;
  else
    return narrow<T>(x);
}

// Elements of 128 bits.
template <class T>
constexpr int kWide = 16 / sizeof(T);

template <class T, int kCount>
struct alignas(kCount * sizeof(T)) Pack {
  T lanes[kCount];

  __device__ void from(const T* at) { *this = *reinterpret_cast<const Pack*>(at); }
  __device__ void to(T* at) const { *reinterpret_cast<Pack*>(at) = *this; }
  // The same, of 128 bits in global memory, where the compiler would take the store apart.
  __device__ void wholeTo(T* at) const {
    static_assert(sizeof(Pack) == 16);
    const uint4& words = reinterpret_cast<const uint4&>(*this);
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(at)), "r"(words.x),
                 "r"(words.y), "r"(words.z), "r"(words.w)
                 : "memory");
  }
};

template <class T, int kWidth>
constexpr int kStepOf = kWidth < kWide<T> ? kWidth : kWide<T>;

// All of a run, from an address that is a multiple of 16 bytes or of the run's length.
template <class T, int kWidth, class C>
__device__ void loadRun(const T* from, C (&to)[kWidth]) {
  constexpr int kStep = kStepOf<T, kWidth>;
#pragma unroll
  for (int i = 0; i < kWidth; i += kStep) {
    Pack<T, kStep> part;
    part.from(from + i);
#pragma unroll
    for (int k = 0; k < kStep; ++k) to[i + k] = static_cast<C>(widen(part.lanes[k]));
  }
}

template <class T, int kWidth, class C>
__device__ void storeRun(T* to, const C (&from)[kWidth]) {
  constexpr int kStep = kStepOf<T, kWidth>;
#pragma unroll
  for (int i = 0; i < kWidth; i += kStep) {
    Pack<T, kStep> part;
#pragma unroll
    for (int k = 0; k < kStep; ++k) part.lanes[k] = narrowFrom<T>(from[i + k]);
    if constexpr (kWidth > 8 && kStep == kWide<T>)
      part.wholeTo(to + i);
    else
      part.to(to + i);
  }
}

// Element `lane` of a run, and a new one in its place. Chosen and not indexed: runs stay in registers, also in a loop
// over lanes that is not unrolled, because its body is long.
template <int kWidth, class C>
__device__ C laneOf(const C (&run)[kWidth], int lane) {
  C value = run[0];
#pragma unroll
  for (int k = 1; k < kWidth; ++k) value = lane == k ? run[k] : value;
  return value;
}

template <int kWidth, class C>
__device__ void setLane(C (&run)[kWidth], int lane, C value) {
#pragma unroll
  for (int k = 0; k < kWidth; ++k) run[k] = lane == k ? value : run[k];
}

// The first `count` of a run that may stand anywhere.
template <class T, int kWidth, class C>
__device__ void loadSome(const T* from, int count, C (&to)[kWidth]) {
#pragma unroll
  for (int i = 0; i < kWidth; ++i) to[i] = i < count ? static_cast<C>(widen(from[i])) : C(0);
}

template <class T, int kWidth, class C>
__device__ void storeSome(T* to, int count, const C (&from)[kWidth]) {
  if constexpr (kWidth > 8) {  // many stores that are rarely made
#pragma unroll 1
    for (int i = 0; i < count; ++i) to[i] = narrowFrom<T>(laneOf(from, i));
  } else {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      if (i < count) to[i] = narrowFrom<T>(from[i]);
    }
  }
}

// body(a pointer to element `at` in the dtype's own type): float64 goes with float64 alone.
template <class C, class Body>
__device__ void visitType(void* data, int dtype, unsigned long long at, const Body& body) {
  if constexpr (sizeof(C) == 8) {
    body(static_cast<double*>(data) + at);
  } else {
    switch (static_cast<DType>(dtype)) {
      case DType::kFloat16:
        return body(static_cast<__half*>(data) + at);
      case DType::kBFloat16:
        return body(static_cast<__nv_bfloat16*>(data) + at);
      default:
        return body(static_cast<float*>(data) + at);
    }
  }
}

// All of a run that begins at element `at` of a dtype that is known when the kernel runs.
template <class C, int kWidth>
__device__ void loadRun(const void* data, int dtype, unsigned long long at, C (&to)[kWidth]) {
  visitType<C>(const_cast<void*>(data), dtype, at, [&](const auto* from) { loadRun(from, to); });
}

template <class C, int kWidth>
__device__ void storeRun(void* data, int dtype, unsigned long long at, const C (&from)[kWidth]) {
  visitType<C>(data, dtype, at, [&](auto* to) { storeRun(to, from); });
}

}  // namespace gradus::cuda
