// Along one dim: extrema with their indices, and running sums.
#include "kernels/scan.h"

#include "../core/geometry.h"
#include "rows.h"

namespace gradus::cuda {
namespace {

constexpr int64_t kPiece = 16384;      // elements that are worth a block
constexpr int64_t kFewOutputs = 1024;  // that do not fill a device by themselves

// dim -1: over the flattened tensor.
void extreme(const OpCall& call, bool largest, const TensorView* values, const TensorView& indices) {
  static ComputeKernels search("scan", "extreme"), choose("scan", "extreme_pieces");
  const TensorView& in = call.in[0];
  if (indices.numel == 0) return;
  const int64_t dim = call.integer(0);
  const uint64_t dims = dim < 0 ? (uint64_t{1} << in.rank) - 1 : uint64_t{1} << dim;
  const Geometry geometry(in, dims, true);
  ScanExtreme arguments{};
  arguments.in = in.as<char>();
  arguments.dtype = static_cast<int>(in.dtype);
  arguments.largest = largest;
  arguments.outputs = geometry.outputs;
  arguments.count = geometry.count;
  arguments.kept = walkOf(geometry.kept, 1, itemSize(in.dtype));
  arguments.line = walkOf(geometry.reduced, 1, itemSize(in.dtype));
  arguments.values = values ? values->as<char>() : nullptr;
  arguments.itemSize = static_cast<int>(itemSize(in.dtype));
  arguments.indices = indices.as<long long>();
  const bool few = geometry.outputs < kFewOutputs;
  // neighbouring threads take neighbouring outputs where these are neighbours in memory
  arguments.threads = !few && geometry.byColumns() ? 1 : threadsFor(geometry.count, 4);
  arguments.pieces =
      few ? static_cast<int>(std::clamp<int64_t>(geometry.count / kPiece, 1, kFewOutputs / geometry.outputs)) : 1;
  if (arguments.pieces > 1) {
    const size_t count = static_cast<size_t>(arguments.outputs) * arguments.pieces;
    arguments.partialValues = call.workspace->take(8 * count);
    arguments.partialIndices = call.scratch<long long>(count);
  }
  const int64_t items = arguments.outputs * arguments.pieces, groups = kBlock / arguments.threads;
  launchRounds(search.of(in.dtype), (items + groups - 1) / groups, arguments);
  if (arguments.pieces > 1) launchRounds(choose.of(in.dtype), (arguments.outputs + 7) / 8, arguments);
}

struct SumKernels {
  explicit SumKernels(const std::string& type)
      : columns("scan", "gradus_scan_sum_columns_" + type),
        rows("scan", "gradus_scan_sum_" + type),
        chunks("scan", "gradus_scan_chunks_" + type),
        starts("scan", "gradus_scan_starts_" + type) {}
  Kernel columns, rows, chunks, starts;
};

constexpr int64_t kChunk = 8192, kManyLines = 512;

}  // namespace

void run_maxDim(const OpCall& call) { extreme(call, true, &call.out[0], call.out[1]); }
void run_minDim(const OpCall& call) { extreme(call, false, &call.out[0], call.out[1]); }
void run_argmax(const OpCall& call) { extreme(call, true, nullptr, call.out[0]); }
void run_argmin(const OpCall& call) { extreme(call, false, nullptr, call.out[0]); }

void run_cumsum(const OpCall& call) {
  static SumKernels floating("f64"), whole("i64");
  TensorView in = call.in[0], out = call.out[0];
  if (out.numel == 0) return;
  if (in.rank == 0) return run_copy(call);
  const int dim = static_cast<int>(call.integer(0));
  if (call.flag(1)) {  // the same walk from the other end
    for (TensorView* view : {&in, &out}) {
      view->data =
          view->as<char>() + (view->sizes[dim] - 1) * view->strides[dim] * static_cast<int64_t>(itemSize(view->dtype));
      view->strides[dim] = -view->strides[dim];
    }
  }
  const TensorView outRest = without(out, dim), inRest = without(in, dim);
  const TensorView* views[] = {&outRest, &inRest};
  const Loop rest = makeLoop(views, 2);
  ScanSum arguments{};
  arguments.in = in.as<char>();
  arguments.out = out.as<char>();
  arguments.inDType = static_cast<int>(in.dtype);
  arguments.outDType = static_cast<int>(out.dtype);
  arguments.lines = rest.numel;
  arguments.count = in.sizes[dim];
  arguments.inStride = in.strides[dim] * static_cast<int64_t>(itemSize(in.dtype));
  arguments.outStride = out.strides[dim] * static_cast<int64_t>(itemSize(out.dtype));
  arguments.inRest = walkOf(rest, 1, itemSize(in.dtype));
  arguments.outRest = walkOf(rest, 0, itemSize(out.dtype));
  SumKernels& kernels = isFloating(in.dtype) ? floating : whole;
  const bool columns = rest.innerStride(0) == 1 && rest.innerStride(1) == 1 && rest.inner() > 1;
  if (columns && arguments.lines >= kManyLines) {
    return launchRounds(kernels.columns, (arguments.lines + kBlock - 1) / kBlock, arguments);
  }
  arguments.chunk = arguments.lines >= kManyLines ? arguments.count : kChunk;
  arguments.chunks = (arguments.count + arguments.chunk - 1) / arguments.chunk;
  const int64_t items = arguments.lines * arguments.chunks;
  if (arguments.chunks > 1) {
    arguments.starts = call.workspace->take(8 * static_cast<size_t>(items));
    launchRounds(kernels.chunks, items, arguments);
    launchRounds(kernels.starts, (arguments.lines + kBlock - 1) / kBlock, arguments);
  }
  launchRounds(kernels.rows, items, arguments);
}

}  // namespace gradus::cuda
