// Rules of the reductions: the output has exactly one element for each that remains, in order and without gaps.
#include <cmath>

#include "../op.h"

namespace gradus::rules {
namespace {

int dimOf(const OpCall& call, double value) {
  const int rank = call.in[0].rank > 0 ? call.in[0].rank : 1;
  GRADUS_CHECK(value >= 0 && value < rank && value == std::floor(value), ErrorCode::kShape,
               "%s: dim is out of range: got %g, expected 0 to %d", call.name, value, rank - 1);
  return static_cast<int>(value);
}

int64_t sizeAlong(const TensorView& view, int dim) { return view.rank > 0 ? view.sizes[dim] : 1; }

void checkLayout(const OpCall& call, const TensorView& out, int64_t expected) {
  GRADUS_CHECK(out.contiguous && out.numel == expected, ErrorCode::kShape,
               "%s: the output does not fit: got %lld elements%s, expected %lld in row-major order", call.name,
               static_cast<long long>(out.numel), out.contiguous ? "" : " with gaps", static_cast<long long>(expected));
}

void checkDType(const OpCall& call, const TensorView& out, DType expected) {
  GRADUS_CHECK(out.dtype == expected, ErrorCode::kDType, "%s: the output has the wrong dtype: got %s, expected %s",
               call.name, dtypeName(out.dtype), dtypeName(expected));
}

// dims: a bit mask. Returns the number of elements behind each output.
int64_t checkMask(const OpCall& call) {
  const TensorView& in = call.in[0];
  GRADUS_CHECK(in.present(), ErrorCode::kShape, "%s: the operand is absent", call.name);
  const double mask = call.attr[0];
  GRADUS_CHECK(mask >= 0 && mask < static_cast<double>(1 << in.rank) && mask == std::floor(mask), ErrorCode::kShape,
               "%s: the dims are out of range: got mask %g for rank %d", call.name, mask, in.rank);
  int64_t kept = 1, reduced = 1;
  for (int d = 0; d < in.rank; ++d) (static_cast<int64_t>(mask) >> d & 1 ? reduced : kept) *= in.sizes[d];
  checkLayout(call, call.out[0], kept);
  return reduced;
}

void checkFloating(const OpCall& call) {
  const TensorView* views[] = {&call.in[0], &call.out[0]};
  for (const TensorView* view : views) {
    GRADUS_CHECK(isFloating(view->dtype), ErrorCode::kDType,
                 "%s: not defined for integers: got %s, expected a floating dtype; convert first", call.name,
                 dtypeName(view->dtype));
  }
}

void checkExtreme(const OpCall& call) {
  const int64_t reduced = checkMask(call);
  checkDType(call, call.out[0], call.in[0].dtype);
  GRADUS_CHECK(reduced > 0 || call.out[0].numel == 0, ErrorCode::kShape,
               "%s: there is no extreme of nothing: got an empty dim, expected at least one element", call.name);
}

constexpr int64_t kMostAlong = INT32_MAX;  // indices fit beside a 32-bit key

// dim: one dim, or (where `flat`) -1 for the flattened tensor.
void checkIndices(const OpCall& call, const TensorView& indices, bool flat) {
  const TensorView& in = call.in[0];
  GRADUS_CHECK(in.present(), ErrorCode::kShape, "%s: the operand is absent", call.name);
  int64_t along = in.numel;
  if (!flat || call.attr[0] != -1) along = sizeAlong(in, dimOf(call, call.attr[0]));
  int64_t kept = 1;
  for (int d = 0; d < in.rank; ++d) kept *= call.attr[0] == -1 || d == call.integer(0) ? 1 : in.sizes[d];
  checkLayout(call, indices, kept);
  checkDType(call, indices, DType::kInt64);
  GRADUS_CHECK(along > 0 || indices.numel == 0, ErrorCode::kShape,
               "%s: there is no extreme of nothing: got an empty dim, expected at least one element", call.name);
  GRADUS_CHECK(along <= kMostAlong, ErrorCode::kShape, "%s: the dim is too long: got %lld, expected at most %lld",
               call.name, static_cast<long long>(along), static_cast<long long>(kMostAlong));
}

void checkValuesAndIndices(const OpCall& call) {
  checkIndices(call, call.out[1], false);
  checkLayout(call, call.out[0], call.out[1].numel);
  checkDType(call, call.out[0], call.in[0].dtype);
}

// Outputs of sort and topk: the input's sizes, but `dim` may be shorter for topk.
void checkOrdered(const OpCall& call, bool partial) {
  const TensorView& in = call.in[0];
  GRADUS_CHECK(in.present(), ErrorCode::kShape, "%s: the operand is absent", call.name);
  const int dim = dimOf(call, call.attr[0]);
  const int64_t along = sizeAlong(in, dim);
  GRADUS_CHECK(along <= kMostAlong, ErrorCode::kShape, "%s: the dim is too long: got %lld, expected at most %lld",
               call.name, static_cast<long long>(along), static_cast<long long>(kMostAlong));
  checkDType(call, call.out[0], in.dtype);
  checkDType(call, call.out[1], DType::kInt64);
  for (int i = 0; i < 2; ++i) {
    const TensorView& out = call.out[i];
    bool fits = out.contiguous && out.rank == in.rank && sizeAlong(out, dim) == sizeAlong(call.out[0], dim);
    for (int d = 0; fits && d < in.rank; ++d) fits = d == dim || out.sizes[d] == in.sizes[d];
    GRADUS_CHECK(fits, ErrorCode::kShape, "%s: output %d does not have the sizes of the operand", call.name, i);
  }
  const int64_t kept = sizeAlong(call.out[0], dim);
  GRADUS_CHECK(partial ? kept <= along : kept == along, ErrorCode::kShape,
               "%s: more values than there are: got %lld, expected at most %lld", call.name,
               static_cast<long long>(kept), static_cast<long long>(along));
}

}  // namespace

void rule_sum(const OpCall& call) {
  checkMask(call);
  GRADUS_CHECK(isFloating(call.out[0].dtype) || call.out[0].dtype == DType::kInt64, ErrorCode::kDType,
               "sum: the output has the wrong dtype: got %s, expected a floating dtype or int64",
               dtypeName(call.out[0].dtype));
}

void rule_mean(const OpCall& call) {
  checkMask(call);
  checkFloating(call);
}

void rule_prod(const OpCall& call) { checkMask(call); }
void rule_amax(const OpCall& call) { checkExtreme(call); }
void rule_amin(const OpCall& call) { checkExtreme(call); }

void rule_any(const OpCall& call) {
  checkMask(call);
  checkDType(call, call.out[0], DType::kBool);
}

void rule_all(const OpCall& call) {
  checkMask(call);
  checkDType(call, call.out[0], DType::kBool);
}

void rule_variance(const OpCall& call) {
  checkMask(call);
  checkFloating(call);
}

void rule_vectorNorm(const OpCall& call) {
  checkMask(call);
  checkFloating(call);
}

void rule_logsumexp(const OpCall& call) {
  checkMask(call);
  checkFloating(call);
}

void rule_maxDim(const OpCall& call) { checkValuesAndIndices(call); }
void rule_minDim(const OpCall& call) { checkValuesAndIndices(call); }
void rule_argmax(const OpCall& call) { checkIndices(call, call.out[0], true); }
void rule_argmin(const OpCall& call) { checkIndices(call, call.out[0], true); }

void rule_cumsum(const OpCall& call) {
  GRADUS_CHECK(call.in[0].present(), ErrorCode::kShape, "cumsum: the operand is absent");
  dimOf(call, call.attr[0]);
  GRADUS_CHECK(call.out[0].contiguous && sameSizes(call.in[0], call.out[0]), ErrorCode::kShape,
               "cumsum: the output does not have the sizes of the operand");
}

void rule_sort(const OpCall& call) { checkOrdered(call, false); }
void rule_topk(const OpCall& call) { checkOrdered(call, true); }

}  // namespace gradus::rules
