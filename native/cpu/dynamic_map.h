// The 256 values that 8-bit optimizer states can have, as shares of their block's largest magnitude: 7 decades, each
// with twice as many evenly spaced values as the one below, so that small values keep their order of magnitude and
// large ones two digits. Dettmers et al. 2022, arXiv:2110.02861, section 2.1; the values of bitsandbytes'
// create_dynamic_map.
//
// Magnitude k > 0 is written q = k + offset = 2^e (1 + f): its decade is e - offset, and f says how far it lies in it.
// So a value is computed from its code, and the nearest code from a value, with tables of 8 entries that fit a vector
// register: look-ups among 256 took 9 times as long as all of the rest.
#pragma once

#include <cmath>
#include <cstdint>

namespace gradus::cpu {

struct DynamicMap {
  static constexpr int kDecades = 7;  // and behind them, as number 7, the value 1

  // By decade, twice: a vector of 16 lanes is filled. value = slope (1 + f) + start
  alignas(64) float slope[16], start[16];
  // The border to the next decade, half way between its lowest value and the highest below it.
  alignas(64) float border[16];
  // Number in the decade of the nearest value = density x + first, rounded, within bounds
  alignas(64) float density[16], first[16];
  float least;           // half the smallest value: what is below it is 0
  int32_t offset;        // 0 with sign, 1 without
  int32_t zero;          // code of 0; magnitude k has code zero + k, and zero - k with sign
  int32_t mostNegative;  // magnitudes that have a negative code

  explicit DynamicMap(bool isSigned) : offset(isSigned ? 0 : 1), zero(isSigned ? 127 : 0), mostNegative(zero) {
    const auto steps = [&](int decade) { return std::ldexp(1.0, decade + offset); };
    const auto top = [&](int decade) { return std::pow(10, decade + 1 - kDecades); };
    const auto lowest = [&](int decade) { return decade < kDecades ? top(decade) * (0.1 + 0.45 / steps(decade)) : 1; };
    const auto highest = [&](int decade) { return top(decade) * (1 - 0.45 / steps(decade)); };
    for (int i = 0; i < 16; ++i) {
      const int decade = i % 8;
      const bool one = decade == kDecades;
      slope[i] = one ? 0 : static_cast<float>(0.9 * top(decade));
      start[i] = one ? 1 : static_cast<float>(top(decade) * (0.45 / steps(decade) - 0.8));
      border[i] = one ? 2 : static_cast<float>((highest(decade) + lowest(decade + 1)) / 2);
      density[i] = one ? 0 : static_cast<float>(steps(decade) / 0.9 / top(decade));
      first[i] = one ? 0 : static_cast<float>(-steps(decade) / 9 - 0.5);
    }
    least = static_cast<float>(lowest(0) / 2);
  }

  static const DynamicMap& of(bool isSigned) {
    static const DynamicMap withSign(true), without(false);
    return isSigned ? withSign : without;
  }
};

}  // namespace gradus::cpu
