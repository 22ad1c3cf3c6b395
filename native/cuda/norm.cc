// Layer norm and root-mean-square norm over the last dims, seen as rows of `width` elements.
#include "kernels/norm.h"

#include <limits>

#include "rows.h"

namespace gradus::cuda {
namespace {

struct Sizes {
  int64_t rows, width;
};

Sizes sizesOf(const TensorView& x, int64_t normDims) {
  int64_t width = 1;
  for (int d = x.rank - static_cast<int>(normDims); d < x.rank; ++d) width *= x.sizes[d];
  return {x.numel / width, width};
}

NormOperand operandOf(const TensorView& x) { return {x.data, static_cast<int>(x.dtype)}; }

// float64 goes with float64 alone; a parameter of another kind is converted.
NormOperand parameter(const OpCall& call, int i, DType dtype) {
  if (i >= call.nIn || !call.in[i].present()) return {};
  const TensorView& own = call.in[i];
  const bool alike = (own.dtype == DType::kFloat64) == (dtype == DType::kFloat64);
  return operandOf(contiguousAs(call, own, alike ? own.dtype : dtype == DType::kFloat64 ? dtype : DType::kFloat32));
}

// Whether rows of `width` elements have whole packs that begin on 128 bits, in every operand.
bool isPacked(int64_t width, int64_t lanes, std::initializer_list<const void*> operands) {
  bool packed = width % lanes == 0;
  for (const void* data : operands) packed &= isWide(data);
  return packed;
}

int64_t lanesOf(DType dtype) { return 16 / static_cast<int64_t>(itemSize(dtype)); }

void forward(const OpCall& call, bool centered) {
  static FloatingKernels layer("norm", "layer"), rms("norm", "rms");
  const TensorView x = contiguousOf(call, call.in[0]);
  if (x.numel == 0) {  // rows without elements still have statistics: of nothing
    for (int i = 1; i < (centered ? 3 : 2); ++i) fillView(call, call.out[i], std::numeric_limits<double>::quiet_NaN());
    return;
  }
  const auto [rows, width] = sizesOf(x, call.integer(1));
  const TensorView& normalized = call.out[centered ? 3 : 2];
  NormForward arguments{};
  arguments.x = x.data;
  arguments.y = call.out[0].data;
  arguments.means = centered ? call.out[1].data : nullptr;
  arguments.rstds = call.out[centered ? 2 : 1].data;
  arguments.normalized = normalized.numel > 0 ? normalized.data : nullptr;
  arguments.normalizedDType = static_cast<int>(normalized.dtype);
  arguments.weight = parameter(call, 1, x.dtype);
  if (centered) arguments.bias = parameter(call, 2, x.dtype);
  arguments.eps = call.attr[0];
  arguments.rows = rows;
  arguments.width = width;
  arguments.packed = isPacked(width, std::max(lanesOf(x.dtype), arguments.normalized ? lanesOf(normalized.dtype) : 0),
                              {x.data, arguments.y, arguments.normalized, arguments.weight.data, arguments.bias.data});
  arguments.threads = threadsHolding(width, x.dtype, arguments.packed);
  launchRows((centered ? layer : rms).of(x.dtype), rows, arguments);
}

// Rows of a part: enough that adding the parts up costs little, and as many parts as fill a device.
constexpr int64_t kPartRows = 8, kMostParts = 256;

struct BackwardKernels {
  explicit BackwardKernels(const std::string& form) {
    for (int i = 0; i < 4; ++i) {
      const std::string stem = "gradus_norm_backward_" + form + "_" + dtypeName(static_cast<DType>(i));
      one[i] = new Kernel("norm_backward", stem + "_1");
      four[i] = new Kernel("norm_backward", stem + "_4");
      any[i] = new Kernel("norm_backward", stem + "_any");
    }
  }
  Kernel *one[4], *four[4], *any[4];
};

void backward(const OpCall& call, bool centered) {
  static BackwardKernels layer("layer"), rms("rms");
  static ComputeKernels addParts("norm_backward", "parts");
  const TensorView g = contiguousOf(call, call.in[0]), x = contiguousOf(call, call.in[1]);
  if (x.numel == 0) {
    for (int i = call.flag(1) ? 1 : 0; i < call.nOut; ++i) fillView(call, call.out[i], 0);
    return;
  }
  const auto [rows, width] = sizesOf(x, call.integer(0));
  const size_t item = g.dtype == DType::kFloat64 ? 8 : 4;
  NormBackward arguments{};
  arguments.g = g.data;
  arguments.x = operandOf(x);
  arguments.accumulate = call.flag(1);
  arguments.normalized = call.flag(2);
  arguments.means = centered && !arguments.normalized ? call.in[2].data : nullptr;
  arguments.rstds = call.in[centered ? 3 : 2].data;
  arguments.weight = parameter(call, centered ? 4 : 3, g.dtype);
  arguments.dx = call.out[0].data;
  arguments.rows = rows;
  arguments.width = width;
  arguments.rowsPerPart = std::max(kPartRows, (rows + kMostParts - 1) / kMostParts);
  const int64_t parts = (rows + arguments.rowsPerPart - 1) / arguments.rowsPerPart;
  NormParts adding{};
  adding.count = parts;
  adding.width = width;
  void** sums[2] = {&arguments.dweight, &arguments.dbias};
  for (int i = 0; i < (centered ? 2 : 1); ++i) {
    const TensorView& out = call.out[1 + i];
    if (out.numel == 0) continue;
    *sums[i] = call.workspace->take(item * static_cast<size_t>(parts * width));
    adding.parts[adding.parameters] = *sums[i];
    adding.out[adding.parameters] = out.data;
    adding.dtypes[adding.parameters++] = static_cast<int>(out.dtype);
  }
  const int64_t lanes = std::max(lanesOf(g.dtype), lanesOf(x.dtype));
  arguments.packed = isPacked(width, lanes, {g.data, x.data, arguments.dx, arguments.weight.data});
  const int64_t packs = arguments.packed ? width / lanesOf(g.dtype) : width;
  const auto threads = static_cast<unsigned>(std::min<int64_t>(kBlock, (packs + 31) / 32 * 32));
  BackwardKernels& kernels = centered ? layer : rms;
  Kernel* const* kernel = !arguments.packed || packs > 4 * kBlock ? kernels.any
                          : packs > kBlock                        ? kernels.four
                                                                  : kernels.one;
  launchRounds(*kernel[static_cast<int>(g.dtype)], parts, arguments, threads);
  if (adding.parameters == 0) return;
  const int64_t run = 16 / static_cast<int64_t>(item);
  adding.packed = isPacked(width, run, {adding.out[0], adding.out[1]});
  const int64_t columns = adding.parameters * width / (adding.packed ? run : 1);
  launchRounds(addParts.of(g.dtype), (columns + 31) / 32, adding, 32);
}

}  // namespace

void run_layerNorm(const OpCall& call) { forward(call, true); }
void run_layerNormBackward(const OpCall& call) { backward(call, true); }
void run_rmsNorm(const OpCall& call) { forward(call, false); }
void run_rmsNormBackward(const OpCall& call) { backward(call, false); }

// y = xhat weight + bias: what forward made of xhat, once more.
void run_scaleShift(const OpCall& call) {
  static ComputeKernels kernels("norm", "scaleShift");
  const TensorView x = contiguousOf(call, call.in[0]);
  if (x.numel == 0) return;
  const auto [rows, width] = sizesOf(x, call.integer(0));
  NormScaleShift arguments{operandOf(x),
                           call.out[0].data,
                           static_cast<int>(call.out[0].dtype),
                           parameter(call, 1, x.dtype),
                           parameter(call, 2, x.dtype),
                           rows,
                           width,
                           0,
                           0};
  const int64_t lanes = x.dtype == DType::kFloat64 ? 2 : 8;
  arguments.packed = isPacked(width, lanes, {x.data, arguments.y, arguments.weight.data, arguments.bias.data});
  arguments.threads = threadsFor(width, arguments.packed ? lanes : 4);
  const int64_t groups = kBlock / arguments.threads;
  launchRounds(kernels.of(x.dtype), (rows + groups - 1) / groups, arguments);
}

}  // namespace gradus::cuda
