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

  // Which scores are hidden, as bits. Along a row the visible ones are neighbours unless a mask says otherwise.
  __device__ unsigned hidden(int row, bool byMask) const {
    if (byMask || a.blockMask != nullptr) return hiddenEach(row, byMask);
    unsigned bits = 0;
#pragma unroll 1
    for (int half = 0; half < 2; ++half) {
      const long long own = row + half * 8;
      const bool inside = own < (kByQuery ? s.queries : s.keys);
      const long long first = kByQuery ? own + s.shift - a.left : own - s.shift - a.right;
      const long long last = kByQuery ? own + s.shift + a.right : own - s.shift + a.left;
      const int end = kByQuery ? s.keys : s.queries;
      const auto within = [&](long long column) {
        return static_cast<int>(min(max(column - col, 0LL), static_cast<long long>(kCols)));
      };
      const int from = within(first), to = inside ? within(min(last + 1, static_cast<long long>(end))) : 0;
      unsigned ofRow = 0;
#pragma unroll
      for (int j = 0; j < kCols / 8; ++j) {
#pragma unroll
        for (int side = 0; side < 2; ++side) {
          if (j * 8 + side < from || j * 8 + side >= to) ofRow |= 1u << (j * 4 + side);
        }
      }
      bits |= ofRow << half * 2;
    }
    return bits;
  }

  // The loop stays one, where registers would have it written out.
  __device__ unsigned hiddenEach(int row, bool byMask) const {
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
