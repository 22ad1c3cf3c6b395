// philox4x32-10 (Salmon et al. 2011, section 3.3): the words of native/cpu/philox.h, to the bit. Word i of a stream is
// lane i mod 4 of the counter offset + i / 4; a wide word has the word of the stream with high bits 1 below it.
#pragma once

#include "random.h"

namespace gradus::cuda {

struct PhiloxBlock {
  unsigned lane[4];
};

// The stream of the step that is under way.
__device__ inline PhiloxStream present(const PhiloxStream& stream) {
  if (stream.cell == nullptr) return stream;
  return {stream.cell->key, stream.offset + stream.cell->moved, nullptr};
}

// The words of a counter, whose high half is `high`.
__device__ inline PhiloxBlock philoxWords(unsigned long long key, unsigned long long counter, unsigned high = 0) {
  unsigned c0 = static_cast<unsigned>(counter), c1 = static_cast<unsigned>(counter >> 32), c2 = high, c3 = 0;
  unsigned k0 = static_cast<unsigned>(key), k1 = static_cast<unsigned>(key >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const unsigned long long p0 = 0xD2511F53ull * c0, p1 = 0xCD9E8D57ull * c2;
    c0 = static_cast<unsigned>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<unsigned>(p1);
    c2 = static_cast<unsigned>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<unsigned>(p0);
    k0 += 0x9E3779B9;  // golden ratio, sqrt(3) - 1
    k1 += 0xBB67AE85;
  }
  return {{c0, c1, c2, c3}};
}

__device__ inline PhiloxBlock philoxBlock(const PhiloxStream& stream, unsigned long long i, unsigned high = 0) {
  return philoxWords(stream.key, stream.offset + i, high);
}

// The four wide words of a counter.
__device__ inline void philoxWide(const PhiloxStream& stream, unsigned long long i, unsigned long long (&words)[4]) {
  const PhiloxBlock high = philoxBlock(stream, i), low = philoxBlock(stream, i, 1);
#pragma unroll
  for (int k = 0; k < 4; ++k) words[k] = static_cast<unsigned long long>(high.lane[k]) << 32 | low.lane[k];
}

// Wide word i of a stream.
__device__ inline unsigned long long philoxWideWord(const PhiloxStream& stream, unsigned long long i) {
  unsigned long long words[4];
  philoxWide(stream, i / 4, words);
  const bool odd = i & 1;  // chosen, not indexed: words stay in registers
  return i & 2 ? (odd ? words[3] : words[2]) : (odd ? words[1] : words[0]);
}

// In [0, 1).
__device__ inline double philoxUnit(const PhiloxStream& stream, unsigned long long i) {
  return static_cast<double>(philoxWideWord(stream, i) >> 11) * 0x1p-53;
}

}  // namespace gradus::cuda
