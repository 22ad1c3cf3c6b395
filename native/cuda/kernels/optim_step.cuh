// What all optimizer steps have in common: whether they happen, their number, and what is done to gradients.
#pragma once

#include "lists.cuh"
#include "optim.h"

namespace gradus::cuda {

__device__ inline bool isSkipped(const OptimStep& a) {
  return hasFailed(a.failure) || (a.foundInf != nullptr && *a.foundInf != 0);
}

// Number of the update that a parameter is about to have.
__device__ inline double numberOf(const OptimStep& a, int i, double counted) {
  const float* step = a.tensors[i].step;
  return step == nullptr ? counted : static_cast<double>(*step) + 1;
}

// What becomes of a gradient as it is read: two products and not one with the product of the factors, so that the bits
// are those of unscaling and clipping it in memory.
template <class C>
struct Incoming {
  C unscale = 1, clip = 1;

  __device__ explicit Incoming(const OptimStep& a) {
    // both factors are float32, as PyTorch computes them
    if (a.scale != nullptr) unscale = static_cast<C>(static_cast<float>(1.0 / static_cast<double>(*a.scale)));
    if (a.norm == nullptr) return;
    const float factor = __fdiv_rn(static_cast<float>(a.maxNorm), *a.norm + 1e-6f);
    if (!(factor >= 1)) clip = static_cast<C>(factor);  // a NaN norm makes all of the update NaN
  }
};

template <class C, int kWidth>
__device__ void read(void* data, int dtype, unsigned long long at, int count, bool whole, C (&x)[kWidth]) {
  visitType<C>(data, dtype, at, [&](auto* from) {
    if (whole)
      loadRun(from, x);
    else
      loadSome(from, count, x);
  });
}

template <class C, int kWidth>
__device__ void write(void* data, int dtype, unsigned long long at, int count, bool whole, const C (&x)[kWidth]) {
  visitType<C>(data, dtype, at, [&](auto* to) {
    if (whole)
      storeRun(to, x);
    else
      storeSome(to, count, x);
  });
}

}  // namespace gradus::cuda
