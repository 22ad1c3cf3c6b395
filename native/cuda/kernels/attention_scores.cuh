// Scores as a warp of tensor cores holds them: scaled, with their mask, -inf where a key is hidden.
#pragma once

#include "attention_visible.cuh"

namespace gradus::cuda {

// Scores of rows r, r + 8 (and 16 further for each atom) and pairs of columns; kByQuery: rows are queries and columns
// keys, else the other way round.
template <bool kByQuery, int kAtoms, int kCols>
struct ScoreTile {
  static_assert(kCols <= 64);

  const AttentionArguments& a;
  const Segment& s;
  int head, row, col;  // of the thread's first score

  // Adds a mask of float32.
  __device__ void addMask(float (&x)[kCols / 8][4], int row) const {
    const float* mask = static_cast<const float*>(a.mask) + s.batch * a.maskStrides[0] + head * a.maskStrides[1];
#pragma unroll
    for (int i = 0; i < kCols / 2; ++i) {
      const int r = row + i / 2 % 2 * 8, c = col + i / 4 * 8 + i % 2, query = kByQuery ? r : c, key = kByQuery ? c : r;
      if (query < s.queries && key < s.keys) {
        x[i / 4][i % 4] += mask[query * a.maskStrides[2] + key * a.maskStrides[3]];
      }
    }
  }

  // Which scores are hidden, as bits: the loop stays one, where registers would have it written out.
  __device__ unsigned hidden(int row, bool byMask) const {
    const auto* mask = static_cast<const unsigned char*>(a.mask) + s.batch * a.maskStrides[0] + head * a.maskStrides[1];
    unsigned bits = 0;
#pragma unroll 1
    for (int j = 0; j < kCols / 8; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int r = row + i / 2 * 8, c = col + j * 8 + i % 2, query = kByQuery ? r : c, key = kByQuery ? c : r;
        bool visible = isVisible(a, s, head, query, key);
        if (byMask && visible) visible = mask[query * a.maskStrides[2] + key * a.maskStrides[3]] != 0;
        if (!visible) bits |= 1u << (j * 4 + i);
      }
    }
    return bits;
  }

  // Products become scores.
  __device__ void finish(float (&x)[kAtoms][kCols / 8][4], TileKind kind, float scale) const {
    const bool masked = a.mask != nullptr, byBits = masked && static_cast<DType>(a.maskDType) == DType::kBool;
#pragma unroll
    for (int i = 0; i < kAtoms; ++i) {
#pragma unroll
      for (int j = 0; j < kCols / 2; ++j) x[i][j / 4][j % 4] *= scale;
      if (masked && !byBits) addMask(x[i], row + i * 16);
      if (kind == TileKind::kWhole && !byBits) continue;
      const unsigned bits = hidden(row + i * 16, byBits);
#pragma unroll
      for (int j = 0; j < kCols / 2; ++j) {
        if (bits >> j & 1) x[i][j / 4][j % 4] = -INFINITY;
      }
    }
  }
};

}  // namespace gradus::cuda
