// Pointwise operators on contiguous operands of one dtype: what a training step is made of. A thread handles vectors of
// 128 bits, so that every warp moves whole lines; arithmetic is in float32.
//
//   gradus_pointwise_<formula>_<float32|float16|bfloat16>(PointwiseDense)
//   blocks of 256 threads; one vector a thread and round of a grid-stride loop; the last count mod lanes elements one
//   a thread. Comparisons write bools.
#include "formulas.cuh"
#include "packs.cuh"
#include "pointwise.h"

namespace gradus::cuda {
namespace {

template <class T>
__device__ T result(float y) {
  return narrow<T>(y);
}
template <>
__device__ bool result<bool>(float y) {
  return y != 0;
}

// T: of the operands; R: of the result.
template <class T, class R, class Formula, int kArity>
__device__ void dense(const PointwiseDense& a) {
  constexpr int kLanes = kWide<T>;
  const auto apply = [&](float x, float y, float z) {
    if constexpr (kArity == 1) {
      return result<R>(Formula::of(x, a.p, a.q));
    } else {
      return result<R>(Formula::of(x, y, z, a.p, a.q));
    }
  };
  const unsigned long long step = static_cast<unsigned long long>(gridDim.x) * blockDim.x;
  const unsigned long long first = static_cast<unsigned long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  const unsigned long long vectors = a.count / kLanes;
  for (unsigned long long i = first; i < vectors; i += step) {
    float x[3][kLanes];
#pragma unroll
    for (int k = 0; k < kArity; ++k) {
      if (a.in[k] == nullptr) {
#pragma unroll
        for (int lane = 0; lane < kLanes; ++lane) x[k][lane] = a.numbers[k];
      } else {
        const Pack<T, kLanes> loaded = static_cast<const Pack<T, kLanes>*>(a.in[k])[i];
#pragma unroll
        for (int lane = 0; lane < kLanes; ++lane) x[k][lane] = widen(loaded.lanes[lane]);
      }
    }
    Pack<R, kLanes> y;
#pragma unroll
    for (int lane = 0; lane < kLanes; ++lane) {
      y.lanes[lane] = apply(x[0][lane], kArity > 1 ? x[1][lane] : 0, kArity > 2 ? x[2][lane] : 0);
    }
    static_cast<Pack<R, kLanes>*>(a.out)[i] = y;
  }
  const unsigned long long at = vectors * kLanes + first;
  if (at < a.count) {
    float x[3] = {};
#pragma unroll
    for (int k = 0; k < kArity; ++k) {
      x[k] = a.in[k] == nullptr ? a.numbers[k] : widen(static_cast<const T*>(a.in[k])[at]);
    }
    static_cast<R*>(a.out)[at] = apply(x[0], x[1], x[2]);
  }
}

}  // namespace

#define GRADUS_DENSE(name, dtype, T, R, arity)                                                            \
  extern "C" __global__ void __launch_bounds__(256) gradus_pointwise_##name##_##dtype(PointwiseDense a) { \
    dense<T, R, name##Formula, arity>(a);                                                                 \
  }
#define GRADUS_DTYPES(name, arity)                   \
  GRADUS_DENSE(name, float32, float, float, arity)   \
  GRADUS_DENSE(name, float16, __half, __half, arity) \
  GRADUS_DENSE(name, bfloat16, __nv_bfloat16, __nv_bfloat16, arity)
#define GRADUS_TRUTH(name)                     \
  GRADUS_DENSE(name, float32, float, bool, 2)  \
  GRADUS_DENSE(name, float16, __half, bool, 2) \
  GRADUS_DENSE(name, bfloat16, __nv_bfloat16, bool, 2)
#define GRADUS_ONE(name) GRADUS_DTYPES(name, 1)
#define GRADUS_TWO(name) GRADUS_DTYPES(name, 2)
#define GRADUS_THREE(name) GRADUS_DTYPES(name, 3)

GRADUS_DENSE_UNARY(GRADUS_ONE)
GRADUS_DENSE_BINARY(GRADUS_TWO)
GRADUS_DENSE_TRUTH(GRADUS_TRUTH)
GRADUS_DENSE_TERNARY(GRADUS_THREE)

}  // namespace gradus::cuda
