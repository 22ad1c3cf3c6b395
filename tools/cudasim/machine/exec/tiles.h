// The 8 x 8 matrices of 16-bit numbers that ldmatrix, movmatrix and mma hand round.
//
// A register of a warp holds such a matrix row by row: lane 4 g + t has the pair of row g at columns 2 t and 2 t + 1,
// so the 32 words lie in memory as the 64 numbers do.
#pragma once

#include <cstring>

#if defined(__F16C__)
#include <immintrin.h>
#endif

#include "numerics.h"

namespace cudasim {
namespace CUDASIM_ISA {

inline void transpose(const uint16_t* from, uint16_t* to) {
#if defined(__AVX512BW__)
  // Two permutes of all 64 numbers.
  alignas(64) static constexpr auto places = [] {
    struct {
      uint16_t at[64];
    } p{};
    for (int i = 0; i < 64; ++i) p.at[i] = static_cast<uint16_t>(i % 8 * 8 + i / 8);
    return p;
  }();
  const __m512i low = _mm512_loadu_si512(from), high = _mm512_loadu_si512(from + 32);
  _mm512_storeu_si512(to, _mm512_permutex2var_epi16(low, _mm512_load_si512(places.at), high));
  _mm512_storeu_si512(to + 32, _mm512_permutex2var_epi16(low, _mm512_load_si512(places.at + 32), high));
#else
  uint16_t turned[64];  // as `to` may be `from`
  for (int row = 0; row < 8; ++row)
    for (int column = 0; column < 8; ++column) turned[row * 8 + column] = from[column * 8 + row];
  std::memcpy(to, turned, sizeof turned);
#endif
}

inline void widen(F16, const uint16_t* from, float* to) {
#if defined(__AVX512F__)
  for (int i = 0; i < 64; i += 16)
    _mm512_storeu_ps(to + i,
                     _mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i))));
#elif defined(__F16C__)
  for (int i = 0; i < 64; i += 8)
    _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i))));
#else
  for (int i = 0; i < 64; ++i) to[i] = toFloat(F16{from[i]});
#endif
}

inline void widen(BF16, const uint16_t* from, float* to) {
  for (int i = 0; i < 64; ++i) to[i] = toFloat(BF16{from[i]});
}

}  // namespace CUDASIM_ISA
}  // namespace cudasim
