// Layer norm and root-mean-square norm: forward, and y = xhat weight + bias.
//
// A row that fits the registers of its threads is read once: the mean first, then the sum of squared differences from
// it, which stays exact where E[x^2] - E[x]^2 would cancel. Longer rows are read three times. Ba et al. 2016,
// arXiv:1607.06450; Zhang & Sennrich 2019, arXiv:1910.07467.
//
//   gradus_norm_<layer|rms>_<float32|float64|float16|bfloat16>(NormForward): `threads` threads a row
//   gradus_norm_scaleShift_<f32|f64>(NormScaleShift): as above, in the type that is computed in
//   blocks of 256 threads, or of `threads` where these are more than a warp; they stride over rows by the grid
#include "norm.h"
#include "rows.cuh"

namespace gradus::cuda {
namespace {

template <class C, int kWidth>
__device__ void shiftScaled(C (&v)[kWidth], const NormOperand& weight, const NormOperand& bias, long long pack) {
  C parameter[kWidth];
  if (weight.data) {
    loadRun(weight.data, weight.dtype, pack * kWidth, parameter);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) v[k] *= parameter[k];
  }
  if (bias.data) {
    loadRun(bias.data, bias.dtype, pack * kWidth, parameter);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) v[k] += parameter[k];
  }
}

// The packs of a row, which the thread holds where they fit; else they are read again for each pass.
template <class T, int kWidth>
struct HeldRow {
  static constexpr int kHeld = kHeldPacks<kWidth>;
  using C = Compute<T>;

  const T* row;
  long long packs;
  int lane, size;
  bool isHeld;
  Pack<T, kWidth> held[kHeld];

  __device__ HeldRow(const T* from, long long width, bool active, const Group& group)
      : row(from),
        packs(active ? width / kWidth : 0),
        lane(group.lane),
        size(group.size),
        isHeld(width <= static_cast<long long>(kHeld) * kWidth * group.size) {
    if (!isHeld) return;
#pragma unroll
    for (int h = 0; h < kHeld; ++h) {
      held[h] = {};  // what nobody uses is added under a predicate all the same
      if (lane + h * size < packs) held[h].from(row + (lane + h * size) * kWidth);
    }
  }

  template <class Body>
  __device__ void each(const Body& body) {
    C x[kWidth];
    const auto visit = [&](long long i, const Pack<T, kWidth>& pack) {
#pragma unroll
      for (int k = 0; k < kWidth; ++k) x[k] = widen(pack.lanes[k]);
      body(i, x);
    };
    if (isHeld) {
#pragma unroll
      for (int h = 0; h < kHeld; ++h) {
        if (lane + h * size < packs) visit(lane + h * size, held[h]);
      }
    } else {
      for (long long i = lane; i < packs; i += size) {
        held[0].from(row + i * kWidth);
        visit(i, held[0]);
      }
    }
  }
};

template <bool kCentered, class T, int kWidth>
__device__ void forwardOf(const NormForward& a) {
  using C = Compute<T>;
  const Group group(a.threads);
  const C count = C(a.width);
  const long long step = gridDim.x * static_cast<long long>(group.count);
  for (long long base = blockIdx.x * static_cast<long long>(group.count); base < a.rows; base += step) {
    const long long r = base + group.first;
    const bool active = r < a.rows;
    const long long at = active ? r * a.width : 0;
    HeldRow<T, kWidth> row(static_cast<const T*>(a.x) + at, a.width, active, group);
    C mean = 0;
    if constexpr (kCentered) {
      C sum = 0;
      row.each([&](long long, const C(&x)[kWidth]) {
#pragma unroll
        for (int k = 0; k < kWidth; ++k) sum += x[k];
      });
      mean = group.sum(sum) / count;
    }
    C squares = 0;
    row.each([&](long long, const C(&x)[kWidth]) {
#pragma unroll
      for (int k = 0; k < kWidth; ++k) squares += (x[k] - mean) * (x[k] - mean);
    });
    const C rstd = 1 / sqrt(group.sum(squares) / count + C(a.eps));
    if (active && group.lane == 0) {
      if constexpr (kCentered) static_cast<C*>(a.means)[r] = mean;
      static_cast<C*>(a.rstds)[r] = rstd;
    }
    const int itemSize = a.normalizedDType == int(DType::kFloat64)   ? 8
                         : a.normalizedDType == int(DType::kFloat32) ? 4
                                                                     : 2;
    char* normalized = static_cast<char*>(a.normalized) + at * itemSize;
    T* y = static_cast<T*>(a.y) + at;
    row.each([&](long long i, C(&x)[kWidth]) {
#pragma unroll
      for (int k = 0; k < kWidth; ++k) x[k] = (x[k] - mean) * rstd;
      if (a.normalized) storeRun(normalized, a.normalizedDType, i * kWidth, x);
      shiftScaled(x, a.weight, a.bias, i);
      storeRun(y + i * kWidth, x);
    });
  }
}

template <bool kCentered, class T>
__device__ void forward(const NormForward& a) {
  if (a.packed)
    forwardOf<kCentered, T, kWide<T>>(a);
  else
    forwardOf<kCentered, T, 1>(a);
}

template <class C, int kWidth>
__device__ void scaleShiftOf(const NormScaleShift& a) {
  const Group group(a.threads);
  const long long step = gridDim.x * static_cast<long long>(group.count), packs = a.width / kWidth;
  for (long long r = blockIdx.x * static_cast<long long>(group.count) + group.first; r < a.rows; r += step) {
    for (long long i = group.lane; i < packs; i += group.size) {
      C v[kWidth];
      loadRun(a.x.data, a.x.dtype, (r * packs + i) * kWidth, v);
      shiftScaled(v, a.weight, a.bias, i);
      storeRun(a.y, a.dtype, (r * packs + i) * kWidth, v);
    }
  }
}

// Packs of eight: 128 bits of 16-bit types, twice that of float32.
template <class C>
__device__ void scaleShift(const NormScaleShift& a) {
  if (a.packed)
    scaleShiftOf<C, sizeof(C) == 8 ? 2 : 8>(a);
  else
    scaleShiftOf<C, 1>(a);
}

}  // namespace

#define GRADUS_NORM(name, body, Arguments)                                                                       \
  extern "C" __global__ void __launch_bounds__(256, 2) gradus_norm_##name(const __grid_constant__ Arguments a) { \
    body(a);                                                                                                     \
  }
#define GRADUS_NORM_FORWARD(dtype, T)                         \
  GRADUS_NORM(layer_##dtype, (forward<true, T>), NormForward) \
  GRADUS_NORM(rms_##dtype, (forward<false, T>), NormForward)

GRADUS_NORM_FORWARD(float32, float)
GRADUS_NORM_FORWARD(float64, double)
GRADUS_NORM_FORWARD(float16, __half)
GRADUS_NORM_FORWARD(bfloat16, __nv_bfloat16)
GRADUS_NORM(scaleShift_f32, scaleShift<float>, NormScaleShift)
GRADUS_NORM(scaleShift_f64, scaleShift<double>, NormScaleShift)

}  // namespace gradus::cuda
