// The 256 values that 8-bit optimizer states can have, as shares of their block's largest magnitude: 7 decades, each
// with twice as many evenly spaced values as the one below, so that small values keep their order of magnitude and
// large ones two digits. Dettmers et al. 2022, arXiv:2110.02861, section 2.1; the values of bitsandbytes'
// create_dynamic_map.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "element.h"

namespace gradus::cpu {

struct DynamicMap {
  // Cells are what a float in [0, 1] is but for its low 16 bits: none has two borders between neighbouring values, so
  // that the nearest value is found by one look-up and one comparison.
  static constexpr int32_t kFirstCell = 104 << 7;  // 2^-23, below half the smallest value
  static constexpr int kCells = (127 << 7) - kFirstCell + 1;

  float values[256];      // by code, ascending
  float borders[257];     // by magnitude: half way to the next one; infinity after the last
  int32_t cells[kCells];  // the nearest magnitude to the lowest float of a cell
  int32_t zero;           // code of 0; magnitude k is code zero + k, and zero - k where signed
  int32_t negatives;      // magnitudes that have a negative code

  explicit DynamicMap(bool isSigned) {
    double magnitudes[256];
    int count = 0;
    magnitudes[count++] = 0;
    double decade = 1e-6;
    for (int i = 0; i < 7; ++i, decade *= 10) {
      const int steps = isSigned ? 1 << i : 2 << i;
      for (int j = 0; j < steps; ++j) magnitudes[count++] = decade * (0.1 + 0.9 * (j + 0.5) / steps);
    }
    negatives = isSigned ? count - 1 : 0;
    zero = negatives;
    magnitudes[count++] = 1;
    for (int k = 0; k < count; ++k) values[zero + k] = static_cast<float>(magnitudes[k]);
    for (int k = 1; k <= negatives; ++k) values[zero - k] = static_cast<float>(-magnitudes[k]);
    for (int k = 0; k < 257; ++k) {
      borders[k] = k + 1 < count ? static_cast<float>((magnitudes[k] + magnitudes[k + 1]) / 2)
                                 : std::numeric_limits<float>::infinity();
    }
    int32_t nearest = 0;
    for (int c = 0; c < kCells; ++c) {
      const float lowest = bitCast<float>(static_cast<uint32_t>(kFirstCell + c) << 16);
      while (lowest > borders[nearest]) ++nearest;
      cells[c] = nearest;
    }
  }

  static const DynamicMap& of(bool isSigned) {
    static const DynamicMap withSign(true), without(false);
    return isSigned ? withSign : without;
  }
};

}  // namespace gradus::cpu
