// What is done to all gradients at once: their norm, clipping, and the loss scaler's part. Nothing waits for a number:
// the factor of clipping, the scale and its update are read and made on the device. Shares of a norm are summed in
// float32 (float64 for float64) by thread, in float64 from there on, always in one order.
//
//   gradus_multi_tensor_map(ListMap)
//   gradus_multi_tensor_norm_<sum|squares|most|least|nonzero|power>(ListNorm), then _norm_total(ListNormTotal)
//   gradus_multi_tensor_unscale(ListUnscale), then _unscale_total(ListUnscaleTotal)
//     blocks of 256 threads, one chunk of a tensor a block and round; the totals are one block
//   gradus_multi_tensor_scaler(ScalerUpdate): one block of 256
#include "lists.cuh"

namespace gradus::cuda {
namespace {

// body(a value of the type computed in): float64 tensors in float64.
template <class Body>
__device__ void visitCompute(int dtype, const Body& body) {
  if (dtype == static_cast<int>(DType::kFloat64))
    body(double{});
  else
    body(float{});
}

template <class C>
__device__ void read(const ListTensor& tensor, unsigned long long at, int count, bool whole, C (&x)[kListLanes]) {
  visitType<C>(const_cast<void*>(tensor.in), tensor.dtype, at, [&](auto* from) {
    if (whole)
      loadRun(from, x);
    else
      loadSome(from, count, x);
  });
}

template <class C>
__device__ void write(const ListTensor& tensor, unsigned long long at, int count, bool whole,
                      const C (&x)[kListLanes]) {
  visitType<C>(tensor.out, tensor.dtype, at, [&](auto* to) {
    if (whole)
      storeRun(to, x);
    else
      storeSome(to, count, x);
  });
}

// In float32, as PyTorch computes it.
__device__ float clipFactor(double most, float norm) { return __fdiv_rn(static_cast<float>(most), norm + 1e-6f); }

__device__ void map(const ListMap& a) {
  if (hasFailed(a.failure)) return;
  double number = a.number;
  if (a.kind == kMapClip) {
    // A NaN norm scales by NaN; an infinite one by 0, so that finite elements become 0 and infinite ones NaN.
    const float factor = clipFactor(a.number, *static_cast<const float*>(a.given));
    if (factor >= 1) return;
    number = factor;
  } else if (a.kind == kMapFactor) {
    number = a.wide ? *static_cast<const double*>(a.given) : *static_cast<const float*>(a.given);
    if (number == 1) return;
  }
  const bool clamps = a.kind == kMapClamp;
  forChunks(a.list, [&](int, int i, unsigned long long from, int n) {
    const ListTensor& tensor = a.list.tensors[i];
    visitCompute(tensor.dtype, [&](auto type) {
      using C = decltype(type);
      const C factor = static_cast<C>(number);
      forRuns(n, areWide(tensor.in, tensor.out), [&](int at, int count, bool whole) {
        C x[kListLanes];
        read(tensor, from + at, count, whole, x);
#pragma unroll
        for (int k = 0; k < kListLanes; ++k) {
          if (clamps)
            x[k] = x[k] > factor ? factor : x[k] < -factor ? -factor : x[k];  // NaN stays
          else
            x[k] *= factor;
        }
        write(tensor, from + at, count, whole, x);
      });
    });
  });
}

// --- norm ------------------------------------------------------------------------------------------------------------

// start: of an empty sum. add: an element's part; merge: two parts.
struct SumNorm {
  static constexpr double kStart = 0;
  template <class C>
  static __device__ C add(C total, C x, C) {
    return total + fabs(x);
  }
  static __device__ double merge(double a, double b) { return a + b; }
};
struct SquaresNorm : SumNorm {
  template <class C>
  static __device__ C add(C total, C x, C) {
    return fma(x, x, total);
  }
};
struct NonzeroNorm : SumNorm {
  template <class C>
  static __device__ C add(C total, C x, C) {
    return total + (x == 0 ? C(0) : C(1));
  }
};
struct PowerNorm : SumNorm {
  template <class C>
  static __device__ C add(C total, C x, C p) {
    return total + pow(fabs(x), p);
  }
};
struct MostNorm {  // NaN takes over and stays
  static constexpr double kStart = 0;
  template <class C>
  static __device__ C add(C total, C x, C) {
    return total != total || !(fabs(x) > total || x != x) ? total : fabs(x);
  }
  static __device__ double merge(double a, double b) { return a != a || !(b > a || b != b) ? a : b; }
};
struct LeastNorm {
  static constexpr double kStart = INFINITY;
  template <class C>
  static __device__ C add(C total, C x, C) {
    return total != total || !(fabs(x) < total || x != x) ? total : fabs(x);
  }
  static __device__ double merge(double a, double b) { return a != a || !(b < a || b != b) ? a : b; }
};

template <class Norm>
__device__ void norm(const ListNorm& a) {
  forChunks(a.list, [&](int chunk, int i, unsigned long long from, int n) {
    const ListTensor& tensor = a.list.tensors[i];
    double share = 0;
    visitCompute(tensor.dtype, [&](auto type) {
      using C = decltype(type);
      C total = static_cast<C>(Norm::kStart);
      const C p = static_cast<C>(a.p);
      forRuns(n, areWide(tensor.in, nullptr), [&](int at, int count, bool whole) {
        C x[kListLanes];
        read(tensor, from + at, count, whole, x);
#pragma unroll
        for (int k = 0; k < kListLanes; ++k) {
          if (k < count) total = Norm::add(total, x[k], p);
        }
      });
      share = static_cast<double>(total);
    });
    share = mergeBlock(share, Norm::merge);
    if (threadIdx.x == 0) a.shares[a.list.firstShare + chunk] = share;
  });
}

template <class Norm>
__device__ double totalOf(int shares, const double* from) {
  double total = Norm::kStart;
  for (int i = threadIdx.x; i < shares; i += blockDim.x) total = Norm::merge(total, from[i]);
  return mergeBlock(total, Norm::merge);
}

__device__ void normTotal(const ListNormTotal& a) {
  double total = a.merge == kMergeMost    ? totalOf<MostNorm>(a.shares, a.from)
                 : a.merge == kMergeLeast ? totalOf<LeastNorm>(a.shares, a.from)
                                          : totalOf<SumNorm>(a.shares, a.from);
  if (threadIdx.x != 0) return;
  if (a.shares == 0) total = 0;
  if (a.root == kSquareRoot) total = sqrt(total);
  if (a.root == kPowerRoot) total = pow(total, 1 / a.p);
  *a.norm = static_cast<float>(total);
}

// --- the loss scaler -------------------------------------------------------------------------------------------------

__device__ unsigned smaller(unsigned a, unsigned b) { return b < a ? b : a; }

__device__ void unscale(const ListUnscale& a) {
  const float inverse = a.scale == nullptr ? 1.0f : static_cast<float>(1.0 / static_cast<double>(*a.scale));
  const bool writes = a.write && !hasFailed(a.failure);
  forChunks(a.list, [&](int chunk, int i, unsigned long long from, int n) {
    const ListTensor& tensor = a.list.tensors[i];
    double share = 0;
    unsigned finite = 1;
    visitCompute(tensor.dtype, [&](auto type) {
      using C = decltype(type);
      C total = 0;
      const C factor = static_cast<C>(inverse);
      forRuns(n, areWide(tensor.in, a.write ? tensor.out : nullptr), [&](int at, int count, bool whole) {
        C x[kListLanes];
        read(tensor, from + at, count, whole, x);
#pragma unroll
        for (int k = 0; k < kListLanes; ++k) {
          if (!(fabs(x[k]) < C(INFINITY))) finite = 0;
          x[k] = whole || k < count ? x[k] * factor : C(0);  // the factor may be infinite
        }
        if (a.write) {  // the squares are those of what memory holds
          if (tensor.dtype == static_cast<int>(DType::kFloat16)) {
#pragma unroll
            for (int k = 0; k < kListLanes; ++k) x[k] = widen(narrow<__half>(static_cast<float>(x[k])));
          } else if (tensor.dtype == static_cast<int>(DType::kBFloat16)) {
#pragma unroll
            for (int k = 0; k < kListLanes; ++k) x[k] = widen(narrow<__nv_bfloat16>(static_cast<float>(x[k])));
          }
          if (writes) write(tensor, from + at, count, whole, x);
        }
#pragma unroll
        for (int k = 0; k < kListLanes; ++k) total = fma(x[k], x[k], total);  // 0 behind the end
      });
      share = static_cast<double>(total);
    });
    share = mergeBlock(share, SumNorm::merge);
    finite = mergeBlock(finite, smaller);
    if (threadIdx.x == 0) {
      a.shares[a.list.firstShare + chunk] = share;
      a.culprits[a.list.firstShare + chunk] = finite ? -1 : a.list.firstTensor + i;
    }
  });
}

__device__ void unscaleTotal(const ListUnscaleTotal& a) {
  const double total = totalOf<SumNorm>(a.shares, a.from);
  unsigned first = 0xffffffff;  // -1 is the largest
  for (int i = threadIdx.x; i < a.shares; i += blockDim.x) first = smaller(first, static_cast<unsigned>(a.culprits[i]));
  first = mergeBlock(first, smaller);
  if (threadIdx.x != 0) return;
  *a.foundInf = first == 0xffffffff ? 0.0f : 1.0f;
  *a.norm = static_cast<float>(sqrt(total));
  *a.first = static_cast<int>(first);
}

// PyTorch's rule (_amp_update_scale_): one overflow anywhere backs off at once; growthInterval updates without one
// grow, unless the larger scale would not be finite, and the count begins again either way.
__device__ void updateScale(const ScalerUpdate& a, int pair, int first) {
  if (hasFailed(a.failure)) return;
  float scale = *a.scale;
  if (pair >= 0) {
    scale = static_cast<float>(scale * a.backoffFactor);
    *a.tracker = 0;
  } else {
    const Int64 good = Int64(*a.tracker) + 1;
    const bool grows = static_cast<double>(good) == a.growthInterval;
    const float grown = static_cast<float>(scale * a.growthFactor);
    if (grows && fabs(grown) < INFINITY) scale = grown;
    *a.tracker = grows ? 0 : static_cast<int>(good);
  }
  *a.scale = scale;
  a.status[0] = scale;
  a.status[1] = static_cast<float>(pair);
  a.status[2] = static_cast<float>(first);
}

__device__ void scaler(const ScalerUpdate& a) {
  unsigned lowest = 0xffffffff;
  if (threadIdx.x < a.count && *a.pairs[threadIdx.x].foundInf != 0) lowest = threadIdx.x;
  lowest = mergeBlock(lowest, smaller);
  if (threadIdx.x != 0) return;
  int pair = lowest == 0xffffffff ? -1 : a.firstPair + static_cast<int>(lowest);
  int first = lowest == 0xffffffff ? -1 : *a.pairs[lowest].first;
  if (a.found != nullptr) {
    if (a.firstPair > 0 && a.found[0] >= 0) {
      pair = a.found[0];
      first = a.found[1];
    }
    a.found[0] = pair;
    a.found[1] = first;
  }
  if (a.isLast) updateScale(a, pair, first);
}

}  // namespace

#define GRADUS_LIST_KERNEL(name, Arguments, run)                                                                      \
  extern "C" __global__ void __launch_bounds__(256) gradus_multi_tensor_##name(const __grid_constant__ Arguments a) { \
    run(a);                                                                                                           \
  }

GRADUS_LIST_KERNEL(map, ListMap, map)
GRADUS_LIST_KERNEL(norm_sum, ListNorm, norm<SumNorm>)
GRADUS_LIST_KERNEL(norm_squares, ListNorm, norm<SquaresNorm>)
GRADUS_LIST_KERNEL(norm_most, ListNorm, norm<MostNorm>)
GRADUS_LIST_KERNEL(norm_least, ListNorm, norm<LeastNorm>)
GRADUS_LIST_KERNEL(norm_nonzero, ListNorm, norm<NonzeroNorm>)
GRADUS_LIST_KERNEL(norm_power, ListNorm, norm<PowerNorm>)
GRADUS_LIST_KERNEL(norm_total, ListNormTotal, normTotal)
GRADUS_LIST_KERNEL(unscale, ListUnscale, unscale)
GRADUS_LIST_KERNEL(unscale_total, ListUnscaleTotal, unscaleTotal)
GRADUS_LIST_KERNEL(scaler, ScalerUpdate, scaler)

}  // namespace gradus::cuda
