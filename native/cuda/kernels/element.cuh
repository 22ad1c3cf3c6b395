// Element types in memory and the type that kernels compute in: 16-bit floats load to float32 and round once.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "../../core/dtype.h"
#include "failure_word.h"

namespace gradus::cuda {

using Int64 = long long;

constexpr unsigned kAllLanes = 0xffffffff;

__device__ inline float widen(float x) { return x; }
__device__ inline float widen(__half x) { return __half2float(x); }
__device__ inline float widen(__nv_bfloat16 x) { return __bfloat162float(x); }

template <class T>
__device__ T narrow(float x);
template <>
__device__ inline float narrow<float>(float x) {
  return x;
}
template <>
__device__ inline __half narrow<__half>(float x) {
  return __float2half_rn(x);
}
template <>
__device__ inline __nv_bfloat16 narrow<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}

// Saturates, so that a conversion of any float is defined; NaN becomes 0.
__device__ inline Int64 toInteger(float x) { return x != x ? 0 : __float2ll_rz(x); }
__device__ inline Int64 toInteger(double x) { return x != x ? 0 : __double2ll_rz(x); }
__device__ inline Int64 toInteger(Int64 x) { return x; }

// Bytes of an element of a floating dtype, as a shift.
__device__ inline int itemShift(int dtype) {
  const DType type = static_cast<DType>(dtype);
  return type == DType::kFloat32 ? 2 : type == DType::kFloat64 ? 3 : 1;
}

template <class C>
__device__ C load(const char* at, int dtype) {
  switch (static_cast<DType>(dtype)) {
    case DType::kFloat64:
      return static_cast<C>(*reinterpret_cast<const double*>(at));
    case DType::kFloat16:
      return static_cast<C>(widen(*reinterpret_cast<const __half*>(at)));
    case DType::kBFloat16:
      return static_cast<C>(widen(*reinterpret_cast<const __nv_bfloat16*>(at)));
    case DType::kInt64:
      return static_cast<C>(*reinterpret_cast<const Int64*>(at));
    case DType::kInt32:
      return static_cast<C>(*reinterpret_cast<const int*>(at));
    case DType::kUint8:
      return static_cast<C>(*reinterpret_cast<const unsigned char*>(at));
    case DType::kBool:
      return static_cast<C>(*reinterpret_cast<const unsigned char*>(at) != 0);
    default:
      return static_cast<C>(*reinterpret_cast<const float*>(at));
  }
}

template <class C>
__device__ void store(char* at, int dtype, C x) {
  switch (static_cast<DType>(dtype)) {
    case DType::kFloat64:
      *reinterpret_cast<double*>(at) = static_cast<double>(x);
      return;
    case DType::kFloat16:
      *reinterpret_cast<__half*>(at) = narrow<__half>(static_cast<float>(x));
      return;
    case DType::kBFloat16:
      *reinterpret_cast<__nv_bfloat16*>(at) = narrow<__nv_bfloat16>(static_cast<float>(x));
      return;
    case DType::kInt64:
      *reinterpret_cast<Int64*>(at) = toInteger(x);
      return;
    case DType::kInt32:
      *reinterpret_cast<int*>(at) = static_cast<int>(toInteger(x));
      return;
    case DType::kUint8:
      *reinterpret_cast<unsigned char*>(at) = static_cast<unsigned char>(toInteger(x));
      return;
    case DType::kBool:
      *reinterpret_cast<unsigned char*>(at) = x != 0;
      return;
    default:
      *reinterpret_cast<float*>(at) = static_cast<float>(x);
      return;
  }
}

// Keeps the failure of the device's first operation that has one, and of what that finds the first place: which it is
// does not depend on the order of threads. For blocks of one dim.
__device__ inline void report(const FailureSlot& slot, FailureKind kind, Int64 place, Int64 value) {
  FailureWord* word = slot.word;
  const unsigned first = atomicCAS(&word->serial, 0u, slot.serial);
  if (first != 0 && first != slot.serial) return;
  const auto order = ~static_cast<unsigned long long>(place);
  // One lane after the other: of two that wait for the lock, the one that has it might never get on.
  const unsigned all = __activemask();
  for (unsigned lanes = all; lanes != 0; lanes &= lanes - 1) {
    if (threadIdx.x % 32 == __ffs(lanes) - 1 && atomicMax(&word->order, 0ull) < order) {
      while (atomicCAS(&word->lock, 0u, 1u) != 0) {
      }
      __threadfence();
      if (atomicMax(&word->order, order) < order) {
        word->kind = kind;
        word->value = value;
      }
      __threadfence();
      atomicExch(&word->lock, 0u);
    }
    __syncwarp(all);
  }
}

}  // namespace gradus::cuda
