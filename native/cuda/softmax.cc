// Softmax and log-softmax: rows where the dim is the last one, columns where others lie inside of it.
#include "kernels/softmax.h"

#include "rows.h"

namespace gradus::cuda {
namespace {

struct Kernels {
  explicit Kernels(const std::string& name) : rows("softmax", name), columns("softmax", "columns_" + name) {}
  FloatingKernels rows, columns;
};

void run(const OpCall& call, Kernels& kernels) {
  const TensorView& out = call.out[0];
  if (out.numel == 0) return;
  const TensorView in = contiguousOf(call, call.in[0]);
  const TensorView result = call.nIn > 1 ? contiguousOf(call, call.in[1]) : TensorView{};
  SoftmaxRows arguments{in.data, result.data, out.data, 1, 1, 1, 1, 0};
  const int dim = static_cast<int>(call.integer(0));
  for (int d = 0; d < in.rank; ++d) {
    (d < dim ? arguments.outer : d == dim ? arguments.size : arguments.inner) *= in.sizes[d];
  }
  if (arguments.inner > 1) {
    const int64_t columns = arguments.outer * arguments.inner;
    return launchRounds(kernels.columns.of(in.dtype), (columns + kBlock - 1) / kBlock, arguments);
  }
  arguments.packed =
      arguments.size * itemSize(in.dtype) % 16 == 0 && isWide(in.data) && isWide(out.data) && isWide(result.data);
  arguments.threads = threadsHolding(arguments.size, in.dtype, arguments.packed);
  launchRows(kernels.rows.of(in.dtype), arguments.outer, arguments);
}

}  // namespace

#define GRADUS_RUN(op)                \
  void run_##op(const OpCall& call) { \
    static Kernels kernels(#op);      \
    run(call, kernels);               \
  }
GRADUS_RUN(softmax)
GRADUS_RUN(softmaxBackward)
GRADUS_RUN(logSoftmax)
GRADUS_RUN(logSoftmaxBackward)
#undef GRADUS_RUN

}  // namespace gradus::cuda
