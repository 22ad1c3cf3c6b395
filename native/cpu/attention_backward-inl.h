// Flash attention, backward (Dao et al. 2022, arXiv:2205.14135, algorithm 4): probabilities are made again from the
// saved logsumexp, and one pass over the tiles gives
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

// Whether those of a block of queries are there, and scale some row.
enum class RowTerms : uint8_t { kMissing, kPlain, kScaled };

template <bool kPairs, class T>
struct BackwardScratch {
  T *keys, *keysAsRight, *values, *dkeys, *dvalues;  // a panel; both forms of the keys are one with floats
  // a block of queries: Q and dO as right operands of sums over queries, and transposed
  T *queryRows, *queries, *gradRows, *grads, *row, *zeros;
  T *scores, *dprobs, *weights, *dscores, *dscoresByKey, *keep;
  T* dqueries;                      // of a block of queries, or over several panels of all of a group of heads
  T *logsumexp, *delta, *rowScale;  // of all queries of a group of heads
  RowTerms* terms;                  // and of their blocks
  uint8_t* touched;                 // which blocks of keys of the panel some query has seen
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
    logsumexp = carve.take<T>(queriesOfGroup);
    delta = carve.take<T>(queriesOfGroup);
    rowScale = carve.take<T>(queriesOfGroup);
    terms = carve.take<RowTerms>(queriesOfGroup / kAttentionBlock);
    touched = carve.take<uint8_t>(panel / kAttentionBlock);
    bytes = carve.used();
  }
};

// An additive mask of lowest values absorbs the scores: every x equals the maximum, the average is uniform, and
// logsumexp, which is the maximum plus log(count), has lost the count. It is found again from the mask.
template <class T>
T absorbedRowScale(const Attention& a, const Segment& segment, int64_t h, int64_t query, T logsumexp) {
  const int64_t *strides = a.maskStrides, *blocks = a.blockStrides;
  const int64_t base = segment.batch * strides[0] + h * strides[1] + query * strides[2];
  const int64_t end = std::min(segment.keys, query + segment.shift + a.right + 1);
  int64_t count = 0;
  for (int64_t j = std::max<int64_t>(0, query + segment.shift - a.left); j < end; ++j) {
    if (a.blockMask && !a.blockMask->as<uint8_t>()[segment.batch * blocks[0] + h * blocks[1] +
                                                   query / a.blockQueries * blocks[2] + j / a.blockKeys * blocks[3]]) {
      continue;
    }
    count += maskValue<T>(*a.mask, base + j * strides[3]) >= logsumexp;
  }
  return T(1) / static_cast<T>(std::max<int64_t>(count, 1));
}

// What backward needs of every query of a block beside Q and dO, from `at` on in the scratch memory; returns whether
// some row needs rowScale.
template <class E, class Scratch>
bool loadRowTerms(const Attention& a, const Scratch& s, const Segment& segment, int64_t h, int64_t i0, int64_t at) {
  using T = Compute<E>;
  const hn::ScalableTag<T> d;
  const int64_t lanes = hn::Lanes(d), b = segment.batch, first = segment.firstQuery + i0;
  const Matrix<E> out(*a.out, b, h), g(*a.g, b, h);
  const T* logsumexp = a.logsumexp->as<T>() + (b * a.heads + h) * a.queries + first;
  bool scaled = false;
  T *outRow = s.row, *gradRow = s.row + a.valuePad;
  std::fill(s.row, s.row + 2 * a.valuePad, T(0));
  for (int64_t r = 0; r < kAttentionBlock; ++r, ++at) {
    // +inf makes every probability of a dead or padded row 0
    const bool dead = i0 + r >= segment.queries || logsumexp[r] == -std::numeric_limits<T>::infinity();
    s.logsumexp[at] = dead ? std::numeric_limits<T>::infinity() : logsumexp[r];
    s.rowScale[at] = T(1);
    s.delta[at] = T(0);
    if (dead) continue;
    if (a.mask && logsumexp[r] < T(-1e30)) {
      s.rowScale[at] = absorbedRowScale(a, segment, h, i0 + r, logsumexp[r]);
      scaled = true;
    }
    loadRow(out.row(first + r), out.columnStride, a.valueDim, T(1), outRow);
    loadRow(g.row(first + r), g.columnStride, a.valueDim, T(1), gradRow);
    auto dot = hn::Zero(d);
    for (int64_t c = 0; c < a.valuePad; c += lanes) {
      dot = hn::MulAdd(hn::Load(d, outRow + c), hn::Load(d, gradRow + c), dot);
    }
    s.delta[at] = vec::sumLanes(d, dot);
  }
  return scaled;
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
  RowTerms& terms = s.terms[at / kAttentionBlock];
  if (terms == RowTerms::kMissing) {
    terms = loadRowTerms<E>(a, s, segment, h, i0, at) ? RowTerms::kScaled : RowTerms::kPlain;
  }
}

// Keys and values of a block of a panel, when the first query sees them.
template <bool kPairs, class E, class T>
void loadKeyBlock(const Attention& a, const BackwardScratch<kPairs, T>& s, const Segment& segment, int64_t kvHead,
                  int64_t j0, int64_t inPanel) {
  const Matrix<E> k(*a.k, segment.batch, kvHead), v(*a.v, segment.batch, kvHead);
  const int64_t first = segment.firstKey + j0, keys = std::min<int64_t>(kAttentionBlock, segment.keys - j0);
  const int64_t ofKeys = inFloats<kPairs>(inPanel * a.dimPad);
  packLeft<kPairs>(k, first, keys, a.dim, s.keys + ofKeys, a.dimPad);
  packLeft<kPairs>(v, first, keys, a.valueDim, s.values + inFloats<kPairs>(inPanel * a.valuePad), a.valuePad);
  if constexpr (kPairs) packRight<kPairs>(k, first, keys, a.dim, s.keysAsRight + ofKeys, a.dimPad);
  std::fill_n(s.dkeys + inPanel * a.dimPad, kAttentionBlock * a.dimPad, T(0));
  std::fill_n(s.dvalues + inPanel * a.valuePad, kAttentionBlock * a.valuePad, T(0));
}

template <bool kPairs, class T>
void backwardTile(const Attention& a, const BackwardScratch<kPairs, T>& s, const TileAt& tile, int64_t keyInPanel,
                  int64_t rowTerms, bool scaled, T* dqueries) {
  const int lanes = static_cast<int>(hn::Lanes(hn::ScalableTag<T>()));
  const int columns = static_cast<int>(roundUp(tile.queries, lanes));
  const int keyRows = static_cast<int>(roundUp(tile.keys, kTileRows));
  const int queryRows = static_cast<int>(roundUp(tile.queries, kTileRows));
  const int dimPad = static_cast<int>(a.dimPad), valuePad = static_cast<int>(a.valuePad);
  const T* keys = s.keys + inFloats<kPairs>(keyInPanel * a.dimPad);
  const T* values = s.values + inFloats<kPairs>(keyInPanel * a.valuePad);
  if (s.keep) dropoutTile(a, tile, s.keep);
  for (int c = 0; c < columns; c += kStrip<kPairs>) {
    const Columns strip{c, std::min(c + kStrip<kPairs>, columns)};
    scoreStrip<kPairs>(a, tile, strip, keys, s.queries, s.scores);
    product<kPairs, false, Store::kSet>(keyRows, strip.begin, strip.end, values, inFloats<kPairs>(valuePad),
                                        s.grads + strip.begin, kAttentionBlock, s.dprobs, kStrip<kPairs>,
                                        ScoreSpan{static_cast<int>(a.valueDim), tile});
    softmaxGradient<kPairs>(tile, strip, s.scores, s.dprobs, Weights<T>{kPairs ? nullptr : s.weights, s.weights},
                            Weights<T>{s.dscoresByKey, s.dscores}, s.logsumexp + rowTerms, s.delta + rowTerms,
                            scaled ? s.rowScale + rowTerms : nullptr, s.keep);
  }
  constexpr int kRow = inFloats<kPairs>(kAttentionBlock);
  product<kPairs, false, Store::kAdd>(keyRows, 0, valuePad, s.weights, kRow, s.gradRows, valuePad,
                                      s.dvalues + keyInPanel * a.valuePad, valuePad, QuerySpan{tile});
  product<kPairs, false, Store::kAdd>(keyRows, 0, dimPad, s.dscores, kRow, s.queryRows, dimPad,
                                      s.dkeys + keyInPanel * a.dimPad, dimPad, QuerySpan{tile});
  product<kPairs, true, Store::kAdd>(queryRows, 0, dimPad, s.dscoresByKey, kAttentionBlock,
                                     s.keysAsRight + inFloats<kPairs>(keyInPanel * a.dimPad), dimPad, dqueries, dimPad,
                                     KeySpan{tile});
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

template <bool kPairs, class E>
void backwardTask(const Attention& a, const AttentionPlan& plan, int64_t task, char* memory) {
  using T = Compute<E>;
  const BackwardScratch<kPairs, T> s(a, plan, memory);
  const int64_t kvHeads = a.kvHeads * static_cast<int64_t>(a.segments.size());
  const Segment& segment = a.segments[task % kvHeads / a.kvHeads];
  const int64_t b = segment.batch, kvHead = task % a.kvHeads, range = task / kvHeads, group = a.heads / a.kvHeads;
  const Matrix<E> dk(*a.dk, b, kvHead), dv(*a.dv, b, kvHead);
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
  std::fill_n(s.terms, group * padded / kAttentionBlock, RowTerms::kMissing);
  std::fill_n(s.zeros, std::max(a.dimPad, a.valuePad), T(0));

  // at least once, for the dQ of queries that have no keys
  for (int64_t panel = firstPanel; panel < std::max(endPanel, onePanel ? firstPanel + 1 : 0); ++panel) {
    const int64_t key0 = panel * plan.panelKeys, keys = std::min(plan.panelKeys, segment.keys - key0);
    std::memset(s.touched, 0, ceilDiv(keys, kAttentionBlock));
    for (int64_t block = 0; block < group * padded; block += kAttentionBlock) {
      const int64_t h = kvHead * group + block / padded, i0 = block % padded;
      const int64_t end = std::min(a.endKey(segment, i0), key0 + keys);
      T* sums = dqueries + block / padded * ofHead + i0 * ofBlock;
      if (onePanel) std::fill_n(sums, kAttentionBlock * a.dimPad, T(0));
      bool loaded = false;
      for (int64_t j0 = std::max(a.firstKey(segment, i0), key0); j0 < end; j0 += kAttentionBlock) {
        TileAt tile;
        if (!tileAt(a, segment, h, i0, j0, tile)) continue;
        if (!loaded) loadQueryBlock<kPairs, E>(a, s, segment, h, i0, block);
        loaded = true;
        uint8_t& touched = s.touched[(j0 - key0) / kAttentionBlock];
        if (!touched) loadKeyBlock<kPairs, E>(a, s, segment, kvHead, j0, j0 - key0);
        touched = 1;
        backwardTile<kPairs>(a, s, tile, j0 - key0, block, s.terms[block / kAttentionBlock] == RowTerms::kScaled, sums);
      }
      if (onePanel) storeQueryGradient<E>(a, segment, h, i0, sums);
    }
    for (int64_t r = 0; r < keys; ++r) {  // floats of Q were packed with the scale, so dK has it already
      const bool touched = s.touched[r / kAttentionBlock];
      const T scale = kPairs ? static_cast<T>(a.scale) : T(1);
      const int64_t key = segment.firstKey + key0 + r;
      storeRow(touched ? s.dkeys + r * a.dimPad : s.zeros, a.dim, scale, dk.row(key), dk.columnStride);
      storeRow(touched ? s.dvalues + r * a.valuePad : s.zeros, a.valueDim, T(1), dv.row(key), dv.columnStride);
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
