// Maximum and sum of exponentials of a row in one pass: the sum is scaled when a larger maximum comes (Milakov &
// Gimelshein 2018, arXiv:1805.02867).
#pragma once

#include "rows.cuh"

namespace gradus::cuda {

template <class C>
__device__ constexpr C lowestFinite() {
  if constexpr (sizeof(C) == 8)
    return C(-1.7976931348623157e308);
  else
    return C(-3.402823466e38);
}

// Starts from the lowest finite number and not from -inf: e^(-inf - lowest) is 0, e^(-inf - -inf) would be NaN. A row
// of nothing but -inf has the sum 0, one with +inf or NaN the sum NaN: so softmax is NaN, as in PyTorch.
template <class C>
struct Online {
  C maximum, sum;

  static __device__ Online empty() { return {lowestFinite<C>(), 0}; }

  // Of one pack: one exponential for the old sum, however many elements follow.
  template <int kWidth>
  __device__ void add(const C (&x)[kWidth]) {
    C top = maximum;
#pragma unroll
    for (int k = 0; k < kWidth; ++k) top = x[k] > top ? x[k] : top;
    sum *= exp(maximum - top);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) sum += exp(x[k] - top);
    maximum = top;
  }
};

template <class C>
__device__ Online<C> merged(Online<C> a, Online<C> b) {
  Online<C> both = Online<C>::empty();
  both.maximum = a.maximum > b.maximum ? a.maximum : b.maximum;
  both.sum = a.sum * exp(a.maximum - both.maximum) + b.sum * exp(b.maximum - both.maximum);
  return both;
}

template <class C>
__device__ Online<C> fromLane(Online<C> value, int lane) {
  value.maximum = fromLane(value.maximum, lane);
  value.sum = fromLane(value.sum, lane);
  return value;
}

}  // namespace gradus::cuda
