// What the attention kernels know about a call (worked out once by attention_call.cc) and how they cut the work.
#pragma once

#include <algorithm>
#include <vector>

#include "../core/op.h"

namespace gradus::cpu {

// Queries and keys of a tile. With 64 x 64 floats (16 KB) the scores, the transposed queries and one of the keys,
// values or outputs share a 48 KB first-level cache; the others stream from the second level.
constexpr int kAttentionBlock = 64;
constexpr int kLaneMultiple = 16;  // head dims are padded to this in scratch: the widest vector of floats
constexpr int kRowMultiple = 8;    // and rows to this: the tallest register tile

constexpr int64_t roundUp(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }
constexpr int64_t ceilDiv(int64_t n, int64_t by) { return (n + by - 1) / by; }

// Backward works on at most this many keys at a time: their K, V, dK and dV (4 * 512 * 64 floats = 512 KB) stay in the
// second-level cache while the queries pass by.
constexpr int64_t kPanelKeys = 512;

constexpr int64_t kUnbounded = int64_t{1} << 60;

// Queries and keys that see each other: a batch entry, or one sequence of a packed batch.
struct Segment {
  int64_t batch;
  int64_t firstQuery, queries;
  int64_t firstKey, keys;
  int64_t shift;        // the diagonal: query i stands at key i + shift
  int64_t paddedQuery;  // where its queries begin among those of all segments, each padded to kAttentionBlock
};

struct Attention {
  const TensorView *q, *k, *v, *mask, *blockMask;  // masks: null without one
  const TensorView *out, *logsumexp;               // written by forward, read by backward; see SoftmaxTerms
  const TensorView *g, *dq, *dk, *dv;              // backward only
  const TensorView *entropy, *received, *weights;  // statistics and weights only
  int64_t batch, heads, kvHeads;                   // B, H, Hkv
  int64_t queries, keys;                           // L, S
  int64_t dim, valueDim;                           // D of q and k; of v and out
  int64_t dimPad, valuePad;                        // the same, rounded up to kLaneMultiple
  int64_t maskStrides[4];                          // of [B, H, L, S]; 0 where the mask is broadcast
  int64_t blockStrides[4];                         // of [B, H, blocks of L, blocks of S], likewise
  int64_t blockQueries, blockKeys;                 // size of a block of blockMask
  int64_t left, right;                             // key j is visible to query i iff -left <= j - (i + shift) <= right
  double scale, dropout;
  uint64_t seed, offset;
  bool pairs;  // bfloat16 operands, multiplied in pairs
  bool apart;  // logsumexp is [2, B, H, L]: the maximum and the sum of every row
  std::vector<Segment> segments;
  int64_t longestQueries, longestKeys;  // of any segment
  int64_t paddedQueries;                // of all segments, each padded to kAttentionBlock
  double scores;                        // estimate of how many are computed

  // Keys [firstKey, endKey) of a segment are visible to some query of [i0, i0 + kAttentionBlock); whole tiles from the
  // left.
  int64_t firstKey(const Segment& s, int64_t i0) const {
    return std::max<int64_t>(0, i0 + s.shift - left) / kAttentionBlock * kAttentionBlock;
  }
  int64_t endKey(const Segment& s, int64_t i0) const {
    const int64_t last = std::min(s.queries, i0 + kAttentionBlock) - 1;
    return std::clamp<int64_t>(last + s.shift + right + 1, 0, s.keys);
  }
};

// A tile of scores, transposed: `keys` rows from firstKey, `queries` columns from firstQuery, counted in the segment.
struct TileAt {
  const Segment* segment;
  int64_t head, firstQuery, firstKey;
  int queries, keys;
  int lower, upper;  // row r is visible to column c iff c + lower <= r <= c + upper
  bool mixed;        // some blocks of the block mask are hidden

  // Of a column vector [c, c + lanes): the rows that every lane sees, and those that any lane sees.
  int fullBegin(int c, int lanes) const { return std::clamp(c + lanes - 1 + lower, 0, keys); }
  int fullEnd(int c) const { return std::clamp(c + upper + 1, 0, keys); }
  int anyBegin(int c) const { return std::clamp(c + lower, 0, keys); }
  int anyEnd(int c, int lanes) const { return std::clamp(c + upper + lanes, 0, keys); }
};

// How the work is cut into tasks that share nothing they write.
struct AttentionPlan {
  int64_t ranges;     // of queries (forward) or key panels (backward) a head of a segment is cut into
  int64_t rangeSize;  // in queries, or in key panels
  int64_t panelKeys;  // backward: keys of a panel
  bool sparse;        // backward: queries see few keys, so all keys are one panel
  void* partials;     // backward with several ranges: dQ of each, [ranges][H, paddedQueries, dimPad]
};

// The visible tiles of a block of queries of a head, from the left.
class TileWalk {
 public:
  TileWalk(const Attention& a, const Segment& segment, int64_t head, int64_t firstQuery);
  // The first one whose keys begin in [firstKey, endKey), firstKey a multiple of kAttentionBlock; false without any.
  bool find(int64_t firstKey, int64_t endKey, TileAt& tile) const;

 private:
  // Whether the blocks of the block mask that a tile meets are visible, hidden, or both.
  enum class Blocks { kHidden, kVisible, kMixed };
  Blocks blocksOf(int64_t firstKey, int64_t keys) const;

  const Attention& a_;
  const Segment& segment_;
  int64_t head_, firstQuery_, queries_;
  int64_t beginKey_, endKey_;  // what causality, windows and lengths leave
  const uint8_t* blocks_;      // of the block mask, from the first row that the queries meet; null without one
  int64_t blockRows_;          // how many they meet
};

// A block of keys of a panel. It takes a slot of the scratch memory from the first block of queries that sees it to
// the last one: what is in use at a time stays in the cache, as far as the mask allows.
struct KeyBlock {
  int32_t last;  // position of the last block of queries that sees it; -1 without any
  int32_t slot;  // -1 before the first one
};

// In which order the blocks of queries of a group of heads (a.heads / a.kvHeads from firstHead on) visit the keys
// [key0, endKey), and what that means for these. `byKeys` brings those together that see the same keys,
// by the first one that each sees; firstSeen, one for each block like order, is scratch for that.
void orderBlocks(const Attention& a, const Segment& segment, int64_t firstHead, int64_t key0, int64_t endKey,
                 bool byKeys, int32_t* order, int64_t* firstSeen, KeyBlock* keyBlocks);

// Hands out parts of a thread's scratch memory; on a null base it only counts.
class Carver {
 public:
  explicit Carver(char* base) : base_(base) {}
  template <class T>
  T* take(int64_t count) {
    T* at = base_ ? reinterpret_cast<T*>(base_ + used_) : nullptr;  // without memory it measures
    used_ += roundUp(count * static_cast<int64_t>(sizeof(T)), 64);
    return at;
  }
  size_t used() const { return used_; }

 private:
  char* base_;
  size_t used_ = 0;
};

}  // namespace gradus::cpu
