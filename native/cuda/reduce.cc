// Reductions: chooses the kernel by where neighbours in memory go, and into how many parts the elements behind an
// output are cut, by the shape alone.
#include "kernels/reduce.h"

#include <cmath>

#include "../core/geometry.h"
#include "launch.h"
#include "views.h"

namespace gradus::cuda {
namespace {

constexpr int64_t kMost = int64_t{1} << 31;    // outputs, and elements behind each, exclusive: see Divider
constexpr unsigned kShortRow = 1024;           // a warp is enough
constexpr uint64_t kEnoughThreads = 64 << 10;  // a device of 32 multiprocessors is full; the same on every device,
                                               // so that results are the same, too
constexpr unsigned kColumnThreads = 64;        // of a block: packed columns are few, and are to reach all of a device
constexpr unsigned kLeastOfPart = 256;         // elements a thread's worth of merging is small against

enum Form { kRows, kWarps, kColumns };

Kernel& kernelOf(Form form, int type) {
#define GRADUS_FORM(form)                                                                 \
  {                                                                                       \
    {"reduce", "gradus_reduce_" form "_f32"}, {"reduce", "gradus_reduce_" form "_f64"}, { \
      "reduce", "gradus_reduce_" form "_i64"                                              \
    }                                                                                     \
  }
  static Kernel kernels[3][3] = {GRADUS_FORM("rows"), GRADUS_FORM("warps"), GRADUS_FORM("columns")};
#undef GRADUS_FORM
  return kernels[form][type];
}

Kernel& finishKernel(int type) {
  static Kernel floating("reduce", "gradus_reduce_finish_f64"), whole("reduce", "gradus_reduce_finish_i64");
  return type == 2 ? whole : floating;
}

void setDims(const Loop& loop, size_t bytes, int& rank, Divider* sizes, long long* strides) {
  rank = loop.rank;
  for (int d = 0; d < loop.rank; ++d) {
    sizes[d] = dividerOf(static_cast<unsigned>(loop.sizes[d]));
    strides[d] = loop.strides[1][d] * static_cast<int64_t>(bytes);
  }
}

bool hasIntegerForm(Fold fold) {
  return fold == Fold::kSum || fold == Fold::kProduct || fold == Fold::kMaximum || fold == Fold::kMinimum ||
         fold == Fold::kAny || fold == Fold::kAll;
}

// Whether every output's elements are packs, each on a boundary of 16 bytes or of its own length.
bool isPacked(const Geometry& geometry, const TensorView& in) {
  const Loop &kept = geometry.kept, &reduced = geometry.reduced;
  if (reduced.rank != 1 || reduced.strides[1][0] != 1 || geometry.count % kReducePack != 0) return false;
  const int64_t boundary = std::min<int64_t>(16 / static_cast<int64_t>(itemSize(in.dtype)), kReducePack);
  for (int d = 0; d < kept.rank; ++d) {
    if (kept.strides[1][d] % boundary != 0) return false;
  }
  return reinterpret_cast<uintptr_t>(in.data) % (static_cast<uintptr_t>(boundary) * itemSize(in.dtype)) == 0;
}

// Whether outputs are packs of neighbours, each on a boundary of its length, and so is what is folded into them.
bool hasPackedColumns(const Geometry& geometry, const TensorView& in, const TensorView& out) {
  const Loop &kept = geometry.kept, &reduced = geometry.reduced;
  const auto size = static_cast<int64_t>(itemSize(in.dtype));
  const int64_t lanes = reduceLanes(static_cast<int>(size));
  if (kept.inner() % lanes != 0 || !isWide(out.data)) return false;
  for (int d = 0; d + 1 < kept.rank; ++d) {
    if (kept.strides[1][d] % lanes != 0) return false;
  }
  for (int d = 0; d < reduced.rank; ++d) {
    if (reduced.strides[1][d] % lanes != 0) return false;
  }
  return reinterpret_cast<uintptr_t>(in.data) % static_cast<uintptr_t>(lanes * size) == 0;
}

void launchPass(const ReducePass& pass, Form form, int type) {
  CudaDevice& device = currentDevice();
  const uint64_t jobs = static_cast<uint64_t>(pass.outputs) * pass.parts;
  if (form == kColumns) {
    const auto lanes = static_cast<uint64_t>(
        pass.packed ? reduceLanes(static_cast<int>(itemSize(static_cast<DType>(pass.dtype)))) : 1);
    ReducePass copy = pass;
    const uint64_t blocks = (jobs / lanes + kColumnThreads - 1) / kColumnThreads;
    device.launch(kernelOf(form, type), static_cast<unsigned>(blocks), kColumnThreads, 0, &copy);
  } else {
    const uint64_t threads = form == kRows ? jobs * kBlock : jobs * 32;
    launchBlocks(device, kernelOf(form, type), (threads + kBlock - 1) / kBlock, pass);
  }
  if (pass.partial) launchBlocks(device, finishKernel(type), (pass.outputs + kBlock - 1) / kBlock, pass);
}

void reduce(const OpCall& call, const Recipe& recipe) {
  const TensorView &in = call.in[0], &out = call.out[0];
  if (out.numel == 0) return;
  const int type = in.dtype == DType::kFloat64 ? 1 : isFloating(in.dtype) ? 0 : 2;
  GRADUS_CHECK(type != 2 || hasIntegerForm(recipe.passes[0].fold), ErrorCode::kDType,
               "%s: not defined for integers: got %s, expected a floating dtype; convert first", call.name,
               dtypeName(in.dtype));
  const Geometry geometry(in, static_cast<uint64_t>(call.attr[0]), false);
  GRADUS_CHECK(geometry.outputs < kMost && geometry.count < kMost, ErrorCode::kShape,
               "%s: too many elements for cuda: got %lld behind each of %lld outputs, expected fewer than 2^31",
               call.name, static_cast<long long>(geometry.count), static_cast<long long>(geometry.outputs));
  ReducePass pass{};
  pass.in = in.as<char>();
  pass.dtype = static_cast<int>(in.dtype);
  pass.outputs = static_cast<unsigned>(geometry.outputs);
  pass.count = static_cast<unsigned>(geometry.count);
  pass.out = out.as<char>();
  pass.outDType = static_cast<int>(out.dtype);
  pass.outSize = static_cast<long long>(itemSize(out.dtype));
  pass.scalar = recipe.scalar;
  pass.attribute = recipe.attribute;
  setDims(geometry.kept, itemSize(in.dtype), pass.keptRank, pass.kept, pass.keptStrides);
  setDims(geometry.reduced, itemSize(in.dtype), pass.reducedRank, pass.reduced, pass.reducedStrides);

  const Form form = geometry.byColumns() ? kColumns : pass.count <= kShortRow ? kWarps : kRows;
  pass.packed = form == kColumns ? hasPackedColumns(geometry, in, out) : isPacked(geometry, in);
  const uint64_t threads = static_cast<uint64_t>(pass.outputs) * (form == kRows ? kBlock : form == kWarps ? 32 : 1);
  const unsigned lanes = form == kRows ? kBlock : form == kWarps ? 32 : 1;
  pass.parts = 1;
  while (threads * pass.parts < kEnoughThreads && pass.count / (2 * pass.parts) >= kLeastOfPart * lanes / 8)
    pass.parts *= 2;
  if (pass.parts > 1) pass.partial = call.scratch<double>(static_cast<size_t>(pass.outputs) * pass.parts);

  double* params = recipe.count > 1 ? call.scratch<double>(pass.outputs) : nullptr;
  for (int i = 0; i < recipe.count; ++i) {
    pass.fold = static_cast<int>(recipe.passes[i].fold);
    pass.finish = static_cast<int>(recipe.passes[i].finish);
    pass.params = i > 0 ? params : nullptr;
    pass.results = i + 1 < recipe.count ? params : nullptr;
    launchPass(pass, form, type);
  }
}

}  // namespace

#include "../core/reduce_calls.h"

}  // namespace gradus::cuda
