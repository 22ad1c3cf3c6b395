// What attention on tensor cores is made of: rows of heads in shared memory, products of their fragments, and scores as
// a warp holds them. A warp owns 16 rows (queries, or keys where sums run over queries) or 32; probabilities stay in
// its registers between the two products, for the sums of the first lie in them as the second wants its left operand.
#pragma once

#include "attention_dropout.cuh"
#include "attention_scores.cuh"
#include "mma.cuh"

namespace gradus::cuda {

constexpr int kHeadThreads = kAttentionMmaThreads;

extern __shared__ uint4 dynamicShared[];

// Rows of one head: kDim 16-bit features each, in chunks of 16 bytes, permuted so that the eight rows that ldmatrix
// reads at a time lie in different banks.
template <class T, int kDim>
struct HeadRows {
  static constexpr int kChunks = kDim / 8;

  __device__ static int place(int row, int chunk) {
    return row * kDim + (kDim == 32 ? chunk ^ (row >> 1 & 3) : chunk ^ (row & 7)) * 8;
  }

  // Starts copying kRows rows of x from row `first` on; zeros from row `end` and feature `features` on.
  template <int kRows>
  __device__ static void fetch(T* tile, const AttentionOperand& x, const T* head, int first, int end, int features) {
    constexpr int kCopies = kRows * kChunks;
    static_assert(kCopies % kHeadThreads == 0);
    const auto validAt = [&](int row, int chunk) {
      return first + row < end ? max(0, min(8, features - chunk * 8)) : 0;
    };
    if (x.vectors) {
#pragma unroll
      for (int i = 0; i < kCopies / kHeadThreads; ++i) {
        const int at = i * kHeadThreads + threadIdx.x, row = at / kChunks, chunk = at % kChunks;
        const int valid = validAt(row, chunk);
        copyAsync(tile + place(row, chunk), valid > 0 ? head + (first + row) * x.position + chunk * 8 : head,
                  valid * 2);
      }
      return;
    }
#pragma unroll 1
    for (int at = threadIdx.x; at < kCopies; at += kHeadThreads) {
      const int row = at / kChunks, chunk = at % kChunks, valid = validAt(row, chunk);
      const auto* from =
          reinterpret_cast<const unsigned short*>(head) + (first + row) * x.position + chunk * 8 * x.feature;
      unsigned words[4] = {};
#pragma unroll
      for (int lane = 0; lane < 8; ++lane) {
        const unsigned bits = lane < valid ? from[lane * x.feature] : 0;
        words[lane / 2] |= bits << lane % 2 * 16;
      }
      *reinterpret_cast<uint4*>(tile + place(row, chunk)) = make_uint4(words[0], words[1], words[2], words[3]);
    }
  }

  // 16 rows of a left operand, summed over 16 features.
  __device__ static void left(unsigned (&to)[4], const T* tile, int row, int feature) {
    const int lane = threadIdx.x % 32;
    loadMatrices(to, tile + place(row + lane % 16, feature / 8 + lane / 16));
  }
  // 16 rows of a right operand (columns of the result), summed over 16 features.
  __device__ static void right(unsigned (&to)[4], const T* tile, int row, int feature) {
    const int lane = threadIdx.x % 32;
    loadMatrices(to, tile + place(row + lane % 8 + lane / 16 * 8, feature / 8 + lane / 8 % 2));
  }
  // 16 features of a right operand, summed over 16 rows.
  __device__ static void across(unsigned (&to)[4], const T* tile, int row, int feature) {
    const int lane = threadIdx.x % 32;
    loadTransposed(to, tile + place(row + lane % 16, feature / 8 + lane / 16));
  }

  // Whether all further features are padding. Asked rarely: between branches instructions cannot be reordered, which
  // costs more than products of a few zeros.
  __device__ static bool endsAt(int feature, int features) {
    return kDim >= 128 && feature % 64 == 0 && feature >= features;
  }

  // sums [16 kAtoms, kCols] += rows of x from `row` on times the kCols rows of y, over their features.
  template <int kAtoms, int kCols>
  __device__ static void dots(float (&sums)[kAtoms][kCols / 8][4], const T* x, int row, const T* y, int features) {
#pragma unroll
    for (int feature = 0; feature < kDim; feature += 16) {
      if (endsAt(feature, features)) break;
      unsigned own[kAtoms][4];
#pragma unroll
      for (int i = 0; i < kAtoms; ++i) left(own[i], x, row + i * 16, feature);
#pragma unroll
      for (int j = 0; j < kCols / 16; ++j) {
        unsigned other[4];
        right(other, y, j * 16, feature);
#pragma unroll
        for (int i = 0; i < kAtoms; ++i) {
          multiplyAdd<T>(sums[i][2 * j], own[i], other[0], other[1]);
          multiplyAdd<T>(sums[i][2 * j + 1], own[i], other[2], other[3]);
        }
      }
    }
  }

  // sums [16 kAtoms, kDim] += weights [16 kAtoms, kRows] times the kRows rows of x.
  template <int kAtoms, int kRows>
  __device__ static void addRows(float (&sums)[kAtoms][kDim / 8][4], const float (&weights)[kAtoms][kRows / 8][4],
                                 const T* x, int features) {
#pragma unroll
    for (int k = 0; k < kRows / 16; ++k) {
      unsigned own[kAtoms][4];
#pragma unroll
      for (int i = 0; i < kAtoms; ++i) {
#pragma unroll
        for (int part = 0; part < 4; ++part) {
          const float* pair = weights[i][2 * k + part / 2] + part % 2 * 2;
          own[i][part] = packPair<T>(pair[0], pair[1]);
        }
      }
#pragma unroll
      for (int j = 0; j < kDim / 16; ++j) {
        if (endsAt(j * 16, features)) break;
        unsigned other[4];
        across(other, x, k * 16, j * 16);
#pragma unroll
        for (int i = 0; i < kAtoms; ++i) {
          multiplyAdd<T>(sums[i][2 * j], own[i], other[0], other[1]);
          multiplyAdd<T>(sums[i][2 * j + 1], own[i], other[2], other[3]);
        }
      }
    }
  }

  // Writes a warp's rows, times factors of theirs, to rows `first` to `end` of x; `tile` is the warp's own.
  template <int kAtoms>
  __device__ static void store(T* tile, const float (&sums)[kAtoms][kDim / 8][4], const float (&factors)[kAtoms][2],
                               const AttentionOperand& x, T* head, int first, int end, int features) {
    const int lane = threadIdx.x % 32;
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kAtoms; ++i) {
#pragma unroll
      for (int j = 0; j < kDim / 8; ++j) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const float factor = factors[i][half], *pair = sums[i][j] + half * 2;
          const int row = i * 16 + half * 8 + lane / 4;
          *reinterpret_cast<unsigned*>(tile + place(row, j) + lane % 4 * 2) =
              packPair<T>(pair[0] * factor, pair[1] * factor);
        }
      }
    }
    __syncwarp();
    for (int at = lane; at < 16 * kAtoms * kChunks; at += 32) {
      const int row = at / kChunks, feature = at % kChunks * 8;
      if (first + row >= end || feature >= features) continue;
      const T* from = tile + place(row, at % kChunks);
      T* to = head + (first + row) * x.position + feature * x.feature;
      if (x.vectors && feature + 8 <= features) {
        *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(from);
      } else {
        for (int c = 0; c < min(8, features - feature); ++c) to[c * x.feature] = from[c];
      }
    }
    __syncwarp();
  }
};

template <class T>
__device__ T* headOf(const AttentionOperand& x, int batch, int head, int position) {
  return static_cast<T*>(x.data) + batch * x.batch + head * x.head + position * x.position;
}

// exp(x) for x of at most 0, as exact as 16-bit probabilities need. Without denormal results, which __expf takes four
// more instructions for.
__device__ inline float probability(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x * 1.4426950408889634f));
  return y;
}

}  // namespace gradus::cuda
