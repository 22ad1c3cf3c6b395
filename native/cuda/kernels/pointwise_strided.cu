// Pointwise operators on operands of any strides, dtypes and broadcasting, in the order of the output's memory. Which
// formula and which dtypes are decided when the kernel runs: that is the same for all threads, and costs less than the
// memory that is waited for. Where neighbours of the output are neighbours, or the same, in every operand, a thread has
// a unit of 128 bits of them; the formula stands in a loop over its elements, since most of the code is formulas.
//
//   gradus_pointwise_<unary|binary|ternary>_<f32|f64|i64>(PointwiseStrided): the type that is computed in
//   gradus_pointwise_arange_<f64|i64>(PointwiseStrided): p + i * q
//   gradus_pointwise_find_zero(PointwiseStrided): reports a zero of operand 2
//   blocks of 256 threads, one unit a thread and round of a grid-stride loop.
#include "../../core/pointwise_ops.h"
#include "any_runs.cuh"
#include "formulas.cuh"
#include "integers.cuh"
#include "pointwise.h"

namespace gradus::cuda {
namespace {

__device__ Int64 applyUnary(Unary op, Int64 x, Int64 p, Int64 q) { return integerUnary(op, x, p, q); }

template <class C>
__device__ C applyUnary(Unary op, C x, C p, C q) {
  switch (op) {
#define GRADUS_CASE(name) \
  case Unary::name:       \
    return name##Formula::of(x, p, q);
    GRADUS_UNARY(GRADUS_CASE)
    default:
      return x;
  }
}

__device__ Int64 applyBinary(Binary op, Int64 a, Int64 b, Int64 c, Int64 p, Int64 q) {
  return integerBinary(op, a, b, c, p, q);
}

template <class C>
__device__ C applyBinary(Binary op, C a, C b, C c, C p, C q) {
  switch (op) {
#define GRADUS_CASE2(name) \
  case Binary::name:       \
    return name##Formula::of(a, b, c, p, q);
    GRADUS_BINARY(GRADUS_CASE2)
    default:
      return a;
  }
}

template <class C>
__device__ C number(const PointwiseNumber& value) {
  if constexpr (sizeof(C) == 4)
    return value.f32;
  else if constexpr (C(0.5) != C(0))
    return value.f64;
  else
    return value.i64;
}

template <class C>
constexpr int kLanes = kPointwiseBytes / sizeof(C);

// Where a unit stands: offsets of its first element and the way to the next unit, in bytes.
template <int kOperands>
struct Place {
  long long offsets[kOperands], steps[kOperands];
  unsigned row, unit;  // of the row

  __device__ Place(const PointwiseStrided& a, unsigned i) {
#pragma unroll
    for (int k = 0; k < kOperands; ++k) offsets[k] = steps[k] = 0;
    row = unit = 0;
#pragma unroll
    for (int d = kPointwiseRank - 1; d >= 0; --d) {  // unrolled, so that the arguments are read at fixed places
      if (d >= a.rank) continue;
      const unsigned quotient = (__umulhi(i, a.sizes[d].multiplier) + i) >> a.sizes[d].shift;
      const unsigned index = i - quotient * a.sizes[d].size;
      i = quotient;
#pragma unroll
      for (int k = 0; k < kOperands; ++k) offsets[k] += index * a.operands[k].strides[d];
      if (d != a.rank - 1) continue;
      row = quotient;
      unit = index;
#pragma unroll
      for (int k = 0; k < kOperands; ++k) steps[k] = a.operands[k].strides[d];
    }
  }

  // Elements that the unit has; kCount: all of one of 128 bits.
  template <int kCount>
  __device__ int count(const PointwiseStrided& a) const {
    return a.lanes == 1 ? 1 : static_cast<int>(min(a.inner - unit * kCount, unsigned(kCount)));
  }
  // The number of the unit's first element.
  __device__ unsigned first(const PointwiseStrided& a) const { return row * a.inner + unit * a.lanes; }
};

template <class C, int kArity>
__device__ void strided(const PointwiseStrided& a) {
  const bool failed = a.failure.word != nullptr && a.failure.word->serial != 0;
  if (failed && a.inPlace) return;
  const C p = number<C>(a.p), q = number<C>(a.q);
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < a.count; i += gridDim.x * blockDim.x) {
    const Place<kArity + 1> at(a, i);
    const int count = at.template count<kLanes<C>>(a);
    const bool whole = count == kLanes<C>;
    C runs[kArity][kLanes<C>] = {}, results[kLanes<C>] = {};
#pragma unroll
    for (int k = 0; k < kArity; ++k) {
      const PointwiseStrided::Operand& operand = a.operands[k + 1];
      const char* from = operand.data + at.offsets[k + 1];
      if (whole && operand.data != nullptr && at.steps[k + 1] != 0) {
        loadAny(from, operand.dtype, runs[k]);
      } else {
        const C own = operand.data == nullptr ? number<C>(operand.number) : load<C>(from, operand.dtype);
#pragma unroll
        for (int lane = 0; lane < kLanes<C>; ++lane) runs[k][lane] = own;
      }
    }
    char* to = a.operands[0].data + at.offsets[0];
#pragma unroll 1
    for (int lane = 0; lane < count; ++lane) {
      C x[3] = {};
#pragma unroll
      for (int k = 0; k < kArity; ++k) {
        const PointwiseStrided::Operand& operand = a.operands[k + 1];
        if (whole || lane == 0 || operand.data == nullptr)
          x[k] = laneOf(runs[k], lane);
        else
          x[k] = load<C>(operand.data + at.offsets[k + 1] + lane * (at.steps[k + 1] / kLanes<C>), operand.dtype);
      }
      C y;
      if constexpr (kArity == 1) {
        y = a.op == kIdentity ? x[0] : applyUnary(static_cast<Unary>(a.op), x[0], p, q);
      } else {
        y = failed ? C(0) : applyBinary(static_cast<Binary>(a.op), x[0], x[1], x[2], p, q);
      }
      if (whole)
        setLane(results, lane, y);
      else
        store(to + lane * (at.steps[0] / kLanes<C>), a.operands[0].dtype, y);
    }
    if (whole) storeAny(to, a.operands[0].dtype, results);
  }
}

template <class C>
__device__ void arange(const PointwiseStrided& a) {
  static_assert(kLanes<C> == 2);  // a unit that is not whole has one element
  const PointwiseStrided::Operand& out = a.operands[0];
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < a.count; i += gridDim.x * blockDim.x) {
    const Place<1> at(a, i);
    const int count = at.template count<kLanes<C>>(a);
    C values[kLanes<C>];
#pragma unroll
    for (int k = 0; k < kLanes<C>; ++k) values[k] = number<C>(a.p) + static_cast<C>(at.first(a) + k) * number<C>(a.q);
    if (count == kLanes<C>)
      storeAny(out.data + at.offsets[0], out.dtype, values);
    else
      store(out.data + at.offsets[0], out.dtype, values[0]);
  }
}

// Of the divisor, operand 2.
__device__ void findZero(const PointwiseStrided& a) {
  static_assert(kLanes<Int64> == 2);
  const PointwiseStrided::Operand& divisor = a.operands[2];
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < a.count; i += gridDim.x * blockDim.x) {
    const Place<3> at(a, i);
    const int count = at.template count<kLanes<Int64>>(a);
    Int64 values[kLanes<Int64>];
    if (count == kLanes<Int64> && at.steps[2] != 0) {
      loadAny(divisor.data + at.offsets[2], divisor.dtype, values);
    } else {
#pragma unroll
      for (int k = 0; k < kLanes<Int64>; ++k) values[k] = load<Int64>(divisor.data + at.offsets[2], divisor.dtype);
    }
#pragma unroll 1
    for (int k = 0; k < count; ++k) {
      if (laneOf(values, k) == 0) report(a.failure, kDivisionByZero, at.first(a) + k, 0);
    }
  }
}

}  // namespace

#define GRADUS_STRIDED(form, arity, type, C)                                                                     \
  extern "C" __global__ void __launch_bounds__(256) gradus_pointwise_##form##_##type(const PointwiseStrided a) { \
    strided<C, arity>(a);                                                                                        \
  }

GRADUS_STRIDED(unary, 1, f32, float)
GRADUS_STRIDED(unary, 1, f64, double)
GRADUS_STRIDED(unary, 1, i64, Int64)
GRADUS_STRIDED(binary, 2, f32, float)
GRADUS_STRIDED(binary, 2, f64, double)
GRADUS_STRIDED(binary, 2, i64, Int64)
GRADUS_STRIDED(ternary, 3, f32, float)
GRADUS_STRIDED(ternary, 3, f64, double)
GRADUS_STRIDED(ternary, 3, i64, Int64)

extern "C" __global__ void __launch_bounds__(256) gradus_pointwise_arange_f64(const PointwiseStrided a) {
  arange<double>(a);
}
extern "C" __global__ void __launch_bounds__(256) gradus_pointwise_arange_i64(const PointwiseStrided a) {
  arange<Int64>(a);
}

extern "C" __global__ void __launch_bounds__(256) gradus_pointwise_find_zero(const PointwiseStrided a) { findZero(a); }

}  // namespace gradus::cuda
