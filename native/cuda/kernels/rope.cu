// Rotary position embedding (Su et al. 2021, arXiv:2104.09864) on operands of any strides; see native/cpu/rope.cc for
// its forms. A thread turns two runs of features: of the two halves of a row, or side by side when pairs are
// interleaved.
//
//   gradus_rope_rotate_<dtype>(RopeRotate): blocks of 256 threads, one unit a thread and round of a grid-stride loop
#include "packs.cuh"
#include "rope.h"

namespace gradus::cuda {
namespace {

__device__ unsigned quotientOf(unsigned i, const Divider& by) { return (__umulhi(i, by.multiplier) + i) >> by.shift; }

template <class C>
__device__ void turn(C& a, C& b, C cosA, C cosB, C sinA, C sinB, bool inverse) {
  // the sine beside b's angle moves a into b', so the transpose reads it for a
  const C toA = inverse ? b * sinB : -(b * sinA), toB = inverse ? -(a * sinA) : a * sinB;
  a = a * cosA + toA;
  b = b * cosB + toB;
}

template <class T, int kWidth>
__device__ void rotateRuns(const RopeRotate& a) {
  using C = Compute<T>;
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < a.count; i += gridDim.x * blockDim.x) {
    unsigned row = quotientOf(i, a.units);
    const unsigned unit = i - row * a.units.size;
    const long long runs[2] = {
        static_cast<long long>(unit) * kWidth * (a.interleaved ? 2 : 1),
        static_cast<long long>(unit) * kWidth * (a.interleaved ? 2 : 1) + (a.interleaved ? kWidth : a.half)};
    long long offsets[kRopeOperands] = {};
#pragma unroll
    for (int d = kPointwiseRank - 1; d >= 0; --d) {  // unrolled, so that the arguments are read at fixed places
      if (d >= a.rank) continue;
      const unsigned quotient = quotientOf(row, a.sizes[d]);
      const long long index = row - quotient * a.sizes[d].size;
      row = quotient;
#pragma unroll
      for (int k = 0; k < kRopeOperands; ++k) offsets[k] += index * a.operands[k].strides[d];
    }
    const auto placeOf = [&](int operand, int run) { return offsets[operand] + runs[run] * a.operands[operand].along; };
    C x[2][kWidth], cosine[2][kWidth], sine[2][kWidth];
#pragma unroll
    for (int run = 0; run < 2; ++run) {
      loadRun(static_cast<const T*>(a.operands[kRopeX].data) + placeOf(kRopeX, run), x[run]);
      loadRun(a.operands[kRopeCos].data, a.tableDType, placeOf(kRopeCos, run), cosine[run]);
      loadRun(a.operands[kRopeSin].data, a.tableDType, placeOf(kRopeSin, run), sine[run]);
    }
    if (kWidth > 1 && a.interleaved) {
#pragma unroll
      for (int run = 0; run < 2; ++run) {
#pragma unroll
        for (int k = 0; k + 1 < kWidth; k += 2) {
          turn(x[run][k], x[run][k + 1], cosine[run][k], cosine[run][k + 1], sine[run][k], sine[run][k + 1], a.inverse);
        }
      }
    } else {
#pragma unroll
      for (int k = 0; k < kWidth; ++k) {
        turn(x[0][k], x[1][k], cosine[0][k], cosine[1][k], sine[0][k], sine[1][k], a.inverse);
      }
    }
#pragma unroll
    for (int run = 0; run < 2; ++run) {
      storeRun(static_cast<T*>(a.operands[kRopeOut].data) + placeOf(kRopeOut, run), x[run]);
    }
  }
}

template <class T>
__device__ void rotate(const RopeRotate& a) {
  if (a.packed)
    rotateRuns<T, kWide<T>>(a);
  else
    rotateRuns<T, 1>(a);
}

}  // namespace

#define GRADUS_ROPE(dtype, T)                                                                                          \
  extern "C" __global__ void __launch_bounds__(256) gradus_rope_rotate_##dtype(const __grid_constant__ RopeRotate a) { \
    rotate<T>(a);                                                                                                      \
  }

GRADUS_ROPE(float32, float)
GRADUS_ROPE(float64, double)
GRADUS_ROPE(float16, __half)
GRADUS_ROPE(bfloat16, __nv_bfloat16)

}  // namespace gradus::cuda
