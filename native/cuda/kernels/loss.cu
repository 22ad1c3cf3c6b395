// Cross entropy with class targets: each direction reads the logits once, and forward keeps one number a row. The
// formulas with class weights w and smoothing e are those of native/cpu/loss.h:
//   loss = (1 - e) w_y (lse - x_y) + (e / C) (W lse - sum_c w_c x_c)
//   gradient = softmax_c ((1 - e) w_y + e W / C) - (e / C) w_c - (1 - e) w_y [c = y]
// A target that is out of range is reported, and its row passes as ignored.
//
//   gradus_loss_crossEntropy_<float32|float64|float16|bfloat16>(CrossEntropy): `threads` threads a row
//   gradus_loss_crossEntropyBackward_<dtype>(CrossEntropy): the same
//   gradus_loss_check(LossRows): reports bad targets, a thread a row
//   gradus_loss_total(LossTotal): one block; sums of rows in float64, in an order that depends on their number alone
//   blocks of 256 threads, which stride over rows by the grid
#include "loss.h"
#include "online.cuh"

namespace gradus::cuda {
namespace {

constexpr Int64 kIgnored = -1;

__device__ Int64 targetOf(const LossRows& a, long long row) {
  const Int64 y = load<Int64>(a.target.data + row * a.target.stride, a.target.dtype);
  return y == a.ignoreIndex || y < 0 || y >= a.classes ? kIgnored : y;
}

__device__ void checkTarget(const LossRows& a, long long row) {
  const Int64 y = load<Int64>(a.target.data + row * a.target.stride, a.target.dtype);
  if (y != a.ignoreIndex && (y < 0 || y >= a.classes)) report(a.failure, kTargetOutOfRange, row, y);
}

template <class C>
__device__ C at(const LossOperand& operand, long long i) {
  return load<C>(operand.data + i * operand.stride, operand.dtype);
}

template <class C>
__device__ C weightOf(const LossRows& a, long long c) {
  return a.weight.data ? at<C>(a.weight, c) : C(1);
}

template <class C>
struct RowSums {
  Online<C> exponentials;
  C weighted;
};
template <class C>
__device__ RowSums<C> fromLane(RowSums<C> value, int lane) {
  return {cuda::fromLane(value.exponentials, lane), cuda::fromLane(value.weighted, lane)};
}

template <class T, int kWidth>
__device__ void forwardOf(const CrossEntropy& a) {
  using C = Compute<T>;
  const Group group(a.threads);
  const LossRows& of = a.of;
  const long long step = gridDim.x * static_cast<long long>(group.count), packs = of.classes / kWidth;
  for (long long base = blockIdx.x * static_cast<long long>(group.count); base < of.rows; base += step) {
    const long long r = base + group.first;
    const bool active = r < of.rows;
    const T* x = static_cast<const T*>(a.logits) + (active ? r * a.rowStride : 0);
    RowSums<C> sums{Online<C>::empty(), 0};
    const Int64 y = active ? targetOf(of, r) : kIgnored;
    if (active && group.lane == 0) checkTarget(of, r);
    for (long long i = y == kIgnored ? packs : group.lane; i < packs; i += group.size) {
      C lanes[kWidth];
      loadRun(x + i * kWidth, lanes);
      sums.exponentials.add(lanes);
      if (of.smoothing == 0) continue;
#pragma unroll
      for (int k = 0; k < kWidth; ++k) sums.weighted += weightOf<C>(of, i * kWidth + k) * lanes[k];
    }
    sums = group.reduce(sums, [](const RowSums<C>& p, const RowSums<C>& q) {
      return RowSums<C>{merged(p.exponentials, q.exponentials), p.weighted + q.weighted};
    });
    if (!active || group.lane != 0) continue;
    C lse = 0;
    double loss = 0;
    if (y != kIgnored) {
      lse = sums.exponentials.maximum + log(sums.exponentials.sum);
      loss = (1 - of.smoothing) * weightOf<double>(of, y) * (double(lse) - double(widen(x[y])));
      if (of.smoothing > 0) {
        const double total = of.weight.data ? *of.weightTotal : double(of.classes);
        loss += of.smoothing / double(of.classes) * (total * lse - sums.weighted);
      }
    }
    static_cast<C*>(a.logsumexp)[r] = lse;
    a.losses[r] = loss;
  }
}

template <class T, int kWidth>
__device__ void backwardOf(const CrossEntropy& a) {
  using C = Compute<T>;
  if (a.inPlace && a.of.failure.word->serial != 0) return;
  const Group group(a.threads);
  const LossRows& of = a.of;
  const double divisor = at<double>(a.divisor, 0), soft = of.smoothing / double(of.classes);
  const double total = of.weightTotal ? *of.weightTotal : double(of.classes);
  const long long step = gridDim.x * static_cast<long long>(group.count), packs = of.classes / kWidth;
  for (long long r = blockIdx.x * static_cast<long long>(group.count) + group.first; r < of.rows; r += step) {
    const T* x = static_cast<const T*>(a.logits) + r * a.rowStride;
    T* dx = static_cast<T*>(a.gradient) + r * of.classes;
    const Int64 y = targetOf(of, r);
    if (group.lane == 0) checkTarget(of, r);
    C probability = 0, smoothing = 0, hard = 0;
    if (y != kIgnored) {
      const double incoming = at<double>(a.g, r) / divisor, own = (1 - of.smoothing) * weightOf<double>(of, y);
      probability = C(incoming * (own + soft * total));
      smoothing = C(incoming * soft);
      hard = C(incoming * own);
    }
    const C lse = static_cast<const C*>(a.logsumexp)[r];
    for (long long i = group.lane; i < packs; i += group.size) {
      C lanes[kWidth];
      if (y == kIgnored) {
#pragma unroll
        for (int k = 0; k < kWidth; ++k) lanes[k] = 0;
      } else {
        loadRun(x + i * kWidth, lanes);
#pragma unroll
        for (int k = 0; k < kWidth; ++k) {
          const long long c = i * kWidth + k;
          C gradient = probability * exp(lanes[k] - lse);
          if (smoothing != 0) gradient -= smoothing * weightOf<C>(of, c);
          lanes[k] = c == y ? gradient - hard : gradient;
        }
      }
      storeRun(dx + i * kWidth, lanes);
    }
  }
}

template <class T>
__device__ void forward(const CrossEntropy& a) {
  if (a.packed)
    forwardOf<T, kWide<T>>(a);
  else
    forwardOf<T, 1>(a);
}
template <class T>
__device__ void backward(const CrossEntropy& a) {
  if (a.packed)
    backwardOf<T, kWide<T>>(a);
  else
    backwardOf<T, 1>(a);
}

}  // namespace

#define GRADUS_LOSS(dtype, T)                                                            \
  extern "C" __global__ void __launch_bounds__(256, 2)                                   \
      gradus_loss_crossEntropy_##dtype(const __grid_constant__ CrossEntropy a) {         \
    forward<T>(a);                                                                       \
  }                                                                                      \
  extern "C" __global__ void __launch_bounds__(256, 2)                                   \
      gradus_loss_crossEntropyBackward_##dtype(const __grid_constant__ CrossEntropy a) { \
    backward<T>(a);                                                                      \
  }

GRADUS_LOSS(float32, float)
GRADUS_LOSS(float64, double)
GRADUS_LOSS(float16, __half)
GRADUS_LOSS(bfloat16, __nv_bfloat16)

extern "C" __global__ void __launch_bounds__(256) gradus_loss_check(const __grid_constant__ LossRows a) {
  for (long long r = blockIdx.x * 256ll + threadIdx.x; r < a.rows; r += gridDim.x * 256ll) checkTarget(a, r);
}

extern "C" __global__ void __launch_bounds__(256) gradus_loss_total(const __grid_constant__ LossTotal a) {
  double loss = 0, divisor = 0;
  for (long long r = threadIdx.x; r < a.of.rows; r += 256) {
    if (a.reduction == 0) {
      store(a.loss + r * a.lossStride, a.lossDType, a.losses[r]);
      continue;
    }
    loss += a.losses[r];
    const Int64 y = targetOf(a.of, r);
    if (y != kIgnored) divisor += weightOf<double>(a.of, y);
  }
  const Group block(256);
  loss = block.sum(loss);
  divisor = block.sum(divisor);
  if (threadIdx.x != 0) return;
  if (a.reduction != 1) divisor = 1;
  store(a.divisor, a.divisorDType, divisor);
  if (a.reduction != 0) store(a.loss, a.lossDType, loss / divisor);
}

}  // namespace gradus::cuda
