// Copies between dtypes and layouts whose rows are contiguous, and fills: accesses of 128 bits, where a switch by dtype
// stands around a run of elements and not around each.
//
//   gradus_pointwise_copy_<f32|f64|i64>(PointwiseCopy): the type that is computed in
//   blocks of 256 threads; a unit of 8 elements of a row a thread and round of a grid-stride loop
//   gradus_pointwise_fill(PointwiseFill)
//   blocks of 256 threads; 16 bytes a thread and round of a grid-stride loop
#include "any_runs.cuh"
#include "pointwise.h"

namespace gradus::cuda {
namespace {

template <class C>
__device__ void copy(const PointwiseCopy& a) {
  const int inSize = itemSizeOf(a.inDType), outSize = itemSizeOf(a.outDType);
  for (unsigned unit = blockIdx.x * blockDim.x + threadIdx.x; unit < a.count; unit += gridDim.x * blockDim.x) {
    unsigned row = (__umulhi(unit, a.units.multiplier) + unit) >> a.units.shift;
    const unsigned long long at = static_cast<unsigned long long>(unit - row * a.units.size) * kCopyUnit;
    const char* in = a.in + at * inSize;
    char* out = a.out + at * outSize;
#pragma unroll
    for (int d = kPointwiseRank - 2; d >= 0; --d) {  // unrolled, so that the arguments are read at fixed places
      if (d >= a.rank) continue;
      const unsigned quotient = (__umulhi(row, a.sizes[d].multiplier) + row) >> a.sizes[d].shift;
      const long long index = row - quotient * a.sizes[d].size;
      row = quotient;
      in += index * a.inStrides[d];
      out += index * a.outStrides[d];
    }
    if (at + kCopyUnit <= a.inner) {
      C x[kCopyUnit];
      loadComputed(in, a.inDType, x);
      storeAny(out, a.outDType, x);
    } else {
#pragma unroll 1
      for (int k = 0; k < static_cast<int>(a.inner - at); ++k) {
        store(out + k * outSize, a.outDType, load<C>(in + k * inSize, a.inDType));
      }
    }
  }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256) gradus_pointwise_copy_f32(const PointwiseCopy a) { copy<float>(a); }
extern "C" __global__ void __launch_bounds__(256) gradus_pointwise_copy_f64(const PointwiseCopy a) { copy<double>(a); }
extern "C" __global__ void __launch_bounds__(256) gradus_pointwise_copy_i64(const PointwiseCopy a) { copy<Int64>(a); }

extern "C" __global__ void __launch_bounds__(256) gradus_pointwise_fill(const PointwiseFill a) {
  using Count = unsigned long long;
  const Count first = static_cast<Count>(blockIdx.x) * blockDim.x + threadIdx.x;
  const Count step = static_cast<Count>(gridDim.x) * blockDim.x;
  const Count head = min(static_cast<Count>(-reinterpret_cast<Count>(a.out) & 15), a.bytes);
  const Count vectors = (a.bytes - head) / 16;
  auto* wide = reinterpret_cast<ulonglong2*>(a.out + head);
  for (Count i = first; i < vectors; i += step) wide[i] = make_ulonglong2(a.pattern, a.pattern);
  // at most 15 bytes before the vectors, and as many behind them
  const Count rest = a.bytes - 16 * vectors;
  if (first < rest) {
    char* at = a.out + (first < head ? first : first + 16 * vectors);
    *at = static_cast<char>(a.pattern >> (reinterpret_cast<Count>(at) % 8 * 8));
  }
}

}  // namespace gradus::cuda
