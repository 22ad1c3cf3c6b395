// Rotary position embedding: launcher of kernels/rope.cu.
#include "kernels/rope.h"

#include "views.h"

namespace gradus::cuda {
namespace {

static_assert(kPointwiseRank == kMaxRank);

// Strides of t as if it had x's sizes.
RopeRotate::Operand operandOf(const TensorView& t, const TensorView& x) {
  RopeRotate::Operand operand{t.data, {}, 0};
  for (int d = 0; d < x.rank; ++d) {
    const int own = d - (x.rank - t.rank);
    const int64_t stride = own < 0 || t.sizes[own] == 1 ? 0 : t.strides[own];
    (d + 1 < x.rank ? operand.strides[d] : operand.along) = stride;
  }
  return operand;
}

// Runs of so many elements begin on their boundaries in every row.
bool isPacked(const RopeRotate::Operand& operand, int rank, int64_t lanes) {
  bool packed = operand.along == 1 && isWide(operand.data);
  for (int d = 0; d < rank; ++d) packed = packed && operand.strides[d] % lanes == 0;
  return packed;
}

}  // namespace

void run_rope(const OpCall& call) {
  static FloatingKernels kernels("rope", "rotate");
  const TensorView& x = call.in[0];
  if (x.numel == 0) return;
  GRADUS_CHECK(x.numel < int64_t{1} << 31, ErrorCode::kShape,
               "rope: too many elements for cuda: got %lld, expected fewer than 2^31", static_cast<long long>(x.numel));
  const int64_t half = x.size(-1) / 2, lanes = 16 / static_cast<int64_t>(itemSize(x.dtype));
  RopeRotate arguments{};
  arguments.half = static_cast<int>(half);
  arguments.rank = x.rank - 1;
  const TensorView* views[kRopeOperands] = {&x, &call.in[1], &call.in[2], &call.out[0]};
  arguments.packed = half % lanes == 0;
  for (int k = 0; k < kRopeOperands; ++k) {
    arguments.operands[k] = operandOf(*views[k], x);
    arguments.packed = arguments.packed && isPacked(arguments.operands[k], arguments.rank, lanes);
  }
  for (int d = 0; d < arguments.rank; ++d) arguments.sizes[d] = dividerOf(static_cast<unsigned>(x.sizes[d]));
  const int64_t units = arguments.packed ? half / lanes : half;
  arguments.units = dividerOf(static_cast<unsigned>(units));
  arguments.count = static_cast<unsigned>(x.numel / x.size(-1) * units);
  arguments.tableDType = static_cast<int>(call.in[1].dtype);
  arguments.interleaved = call.flag(0);
  arguments.inverse = call.flag(1);
  launch(currentDevice(), kernels.of(x.dtype), arguments.count, arguments);
}

}  // namespace gradus::cuda
