// linear + cross entropy without handing out the logits: what happens between the products of a chunk. With class
// weights w, smoothing e and W = sum_c w_c, the loss of a row with target y is
//   (1 - e) w_y (lse - x_y) + (e / C) (W lse - sum_c w_c x_c)
// and its gradient
//   softmax_c ((1 - e) w_y + e W / C) - (e / C) w_c - (1 - e) w_y [c = y],
// both over the sum of w_y of the rows that are not ignored for a mean. Sums have a fixed order.
//
//   gradus_linear_loss_prepare(LinearLoss)                              one block of 256 threads
//   gradus_linear_loss_<gather|scatter>_<float32|float64>(LinearLoss)   a block a row of the chunk; computed dtype
//   gradus_linear_loss_rows_<float32|float64|float16|bfloat16>(LinearLoss)
//                                                                       a block a row of the chunk; dtype of the logits
//   gradus_linear_loss_finish(LinearLoss)                               one block
#include "linear_loss.h"
#include "packs.cuh"

namespace gradus::cuda {
namespace {

constexpr int kThreads = 256;

__device__ inline long long targetOf(const LinearLoss& a, int row) {
  const DType dtype = static_cast<DType>(a.targetDType);
  const int bytes = dtype == DType::kInt64 ? 8 : dtype == DType::kInt32 ? 4 : 1;
  return load<Int64>(static_cast<const char*>(a.target) + row * a.targetStride * bytes, a.targetDType);
}

template <class C>
__device__ C weightOf(const LinearLoss& a, long long c) {
  if (a.classWeight == nullptr) return C(1);
  const long long at = (c * a.classWeightStride) << itemShift(a.classWeightDType);
  return load<C>(static_cast<const char*>(a.classWeight) + at, a.classWeightDType);
}

// Of all threads, the same in all of them; `shared` holds one value a warp.
__device__ double blockSum(double x, double* shared) {
  for (int lane = 16; lane > 0; lane /= 2) x += __shfl_xor_sync(~0u, x, lane);
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
  __syncthreads();
  double sum = 0;
  for (int warp = 0; warp < kThreads / 32; ++warp) sum += shared[warp];
  return sum;
}

__device__ double blockMaximum(double x, double* shared) {
  for (int lane = 16; lane > 0; lane /= 2) x = fmax(x, __shfl_xor_sync(~0u, x, lane));
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
  __syncthreads();
  double most = shared[0];
  for (int warp = 1; warp < kThreads / 32; ++warp) most = fmax(most, shared[warp]);
  return most;
}

// A power of two that takes gradients of class weights up to `largest` to 2^15 at most, half of float16's range: they
// are differences of two terms, neither of which is larger than that.
__device__ double scaleOf(double largest) {
  return largest > 0 && largest < 1e300 ? ldexp(1.0, 13 - ilogb(largest)) : 1;
}

__device__ int liveRows(const LinearLoss& a) { return min(max(*a.count - a.first, 0), a.chunk); }

// The running sum of exp(x - maximum) of a part of a row.
template <class C>
struct Exponentials {
  C maximum, sum;

  __device__ void add(C x) {
    if (x > maximum) {
      sum = sum * exp(maximum - x) + C(1);
      maximum = x;
    } else {
      sum += exp(x - maximum);
    }
  }
  __device__ void join(C otherMaximum, C otherSum) {
    const C top = max(maximum, otherMaximum);
    sum = sum * exp(maximum - top) + otherSum * exp(otherMaximum - top);
    maximum = top;
  }
};

// Calls use(class, value) with the thread's share of a row of logits, and writes what it returns where `kWrite`.
template <bool kWrite, class T, class Use>
__device__ void visitRow(T* row, int classes, const Use& use) {
  constexpr int kLanes = 16 / sizeof(T);
  const int whole = classes / kLanes * kLanes;
  for (int c = threadIdx.x * kLanes; c < whole; c += kThreads * kLanes) {
    auto& at = *reinterpret_cast<Pack<T, kLanes>*>(row + c);
    Pack<T, kLanes> vector = at;
#pragma unroll
    for (int lane = 0; lane < kLanes; ++lane) {
      const auto result = use(c + lane, widen(vector.lanes[lane]));
      if constexpr (kWrite) vector.lanes[lane] = result;
    }
    if constexpr (kWrite) at = vector;
  }
  for (int c = whole + threadIdx.x; c < classes; c += kThreads) {
    const auto result = use(c, widen(row[c]));
    if constexpr (kWrite) row[c] = result;
  }
}

template <class T, class C>
__device__ T roundTo(C x) {
  if constexpr (sizeof(T) == 8) {
    return x;
  } else {
    return narrow<T>(x);
  }
}

template <class T>
__device__ void rows(const LinearLoss& a) {
  using C = typename ComputeOf<T>::Type;
  __shared__ C maxima[kThreads / 32], sums[kThreads / 32];
  __shared__ double shared[kThreads / 32];
  const int live = liveRows(a), i = blockIdx.x;
  if (i >= (live + kLinearLossTile - 1) / kLinearLossTile * kLinearLossTile) return;
  T* row = static_cast<T*>(a.logits) + i * a.logitStride;
  long long y = -1;
  if (i < live) y = targetOf(a, a.kept[a.first + i]);
  if (i >= live || y == a.ignoreIndex || y < 0 || y >= a.classes) {
    if (a.gradients) visitRow<true>(row, a.classes, [](int, C) { return roundTo<T>(C(0)); });
    if (i < live && threadIdx.x == 0) a.losses[a.first + i] = 0;
    return;
  }
  // not -inf: the first exp(maximum - x) would be that of a NaN
  Exponentials<C> own{sizeof(C) == 8 ? C(-1.7976931348623157e308) : C(-3.4028234663852886e38f), C(0)};
  double weighted = 0;
  const bool smooth = a.smoothing > 0;
  visitRow<false>(row, a.classes, [&](int c, C x) {
    own.add(x);
    if (smooth) weighted += static_cast<double>(x * weightOf<C>(a, c));
    return 0;
  });
  for (int lane = 16; lane > 0; lane /= 2) {
    const C maximum = __shfl_xor_sync(~0u, own.maximum, lane), sum = __shfl_xor_sync(~0u, own.sum, lane);
    own.join(maximum, sum);
  }
  if (threadIdx.x % 32 == 0) {
    maxima[threadIdx.x / 32] = own.maximum;
    sums[threadIdx.x / 32] = own.sum;
  }
  const C atTarget = widen(row[y]);
  __syncthreads();  // of all warps, and everyone has read the target before its place is written
  Exponentials<C> whole{maxima[0], sums[0]};
  for (int warp = 1; warp < kThreads / 32; ++warp) whole.join(maxima[warp], sums[warp]);
  const C logsumexp = whole.maximum + log(whole.sum);
  if (smooth) weighted = blockSum(weighted, shared);
  const double totalWeight = a.terms[1], soft = a.soft;
  const double hard = (1 - a.smoothing) * static_cast<double>(weightOf<C>(a, y));
  if (threadIdx.x == 0) {
    double loss = hard * (static_cast<double>(logsumexp) - static_cast<double>(atTarget));
    if (smooth) loss += soft * (totalWeight * static_cast<double>(logsumexp) - weighted);
    a.losses[a.first + i] = loss;
  }
  if (!a.gradients) return;
  const double incoming = a.scaled ? a.terms[2] : 1 / a.terms[0];
  const C probability = static_cast<C>(incoming * (hard + soft * totalWeight));
  const C smoothing = static_cast<C>(incoming * soft), target = static_cast<C>(incoming * hard);
  visitRow<true>(row, a.classes, [&](int c, C x) {
    C gradient = probability * exp(x - logsumexp);
    if (smooth) gradient -= smoothing * weightOf<C>(a, c);
    return roundTo<T>(c == y ? gradient - target : gradient);
  });
}

// Elements that a thread moves at a time, of any dtypes.
template <class C>
constexpr int kRun = sizeof(C) == 8 ? 2 : 8;

// Rows that do not exist are zeros, for the products read whole tiles.
template <class C>
__device__ void gather(const LinearLoss& a) {
  const int i = blockIdx.x, from = itemShift(a.xDType), to = itemShift(a.rowsDType);
  const bool live = i < liveRows(a);
  const char* source = static_cast<const char*>(a.x) + ((live ? a.kept[a.first + i] * a.xRow : 0) << from);
  if (a.packedRows) {
    for (int c = threadIdx.x * kRun<C>; c < a.width; c += kThreads * kRun<C>) {
      C run[kRun<C>] = {};
      if (live) loadRun(source, a.xDType, c, run);
      storeRun(a.rowsOfX, a.rowsDType, i * a.rowsStride + c, run);
    }
    return;
  }
  char* target = static_cast<char*>(a.rowsOfX) + ((i * a.rowsStride) << to);
  for (int c = threadIdx.x; c < a.width; c += kThreads) {
    const C x = live ? load<C>(source + ((c * a.xCol) << from), a.xDType) : C(0);
    store<C>(target + (static_cast<long long>(c) << to), a.rowsDType, x);
  }
}

template <class C>
__device__ void scatter(const LinearLoss& a) {
  const int i = blockIdx.x;
  if (i >= liveRows(a)) return;
  const C* from = static_cast<const C*>(a.rowsOfDx) + i * a.rowsStride;
  const int shift = itemShift(a.dxDType);
  char* to = static_cast<char*>(a.dx) + ((static_cast<long long>(a.kept[a.first + i]) * a.width) << shift);
  if (a.packedRows) {
    for (int c = threadIdx.x * kRun<C>; c < a.width; c += kThreads * kRun<C>) {
      C run[kRun<C>];
      loadRun(from + c, run);
      storeRun(to, a.dxDType, c, run);
    }
    return;
  }
  for (int c = threadIdx.x; c < a.width; c += kThreads) {
    store<C>(to + (static_cast<long long>(c) << shift), a.dxDType, from[c]);
  }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256) gradus_linear_loss_prepare(const LinearLoss a) {
  __shared__ double shared[kThreads / 32];
  __shared__ int counts[kThreads / 32];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  double divisor = 0, total = 0, largest = 0;
  int count = 0, targets = 0;
  for (int first = 0; first < a.rows; first += kThreads) {
    const int row = first + threadIdx.x;
    bool keeps = false;
    if (row < a.rows) {
      const long long y = targetOf(a, row);
      const bool ignored = y == a.ignoreIndex, inside = y >= 0 && y < a.classes;
      if (!ignored && !inside) report(a.failure, kTargetOutOfRange, row, y);
      if (!ignored && inside) {
        divisor += weightOf<double>(a, y);
        ++targets;
      }
      keeps = !ignored || !a.skipIgnored;
    }
    const unsigned mask = __ballot_sync(~0u, keeps);
    if (lane == 0) counts[warp] = __popc(mask);
    __syncthreads();
    int at = count + __popc(mask & ((1u << lane) - 1));
    for (int i = 0; i < kThreads / 32; ++i) {
      if (i < warp) at += counts[i];
      count += counts[i];
    }
    if (keeps) a.kept[at] = row;
    __syncthreads();
  }
  for (int c = threadIdx.x; c < a.classes; c += kThreads) {
    const double weight = weightOf<double>(a, c);
    total += weight;
    largest = fmax(largest, fabs(weight));
  }
  divisor = blockSum(divisor, shared);
  total = blockSum(total, shared);
  largest = blockMaximum(largest, shared);
  const bool any = __syncthreads_or(targets);
  if (threadIdx.x > 0) return;
  *a.count = count;
  a.terms[0] = a.mean ? divisor : 1;
  a.terms[1] = total;
  a.terms[2] = scaleOf(largest);
  a.terms[3] = any ? 1 / (a.terms[0] * a.terms[2]) : 0;  // without targets all gradients are 0
}

extern "C" __global__ void __launch_bounds__(256) gradus_linear_loss_finish(const LinearLoss a) {
  __shared__ double shared[kThreads / 32];
  double sum = 0;
  for (int i = threadIdx.x; i < *a.count; i += kThreads) sum += a.losses[i];
  sum = blockSum(sum, shared);
  if (threadIdx.x > 0) return;
  store<double>(static_cast<char*>(a.loss), a.lossDType, sum / a.terms[0]);
  store<double>(static_cast<char*>(a.divisor), a.lossDType, a.terms[0]);
}

#define GRADUS_LINEAR_LOSS(kernel, dtype, T)                                                                       \
  extern "C" __global__ void __launch_bounds__(256, 4) gradus_linear_loss_##kernel##_##dtype(const LinearLoss a) { \
    kernel<T>(a);                                                                                                  \
  }
GRADUS_LINEAR_LOSS(rows, float32, float)
GRADUS_LINEAR_LOSS(rows, float64, double)
GRADUS_LINEAR_LOSS(rows, float16, __half)
GRADUS_LINEAR_LOSS(rows, bfloat16, __nv_bfloat16)
GRADUS_LINEAR_LOSS(gather, float32, float)
GRADUS_LINEAR_LOSS(gather, float64, double)
GRADUS_LINEAR_LOSS(scatter, float32, float)
GRADUS_LINEAR_LOSS(scatter, float64, double)

}  // namespace gradus::cuda
