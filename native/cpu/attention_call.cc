// Scaled dot-product attention: what a call asks for, and which tiles of its scores are visible.
#include "attention_call.h"

#include <numeric>
#include <tuple>

#include "../core/data_errors.h"
#include "gemm.h"

namespace gradus::cpu {
namespace {

const TensorView* operand(const OpCall& call, int i) {
  return call.nIn > i && call.in[i].present() ? &call.in[i] : nullptr;
}

// Strides of a mask that broadcasts to four dims.
void broadcastStrides(const TensorView& mask, int64_t strides[4]) {
  for (int d = 0; d < 4; ++d) {
    const int from = d - (4 - mask.rank);
    strides[d] = from < 0 || mask.sizes[from] == 1 ? 0 : mask.strides[from];
  }
}

int64_t integerAt(const TensorView& x, int64_t i) {
  const int64_t at = i * x.strides[0];
  return x.dtype == DType::kInt32 ? x.as<int32_t>()[at] : x.as<int64_t>()[at];
}

// Offsets of packed sequences: from 0, never down, to the number of tokens.
void checkOffsets(const OpCall& call, const char* name, const TensorView& offsets, int64_t tokens) {
  int64_t before = 0;
  for (int64_t i = 0; i < offsets.numel; ++i) {
    const int64_t at = integerAt(offsets, i);
    if (i == 0 ? at != 0 : at < before || at > tokens) throw notCumulative(call.name, name, at, i, tokens);
    before = at;
  }
  if (before != tokens) throw notAddingUp(call.name, name, before, tokens);
}

void addSegment(Attention& a, Segment segment) {
  segment.paddedQuery = a.paddedQueries;
  a.paddedQueries += roundUp(segment.queries, kAttentionBlock);
  a.longestQueries = std::max(a.longestQueries, segment.queries);
  a.longestKeys = std::max(a.longestKeys, segment.keys);
  const double bound = static_cast<double>(a.left) + static_cast<double>(a.right) + 1;
  a.scores += a.heads * segment.queries * std::min(static_cast<double>(segment.keys), bound);
  a.segments.push_back(segment);
}

void cutIntoSegments(const OpCall& call, Attention& a, const TensorView* ofQueries, const TensorView* ofKeys) {
  if (ofQueries) {  // packed sequences: the last query sees the last key, as in flash-attn
    checkOffsets(call, "cuSeqlensQ", *ofQueries, a.queries);
    checkOffsets(call, "cuSeqlensK", *ofKeys, a.keys);
    for (int64_t i = 0; i + 1 < ofQueries->numel; ++i) {
      const int64_t query = integerAt(*ofQueries, i), queries = integerAt(*ofQueries, i + 1) - query;
      const int64_t key = integerAt(*ofKeys, i), keys = integerAt(*ofKeys, i + 1) - key;
      addSegment(a, {0, query, queries, key, keys, keys - queries, 0});
    }
    return;
  }
  for (int64_t b = 0; b < a.batch; ++b) {
    const int64_t keys = ofKeys ? integerAt(*ofKeys, b) : a.keys;
    if (keys < 0 || keys > a.keys) throw lengthOutOfRange(call.name, keys, b, a.keys);
    addSegment(a, {b, 0, a.queries, 0, keys, 0, 0});
  }
  // batch entries have rows of their own
  a.paddedQueries = roundUp(a.queries, kAttentionBlock);
  for (Segment& segment : a.segments) segment.paddedQuery = 0;
}

}  // namespace

Attention describeAttention(const OpCall& call, const TensorView* q, const TensorView* k, const TensorView* v,
                            int optional) {
  Attention a{};
  a.q = q;
  a.k = k;
  a.v = v;
  a.batch = q->size(0);
  a.heads = q->size(1);
  a.queries = q->size(2);
  a.dim = q->size(3);
  a.kvHeads = k->size(1);
  a.keys = k->size(2);
  a.valueDim = v->size(3);
  a.dimPad = roundUp(a.dim, kLaneMultiple);
  a.valuePad = roundUp(a.valueDim, kLaneMultiple);
  a.scale = call.attr[0];
  const auto bound = [&](int i) { return call.attr[i] < 0 ? kUnbounded : std::min(call.integer(i), kUnbounded); };
  a.left = bound(5);
  a.right = call.flag(1) ? 0 : bound(6);
  a.seed = static_cast<uint64_t>(call.attr[2]);
  a.offset = static_cast<uint64_t>(call.attr[3]);
  a.dropout = call.attr[4];
  a.mask = operand(call, optional);
  if (a.mask) broadcastStrides(*a.mask, a.maskStrides);
  a.blockMask = operand(call, optional + 3);
  if (a.blockMask) {
    broadcastStrides(*a.blockMask, a.blockStrides);
    a.blockQueries = call.integer(7);
    a.blockKeys = call.integer(8);
  }
  a.pairs = q->dtype == DType::kBFloat16 && multipliesPairs();
  a.apart = a.mask && isFloating(a.mask->dtype);
  cutIntoSegments(call, a, operand(call, optional + 1), operand(call, optional + 2));
  return a;
}

TileWalk::TileWalk(const Attention& a, const Segment& segment, int64_t head, int64_t firstQuery)
    : a_(a),
      segment_(segment),
      head_(head),
      firstQuery_(firstQuery),
      queries_(std::min<int64_t>(kAttentionBlock, segment.queries - firstQuery)),
      beginKey_(a.firstKey(segment, firstQuery)),
      endKey_(a.endKey(segment, firstQuery)),
      blocks_(nullptr),
      blockRows_(0) {
  if (!a.blockMask) return;
  const int64_t row = firstQuery / a.blockQueries;
  blocks_ = a.blockMask->as<uint8_t>() + segment.batch * a.blockStrides[0] + head * a.blockStrides[1] +
            row * a.blockStrides[2];
  blockRows_ = (firstQuery + queries_ - 1) / a.blockQueries - row + 1;
}

TileWalk::Blocks TileWalk::blocksOf(int64_t firstKey, int64_t keys) const {
  if (!blocks_) return Blocks::kVisible;
  bool some = false, all = true;
  const int64_t first = firstKey / a_.blockKeys, last = (firstKey + keys - 1) / a_.blockKeys;
  for (int64_t i = 0; i < blockRows_; ++i) {
    for (int64_t j = first; j <= last; ++j) {
      const bool visible = blocks_[i * a_.blockStrides[2] + j * a_.blockStrides[3]];
      some |= visible;
      all &= visible;
    }
  }
  return all ? Blocks::kVisible : some ? Blocks::kMixed : Blocks::kHidden;
}

bool TileWalk::find(int64_t firstKey, int64_t endKey, TileAt& tile) const {
  const int64_t end = std::min(endKey, endKey_);
  for (int64_t j0 = std::max(firstKey, beginKey_); j0 < end; j0 += kAttentionBlock) {
    const int64_t keys = std::min<int64_t>(kAttentionBlock, endKey_ - j0);
    const Blocks blocks = blocksOf(j0, keys);
    if (blocks == Blocks::kHidden) continue;
    const int64_t diagonal = firstQuery_ + segment_.shift - j0;
    // what lies further away than a tile is wide is all the same
    const auto clamped = [](int64_t x) {
      return static_cast<int>(std::clamp<int64_t>(x, -2 * kAttentionBlock, 2 * kAttentionBlock));
    };
    tile.segment = &segment_;
    tile.head = head_;
    tile.firstQuery = firstQuery_;
    tile.firstKey = j0;
    tile.queries = static_cast<int>(queries_);
    tile.keys = static_cast<int>(keys);
    tile.lower = clamped(diagonal - a_.left);
    tile.upper = clamped(diagonal + a_.right);
    tile.mixed = blocks == Blocks::kMixed;
    return true;
  }
  return false;
}

void orderBlocks(const Attention& a, const Segment& segment, int64_t firstHead, int64_t key0, int64_t endKey,
                 bool byKeys, int32_t* order, int64_t* firstSeen, KeyBlock* keyBlocks) {
  const int64_t ofHead = ceilDiv(segment.queries, kAttentionBlock), blocks = a.heads / a.kvHeads * ofHead;
  const auto walkOf = [&](int64_t block) {
    return TileWalk(a, segment, firstHead + block / ofHead, block % ofHead * kAttentionBlock);
  };
  TileAt tile;
  std::iota(order, order + blocks, 0);
  if (byKeys && blocks > 0) {
    // Keys that all see, such as global tokens, tell nothing.
    int64_t from = key0;
    const auto isSeen = [&](int32_t block) { return walkOf(block).find(from, from + kAttentionBlock, tile); };
    while (from < endKey && std::all_of(order, order + blocks, isSeen)) from += kAttentionBlock;
    for (int64_t block = 0; block < blocks; ++block) {
      firstSeen[block] = walkOf(block).find(from, endKey, tile) ? tile.firstKey : endKey;
    }
    std::sort(order, order + blocks, [&](int32_t x, int32_t y) {
      return std::tuple(firstSeen[x], x % ofHead, x) < std::tuple(firstSeen[y], y % ofHead, y);
    });
  }
  std::fill_n(keyBlocks, ceilDiv(endKey - key0, kAttentionBlock), KeyBlock{-1, -1});
  for (int64_t position = 0; position < blocks; ++position) {
    const TileWalk walk = walkOf(order[position]);
    for (int64_t j0 = key0; walk.find(j0, endKey, tile); j0 = tile.firstKey + kAttentionBlock) {
      keyBlocks[(tile.firstKey - key0) / kAttentionBlock].last = static_cast<int32_t>(position);
    }
  }
}

}  // namespace gradus::cpu
