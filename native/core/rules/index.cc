// What indexing and joining operators ask of their operands. The values of indices are checked when the kernel runs.
#include "../op.h"

namespace gradus::rules {
namespace {

long long number(int64_t value) { return value; }

void checkPresent(const OpCall& call) {
  for (int i = 0; i < call.nIn; ++i) {
    GRADUS_CHECK(call.in[i].present(), ErrorCode::kNative, "%s: operand %d is missing", call.name, i);
  }
}

void checkIndex(const OpCall& call, const TensorView& index) {
  const DType t = index.dtype;
  GRADUS_CHECK(t == DType::kInt64 || t == DType::kInt32 || t == DType::kUint8, ErrorCode::kDType,
               "%s: not an index: got %s, expected int64, int32 or uint8; convert it with to('int64')", call.name,
               dtypeName(t));
}

int dimOf(const OpCall& call, const TensorView& x, int attribute = 0) {
  const double dim = call.attr[attribute];
  const int dims = x.rank > 0 ? x.rank : 1;
  GRADUS_CHECK(dim >= 0 && dim < dims && dim == static_cast<int>(dim), ErrorCode::kIndex,
               "%s: dim is out of range: got %g, expected 0 to %d", call.name, dim, dims - 1);
  return static_cast<int>(dim);
}

void checkOutput(const OpCall& call, DType dtype) {
  GRADUS_CHECK(call.out[0].contiguous && call.out[0].dtype == dtype, ErrorCode::kShape,
               "%s: the output does not fit: got %s, expected %s, contiguous", call.name, dtypeName(call.out[0].dtype),
               dtypeName(dtype));
}

void checkOutputLike(const OpCall& call, const TensorView& x) {
  checkOutput(call, x.dtype);
  GRADUS_CHECK(sameSizes(call.out[0], x), ErrorCode::kShape, "%s: the output has another shape than the input",
               call.name);
}

// Every dim of `inner` but `dim` lies inside `outer`'s.
void checkInside(const OpCall& call, const TensorView& inner, const TensorView& outer, int dim) {
  GRADUS_CHECK(inner.rank == outer.rank, ErrorCode::kShape, "%s: ranks differ: got index of rank %d and %d", call.name,
               inner.rank, outer.rank);
  for (int d = 0; d < inner.rank; ++d) {
    GRADUS_CHECK(d == dim || inner.sizes[d] <= outer.sizes[d], ErrorCode::kShape,
                 "%s: the index is larger than its tensor in dim %d: got %lld, expected at most %lld", call.name, d,
                 number(inner.sizes[d]), number(outer.sizes[d]));
  }
}

void checkVector(const OpCall& call, const TensorView& index, int64_t n) {
  checkIndex(call, index);
  GRADUS_CHECK(index.rank <= 1 && index.numel == n, ErrorCode::kShape,
               "%s: the index does not fit: got rank %d and %lld elements, expected one dim of %lld", call.name,
               index.rank, number(index.numel), number(n));
}

// `part` has x's sizes but in `dim`.
void checkAround(const OpCall& call, const TensorView& part, const TensorView& x, int dim) {
  GRADUS_CHECK(part.rank == x.rank, ErrorCode::kShape, "%s: ranks differ: got %d and %d", call.name, part.rank, x.rank);
  for (int d = 0; d < x.rank; ++d) {
    GRADUS_CHECK(d == dim || part.sizes[d] == x.sizes[d], ErrorCode::kShape,
                 "%s: sizes differ in dim %d: got %lld and %lld", call.name, d, number(part.sizes[d]),
                 number(x.sizes[d]));
  }
}

void checkScatter(const OpCall& call, bool source) {
  checkPresent(call);
  const TensorView &x = call.in[0], &index = call.in[1];
  const int dim = dimOf(call, x);
  checkIndex(call, index);
  checkInside(call, index, x, dim);
  checkOutputLike(call, x);
  if (!source) return;
  checkInside(call, index, call.in[2], -1);
  GRADUS_CHECK(call.in[2].dtype == x.dtype, ErrorCode::kDType, "%s: dtypes differ: got %s and %s", call.name,
               dtypeName(call.in[2].dtype), dtypeName(x.dtype));
}

void checkSummable(const OpCall& call) {
  GRADUS_CHECK(call.in[0].dtype != DType::kBool, ErrorCode::kDType, "%s: bool cannot be added; use to('int64')",
               call.name);
}

void checkTriangle(const OpCall& call) {
  checkPresent(call);
  GRADUS_CHECK(call.in[0].rank >= 2, ErrorCode::kShape, "%s: not a matrix: got rank %d, expected at least 2", call.name,
               call.in[0].rank);
  const double diagonal = call.attr[0];
  GRADUS_CHECK(diagonal >= -0x1p53 && diagonal <= 0x1p53, ErrorCode::kIndex, "%s: not a diagonal: got %g", call.name,
               diagonal);
  checkOutputLike(call, call.in[0]);
}

}  // namespace

void rule_gather(const OpCall& call) {
  checkPresent(call);
  const int dim = dimOf(call, call.in[0]);
  checkIndex(call, call.in[1]);
  checkInside(call, call.in[1], call.in[0], dim);
  checkOutput(call, call.in[0].dtype);
  GRADUS_CHECK(sameSizes(call.out[0], call.in[1]), ErrorCode::kShape,
               "gather: the output has another shape than the index");
}

void rule_scatterAdd(const OpCall& call) {
  checkScatter(call, true);
  checkSummable(call);
}

void rule_scatter(const OpCall& call) { checkScatter(call, call.nIn == 3); }

void rule_indexSelect(const OpCall& call) {
  checkPresent(call);
  const TensorView &x = call.in[0], &out = call.out[0];
  const int dim = dimOf(call, x);
  checkAround(call, out, x, dim);
  checkVector(call, call.in[1], out.rank > 0 ? out.sizes[dim] : 1);
  checkOutput(call, x.dtype);
}

void rule_indexAdd(const OpCall& call) {
  checkPresent(call);
  const TensorView &x = call.in[0], &source = call.in[2];
  const int dim = dimOf(call, x);
  checkAround(call, source, x, dim);
  checkVector(call, call.in[1], source.rank > 0 ? source.sizes[dim] : 1);
  GRADUS_CHECK(source.dtype == x.dtype, ErrorCode::kDType, "indexAdd: dtypes differ: got %s and %s",
               dtypeName(source.dtype), dtypeName(x.dtype));
  checkSummable(call);
  checkOutputLike(call, x);
}

void rule_embedding(const OpCall& call) {
  checkPresent(call);
  const TensorView &index = call.in[0], &weight = call.in[1], &out = call.out[0];
  checkIndex(call, index);
  GRADUS_CHECK(weight.rank == 2, ErrorCode::kShape,
               "embedding: the weight is not a matrix: got rank %d, expected [V, C]", weight.rank);
  checkOutput(call, weight.dtype);
  GRADUS_CHECK(
      out.rank == index.rank + 1 && out.size(-1) == weight.sizes[1] && out.numel == index.numel * weight.sizes[1],
      ErrorCode::kShape, "embedding: the output does not fit the index and the weight");
}

void rule_embeddingBackward(const OpCall& call) {
  checkPresent(call);
  const TensorView &g = call.in[0], &index = call.in[1], &out = call.out[0];
  checkIndex(call, index);
  GRADUS_CHECK(isFloating(g.dtype) && isFloating(out.dtype) && out.contiguous && out.rank == 2, ErrorCode::kShape,
               "embeddingBackward: operands do not fit: expected floating gradients and a contiguous [V, C] output");
  GRADUS_CHECK((g.dtype == DType::kFloat64) == (out.dtype == DType::kFloat64), ErrorCode::kDType,
               "embeddingBackward: dtypes differ: got %s and %s", dtypeName(g.dtype), dtypeName(out.dtype));
  GRADUS_CHECK(g.rank == index.rank + 1 && g.size(-1) == out.sizes[1] && g.numel == index.numel * out.sizes[1],
               ErrorCode::kShape, "embeddingBackward: the gradient does not fit the index and the output");
  GRADUS_CHECK(index.numel < (int64_t{1} << 31) && out.sizes[0] < (int64_t{1} << 31), ErrorCode::kShape,
               "embeddingBackward: too many rows: got %lld of %lld, expected fewer than 2^31", number(index.numel),
               number(out.sizes[0]));
}

void rule_cat(const OpCall& call) {
  checkPresent(call);
  const TensorView& out = call.out[0];
  GRADUS_CHECK(out.rank >= 1, ErrorCode::kShape, "cat: tensors of rank 0 cannot be joined; use stack");
  const int dim = dimOf(call, out);
  int64_t total = 0;
  for (int i = 0; i < call.nIn; ++i) {
    checkAround(call, call.in[i], out, dim);
    total += call.in[i].sizes[dim];
  }
  GRADUS_CHECK(total == out.sizes[dim], ErrorCode::kShape,
               "cat: sizes along the dim do not add up: got %lld, expected %lld", number(out.sizes[dim]),
               number(total));
}

void rule_tril(const OpCall& call) { checkTriangle(call); }
void rule_triu(const OpCall& call) { checkTriangle(call); }

void rule_countNonzero(const OpCall& call) {
  checkPresent(call);
  checkOutput(call, DType::kInt64);
  GRADUS_CHECK(call.out[0].numel == 1, ErrorCode::kShape, "countNonzero: the output has not one element");
}

void rule_nonzeroInto(const OpCall& call) {
  checkPresent(call);
  checkOutput(call, DType::kInt64);
  GRADUS_CHECK(call.out[0].rank == 2 && call.out[0].sizes[1] == call.in[0].rank, ErrorCode::kShape,
               "nonzeroInto: the output does not fit: expected [count, %d]", call.in[0].rank);
}

}  // namespace gradus::rules
