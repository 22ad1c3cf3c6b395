// A small generator for orders and perturbations (splitmix64, Steele et al. 2014).
#pragma once

#include <cstdint>

namespace cudasim {

struct Random {
  uint64_t state = 0;
  uint64_t next() {
    uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  uint32_t below(uint32_t n) { return static_cast<uint32_t>((next() >> 32) * n >> 32); }
};

}  // namespace cudasim
