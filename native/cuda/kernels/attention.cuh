// Tiles of 32 queries by 32 keys in shared memory, for the attention kernels without tensor cores.
#pragma once

#include "attention_visible.cuh"

namespace gradus::cuda {

constexpr int kT = kAttentionTile;
constexpr int kAttentionThreads = 256;  // eight a row of a tile

// What one access of 16 bytes moves.
template <class C>
constexpr int kWide = 16 / sizeof(C);
template <class C>
struct alignas(16) Wide {
  C at[kWide<C>];
};

// Rows of a tile lie 16 bytes further apart than they are long: eight neighbouring rows are read from different banks.
template <class C, int kCols>
using Tile = C[kT][kCols + kWide<C>];

template <class C>
__device__ Wide<C> wideAt(const C& x) {
  return *reinterpret_cast<const Wide<C>*>(&x);
}

// Rows [first, end) and `width` columns from `column` on of an operand, as the compute type; zeros beyond the ends. The
// width is a multiple of 16 bytes.
template <class T, int kCols, class C>
__device__ void fetchTile(Tile<C, kCols>& to, const AttentionOperand& x, int batch, int head, int origin, int first,
                          int end, int column, int columns, int width) {
  const T* data = static_cast<const T*>(x.data) + batch * x.batch + head * x.head +
                  static_cast<long long>(origin + first) * x.position;
  const int rows = end - first;
  if constexpr (sizeof(T) == sizeof(C)) {
    constexpr int kPacks = kCols / kWide<C>;
    const bool packed = x.feature == 1 && x.position % kWide<C> == 0 && columns % kWide<C> == 0 &&
                        reinterpret_cast<unsigned long long>(data) % 16 == 0;
    if (packed) {
      const int own = threadIdx.x % kPacks * kWide<C>;
      if (own >= width) return;
#pragma unroll
      for (int i = 0; i < kT * kPacks / kAttentionThreads; ++i) {
        const int row = threadIdx.x / kPacks + i * (kAttentionThreads / kPacks);
        Wide<C> pack{};
        if (row < rows && column + own < columns) pack = wideAt(data[row * x.position + column + own]);
        *reinterpret_cast<Wide<C>*>(&to[row][own]) = pack;
      }
      return;
    }
  }
  const int own = threadIdx.x % kCols, c = column + own;
  if (own >= width) return;
  for (int row = threadIdx.x / kCols; row < kT; row += kAttentionThreads / kCols) {
    to[row][own] = row < rows && c < columns ? static_cast<C>(widen(data[row * x.position + c * x.feature])) : C(0);
  }
}

// Of a tile of scores a thread has one row, and every eighth column.
__device__ inline int ownRow() { return threadIdx.x / 8; }
__device__ inline int ownColumn(int i) { return threadIdx.x % 8 + 8 * i; }

// sums[i] += rows of x times rows of y, over their features.
template <class T, int kCols, class C>
__device__ void dotTile(C (&sums)[kT / 8], Tile<C, kCols>& xs, Tile<C, kCols>& ys, const AttentionOperand& x,
                        const AttentionOperand& y, int batch, int xHead, int yHead, int xOrigin, int xFirst, int xEnd,
                        int yOrigin, int yFirst, int yEnd, int features) {
  for (int column = 0; column < features; column += kCols) {
    const int width = min(kCols, (features - column + kWide<C> - 1) / kWide<C> * kWide<C>);
    __syncthreads();
    fetchTile<T, kCols>(xs, x, batch, xHead, xOrigin, xFirst, xEnd, column, features, width);
    fetchTile<T, kCols>(ys, y, batch, yHead, yOrigin, yFirst, yEnd, column, features, width);
    __syncthreads();
#pragma unroll 2
    for (int c = 0; c < width; c += kWide<C>) {
      const Wide<C> own = wideAt(xs[ownRow()][c]);
#pragma unroll
      for (int i = 0; i < kT / 8; ++i) {
        const Wide<C> other = wideAt(ys[ownColumn(i)][c]);
#pragma unroll
        for (int k = 0; k < kWide<C>; ++k) sums[i] += own.at[k] * other.at[k];
      }
    }
  }
}

// Scores of a tile as a thread has them, with masks; -inf where a key is hidden.
template <class T, int kCols, class C>
__device__ void scoreTile(C (&scores)[kT / 8], Tile<C, kCols>& xs, Tile<C, kCols>& ys, const AttentionArguments& a,
                          const Segment& s, TileKind kind, int head, int firstQuery, int firstKey) {
#pragma unroll
  for (int i = 0; i < kT / 8; ++i) scores[i] = 0;
  dotTile<T, kCols>(scores, xs, ys, a.q, a.k, s.batch, head, head / (a.heads / a.kvHeads), s.firstQuery, firstQuery,
                    s.queries, s.firstKey, firstKey, s.keys, a.dim);
#pragma unroll
  for (int i = 0; i < kT / 8; ++i) {
    const int query = firstQuery + ownRow(), key = firstKey + ownColumn(i);
    if (kind != TileKind::kWhole && !isVisible(a, s, head, query, key)) {
      scores[i] = C(-INFINITY);
      continue;
    }
    scores[i] *= static_cast<C>(a.scale);
    if (a.mask) scores[i] += maskValue<C>(a, s, head, query, key);
  }
}

}  // namespace gradus::cuda
