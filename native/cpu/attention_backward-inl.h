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

#include "attention_softmax-inl.h"

HWY_BEFORE_NAMESPACE();
namespace gradus::cpu::HWY_NAMESPACE {

template <class T>
struct BackwardScratch {
  T *keys, *values, *dkeys, *dvalues;               // a panel
  T *queryRows, *queries, *gradRows, *grads, *row;  // a block of queries: Q and dO, by rows and transposed
  T *scores, *dscores, *keep, *dqueries, *dqueriesSum;
  T *logsumexp, *delta, *rowScale;
  size_t bytes;

  BackwardScratch(const Attention& a, const AttentionPlan& plan, char* base) {
    Carver carve(base);
    const int64_t panel = roundUp(std::min(a.keys, plan.panelKeys), kAttentionBlock);
    keys = carve.take<T>(panel * a.dimPad);
    values = carve.take<T>(panel * a.valuePad);
    dkeys = carve.take<T>(panel * a.dimPad);
    dvalues = carve.take<T>(panel * a.valuePad);
    queryRows = carve.take<T>(kAttentionBlock * a.dimPad);
    queries = carve.take<T>(kAttentionBlock * a.dimPad);
    gradRows = carve.take<T>(kAttentionBlock * a.valuePad);
    grads = carve.take<T>(kAttentionBlock * a.valuePad);
    row = carve.take<T>(a.valuePad);
    scores = carve.take<T>(kAttentionBlock * kAttentionBlock);
    dscores = carve.take<T>(kAttentionBlock * kAttentionBlock);
    keep = a.dropout > 0 ? carve.take<T>(kAttentionBlock * kAttentionBlock) : nullptr;
    dqueries = carve.take<T>(kAttentionBlock * a.dimPad);
    dqueriesSum = plan.ranges == 1 && a.keys > plan.panelKeys
                      ? carve.take<T>(a.heads / a.kvHeads * a.queries * a.dimPad) : nullptr;
    logsumexp = carve.take<T>(kAttentionBlock);
    delta = carve.take<T>(kAttentionBlock);
    rowScale = carve.take<T>(kAttentionBlock);
    bytes = carve.used();
  }
};

// An additive mask of lowest values absorbs the scores: every x equals the maximum, the average is uniform, and
// logsumexp, which is the maximum plus log(count), has lost the count. It is found again from the mask.
template <class T>
T absorbedRowScale(const Attention& a, int64_t b, int64_t h, int64_t query, T logsumexp) {
  const int64_t* strides = a.maskStrides;
  const int64_t base = b * strides[0] + h * strides[1] + query * strides[2];
  const int64_t visible = a.causal ? std::min(a.keys, query + 1) : a.keys;
  int64_t count = 0;
  for (int64_t j = 0; j < visible; ++j) count += maskValue<T>(*a.mask, base + j * strides[3]) >= logsumexp;
  return T(1) / static_cast<T>(std::max<int64_t>(count, 1));
}

// Loads a block of queries; returns whether some row needs rowScale.
template <class E, class T>
bool loadQueryBlock(const Attention& a, const BackwardScratch<T>& s, int64_t b, int64_t h, int64_t i0, int rows) {
  const hn::ScalableTag<T> d;
  const int64_t lanes = hn::Lanes(d);
  const Matrix<E> q(*a.q, b, h), out(*a.out, b, h), g(*a.g, b, h);
  packQueries(q, i0, rows, a.dim, static_cast<T>(a.scale), s.queryRows, a.dimPad, s.queries);
  packQueries(g, i0, rows, a.valueDim, T(1), s.gradRows, a.valuePad, s.grads);
  const T* logsumexp = a.logsumexp->as<T>() + (b * a.heads + h) * a.queries + i0;
  bool scaled = false;
  std::fill(s.row, s.row + a.valuePad, T(0));
  for (int r = 0; r < kAttentionBlock; ++r) {
    // +inf makes every probability of a dead or padded row 0
    const bool dead = r >= rows || logsumexp[r] == -std::numeric_limits<T>::infinity();
    s.logsumexp[r] = dead ? std::numeric_limits<T>::infinity() : logsumexp[r];
    s.rowScale[r] = T(1);
    s.delta[r] = T(0);
    if (dead) continue;
    if (a.mask && logsumexp[r] < T(-1e30)) {
      s.rowScale[r] = absorbedRowScale(a, b, h, i0 + r, logsumexp[r]);
      scaled = true;
    }
    loadRow(out.row(i0 + r), out.columnStride, a.valueDim, T(1), s.row);
    auto dot = hn::Zero(d);
    for (int64_t c = 0; c < a.valuePad; c += lanes) {
      dot = hn::MulAdd(hn::Load(d, s.row + c), hn::Load(d, s.gradRows + r * a.valuePad + c), dot);
    }
    s.delta[r] = vec::sumLanes(d, dot);
  }
  return scaled;
}

template <class T>
void backwardTile(const Attention& a, const BackwardScratch<T>& s, const TileAt& tile, int64_t keyInPanel,
                  bool scaled) {
  const int lanes = static_cast<int>(hn::Lanes(hn::ScalableTag<T>()));
  const int columns = static_cast<int>(roundUp(tile.queries, lanes));
  const int keyRows = static_cast<int>(roundUp(tile.keys, kTileRows));
  const int queryRows = static_cast<int>(roundUp(tile.queries, kTileRows));
  const int dim = static_cast<int>(a.dim), valueDim = static_cast<int>(a.valueDim);
  const int dimPad = static_cast<int>(a.dimPad), valuePad = static_cast<int>(a.valuePad);
  const T* keys = s.keys + keyInPanel * a.dimPad;
  const T* values = s.values + keyInPanel * a.valuePad;
  product<false, Store::kSet>(keyRows, columns, keys, dimPad, s.queries, kAttentionBlock, s.scores, kAttentionBlock,
                              [&](int r) { return Span{0, dim, r - tile.diagonal}; });
  product<false, Store::kSet>(keyRows, columns, values, valuePad, s.grads, kAttentionBlock, s.dscores,
                              kAttentionBlock, [&](int r) { return Span{0, valueDim, r - tile.diagonal}; });
  if (a.mask) addMask(a, tile, s.scores);
  if (s.keep) dropoutTile(a, tile, s.keep);
  softmaxGradient(tile, columns, s.scores, s.dscores, s.logsumexp, s.delta, scaled ? s.rowScale : nullptr, s.keep);
  // Rows of keys start at the first query that sees them, rows of queries end at the last key they see.
  const auto fromDiagonal = [&](int r) { return Span{std::max(0, r - tile.diagonal), tile.queries, 0}; };
  product<false, Store::kAdd>(keyRows, valuePad, s.scores, kAttentionBlock, s.gradRows, valuePad,
                              s.dvalues + keyInPanel * a.valuePad, valuePad, fromDiagonal);
  product<false, Store::kAdd>(keyRows, dimPad, s.dscores, kAttentionBlock, s.queryRows, dimPad,
                              s.dkeys + keyInPanel * a.dimPad, dimPad, fromDiagonal);
  product<true, Store::kAdd>(queryRows, dimPad, s.dscores, kAttentionBlock, keys, dimPad, s.dqueries, dimPad,
                             [&](int c) { return Span{0, std::min(tile.keys, c + kTileRows + tile.diagonal), 0}; });
}

template <class E>
void backwardTask(const Attention& a, const AttentionPlan& plan, int64_t task, char* memory) {
  using T = Compute<E>;
  const BackwardScratch<T> s(a, plan, memory);
  const int64_t kvIndex = task % (a.batch * a.kvHeads), range = task / (a.batch * a.kvHeads);
  const int64_t b = kvIndex / a.kvHeads, kvHead = kvIndex % a.kvHeads, group = a.heads / a.kvHeads;
  const Matrix<E> k(*a.k, b, kvHead), v(*a.v, b, kvHead), dk(*a.dk, b, kvHead), dv(*a.dv, b, kvHead);
  const int64_t firstPanel = range * plan.rangeSize;
  const int64_t endPanel = std::min(firstPanel + plan.rangeSize, (a.keys + plan.panelKeys - 1) / plan.panelKeys);

  for (int64_t panel = firstPanel; panel < endPanel; ++panel) {
    const int64_t key0 = panel * plan.panelKeys, keys = std::min(plan.panelKeys, a.keys - key0);
    packRows(k, key0, keys, a.dim, T(1), s.keys, a.dimPad);
    packRows(v, key0, keys, a.valueDim, T(1), s.values, a.valuePad);
    std::fill(s.dkeys, s.dkeys + roundUp(keys, kRowMultiple) * a.dimPad, T(0));
    std::fill(s.dvalues, s.dvalues + roundUp(keys, kRowMultiple) * a.valuePad, T(0));

    for (int64_t h = kvHead * group; h < (kvHead + 1) * group; ++h) {
      const Matrix<E> dq(*a.dq, b, h);
      T* sums = plan.ranges > 1 ? static_cast<T*>(plan.partials) +
                                      ((range * a.batch + b) * a.heads + h) * a.queries * a.dimPad
                : s.dqueriesSum ? s.dqueriesSum + (h - kvHead * group) * a.queries * a.dimPad
                                : nullptr;
      for (int64_t i0 = a.causal ? key0 : 0; i0 < a.queries; i0 += kAttentionBlock) {
        const int rows = static_cast<int>(std::min<int64_t>(kAttentionBlock, a.queries - i0));
        const int64_t visible = a.visibleKeys(i0), stop = std::min(visible, key0 + keys);
        const bool scaled = loadQueryBlock<E>(a, s, b, h, i0, rows);
        T* sum = sums ? sums + i0 * a.dimPad : nullptr;
        if (sum && panel > firstPanel) {
          std::copy(sum, sum + rows * a.dimPad, s.dqueries);
        } else {
          std::fill(s.dqueries, s.dqueries + kAttentionBlock * a.dimPad, T(0));
        }
        for (int64_t j0 = key0; j0 < stop; j0 += kAttentionBlock) {
          backwardTile(a, s, tileAt(a, b, h, i0, j0), j0 - key0, scaled);
        }
        if (plan.ranges > 1 || stop < visible) {
          std::copy(s.dqueries, s.dqueries + rows * a.dimPad, sum);
        } else {
          for (int r = 0; r < rows; ++r) {
            storeRow(s.dqueries + r * a.dimPad, a.dim, static_cast<T>(a.scale), dq.row(i0 + r), dq.columnStride);
          }
        }
      }
    }
    for (int64_t r = 0; r < keys; ++r) {  // Q was packed with the scale, so dK has it already
      storeRow(s.dkeys + r * a.dimPad, a.dim, T(1), dk.row(key0 + r), dk.columnStride);
      storeRow(s.dvalues + r * a.valuePad, a.valueDim, T(1), dv.row(key0 + r), dv.columnStride);
    }
  }
}

// Sums the ranges' shares of dQ for one block of queries of one head, in the order of the ranges.
template <class E>
void reduceTask(const Attention& a, const AttentionPlan& plan, int64_t task, char* memory) {
  using T = Compute<E>;
  const int64_t blocks = (a.queries + kAttentionBlock - 1) / kAttentionBlock;
  const int64_t headIndex = task / blocks, i0 = task % blocks * kAttentionBlock;
  const Matrix<E> dq(*a.dq, headIndex / a.heads, headIndex % a.heads);
  const int64_t rows = std::min<int64_t>(kAttentionBlock, a.queries - i0), count = rows * a.dimPad;
  const int64_t ofRange = a.batch * a.heads * a.queries * a.dimPad;
  T* total = static_cast<T*>(plan.partials) + (headIndex * a.queries + i0) * a.dimPad;
  for (int64_t range = 1; range < plan.ranges; ++range) {
    if (range * plan.rangeSize * plan.panelKeys >= a.visibleKeys(i0)) break;
    const T* part = total + range * ofRange;
    for (int64_t i = 0; i < count; ++i) total[i] += part[i];
  }
  for (int64_t r = 0; r < rows; ++r) {
    storeRow(total + r * a.dimPad, a.dim, static_cast<T>(a.scale), dq.row(i0 + r), dq.columnStride);
  }
}

}  // namespace gradus::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
