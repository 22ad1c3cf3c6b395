// Pointwise operators on operands of any strides, dtypes and broadcasting, in the order of the output's memory. Which
// formula and which dtypes are decided when the kernel runs: that is the same for all threads, and costs less than the
// memory that is waited for.
//
//   gradus_pointwise_<unary|binary|ternary>_<f32|f64|i64>(PointwiseStrided): the type that is computed in
//   gradus_pointwise_arange_<f64|i64>(PointwiseStrided): p + i * q
//   gradus_pointwise_find_zero(PointwiseStrided): reports a zero of operand 2
//   blocks of 256 threads, one element a thread and round of a grid-stride loop.
#include "../../core/pointwise_ops.h"
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

// Offsets in bytes of element i of the iteration space.
template <int kOperands>
__device__ void locate(const PointwiseStrided& a, unsigned i, long long (&offsets)[kOperands]) {
#pragma unroll
  for (int k = 0; k < kOperands; ++k) offsets[k] = 0;
#pragma unroll
  for (int d = kPointwiseRank - 1; d >= 0; --d) {  // unrolled, so that the arguments are read at fixed places
    if (d >= a.rank) continue;
    const unsigned quotient = (__umulhi(i, a.sizes[d].multiplier) + i) >> a.sizes[d].shift;
    const long long index = i - quotient * a.sizes[d].size;
    i = quotient;
#pragma unroll
    for (int k = 0; k < kOperands; ++k) offsets[k] += index * a.operands[k].strides[d];
  }
}

template <class C, int kArity>
__device__ void strided(const PointwiseStrided& a) {
  const bool failed = a.failure.word != nullptr && a.failure.word->serial != 0;
  if (failed && a.inPlace) return;
  const C p = number<C>(a.p), q = number<C>(a.q);
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < a.count; i += gridDim.x * blockDim.x) {
    long long offsets[kArity + 1];
    locate(a, i, offsets);
    C x[3] = {};
#pragma unroll
    for (int k = 0; k < kArity; ++k) {
      const PointwiseStrided::Operand& operand = a.operands[k + 1];
      x[k] =
          operand.data == nullptr ? number<C>(operand.number) : load<C>(operand.data + offsets[k + 1], operand.dtype);
    }
    C y;
    if constexpr (kArity == 1) {
      y = a.op == kIdentity ? x[0] : applyUnary(static_cast<Unary>(a.op), x[0], p, q);
    } else {
      y = failed ? C(0) : applyBinary(static_cast<Binary>(a.op), x[0], x[1], x[2], p, q);
    }
    store(a.operands[0].data + offsets[0], a.operands[0].dtype, y);
  }
}

template <class C>
__device__ void arange(const PointwiseStrided& a) {
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < a.count; i += gridDim.x * blockDim.x) {
    long long offsets[1];
    locate(a, i, offsets);
    store(a.operands[0].data + offsets[0], a.operands[0].dtype, number<C>(a.p) + static_cast<C>(i) * number<C>(a.q));
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

extern "C" __global__ void __launch_bounds__(256) gradus_pointwise_find_zero(const PointwiseStrided a) {
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < a.count; i += gridDim.x * blockDim.x) {
    long long offsets[3];
    locate(a, i, offsets);
    const PointwiseStrided::Operand& divisor = a.operands[2];
    if (load<Int64>(divisor.data + offsets[2], divisor.dtype) == 0) report(a.failure, kDivisionByZero, i, 0);
  }
}

}  // namespace gradus::cuda
