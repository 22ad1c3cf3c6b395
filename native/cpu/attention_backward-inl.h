// Flash attention, backward (Dao et al. 2022, arXiv:2205.14135, algorithm 4): probabilities are made again from the
// saved terms of the softmax, and one pass over the tiles gives
//   dV = P' dO,   dS = P * (dO V' - delta),   dK = dS' Q * scale,   dQ = dS K * scale,   delta = rowsum(dO * O).
// A task owns the dK and dV of its keys; dQ is summed over key panels in a fixed order. So there are no atomics and
// the result does not depend on which thread ran what.
#if defined(GRADUS_ATTENTION_BACKWARD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GRADUS_ATTENTION_BACKWARD_INL_H_
#undef GRADUS_ATTENTION_BACKWARD_INL_H_
#else
#define GRADUS_ATTENTION_BACKWARD_INL_H_
#endif

#include "attention_forward-inl.h"

HWY_BEFORE_NAMESPACE();
namespace gradus::cpu::HWY_NAMESPACE {

template <bool kPairs, class T>
struct BackwardScratch {
  T *keys, *keysAsRight, *values, *dkeys, *dvalues;  // by slot; both forms of the keys are one with floats
  // a block of queries: Q and dO as right operands of sums over queries, and transposed
  T *queryRows, *queries, *gradRows, *grads, *row, *zeros;
  T *scores, *dprobs, *weights, *dscores, *dscoresByKey, *keep;
  T* dqueries;                  // of a block of queries, or over several panels of all of a group of heads
  T *shift, *delta, *rowScale;  // of all queries of a group of heads; rowScale is null unless terms lie apart
  bool* hasTerms;               // which of their blocks have those already
  int32_t* order;               // of the blocks of queries of a group
  int64_t* firstSeen;           // the first key of the panel that each of them sees
  KeyBlock* keyBlocks;          // of the panel
  int32_t* freeSlots;
  size_t bytes;

  BackwardScratch(const Attention& a, const AttentionPlan& plan, char* base) {
    Carver carve(base);
    const int64_t panel = roundUp(std::min(a.longestKeys, plan.panelKeys), kAttentionBlock);
    constexpr int64_t kTile = kAttentionBlock * kAttentionBlock;
    keys = carve.take<T>(inFloats<kPairs>(panel * a.dimPad));
    keysAsRight = kPairs ? carve.take<T>(inFloats<kPairs>(panel * a.dimPad)) : keys;
    values = carve.take<T>(inFloats<kPairs>(panel * a.valuePad));
    dkeys = carve.take<T>(panel * a.dimPad);
    dvalues = carve.take<T>(panel * a.valuePad);
    queryRows = carve.take<T>(inFloats<kPairs>(kAttentionBlock * a.dimPad));
    queries = carve.take<T>(inFloats<kPairs>(kAttentionBlock * a.dimPad));
    gradRows = carve.take<T>(inFloats<kPairs>(kAttentionBlock * a.valuePad));
    grads = carve.take<T>(inFloats<kPairs>(kAttentionBlock * a.valuePad));
    row = carve.take<T>(2 * a.valuePad);
    zeros = carve.take<T>(std::max(a.dimPad, a.valuePad));
    scores = carve.take<T>(kAttentionBlock * kStrip<kPairs>);
    dprobs = carve.take<T>(kAttentionBlock * kStrip<kPairs>);
    weights = kPairs ? carve.take<T>(kTile / 2) : scores;
    dscores = kPairs ? carve.take<T>(kTile / 2) : dprobs;
    dscoresByKey = kPairs ? carve.take<T>(kTile / 2) : dprobs;
    keep = a.dropout > 0 ? carve.take<T>(kTile) : nullptr;
    const int64_t queriesOfGroup = a.heads / a.kvHeads * roundUp(a.longestQueries, kAttentionBlock);
    const bool onePanel = a.longestKeys <= plan.panelKeys;
    dqueries = plan.ranges > 1 ? nullptr : carve.take<T>((onePanel ? kAttentionBlock : queriesOfGroup) * a.dimPad);
    shift = carve.take<T>(queriesOfGroup);
    delta = carve.take<T>(queriesOfGroup);
    rowScale = a.apart ? carve.take<T>(queriesOfGroup) : nullptr;
    hasTerms = carve.take<bool>(queriesOfGroup / kAttentionBlock);
    order = carve.take<int32_t>(queriesOfGroup / kAttentionBlock);
    firstSeen = carve.take<int64_t>(queriesOfGroup / kAttentionBlock);
    keyBlocks = carve.take<KeyBlock>(panel / kAttentionBlock);
    freeSlots = carve.take<int32_t>(panel / kAttentionBlock);
    bytes = carve.used();
  }
};

// What backward needs of every query of a block beside Q and dO, from `at` on in the scratch memory.
template <class E, class Scratch>
void loadRowTerms(const Attention& a, const Scratch& s, const Segment& segment, int64_t h, int64_t i0, int64_t at) {
  using T = Compute<E>;
  const hn::ScalableTag<T> d;
  const int64_t lanes = hn::Lanes(d), b = segment.batch, first = segment.firstQuery + i0;
  const Matrix<E> out(*a.out, b, h), g(*a.g, b, h);
  const SoftmaxTerms<T> terms(a, b, h, first);
  T *outRow = s.row, *gradRow = s.row + a.valuePad;
  std::fill(s.row, s.row + 2 * a.valuePad, T(0));
  for (int64_t r = 0; r < kAttentionBlock; ++r, ++at) {
    T shift = std::numeric_limits<T>::infinity(), factor = 1;  // those of a padded row
    if (i0 + r < segment.queries) terms.load(r, shift, factor);
    s.shift[at] = shift;
    s.delta[at] = T(0);
    if (s.rowScale) s.rowScale[at] = factor;
    if (shift == std::numeric_limits<T>::infinity()) continue;
    loadRow(out.row(first + r), out.columnStride, a.valueDim, T(1), outRow);
    loadRow(g.row(first + r), g.columnStride, a.valueDim, T(1), gradRow);
    auto dot = hn::Zero(d);
    for (int64_t c = 0; c < a.valuePad; c += lanes) {
      dot = hn::MulAdd(hn::Load(d, outRow + c), hn::Load(d, gradRow + c), dot);
    }
    s.delta[at] = vec::sumLanes(d, dot);
  }
}

// Loads a block of queries; its row terms, at `at`, stay for further panels.
template <bool kPairs, class E, class T>
void loadQueryBlock(const Attention& a, const BackwardScratch<kPairs, T>& s, const Segment& segment, int64_t h,
                    int64_t i0, int64_t at) {
  const int64_t first = segment.firstQuery + i0, rows = std::min<int64_t>(kAttentionBlock, segment.queries - i0);
  const Matrix<E> q(*a.q, segment.batch, h), g(*a.g, segment.batch, h);
  packTransposed<kPairs>(q, first, rows, a.dim, static_cast<T>(a.scale), s.queryRows, a.dimPad, s.queries);
  packTransposed<kPairs>(g, first, rows, a.valueDim, T(1), s.gradRows, a.valuePad, s.grads);
  if constexpr (kPairs) {
    packRowPairs(q, first, rows, a.dim, s.queryRows, a.dimPad);
    packRowPairs(g, first, rows, a.valueDim, s.gradRows, a.valuePad);
  }
  bool& hasTerms = s.hasTerms[at / kAttentionBlock];
  if (!hasTerms) loadRowTerms<E>(a, s, segment, h, i0, at);
  hasTerms = true;
}

// Has what loadQueryBlock() reads fetched, for block number `block` of the heads from firstHead on.
template <class E, class Scratch>
void fetchQueryBlock(const Attention& a, const Scratch& s, const Segment& segment, int64_t firstHead, int64_t block,
                     Ahead& ahead) {
  const int64_t ofHead = ceilDiv(segment.queries, kAttentionBlock), i0 = block % ofHead * kAttentionBlock;
  const int64_t h = firstHead + block / ofHead, b = segment.batch, first = segment.firstQuery + i0;
  const int64_t rows = std::min<int64_t>(kAttentionBlock, segment.queries - i0);
  ahead.add(Matrix<E>(*a.q, b, h), first, rows, a.dim);
  ahead.add(Matrix<E>(*a.g, b, h), first, rows, a.valueDim);
  if (!s.hasTerms[block]) ahead.add(Matrix<E>(*a.out, b, h), first, rows, a.valueDim);
}

// Keys and values of a tile, and the sums of their gradients.
template <class T>
struct KeyOperands {
  const T *keys, *keysAsRight, *values;
  T *dkeys, *dvalues;
};

// Those of a block of keys in a slot; `load` when the first queries see it. What lies packed already stays where it is.
template <bool kPairs, class E, class T>
KeyOperands<T> keyOperands(const Attention& a, const BackwardScratch<kPairs, T>& s, const Segment& segment,
                           int64_t kvHead, int64_t j0, int64_t slot, bool load) {
  const Matrix<E> k(*a.k, segment.batch, kvHead), v(*a.v, segment.batch, kvHead);
  const int64_t first = segment.firstKey + j0, count = std::min<int64_t>(kAttentionBlock, segment.keys - j0);
  const int64_t ofKeys = slot * kAttentionBlock * a.dimPad, ofValues = slot * kAttentionBlock * a.valuePad;
  T* left = s.keys + inFloats<kPairs>(ofKeys);
  T* right = s.keysAsRight + inFloats<kPairs>(ofKeys);
  T* values = s.values + inFloats<kPairs>(ofValues);
  KeyOperands<T> block{leftAlready<kPairs, T>(k, first, count, a.dim, a.dimPad), right,
                       leftAlready<kPairs, T>(v, first, count, a.valueDim, a.valuePad), s.dkeys + ofKeys,
                       s.dvalues + ofValues};
  if (load) {
    if (!block.keys) packLeft<kPairs>(k, first, count, a.dim, left, a.dimPad);
    if (!block.values) packLeft<kPairs>(v, first, count, a.valueDim, values, a.valuePad);
    if constexpr (kPairs) packRight<kPairs>(k, first, count, a.dim, right, a.dimPad);
    std::fill_n(block.dkeys, kAttentionBlock * a.dimPad, T(0));
    std::fill_n(block.dvalues, kAttentionBlock * a.valuePad, T(0));
  }
  if (!block.keys) block.keys = left;
  if (!block.values) block.values = values;
  if (!kPairs) block.keysAsRight = block.keys;
  return block;
}

template <bool kPairs, class T>
void backwardTile(const Attention& a, const BackwardScratch<kPairs, T>& s, const TileAt& tile,
                  const KeyOperands<T>& block, int64_t rowTerms, T* dqueries, Ahead& ahead) {
  const int lanes = static_cast<int>(hn::Lanes(hn::ScalableTag<T>()));
  const int columns = static_cast<int>(roundUp(tile.queries, lanes));
  const int keyRows = static_cast<int>(roundUp(tile.keys, kTileRows));
  const int queryRows = static_cast<int>(roundUp(tile.queries, kTileRows));
  const int dimPad = static_cast<int>(a.dimPad), valuePad = static_cast<int>(a.valuePad);
  if (s.keep) dropoutTile(a, tile, s.keep);
  for (int c = 0; c < columns; c += kStrip<kPairs>) {
    const Columns strip{c, std::min(c + kStrip<kPairs>, columns)};
    scoreStrip<kPairs>(a, tile, strip, block.keys, s.queries, s.scores);
    product<kPairs, false, Store::kSet>(keyRows, strip.begin, strip.end, block.values, inFloats<kPairs>(valuePad),
                                        s.grads + strip.begin, kAttentionBlock, s.dprobs, kStrip<kPairs>,
                                        ScoreSpan{static_cast<int>(a.valueDim), tile});
    ahead.some();
    softmaxGradient<kPairs>(tile, strip, s.scores, s.dprobs, Weights<T>{kPairs ? nullptr : s.weights, s.weights},
                            Weights<T>{s.dscoresByKey, s.dscores}, s.shift + rowTerms, s.delta + rowTerms,
                            s.rowScale ? s.rowScale + rowTerms : nullptr, s.keep);
    ahead.some();
  }
  constexpr int kRow = inFloats<kPairs>(kAttentionBlock);
  product<kPairs, false, Store::kAdd>(keyRows, 0, valuePad, s.weights, kRow, s.gradRows, valuePad, block.dvalues,
                                      valuePad, QuerySpan{tile});
  ahead.some();
  product<kPairs, false, Store::kAdd>(keyRows, 0, dimPad, s.dscores, kRow, s.queryRows, dimPad, block.dkeys, dimPad,
                                      QuerySpan{tile});
  ahead.some();
  product<kPairs, true, Store::kAdd>(queryRows, 0, dimPad, s.dscoresByKey, kAttentionBlock, block.keysAsRight, dimPad,
                                     dqueries, dimPad, KeySpan{tile});
  ahead.some();
}

// dQ of a block of queries, from the sums over its tiles.
template <class E, class T>
void storeQueryGradient(const Attention& a, const Segment& segment, int64_t h, int64_t i0, const T* dqueries) {
  const Matrix<E> dq(*a.dq, segment.batch, h);
  const int64_t end = std::min(segment.queries, i0 + kAttentionBlock);
  for (int64_t i = i0; i < end; ++i, dqueries += a.dimPad) {
    storeRow(dqueries, a.dim, static_cast<T>(a.scale), dq.row(segment.firstQuery + i), dq.columnStride);
  }
}

// dK and dV of a block of keys; floats of Q were packed with the scale, so dK has it already.
template <bool kPairs, class E, class T>
void storeKeyGradients(const Attention& a, const Segment& segment, int64_t kvHead, int64_t j0, const T* dkeys,
                       int64_t keyStride, const T* dvalues, int64_t valueStride) {
  const Matrix<E> dk(*a.dk, segment.batch, kvHead), dv(*a.dv, segment.batch, kvHead);
  const T scale = kPairs ? static_cast<T>(a.scale) : T(1);
  const int64_t end = std::min(segment.keys, j0 + kAttentionBlock);
  for (int64_t j = j0; j < end; ++j, dkeys += keyStride, dvalues += valueStride) {
    storeRow(dkeys, a.dim, scale, dk.row(segment.firstKey + j), dk.columnStride);
    storeRow(dvalues, a.valueDim, T(1), dv.row(segment.firstKey + j), dv.columnStride);
  }
}

template <bool kPairs, class E>
void backwardTask(const Attention& a, const AttentionPlan& plan, int64_t task, char* memory) {
  using T = Compute<E>;
  const BackwardScratch<kPairs, T> s(a, plan, memory);
  const int64_t kvHeads = a.kvHeads * static_cast<int64_t>(a.segments.size());
  const Segment& segment = a.segments[task % kvHeads / a.kvHeads];
  const int64_t b = segment.batch, kvHead = task % a.kvHeads, range = task / kvHeads, group = a.heads / a.kvHeads;
  const int64_t firstPanel = range * plan.rangeSize;
  const int64_t endPanel = std::min(firstPanel + plan.rangeSize, ceilDiv(segment.keys, plan.panelKeys));
  const int64_t padded = roundUp(segment.queries, kAttentionBlock);
  // With one panel the sums of a block of queries are complete as soon as they are made, and stay in the cache.
  const bool onePanel = plan.ranges == 1 && a.longestKeys <= plan.panelKeys;
  const int64_t ofBlock = onePanel ? 0 : a.dimPad;
  const int64_t ofHead = (plan.ranges > 1 ? a.paddedQueries : padded) * ofBlock;
  T* dqueries = s.dqueries;
  if (plan.ranges > 1) {
    const int64_t head = (range * a.batch + b) * a.heads + kvHead * group;
    dqueries = static_cast<T*>(plan.partials) + head * ofHead + segment.paddedQuery * a.dimPad;
  }
  for (int64_t h = 0; h < group; ++h) std::fill_n(dqueries + h * ofHead, padded * ofBlock, T(0));
  std::fill_n(s.hasTerms, group * padded / kAttentionBlock, false);
  std::fill_n(s.zeros, std::max(a.dimPad, a.valuePad), T(0));

  const Matrix<E> k(*a.k, b, kvHead), v(*a.v, b, kvHead);
  const auto keysAt = [&](int64_t j0) { return std::min<int64_t>(kAttentionBlock, segment.keys - j0); };
  const int64_t blocks = group * padded / kAttentionBlock;
  Ahead ahead;
  // at least once, for the dQ of queries that have no keys
  for (int64_t panel = firstPanel; panel < std::max(endPanel, onePanel ? firstPanel + 1 : 0); ++panel) {
    const int64_t key0 = panel * plan.panelKeys, endKey = std::min(key0 + plan.panelKeys, segment.keys);
    orderBlocks(a, segment, kvHead * group, key0, endKey, plan.sparse, s.order, s.firstSeen, s.keyBlocks);
    int64_t free = ceilDiv(endKey - key0, kAttentionBlock);
    for (int64_t slot = 0; slot < free; ++slot) s.freeSlots[slot] = static_cast<int32_t>(free - 1 - slot);
    const auto keyBlock = [&](int64_t j0) -> KeyBlock& { return s.keyBlocks[(j0 - key0) / kAttentionBlock]; };
    for (int64_t position = 0; position < blocks; ++position) {
      const int64_t block = int64_t{s.order[position]} * kAttentionBlock, i0 = block % padded;
      const int64_t h = kvHead * group + block / padded;
      T* sums = dqueries + block / padded * ofHead + i0 * ofBlock;
      if (onePanel) std::fill_n(sums, kAttentionBlock * a.dimPad, T(0));
      const TileWalk walk(a, segment, h, i0);
      TileAt tile, next;
      bool more = walk.find(key0, endKey, next);
      if (more) {
        loadQueryBlock<kPairs, E>(a, s, segment, h, i0, block);
        if (position + 1 < blocks) fetchQueryBlock<E>(a, s, segment, kvHead * group, s.order[position + 1], ahead);
      }
      while (more) {
        tile = next;
        more = walk.find(tile.firstKey + kAttentionBlock, endKey, next);
        const int64_t j0 = tile.firstKey;
        KeyBlock& at = keyBlock(j0);
        const bool isNew = at.slot < 0;
        if (isNew) at.slot = s.freeSlots[--free];
        const KeyOperands<T> operands = keyOperands<kPairs, E>(a, s, segment, kvHead, j0, at.slot, isNew);
        if (more && keyBlock(next.firstKey).slot < 0) {
          ahead.add(k, segment.firstKey + next.firstKey, keysAt(next.firstKey), a.dim);
          ahead.add(v, segment.firstKey + next.firstKey, keysAt(next.firstKey), a.valueDim);
        }
        backwardTile<kPairs>(a, s, tile, operands, block, sums, ahead);
        if (at.last != position) continue;
        storeKeyGradients<kPairs, E>(a, segment, kvHead, j0, operands.dkeys, a.dimPad, operands.dvalues, a.valuePad);
        s.freeSlots[free++] = at.slot;
      }
      if (onePanel) storeQueryGradient<E>(a, segment, h, i0, sums);
    }
    for (int64_t j0 = key0; j0 < endKey; j0 += kAttentionBlock) {
      if (keyBlock(j0).last < 0) storeKeyGradients<kPairs, E>(a, segment, kvHead, j0, s.zeros, 0, s.zeros, 0);
    }
  }
  if (plan.ranges > 1 || onePanel) return;
  for (int64_t block = 0; block < group * padded; block += kAttentionBlock) {
    const int64_t i0 = block % padded;
    storeQueryGradient<E>(a, segment, kvHead * group + block / padded, i0,
                          dqueries + block / padded * ofHead + i0 * ofBlock);
  }
}

// Sums the ranges' shares of dQ for one block of queries of one head, in the order of the ranges.
template <class E>
void reduceTask(const Attention& a, const AttentionPlan& plan, int64_t task) {
  using T = Compute<E>;
  const int64_t blocks = ceilDiv(a.longestQueries, kAttentionBlock);
  const int64_t h = task / blocks % a.heads, first = task % blocks * kAttentionBlock;
  const Segment& segment = a.segments[task / blocks / a.heads];
  const Matrix<E> dq(*a.dq, segment.batch, h);
  const int64_t ofRange = a.batch * a.heads * a.paddedQueries * a.dimPad;
  T* total = static_cast<T*>(plan.partials) +
             ((segment.batch * a.heads + h) * a.paddedQueries + segment.paddedQuery + first) * a.dimPad;
  for (int64_t i = first; i < std::min(segment.queries, first + kAttentionBlock); ++i, total += a.dimPad) {
    for (int64_t range = 1; range < plan.ranges; ++range) {
      for (int64_t c = 0; c < a.dimPad; ++c) total[c] += total[range * ofRange + c];
    }
    storeRow(total, a.dim, static_cast<T>(a.scale), dq.row(segment.firstQuery + i), dq.columnStride);
  }
}

}  // namespace gradus::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
