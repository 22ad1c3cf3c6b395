// Reductions over any dims of any strides, in an order that depends on the shape only. Elements are folded in the
// compute type by each thread, and threads, warps and parts in float64 (integers: int64).
//
//   gradus_reduce_rows_<f32|f64|i64>(ReducePass): where neighbours in memory go into one output. A block of 256 threads
//     an output and part; blockIdx.x = output + part * outputs. A thread reads packs of 8 elements where rows are
//     contiguous and begin on a boundary.
//   gradus_reduce_warps_<...>(ReducePass): the same for short rows, a warp an output and part, 8 to a block.
//   gradus_reduce_columns_<...>(ReducePass): where they go into neighbouring outputs. A thread an output and part, or,
//     packed, 16 bytes of neighbours, for each of which it folds the same in the same order; blocks of 64 threads, so
//     that fewer of them still reach all multiprocessors.
//   gradus_reduce_finish_<f64|i64>(ReducePass): folds the parts, a thread an output, blocks of 256.
#include <type_traits>

#include "any_runs.cuh"
#include "reduce.h"

namespace gradus::cuda {
namespace {

constexpr unsigned kWarp = 32, kThreads = 256;

template <class C>
struct AccumulatorOf {
  using Type = double;
};
template <>
struct AccumulatorOf<Int64> {
  using Type = Int64;
};

template <class T>
constexpr bool kInteger = T(0.5) == T(0);

// Which fold it is was decided by the host and is the same for all threads: a switch for each element costs less than
// the memory that is waited for, and a kernel for each fold would be fourteen times the code.
template <class C>
__device__ C identityOf(int fold) {
  switch (static_cast<Fold>(fold)) {
    case Fold::kProduct:
    case Fold::kAll:
      return 1;
    case Fold::kMaximum:
      if constexpr (kInteger<C>)
        return static_cast<C>(1ull << 63);
      else
        return -static_cast<C>(INFINITY);
    case Fold::kMinimum:
    case Fold::kAbsoluteMinimum:
      if constexpr (kInteger<C>)
        return static_cast<C>(~(1ull << 63));
      else
        return static_cast<C>(INFINITY);
    default:
      return 0;
  }
}

// What is folded of an element. Of integers only what has an integer form gets here.
template <class C>
__device__ C mapped(int fold, C x, C param) {
  const Fold kind = static_cast<Fold>(fold);
  if (kind == Fold::kAny || kind == Fold::kAll) return C(x != 0);
  if constexpr (!kInteger<C>) {
    switch (kind) {
      case Fold::kSquares:
        return x * x;
      case Fold::kCenteredSquares:
        return (x - param) * (x - param);
      case Fold::kExponential:
        return exp(x - param);
      case Fold::kAbsolute:
      case Fold::kAbsoluteMaximum:
      case Fold::kAbsoluteMinimum:
        return fabs(x);
      case Fold::kPower:
        return pow(fabs(x), param);
      case Fold::kNonzero:
        return C(x != 0);
      default:
        break;
    }
  }
  return x;
}

// NaN wins an extreme, in either operand. Integers wrap: overflow is defined for unsigned numbers only.
template <class T>
__device__ T combine(int fold, T a, T b) {
  using Wrapping = std::conditional_t<kInteger<T>, unsigned long long, T>;
  switch (static_cast<Fold>(fold)) {
    case Fold::kProduct:
      return static_cast<T>(static_cast<Wrapping>(a) * static_cast<Wrapping>(b));
    case Fold::kMaximum:
    case Fold::kAbsoluteMaximum:
    case Fold::kAny:
      return a != a || a > b ? a : b;
    case Fold::kMinimum:
    case Fold::kAbsoluteMinimum:
    case Fold::kAll:
      return a != a || a < b ? a : b;
    default:
      return static_cast<T>(static_cast<Wrapping>(a) + static_cast<Wrapping>(b));
  }
}

__device__ double finished(int finish, double folded, double param, double count, double attribute) {
  switch (static_cast<Finish>(finish)) {
    case Finish::kDivided:
      return folded / count;
    case Finish::kRooted:
      return attribute == 2 ? sqrt(folded) : pow(folded, 1 / attribute);
    case Finish::kVaried:
      return folded / fmax(0.0, count - attribute);
    case Finish::kLogged:
      return log(folded) + param;
    case Finish::kFiniteMaximum:
      return isinf(folded) ? 0 : folded;
    default:
      return folded;
  }
}

__device__ double finishedOf(const ReducePass& a, unsigned output, double folded) {
  return finished(a.finish, folded, a.params != nullptr ? a.params[output] : a.scalar, a.count, a.attribute);
}

template <class A>
__device__ void finish(const ReducePass& a, unsigned output, A folded) {
  if constexpr (!kInteger<A>) {
    folded = finishedOf(a, output, folded);
    if (a.results != nullptr) {
      a.results[output] = folded;
      return;
    }
  }
  store<A>(a.out + output * a.outSize, a.outDType, folded);
}

template <class A>
__device__ void deliver(const ReducePass& a, unsigned output, unsigned part, A folded) {
  if (a.partial != nullptr) {
    static_cast<A*>(a.partial)[static_cast<unsigned long long>(part) * a.outputs + output] = folded;
  } else {
    finish(a, output, folded);
  }
}

__device__ long long offsetOf(unsigned i, int rank, const Divider* sizes, const long long* strides) {
  long long offset = 0;
#pragma unroll
  for (int d = kPointwiseRank - 1; d >= 0; --d) {  // unrolled, so that the arguments are read at fixed places
    if (d >= rank) continue;
    const unsigned quotient = (__umulhi(i, sizes[d].multiplier) + i) >> sizes[d].shift;
    offset += static_cast<long long>(i - quotient * sizes[d].size) * strides[d];
    i = quotient;
  }
  return offset;
}

// Elements begin to end of a part.
struct Range {
  unsigned begin, end;
};
__device__ Range rangeOf(const ReducePass& a, unsigned part, unsigned long long count) {
  return {static_cast<unsigned>(count * part / a.parts), static_cast<unsigned>(count * (part + 1) / a.parts)};
}

// What one thread of `step` folds of a part.
template <class C>
__device__ C foldStrided(const ReducePass& a, unsigned output, unsigned part, unsigned first, unsigned step) {
  const char* in = a.in + offsetOf(output, a.keptRank, a.kept, a.keptStrides);
  const C param = static_cast<C>(a.params != nullptr ? a.params[output] : a.scalar);
  const Range range = rangeOf(a, part, a.count);
  C folded = identityOf<C>(a.fold);
  for (unsigned i = range.begin + first; i < range.end; i += step) {
    const C x = load<C>(in + offsetOf(i, a.reducedRank, a.reduced, a.reducedStrides), a.dtype);
    folded = combine(a.fold, folded, mapped(a.fold, x, param));
  }
  return folded;
}

// body(the fold): which it is is asked once for a pack of elements.
template <class Body>
__device__ void forFold(int fold, const Body& body) {
  switch (static_cast<Fold>(fold)) {
#define GRADUS_FOLD(kind) \
  case Fold::kind:        \
    return body(Fold::kind);
    GRADUS_FOLD(kSquares)
    GRADUS_FOLD(kCenteredSquares)
    GRADUS_FOLD(kExponential)
    GRADUS_FOLD(kAbsolute)
    GRADUS_FOLD(kPower)
    GRADUS_FOLD(kNonzero)
    GRADUS_FOLD(kProduct)
    GRADUS_FOLD(kMaximum)
    GRADUS_FOLD(kMinimum)
    GRADUS_FOLD(kAbsoluteMaximum)
    GRADUS_FOLD(kAbsoluteMinimum)
    GRADUS_FOLD(kAny)
    GRADUS_FOLD(kAll)
#undef GRADUS_FOLD
    default:
      return body(Fold::kSum);
  }
}

// The same as foldStrided for neighbouring outputs from `output` on, whose elements lie side by side.
template <class C, int kLanes>
__device__ void foldColumns(const ReducePass& a, unsigned output, unsigned part, C (&folded)[kLanes]) {
  const char* in = a.in + offsetOf(output, a.keptRank, a.kept, a.keptStrides);
  C params[kLanes];
#pragma unroll
  for (int k = 0; k < kLanes; ++k) {
    params[k] = static_cast<C>(a.params != nullptr ? a.params[output + k] : a.scalar);
    folded[k] = identityOf<C>(a.fold);
  }
  const Range range = rangeOf(a, part, a.count);
  for (unsigned i = range.begin; i < range.end; ++i) {
    C x[kLanes];
    loadComputed(in + offsetOf(i, a.reducedRank, a.reduced, a.reducedStrides), a.dtype, x);
    forFold(a.fold, [&](Fold kind) {
#pragma unroll
      for (int k = 0; k < kLanes; ++k) {
        folded[k] = combine(static_cast<int>(kind), folded[k], mapped(static_cast<int>(kind), x[k], params[k]));
      }
    });
  }
}

// The same as foldStrided of rows that are contiguous: a thread has every step-th pack.
template <class C>
__device__ C foldPacked(const ReducePass& a, unsigned output, unsigned part, unsigned first, unsigned step) {
  const char* in = a.in + offsetOf(output, a.keptRank, a.kept, a.keptStrides);
  const C param = static_cast<C>(a.params != nullptr ? a.params[output] : a.scalar);
  const Range range = rangeOf(a, part, a.count / kReducePack);
  const long long bytes = itemSizeOf(a.dtype) * kReducePack;
  C folded = identityOf<C>(a.fold);
  for (unsigned i = range.begin + first; i < range.end; i += step) {
    C x[kReducePack];
    loadComputed(in + i * bytes, a.dtype, x);
    forFold(a.fold, [&](Fold kind) {
#pragma unroll
      for (int k = 0; k < kReducePack; ++k) {
        folded = combine(static_cast<int>(kind), folded, mapped(static_cast<int>(kind), x[k], param));
      }
    });
  }
  return folded;
}

template <class C>
__device__ C foldRow(const ReducePass& a, unsigned output, unsigned part, unsigned first, unsigned step) {
  return a.packed ? foldPacked<C>(a, output, part, first, step) : foldStrided<C>(a, output, part, first, step);
}

template <class A>
__device__ A foldWarp(int fold, A folded) {
#pragma unroll
  for (unsigned distance = kWarp / 2; distance > 0; distance /= 2) {
    folded = combine(fold, folded, __shfl_xor_sync(kAllLanes, folded, distance));
  }
  return folded;
}

template <class C>
__device__ void rows(const ReducePass& a) {
  using A = typename AccumulatorOf<C>::Type;
  __shared__ A ofWarps[kThreads / kWarp];
  const unsigned output = blockIdx.x % a.outputs, part = blockIdx.x / a.outputs;
  A folded = foldWarp(a.fold, static_cast<A>(foldRow<C>(a, output, part, threadIdx.x, kThreads)));
  if (threadIdx.x % kWarp == 0) ofWarps[threadIdx.x / kWarp] = folded;
  __syncthreads();
  if (threadIdx.x != 0) return;
#pragma unroll 1
  for (unsigned i = 1; i < kThreads / kWarp; ++i) folded = combine(a.fold, folded, ofWarps[i]);
  deliver(a, output, part, folded);
}

// The outputs, `lanes` from `output` on, and the part of a job; neighbours have neighbouring outputs.
struct Job {
  unsigned output, part;
  bool exists;
};
__device__ Job jobOf(const ReducePass& a, unsigned threads, unsigned lanes = 1) {
  const unsigned long long at = (static_cast<unsigned long long>(blockIdx.x) * blockDim.x + threadIdx.x) / threads;
  const unsigned groups = a.outputs / lanes;
  return {static_cast<unsigned>(at % groups) * lanes, static_cast<unsigned>(at / groups),
          at < static_cast<unsigned long long>(groups) * a.parts};
}

template <class C>
__device__ void warps(const ReducePass& a) {
  using A = typename AccumulatorOf<C>::Type;
  const Job job = jobOf(a, kWarp);
  if (!job.exists) return;
  const A folded = foldWarp(a.fold, static_cast<A>(foldRow<C>(a, job.output, job.part, threadIdx.x % kWarp, kWarp)));
  if (threadIdx.x % kWarp == 0) deliver(a, job.output, job.part, folded);
}

template <class C, int kLanes>
__device__ void packedColumns(const ReducePass& a) {
  using A = typename AccumulatorOf<C>::Type;
  const Job job = jobOf(a, 1, kLanes);
  if (!job.exists) return;
  C own[kLanes];
  foldColumns(a, job.output, job.part, own);
  A folded[kLanes];
#pragma unroll
  for (int k = 0; k < kLanes; ++k) folded[k] = static_cast<A>(own[k]);
  if (a.partial != nullptr) {
    storeRun(static_cast<A*>(a.partial) + static_cast<unsigned long long>(job.part) * a.outputs + job.output, folded);
    return;
  }
  if constexpr (!kInteger<A>) {
#pragma unroll 1
    for (int k = 0; k < kLanes; ++k) setLane(folded, k, finishedOf(a, job.output + k, laneOf(folded, k)));
    if (a.results != nullptr) {
      storeRun(a.results + job.output, folded);
      return;
    }
  }
  storeAny(a.out + job.output * a.outSize, a.outDType, folded);
}

template <class C>
__device__ void columns(const ReducePass& a) {
  using A = typename AccumulatorOf<C>::Type;
  if (a.packed) {
    const int size = itemSizeOf(a.dtype);  // lanes: reduceLanes(size)
    if constexpr (sizeof(C) == 4) {
      return size == 4 ? packedColumns<C, 4>(a) : packedColumns<C, 8>(a);
    } else {
      if constexpr (kInteger<C>) {
        if (size == 1) return packedColumns<C, 8>(a);
        if (size == 4) return packedColumns<C, 4>(a);
      }
      return packedColumns<C, 2>(a);
    }
  }
  const Job job = jobOf(a, 1);
  if (job.exists) deliver(a, job.output, job.part, static_cast<A>(foldStrided<C>(a, job.output, job.part, 0, 1)));
}

template <class A>
__device__ void finishAll(const ReducePass& a) {
  const unsigned output = blockIdx.x * kThreads + threadIdx.x;
  if (output >= a.outputs) return;
  const A* partial = static_cast<const A*>(a.partial) + output;
  A folded = identityOf<A>(a.fold);
#pragma unroll 1
  for (unsigned part = 0; part < a.parts; ++part) {
    folded = combine(a.fold, folded, partial[static_cast<unsigned long long>(part) * a.outputs]);
  }
  finish(a, output, folded);
}

}  // namespace

#define GRADUS_REDUCE(form, threads, type, C)                                                                  \
  extern "C" __global__ void __launch_bounds__(threads, 1) gradus_reduce_##form##_##type(const ReducePass a) { \
    form<C>(a);                                                                                                \
  }
#define GRADUS_TYPES(form, threads)         \
  GRADUS_REDUCE(form, threads, f32, float)  \
  GRADUS_REDUCE(form, threads, f64, double) \
  GRADUS_REDUCE(form, threads, i64, Int64)

GRADUS_TYPES(rows, 256)
GRADUS_TYPES(warps, 256)
GRADUS_TYPES(columns, 64)

extern "C" __global__ void __launch_bounds__(256) gradus_reduce_finish_f64(const ReducePass a) { finishAll<double>(a); }
extern "C" __global__ void __launch_bounds__(256) gradus_reduce_finish_i64(const ReducePass a) { finishAll<Int64>(a); }

}  // namespace gradus::cuda
