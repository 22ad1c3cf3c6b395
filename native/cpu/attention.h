// What the attention kernels know about a call (worked out once by attention.cc) and how they cut the work.
#pragma once

#include <algorithm>

#include "../core/op.h"

namespace gradus::cpu {

// Queries and keys of a tile. With 64 x 64 floats (16 KB) the scores, the transposed queries and one of the keys,
// values or outputs share a 48 KB first-level cache; the others stream from the second level.
constexpr int kAttentionBlock = 64;
constexpr int kLaneMultiple = 16;  // head dims are padded to this in scratch: the widest vector of floats
constexpr int kRowMultiple = 8;    // and rows to this: the tallest register tile

constexpr int64_t roundUp(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// Backward works on at most this many keys at a time: their K, V, dK and dV (4 * 512 * 64 floats = 512 KB) stay in the
// second-level cache while the queries pass by.
constexpr int64_t kPanelKeys = 512;

struct Attention {
  const TensorView *q, *k, *v, *mask;    // mask: null without one
  const TensorView *out, *logsumexp;     // written by forward, read by backward
  const TensorView *g, *dq, *dk, *dv;    // backward only
  int64_t batch, heads, kvHeads;         // B, H, Hkv
  int64_t queries, keys;                 // L, S
  int64_t dim, valueDim;                 // D of q and k; of v and out
  int64_t dimPad, valuePad;              // the same, rounded up to kLaneMultiple
  int64_t maskStrides[4];                // of [B, H, L, S]; 0 where the mask is broadcast
  double scale, dropout;
  uint64_t seed, offset;
  bool causal;

  // Key j is visible to query i iff j <= i when causal.
  int64_t visibleKeys(int64_t firstQuery) const {
    return causal ? std::min(keys, firstQuery + kAttentionBlock) : keys;
  }
};

// A tile of scores, transposed: `keys` rows from firstKey, `queries` columns from firstQuery.
struct TileAt {
  int64_t batch, head, firstQuery, firstKey;
  int queries, keys;
  int diagonal;  // row r is visible to column c iff r <= c + diagonal; kAttentionBlock when all are

  // Of a column vector [c, c + lanes): the rows every lane sees, and the rows that any lane sees.
  int fullRows(int c) const { return std::clamp(c + diagonal + 1, 0, keys); }
  int anyRows(int c, int lanes) const { return std::clamp(c + diagonal + lanes, 0, keys); }
};

inline TileAt tileAt(const Attention& a, int64_t batch, int64_t head, int64_t firstQuery, int64_t firstKey) {
  const int64_t diagonal = a.causal ? firstQuery - firstKey : kAttentionBlock;
  return {batch,
          head,
          firstQuery,
          firstKey,
          static_cast<int>(std::min<int64_t>(kAttentionBlock, a.queries - firstQuery)),
          static_cast<int>(std::min<int64_t>(kAttentionBlock, a.visibleKeys(firstQuery) - firstKey)),
          static_cast<int>(std::min<int64_t>(diagonal, kAttentionBlock))};
}

// How the work is cut into tasks that share nothing they write.
struct AttentionPlan {
  int64_t tasks;
  int64_t ranges;         // of queries (forward) or key panels (backward) a head is cut into
  int64_t rangeSize;      // in queries, or in key panels
  int64_t panelKeys;      // backward: keys of a panel
  size_t scratchBytes;    // a thread's
  void* partials;         // backward with several ranges: dQ of each, [ranges][B, H, L, dimPad]
};

// Hands out parts of a thread's scratch memory; on a null base it only counts.
class Carver {
 public:
  explicit Carver(char* base) : base_(base) {}
  template <class T>
  T* take(int64_t count) {
    T* at = reinterpret_cast<T*>(base_ + used_);
    used_ += roundUp(count * static_cast<int64_t>(sizeof(T)), 64);
    return at;
  }
  size_t used() const { return used_; }

 private:
  char* base_;
  size_t used_ = 0;
};

}  // namespace gradus::cpu
