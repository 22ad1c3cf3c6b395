// The 256 values of 8-bit optimizer states, as shares of their block's largest magnitude: those of native/cpu/
// dynamic_map.h, which says why they are what they are, to the bit. Formulas follow native/cpu/optim8.cc, with every
// product and sum rounded where it is there.
#pragma once

#include "element.cuh"

namespace gradus::cuda {

struct MapTables {
  float slope[8], start[8];    // by decade: value = slope (1 + f) + start
  float border[8];             // to the next decade
  float density[8], first[8];  // number in the decade of the nearest value = density x + first, rounded
  float least;                 // what is below it is 0
};

constexpr MapTables mapTables(bool isSigned) {
  constexpr double tops[] = {1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1};
  double steps[7] = {}, lowest[8] = {};
  for (int i = 0; i < 7; ++i) {
    steps[i] = double(1 << (i + (isSigned ? 0 : 1)));
    lowest[i] = tops[i] * (0.1 + 0.45 / steps[i]);
  }
  lowest[7] = 1;
  MapTables t{};
  for (int i = 0; i < 7; ++i) {
    t.slope[i] = static_cast<float>(0.9 * tops[i]);
    t.start[i] = static_cast<float>(tops[i] * (0.45 / steps[i] - 0.8));
    t.border[i] = static_cast<float>((tops[i] * (1 - 0.45 / steps[i]) + lowest[i + 1]) / 2);
    t.density[i] = static_cast<float>(steps[i] / 0.9 / tops[i]);
    t.first[i] = static_cast<float>(-steps[i] / 9 - 0.5);
  }
  t.start[7] = 1;
  t.border[7] = 2;
  t.least = static_cast<float>(lowest[0] / 2);
  return t;
}

__constant__ MapTables kMapTables[2] = {mapTables(false), mapTables(true)};

// One of the two maps. Tables lie in shared memory: the lanes of a warp look up different decades.
template <bool isSigned>
struct DynamicMap {
  static constexpr int kOffset = isSigned ? 0 : 1, kZero = isSigned ? 127 : 0;
  const MapTables& t;

  __device__ float value(unsigned code, float magnitude) const {
    const int k = static_cast<int>(code) - kZero;
    const int bits = __float_as_int(static_cast<float>((isSigned ? abs(k) : k) + kOffset));
    const int decade = ((bits >> 23) - (127 + kOffset)) & 7;
    const float mantissa = __int_as_float((bits & 0x7fffff) | 0x3f800000);
    float share = k == 0 ? 0.0f : __fmaf_rn(t.slope[decade], mantissa, t.start[decade]);
    if (k < 0) share = -share;
    return __fmul_rn(share, magnitude);
  }

  // The code of the value nearest to x; `inverse` of the magnitude.
  __device__ unsigned code(float x, float inverse) const {
    constexpr float kDecade = 0.30103f / (1 << 23), kFloor = 0.5f;
    const float share = __fmul_rn(fabsf(x), inverse);
    const float logarithm =
        __fmaf_rn(static_cast<float>(__float_as_int(share)), kDecade, 7 - 0.31f - kFloor - 0.30103f * 127);
    const int guess = rounded(fmaxf(logarithm, 0.0f)) & 7;
    const int decade = guess + (share > t.border[guess] ? 1 : 0);
    const int base = 1 << (kOffset + decade);
    const float place = __fmaf_rn(t.density[decade], share, t.first[decade]);
    int k = base + min(rounded(fmaxf(place, 0.0f)), base - 1) - kOffset;
    if (!(isSigned ? share > t.least : x > 0)) k = 0;
    if (isSigned && x < 0) k = -min(k, kZero);
    return static_cast<unsigned>(k + kZero);
  }

 private:
  // Adding the shifter rounds to an integer and leaves that in the low bits.
  static __device__ int rounded(float x) {
    constexpr float kShifter = 0x1.8p23f;
    return __float_as_int(__fadd_rn(x, kShifter)) - __float_as_int(kShifter);
  }
};

// 0 for nothing but zeros, or subnormals that count as such.
__device__ inline float inverseOf(float magnitude) {
  const float inverse = 1 / magnitude;
  return fabsf(inverse) < INFINITY ? inverse : 0.0f;
}

}  // namespace gradus::cuda
