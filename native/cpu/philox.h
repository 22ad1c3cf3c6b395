// philox4x32-10, the counter-based generator behind every random operator (Salmon et al. 2011, "Parallel random
// numbers: as easy as 1, 2, 3", section 3.3): ten rounds of two 32 x 32 -> 64 bit products turn a 128-bit counter and a
// 64-bit key into four words. No state, so an element's word does not depend on threads or vector width.
//
// Word i of a stream is lane i mod 4 of the counter whose low 64 bits are offset + i / 4 and whose high 64 bits are 0.
// Where 32 bits do not do (float64, wide integer ranges, shuffles), the same word of the stream with high bits 1
// follows it, so that every dtype consumes n / 4 counters.
#pragma once

#include <cstdint>

namespace gradus::cpu {

struct Philox {
  static constexpr int kRounds = 10;
  static constexpr uint32_t kMul0 = 0xD2511F53, kMul1 = 0xCD9E8D57;    // products of the two halves
  static constexpr uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;  // golden ratio, sqrt(3) - 1: added to the key

  uint64_t key, offset;
  uint64_t high = 0;

  struct Block {
    uint32_t lane[4];
  };

  Block block(uint64_t i) const {
    const uint64_t low = offset + i;
    uint32_t c0 = static_cast<uint32_t>(low), c1 = static_cast<uint32_t>(low >> 32);
    uint32_t c2 = static_cast<uint32_t>(high), c3 = static_cast<uint32_t>(high >> 32);
    uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
    for (int round = 0; round < kRounds; ++round) {
      const uint64_t p0 = uint64_t{kMul0} * c0, p1 = uint64_t{kMul1} * c2;
      c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
      c1 = static_cast<uint32_t>(p1);
      c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
      c3 = static_cast<uint32_t>(p0);
      k0 += kWeyl0;
      k1 += kWeyl1;
    }
    return {{c0, c1, c2, c3}};
  }

  uint32_t word(uint64_t i) const { return block(i / 4).lane[i % 4]; }

  uint64_t wideWord(uint64_t i) const { return static_cast<uint64_t>(word(i)) << 32 | Philox{key, offset, 1}.word(i); }
};

// dropout keeps an element where word >= threshold.
inline uint32_t dropThreshold(double p) {
  const double scaled = p * 0x1p32 + 0.5;
  return scaled >= 0x1p32 ? 0xffffffffu : static_cast<uint32_t>(scaled);
}

}  // namespace gradus::cpu
