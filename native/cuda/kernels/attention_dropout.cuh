// Dropout of scores as a warp of tensor cores holds them, as bits of what is dropped. Four neighbouring keys share a
// counter of philox, and lanes that share some make each of them once.
#pragma once

#include "attention_visible.cuh"

namespace gradus::cuda {

// Of four scores of a thread, two rows 8 apart and two neighbouring columns: bit 2 * row + column.
template <bool kByKey>
__device__ unsigned droppedEach(const AttentionArguments& a, const Segment& s, int head, int query, int key) {
  unsigned bits = 0;
#pragma unroll 1
  for (int i = 0; i < 4; ++i) {
    const int row = i / 2 * 8, col = i % 2;
    const unsigned long long element = elementOf(a, s, head, query + (kByKey ? col : row), key + (kByKey ? row : col));
    const PhiloxBlock words = dropWords(element / 4);
    if (wordOf(words, element % 4) < a.threshold) bits |= 1u << i;
  }
  return bits;
}

// Rows are queries: of queries `query` and query + 8, and keys `key` and the next.
__device__ inline unsigned droppedByQuery(const AttentionArguments& a, const Segment& s, int head, int query, int key) {
  if (a.keys % 4 != 0) return droppedEach<false>(a, s, head, query, key);
  // two neighbouring lanes have four keys of two rows: a row each
  const bool odd = threadIdx.x % 2;
  const PhiloxBlock words = dropWords(elementOf(a, s, head, query + odd * 8, key) / 4);
  const auto drops = [&](unsigned word, unsigned bit) { return word < a.threshold ? bit : 0u; };
  const unsigned row =
      drops(words.lane[0], 1) | drops(words.lane[1], 2) | drops(words.lane[2], 4) | drops(words.lane[3], 8);
  const unsigned other = __shfl_xor_sync(~0u, row, 1);
  return odd ? (other >> 2 & 3) | (row & 12) : (row & 3) | (other & 3) << 2;
}

// Rows are keys: of keys `key` and key + 8, and queries `query` and the next.
__device__ inline unsigned droppedByKey(const AttentionArguments& a, const Segment& s, int head, int query, int key) {
  if (a.keys % 4 != 0) return droppedEach<true>(a, s, head, query, key);
  // four lanes have a key each of the same four, in four rows: a row each
  const unsigned own = threadIdx.x / 4 % 4, first = threadIdx.x % 32 - own * 4;
  const PhiloxBlock words = dropWords(elementOf(a, s, head, query + own % 2, key + own / 2 * 8) / 4);
  const auto drops = [&](unsigned word, unsigned bit) { return word < a.threshold ? bit : 0u; };
  const unsigned row =
      drops(words.lane[0], 1) | drops(words.lane[1], 2) | drops(words.lane[2], 4) | drops(words.lane[3], 8);
  unsigned bits = 0;
#pragma unroll
  for (unsigned i = 0; i < 4; ++i) bits |= (__shfl_sync(~0u, row, first + i * 4) >> own & 1) << i;
  return bits;
}

// The bits of kCols columns, four each 8 of them.
template <bool kByKey, int kCols>
__device__ unsigned droppedOf(const AttentionArguments& a, const Segment& s, int head, int row, int col) {
  static_assert(kCols <= 64);
  unsigned bits = 0;
#pragma unroll 2
  for (int j = 0; j < kCols / 8; ++j) {
    const unsigned four =
        kByKey ? droppedByKey(a, s, head, col + j * 8, row) : droppedByQuery(a, s, head, row, col + j * 8);
    bits |= four << j * 4;
  }
  return bits;
}

// Zeros what is dropped; what stays is to be multiplied with a.keep.
template <int kCols>
__device__ void drop(float (&x)[kCols / 8][4], unsigned dropped) {
#pragma unroll
  for (int i = 0; i < kCols / 2; ++i) {
    if (dropped >> i & 1) x[i / 4][i % 4] = 0;
  }
}

}  // namespace gradus::cuda
