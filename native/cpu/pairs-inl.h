// Instructions of AVX512-BF16, which multiply pairs of bfloat16 and add both products to a float32. They read subnormal
// numbers as zero and round to nearest even.
//
// By name: Highway 1.0 has neither the instructions nor a target for them, and for intrinsics all callers had to be
// compiled for a processor that has them. multipliesPairs() (gemm.h) says at run time whether this one does.
#if defined(GRADUS_CPU_PAIRS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GRADUS_CPU_PAIRS_INL_H_
#undef GRADUS_CPU_PAIRS_INL_H_
#else
#define GRADUS_CPU_PAIRS_INL_H_
#endif

#include "simd.h"

#undef GRADUS_PAIRS
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3
#define GRADUS_PAIRS 1
#else
#define GRADUS_PAIRS 0
#endif

#if GRADUS_PAIRS
HWY_BEFORE_NAMESPACE();
namespace gradus::cpu::HWY_NAMESPACE {

using FloatVector = hn::Vec<hn::ScalableTag<float>>;  // pairs travel as the bits of floats

// sum + a.first b.first + a.second b.second in every lane
HWY_INLINE FloatVector addPairProduct(FloatVector sum, FloatVector a, FloatVector b) {
  asm("vdpbf16ps %2, %1, %0" : "+v"(sum.raw) : "v"(a.raw), "v"(b.raw));
  return sum;
}

// The bits of 16 bfloat16.
HWY_INLINE __m256i roundToHalves(FloatVector v) {
  __m256i bits;
  asm("vcvtneps2bf16 %1, %0" : "=v"(bits) : "v"(v.raw));
  return bits;
}

// The bits of 32: first, then second.
HWY_INLINE __m512i roundToHalves(FloatVector first, FloatVector second) {
  __m512i bits;
  asm("vcvtne2ps2bf16 %1, %2, %0" : "=v"(bits) : "v"(first.raw), "v"(second.raw));
  return bits;
}

}  // namespace gradus::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // GRADUS_PAIRS

#endif  // per-target include guard
