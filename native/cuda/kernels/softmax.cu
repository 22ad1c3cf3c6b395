// Softmax and log-softmax over one dim, and their gradients. Memory traffic is the cost: a row that fits the registers
// of the threads that share it is read once, a longer one twice. Where other dims lie inside the reduced one a thread
// has a column, and its neighbours the neighbouring columns.
//
//   gradus_softmax_<softmax|logSoftmax><|Backward>_<dtype>(SoftmaxRows): inner is 1; `threads` threads a row
//   gradus_softmax_columns_<softmax|logSoftmax><|Backward>_<dtype>(SoftmaxRows): a thread a column
//   blocks of 256 threads, or of `threads` where a row has more than a warp of them, which stride over rows or columns by
//   the grid; dtype: float32, float64, float16, bfloat16
#include "online.cuh"
#include "softmax.h"

namespace gradus::cuda {
namespace {

// (x - max) - log(sum): x - (max + log(sum)) would round away the digits of a small difference of large logits.
template <bool kLog, class C>
__device__ C outcome(C x, const Online<C>& row, C last) {
  return kLog ? x - row.maximum - last : exp(x - row.maximum) * last;
}
template <bool kLog, class C>
__device__ C lastOf(C sum) {
  return kLog ? log(sum) : 1 / sum;
}

template <bool kLog, class T, int kWidth>
__device__ void forwardRow(const T* x, T* y, long long size, bool active, const Group& group) {
  using C = Compute<T>;
  constexpr int kHeld = kHeldPacks<kWidth>;
  const long long packs = active ? size / kWidth : 0;
  Online<C> row = Online<C>::empty();
  if (size > static_cast<long long>(kHeld) * kWidth * group.size) {
    for (long long i = group.lane; i < packs; i += group.size) {
      C lanes[kWidth];
      loadRun(x + i * kWidth, lanes);
      row.add(lanes);
    }
    row = group.reduce(row, [](const Online<C>& a, const Online<C>& b) { return merged(a, b); });
    const C last = lastOf<kLog>(row.sum);
    for (long long i = group.lane; i < packs; i += group.size) {
      C lanes[kWidth];
      loadRun(x + i * kWidth, lanes);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) lanes[k] = outcome<kLog>(lanes[k], row, last);
      storeRun(y + i * kWidth, lanes);
    }
    return;
  }
  C held[kHeld][kWidth];
#pragma unroll
  for (int h = 0; h < kHeld; ++h) {
    const long long i = group.lane + h * group.size;
    if (i < packs) {
      loadRun(x + i * kWidth, held[h]);
    } else {
#pragma unroll
      for (int k = 0; k < kWidth; ++k) held[h][k] = -C(INFINITY);
    }
#pragma unroll
    for (int k = 0; k < kWidth; ++k) row.maximum = held[h][k] > row.maximum ? held[h][k] : row.maximum;
  }
  row.maximum = group.reduce(row.maximum, [](C a, C b) { return a > b ? a : b; });
#pragma unroll
  for (int h = 0; h < kHeld; ++h) {
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      const C e = exp(held[h][k] - row.maximum);
      if (group.lane + h * group.size < packs) row.sum += e;
      held[h][k] = kLog ? held[h][k] - row.maximum : e;
    }
  }
  const C last = lastOf<kLog>(group.sum(row.sum));
#pragma unroll
  for (int h = 0; h < kHeld; ++h) {
    const long long i = group.lane + h * group.size;
    if (i >= packs) continue;
#pragma unroll
    for (int k = 0; k < kWidth; ++k) held[h][k] = kLog ? held[h][k] - last : held[h][k] * last;
    storeRun(y + i * kWidth, held[h]);
  }
}

// softmax: dx = y (g - sum(g y));  log-softmax: dx = g - e^y sum(g)
template <bool kLog, class C>
__device__ C shareOf(C g, C y) {
  return kLog ? g : g * y;
}
template <bool kLog, class C>
__device__ C gradientOf(C g, C y, C total) {
  return kLog ? g - exp(y) * total : y * (g - total);
}

template <bool kLog, class T, int kWidth>
__device__ void backwardRow(const T* g, const T* y, T* dx, long long size, bool active, const Group& group) {
  using C = Compute<T>;
  constexpr int kHeld = kHeldPacks<kWidth>;
  const long long packs = active ? size / kWidth : 0;
  const bool isHeld = size <= static_cast<long long>(kHeld) * kWidth * group.size;
  Pack<T, kWidth> grads[kHeld], results[kHeld];
  C sum = 0;
  const auto add = [&](const Pack<T, kWidth>& grad, const Pack<T, kWidth>& result) {
#pragma unroll
    for (int k = 0; k < kWidth; ++k) sum += shareOf<kLog>(C(widen(grad.lanes[k])), C(widen(result.lanes[k])));
  };
  if (isHeld) {
#pragma unroll
    for (int h = 0; h < kHeld; ++h) {
      const long long i = group.lane + h * group.size;
      if (i >= packs) continue;
      grads[h].from(g + i * kWidth);
      results[h].from(y + i * kWidth);
      add(grads[h], results[h]);
    }
  } else {
    for (long long i = group.lane; i < packs; i += group.size) {
      grads[0].from(g + i * kWidth);
      results[0].from(y + i * kWidth);
      add(grads[0], results[0]);
    }
  }
  const C total = group.sum(sum);
  const auto write = [&](long long i, Pack<T, kWidth> grad, const Pack<T, kWidth>& result) {
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      grad.lanes[k] = narrowFrom<T>(gradientOf<kLog>(C(widen(grad.lanes[k])), C(widen(result.lanes[k])), total));
    }
    grad.to(dx + i * kWidth);
  };
  if (isHeld) {
#pragma unroll
    for (int h = 0; h < kHeld; ++h) {
      const long long i = group.lane + h * group.size;
      if (i < packs) write(i, grads[h], results[h]);
    }
  } else {
    for (long long i = group.lane; i < packs; i += group.size) {
      grads[0].from(g + i * kWidth);
      results[0].from(y + i * kWidth);
      write(i, grads[0], results[0]);
    }
  }
}

template <bool kLog, bool kBackward, class T, int kWidth>
__device__ void rowsOf(const SoftmaxRows& a) {
  const Group group(a.threads);
  const long long step = gridDim.x * static_cast<long long>(group.count);
  for (long long base = blockIdx.x * static_cast<long long>(group.count); base < a.outer; base += step) {
    const bool active = base + group.first < a.outer;
    const long long at = active ? (base + group.first) * a.size : 0;
    const T* in = static_cast<const T*>(a.in) + at;
    T* out = static_cast<T*>(a.out) + at;
    if constexpr (kBackward) {
      backwardRow<kLog, T, kWidth>(in, static_cast<const T*>(a.result) + at, out, a.size, active, group);
    } else {
      forwardRow<kLog, T, kWidth>(in, out, a.size, active, group);
    }
  }
}

template <bool kLog, bool kBackward, class T>
__device__ void rows(const SoftmaxRows& a) {
  if (a.packed)
    rowsOf<kLog, kBackward, T, kWide<T>>(a);
  else
    rowsOf<kLog, kBackward, T, 1>(a);
}

template <bool kLog, bool kBackward, class T>
__device__ void columns(const SoftmaxRows& a) {
  using C = Compute<T>;
  const T* in = static_cast<const T*>(a.in);
  const T* result = static_cast<const T*>(a.result);
  T* out = static_cast<T*>(a.out);
  const long long count = a.outer * a.inner, step = gridDim.x * static_cast<long long>(blockDim.x);
  for (long long c = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x; c < count; c += step) {
    const long long outer = c / a.inner, first = outer * a.size * a.inner + (c - outer * a.inner);
    const long long end = first + a.size * a.inner;
    if constexpr (kBackward) {
      C total = 0;
      for (long long i = first; i < end; i += a.inner) total += shareOf<kLog>(C(widen(in[i])), C(widen(result[i])));
      for (long long i = first; i < end; i += a.inner) {
        out[i] = narrowFrom<T>(gradientOf<kLog>(C(widen(in[i])), C(widen(result[i])), total));
      }
    } else {
      Online<C> row = Online<C>::empty();
      for (long long i = first; i < end; i += a.inner) {
        const C x[1] = {widen(in[i])};
        row.add(x);
      }
      const C last = lastOf<kLog>(row.sum);
      for (long long i = first; i < end; i += a.inner)
        out[i] = narrowFrom<T>(outcome<kLog>(C(widen(in[i])), row, last));
    }
  }
}

}  // namespace

#define GRADUS_SOFTMAX_OF(name, form, isLog, isBackward, dtype, T)             \
  extern "C" __global__ void __launch_bounds__(256, 2)                         \
      gradus_softmax_##name##_##dtype(const __grid_constant__ SoftmaxRows a) { \
    form<isLog, isBackward, T>(a);                                             \
  }
#define GRADUS_SOFTMAX(dtype, T)                                             \
  GRADUS_SOFTMAX_OF(softmax, rows, false, false, dtype, T)                   \
  GRADUS_SOFTMAX_OF(softmaxBackward, rows, false, true, dtype, T)            \
  GRADUS_SOFTMAX_OF(logSoftmax, rows, true, false, dtype, T)                 \
  GRADUS_SOFTMAX_OF(logSoftmaxBackward, rows, true, true, dtype, T)          \
  GRADUS_SOFTMAX_OF(columns_softmax, columns, false, false, dtype, T)        \
  GRADUS_SOFTMAX_OF(columns_softmaxBackward, columns, false, true, dtype, T) \
  GRADUS_SOFTMAX_OF(columns_logSoftmax, columns, true, false, dtype, T)      \
  GRADUS_SOFTMAX_OF(columns_logSoftmaxBackward, columns, true, true, dtype, T)

GRADUS_SOFTMAX(float32, float)
GRADUS_SOFTMAX(float64, double)
GRADUS_SOFTMAX(float16, __half)
GRADUS_SOFTMAX(bfloat16, __nv_bfloat16)

}  // namespace gradus::cuda
