// Gradients of layer norm and root-mean-square norm, in one reading of g and x:
//   xhat = (x - mean) rstd, gw = g weight
//   dx = rstd (gw - mean(gw) - xhat mean(gw xhat)),  dweight = sum over rows of g xhat,  dbias = sum over rows of g
// (rms norm: mean = 0 and the mean(gw) term falls away). A block goes through the rows of its part. A thread always has
// the same columns, so it adds up their dweight and dbias by itself: in registers, or, where rows are too long, in the
// part's row of scratch memory. How rows fall into parts depends on their number alone, and parts are added in order.
//
//   gradus_norm_backward_<layer|rms>_<dtype>_<packs>(NormBackward): a block of 32 to 256 threads a part; `packs` of a
//     row, 1 or 4, are in each thread's registers. dtype: float32, float64, float16, bfloat16
//   gradus_norm_backward_<layer|rms>_<dtype>_any(NormBackward): the same for rows of any length and alignment
//   gradus_norm_backward_parts_<f32|f64>(NormParts): a thread a column of a parameter, or 128 bits of
//     neighbouring ones; blocks of 32, so that few columns reach many multiprocessors
#include "any_runs.cuh"
#include "norm.h"
#include "rows.cuh"

namespace gradus::cuda {
namespace {

template <class C>
struct Two {
  C sum, dot;
};
template <class C>
__device__ Two<C> fromLane(Two<C> value, int lane) {
  return {cuda::fromLane(value.sum, lane), cuda::fromLane(value.dot, lane)};
}

// What is the same for all elements of a row.
template <bool kCentered, class C>
struct RowOf {
  C center = 0, rstd, scale = 1;
  C a = 0, b = 0;  // dx = rstd (gw - a - (x - center) b)

  __device__ RowOf(const NormBackward& of, long long r) : rstd(static_cast<const C*>(of.rstds)[r]) {
    if (of.normalized) return;
    scale = rstd;
    if constexpr (kCentered) center = static_cast<const C*>(of.means)[r];
  }
  __device__ C hat(C x) const { return (x - center) * scale; }
  __device__ void finish(const Two<C>& total, C width) {
    if constexpr (kCentered) a = total.sum / width;
    b = total.dot / width * scale;
  }
  __device__ C gradient(C gw, C x) const { return rstd * (gw - a - (x - center) * b); }
};

template <class C, int kWidth>
__device__ void weighted(C (&g)[kWidth], const NormOperand& weight, long long pack) {
  if (weight.data == nullptr) return;
  C w[kWidth];
  loadRun(weight.data, weight.dtype, pack * kWidth, w);
#pragma unroll
  for (int k = 0; k < kWidth; ++k) g[k] *= w[k];
}

template <bool kCentered, class T, int kWidth, class C>
__device__ void writePack(const NormBackward& a, const RowOf<kCentered, C>& row, T* dx, long long pack,
                          const C (&gw)[kWidth], const C (&x)[kWidth]) {
  C made[kWidth] = {};
  if (a.accumulate) loadRun(dx + pack * kWidth, made);
#pragma unroll
  for (int k = 0; k < kWidth; ++k) made[k] += row.gradient(gw[k], x[k]);
  storeRun(dx + pack * kWidth, made);
}

// kHeld packs of a row in each thread's registers; 0: none, and sums in scratch memory.
template <bool kCentered, class T, int kWidth, int kHeld>
__device__ void backwardOf(const NormBackward& a) {
  using C = Compute<T>;
  constexpr int kPacks = kHeld > 0 ? kHeld : 1;
  const Group group(blockDim.x);
  const long long packs = a.width / kWidth, begin = blockIdx.x * a.rowsPerPart;
  const long long end = begin + a.rowsPerPart < a.rows ? begin + a.rowsPerPart : a.rows;
  C* dweight = a.dweight ? static_cast<C*>(a.dweight) + blockIdx.x * a.width : nullptr;
  C* dbias = a.dbias ? static_cast<C*>(a.dbias) + blockIdx.x * a.width : nullptr;
  C weightSums[kPacks][kWidth] = {}, biasSums[kPacks][kWidth] = {};
  for (long long r = begin; r < end; ++r) {
    RowOf<kCentered, C> row(a, r);
    Two<C> total{0, 0};
    C g[kWidth], x[kWidth];
    const auto read = [&](long long i) {
      loadRun(static_cast<const T*>(a.g) + (r * packs + i) * kWidth, g);
      loadRun(a.x.data, a.x.dtype, (r * packs + i) * kWidth, x);
    };
    const auto add = [&](long long i, C(&toWeight)[kWidth], C(&toBias)[kWidth]) {
#pragma unroll
      for (int k = 0; k < kWidth; ++k) {
        toWeight[k] += g[k] * row.hat(x[k]);
        if constexpr (kCentered) toBias[k] += g[k];
      }
      weighted(g, a.weight, i);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) {
        total.sum += g[k];
        total.dot += g[k] * row.hat(x[k]);
      }
    };
    T* dx = static_cast<T*>(a.dx) + r * a.width;
    const auto together = [](const Two<C>& p, const Two<C>& q) { return Two<C>{p.sum + q.sum, p.dot + q.dot}; };
    if constexpr (kHeld > 0) {
      C grads[kHeld][kWidth], sources[kHeld][kWidth];
#pragma unroll
      for (int h = 0; h < kHeld; ++h) {
        const long long i = group.lane + h * group.size;
        if (i >= packs) continue;
        read(i);
        add(i, weightSums[h], biasSums[h]);
#pragma unroll
        for (int k = 0; k < kWidth; ++k) {
          grads[h][k] = g[k];
          sources[h][k] = x[k];
        }
      }
      row.finish(group.reduce(total, together), C(a.width));
#pragma unroll
      for (int h = 0; h < kHeld; ++h) {
        const long long i = group.lane + h * group.size;
        if (i < packs) writePack<kCentered, T, kWidth>(a, row, dx, i, grads[h], sources[h]);
      }
    } else {
      for (long long i = group.lane; i < packs; i += group.size) {
        C toWeight[kWidth] = {}, toBias[kWidth] = {};
        read(i);
        if (r > begin && dweight) loadRun(dweight + i * kWidth, toWeight);
        if (r > begin && dbias) loadRun(dbias + i * kWidth, toBias);
        add(i, toWeight, toBias);
        if (dweight) storeRun(dweight + i * kWidth, toWeight);
        if (dbias) storeRun(dbias + i * kWidth, toBias);
      }
      row.finish(group.reduce(total, together), C(a.width));
      for (long long i = group.lane; i < packs; i += group.size) {
        read(i);
        weighted(g, a.weight, i);
        writePack<kCentered, T, kWidth>(a, row, dx, i, g, x);
      }
    }
  }
  if constexpr (kHeld > 0) {
#pragma unroll
    for (int h = 0; h < kHeld; ++h) {
      const long long i = group.lane + h * group.size;
      if (i >= packs) continue;
      if (dweight) storeRun(dweight + i * kWidth, weightSums[h]);
      if (dbias) storeRun(dbias + i * kWidth, biasSums[h]);
    }
  }
}

template <bool kCentered, class T>
__device__ void backwardAny(const NormBackward& a) {
  if (a.packed)
    backwardOf<kCentered, T, kWide<T>, 0>(a);
  else
    backwardOf<kCentered, T, 1, 0>(a);
}

template <class C, int kWidth>
__device__ void addRuns(const NormParts& a) {
  const long long runs = a.width / kWidth;
  for (long long i = blockIdx.x * 32ll + threadIdx.x; i < a.parameters * runs; i += gridDim.x * 32ll) {
    const bool second = i >= runs;  // no index: the arguments are read at fixed places
    const long long c = (second ? i - runs : i) * kWidth;
    const C* parts = static_cast<const C*>(second ? a.parts[1] : a.parts[0]) + c;
    C sums[kWidth] = {};
#pragma unroll 8
    for (long long p = 0; p < a.count; ++p) {
      C x[kWidth];
      loadRun(parts + p * a.width, x);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) sums[k] += x[k];
    }
    const int dtype = second ? a.dtypes[1] : a.dtypes[0];
    storeAny(static_cast<char*>(second ? a.out[1] : a.out[0]) + (c << itemShift(dtype)), dtype, sums);
  }
}

template <class C>
__device__ void addParts(const NormParts& a) {
  if (a.packed)
    addRuns<C, kWide<C>>(a);
  else
    addRuns<C, 1>(a);
}

}  // namespace

#define GRADUS_NORM(name, threads, body, Arguments)                      \
  extern "C" __global__ void __launch_bounds__(threads, 1)               \
      gradus_norm_backward_##name(const __grid_constant__ Arguments a) { \
    body(a);                                                             \
  }
#define GRADUS_NORM_BACKWARD(form, isCentered, dtype, T)                                       \
  GRADUS_NORM(form##_##dtype##_1, 256, (backwardOf<isCentered, T, kWide<T>, 1>), NormBackward) \
  GRADUS_NORM(form##_##dtype##_4, 256, (backwardOf<isCentered, T, kWide<T>, 4>), NormBackward) \
  GRADUS_NORM(form##_##dtype##_any, 256, (backwardAny<isCentered, T>), NormBackward)
#define GRADUS_NORM_BOTH(dtype, T)            \
  GRADUS_NORM_BACKWARD(layer, true, dtype, T) \
  GRADUS_NORM_BACKWARD(rms, false, dtype, T)

GRADUS_NORM_BOTH(float32, float)
GRADUS_NORM_BOTH(float64, double)
GRADUS_NORM_BOTH(float16, __half)
GRADUS_NORM_BOTH(bfloat16, __nv_bfloat16)
GRADUS_NORM(parts_f32, 32, addParts<float>, NormParts)
GRADUS_NORM(parts_f64, 32, addParts<double>, NormParts)

}  // namespace gradus::cuda
