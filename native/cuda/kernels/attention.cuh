// Tiles of 32 queries by 32 keys in shared memory, for the attention kernels without tensor cores.
#pragma once

#include "attention_visible.cuh"

namespace gradus::cuda {

constexpr int kT = kAttentionTile;
constexpr int kAttentionThreads = 256;  // eight a row of a tile

// Rows [first, end) and kCols columns from `column` on of an operand, as the compute type; zeros beyond the ends.
template <class T, int kCols, class C>
__device__ void fetchTile(C (&to)[kT][kCols + 1], const AttentionOperand& x, int batch, int head, int origin, int first,
                          int end, int column, int columns) {
  const T* data = static_cast<const T*>(x.data) + batch * x.batch + head * x.head;
  for (int i = threadIdx.x; i < kT * kCols; i += kAttentionThreads) {
    const int row = first + i / kCols, c = column + i % kCols;
    to[i / kCols][i % kCols] =
        row < end && c < columns ? static_cast<C>(widen(data[(origin + row) * x.position + c * x.feature])) : C(0);
  }
}

// Of a tile of scores a thread has one row, and every eighth column.
__device__ inline int ownRow() { return threadIdx.x / 8; }
__device__ inline int ownColumn(int i) { return threadIdx.x % 8 + 8 * i; }

// sums[i] += rows of x times rows of y, over their features.
template <class T, int kCols, class C>
__device__ void dotTile(C (&sums)[kT / 8], C (&xs)[kT][kCols + 1], C (&ys)[kT][kCols + 1], const AttentionOperand& x,
                        const AttentionOperand& y, int batch, int xHead, int yHead, int xOrigin, int xFirst, int xEnd,
                        int yOrigin, int yFirst, int yEnd, int features) {
  for (int column = 0; column < features; column += kCols) {
    __syncthreads();
    fetchTile<T, kCols>(xs, x, batch, xHead, xOrigin, xFirst, xEnd, column, features);
    fetchTile<T, kCols>(ys, y, batch, yHead, yOrigin, yFirst, yEnd, column, features);
    __syncthreads();
    for (int c = 0; c < kCols; ++c) {
      const C own = xs[ownRow()][c];
#pragma unroll
      for (int i = 0; i < kT / 8; ++i) sums[i] += own * ys[ownColumn(i)][c];
    }
  }
}

// Scores of a tile as a thread has them, with masks; -inf where a key is hidden.
template <class T, int kCols, class C>
__device__ void scoreTile(C (&scores)[kT / 8], C (&xs)[kT][kCols + 1], C (&ys)[kT][kCols + 1],
                          const AttentionArguments& a, const Segment& s, int head, int firstQuery, int firstKey) {
#pragma unroll
  for (int i = 0; i < kT / 8; ++i) scores[i] = 0;
  dotTile<T, kCols>(scores, xs, ys, a.q, a.k, s.batch, head, head / (a.heads / a.kvHeads), s.firstQuery, firstQuery,
                    s.queries, s.firstKey, firstKey, s.keys, a.dim);
#pragma unroll
  for (int i = 0; i < kT / 8; ++i) {
    const int query = firstQuery + ownRow(), key = firstKey + ownColumn(i);
    if (!isVisible(a, s, head, query, key)) {
      scores[i] = C(-INFINITY);
      continue;
    }
    scores[i] *= static_cast<C>(a.scale);
    if (a.mask) scores[i] += maskValue<C>(a, s, head, query, key);
  }
}

}  // namespace gradus::cuda
