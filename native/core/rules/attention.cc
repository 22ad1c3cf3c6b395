// Rules of attention and rotary embedding.
#include <algorithm>
#include <cmath>

#include "../op.h"

namespace gradus::rules {
namespace {

using Long = long long;

bool isSize(const TensorView& x, int64_t a, int64_t b, int64_t c, int64_t d) {
  return x.rank == 4 && x.sizes[0] == a && x.sizes[1] == b && x.sizes[2] == c && x.sizes[3] == d;
}

// Where the optional operands of a call begin, and what they are.
enum Optional { kMask, kQueryOffsets, kKeyOffsets, kBlockMask };

const TensorView* optionalAt(const OpCall& call, int i) {
  return call.nIn > i && call.in[i].present() ? &call.in[i] : nullptr;
}

TensorView fourDims(int64_t a, int64_t b, int64_t c, int64_t d) {
  TensorView view;
  view.rank = 4;
  const int64_t sizes[] = {a, b, c, d};
  std::copy(sizes, sizes + 4, view.sizes);
  return view;
}

void checkMask(const OpCall& call, const TensorView& mask, const TensorView& q, const TensorView& k) {
  const TensorView scores = fourDims(q.size(0), q.size(1), q.size(2), k.size(2));
  GRADUS_CHECK(broadcastsTo(mask, scores), ErrorCode::kShape,
               "%s: the mask does not broadcast: expected a shape that broadcasts to [%lld, %lld, %lld, %lld] (batch, "
               "heads, queries, keys)",
               call.name, Long(scores.sizes[0]), Long(scores.sizes[1]), Long(scores.sizes[2]), Long(scores.sizes[3]));
  GRADUS_CHECK(mask.dtype == DType::kBool || isFloating(mask.dtype), ErrorCode::kDType,
               "%s: mask dtype: got %s, expected bool or a floating dtype", call.name, dtypeName(mask.dtype));
}

void checkIntegers(const OpCall& call, const TensorView& x, int64_t fewest, int64_t most) {
  GRADUS_CHECK(x.rank == 1 && (x.dtype == DType::kInt32 || x.dtype == DType::kInt64), ErrorCode::kDType,
               "%s: lengths must be int32 or int64 in one dim: got %s in %d", call.name, dtypeName(x.dtype), x.rank);
  GRADUS_CHECK(x.size(0) >= fewest && x.size(0) <= most, ErrorCode::kShape,
               "%s: wrong number of lengths: got %lld, expected %lld", call.name, Long(x.size(0)), Long(fewest));
}

// Cumulative lengths of packed sequences, or a length of keys for every batch entry. Their values are checked by the
// kernel, before it writes anything.
void checkLengths(const OpCall& call, const TensorView* queries, const TensorView* keys, bool otherMasks,
                  const TensorView& q) {
  if (!queries) {
    if (keys) checkIntegers(call, *keys, q.size(0), q.size(0));
    return;
  }
  GRADUS_CHECK(keys && !otherMasks && q.size(0) == 1, ErrorCode::kShape,
               "%s: cumulative lengths come for queries and keys, of one batch entry and without masks", call.name);
  constexpr int64_t kMost = int64_t{1} << 40;
  checkIntegers(call, *queries, 1, kMost);
  checkIntegers(call, *keys, queries->size(0), queries->size(0));
}

void checkBlockMask(const OpCall& call, const TensorView& mask, const TensorView& q, const TensorView& k) {
  const double ofQueries = call.attr[7], ofKeys = call.attr[8];
  GRADUS_CHECK(ofQueries >= 1 && ofKeys >= 1 && ofQueries <= 0x1p40 && ofKeys <= 0x1p40 &&
                   ofQueries == std::floor(ofQueries) && ofKeys == std::floor(ofKeys),
               ErrorCode::kShape, "%s: block size: got %g by %g, expected whole numbers of at least 1", call.name,
               ofQueries, ofKeys);
  const auto blocks = [](int64_t n, double size) { return (n + Long(size) - 1) / Long(size); };
  const TensorView whole = fourDims(q.size(0), q.size(1), blocks(q.size(2), ofQueries), blocks(k.size(2), ofKeys));
  GRADUS_CHECK(mask.dtype == DType::kBool, ErrorCode::kDType, "%s: dtype of the block mask: got %s, expected bool",
               call.name, dtypeName(mask.dtype));
  GRADUS_CHECK(mask.rank >= 2 && mask.rank <= 4 && mask.size(-2) == whole.sizes[2] && mask.size(-1) == whole.sizes[3] &&
                   broadcastsTo(mask, whole),
               ErrorCode::kShape, "%s: the block mask does not fit: expected [%lld, %lld] blocks", call.name,
               Long(whole.sizes[2]), Long(whole.sizes[3]));
}

// What forward and backward have in common.
void checkOperands(const OpCall& call, const TensorView& q, const TensorView& k, const TensorView& v,
                   const TensorView& logsumexp, int optional) {
  for (const TensorView* x : {&q, &k, &v}) {
    GRADUS_CHECK(x->rank == 4, ErrorCode::kShape, "%s: query, key and value need 4 dims: got %d, expected [B, H, T, D]",
                 call.name, x->rank);
    GRADUS_CHECK(isFloating(x->dtype) && x->dtype == q.dtype, ErrorCode::kDType,
                 "%s: dtypes differ: got query %s and %s, expected one floating dtype; convert with to()", call.name,
                 dtypeName(q.dtype), dtypeName(x->dtype));
  }
  GRADUS_CHECK(k.size(0) == q.size(0) && v.size(0) == q.size(0), ErrorCode::kShape,
               "%s: batch sizes differ: got query %lld, key %lld, value %lld, expected equal", call.name,
               Long(q.size(0)), Long(k.size(0)), Long(v.size(0)));
  GRADUS_CHECK(k.size(1) == v.size(1) && (k.size(1) > 0 ? q.size(1) % k.size(1) == 0 : q.size(1) == 0),
               ErrorCode::kShape,
               "%s: heads do not match: got query %lld, key %lld, value %lld, expected as many key as value heads, and "
               "a divisor of the query's",
               call.name, Long(q.size(1)), Long(k.size(1)), Long(v.size(1)));
  GRADUS_CHECK(k.size(3) == q.size(3), ErrorCode::kShape,
               "%s: head dims differ: got query %lld and key %lld, expected equal", call.name, Long(q.size(3)),
               Long(k.size(3)));
  GRADUS_CHECK(k.size(2) == v.size(2), ErrorCode::kShape,
               "%s: lengths differ: got key %lld and value %lld, expected equal", call.name, Long(k.size(2)),
               Long(v.size(2)));
  GRADUS_CHECK(q.size(3) <= 65536 && v.size(3) <= 65536, ErrorCode::kShape,
               "%s: head dim too large: got %lld and %lld, expected at most 65536", call.name, Long(q.size(3)),
               Long(v.size(3)));
  const TensorView* mask = optionalAt(call, optional + kMask);
  const TensorView* blockMask = optionalAt(call, optional + kBlockMask);
  if (mask) checkMask(call, *mask, q, k);
  if (blockMask) checkBlockMask(call, *blockMask, q, k);
  checkLengths(call, optionalAt(call, optional + kQueryOffsets), optionalAt(call, optional + kKeyOffsets),
               mask || blockMask, q);
  const DType statistics = q.dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
  const bool apart = mask && isFloating(mask->dtype);
  const bool hasRows = apart ? isSize(logsumexp, 2, q.size(0), q.size(1), q.size(2))
                             : logsumexp.rank == 3 && std::equal(q.sizes, q.sizes + 3, logsumexp.sizes);
  GRADUS_CHECK(hasRows && logsumexp.contiguous && logsumexp.dtype == statistics, ErrorCode::kNative,
               "%s: logsumexp must be a contiguous %s %s", call.name, dtypeName(statistics),
               apart ? "[2, B, H, T]" : "[B, H, T]");
  const double scale = call.attr[0], seed = call.attr[2], offset = call.attr[3], p = call.attr[4];
  GRADUS_CHECK(std::isfinite(scale), ErrorCode::kShape, "%s: scale: got %g, expected a finite number", call.name,
               scale);
  GRADUS_CHECK(p >= 0 && p <= 1, ErrorCode::kShape, "%s: dropout: got %g, expected 0 to 1", call.name, p);
  GRADUS_CHECK(seed >= 0 && seed < 0x1p63 && offset >= 0 && offset < 0x1p63, ErrorCode::kNative,
               "%s: seed and offset: got %g and %g, expected whole numbers of at least 0", call.name, seed, offset);
  for (int i = 5; i <= 6; ++i) {
    GRADUS_CHECK(call.attr[i] == std::floor(call.attr[i]) && call.attr[i] <= 0x1p53, ErrorCode::kShape,
                 "%s: window: got %g, expected a whole number, or a negative one for no bound", call.name,
                 call.attr[i]);
  }
}

// [B, T, H, D] for an operand x [B, H, T, ...].
void checkMerged(const OpCall& call, const TensorView& out, const TensorView& x, int64_t dim) {
  GRADUS_CHECK(isSize(out, x.size(0), x.size(2), x.size(1), dim) && out.dtype == x.dtype, ErrorCode::kShape,
               "%s: an output must be %s [%lld, %lld, %lld, %lld]", call.name, dtypeName(x.dtype), Long(x.size(0)),
               Long(x.size(2)), Long(x.size(1)), Long(dim));
}

void checkPresent(const OpCall& call, int count) {
  for (int i = 0; i < count; ++i) {
    GRADUS_CHECK(call.in[i].present(), ErrorCode::kNative, "%s: operand %d is missing", call.name, i);
  }
}

}  // namespace

void rule_attention(const OpCall& call) {
  checkPresent(call, 3);
  const TensorView &q = call.in[0], &v = call.in[2];
  checkOperands(call, q, call.in[1], v, call.out[1], 3);
  checkMerged(call, call.out[0], q, v.size(3));
}

void rule_attentionBackward(const OpCall& call) {
  checkPresent(call, 6);
  const TensorView &g = call.in[0], &q = call.in[1], &k = call.in[2], &v = call.in[3], &out = call.in[4];
  checkOperands(call, q, k, v, call.in[5], 6);
  GRADUS_CHECK(isSize(out, q.size(0), q.size(1), q.size(2), v.size(3)) && out.dtype == q.dtype, ErrorCode::kShape,
               "attentionBackward: the saved output does not match query and value");
  GRADUS_CHECK(sameSizes(g, out) && g.dtype == out.dtype, ErrorCode::kShape,
               "attentionBackward: the incoming gradient must have the shape and dtype of the output");
  const double layout = call.attr[9];
  GRADUS_CHECK(layout == 0 || layout == 1 || layout == 2, ErrorCode::kNative,
               "attentionBackward: layout: got %g, expected 0, 1 or 2", layout);
  if (layout == 1) {
    const TensorView& fused = call.out[0];
    GRADUS_CHECK(sameSizes(q, k) && sameSizes(q, v) && fused.rank == 5 && fused.size(0) == q.size(0) &&
                     fused.size(1) == q.size(2) && fused.size(2) == 3 && fused.size(3) == q.size(1) &&
                     fused.size(4) == q.size(3) && fused.dtype == q.dtype && call.out[1].numel == 0 &&
                     call.out[2].numel == 0,
                 ErrorCode::kShape, "attentionBackward: fused gradients must be [B, T, 3, H, D] of equal q, k and v");
    return;
  }
  for (int i = 0; i < 3; ++i) {
    const TensorView &x = call.in[i + 1], &gradient = call.out[i];
    if (layout == 0) {
      checkMerged(call, gradient, x, x.size(3));
    } else {
      GRADUS_CHECK(sameSizes(gradient, x) && gradient.dtype == x.dtype, ErrorCode::kShape,
                   "attentionBackward: gradient %d must be as its operand", i);
    }
  }
}

void rule_attentionStatistics(const OpCall& call) {
  checkPresent(call, 3);
  const TensorView &q = call.in[0], &k = call.in[1], &entropy = call.out[0], &received = call.out[1];
  checkOperands(call, q, k, k, call.in[2], 3);
  const DType statistics = call.in[2].dtype;
  const auto isRows = [&](const TensorView& x, int64_t length) {
    return x.rank == 3 && x.size(0) == q.size(0) && x.size(1) == q.size(1) && x.size(2) == length && x.contiguous &&
           x.dtype == statistics;
  };
  GRADUS_CHECK(isRows(entropy, q.size(2)) && isRows(received, k.size(2)), ErrorCode::kShape,
               "attentionStatistics: entropy and received must be contiguous %s of [B, H, L] and [B, H, S]",
               dtypeName(statistics));
}

void rule_attentionWeights(const OpCall& call) {
  checkPresent(call, 3);
  const TensorView &q = call.in[0], &k = call.in[1];
  checkOperands(call, q, k, k, call.in[2], 3);
  GRADUS_CHECK(!optionalAt(call, 3 + kQueryOffsets), ErrorCode::kShape,
               "attentionWeights: packed sequences have no rectangle of weights");
  GRADUS_CHECK(isSize(call.out[0], q.size(0), q.size(1), q.size(2), k.size(2)) && call.out[0].dtype == q.dtype,
               ErrorCode::kShape, "attentionWeights: the output must be %s of [B, H, L, S]", dtypeName(q.dtype));
}

void rule_rope(const OpCall& call) {
  checkPresent(call, 3);
  const TensorView &x = call.in[0], &out = call.out[0];
  GRADUS_CHECK(isFloating(x.dtype), ErrorCode::kDType, "rope: dtype: got %s, expected a floating dtype",
               dtypeName(x.dtype));
  GRADUS_CHECK(x.rank >= 1 && x.size(-1) % 2 == 0, ErrorCode::kShape,
               "rope: odd last dim: got %lld, expected an even one; rotary embedding turns pairs of features",
               Long(x.rank >= 1 ? x.size(-1) : 0));
  for (int i = 1; i < 3; ++i) {
    const TensorView& table = call.in[i];
    GRADUS_CHECK(broadcastsTo(table, x), ErrorCode::kShape,
                 "rope: cos and sin do not broadcast: expected the shape of x or one that broadcasts to it");
    GRADUS_CHECK(isFloating(table.dtype) && table.dtype == call.in[1].dtype &&
                     (table.dtype == DType::kFloat64) == (x.dtype == DType::kFloat64),
                 ErrorCode::kDType, "rope: dtype of cos and sin: got %s and %s for x of %s",
                 dtypeName(call.in[1].dtype), dtypeName(table.dtype), dtypeName(x.dtype));
  }
  GRADUS_CHECK(sameSizes(out, x) && out.dtype == x.dtype, ErrorCode::kShape,
               "rope: the output must have x's shape and dtype");
}

}  // namespace gradus::rules
