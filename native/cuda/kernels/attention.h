// Arguments of the attention kernels, shared by host and device.
#pragma once

#include "cells.h"
#include "failure_word.h"

namespace gradus::cuda {

// [batch, heads, positions, features] in any strides, in elements.
struct AttentionOperand {
  void* data;
  long long batch, head, position, feature;
  int vectors;  // whether features are contiguous, and every row of them begins on 16 bytes
};

struct AttentionArguments {
  AttentionOperand q, k, v, out, g, dq, dk, dv;
  void *logsumexp, *rowSums;    // [B, H, L], float32 or float64; rowSums: null unless maximum and sum are kept apart
  void *delta, *shift, *share;  // backward, [B, H, L]: sum(dO * O), and what makes probabilities of scores
  void *entropy, *received;     // statistics, [B, H, L] and [B, H, S]
  int batch, heads, kvHeads, queries, keys, dim, valueDim;
  double scale;
  long long left, right;  // key j is visible to query i iff -left <= j - (i + shift) <= right

  const void* mask;  // bool or floating; null without one
  int maskDType;
  long long maskStrides[4];
  const unsigned char* blockMask;  // null without one
  long long blockStrides[4];
  int blockQueries, blockKeys;

  // Cumulative lengths of packed sequences, or only ofKeys: the length of each batch entry's keys. int32 or int64.
  const void *ofQueries, *ofKeys;
  long long queriesStride, keysStride;
  int queriesWide, keysWide;  // int64
  int sequences;              // packed ones; 0: batch entries

  unsigned long long seed, offset;
  const PhiloxCell* philox;  // as in PhiloxStream
  unsigned threshold;        // dropout keeps a probability whose word is at least this
  double keep;               // and multiplies it with this
  int dropout;               // 0: none

  int tiles;   // of queries (of keys for dK and dV) of a head: of all its sequences, or at most
  int chunks;  // of features a head is cut into
  FailureSlot failure;
};

constexpr int kAttentionTile = 32;  // of the kernels without tensor cores
// Features of a block: its sums of them stay in registers.
constexpr int kAttentionFeatures = 128, kAttentionFeaturesDouble = 64;

constexpr int kAttentionMmaThreads = 128, kAttentionMmaFeatures = 256;  // of heads with more, other kernels take care

// Tiles on tensor cores, for heads padded to kDim features: as many rows as registers hold the sums of, and as many
// rows of the operands that pass by as shared memory holds two stages of, so that two blocks share a multiprocessor (of
// 100 KB, with up to 64 features).
template <int kDim>
struct AttentionForwardTiles {
  static constexpr int kQueries = kDim <= 64 ? 128 : 64, kKeys = kDim <= 64 ? 64 : 32;
};
constexpr int kAttentionBackwardRows = 64;  // of queries or keys that a block owns
template <int kDim>
struct AttentionBackwardTiles {
  static constexpr int kKeys = kDim <= 64 ? 64 : kDim <= 128 ? 32 : 16, kQueries = kKeys;
};

// Bytes of dynamic shared memory: the block's own rows, two stages of two operands, and of dK and dV the terms of rows.
constexpr int attentionForwardBytes(int dim, int queries, int keys) { return 2 * dim * (queries + 4 * keys); }
constexpr int attentionQueryGradientBytes(int dim, int keys) {
  return 2 * dim * (2 * kAttentionBackwardRows + 4 * keys);
}
constexpr int attentionKeyGradientBytes(int dim, int queries) {
  return 2 * dim * (2 * kAttentionBackwardRows + 4 * queries) + 24 * queries;
}

}  // namespace gradus::cuda
