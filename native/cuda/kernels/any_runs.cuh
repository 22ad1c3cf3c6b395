// Runs of elements whose dtype, any of all, is known when the kernel runs: the switch stands around a whole run.
#pragma once

#include "packs.cuh"

namespace gradus::cuda {

template <class T, class C, int kWidth>
__device__ void loadConverted(const char* from, C (&to)[kWidth]) {
  constexpr int kStep = kStepOf<T, kWidth>;
#pragma unroll
  for (int i = 0; i < kWidth; i += kStep) {
    Pack<T, kStep> part;
    part.from(reinterpret_cast<const T*>(from) + i);
#pragma unroll
    for (int k = 0; k < kStep; ++k) {
      if constexpr (sizeof(T) == 2)
        to[i + k] = static_cast<C>(widen(part.lanes[k]));
      else
        to[i + k] = static_cast<C>(part.lanes[k]);
    }
  }
}

// All of a run of any dtype, with the values of `load`, from a boundary of 16 bytes or of the run's length.
template <class C, int kWidth>
__device__ void loadAny(const char* data, int dtype, C (&to)[kWidth]) {
  switch (static_cast<DType>(dtype)) {
    case DType::kFloat64:
      return loadConverted<double>(data, to);
    case DType::kFloat16:
      return loadConverted<__half>(data, to);
    case DType::kBFloat16:
      return loadConverted<__nv_bfloat16>(data, to);
    case DType::kInt64:
      return loadConverted<Int64>(data, to);
    case DType::kInt32:
      return loadConverted<int>(data, to);
    case DType::kUint8:
      return loadConverted<unsigned char>(data, to);
    case DType::kBool: {
      loadConverted<unsigned char>(data, to);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) to[k] = to[k] != 0 ? C(1) : C(0);
      return;
    }
    default:
      return loadConverted<float>(data, to);
  }
}

// All of a run of a dtype that computes as C, from a boundary of 16 bytes or of the run's length.
template <class C, int kWidth>
__device__ void loadComputed(const char* data, int dtype, C (&to)[kWidth]) {
  if constexpr (C(0.5) != C(0)) {
    loadRun(data, dtype, 0, to);
  } else {
    switch (static_cast<DType>(dtype)) {
      case DType::kInt64:
        return loadConverted<Int64>(data, to);
      case DType::kInt32:
        return loadConverted<int>(data, to);
      default:
        loadConverted<unsigned char>(data, to);
    }
    if (static_cast<DType>(dtype) != DType::kBool) return;
#pragma unroll
    for (int k = 0; k < kWidth; ++k) to[k] = to[k] != 0;
  }
}

// What `store` makes of a value, in T.
template <class T, class C>
__device__ T converted(C x) {
  if constexpr (sizeof(T) == 2)
    return narrow<T>(static_cast<float>(x));
  else if constexpr (T(0.5) == T(0))
    return static_cast<T>(toInteger(x));
  else
    return static_cast<T>(x);
}

template <class T, class C, int kWidth>
__device__ void storeConverted(char* to, const C (&from)[kWidth]) {
  constexpr int kStep = kStepOf<T, kWidth>;
#pragma unroll
  for (int i = 0; i < kWidth; i += kStep) {
    Pack<T, kStep> part;
#pragma unroll
    for (int k = 0; k < kStep; ++k) part.lanes[k] = converted<T>(from[i + k]);
    part.to(reinterpret_cast<T*>(to) + i);
  }
}

// All of a run into any dtype, with the values of `store`; the boundary is that of loadComputed.
template <class C, int kWidth>
__device__ void storeAny(char* to, int dtype, const C (&from)[kWidth]) {
  switch (static_cast<DType>(dtype)) {
    case DType::kFloat64:
      return storeConverted<double>(to, from);
    case DType::kFloat16:
      return storeConverted<__half>(to, from);
    case DType::kBFloat16:
      return storeConverted<__nv_bfloat16>(to, from);
    case DType::kInt64:
      return storeConverted<Int64>(to, from);
    case DType::kInt32:
      return storeConverted<int>(to, from);
    case DType::kUint8:
      return storeConverted<unsigned char>(to, from);
    case DType::kBool: {
      C truth[kWidth];
#pragma unroll
      for (int k = 0; k < kWidth; ++k) truth[k] = from[k] != 0 ? C(1) : C(0);
      return storeConverted<unsigned char>(to, truth);
    }
    default:
      return storeConverted<float>(to, from);
  }
}

__device__ inline int itemSizeOf(int dtype) {
  switch (static_cast<DType>(dtype)) {
    case DType::kFloat64:
    case DType::kInt64:
      return 8;
    case DType::kFloat16:
    case DType::kBFloat16:
      return 2;
    case DType::kUint8:
    case DType::kBool:
      return 1;
    default:
      return 4;
  }
}

}  // namespace gradus::cuda
